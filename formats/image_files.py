"""Finds image files in class folders, reads them safely and resizes them."""

import contextlib
import errno
import functools
import io
import os
import struct
import sys
import warnings
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from processes.collectives import rank
from utils import RUN_FILE, UserError, plural

EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".gif", ".ppm", ".tif", ".tiff")
# The only formats that Pillow may read, whatever the name of the file. Some of its other readers run programs: the
# reader of EPS runs Ghostscript.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "PPM", "TIFF")
PIXEL_LIMIT = 2**26  # 256 MB once decoded
WHOLE = 2**24  # bytes; a smaller file is read at once for speed
PLURALS = {
    "link to itself": "links to themselves", "image beside the classes": "images beside the classes", "more": "more"
}  # fmt: skip
TURNS = {  # EXIF orientation: the operation that makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION, BITS, PHOTOMETRIC, SAMPLE_FORMAT = 0x0112, 0x0102, 0x0106, 0x0153  # tags of TIFF and EXIF
HEADER_THREADS = 32  # more than processors: they wait for the file system most of the time

WANTED = "give the folder that holds one folder of images for each class"
# Files of published data sets, without .gz: the name in --dataset. MNIST and Fashion-MNIST have the same files.
PUBLISHED_FILES = {
    "train-images-idx3-ubyte": "mnist, or fashion-mnist",
    "t10k-images-idx3-ubyte": "mnist, or fashion-mnist",
    "data_batch_1": "cifar10",
    "test_batch": "cifar10",
    "cifar-10-batches-py": "cifar10",
    "cifar-10-python.tar": "cifar10",
}

_said = set()

warnings.filterwarnings("ignore", module="PIL")  # Pillow warns of odd files; callers name the unreadable ones


def class_folders(path, option, skipped=None):
    """Names of the class folders in `path`, sorted. `option` is the option that gave `path`, for messages.

    `skipped` is a Counter. The number of broken links and of images beside the class folders is added to it. Raises
    UserError for fewer than two class folders, for class folders without any image, and for a link to itself. The
    message describes the folder.
    """
    if path is None:
        raise UserError(f"{option} is missing: {WANTED}")
    # List the folders, without those of runs.
    classes, files, others = _listing(path, option)
    if loops := others["link to itself"]:
        raise UserError(f"{option} {path}: {loops[0]} is a link to itself; remove it, or link it to a folder of images")
    classes = _without_runs(path, classes, option)
    if not classes:
        raise UserError(
            f"{option} {path} holds no class folders but {plural(len(files), 'file')}: {WANTED}{_data_set_of(files)}"
        )
    if skipped is not None:
        beside = {"broken link": len(others["broken link"]), "image beside the classes": sum(map(_is_image, files))}
        skipped.update(beside)
    # Refuse the folder unless a class folder holds an image.
    with_folders = []  # names of class folders that hold folders instead
    for name in classes:
        inner, files, _ = _listing(os.path.join(path, name), option)
        if any(map(_is_image, files)):
            break
        with_folders += [name] if inner else []
    else:
        if with_folders:
            raise UserError(
                f"{option} {path} is one level too high: {', '.join(with_folders[:3])} "
                f"{'holds' if len(with_folders) == 1 else 'hold'} folders, not images; give "
                f"{os.path.join(path, with_folders[-1])} or the like"
            )
        raise UserError(
            f"{option} {path} holds the folders {', '.join(classes[:3])}{', ...' * (len(classes) > 3)} and in them no "
            f"images ({' '.join(EXTENSIONS)}): {WANTED}{_data_set_of(classes)}"
        )
    if len(classes) == 1:
        raise UserError(f"{option} {path} holds one class folder only, {classes[0]}: two classes or more are needed")
    return classes


def _data_set_of(names):
    """The end of a message: "; did you mean --dataset …?" if files or folders of a published data set have `names`."""
    found = [PUBLISHED_FILES[plain] for name in names if (plain := name.removesuffix(".gz")) in PUBLISHED_FILES]
    return f"; did you mean --dataset {found[0]}?" if found else ""


def refuse_single_image(option, path):
    """Raise UserError if `path`, which `option` gave instead of a folder, is a file with an image's extension."""
    if os.path.isfile(path) and _is_image(os.path.basename(path)):
        raise UserError(f"{option} {path} is one image: {WANTED}")


def image_names(folder, option, skipped=None):
    """Names of the image files in `folder`, sorted.

    `skipped` is a Counter by kind. The number of all other entries is added to it, except hidden ones.
    """
    folders, files, others = _listing(folder, option)
    images = list(filter(_is_image, files))
    if skipped is not None:
        skipped.update(_kind_of_file(name) for name in files if not _is_image(name))
        skipped.update({kind: len(names) for kind, names in others.items()} | {"folder": len(folders)})
        for name in others["link to itself"]:
            say_once(f"{os.path.join(folder, name)!r} is left out: it is a link to itself")
    return images


def _without_runs(path, folders, option):
    """The names `folders` in `path`, without folders that hold training runs. A line on stderr names those."""
    runs = [name for name in folders if _holds_runs(os.path.join(path, name))]
    if runs:
        shown = ", ".join(runs[:3]) + ", ..." * (len(runs) > 3)
        say_once(f"{option} {path}: {shown} hold training runs, so they are not used as classes")
    return [name for name in folders if name not in runs]


def _holds_runs(path):
    """Whether the folder `path` is a run's folder, or holds folders of runs, and holds no images itself."""
    found = False
    with contextlib.suppress(OSError), os.scandir(path) as entries:  # an unreadable folder: `_listing` reports it
        for entry in entries:
            if _is_image(entry.name):
                return False
            found |= entry.name == RUN_FILE or (entry.is_dir() and os.path.isfile(os.path.join(entry.path, RUN_FILE)))
    return found


def folder_names(path, option):
    """Names of the folders in `path`, sorted, without hidden ones."""
    return _listing(path, option)[0]


def say_skipped(option, path, skipped):
    """Print once how many files in `path` are not read. `skipped` is a Counter by kind; `option` gave `path`."""
    kinds = sorted((+skipped).items(), key=lambda item: (not item[0].startswith("."), -item[1], item[0]))
    if len(kinds) > 10:  # a folder with random extensions
        kinds = [*kinds[:9], ("more", sum(count for _, count in kinds[9:]))]
    if kinds:
        found = [f"{count} {kind if count == 1 else PLURALS.get(kind, f'{kind}s')}" for kind, count in kinds]
        say_once(f"skipped in {option} {path}: {', '.join(found)}")


def say_once(line):
    """Print `line` on stderr, on rank 0, unless this process has printed it before."""
    if rank() == 0 and line not in _said:
        _said.add(line)
        print(line, file=sys.stderr, flush=True)


def _listing(path, option):
    """Of the entries in `path` that are not hidden: (sorted folder names, sorted file names, other names by kind)."""
    found = defaultdict(list)
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    found[_kind_of_entry(entry)].append(entry.name)
    except OSError as error:
        reason = "it is a link to itself" if error.errno == errno.ELOOP else error.strerror
        raise UserError(f"{option} {path} cannot be read: {reason}") from None
    return sorted(found.pop("folder", [])), sorted(found.pop("file", [])), found


def _kind_of_entry(entry):
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "link to itself"
        raise
    broken = entry.is_symlink() and not os.path.exists(entry.path)
    return "broken link" if broken else "special file"  # such as a pipe x.png: reading it might wait for ever


def _kind_of_file(name):
    extension = os.path.splitext(name)[1].lower()
    return f"{extension} file" if 1 < len(extension) <= 10 and extension.isprintable() else "other file"


def _is_image(name):
    return name.lower().endswith(EXTENSIONS)


def read_image(path, exif=False, smallest=None, square=False):
    """The image in a file (its first frame) as a Pillow image in RGB. `path`: its path, or an open binary file.

    - Transparent pixels become white.
    - Gray of 9 to 16 bits keeps its upper 8 bits, and so does each channel of 16-bit colour.
    - CMYK, YCbCr and LAB become RGB as Pillow converts them; gamma and colour profiles are not applied, as in
      torchvision.
    - With `smallest`, a number of pixels, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size. Both sides keep at
      least `smallest` pixels. This is faster. The pixels differ from those of the whole image, resized. With
      `square`, such an image is also cropped to its middle square, which makes resizing it faster.
    - With `exif` the image is turned and mirrored by the EXIF orientation in a JPEG, PNG or WebP. Without it the
      orientation is ignored, as in torchvision's ImageFolder. Pillow always applies the orientation of a TIFF.

    Raises one of Pillow's many exceptions if the file is not an image or is cut short. Raises ValueError if

    - the image has more than PIXEL_LIMIT pixels,
    - its values for black and white are unknown: floating-point, signed or 32-bit numbers,
    - Pillow would misread its transparent colour, because the colour does not have 8 bits a channel.
    """
    with Image.open(_content(path) if smallest else path, formats=FORMATS) as image:
        _check_pixels(image.size)
        is_smaller = False
        if smallest and image.format == "JPEG":
            whole = image.size
            image.draft(None, (smallest, smallest))
            is_smaller = image.size != whole
        packing = str(image.tile[0][3]) if image.tile else ""  # such as L;4 and RGB;16B: not 8 bits a channel
        image.load()
        _check_range(image)
        if "transparency" in image.info and ";" in packing and image.mode != "P":
            raise ValueError("its transparent colour does not have 8 bits: convert it to a PNG with 8 bits a channel")
        turn = TURNS.get(_orientation(image.info.get("exif"))) if exif else None
        if image.mode.startswith("I"):
            image = _upper_8_bits(image)
        if image.mode.endswith(("A", "a")) or "transparency" in image.info:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        if image.mode != "RGB":
            image = image.convert("RGB")
        if square and is_smaller:
            side = min(image.size)
            left, top = ((length - side) // 2 for length in image.size)
            image = image.crop((left, top, left + side, top + side))
        return image if turn is None else image.transpose(turn)


def _content(path):
    """The content of a small file, in memory; otherwise `path`. Pillow reads a path in pieces of 64 KB: slower."""
    if hasattr(path, "read"):
        return path
    with open(path, "rb") as file:
        return io.BytesIO(file.read()) if os.fstat(file.fileno()).st_size < WHOLE else path


def _check_range(image):
    """Raise ValueError if the values for black and white are unknown."""
    is_tiff = image.format == "TIFF"
    signed_or_float = is_tiff and set(image.tag_v2.get(SAMPLE_FORMAT, (1,))) != {1}
    if signed_or_float or image.mode == "F" or (is_tiff and image.mode == "I"):
        raise ValueError(
            "its pixels are floating-point, signed or 32-bit numbers, so its values for black and white are unknown: "
            "convert it to a PNG with 8 or 16 bits a channel"
        )


def _upper_8_bits(image):
    """A gray image of 9 to 16 bits, reduced to its upper 8 bits."""
    if image.format != "TIFF":
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    gray = (np.asarray(image) >> image.tag_v2[BITS][0] - 8).clip(0, 255).astype(np.uint8)
    return Image.fromarray(255 - gray if image.tag_v2.get(PHOTOMETRIC) == 0 else gray)  # 0: white is 0


def _orientation(exif):
    """The orientation, 1 to 8, in a block of EXIF data; 1 if there is none or if the block is damaged."""
    block = (exif or b"").removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", block, place)
            if tag == ORIENTATION:
                return value if kind == 3 and value in TURNS else 1  # 3: a number of 16 bits
    except struct.error:  # the block is cut short
        pass
    return 1


@functools.cache
def count_turned(paths):
    """The number of images among the files `paths` with an EXIF orientation other than 1. Reads only headers, once."""
    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        return sum(pool.map(is_turned, paths))


def is_turned(path):
    """Whether the image in a file has an EXIF orientation other than 1. `path`: its path, or an open binary file."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return _orientation(image.info.get("exif")) != 1
    except Exception:  # Pillow may raise anything for a stranger's file; reading the image later reports it
        return False


def fit(image, parameters):
    """A Pillow image resized and cropped by the options: uint8 [C, imsize, imsize].

    - By default the image is resized to `imsize` x `imsize`, whatever its shape (the Paddle SAGAN replication).
    - With `centercrop` its shorter side is resized to `imsize`. Then the middle is cut out (the PyTorch SAGAN
      replication and both ACGAN replications).
    - With `dont_resize` it is not resized. With `centercrop` as well, its middle is cut out.

    The filter is `parameters.filter`. Pillow antialiases when it shrinks an image. Raises UserError if the result has
    another size. Raises ValueError if a long and thin image would have more than PIXEL_LIMIT pixels before it is
    cropped.
    """
    p = parameters
    if not p.dont_resize:
        shorter = min(image.size)
        new = [p.imsize * side // shorter if p.centercrop else p.imsize for side in image.size]
        _check_pixels(new)
        image = image.resize(new, Image.Resampling[p.filter.upper()])
    if p.centercrop and min(image.size) >= p.centercrop_size:
        left, top = (round((side - p.centercrop_size) / 2) for side in image.size)
        image = image.crop((left, top, left + p.centercrop_size, top + p.centercrop_size))
    if image.size != (p.imsize, p.imsize):
        raise UserError(
            f"--dont_resize leaves an image with {image.width}x{image.height} pixels, but the networks read "
            f"{p.imsize}x{p.imsize}: leave --dont_resize out"
        )
    return np.asarray(image).reshape(p.imsize, p.imsize, -1).transpose(2, 0, 1)


def fit_in_words(parameters):
    """A description of `fit` in words, for a report."""
    p = parameters
    side = f"{p.imsize}x{p.imsize} pixels"
    turned = "turned by EXIF, " if p.exif else ""
    resized = f"resized by the {p.filter} filter"
    if p.centercrop:
        return f"{turned}{'' if p.dont_resize else f'shorter side {resized}, '}middle cut out, {side}"
    return f"{turned}{'as it is' if p.dont_resize else resized}, {side}"


def _check_pixels(size):
    width, height = size
    if width * height > PIXEL_LIMIT:
        raise ValueError(f"{width}x{height} pixels are too many")
