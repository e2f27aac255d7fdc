"""Writes samples as files: one PNG each in class folders, or one `.npz` of all that other evaluators read.

The index of a sample decides its place in the files. So several processes can write, and an interrupted test can
resume.
"""

import contextlib
import glob
import io
import math
import shutil
import zipfile
from pathlib import Path

import numpy as np

import system
from drawing.classes import class_folder
from pictures import save_image
from processes import collectives
from utils import UserError, atomic_path, is_full


class PNGWriter:
    """Writes each sample as FOLDER/CLASS/INDEX.png, the layout of image folders. `class_folder` gives CLASS.

    `option` is the option that gave the folder, for messages. The folder must hold no files, unless the test `resumes`.
    """

    def __init__(self, option, folder, labels, class_names, resumes):
        self.option, self.folder, self.labels = option, Path(folder), labels
        self._classes = [self.folder / class_folder(label, name) for label, name in enumerate(class_names)]
        collectives.on_rank_0(self._make_folders, option, resumes)

    def _make_folders(self, option, resumes):
        if resumes and not self.folder.is_dir():
            raise UserError(f"{option} {self.folder} is gone, and it held the first samples: give another folder")
        if not resumes and any(not path.is_dir() for path in self.folder.rglob("*")):
            raise UserError(f"{option} {self.folder} is not empty: give another folder")
        try:
            for label in np.unique(self.labels):
                self._classes[label].mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{option} {self.folder} cannot be created ({error.strerror}): give another folder"
            ) from None

    def write(self, indices, images):
        """Write samples `indices`, uint8 [n, C, H, W]."""
        with _errors_named(self.option, self.folder):
            for index, image in zip(indices, images, strict=True):
                save_image(self._classes[self.labels[index]] / f"{index:06d}.png", image.transpose(1, 2, 0))

    def finish(self):
        """The line to print when all samples are written."""
        return f"samples: {self.folder}"


class NPZWriter:
    """Writes all samples to one .npz, as guided-diffusion does: arr_0 uint8 [N, H, W, C] and arr_1 int64 [N].

    First the samples go to a hidden, unfinished file in the folder of `path`. Its name contains the test's `key`. At
    the end the complete `path` is written from it. Unfinished files of interrupted tests with other options are
    removed, because those tests can no longer write `path`.
    """

    def __init__(self, path, labels, image_shape, key, resumes):
        self.path, self.labels, self.lock = Path(path), labels, None  # the lock: an open file, which the caller closes
        self._unfinished = self.path.with_name(f".{self.path.name}.{key[:8]}.part")
        channels, height, width = image_shape
        shape = (len(labels), height, width, channels)
        self._size = math.prod(shape[1:])
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        self._start = header.tell()
        collectives.on_rank_0(self._begin, header.getvalue(), resumes)

    def _begin(self, header, resumes):
        if self.path.exists():
            raise UserError(f"--samples_npz {self.path} exists already: give another file")
        for other in self.path.parent.glob(f".{glob.escape(self.path.name)}.*.part"):
            if other != self._unfinished:
                _locked(other, self.path).close()
                other.unlink()
        if resumes and not self._unfinished.exists():
            raise UserError(
                f"--samples_npz {self.path}: {self._unfinished} is gone, and it held the first samples: give another "
                "file"
            )
        if not resumes:
            try:
                needed, free = 2 * self._size * len(self.labels), shutil.disk_usage(self.path.parent).free
                if needed > free:  # twice: the unfinished file and the final one
                    raise UserError(
                        f"--samples_npz {self.path} needs {needed / 1e6:,.0f} MB while it is written, but its disk has "
                        f"{free / 1e6:,.0f} MB free: make room there, or give another file"
                    )
                self._unfinished.write_bytes(header)
            except OSError as error:
                raise UserError(
                    f"--samples_npz {self.path} cannot be written: {error.strerror}; give another --samples_npz"
                ) from None
        self.lock = _locked(self._unfinished, self.path)

    def write(self, indices, images):
        """Write samples `indices`, uint8 [n, C, H, W]. The indices are consecutive."""
        with self._errors_named(), open(self._unfinished, "r+b") as file:
            file.seek(self._start + int(indices[0]) * self._size)
            file.write(np.ascontiguousarray(images.transpose(0, 2, 3, 1)).tobytes())

    def finish(self):
        """Turn the unfinished file into `path`. Returns the line to print."""
        with self._errors_named():
            self._finish()
        return f"samples: {self.path}"

    def _errors_named(self):
        advice = f", or remove {self._unfinished}, which holds the first samples"
        return _errors_named("--samples_npz", self.path, advice)

    def _finish(self):
        with atomic_path(self.path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            archive.write(self._unfinished, "arr_0.npy")
            with archive.open("arr_1.npy", "w") as member:
                np.lib.format.write_array(member, self.labels)
        self.lock.close()  # because Windows removes only closed files
        self._unfinished.unlink()


def _locked(unfinished, path):
    """Open and lock the file `unfinished` of `path`. Raises UserError if another test has locked it."""
    file = open(unfinished, "rb")  # noqa: SIM115, closing it releases the lock
    try:
        system.try_lock(file)
    except BlockingIOError:
        file.close()
        raise UserError(f"--samples_npz {path} is being written by another test: give another file") from None
    except OSError:  # a file system without locks
        pass
    return file


@contextlib.contextmanager
def _errors_named(option, path, otherwise=""):
    """Turn an OSError into a UserError. It names `option`, which gave `path`. For a full disk it says how to resume.

    `otherwise`: one more way out of a full disk, for the end of the message.
    """
    try:
        yield
    except OSError as error:
        advice = f"give another {option}"
        if is_full(error):
            advice = f"make room there and run the same command again to resume{otherwise}"
        raise UserError(f"{option} {path} cannot be written: {error.strerror}; {advice}") from None
