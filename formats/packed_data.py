"""Images packed into one `.npz` file, as guided-diffusion and `--samples_npz` write it. They stay on disk."""

import math
import os
import shutil
import tempfile
import zipfile

import numpy as np

from utils import npy_header

MOST = 10**7  # images; their classes are held in memory


def map_images(path):
    """(`arr_0`, a read-only array on disk, uint8 [N, H, W, 1 or 3]; `arr_1`, the classes int64 [N], or None).

    Memory does not grow with the number of images, whatever the file claims. Raises one of many exceptions, ValueError
    as a rule, for any other file.
    """
    with zipfile.ZipFile(path) as archive:
        images = _map(path, archive, "arr_0.npy")
        has_classes = "arr_1.npy" in archive.namelist()
        return images, _labels(archive, len(images)) if has_classes else None


def _map(path, archive, name):
    """The member `name` as a read-only array on disk. A compressed one is unpacked into a temporary file first."""
    # Check the header before any memory or disk space is used.
    info = archive.getinfo(name)
    with archive.open(info) as member:
        shape, fortran, dtype = npy_header(member)
        start = member.tell()
        if dtype != np.uint8 or fortran or len(shape) != 4 or shape[3] not in (1, 3) or min(shape) < 1:
            raise ValueError(f"it is {dtype} {list(shape)}{' in Fortran order' * fortran}")
        if shape[0] > MOST:
            raise ValueError(f"{shape[0]} images are too many")
        size = math.prod(shape)
        if info.file_size != start + size:
            raise ValueError("it is cut short")
        if info.compress_type == zipfile.ZIP_STORED:
            return np.memmap(path, np.uint8, "r", _offset(path, info) + start, shape)
        if size > shutil.disk_usage(tempfile.gettempdir()).free * 0.9:
            raise ValueError(f"unpacked it takes {size} bytes, more than {tempfile.gettempdir()} has")
        unpacked = tempfile.TemporaryFile()  # noqa: SIM115, the array below keeps it open
        shutil.copyfileobj(member, unpacked)
        unpacked.flush()
        return np.memmap(unpacked, np.uint8, "r", 0, shape)


def _offset(path, info):
    """The offset in the file of the content of an uncompressed member. Its header, name and extra field come first."""
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        header = file.read(30)
    offset = info.header_offset + 30 + sum(int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
    if offset + info.file_size > os.path.getsize(path):
        raise ValueError("it is cut short")
    return offset


def _labels(archive, count):
    with archive.open("arr_1.npy") as member:
        shape, _, dtype = npy_header(member)
        if dtype.kind not in "iu" or shape != (count,):
            raise ValueError(f"arr_1 is {dtype} {list(shape)}, not one whole number for each of {count} images")
        content = member.read(count * dtype.itemsize)
        if len(content) < count * dtype.itemsize:
            raise ValueError("arr_1 is cut short")
        return np.frombuffer(content, dtype).astype(np.int64)
