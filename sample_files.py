"""Samples as files: a PNG each in class folders, or all in one `.npz` that other evaluators read.

Several processes may write the same place, and an interrupted writing goes on: a sample's place follows from its index.
"""

import io
import math
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
        self.folder, self.labels = Path(folder), labels
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
        for index, image in zip(indices, images, strict=True):
            save_image(self._classes[self.labels[index]] / f"{index:06d}.png", image.transpose(1, 2, 0))

    def finish(self):
        """What to tell the user when all are written."""
        return f"samples: {self.folder}"


class NPZWriter:
    """Writes samples to one .npz: arr_0 uint8 [N, H, W, C] and arr_1 int64 [N], as guided-diffusion.

    They gather in a hidden file beside it, of the test that has this `key`; `path` appears, whole, at the end.
    """

    def __init__(self, path, labels, image_shape, key, goes_on):
        self.path, self.labels = Path(path), labels
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
        if goes_on and not self._part.exists():
            raise UserError(
                f"--samples_npz {self.path}: {self._part}, with its first samples, is gone: give another file"
            )
        if not goes_on:
            try:
                self._part.write_bytes(header)
            except OSError as error:
                raise UserError(f"--samples_npz {self.path} cannot be written: {error.strerror}") from None

    def write(self, indices, images):
        """Write samples `indices`, which follow each other, uint8 [n, C, H, W]."""
        with open(self._part, "r+b") as file:
            file.seek(self._start + int(indices[0]) * self._size)
            file.write(np.ascontiguousarray(images.transpose(0, 2, 3, 1)).tobytes())

    def finish(self):
        """Make the file of what was gathered; returns what to tell the user."""
        with atomic_path(self.path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            archive.write(self._part, "arr_0.npy")
            with archive.open("arr_1.npy", "w") as member:
                np.lib.format.write_array(member, self.labels)
        self._part.unlink()
        return f"samples: {self.path}"
