"""Small helpers that two modules share."""

import contextlib
import fcntl
import hashlib
import io
import os
import re
import socket
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

LOCK_FILE = ".lock"
RUN_FILE = "parameters.yaml"  # in every run folder
_UMASK = os.umask(0)  # which to read is to set, for all threads: once, while there is one
os.umask(_UMASK)
FIRST_LINE, LINES_APART = 5, 30  # seconds, between lines on progress where there is no terminal
NPY_HEADER = 2**16  # bytes, many times what NumPy writes


class UserError(Exception):
    """A user's mistake, told in one sentence: what was found and what would do. Entry points exit with code 2."""


def told(error):
    """What an exception that a stranger's file caused says, on one line of at most 200 characters."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else getattr(error, "strerror", None) or error
    return " ".join(str(text).split())[:200]


def plural(count, noun):
    """The count with its noun: 1 step, 2 steps."""
    return f"{count} {noun}{'s' * (count != 1)}"


def program():
    """The name that the running command's messages begin with, such as train.py; that of a package run by -m."""
    path = Path(sys.argv[0])
    return path.parent.name if path.name == "__main__.py" else path.name


@contextlib.contextmanager
def atomic_path(path):
    """Yield a temporary path beside `path`; when the block ends well it is flushed to disk and renamed to `path`.

    A killed process, a full disk or a power cut leaves what stood at `path` before. The temporary name keeps the
    suffix, which image and array writers choose their format by.
    """
    path = Path(path)
    with naming(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".tmp-{path.stem}-", suffix=path.suffix)
        os.close(descriptor)
    try:
        yield Path(name)
        _flush(name)
        os.chmod(name, 0o666 & ~_UMASK)
        os.replace(name, path)
        with contextlib.suppress(OSError):  # not every file system flushes folders
            _flush(path.parent)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, name):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


@contextlib.contextmanager
def naming(path):
    """Have an OSError name the file `path`, as one of a full disk does not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def run_numbers(save_path, recipe):
    """The numbers, ascending, in the names RECIPE-NUMBER of what is in the folder `save_path`."""
    try:
        names = os.listdir(save_path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"--save_path {save_path} cannot be read: {error.strerror}") from None
    matches = [re.fullmatch(re.escape(recipe) + "-([0-9]{1,9})", name) for name in names]
    return sorted(int(match[1]) for match in matches if match)


def remove_leftovers(folder):
    """Remove what killed writers, `atomic_path` and safetensors, left in `folder`, in which nobody writes now."""
    for path in Path(folder).glob(".tmp*"):
        if path.is_symlink() or path.is_file():
            path.unlink()


def lock(folder):
    """The open file that holds the lock of `folder`, which the kernel drops when it is closed or this process ends.

    Raises BlockingIOError where another process holds it: its text says which.
    """
    file = open(Path(folder, LOCK_FILE), "a+", encoding="utf-8", errors="replace")  # noqa: SIM115, closed by who locks
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = " ".join(file.read(200).split()) or "another process"
        file.close()
        raise BlockingIOError(owner) from None
    except OSError as error:
        print(f"{folder} cannot be locked ({error.strerror}): let no other process write in it", file=sys.stderr)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def _flush(path):
    """Have a file's content, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def npy_header(member):
    """(shape, Fortran order, dtype) of an open .npy file, which is left where its content begins.

    Raises one of many exceptions, ValueError as a rule, for anything else; takes little memory whatever the file says.
    """
    head = io.BytesIO(member.read(NPY_HEADER))
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    reader = readers.get(np.lib.format.read_magic(head))
    if reader is None:
        raise ValueError("it is in no known .npy version")
    header = reader(head)
    member.seek(head.tell())
    return header


def file_digest(path):
    """The SHA-256 of a file, as hexadecimal text."""
    with open(path, "rb") as file:
        return open_file_digest(file)


def open_file_digest(file):
    """The SHA-256 of the rest of an open file, as hexadecimal text."""
    digest = hashlib.sha256()
    while chunk := file.read(2**20):
        digest.update(chunk)
    return digest.hexdigest()


class Pace:
    """When a line on progress is due where there is no terminal: after FIRST_LINE seconds, then every LINES_APART."""

    def __init__(self):
        self._next = time.monotonic() + FIRST_LINE

    def is_due(self):
        due = time.monotonic() >= self._next
        if due:
            self._next = time.monotonic() + LINES_APART
        return due


def so_far(done, total, done_before, start):
    """How much is done of `total`, and the time left: text. `done_before` was done at the time `start`."""
    if not total:
        return f"{done}"
    each = (time.monotonic() - start) / max(done - done_before, 1)
    return f"{done} of {total}, {tqdm.format_interval((total - done) * each)} left"


def progress(items=None, *, title, unit, total=None, done=0, shown=True):
    """`items`, or a `total` of which `update` says how much more is done, with a bar on a terminal while it lasts.

    Elsewhere, such as in a job's log, a line is printed now and then.
    """
    if sys.stderr.isatty() or not shown:
        return tqdm(items, desc=title, unit=unit, total=total, initial=done, leave=False, disable=not shown)
    return _Lines(items, title, unit, total, done)


class _Lines:
    """What `progress` needs of tqdm, with lines in place of a bar."""

    def __init__(self, items, title, unit, total, done):
        self.items, self.title, self.unit, self.n = items, title, unit, done
        self.total = len(items) if total is None and items is not None else total
        self._begun, self._pace = (done, time.monotonic()), Pace()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __iter__(self):
        for item in self.items:
            yield item
            self.update(1)

    def update(self, count):
        self.n += count
        if self._pace.is_due():
            told = so_far(self.n, self.total, *self._begun)
            print(f"{self.title} ({self.unit}): {told}", file=sys.stderr, flush=True)
