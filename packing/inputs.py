"""Opens the sources of pack.py: class folders, ImageNet as it is distributed, StyleGAN's data sets, published files."""

import contextlib
import io
import itertools
import os
import re
import threading
from collections import Counter
from pathlib import Path

import numpy as np

import system
from dataset import check_image_set, load_dataset, path_option
from formats.archives import read_member, tar_members, zip_members
from formats.image_files import EXTENSIONS, image_names, is_turned, refuse_single_image
from formats.packed_data import ABOUT, is_packed
from formats.stylegan_data import STYLEGAN_LABELS, images_among, labels_limit, stylegan_labels
from loading.image_sets import FolderSet, ImageSet, choose_classes, chosen_places
from loading.pipeline import Reading
from utils import UserError, one_line, plural

LIST_LIMIT = 2**28  # bytes of a label list


def open_source(parameters, label_list=None):
    """(the `ImageSet` to pack, its split: "train" or "test").

    `label_list`: the file of --label_list. Raises UserError for wrong and for hostile data.
    """
    p = parameters
    split = "test" if p.test_data_path else "train"
    option, path = path_option(p, split)
    if not p.reads_folders:
        return load_dataset(p, split), split
    entries = _entries(option, path, label_list)
    if entries is None:
        return load_dataset(p, split), split
    source = SourceSet(p, option, path, *entries)
    check_image_set(p, source, split)
    return source, split


def _entries(option, path, label_list):
    """(file names, contents, classes int64 [N], class names, skipped) for `SourceSet`; None for other sources."""
    refuse_single_image(option, path)
    if label_list:
        return _flat(option, path, label_list)
    if os.path.isdir(path):
        return _stylegan_folder(option, path) if os.path.isfile(os.path.join(path, STYLEGAN_LABELS)) else None
    if str(path).lower().endswith(".zip"):
        return _stylegan_zip(option, path)
    return None if is_packed(path) else _tar_of_tars(option, path)


class SourceSet(FolderSet):
    """Images in an archive or in a folder without class folders. Each is read when it is asked for.

    `files`: names. `contents`: for each a path below the folder, or a `Member` of the archive. `labels`: for each its
    class, an index in `class_names`. `by_class`: whether they are ordered by class.
    """

    def __init__(self, parameters, option, path, files, contents, labels, class_names, skipped, by_class=True):
        chosen = choose_classes(class_names, parameters.classes)
        self.by_class = by_class
        new_label, places = chosen_places(labels, chosen, len(class_names), by_class)
        ImageSet.__init__(self, parameters, [class_names[c] for c in chosen], new_label[labels[places]])
        self.option, self.folder = option, path
        self.files, self._contents = [files[place] for place in places], [contents[place] for place in places]
        self._archive = None if os.path.isdir(path) else system.open_to_read(path)
        self._skipped, self._lock, self.reading = skipped, threading.Lock(), Reading()

    def path(self, place):
        content = self._contents[place]
        return Path(self.folder, content if self._archive is None else content.name)

    def open(self, place):
        if self._archive is None:
            return self.path(place)
        return io.BytesIO(read_member(self._archive, self._contents[place]))

    def count_turned(self, first):
        return super().count_turned(first) if self._archive is None else sum(map(self._is_turned, range(first)))

    def _is_turned(self, place):
        try:
            return is_turned(self.open(place))
        except (ValueError, OSError):  # a damaged file; reading its image later reports it
            return False

    def file_names(self):
        return "/".join(self.files).encode(errors="surrogateescape")

    def file_size(self, place):
        return super().file_size(place) if self._archive is None else self._contents[place].size


# ImageNet's validation images: files without class folders, and a list of their classes


def _flat(option, path, label_list):
    skipped = Counter()
    if os.path.isdir(path):
        names = image_names(path, option, skipped)
        contents = names
    else:
        with _named(option, path, "a tar"):
            members = _images(tar_members(path), skipped)
        names, contents = [os.path.basename(member.name) for member in members], members
    if not names:
        raise UserError(f"{option} {path} holds no images beside each other, as --label_list needs them")
    classes = _classes_of(names, label_list)
    class_names = sorted(set(classes), key=lambda name: (int(name) if name.isdecimal() else -1, name))
    number = {name: index for index, name in enumerate(class_names)}
    labels = np.array([number[name] for name in classes], np.int64)
    order = np.argsort(labels, kind="stable")
    return [names[i] for i in order], [contents[i] for i in order], labels[order], class_names, skipped


def _classes_of(names, label_list):
    """The class of each of the files `names`, by a text file with lines FILE CLASS, or CLASS alone."""
    with _named("--label_list", label_list, "text"), open(label_list, "rb") as file:
        content = file.read(LIST_LIMIT + 1)
        if len(content) > LIST_LIMIT:
            raise ValueError(f"it has more than {LIST_LIMIT} bytes")
        text = content.decode("utf-8-sig")
    lines = [words for line in text.splitlines() if (words := re.split(r"[,\s]+", line.strip(), maxsplit=2)) != [""]]
    if all(len(words) == 1 for words in lines):
        if len(lines) != len(names):
            raise UserError(
                f"--label_list {label_list} has {plural(len(lines), 'class name')} for {plural(len(names), 'image')}: "
                "give one for each image, or lines with FILE CLASS"
            )
        return [name for (name,) in lines]
    of_file = {words[0]: words[1] for words in lines if len(words) > 1}
    classes = [of_file.get(name) or of_file.get(os.path.splitext(name)[0]) for name in names]
    if None in classes:
        raise UserError(
            f"--label_list {label_list} has no class for {names[classes.index(None)]!r:.200}: give a list with a line "
            "FILE CLASS for each image"
        )
    return classes


# ImageNet's training images: a tar with a tar of images for each class


def _tar_of_tars(option, path):
    skipped, files, contents, labels = Counter(), [], [], []
    with _named(option, path, "a tar with a tar of images for each class"):
        members = tar_members(path)
        inner = sorted((m for m in members if m.name.lower().endswith(".tar")), key=lambda m: m.name)
        if not inner and any(m.name.lower().endswith(EXTENSIONS) for m in members):
            raise UserError(f"{option} {path} holds images without their classes: give these by --label_list FILE")
        if len(inner) < 2:
            raise ValueError(f"it holds {plural(len(inner), 'tar')}")
        skipped["image beside the classes"] = sum(m.name.lower().endswith(EXTENSIONS) for m in members)
        for label, outer in enumerate(inner):
            try:
                images = _images(tar_members(path, outer.offset, outer.size), skipped)
            except Exception as error:  # tarfile may raise anything for a damaged tar
                raise ValueError(f"{outer.name!r:.200} in it: {one_line(error)}") from None
            files += [os.path.basename(member.name) for member in images]
            contents += [member._replace(name=f"{outer.name}/{member.name}") for member in images]
            labels += [label] * len(images)
    class_names = [os.path.splitext(os.path.basename(outer.name))[0] for outer in inner]
    return files, contents, np.array(labels, np.int64), class_names, skipped


def _images(members, skipped):
    """The images among `members`, sorted by file name. Others are counted. Raises ValueError for two of one name."""
    images = [member for member in members if member.name.lower().endswith(EXTENSIONS)]
    images = [member for member in images if not os.path.basename(member.name).startswith(".")]
    skipped["other file"] += len(members) - len(images)
    images.sort(key=lambda member: os.path.basename(member.name))
    names = [os.path.basename(member.name) for member in images]
    for one, two in itertools.pairwise(names):
        if one == two:
            raise ValueError(f"it holds {one!r:.200} twice")
    return images


# StyleGAN's data sets


def _stylegan_folder(option, path):
    with _named(option, path, f"StyleGAN's folder of images with {STYLEGAN_LABELS}"):
        files = list(_files_below(path))
        names = sorted(name for name, is_regular in files if is_regular and name.lower().endswith(EXTENSIONS))
        skipped = Counter({"other file": len(files) - len(names) - 1})  # dataset.json is not skipped
        with open(os.path.join(path, STYLEGAN_LABELS), "rb") as file:
            return _stylegan(names, names, file.read(labels_limit(len(names)) + 1), skipped)


def _files_below(folder, inner=""):
    """Yield (path below `folder`, whether it is a regular file) for each entry that is neither hidden nor a folder.

    Others, such as a pipe, must not be opened: reading one might wait for ever.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(entry.path, f"{inner}{entry.name}/")
            else:
                yield f"{inner}{entry.name}", entry.is_file()


def _stylegan_zip(option, path):
    """StyleGAN's ZIP; None if pack.py has written it."""
    with _named(option, path, f"StyleGAN's .zip of images with {STYLEGAN_LABELS}"):
        members = zip_members(path)
        if members.find(ABOUT):
            return None
        found = members.find(STYLEGAN_LABELS)
        if found is None:
            raise ValueError(f"it has no {STYLEGAN_LABELS}")
        images = images_among(members)
        skipped = Counter({"other file": len(members) - len(images) - 1})
        with open(path, "rb") as file:
            labels = read_member(file.fileno(), found)
        return _stylegan(images.names, images, labels, skipped)


def _stylegan(names, contents, labels, skipped):
    if not names:
        raise ValueError("it holds no images")
    labels = stylegan_labels(labels, names)
    return names, contents, labels, [str(number) for number in range(labels.max() + 1)], skipped, False


@contextlib.contextmanager
def _named(option, path, kind):
    """Turn any exception into a UserError: `path`, which `option` gave, cannot be read as `kind`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a stranger's file may cause any error
        raise UserError(f"{option} {path} cannot be read as {kind}: {one_line(error)}") from None
