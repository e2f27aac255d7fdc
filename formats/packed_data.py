"""Opens images packed into one file: a `.npz` as guided-diffusion writes it, or StyleGAN's `.zip` of PNGs.

The images stay on disk. `pack.py` writes both kinds. It adds the member `pack.json` (see `About`).
"""

import json
import math
import os
import shutil
import tempfile
import zipfile
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np

from formats.archives import read_member, zip_members
from formats.stylegan_data import MOST_CLASSES, STYLEGAN_LABELS, PNGs, images_among, stylegan_labels
from utils import UserError, npy_header, one_line, printable, shell_word

MOST = 10**7  # images; their classes are held in memory
ABOUT = "pack.json"
PACKED = (".npz", ".zip")
FORMAT = "packed images 1"
ABOUT_LIMIT = 2**28  # bytes of pack.json
LONGEST_PATH = 4096  # characters
SHORT, FEW = 80, 50  # the most characters of a name or a digest in a fingerprint, and the most entries


@dataclass(frozen=True)
class About:
    """The content of `pack.json` in a packed file.

    `by_class`: whether the images are ordered by class. `pixels`: the options that decide the pixels, by name.
    `fingerprint`: the source's. `left_out`: for each image that could not be read, its place, its class, its file and
    the reason; another image is in its place. `label_list`: the file of --label_list.
    """

    dataset: str
    split: str
    source: str
    classes: str | None
    class_names: list
    by_class: bool
    pixels: dict
    fingerprint: dict
    left_out: list = field(default_factory=list)
    label_list: str | None = None

    def to_json(self):
        return json.dumps({"format": FORMAT} | asdict(self), indent=1).encode()


class Packed(NamedTuple):
    """An open packed file. `images[i]`: uint8 [H, W, 1 or 3]. `labels`: int64 [N]. `about`: an `About`, or None."""

    images: object
    labels: np.ndarray
    class_names: tuple
    about: About | None


def is_packed(path):
    """Whether `path` names a file that `open_packed` should open."""
    return path is not None and str(path).lower().endswith(PACKED) and not os.path.isdir(path)


def open_packed(option, path):
    """The `Packed` in the file `path`, which `option` gave. Raises UserError for a wrong or hostile file."""
    try:
        if str(path).lower().endswith(".npz"):
            return _open_npz(path)
        return _open_zip(path)
    except Exception as error:  # a stranger's file may cause any error
        kind = "a .npz with arr_0, uint8 [N, H, W, 1 or 3], and arr_1, the classes"
        if not str(path).lower().endswith(".npz"):
            kind = f"a .zip of PNG files with their classes in {STYLEGAN_LABELS}"
        raise UserError(f"{option} {path} cannot be read as {kind}: {one_line(error)}") from None


def pixel_options(parameters):
    """{name: value} of the options that decide the pixels of images."""
    p = parameters
    return {
        "imsize": p.imsize,
        "centercrop": p.centercrop,
        "dont_resize": p.dont_resize,
        "resize_filter": "none" if p.dont_resize else p.filter,
        "exif": p.exif,
    }


def check_packed(packed, parameters, option, path, split):
    """Raise UserError unless the `Packed` images are those that the `Parameters` ask for; `option` gave `path`."""
    p, about = parameters, packed.about
    _, height, width, channels = packed.images.shape
    # Published sets have their own classes, training images and test images.
    if not p.reads_folders:
        held = (about.dataset, about.split) if about else ("images of an unknown origin", split)
        if held[0] != p.dataset:
            raise UserError(f"{option} {path} holds {held[0]}, not {p.dataset}: give another file or another --dataset")
        if held[1] != split:
            names = {"train": "training", "test": "test"}
            raise UserError(
                f"{option} {path} holds the {names.get(held[1], held[1])} images, not the {names[split]} images of "
                f"{p.dataset}: give these by {'--data_path' if split == 'train' else '--test_data_path'}"
            )
    if channels != p.channels:
        kinds = {1: "gray", 3: "RGB"}
        raise UserError(
            f"{option} {path} has {kinds[channels]} images, but --dataset {p.dataset} has {kinds[p.channels]} images: "
            "give another file or another --dataset"
        )
    # The pixels.
    if about and (wrong := {k: v for k, v in pixel_options(p).items() if about.pixels.get(k) != v}):
        asked, packed_with = (
            " ".join(f"--{name} {values.get(name)}" for name in wrong) for values in (pixel_options(p), about.pixels)
        )
        raise UserError(
            f"{option} {path} was packed with {printable(packed_with)}, but this command asks for {asked}: give the "
            f"same, or make another file: {_repacking(p, about)}"
        )
    if p.fast_decode:
        raise UserError(f"--fast_decode has no effect on packed images, such as {option} {path}: leave it out")
    if (height, width) != (p.imsize, p.imsize):
        another = f"pack its source with --imsize {p.imsize}"
        if not about and p.reads_folders and str(path).lower().endswith(".zip"):
            another = f"make another file: {pack_command(p, option, path)}"
        raise UserError(
            f"{option} {path} has images of {width}x{height} pixels, but --imsize is {p.imsize}: give --imsize "
            f"{width}, or {another}"
        )


def _repacking(p, about):
    """The command that packs the source of `about` again, and where to run it if its paths are relative."""
    option = "--test_data_path" if about.split == "test" else "--data_path"
    command = pack_command(p, option, about.source, about.label_list, about.classes)
    paths = [path for path in (about.source, about.label_list) if path]
    where = "" if all(map(os.path.isabs, paths)) else "; run it in the folder where the file was packed"
    return command + where


def pack_command(p, option, source, label_list=None, classes=None):
    """The command of pack.py that packs `source` with the pixels that the `Parameters` `p` ask for.

    `option`: "--data_path" or "--test_data_path". `label_list` and `classes`: the values of these options, or None.
    """
    options = [f"--dataset {p.dataset}", f"{option} {_quoted(source, 'SOURCE')}"]
    options += [f"--label_list {_quoted(label_list, 'LIST')}"] if label_list else []
    options += [f"--classes {_quoted(classes, 'CLASSES')}"] if classes else []
    for name, value in pixel_options(p).items():
        if value not in (False, "none"):
            options.append(f"--{name}" if value is True else f"--{name} {value}")
    return f"python pack.py {' '.join(options)} --out FILE"


def _quoted(text, name):
    """`text` as one word of a command; `name` if it is empty, or if it cannot stand in a message."""
    return shell_word(text) if text and len(text) <= LONGEST_PATH and text.isprintable() else name


# .npz


def _open_npz(path):
    images, labels = map_images(path)
    if labels is None:
        raise ValueError("it has no arr_1")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        about = _about(_limited(archive, ABOUT)) if ABOUT in names else None
        class_names = about.class_names if about else None
        if class_names is None and "class_names.npy" in names:
            class_names = _names(archive)
    return Packed(images, *_checked(labels, class_names, about), about)


def map_images(path):
    """(`arr_0`, a read-only array on disk, uint8 [N, H, W, 1 or 3]; `arr_1`, the classes int64 [N], or None).

    Memory does not grow with the number of images, whatever the file claims. Raises one of many exceptions, ValueError
    as a rule, for any other file.
    """
    with zipfile.ZipFile(path) as archive:
        images = _map(path, archive, "arr_0.npy")
        has_classes = "arr_1.npy" in archive.namelist()
        return images, _labels(archive, len(images)) if has_classes else None


def _map(path, archive, name):
    """The member `name` as a read-only array on disk. A compressed one is unpacked into a temporary file first."""
    # Check the header before any memory or disk space is used.
    info = archive.getinfo(name)
    with archive.open(info) as member:
        shape, fortran, dtype = npy_header(member)
        start = member.tell()
        if dtype != np.uint8 or fortran or len(shape) != 4 or shape[3] not in (1, 3) or min(shape) < 1:
            raise ValueError(f"arr_0 is {dtype} {list(shape)}{' in Fortran order' * fortran}")
        if shape[0] > MOST:
            raise ValueError(f"{shape[0]} images are too many")
        size = math.prod(shape)
        if info.file_size != start + size:
            raise ValueError("it is cut short")
        if info.compress_type == zipfile.ZIP_STORED:
            return np.memmap(path, np.uint8, "r", _offset(path, info) + start, shape)
        if size > shutil.disk_usage(tempfile.gettempdir()).free * 0.9:
            raise ValueError(f"unpacked it takes {size} bytes, more than {tempfile.gettempdir()} has")
        unpacked = tempfile.TemporaryFile()  # noqa: SIM115, the array below keeps it open
        shutil.copyfileobj(member, unpacked)
        unpacked.flush()
        return np.memmap(unpacked, np.uint8, "r", 0, shape)


def _offset(path, info):
    """The offset in the file of the content of an uncompressed member. Its header, name and extra field come first."""
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


def _names(archive):
    """The names of the classes in the member `class_names.npy`, an array of text."""
    with archive.open("class_names.npy") as member:
        shape, _, dtype = npy_header(member)
        size = math.prod(shape) * dtype.itemsize
        if dtype.kind != "U" or len(shape) != 1 or not 0 < shape[0] <= MOST_CLASSES or size > ABOUT_LIMIT:
            raise ValueError(f"class_names is {dtype} {list(shape)}, not a list of text")
        content = member.read(size)
        if len(content) < size:
            raise ValueError("class_names is cut short")
        return np.frombuffer(content, dtype).tolist()


# .zip


def _open_zip(path):
    members = zip_members(path)
    about, labels = members.find(ABOUT), members.find(STYLEGAN_LABELS)
    if labels is None:
        raise ValueError(f"it has no {STYLEGAN_LABELS}")
    images = PNGs(path, images_among(members))
    about = _about(read_member(images.descriptor, about)) if about else None
    labels = stylegan_labels(read_member(images.descriptor, labels), images.members.names)
    return Packed(images, *_checked(labels, about.class_names if about else None, about), about)


# pack.json


def _limited(archive, name):
    if archive.getinfo(name).file_size > ABOUT_LIMIT:
        raise ValueError(f"{name} is too large")
    return archive.read(name)


def _about(content):
    """The `About` in the bytes of a `pack.json`. Raises ValueError if it has another form."""
    try:
        values = json.loads(content)
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ValueError("it has another format")
        about = About(**values)
    except TypeError:
        raise ValueError(f"{ABOUT} has other entries than this version writes") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{ABOUT}: {one_line(error)}") from None
    given = [text for text in (about.classes, about.label_list) if text is not None]
    entries = about.left_out if isinstance(about.left_out, list) else [None]
    if not (
        all(type(text) is str for text in (about.dataset, about.split, about.source, *given))
        and isinstance(about.class_names, list)
        and 0 < len(about.class_names) <= MOST_CLASSES
        and all(type(name) is str for name in about.class_names)
        and type(about.by_class) is bool
        and isinstance(about.pixels, dict)
        and _is_fingerprint(about.fingerprint)
        and all(isinstance(entry, list) and list(map(type, entry)) == [int, int, str, str] for entry in entries)
    ):
        raise ValueError(f"{ABOUT} has values of wrong types")
    return about


def _is_fingerprint(values):
    """Whether `values` is a short fingerprint. Checkpoints keep it, and messages quote it."""

    def is_short(text):
        return type(text) is str and len(text) <= SHORT and text.isprintable()

    return (
        isinstance(values, dict)
        and len(values) <= FEW
        and all(is_short(name) for name in values)
        and all(is_short(value) or (type(value) is int and abs(value) < 2**63) for value in values.values())
    )


def _checked(labels, class_names, about):
    """(labels, class names). Raises ValueError if they do not fit together."""
    if class_names is None:
        if labels.max() >= MOST_CLASSES:
            raise ValueError(f"a class is {labels.max()}, which is too many classes")
        class_names = [str(number) for number in range(labels.max() + 1)]
    if labels.min() < 0 or labels.max() >= len(class_names):
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"an image has the class {wrong}, but there are {len(class_names)} classes, from 0")
    if about and any(
        not (0 <= place < len(labels) and 0 <= label < len(class_names)) for place, label, _, _ in about.left_out
    ):
        raise ValueError(f"{ABOUT} names images or classes that do not exist")
    return labels, tuple(class_names)
