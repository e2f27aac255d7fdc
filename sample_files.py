"""Samples as files: a PNG each in class folders, or all in one `.npz` that other evaluators read.

Several processes may write the same place, and an interrupted writing goes on: a sample's place follows from its index.
"""

import contextlib
import fcntl
import glob
import io
import math
import shutil
import zipfile
from pathlib import Path

import numpy as np

import runtime
from pictures import save_image
from utils import UserError, atomic_path

LONGEST = 60  # letters of a class's name in a folder's: file systems take 255 bytes, and a letter has up to 4


def class_folder(label, name):
    """The name of the folder for samples of the class with this number and name, such as "0003-daisy".

    The number orders the folders and keeps them apart, whatever the names have in common: on a file system that takes
    "A" for "a", or beyond their first LONGEST letters. A name that says no more than the number is left out.
    """
    plain = "".join("_" if letter in '/\\<>:"|?*' or not letter.isprintable() else letter for letter in name)
    plain = plain[:LONGEST].strip(" .")  # Windows drops a space or dot at the end
    return f"{label:04d}" if plain in ("", str(label)) else f"{label:04d}-{plain}"


class PNGWriter:
    """Writes each sample as FOLDER/CLASS/INDEX.png, as image folders are laid out; `class_folder` names CLASS.

    `option` named the folder, in which no file may be unless the writing `goes_on`.
    """

    def __init__(self, option, folder, labels, class_names, goes_on):
        self.option, self.folder, self.labels = option, Path(folder), labels
        self._classes = [self.folder / class_folder(label, name) for label, name in enumerate(class_names)]
        runtime.from_first(self._make_folders, option, goes_on)

    def _make_folders(self, option, goes_on):
        if goes_on and not self.folder.is_dir():
            raise UserError(f"{option} {self.folder} is gone, and samples in it: give another folder")
        if not goes_on and any(not path.is_dir() for path in self.folder.rglob("*")):
            raise UserError(f"{option} {self.folder} is not empty: give another folder")
        try:
            for path in self._classes:
                path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{option} {self.folder} cannot be made ({error.strerror}): give another folder") from None

    def write(self, indices, images):
        """Write samples `indices`, uint8 [n, C, H, W]."""
        with _named(f"{self.option} {self.folder}"):
            for index, image in zip(indices, images, strict=True):
                save_image(self._classes[self.labels[index]] / f"{index:06d}.png", image.transpose(1, 2, 0))

    def finish(self):
        """What to tell the user when all are written."""
        return f"samples: {self.folder}"


class NPZWriter:
    """Writes samples to one .npz: arr_0 uint8 [N, H, W, C] and arr_1 int64 [N], as guided-diffusion.

    They gather in a hidden file beside it, of the test that has this `key`; `path` appears, whole, at the end. That of
    an interrupted test with other options is removed: it could not write `path` any more.
    """

    def __init__(self, path, labels, image_shape, key, goes_on):
        self.path, self.labels, self.lock = Path(path), labels, None  # the lock: an open file, for the caller to close
        self._part = self.path.with_name(f".{self.path.name}.{key[:8]}.part")
        channels, height, width = image_shape
        shape = (len(labels), height, width, channels)
        self._size = math.prod(shape[1:])
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        self._start = header.tell()
        runtime.from_first(self._begin, header.getvalue(), goes_on)

    def _begin(self, header, goes_on):
        if self.path.exists():
            raise UserError(f"--samples_npz {self.path} exists already: give another file")
        for part in self.path.parent.glob(f".{glob.escape(self.path.name)}.*.part"):
            if part != self._part:
                with _locked(part, self.path):
                    part.unlink()
        if goes_on and not self._part.exists():
            raise UserError(
                f"--samples_npz {self.path}: {self._part}, with its first samples, is gone: give another file"
            )
        if not goes_on:
            try:
                needed, free = 2 * self._size * len(self.labels), shutil.disk_usage(self.path.parent).free
                if needed > free:  # twice: the file is made of what was gathered
                    raise UserError(
                        f"--samples_npz {self.path} takes {needed / 1e6:,.0f} MB while it is written, and its disk has "
                        f"{free / 1e6:,.0f} MB: make room there, or give another file"
                    )
                self._part.write_bytes(header)
            except OSError as error:
                raise UserError(f"--samples_npz {self.path} cannot be written: {error.strerror}") from None
        self.lock = _locked(self._part, self.path)

    def write(self, indices, images):
        """Write samples `indices`, which follow each other, uint8 [n, C, H, W]."""
        with self._named(), open(self._part, "r+b") as file:
            file.seek(self._start + int(indices[0]) * self._size)
            file.write(np.ascontiguousarray(images.transpose(0, 2, 3, 1)).tobytes())

    def finish(self):
        """Make the file of what was gathered; returns what to tell the user."""
        with self._named():
            self._finish()
        return f"samples: {self.path}"

    def _named(self):
        return _named(f"--samples_npz {self.path}", f", or remove {self._part}, which has the first samples")

    def _finish(self):
        with atomic_path(self.path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            archive.write(self._part, "arr_0.npy")
            with archive.open("arr_1.npy", "w") as member:
                np.lib.format.write_array(member, self.labels)
        self._part.unlink()


def _locked(part, path):
    """The open file `part`, in which a test gathers samples for `path`. Raises UserError while another one does."""
    file = open(part, "rb")  # noqa: SIM115, closing it drops the lock
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(f"--samples_npz {path} is being written by another test: give another file") from None
    except OSError:  # a file system without locks
        pass
    return file


@contextlib.contextmanager
def _named(what, otherwise=""):
    """Have an OSError, such as that of a full disk, say `what` cannot be written, and what would do."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{what} cannot be written: {error.strerror}; make room there, and the same command goes on{otherwise}"
        ) from None
