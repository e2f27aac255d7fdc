"""Pictures for people: enlarged images with names, as a grid with a row for each class, or as the frames of a film."""

import functools
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils import atomic_path

ROWS, COLUMNS = 10, 10  # of a grid: classes, and images of each class
GAP = 2  # pixels between images
SMALL = 64  # pixels; images with smaller sides are enlarged to about this size
WIDEST_NAME = 12  # in multiples of the letter size; longer names are cut
FRAME, FRAME_LETTERS = 320, 12  # pixels: largest side of a frame's images together; size of letters in a frame
FRAME_TIME, LAST_FRAME_TIME = 100, 3000  # milliseconds that the frames of an animation are shown
FILM_SMALL, FILM_COLUMNS, FILM_TIME = 128, 5, 50  # as SMALL, COLUMNS and FRAME_TIME, for `captioned` and `save_film`


def save_image(path, image):
    """Write an image, uint8 [H, W, 1 or 3], to `path`, atomically."""
    with atomic_path(path) as temporary:
        _picture(image).save(temporary)


def _picture(image):
    return Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)


def row_names(class_names, classes):
    """The text beside the row of each of `classes` (numbers): its name, or its number if the font lacks letters."""
    return [class_names[label] if _can_draw(class_names[label]) else str(label) for label in classes]


def numbered_names(class_names, classes):
    """The names that `row_names` replaces by numbers, such as "0: 雏菊, 1: 玫瑰"; "" if there are none."""
    return ", ".join(f"{label}: {class_names[label]}" for label in classes if not _can_draw(class_names[label]))


def _can_draw(name):
    """Whether Pillow's own font has all letters of `name`. It has ASCII and few others."""
    letters = _font(FRAME_LETTERS)
    missing = bytes(letters.getmask("\uffff"))  # the box that the font draws for a letter that it lacks
    drawn = all(bytes(letters.getmask(letter)) != missing for letter in set(name))
    return drawn and name.isprintable() and bool(name.strip())


@functools.cache
def _font(size):
    return ImageFont.load_default(size)


def grid(images, names):
    """A picture of images uint8 [N, C, H, W] on white. Each of `names` has a row; the name is on the left.

    Small images are enlarged by a whole factor. Returns uint8 [height, width, C].
    """
    side = images.shape[-1] * _factor(images.shape[-1])
    picture = _with_names(_picture(_cells(images, len(names))), names, max(14, side // 6))
    return np.atleast_3d(np.asarray(picture))


def captioned(images, captions, title=""):
    """A picture of images uint8 [N, C, H, W] on white, each with its caption below, and with `title` above all.

    Small images are enlarged by a whole factor. Returns uint8 [height, width, C].
    """
    images = enlarged(images, FILM_SMALL)
    count, channels, height, width = images.shape
    letters = max(14, width // 10)
    font, line = _font(letters), letters * 3 // 2
    columns = min(count, FILM_COLUMNS)
    rows, top = math.ceil(count / columns), line if title else 0
    mode = "L" if channels == 1 else "RGB"
    picture = Image.new(mode, (columns * (width + GAP) + GAP, top + rows * (height + line) + GAP), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((GAP, top // 2), _shortened(title, font, picture.width - 2 * GAP), "#303030", font, anchor="lm")
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(index, columns)
        left, upper = GAP + column * (width + GAP), GAP + top + row * (height + line)
        picture.paste(_picture(image.transpose(1, 2, 0)), (left, upper))
        middle = (left + width // 2, upper + height + line // 2)
        draw.text(middle, _shortened(caption, font, width), "#303030", font, anchor="mm")
    return np.atleast_3d(np.asarray(picture))


def save_film(path, frames):
    """Write `frames`, each uint8 [height, width, C], to the .gif or .webp file `path`, atomically. It repeats."""
    convert = _gif_frame if Path(path).suffix.lower() == ".gif" else _webp_frame
    frames = map(convert, frames)
    with atomic_path(path) as temporary:
        next(frames).save(temporary, save_all=True, append_images=frames, duration=FILM_TIME, loop=0, quality=90)


def _gif_frame(frame):
    return _picture(frame).convert("RGB").quantize(method=Image.Quantize.FASTOCTREE)


def _webp_frame(frame):
    return _picture(frame).convert("RGB")


def enlarged(images, small=SMALL):
    """Images [N, C, H, W], enlarged by a whole factor to about `small` pixels a side if they are smaller."""
    factor = _factor(images.shape[-1], small)
    return images.repeat(factor, axis=2).repeat(factor, axis=3)


def _factor(side, small=SMALL):
    """The whole factor by which images of `side` pixels a side are enlarged."""
    return max(1, small // side)


def _cells(images, rows):
    """A picture of the images in rows, without names: uint8 [height, width, C]."""
    images = enlarged(images)
    count, channels, height, width = images.shape
    columns = count // rows
    cells = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = (GAP + i * (size + GAP) for i, size in zip(divmod(index, columns), (height, width), strict=True))
        cells[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return cells


def _with_names(cells, names, size, title=""):
    """The picture `cells` with the name of each of its rows on the left, and `title` above it if there is one."""
    font = _font(size)
    names = [_shortened(name, font, WIDEST_NAME * size) for name in names]
    left = math.ceil(max(map(font.getlength, names))) + size
    top = size * 3 // 2 if title else 0
    picture = Image.new(cells.mode, (left + cells.width, top + cells.height), "white")
    picture.paste(cells, (left, top))
    draw = ImageDraw.Draw(picture)
    for row, name in enumerate(names):
        middle = top + round(GAP / 2 + (row + 0.5) * (cells.height - GAP) / len(names))
        draw.text((left - size // 2, middle), name, "#303030", font, anchor="rm")
    draw.text((left + GAP, top // 2), title, "#303030", font, anchor="lm")
    return picture


def _shortened(name, font, width):
    """`name`; if it is wider than `width` pixels, cut and with an ellipsis."""
    if font.getlength(name) <= width:
        return name
    while font.getlength(name + "…") > width:
        name = name[:-1].rstrip()
    return name + "…"


def save_animation(path, grids, names, side):
    """Write an animation of the files `grids`, step-NUMBER.png. Each is a `grid` of `names` and images of this `side`.

    Every frame shows its step. The last frame stays longer.
    """
    frames = (_frame(grid, names, side) for grid in grids)
    durations = [FRAME_TIME] * (len(grids) - 1) + [LAST_FRAME_TIME]
    with atomic_path(path) as temporary:
        next(frames).save(temporary, save_all=True, append_images=frames, duration=durations, loop=0)


def _frame(path, names, side):
    """A grid as a small palette image with legible names. It is small because Pillow holds all frames in memory."""
    width = COLUMNS * (side * _factor(side) + GAP) + GAP
    height = len(names) * (side * _factor(side) + GAP) + GAP
    scale = min(1, FRAME / max(width, height))
    with Image.open(path) as picture:
        cells = picture.crop((max(0, picture.width - width), 0, picture.width, picture.height))
    cells = cells.resize((round(width * scale), round(height * scale)))
    title = "step " + path.stem.removeprefix("step-").lstrip("0")
    frame = _with_names(cells, names, FRAME_LETTERS, title).convert("RGB")
    return frame.quantize(method=Image.Quantize.FASTOCTREE)
