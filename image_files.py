"""Image files from strangers: finding them in class folders, reading and resizing them."""

import contextlib
import functools
import os
import sys
import warnings

import numpy as np
from PIL import Image

from utils import RUN_FILE, UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm", ".tif", ".tiff")
# What Pillow may take a file for, whatever its name says: others of its readers run programs (EPS runs Ghostscript).
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "PPM", "TIFF")
PIXEL_LIMIT = 2**26  # 256 MB once decoded

warnings.filterwarnings("ignore", module="PIL")  # its remarks on odd files; who reads them names the unreadable ones


def class_folders(path, option):
    """Names of the class folders under `path`, sorted. `option`, which gave `path`, is named in errors.

    Raises UserError, with what was found, unless there are two or more and one of them holds an image.
    """
    wanted = "give the folder that holds one folder of images for each class"
    if path is None:
        raise UserError(f"{option} is missing: {wanted}")
    classes, files = _listing(path, option)
    classes = _without_runs(path, classes, option)
    if not classes:
        raise UserError(f"{option} {path} holds no class folders but {len(files)} files: {wanted}")
    with_folders = []
    for name in classes:
        inner, files = _listing(os.path.join(path, name), option)
        if any(map(_is_image, files)):
            break
        with_folders += [name] if inner else []
    else:
        if with_folders:
            raise UserError(
                f"{option} {path} is a folder too high: {', '.join(with_folders[:3])} should be classes of images and "
                f"hold folders; give {os.path.join(path, with_folders[-1])} or the like"
            )
        raise UserError(
            f"{option} {path} holds the folders {', '.join(classes[:3])}{', ...' * (len(classes) > 3)} and in them no "
            f"images ({' '.join(EXTENSIONS)}): {wanted}"
        )
    if len(classes) == 1:
        raise UserError(f"{option} {path} holds one class folder only, {classes[0]}: two classes or more are needed")
    return classes


def _without_runs(path, folders, option):
    """`folders`, names in `path`, without those of runs, which are said on stderr."""
    runs = [name for name in folders if _holds_runs(os.path.join(path, name))]
    if runs:
        shown = ", ".join(runs[:3]) + ", ..." * (len(runs) > 3)
        say_once(f"{option} {path}: {shown} hold training runs, so they are no classes and are left out")
    return [name for name in folders if name not in runs]


def _holds_runs(path):
    """Whether the folder `path` is a run's or holds those of runs, and no images."""
    found = False
    with contextlib.suppress(OSError), os.scandir(path) as entries:  # who lists it as a class names what is wrong
        for entry in entries:
            if _is_image(entry.name):
                return False
            found |= entry.name == RUN_FILE or (entry.is_dir() and os.path.isfile(os.path.join(entry.path, RUN_FILE)))
    return found


@functools.cache
def say_once(line):
    """Print `line` on stderr, unless this process has printed it before."""
    print(line, file=sys.stderr, flush=True)


def image_names(folder, option):
    """Names of the image files in `folder`, sorted; hidden files are passed over."""
    return list(filter(_is_image, _listing(folder, option)[1]))


def folder_names(path, option):
    """Names of the folders in `path`, sorted; hidden ones are passed over."""
    return _listing(path, option)[0]


def _listing(path, option):
    """Sorted names of the folders, and of the files, in `path` that are not hidden."""
    folders, files = [], []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    if entry.is_dir():
                        folders.append(entry.name)
                    elif entry.is_file():  # a pipe named x.png would be waited on for ever
                        files.append(entry.name)
    except OSError as error:
        raise UserError(f"{option} {path} cannot be read: {error.strerror}") from None
    return sorted(folders), sorted(files)


def _is_image(name):
    return name.lower().endswith(EXTENSIONS)


def read_image(path):
    """The image in a file (its first frame) as a Pillow image in RGB.

    What is transparent becomes white; 16-bit gray keeps its upper 8 bits; the EXIF orientation is not applied, as in
    torchvision's ImageFolder. Raises one of Pillow's many exceptions when the file is not an image or is cut short, and
    ValueError when it has more than PIXEL_LIMIT pixels.
    """
    with Image.open(path, formats=FORMATS) as image:
        _check_pixels(image.size)
        image.load()
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
        if image.mode.endswith(("A", "a")) or "transparency" in image.info:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        return image.convert("RGB")


def fit(image, parameters, resample=Image.Resampling.BILINEAR):
    """A Pillow image resized and cropped as the options say: uint8 [C, imsize, imsize].

    - As a rule: resized to `imsize` x `imsize`, whatever its shape (the Paddle SAGAN replication).
    - With `centercrop`: its shorter side to `imsize`, then its middle cut out (the PyTorch SAGAN replication and both
      ACGAN replications).
    - With `dont_resize`: as it is, or its middle cut out with `centercrop`.

    Pillow antialiases what it shrinks. Raises UserError for an image that keeps another size, and ValueError for one
    so long and thin that it would have more than PIXEL_LIMIT pixels before it is cropped.
    """
    p = parameters
    if not p.dont_resize:
        shorter = min(image.size)
        new = [p.imsize * side // shorter if p.centercrop else p.imsize for side in image.size]
        _check_pixels(new)
        image = image.resize(new, resample)
    if p.centercrop and min(image.size) >= p.centercrop_size:
        left, top = (round((side - p.centercrop_size) / 2) for side in image.size)
        image = image.crop((left, top, left + p.centercrop_size, top + p.centercrop_size))
    if image.size != (p.imsize, p.imsize):
        raise UserError(
            f"--dont_resize leaves an image with {image.width}x{image.height} pixels where the networks read "
            f"{p.imsize}x{p.imsize}: leave it out"
        )
    return np.asarray(image).reshape(p.imsize, p.imsize, -1).transpose(2, 0, 1)


def fit_in_words(parameters):
    """What `fit` does to an image, for a report."""
    p = parameters
    side = f"{p.imsize}x{p.imsize} pixels"
    if p.centercrop:
        return f"{'' if p.dont_resize else 'shorter side resized, '}middle cut out, {side}"
    return f"{'as it is' if p.dont_resize else 'resized'}, {side}"


def _check_pixels(size):
    width, height = size
    if width * height > PIXEL_LIMIT:
        raise ValueError(f"{width}x{height} pixels are too many")
