"""The work of generate.py: images, grids and films of a generator, written as files."""

import contextlib
import itertools
from pathlib import Path

import numpy as np

import pictures
from drawing.classes import choose_labels, class_folder
from drawing.generator import between, places
from options import numbers
from sampler import CHUNK
from utils import UserError, plural, progress, run_numbers

FOLDER = "sagan_models"  # holds the new folders
FEW = 10  # classes that --labels auto draws
LARGEST = 10**8  # pixels of a picture, or of all frames of a film


@contextlib.contextmanager
def new_folder(name):
    """Make the next folder NAME-NUMBER in FOLDER, and yield it. After an error it is removed if it is empty."""
    for number in itertools.count(max(run_numbers(FOLDER, name), default=0) + 1):
        folder = Path(FOLDER, f"{name}-{number}")
        with contextlib.suppress(FileExistsError):  # another process has just made it
            folder.mkdir(parents=True)
            break
    try:
        yield folder
    except BaseException:
        with contextlib.suppress(OSError):  # it holds files
            folder.rmdir()
        raise


def chosen_classes(generator, drawing):
    """The numbers of the classes to draw from an `OpenGenerator`. Raises UserError if they cannot be drawn."""
    d = drawing
    labels = choose_labels(d.labels, generator.class_names)
    labels = labels[:FEW] if d.labels == "auto" else labels
    seeds = len(d.seed_list)
    if d.interpolate == "classes":
        if len(labels) < 2:
            raise UserError("--interpolate classes needs two or more classes: give them by --labels, such as 3,8")
        if len(labels) > d.frames:
            raise UserError(f"--frames {d.frames} is less than the {len(labels)} classes of --labels: give more")
        _check_size(generator, seeds * d.frames, pictures.FILM_SMALL, "--interpolate", "--frames or --seeds")
    elif d.interpolate:
        _check_size(generator, len(labels) * d.frames, pictures.FILM_SMALL, "--interpolate", "--frames or --labels")
    elif d.grid:
        _check_size(generator, len(labels) * seeds, pictures.SMALL, "--grid", "--labels or --seeds")
    return labels


def _check_size(generator, images, small, option, remedy):
    """Refuse a picture or film of more than LARGEST pixels. Smaller images than `small` are enlarged to about that."""
    pixels = images * max(generator.parameters.imsize, small) ** 2
    if pixels > LARGEST:
        raise UserError(
            f"{option} would write {pixels / 1e6:,.0f} million pixels, and the most is {LARGEST / 1e6:,.0f} million: "
            f"give fewer {remedy}"
        )


def draw(generator, drawing, labels, path):
    """Draw the images of classes `labels` that the `Drawing` chooses into `path`. Prints the path."""
    {"film": _draw_film, "grid": _draw_grid, "images": _draw_images}[drawing.kind](generator, drawing, labels, path)
    numbered = pictures.numbered_names(generator.class_names, labels)
    if numbered and drawing.kind != "images":
        print(f"these class names are shown as numbers: {numbered}")


def _draw_images(generator, drawing, labels, folder):
    folder, seeds = Path(folder), drawing.seed_list
    folder.mkdir(parents=True, exist_ok=True)
    groups = [seeds[first : first + CHUNK] for first in range(0, len(seeds), CHUNK)]
    with progress(title="images", unit="img", total=len(labels) * len(seeds)) as bar:
        for label, group in itertools.product(labels, groups):
            images = pictures.enlarged(generator.draw([label] * len(group), group))
            for seed, image in zip(group, images, strict=True):
                name = f"{class_folder(label, generator.class_names[label])}-seed{seed:04d}.png"
                pictures.save_image(folder / name, image.transpose(1, 2, 0))
            bar.update(len(group))
    print(f"wrote {folder}: {plural(len(labels) * len(seeds), 'image')} of {_classes(labels)}")


def _draw_grid(generator, drawing, labels, path):
    seeds = drawing.seed_list
    rows = [generator.grid([label], seeds) for label in progress(labels, title="grid", unit="class")]
    names = pictures.row_names(generator.class_names, labels)
    pictures.save_image(path, pictures.grid(np.concatenate(rows), names))
    print(f"wrote {path}: {_classes(labels)}, a row for each; seeds {drawing.seeds}, a column for each")


def _draw_film(generator, drawing, labels, path):
    d, names = drawing, pictures.row_names(generator.class_names, labels)
    if d.interpolate == "classes":
        walk = generator.walk_between_classes(labels, d.seed_list, d.frames, closed=True)
        captions = [f"seed {seed}" for seed in d.seed_list]
        stops = [between(len(labels), place) for place in places(len(labels), d.frames, closed=True)]
        titles = [f"{names[start]} to {names[end]}" for start, end, _ in stops]
    else:
        walk = generator.walk_between_seeds(numbers(d.interpolate), labels, d.frames, closed=True)
        captions, titles = names, [""] * d.frames
    walk = zip(progress(walk, title="film", unit="frame", total=d.frames), titles, strict=True)
    pictures.save_film(path, (pictures.captioned(images, captions, title) for images, title in walk))
    print(f"wrote {path}: {d.frames} frames of {_classes(labels)}")


def _classes(labels):
    return "1 class" if len(labels) == 1 else f"{len(labels)} classes"
