"""Small helpers that several modules share."""

import contextlib
import errno
import hashlib
import io
import os
import re
import secrets
import shlex
import socket
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

import system

LOCK_FILE = ".lock"
RUN_FILE = "parameters.yaml"  # in every run folder
# The umask can only be read by setting it, which affects all threads. So read it once, while there is one thread.
_UMASK = os.umask(0)
os.umask(_UMASK)
FIRST_LINE, LINES_APART = 5, 30  # seconds until the first line of progress, and between lines, without a terminal
NPY_HEADER = 2**16  # bytes read for a header; NumPy writes far fewer


class UserError(Exception):
    """A user's mistake. Its text is one sentence with the finding and the remedy. Commands exit with code 2."""


def printable(text, length=80):
    """`text`, which may come from any file, as printable text for a message.

    Only its first `length` characters, then "…"; None: all of them.
    """
    shown = "".join(character if character.isprintable() else "?" for character in text[:length])
    return shown if len(shown) == len(text) else shown + "…"


def shell_word(path):
    r"""`path` as one word of a command that is printed, such as 's p'.

    Bytes that are no text or cannot be shown are written as in $'\xd6', which bash and zsh understand.
    """
    text = str(path)
    if text.isprintable():
        return shlex.quote(text)
    letters = [letter if letter.isprintable() and letter not in "'\\" else _escaped(letter) for letter in text]
    return f"$'{''.join(letters)}'"


def _escaped(letter):
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))


def one_line(error):
    """The text of an exception, which may quote any file, on one line of at most 200 characters."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else getattr(error, "strerror", None) or error
    return " ".join(str(text).split())[:200]


def plural(count, noun):
    """The count with its noun: 1 step, 2 steps, 2 processes."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{ending * (count != 1)}"


def program():
    """The command's name for its messages, such as train.py; the package's name if it runs with `python -m`."""
    path = Path(sys.argv[0])
    return path.parent.name if path.name == "__main__.py" else path.name


@contextlib.contextmanager
def atomic_path(path):
    """Yield a temporary path beside `path`. After the block, without error, flush it to disk and rename it to `path`.

    After a killed process, a full disk or a power cut, the old file is still at `path`. The temporary name has the same
    suffix, because image and array writers choose their format by it.
    """
    path = Path(path)
    # The name is known before the file is made. So an interruption at any moment leaves no file.
    temporary = temporary_name(path)
    try:
        temporary.touch(mode=0o600, exist_ok=False)
        yield temporary
        system.flush(temporary)
        temporary.chmod(0o666 & ~_UMASK)
        system.replace(temporary, path)
        with contextlib.suppress(OSError):  # not every file system flushes folders
            system.flush(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the folder itself may be missing
            temporary.unlink()
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary), temporary):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def temporary_name(path):
    """A new hidden name beside `path` with the same suffix, such as .tmp-grid-1f2e3d4c.png. Nothing is made."""
    return path.parent / f".tmp-{path.stem}-{secrets.token_hex(4)}{path.suffix}"


@contextlib.contextmanager
def naming(path):
    """A context that adds the file name `path` to an OSError. For a full disk, Python gives no file name."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextlib.contextmanager
def writing(option, path):
    """Turn an OSError that names a file into a UserError: `path`, which `option` gave, cannot be written.

    An OSError without a name, such as that of a closed pipe, stays. So do all without `path`.
    """
    try:
        yield
    except OSError as error:
        if path is None or error.filename is None:
            raise
        raise UserError(f"{option} {path} cannot be written: {error.strerror}") from None


def is_full(error):
    """Whether an OSError says that the disk, or the user's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def run_numbers(save_path, recipe):
    """The numbers of the folders and files RECIPE-NUMBER in the folder `save_path`, ascending."""
    try:
        names = os.listdir(save_path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"--save_path {save_path} cannot be read: {error.strerror}") from None
    matches = [re.fullmatch(re.escape(recipe) + "-([0-9]{1,9})", name) for name in names]
    return sorted(int(match[1]) for match in matches if match)


def remove_leftovers(folder):
    """Remove temporary files that killed writers (`atomic_path`, safetensors) left in `folder`, which is locked."""
    for path in Path(folder).glob(".tmp*"):
        if path.is_symlink() or path.is_file():
            path.unlink()


def lock(folder):
    """Lock `folder` against other processes. Returns the open file that holds the lock.

    The system releases the lock when the file is closed or this process ends. Raises BlockingIOError if another process
    holds the lock; the error's text names that process.
    """
    file = open(Path(folder, LOCK_FILE), "a+", encoding="utf-8", errors="replace")  # noqa: SIM115, the caller closes it
    try:
        system.try_lock(file)
    except BlockingIOError:
        file.seek(0)
        owner = " ".join(file.read(200).split()) or "another process"
        file.close()
        raise BlockingIOError(owner) from None
    except OSError as error:
        print(
            f"{folder} cannot be locked ({error.strerror}): make sure that no other process writes in it",
            file=sys.stderr,
        )
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def npy_header(member):
    """Read the header of an open .npy file up to where its content begins. Returns (shape, Fortran order, dtype).

    For any other file it raises an exception, usually a ValueError. It needs little memory for any file.
    """
    head = io.BytesIO(member.read(NPY_HEADER))
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    reader = readers.get(np.lib.format.read_magic(head))
    if reader is None:
        raise ValueError("its .npy version is unknown")
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
    """Tells when a line of progress is due without a terminal: after FIRST_LINE seconds, then every LINES_APART."""

    def __init__(self):
        self._next = time.monotonic() + FIRST_LINE

    def is_due(self):
        due = time.monotonic() >= self._next
        if due:
            self._next = time.monotonic() + LINES_APART
        return due


def so_far(done, total, done_before, start, unit=None):
    """Text on progress: how much of `total` is done, the time left and, with `unit`, how many units a second are done.

    At the time `start`, `done_before` was done. `total` may be None.
    """
    count, seconds = max(done - done_before, 1), max(time.monotonic() - start, 1e-9)
    texts = [f"{done} of {total}" if total else f"{done}"]
    texts += [f"{count / seconds:.1f} {unit}/s"] if unit else []
    texts += [f"{tqdm.format_interval((total - done) * seconds / count)} left"] if total else []
    return ", ".join(texts)


def progress(items=None, *, title, unit, total=None, done=0, shown=True):
    """Show progress while a loop reads `items`, or while calls of `update(count)` count up to `total`.

    A terminal shows a bar until the end. Elsewhere, such as in a job's log, a line is printed from time to time.
    """
    if sys.stderr.isatty() or not shown:
        return tqdm(items, desc=title, unit=unit, total=total, initial=done, leave=False, disable=not shown)
    return _Lines(items, title, unit, total, done)


class _Lines:
    """The methods of tqdm that `progress` needs, with lines instead of a bar."""

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
            print(f"{self.title}: {so_far(self.n, self.total, *self._begun, self.unit)}", file=sys.stderr, flush=True)
