"""Sets of labelled images: in memory, in class folders, packed, made of noise; and choices of their classes."""

import errno
import hashlib
import itertools
import math
import re
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

import randomness
import system
from formats.image_files import class_folders, count_turned, fit, read_image, say_once, say_skipped
from formats.image_lists import list_images
from formats.packed_data import check_packed, open_packed, pack_command
from formats.stylegan_data import OtherKind
from loading.pipeline import Reading, read_ahead
from processes.collectives import processes_on_host, rank
from utils import UserError, one_line, progress

FAKE_IMAGES, FAKE_CLASSES = 10_000, 10
BROKEN_SHARE = 0.01  # of a data set's files; the run stops if more files cannot be read
# The errors of the system that a damaged or changed file causes. Others, such as EIO, do not tell that it is damaged.
ERRORS_OF_FILES = {
    errno.EINVAL, errno.ESPIPE, errno.EOVERFLOW, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG
}  # fmt: skip
PAUSES = (0.1, 1, 5)  # seconds before a file is read again after such an error
# Files. A network file system needs minutes for the sizes or the headers of a million files.
SIZES_COMPARED = 1000
HEADERS_READ = 1000
CHECKED = 1000  # files that are tried before a run stops because of broken files
NAMED = 10  # the most broken files in the message that stops a run


class Unreadable(Exception):
    """A file cannot be read as an image. The text is the reason."""


class ImageSet:
    """Labelled images of one size in a fixed order; `image_set[i]` is (uint8 [C, H, W], int64 label).

    `name`: the value of --dataset. `class_names`: a tuple of str. `labels`: int64 [N] in 0 … num_classes - 1.
    `image_shape`: (C, H, W). `is_slow`: whether threads should read the images; then `reading` is a
    `loading.pipeline.Reading`. `left_out`: {place: (file, reason)} of images found unreadable so far; another image is
    in the place of each. `by_class`: whether the images are ordered by class. `is_like_imagenet`: False if the names of
    the classes show that they are not ImageNet's.
    """

    is_slow = by_class = False
    is_like_imagenet = True

    def __init__(self, parameters, class_names, labels):
        self.parameters = parameters
        self.name = parameters.dataset
        self.class_names = tuple(class_names)
        self.labels = labels
        self.image_shape = (parameters.channels, parameters.imsize, parameters.imsize)
        self.left_out = {}

    @property
    def num_classes(self):
        return len(self.class_names)

    def __len__(self):
        return len(self.labels)

    def fingerprint(self):
        """Numbers and digests by kind, equal for copies of the same data set."""
        return {
            "number of images": len(self),
            "classes": _digest("/".join(self.class_names).encode(errors="surrogateescape")),
            "labels": _digest(self.labels.astype("<i8").tobytes()),
        }

    def read(self, place):
        """Image `place`, uint8 [C, H, W], without its class."""
        return self[place][0]

    def training_image(self, index):
        """`image_set[index]` for training: an option may make it faster and less exact."""
        return self[index]

    def stacked(self):
        """All images, uint8 [N, C, H, W]."""
        return np.stack([self[index][0] for index in range(len(self))])


class ArraySet(ImageSet):
    """Images held in memory at their published size. Each is resized when it is read.

    `images`: those of all classes, uint8 [N, height, width] or [N, height, width, 3]. `labels`: int [N], the index of
    each image's class in `class_names`. Only the classes of `parameters.classes` are kept.
    """

    def __init__(self, parameters, class_names, images, labels):
        chosen = choose_classes(class_names, parameters.classes)
        new_label = np.full(len(class_names), -1)
        new_label[chosen] = range(len(chosen))
        labels = new_label[labels]
        super().__init__(parameters, [class_names[c] for c in chosen], labels[labels >= 0])
        self.images = images[labels >= 0]

    def fingerprint(self):
        return super().fingerprint() | {"images": _digest(self.images.tobytes())}

    def __getitem__(self, index):
        return fit(Image.fromarray(self.images[index]), self.parameters), self.labels[index]


class FolderSet(ImageSet):
    """Images in class folders, ordered by class, then by file name. Each file is read when its image is asked for.

    A file may be no image, or cut short. Then a line on stderr names it, once, and the next readable file in this order
    replaces it. `image_set[i]` raises UserError when more than BROKEN_SHARE of all files are unreadable. Up to CHECKED
    other files are tried first, so that one message names all broken files of a small set. Threads may share the set.
    """

    is_slow = by_class = True
    _refusal = None  # the message that stops the run

    def __init__(self, parameters, option, path):
        self._skipped = Counter()
        names = class_folders(path, option, self._skipped)
        self.is_like_imagenet = are_imagenets(names)
        names = [names[c] for c in choose_classes(names, parameters.classes)]
        self._list = list_images(path, option, names)
        self._skipped += self._list.skipped
        super().__init__(parameters, names, np.repeat(np.arange(len(names)), self._list.counts))
        self.option, self.folder = option, path
        self.reading = Reading()
        self._lock = threading.Lock()

    def fingerprint(self):
        """The fingerprint of every set, plus digests of all file names and of the sizes of SIZES_COMPARED files."""
        places = np.linspace(0, len(self) - 1, min(SIZES_COMPARED, len(self))).astype(int)
        sizes = [self.file_size(place) for place in places]
        return super().fingerprint() | {
            "file names": _digest(self.file_names()),
            "file sizes": _digest(str(sizes).encode()),
        }

    def say_what_is_read(self):
        """Print once, on rank 0, the number of skipped files, and of images with an EXIF orientation.

        Only the headers of the first HEADERS_READ images are checked for an orientation.
        """
        if rank() > 0:
            return
        say_skipped(self.option, self.folder, self._skipped)
        first = min(HEADERS_READ, len(self))
        if turned := self.count_turned(first):
            found = f"{turned} of the first {first} images in {self.option} {self.folder}"
            if self.parameters.exif:
                say_once(f"turned upright by --exif: {found}")
            else:
                say_once(f"stored sideways or mirrored: {found}, by their EXIF orientation; --exif turns them upright")

    def count_turned(self, first):
        """The number of images with an EXIF orientation among the `first` ones."""
        return count_turned(tuple(map(self.path, range(first))))

    def __getitem__(self, index):
        return self._read(index)

    def training_image(self, index):
        p = self.parameters
        return self._read(index, p.imsize, p.centercrop) if p.fast_decode else self._read(index)

    def _read(self, index, *smaller):
        """The image `index` and its label. `smaller`: `smallest` and `square` of `read_image`."""
        first = range(len(self))[index]  # IndexError beyond the end
        # Try this file, then the next ones in order, around the end, until one can be read.
        for place in itertools.chain(range(first, len(self)), range(first)):
            if place not in self.left_out:
                try:
                    return self.read(place, *smaller), self.labels[place]
                except Unreadable as error:
                    self._leave_out(place, str(error))

    def read(self, place, *smaller):
        """Image `place`, uint8 [C, H, W]. Raises Unreadable, with the reason, if its file is damaged or no image.

        An error of the system, such as that of a network, may pass, so the file is read again after PAUSES. Raises
        UserError if it stays: the images of a run must not depend on it. `smaller`: `smallest` and `square` of
        `read_image`.
        """
        path = self.path(place)
        for pause in (*PAUSES, None):
            try:
                return self._read_once(place, path, *smaller)
            except OSError as error:
                if pause is None:
                    found = f"{path} cannot be read: {error.strerror}"
                    raise UserError(f"{found}; make it readable, then continue with --resume") from None
                time.sleep(pause)

    def _read_once(self, place, path, *smaller):
        try:
            with self.reading.of(path):
                image = read_image(self.open(place), self.parameters.exif, *smaller)
            return fit(image, self.parameters)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except FileNotFoundError as error:
            for folder in (self.folder, path.parent):
                if not Path(folder).exists():
                    raise UserError(f"{folder} is gone: put it back, then continue with --resume") from None
            raise Unreadable(one_line(error)) from None
        except MemoryError:
            raise UserError(f"{path} takes more memory than is left: lower --num_workers or --batch_size") from None
        except UnidentifiedImageError:
            raise Unreadable("it is not an image, or Pillow cannot read its kind") from None
        except Exception as error:  # Pillow may raise anything for a stranger's file, also an OSError without errno
            if isinstance(error, OSError) and error.errno not in (None, *ERRORS_OF_FILES):
                raise
            raise Unreadable(one_line(error)) from None

    def open(self, place):
        """The file of image `place`, for `read_image`: a path, or an open file."""
        return self.path(place)

    def file_names(self):
        """The bytes of the names of all files, in order, joined by slashes."""
        return self._list.names

    def file_size(self, place):
        return self.path(place).stat().st_size

    def path(self, place):
        """The file of image `place`."""
        return Path(self.folder, self.class_names[self.labels[place]], self._list.name(place))

    def _leave_out(self, place, reason):
        with self._lock:
            if self._refusal is None and place not in self.left_out:
                self._note(place, reason)
                self._say_left_out(place)
                if len(self.left_out) > BROKEN_SHARE * len(self):
                    self._refusal = self._describe_broken()
            if self._refusal:
                raise UserError(self._refusal)

    def _note(self, place, reason):
        self.left_out[place] = str(self.path(place)), reason

    def _say_left_out(self, place):
        file, reason = self.left_out[place]
        print(f"{file!r} is left out ({len(self.left_out)} of {len(self)} files so far): {reason}", file=sys.stderr)

    def _describe_broken(self):
        """The message that stops the run. Tries up to CHECKED other files first, and names the first broken ones."""
        others = [place for place in range(len(self)) if place not in self.left_out]
        for place in progress(others[:CHECKED], title="files checked", unit="file", shown=rank() == 0):
            try:
                self.read(place)
            except Unreadable as error:
                self._note(place, str(error))
                if len(self.left_out) <= NAMED:
                    self._say_left_out(place)
        files = [repr(file) for _, (file, _) in sorted(self.left_out.items())]
        return (
            f"{'at least ' * (len(others) > CHECKED)}{len(files)} of the {len(self)} files in {self.folder} cannot be "
            f"read as images{', such as' if len(files) > NAMED else ':'} {', '.join(files[:NAMED])}; replace or "
            f"remove them, because at most {BROKEN_SHARE:.0%} may be broken"
        )


class PackedSet(ImageSet):
    """Images packed into one file, which `open_packed` opens. They equal those of the packed source, in its order.

    `left_out` holds the images that could not be read when they were packed. As in `FolderSet`, the next readable image
    in this order replaces each.
    """

    is_slow = True

    def __init__(self, parameters, option, path, split):
        packed = open_packed(option, path)
        check_packed(packed, parameters, option, path, split)
        self.packed, self.option, self.folder, self.reading = packed, option, path, Reading()
        about = packed.about
        self.by_class = about is not None and about.by_class
        labels = packed.labels.copy()
        for place, label, _, _ in about.left_out if about else ():
            labels[place] = label
        chosen = list(range(len(packed.class_names)))
        if not about or about.classes != parameters.classes:
            chosen = choose_classes(packed.class_names, parameters.classes)
        new_label, places = chosen_places(labels, chosen, len(packed.class_names), self.by_class)
        super().__init__(parameters, [packed.class_names[c] for c in chosen], new_label[labels[places]])
        self.is_whole = chosen == list(range(len(packed.class_names)))
        self.places = places  # in the file
        entries = {place: (file, reason) for place, _, file, reason in about.left_out} if about else {}
        self.left_out = {new: entries[old] for new, old in enumerate(places.tolist()) if old in entries}

    def fingerprint(self):
        """That of the source. For a choice of its classes, only the numbers and digests that every set has."""
        own = super().fingerprint()
        return own | self.packed.about.fingerprint if self.packed.about and self.is_whole else own

    def __getitem__(self, index):
        place = first = range(len(self))[index]  # IndexError beyond the end
        while place in self.left_out:
            place = (place + 1) % len(self)
            if place == first:
                raise UserError(f"{self.option} {self.folder} holds no readable image")
        try:
            image = self.packed.images[int(self.places[place])]
        except ValueError as error:
            found = f"is damaged: {error}; pack it again"
            if isinstance(error, OtherKind) and not self.packed.about:  # pack.py has not written it
                command = pack_command(self.parameters, self.option, self.folder)
                found = f"has images of different kinds: {error}; make them alike: {command}"
            raise UserError(f"{self.option} {self.folder} {found}") from None
        return np.ascontiguousarray(image.transpose(2, 0, 1)), self.labels[place]


class MemorySet(ImageSet):
    """The training images of another set, read once and kept in memory. Raises UserError if they do not fit."""

    def __init__(self, source):
        p = source.parameters
        super().__init__(p, source.class_names, np.empty(len(source), np.int64))
        processes, free = processes_on_host(), system.free_memory()
        size = len(source) * math.prod(self.image_shape) * processes
        if size > free:
            each = f" in each of {processes} processes" if processes > 1 else ""
            raise UserError(
                f"--data_in_memory needs {size / 1e9:.1f} GB for {len(source)} images{each}, and {free / 1e9:.1f} GB "
                "are free: leave it out"
            )
        self._images = np.empty((len(source), *self.image_shape), np.uint8)
        jobs = (range(start, min(start + 64, len(source))) for start in range(0, len(source), 64))
        if p.num_workers and source.is_slow:
            read = read_ahead(jobs, source.training_image, p.num_workers, source.reading)
        else:
            read = (list(map(source.training_image, rows)) for rows in jobs)
        place = 0
        with closing(read), progress(total=len(source), title="images read into memory", unit="img") as bar:
            for pairs in read:
                for image, label in pairs:
                    self._images[place], self.labels[place] = image, label
                    place += 1
                bar.update(len(pairs))

    def __getitem__(self, index):
        return self._images[index], self.labels[index]


class FakeSet(ImageSet):
    """FAKE_IMAGES images of noise, for timing. An image depends only on the seed, the split and its index."""

    def __init__(self, parameters, split):
        total = parameters.num_classes or FAKE_CLASSES
        if total > FAKE_IMAGES:
            raise UserError(
                f"--num_classes {total} is more than the {FAKE_IMAGES} images of --dataset fake: give fewer"
            )
        names = [str(number) for number in range(total)]
        names = [names[c] for c in choose_classes(names, parameters.classes)]
        super().__init__(parameters, names, np.arange(FAKE_IMAGES) % len(names))
        self.purpose = f"fake/{split}"

    def __getitem__(self, index):
        label = self.labels[index]
        noise = randomness.rng(self.parameters.manual_seed, self.purpose, index).bytes(math.prod(self.image_shape))
        return np.frombuffer(noise, np.uint8).reshape(self.image_shape), label


def are_imagenets(names):
    """Whether `names` look like those of ImageNet's classes, such as n01440764, or of a choice of them."""
    return len(names) == 1000 or all(re.fullmatch(r"n\d{8}", name) for name in names)


def choose_classes(names, classes):
    """The indices in `names` of the classes that the option `classes` chooses, in its order.

    - None: all classes.
    - "10,20": the range from 10 to 19.
    - Three or more numbers, or any names: a list.
    - "random:10:7": ten classes drawn with seed 7.

    Raises UserError for a missing class, a class given twice, and fewer than two classes. The message names the
    existing classes.
    """
    total = len(names)
    if classes is None:
        return list(range(total))

    def refused(problem):
        return UserError(
            f"--classes {classes} {problem}: there are {total} classes, 0 ({names[0]}) to {total - 1} ({names[-1]}); "
            "--classes none takes all"
        )

    # Read the option. It has one of four forms.
    items = [item.strip() for item in classes.split(",")]
    if classes.startswith("random:"):
        count, seed = map(int, classes.split(":")[1:])
        if count > total:
            raise refused(f"draws {count}")
        chosen = sorted(randomness.rng(seed, "classes").permutation(total)[:count].tolist())
    elif not all(item.isdecimal() for item in items):
        for item in items:
            if item not in names:
                raise refused(f"names {item}, which is not a class")
        chosen = [names.index(item) for item in items]
    elif len(items) == 2:
        chosen = range(int(items[0]), int(items[1]))
        if chosen.stop > total == len(chosen):
            # The ACGAN replications choose ten classes of ImageNet. The folder may hold just these ten already.
            print(f"--classes {classes}: the data have {total} classes, and all are used", file=sys.stderr)
            chosen = range(total)
    else:
        chosen = [int(item) for item in items]
    # Check the choice.
    if any(number >= total for number in reversed(chosen)):  # from the end: fast for a range far longer than the data
        raise refused("goes beyond the last class")
    if len(set(chosen)) < len(chosen):
        raise refused("names a class twice")
    if len(chosen) < 2:
        raise refused("leaves fewer than two classes")
    return list(chosen)


def chosen_places(labels, chosen, total, by_class):
    """(int64 [total], the new number of each class or -1; the places of the images of the classes `chosen`, in order).

    `labels`: the classes of all images, 0 … total - 1. `by_class`: whether the result is ordered by class.
    """
    new_label = np.full(total, -1)
    new_label[chosen] = range(len(chosen))
    places = np.flatnonzero(new_label[labels] >= 0)
    if by_class:
        places = places[np.argsort(new_label[labels[places]], kind="stable")]
    return new_label, places


def _digest(data):
    return hashlib.blake2b(data, digest_size=8).hexdigest()
