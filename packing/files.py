"""The file that pack.py writes, while it grows. A killed program leaves only hidden files, and goes on from them."""

import contextlib
import glob
import io
import json
import math
import os
import shutil
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

import system
from formats.packed_data import ABOUT
from formats.stored_zip import StoredZip
from formats.stylegan_data import STYLEGAN_LABELS
from utils import UserError, is_full


class NPZ:
    """`arr_0`, the images uint8 [N, H, W, C]; `arr_1`, the classes int64 [N]; `class_names`; `pack.json`."""

    def __init__(self, count, image_shape):
        channels, height, width = image_shape
        header, shape = io.BytesIO(), (count, height, width, channels)
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        self._header, self._image_size = header.getvalue(), height * width * channels
        self.size = len(self._header) + count * self._image_size

    @staticmethod
    def encode(image):
        """The bytes in the file of an image, uint8 [C, H, W]."""
        return image.transpose(1, 2, 0).tobytes()

    def begin(self, file, done, checksum):
        """Write to `file`, which may hold the first `done` images; `checksum` belongs to these."""
        file.seek(0)
        self._zip = StoredZip(file)
        self._zip.begin("arr_0.npy", self.size)
        file.write(self._header)
        self.checksum = checksum if done else zlib.crc32(self._header)
        file.seek(done * self._image_size, os.SEEK_CUR)
        file.truncate()

    def append(self, content):
        self._zip.file.write(content)
        self.checksum = zlib.crc32(content, self.checksum)

    def finish(self, labels, about):
        self._zip.set_checksum(self.checksum)
        for name, array in (("arr_1", labels), ("class_names", np.array(about.class_names))):
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            self._zip.add(f"{name}.npy", content.getvalue())
        self._zip.add(ABOUT, about.to_json())
        self._zip.finish()


class ZIP:
    """StyleGAN's format: PNG files that are not compressed, their classes in `dataset.json`; and `pack.json`."""

    checksum = 0  # each PNG has its own

    def __init__(self, count, image_shape):
        self.size = count * (math.prod(image_shape) + 1000)

    @staticmethod
    def encode(image):
        """The PNG of an image, uint8 [C, H, W]. Its pixels are not compressed, so it is written and read faster."""
        channels, height, width = image.shape
        rows = np.zeros((height, 1 + width * channels), np.uint8)  # the first byte of a row, 0: as it is
        rows[:, 1:] = image.transpose(1, 2, 0).reshape(height, -1)
        kind = {1: 0, 3: 2}[channels]  # gray, RGB
        header = struct.pack(">2I5B", width, height, 8, kind, 0, 0, 0)
        chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 0)), (b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
            for name, content in chunks
        )

    def begin(self, file, done, checksum):
        """Write to `file`, which may hold the first `done` images."""
        self._zip = StoredZip(file)
        self._zip.read_back(done)

    def append(self, content):
        number = f"{len(self._zip.names):08d}"
        self._zip.add(f"{number[:5]}/img{number}.png", content)

    def finish(self, labels, about):
        pairs = list(zip(self._zip.names, labels.tolist(), strict=True))
        self._zip.add(STYLEGAN_LABELS, json.dumps({"labels": pairs}).encode())
        self._zip.add(ABOUT, about.to_json())
        self._zip.finish()


class Growing:
    """The hidden files beside `out`: the unfinished file with the images so far, and a journal.

    The journal says which of the images are surely on the disk.

    The names contain `key`, which stands for the source and its options. `left_out`: {place: (file, reason)} of the
    images before place `done`. Raises UserError if `out` exists or if another process writes it.
    """

    def __init__(self, out, key, content):
        self.out, self._content = Path(out), content
        self._unfinished = self.out.with_name(f".{self.out.name}.{key}.part")
        self._journal = self._unfinished.with_suffix(".journal")
        with self.errors_named():
            self._unfinished.touch()
            self._file = open(self._unfinished, "r+b")  # noqa: SIM115, `close` closes it
            try:
                self._claim()
            except UserError:
                self.close()
                if os.path.getsize(self._unfinished) == 0:
                    self._unfinished.unlink()
                raise
            self.done, checksum, self.left_out, length = self._read_journal()
            self._check_space()
            try:
                content.begin(self._file, self.done, checksum)
                if self.done and self._file.tell() != length:
                    raise ValueError("its images have another size")
            except (ValueError, TypeError, struct.error):
                print(f"{self._unfinished} is damaged: the packing starts anew", file=sys.stderr)
                os.truncate(self._journal, 0)
                self.done, self.left_out = 0, {}
                content.begin(self._file, 0, 0)
        self._noted = set(self.left_out)

    def _claim(self):
        """Refuse `out` if it exists, or if another process writes it, with the same options or with others.

        Each process locks its own file before it looks at those of others. So of two, one at least sees the other.
        """
        self._lock(self._file)
        for other in self.out.parent.glob(f".{glob.escape(self.out.name)}.*.part"):
            if other != self._unfinished:
                with open(other, "r+b") as file:
                    self._lock(file)
                print(f"{other} is left by an interrupted packing with other options: remove it", file=sys.stderr)
        self._check_absent()

    def _lock(self, file):
        try:
            system.try_lock(file)
        except BlockingIOError:
            raise UserError(f"--out {self.out} is being written by another pack.py: give another file") from None
        except OSError:  # a file system without locks
            pass

    def _check_absent(self):
        if self.out.exists():
            raise UserError(f"--out {self.out} exists now: move it away and run the same command again to go on")

    def _read_journal(self):
        """(images done, their checksum, images left out, bytes of the file) by the last valid line of the journal."""
        done, checksum, left_out, length, valid = 0, 0, {}, 0, 0
        if self._journal.exists():
            for line in self._journal.read_bytes().splitlines(keepends=True):
                try:
                    entry = json.loads(line)
                    if entry["length"] > os.path.getsize(self._unfinished):
                        break
                    left_out |= {place: (file, reason) for place, file, reason in entry["left_out"]}
                    done, checksum, length = entry["done"], entry["checksum"], entry["length"]
                except (ValueError, KeyError, TypeError):  # a line that was not written to its end, or is damaged
                    break
                valid += len(line)
            os.truncate(self._journal, valid)
        return done, checksum, left_out, length

    def _check_space(self):
        needed = self._content.size - os.path.getsize(self._unfinished)
        free = shutil.disk_usage(self.out.parent).free
        if needed > free:
            raise UserError(
                f"--out {self.out} needs {needed / 1e6:,.0f} MB, but its disk has {free / 1e6:,.0f} MB free: make room "
                "there, or give another file"
            )

    def append(self, content):
        self._content.append(content)
        self.done += 1

    def note(self, left_out):
        """Write all images so far to the disk, then say so in the journal."""
        self._file.flush()
        os.fsync(self._file.fileno())
        new = [[place, *left_out[place]] for place in left_out if place not in self._noted]
        self._noted |= set(left_out)
        entry = {"done": self.done, "checksum": self._content.checksum, "length": self._file.tell(), "left_out": new}
        with open(self._journal, "a", encoding="ascii") as journal:
            journal.write(json.dumps(entry) + "\n")
            journal.flush()
            os.fsync(journal.fileno())

    def finish(self, labels, about):
        """Complete the file and give it its name."""
        self._content.finish(labels, about)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._check_absent()  # another program may have made it meanwhile
        try:
            os.replace(self._unfinished, self.out)
        except PermissionError:  # Windows renames only closed files
            self.close()
            system.replace(self._unfinished, self.out)
        self._journal.unlink(missing_ok=True)
        self.close()

    def close(self):
        with contextlib.suppress(OSError):  # a full disk: the images that did not fit are not in the journal
            self._file.close()

    @contextlib.contextmanager
    def errors_named(self):
        """Turn an OSError, such as a full disk, into a UserError that says how to go on."""
        try:
            yield
        except OSError as error:
            advice = "give another --out"
            if is_full(error):
                advice = "make room there and run the same command again to go on, or give another file"
            raise UserError(f"--out {self.out} cannot be written: {error.strerror}; {advice}") from None
