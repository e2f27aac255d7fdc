"""StyleGAN's data sets: image files in a ZIP or a folder, and their classes in `dataset.json`."""

import io
import json
import os

import numpy as np
from PIL import Image

import system
from formats.archives import read_member
from formats.image_files import EXTENSIONS
from utils import one_line

STYLEGAN_LABELS = "dataset.json"
MOST_CLASSES = 65536
WIDEST = 4096  # pixels a side


def images_among(members):
    """The images among `ZipMembers`, in StyleGAN's order: by name. Raises ValueError if there are none."""
    names = members.names
    places = [place for place, name in enumerate(names) if name.lower().endswith(EXTENSIONS)]
    if not places:
        raise ValueError("it holds no images")
    return members.chosen(sorted(places, key=names.__getitem__))


class OtherKind(ValueError):
    """The size or the number of channels of an image differs from those of the first image."""


class PNGs:
    """PNG files of one size in a ZIP: `pngs[i]` is uint8 [H, W, 1 or 3]. Threads and forked processes may share it."""

    def __init__(self, path, members):
        self.members, self.descriptor = members, system.open_to_read(path)
        self.shape = None
        self.shape = (len(members), *self[0].shape)

    def __len__(self):
        return len(self.members)

    def __getitem__(self, index):
        member = self.members[index]
        try:
            with Image.open(io.BytesIO(read_member(self.descriptor, member)), formats=("PNG",)) as image:
                shape = (image.height, image.width, {"L": 1, "RGB": 3}.get(image.mode))
                if self.shape is None and (shape[2] is None or max(shape) > WIDEST):
                    raise ValueError(f"it is {_in_words(image)}, not gray or RGB of at most {WIDEST}x{WIDEST} pixels")
                if self.shape is not None and shape != self.shape[1:]:
                    _, height, width, channels = self.shape
                    raise OtherKind(
                        f"{member.name!r:.200} has {_in_words(image)}, the first has {width}x{height} pixels in "
                        f"{'RGB' if channels == 3 else 'gray'}"
                    )
                return np.asarray(image).reshape(shape)
        except OtherKind:
            raise
        except Exception as error:  # Pillow may raise anything for a stranger's file
            raise ValueError(f"{member.name!r:.200}: {one_line(error)}") from None

    def __del__(self):
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def _in_words(image):
    return f"{image.width}x{image.height} pixels, mode {image.mode}"


def labels_limit(count):
    """The largest number of bytes of a `dataset.json` for `count` images."""
    return 2**16 + 1024 * count


def stylegan_labels(content, names):
    """The classes int64 [N] of the files `names` in `content`, that of StyleGAN's `dataset.json`.

    It holds {"labels": [[file name, class], …]}, classes from 0. Raises ValueError for anything else.
    """
    if len(content) > labels_limit(len(names)):
        raise ValueError(f"{STYLEGAN_LABELS} has {len(content)} bytes, too many for {len(names)} images")
    try:
        found = json.loads(content)
    except RecursionError:
        raise ValueError(f"{STYLEGAN_LABELS} is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{STYLEGAN_LABELS} is no JSON: {one_line(error)}") from None
    pairs = found.get("labels") if isinstance(found, dict) else None
    if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 and type(p[0]) is str for p in pairs):
        raise ValueError(f"{STYLEGAN_LABELS} has no classes: its `labels` must be a list of [file name, class]")
    of_name = dict(pairs)
    labels = [of_name.get(name) for name in names]
    for name, label in zip(names, labels, strict=True):
        if label is None:
            raise ValueError(f"{STYLEGAN_LABELS} has no class for {name!r:.200}")
        if type(label) is not int or not 0 <= label < MOST_CLASSES:
            raise ValueError(
                f"{STYLEGAN_LABELS} gives {name!r:.200} the class {label!r:.40}, not a whole number from 0"
            )
    return np.array(labels, np.int64)
