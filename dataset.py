"""Data sets by their options, and batches of them: the one place where images come from. All images are uint8."""

from collections import deque
from contextlib import closing
from pathlib import Path

import numpy as np

import randomness
from formats.image_files import refuse_single_image
from formats.packed_data import is_packed
from loading.image_sets import ArraySet, FakeSet, FolderSet, MemorySet, PackedSet
from loading.pipeline import read_ahead
from processes.blocks import blocks
from utils import UserError, printable, shell_word


def load_dataset(parameters, split="train", generator_classes=()):
    """The `ImageSet` that `parameters` describe; `split` is "train" or "test".

    "test" holds the test images of a published set. For image folders, "train" reads `data_path` and "test" reads
    `test_data_path`. `generator_classes`: names of the classes that a generator to measure was trained on, for the
    refusal of other ones. Raises UserError for wrong data and for options that do not fit the data. The message
    describes the data.
    """
    p = parameters
    option, path = path_option(p, split)
    if p.dataset == "fake":
        image_set = FakeSet(p, split)
    elif is_packed(path) and not p.is_built_in:
        image_set = PackedSet(p, option, path, split)
    elif p.published_data:
        image_set = ArraySet(p, p.published_data.class_names, *p.published_data.read(path, split))
    elif path is not None and Path(path).is_file():
        refuse_single_image(option, path)
        raise UserError(
            f"{option} {path} is a file that only pack.py reads. Pack it first: python pack.py --data_path "
            f"{shell_word(path)} --out FILE.npz; or give a folder with a folder of images for each class"
        )
    else:
        image_set = FolderSet(p, option, path)
    check_image_set(p, image_set, split, generator_classes)
    return image_set


def check_image_set(parameters, image_set, split="train", generator_classes=()):
    """Raise UserError unless each class has images, the number of classes is right and the first image can be read.

    Prints the number of skipped files. `generator_classes`: as for `load_dataset`.
    """
    p = parameters
    option, path = path_option(p, split)
    missing = np.flatnonzero(np.bincount(image_set.labels, minlength=image_set.num_classes) == 0)
    if len(missing):
        raise UserError(
            f"{option} {path} holds no images of the class {image_set.class_names[missing[0]]}: add some, remove the "
            "class or leave it out by --classes"
        )
    if p.num_classes not in (None, image_set.num_classes) and split == "test" and not p.samples:
        where = f"{option} {path}" if path else f"--dataset {p.dataset}"
        raise UserError(
            f"the generator has {p.num_classes} classes, {where} has {image_set.num_classes}: "
            f"{_how_to_match(p, image_set, generator_classes)}"
        )
    if not (p.resume and p.name):  # a resumed run compares the names of the classes first
        check_count(p, image_set, split)
    if isinstance(image_set, FolderSet):
        image_set.say_what_is_read()
    image_set[0]  # read one image: options that do not fit the images fail here, before anything is built


def _how_to_match(parameters, image_set, generator_classes):
    """The advice for test images `image_set` that have more or fewer classes than the generator."""
    p = parameters
    if image_set.num_classes > p.num_classes:
        return "give test images of the same classes, or choose the generator's classes by --classes"
    advice = "give test images of all classes of the generator"
    if p.classes:
        advice = "choose all classes of the generator by --classes"
    lacked = [printable(name) for name in generator_classes if name not in image_set.class_names]
    more = f" and {len(lacked) - 1} more" if len(lacked) > 1 else ""
    return f"it lacks {lacked[0]}{more}; {advice}" if lacked else advice


def path_option(parameters, split):
    """(the option that gives the folder of the images of `split`, its value)."""
    p = parameters
    if split == "test" and (p.test_data_path or p.reads_folders):
        return "--test_data_path", p.test_data_path
    return "--data_path", p.data_path


def check_count(parameters, image_set, split="train"):
    """Raise UserError unless `image_set`, the images of `split`, has `parameters.num_classes` classes."""
    p = parameters
    if p.num_classes not in (None, image_set.num_classes):
        option, path = path_option(p, split)
        where = f"{option} {path}" if path else f"--dataset {p.dataset}"
        remedy = f"give --num_classes none, or data of {p.num_classes} classes"
        if image_set.num_classes > p.num_classes:
            remedy += f", or choose {p.num_classes} of them by --classes, such as random:{p.num_classes}:1"
        raise UserError(
            f"--num_classes {p.num_classes} does not fit {where}, which has {image_set.num_classes} classes: {remedy}"
        )


def batches_per_epoch(image_set, parameters, world_size=1):
    """The number of batches of `batch_size` x `world_size` images in an epoch of `batches`.

    With `dont_drop_last` an incomplete last batch counts. Raises UserError if there is no batch.
    """
    whole, rest = divmod(len(image_set), parameters.batch_size * world_size)
    count = whole + (parameters.dont_drop_last and rest > 0)
    if count == 0:
        raise UserError(
            f"--batch_size {parameters.batch_size} in each of {world_size} processes is more than the "
            f"{len(image_set)} images of the data set: give a smaller --batch_size"
        )
    return count


def batches(image_set, parameters, first, rank=0, world_size=1):
    """Endless batches for process `rank` of `world_size`, from global batch `first` on.

    Each is (uint8 [n, C, H, W], int64 [n], the number of images in the global batch). The global batch is the batch of
    all processes together. Batch b belongs to epoch b // `batches_per_epoch`. The images of a global batch depend only
    on the seed, b and its size. A process gets the rows of its `blocks.blocks`. With `mirror` some images are mirrored:
    the seed, the epoch and the place of an image in the set decide.
    """
    p = parameters
    if p.data_in_memory:
        image_set = MemorySet(image_set)
    plan, waiting = _rows_of_batches(image_set, p, first, rank, world_size), deque()

    def rows():
        for batch in plan:
            waiting.append(batch)
            yield batch[0]

    if p.num_workers and image_set.is_slow:
        read = read_ahead(rows(), image_set.training_image, p.num_workers, image_set.reading)
    else:
        read = (list(map(image_set.training_image, batch)) for batch in rows())
    with closing(read):
        for pairs in read:
            images, labels = zip(*pairs, strict=True)
            _, mirrored, whole = waiting.popleft()
            images = np.stack(images)
            images[mirrored] = images[mirrored, ..., ::-1]
            yield images, np.array(labels), whole


def _rows_of_batches(image_set, parameters, first, rank, world_size):
    """Endless (indices of this process's images, whether each is mirrored, size of the global batch)."""
    p = parameters
    per_epoch = batches_per_epoch(image_set, p, world_size)
    size = p.batch_size * world_size
    epoch, start = divmod(first, per_epoch)
    while True:
        order = np.arange(len(image_set))
        if not p.dont_shuffle:
            order = randomness.rng(p.manual_seed, "order", epoch).permutation(order)
        mirrored = np.zeros(len(image_set), bool)
        if p.mirror:
            mirrored = randomness.rng(p.manual_seed, "mirror", epoch).random(len(image_set)) < 0.5
        for batch in range(start, per_epoch):
            whole = order[batch * size : (batch + 1) * size]
            rows = np.concatenate([whole[block.rows] for block in blocks(len(whole), p.rounds, rank, world_size)])
            yield rows, mirrored[rows], len(whole)
        epoch, start = epoch + 1, 0
