"""The names of the images in class folders: listed once, cached, and read in place, so that processes share them.

A cache file is one line of JSON, padded with spaces to a multiple of 64 bytes, then the end of each name (int64) and
the names, joined by slashes, which no name contains.
"""

import hashlib
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

import system
from formats.image_files import image_names, say_once
from utils import atomic_path, one_line

CACHE = "~/.cache/paddle/image-lists"  # beside Paddle's own downloads
FORMAT = "image names 1"
HEADER_LIMIT = 2**24  # bytes
# A folder may change twice within one tick of its file system's clock. So a list is cached only if its folders have not
# changed for this long, in seconds.
SETTLED = 60


class ImageList(NamedTuple):
    """The images of some class folders, by class, then by name."""

    counts: list  # the number of images of each class
    skipped: Counter  # other entries of the folders, by kind
    names: np.ndarray  # uint8, the names in bytes, joined by slashes
    ends: np.ndarray  # int64 [images], where each name ends in `names`

    def name(self, place):
        """The name of image `place`."""
        start = int(self.ends[place - 1]) + 1 if place else 0
        return os.fsdecode(self.names[start : self.ends[place]].tobytes())


def list_images(path, option, class_names):
    """The `ImageList` of the folders `class_names` in `path`, which `option` gave.

    It comes from the cache if no folder has changed since. Otherwise the folders are listed, and the list is cached. A
    cache that cannot be read or written is reported once, and the run goes on without it.
    """
    folders = [os.path.join(path, name) for name in class_names]
    try:
        changes = [os.stat(folder).st_mtime_ns for folder in folders]
    except OSError:  # listing the folder reports it
        return _list(folders, option)
    cached = Path(os.path.expanduser(CACHE), f"{_digest(*map(os.path.realpath, folders))}.names")
    known = _read(cached, changes)
    if known:
        return known
    found = _list(folders, option)
    settled = time.time_ns() - max(changes) > SETTLED * 10**9
    if not settled or found.skipped["link to itself"]:  # such links are named at every start
        return found
    return _written(cached, changes, found, path) or found


def _list(folders, option):
    counts, skipped, lengths, names = [], Counter(), [], bytearray()
    for folder in folders:
        images = [os.fsencode(name) for name in image_names(folder, option, skipped)]
        counts.append(len(images))
        lengths.append(np.fromiter(map(len, images), np.int64, len(images)))
        names += b"".join(name + b"/" for name in images)
    ends = np.cumsum(np.concatenate(lengths) + 1) - 1
    return ImageList(counts, skipped, np.frombuffer(names, np.uint8)[:-1], ends)


def _read(cached, changes):
    """The `ImageList` in the file `cached`; None if there is none, or if the folders have changed since."""
    try:
        with open(cached, "rb") as file:
            header = json.loads(file.readline(HEADER_LIMIT))
            start = file.tell()
        if header["changes"] != changes:
            return None
        content = np.memmap(cached, np.uint8, "r", start)
        counts, skipped = header["counts"], Counter(header["skipped"])
        size = 8 * sum(counts)
        if header["format"] != FORMAT or header["digest"] != _digest(json.dumps(counts), content):
            raise ValueError("its content is damaged")
        return ImageList(counts, skipped, content[size:], content[:size].view("<i8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        say_once(f"{cached} is ignored and made again: {one_line(error)}")
        return None


def _written(cached, changes, found, path):
    """Write `found` to the file `cached`. Returns the list in that file; None if it cannot be written.

    Processes that start together list the folders together. The first one writes, and all use its file.
    """
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with open(cached.parent / ".lock", "w") as lock:
            system.wait_for_lock(lock)
            if known := _read(cached, changes):
                return known
            content = found.ends.astype("<i8").tobytes(), found.names
            header = {"format": FORMAT, "path": os.path.abspath(path), "changes": changes, "counts": found.counts}
            header |= {"skipped": found.skipped, "digest": _digest(json.dumps(found.counts), *content)}
            line = json.dumps(header).encode()
            with atomic_path(cached) as temporary, open(temporary, "wb") as file:
                file.write(line + b" " * (-len(line) % 64 + 63) + b"\n")
                for data in content:
                    file.write(data)
        return _read(cached, changes)
    except OSError as error:
        say_once(f"the list of the images in {path} is not cached: {cached.parent}: {one_line(error)}")
        return None


def _digest(*values):
    digest = hashlib.blake2b(digest_size=16)
    for value in values:
        digest.update(value.encode(errors="surrogateescape") + b"\0" if isinstance(value, str) else value)
    return digest.hexdigest()
