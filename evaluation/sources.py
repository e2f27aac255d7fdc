"""Sources of images to measure: samples drawn from a generator, real images, or samples from files.

Every source has `labels` (int64 [N], or None if they are unknown), `size` (pixels a side), a length, and
`images(indices)`: uint8 [n, C, size, size]. If it has `chunks_at_once`, a pass asks for the images of that many chunks
together.

`open_source` opens the source of `test.py`: a checkpoint's generator, or the files that `--samples` names. Such a
source also has:

- `parameters`: those of the test, with the size of its images
- `file`, `description`, `opened`: its path, its name in the report, and a line for the screen that names both
- `default_folder`: the folder of the report if none is given
- `settings`, `settings_if_unread`: its settings for the report, and those that replace others if no image is read
- `checkpoint_names`: the names of the generator's classes in the checkpoint, or None
- `class_names`: the names for the class folders of `--samples_dir` and the rows of the class grid
- `choose_classes(evaluation)` sets `labels`; `labels_setting` describes them for the report
- `check(evaluation)` raises UserError unless it can be measured
- `digest()`: the SHA-256 of its file or files
- `prepare(evaluation)` makes it ready for `images`
- `write_pictures(folder)` writes pictures for people into the folder of the report
"""

import dataclasses
import hashlib
import itertools
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

import checkpoint
import pictures
import sampler
from drawing.classes import class_folder
from drawing.generator import describe, load_generator, steps_to_settle
from formats.image_files import FORMATS, folder_names, image_names, read_image, say_skipped
from formats.packed_data import map_images
from processes import collectives
from utils import UserError, file_digest, one_line, open_file_digest, progress

WIDEST = 4096  # pixels a side


class Drawn:
    """Samples 0 … N - 1 of a generator. Sample i depends only on the seed, i and its class."""

    def __init__(self, generator, parameters, labels):
        self.generator, self.parameters, self.labels = generator, parameters, labels
        self.size = parameters.imsize

    def __len__(self):
        return len(self.labels)

    def images(self, indices):
        return sampler.generate(self.snapshot, self.parameters, indices, self.labels[indices])

    @cached_property
    def snapshot(self):
        """G as it is at the first use of this. This object then needs G itself no more, and does not keep it."""
        generator, self.generator = self.generator, None
        return sampler.snapshot(generator, self.parameters)


class RealImages:
    """The images of an `ImageSet`."""

    def __init__(self, image_set):
        self.image_set, self.labels = image_set, image_set.labels
        self.size = image_set.image_shape[-1]
        self._pool = ThreadPoolExecutor(max(1, image_set.parameters.num_workers))

    def __len__(self):
        return len(self.labels)

    def images(self, indices):
        return np.stack([image for image, _ in self._pool.map(self.image_set.__getitem__, indices)])


def open_source(parameters, loaded):
    """The source of a test: the files of `--samples`, else the generator of the `Checkpoint` `loaded`."""
    return open_samples(parameters) if parameters.samples else GeneratorSamples(parameters, loaded)


class ChosenClasses:
    """The classes of the samples that a test draws. `parameters`: those of the test."""

    @property
    def labels_setting(self):
        if self._draws_real_classes:
            return "auto: the classes of the real images, shuffled"
        return f"{self.parameters.labels}: repeated in order"

    def choose_classes(self, evaluation):
        """Set `labels`: the classes that `--labels` chooses, repeated in order, or those of the real images."""
        self._draws_real_classes = evaluation.draws_real_classes
        self.labels = evaluation.labels_to_draw(self.parameters.num_samples)
        self.class_names, self._chosen_classes = evaluation.class_names, evaluation.chosen_classes


class GeneratorSamples(ChosenClasses, Drawn):
    """`num_samples` samples of a checkpoint's generator. Uses the moving average of its weights if there is one."""

    def __init__(self, parameters, loaded):
        p = parameters
        generator, part = load_generator(p, loaded)
        super().__init__(generator, p, labels=None)
        self.checkpoint_names, self.class_names = loaded.class_names, None
        self.file = loaded.path
        self.default_folder = checkpoint.run_of(loaded.path) / f"test-{self.file.stem}"
        self.description = describe(p, loaded, part)
        needed = steps_to_settle(generator, p, loaded.step)
        self.opened = f"{self.file}: {self.description}"
        self.settings = {
            "weights": "moving average" if part == "G_ema" else "as trained",
            "batch statistics": f"standing, over {p.standing_batches} batches" if p.standing_batches else "running",
            "truncation": p.truncation,
            "models": 1,
            **_changed_in_training(p),
            **({"steps": loaded.step, "steps until batch statistics settle": needed} if needed else {}),
        }
        self.settings_if_unread = {"num_samples": 0, "classes drawn": 0, "labels": "none"}

    def check(self, evaluation):
        evaluation.check(self)
        evaluation.check_names(self.checkpoint_names, self.file)

    def digest(self):
        return file_digest(self.file)

    def prepare(self, evaluation):
        """Compute the batch statistics again if `standing_batches` is set."""
        if self.parameters.standing_batches:
            with evaluation.stage("standing statistics"):
                sampler.use_standing_statistics(self.generator, self.parameters)

    def write_pictures(self, folder):
        """Write class_grid.png: a row of samples for each of the first `pictures.ROWS` chosen classes."""
        classes = self._chosen_classes[: pictures.ROWS]
        images = sampler.grid_samples(self.snapshot, self.parameters, classes)
        write_class_grid(folder, images, self.class_names, classes)


def write_class_grid(folder, images, class_names, classes):
    """Write class_grid.png into `folder`: `images`, as `sampler.grid_samples` returns them for `classes`."""
    path = folder / "class_grid.png"
    pictures.save_image(path, pictures.grid(images, pictures.row_names(class_names, classes)))
    print(f"class grid: {path}")
    if numbered := pictures.numbered_names(class_names, classes):
        print(f"the class grid shows these class names as numbers: {numbered}")


def _changed_in_training(parameters):
    """Settings for the report: how training changed the pixels of its images beyond resizing."""
    changed = {"mirrored at random": parameters.mirror, "JPEGs decoded at a smaller size": parameters.fast_decode}
    words = ", ".join(name for name, is_on in changed.items() if is_on)
    return {"images in training": words} if words else {}


def open_samples(parameters):
    """The source of the folder or `.npz` file that `--samples` names."""
    return Folder(parameters) if Path(parameters.samples).is_dir() else NPZ(parameters)


class SamplesFromFiles:
    """The common methods of `Folder` and `NPZ`. `labels` are None if they are unknown, and before `label` sets them."""

    checkpoint_names, class_names = None, ()

    def __init__(self, parameters):
        self._given, self.file, self.description = parameters, Path(parameters.samples), parameters.samples
        self.opened = f"samples: {self.file}"
        self.settings, self.settings_if_unread = {}, {}
        self.default_folder = Path(parameters.save_path) / f"test-{self.file.stem}"
        self.labels = None

    @property
    def parameters(self):
        return dataclasses.replace(self._given, imsize=self.size, centercrop_size=self.size)

    @property
    def labels_setting(self):
        return "unknown" if self.labels is None else "the samples' own"

    def choose_classes(self, evaluation):
        """Set `labels` from the names of the folders, if each names a class of the real images."""
        self.label(evaluation.real_set and evaluation.real_set.class_names, evaluation.needs_classes)

    def check(self, evaluation):
        evaluation.check(self)

    def prepare(self, evaluation):
        """Nothing to do."""

    def write_pictures(self, folder):
        """Nothing to write: the images are files already."""


class Folder(SamplesFromFiles):
    """The images in a folder, or in its class folders. All have one size. They are converted to gray or RGB.

    Opening it reads every file once, on rank 0, for its size and its digest. `images` reads it again for its pixels.
    Raises UserError if there are no images, if there are images both in class folders and beside them, if sizes differ,
    or if images are not square.
    """

    def __init__(self, parameters):
        super().__init__(parameters)
        path = parameters.samples
        self._mode, self._exif = "L" if parameters.channels == 1 else "RGB", parameters.exif
        # List the images in the folder and in its class folders.
        skipped, skipped_inside = Counter(), Counter()
        self.files = [Path(path, name) for name in image_names(path, "--samples", skipped)]
        self._classes = None  # {name of a class folder: its number of images}
        names = folder_names(path, "--samples")
        folders = [Path(path, name) for name in names]
        inside = [[folder / file for file in image_names(folder, "--samples", skipped_inside)] for folder in folders]
        # Use either these or those.
        if self.files and (count := sum(map(len, inside))):
            raise UserError(
                f"--samples {path} holds {len(self.files)} images beside its class folders, which hold {count}: "
                "remove those that do not belong to the samples"
            )
        if not self.files:
            self.files = list(itertools.chain.from_iterable(inside))
            self._classes = dict(zip(names, map(len, inside), strict=True))
            skipped["folder"] = 0  # they are class folders
            skipped += skipped_inside
        if not self.files:
            raise UserError(f"--samples {path} holds no images: give a folder of images, or of class folders")
        say_skipped("--samples", path, skipped)
        self.size, self._digest = collectives.on_rank_0(_size_and_digest, self.files, path)

    def __len__(self):
        return len(self.files)

    def label(self, class_names, needs_classes):
        """Set `labels` from the names of the class folders.

        The class of a folder is its place in `class_names`, or the class for which `--samples_dir` writes a folder of
        this name. If a folder has no such class, `labels` stay None; with `needs_classes` it raises UserError.
        """
        if self._classes is not None:
            numbers = _numbers(list(self._classes), class_names, needs_classes)
            self.labels = None if numbers is None else np.repeat(numbers, list(self._classes.values()))

    def digest(self):
        """The SHA-256 of the lines that `sha256sum` prints for the images, in their order."""
        return self._digest

    def images(self, indices):
        return np.stack([self._image(self.files[index]) for index in indices])

    def _image(self, path):
        try:
            return np.atleast_3d(read_image(path, self._exif).convert(self._mode)).transpose(2, 0, 1)
        except Exception as error:  # Pillow may raise anything for a stranger's file
            raise UserError(f"--samples: {str(path)!r} cannot be read as an image: {error}") from None


def _numbers(names, class_names, needs_classes):
    """The class of each folder. None if one is unknown and `needs_classes` is False."""
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
    """The class for which `class_folder` gives the name `folder`; None if there is none.

    The number and the name in it may belong to different classes, for example after classes were added. Then the name
    decides.
    """
    match = re.fullmatch("([0-9]{1,5})|([0-9]{4,5})-.+", folder)
    if not match:
        return None
    number = int(match[1] or match[2])
    if match[1] or class_names is None:
        return number
    labels = [label for label, own in enumerate(class_names) if class_folder(number, own) == folder]
    return number if number in labels else next(iter(labels), None)


def _size_and_digest(files, folder):
    """(the side of the images in pixels, the result of `Folder.digest`)."""
    sizes, digest = {}, hashlib.sha256()
    for path in progress(files, title="files of the samples", unit="img"):
        try:
            with open(path, "rb") as file:
                with Image.open(file, formats=FORMATS) as image:
                    sizes.setdefault(image.size, path)
                file.seek(0)
                line = f"{open_file_digest(file)}  {path.relative_to(folder)}\n"
        except Exception as error:  # Pillow may raise anything for a stranger's file
            raise UserError(f"--samples: {str(path)!r} cannot be read as an image: {error}") from None
        digest.update(line.encode(errors="surrogateescape"))
        if len(sizes) > 1:
            (first, a), (second, b) = sizes.items()
            raise UserError(
                f"--samples mixes sizes: {str(a)!r} has {first[0]}x{first[1]} pixels, "
                f"{str(b)!r} {second[0]}x{second[1]}"
            )
    ((width, height),) = sizes
    _check_side(height, width)
    return width, digest.hexdigest()


class NPZ(SamplesFromFiles):
    """The samples in a `.npz` as guided-diffusion writes it: `arr_0` uint8 [N, H, W, C] and, optionally, `arr_1`, the
    classes.

    The images stay on disk, so memory does not grow with their number. Raises UserError for any other file, and for
    images in colour if the real images are gray.
    """

    def __init__(self, parameters):
        super().__init__(parameters)
        path = parameters.samples
        try:
            self._images, self.labels = map_images(path)
        except UserError:
            raise
        except Exception as error:  # a stranger's file may cause any error
            raise UserError(
                f"--samples {path} cannot be read as .npz with arr_0, uint8 [N, H, W, 1 or 3]: {one_line(error)}"
            ) from None
        _, height, self.size, channels = self._images.shape
        _check_side(height, self.size)
        if channels > parameters.channels:
            raise UserError(f"--samples {path} has images in colour, but the data set to compare with has gray images")

    def __len__(self):
        return len(self._images)

    def label(self, class_names, needs_classes):
        """Nothing to do: `arr_1` holds the classes."""

    def digest(self):
        return file_digest(self.file)

    def images(self, indices):
        return np.ascontiguousarray(self._images[indices].transpose(0, 3, 1, 2))


def _check_side(height, width):
    if height != width or height > WIDEST:
        raise UserError(f"--samples has images of {width}x{height} pixels, not square ones of at most {WIDEST}")
