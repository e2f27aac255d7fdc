"""Images to measure, whatever they come from: drawn from a generator, real ones, or a stranger's samples.

A source has `labels` (int64 [N], None where there are none), `size` (pixels a side), a length, and
`images(indices)`: uint8 [n, C, size, size].
"""

import itertools
import math
import os
import re
import shutil
import tempfile
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

import runtime
import sampler
from image_files import FORMATS, folder_names, image_names, read_image, say_skipped
from sample_files import class_folder
from utils import UserError, npy_header, progress, told

WIDEST = 4096  # pixels a side
MOST = 10**7  # images, whose classes are held in memory


class Drawn:
    """Samples 0 … N - 1 of a generator; sample i depends on the seed, i and its class alone."""

    def __init__(self, generator, parameters, labels):
        self.generator, self.parameters, self.labels = generator, parameters, labels
        self.size = parameters.imsize

    def __len__(self):
        return len(self.labels)

    def images(self, indices):
        return sampler.generate(self.generator, self.parameters, indices, self.labels[indices])


class Real:
    """The images of an `ImageSet`."""

    def __init__(self, image_set):
        self.image_set, self.labels = image_set, image_set.labels
        self.size = image_set.image_shape[-1]
        self._pool = ThreadPoolExecutor(max(1, image_set.parameters.num_workers))

    def __len__(self):
        return len(self.labels)

    def images(self, indices):
        return np.stack([image for image, _ in self._pool.map(self.image_set.__getitem__, indices)])


class Folder:
    """The images in a folder, or in class folders, all of one size, with 1 or 3 `channels` as the real images have.

    The class of a folder is its place in `class_names`, or else the one that `--samples_dir` gives such a name;
    `labels` are None where a folder is neither, and `needs_classes` is False. `exif` turns images as `read_image` does.
    Raises UserError for a folder without images, images both beside and in class folders, of several sizes or not
    square, and a name that is no class.
    """

    def __init__(self, path, channels, class_names=None, needs_classes=False, exif=False):
        self.mode, self.exif = "L" if channels == 1 else "RGB", exif
        skipped, skipped_inside = Counter(), Counter()
        names = folder_names(path, "--samples")
        self.files = [Path(path, name) for name in image_names(path, "--samples", skipped)]
        self.labels = None
        folders = [Path(path, name) for name in names]
        inside = [[folder / file for file in image_names(folder, "--samples", skipped_inside)] for folder in folders]
        counts = list(map(len, inside))
        if self.files and any(counts):
            raise UserError(
                f"--samples {path} holds {len(self.files)} images beside its class folders, which hold {sum(counts)}: "
                "take out those that are not meant"
            )
        if not self.files:
            self.files = list(itertools.chain.from_iterable(inside))
            numbers = _numbers(names, class_names, needs_classes)
            self.labels = None if numbers is None else np.repeat(numbers, counts)
            skipped["folder"] = 0  # they are read
            skipped += skipped_inside
        if not self.files:
            raise UserError(f"--samples {path} holds no images: give a folder of images, or of class folders")
        say_skipped("--samples", path, skipped)
        self.size = _common_size(self.files)

    def __len__(self):
        return len(self.files)

    def images(self, indices):
        return np.stack([self._image(self.files[index]) for index in indices])

    def _image(self, path):
        try:
            return np.atleast_3d(read_image(path, self.exif).convert(self.mode)).transpose(2, 0, 1)
        except Exception as error:  # whatever Pillow trips over in a stranger's file
            raise UserError(f"--samples: {str(path)!r} cannot be read as an image: {error}") from None


def _numbers(names, class_names, needs_classes):
    """The class of each folder; None where one is not known and `needs_classes` is False."""
    strangers = sorted(set(names) - set(class_names or ()))
    if not strangers:
        return [class_names.index(name) for name in names]
    found = [_class_of(name, class_names) for name in names]
    if None not in found:
        return found
    if needs_classes:
        raise UserError(f"--samples: the folder {strangers[0]!r} is neither a number nor a class of the real images")
    return None


def _class_of(folder, class_names):
    """The class whose samples `class_folder` puts into `folder`; None for other folders.

    Of two that agree on the name but not on the number, as where classes have been added, the name counts.
    """
    match = re.fullmatch("([0-9]{1,5})|([0-9]{4,5})-.+", folder)
    if not match:
        return None
    number = int(match[1] or match[2])
    if match[1] or class_names is None:
        return number
    labels = [label for label, own in enumerate(class_names) if class_folder(number, own) == folder]
    return number if number in labels else next(iter(labels), None)


def _common_size(files):
    sizes = {}
    for path in progress(files, title="sizes of the samples", unit="img", shown=runtime.rank() == 0):
        try:
            with Image.open(path, formats=FORMATS) as image:
                sizes.setdefault(image.size, path)
        except Exception as error:  # as above
            raise UserError(f"--samples: {str(path)!r} cannot be read as an image: {error}") from None
        if len(sizes) > 1:
            (first, a), (second, b) = sizes.items()
            raise UserError(
                f"--samples mixes sizes: {str(a)!r} has {first[0]}x{first[1]} pixels, "
                f"{str(b)!r} {second[0]}x{second[1]}"
            )
    ((width, height),) = sizes
    _check_side(height, width)
    return width


class NPZ:
    """The samples in a `.npz` as guided-diffusion writes them: `arr_0` uint8 [N, H, W, C], `arr_1` classes or none.

    They stay on disk: memory does not grow with their number. Raises UserError for any other file, and for colours
    where the real images, of 1 or 3 `channels`, are gray.
    """

    def __init__(self, path, channels):
        try:
            with zipfile.ZipFile(path) as archive:
                self._images = _map(path, archive, "arr_0.npy")
                has_labels = "arr_1.npy" in archive.namelist()
                self.labels = _labels(archive, len(self._images)) if has_labels else None
        except UserError:
            raise
        except Exception as error:  # a stranger's file may trip anything above
            raise UserError(
                f"--samples {path} cannot be read as .npz with arr_0, uint8 [N, H, W, 1 or 3]: {told(error)}"
            ) from None
        _, height, self.size, found = self._images.shape
        _check_side(height, self.size)
        if found > channels:
            raise UserError(f"--samples {path} has images in colour, and the data set to measure against has gray ones")

    def __len__(self):
        return len(self._images)

    def images(self, indices):
        return np.ascontiguousarray(self._images[indices].transpose(0, 3, 1, 2))


def _map(path, archive, name):
    """The member `name` as a read-only array on disk; a compressed one is unpacked into a temporary file first."""
    info = archive.getinfo(name)
    with archive.open(info) as member:
        shape, fortran, dtype = npy_header(member)
        start = member.tell()
        if dtype != np.uint8 or fortran or len(shape) != 4 or shape[3] not in (1, 3) or min(shape) < 1:
            raise ValueError(f"it is {dtype} {list(shape)}{' in Fortran order' * fortran}")
        if shape[0] > MOST:
            raise ValueError(f"{shape[0]} images are too many")
        size = math.prod(shape)
        if info.file_size != start + size:
            raise ValueError("it is cut short")
        if info.compress_type == zipfile.ZIP_STORED:
            return np.memmap(path, np.uint8, "r", _offset(path, info) + start, shape)
        if size > shutil.disk_usage(tempfile.gettempdir()).free * 0.9:
            raise ValueError(f"unpacked it takes {size} bytes, more than {tempfile.gettempdir()} has")
        unpacked = tempfile.TemporaryFile()  # noqa: SIM115, the map below keeps it
        shutil.copyfileobj(member, unpacked)
        unpacked.flush()
        return np.memmap(unpacked, np.uint8, "r", 0, shape)


def _offset(path, info):
    """Where the content of a stored member begins: after its local header, a name and an extra field."""
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        header = file.read(30)
    offset = info.header_offset + 30 + sum(int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
    if offset + info.file_size > os.path.getsize(path):
        raise ValueError("it is cut short")
    return offset


def _labels(archive, count):
    with archive.open("arr_1.npy") as member:
        shape, _, dtype = npy_header(member)
        if dtype.kind not in "iu" or shape != (count,):
            raise ValueError(f"arr_1 is {dtype} {list(shape)}, not one whole number for each of {count} images")
        content = member.read(count * dtype.itemsize)
        if len(content) < count * dtype.itemsize:
            raise ValueError("arr_1 is cut short")
        return np.frombuffer(content, dtype).astype(np.int64)


def _check_side(height, width):
    if height != width or height > WIDEST:
        raise UserError(f"--samples has images of {width}x{height} pixels, not square ones of at most {WIDEST}")


def open_samples(path, channels, class_names=None, needs_classes=False, exif=False):
    """The source of `--samples`, a folder or a `.npz` file, to measure against images of 1 or 3 `channels`.

    `exif` turns the images of a folder as their EXIF orientation says.
    """
    return Folder(path, channels, class_names, needs_classes, exif) if Path(path).is_dir() else NPZ(path, channels)
