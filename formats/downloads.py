"""Published files: download them through Paddle, and read them whole."""

import gzip
import zlib
from pathlib import Path

import system
from utils import UserError


def read_whole(path, limit):
    """All bytes of a file, unpacked if it is gzipped. Raises UserError if there are more than `limit`."""
    data = bytearray()
    try:
        with open(path, "rb") as raw:
            gzipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.open(raw) if gzipped else raw as file:
                while len(data) <= limit and (block := file.read(2**20)):
                    data += block
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if len(data) > limit:
        raise UserError(f"{path} holds more than {limit} bytes, so it is not the published file")
    return data


def download(url, md5, module):
    """The path in Paddle's cache of the file at `url`. Downloads it if it is not there."""
    from paddle.dataset import common

    folder = Path(common.DATA_HOME, module)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as lock:
            system.wait_for_lock(lock)  # without it, several processes would write the same file
            return common.download(url, module, md5)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{url} cannot be downloaded ({error}): download it elsewhere and put it in {folder}, or put it in another "
            "folder and give that folder by --data_path"
        ) from None
