"""Small helpers that two modules share."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image


class UserError(Exception):
    """A user's mistake, told in one sentence: what was found and what would do. Entry points exit with code 2."""


@contextmanager
def atomic_path(path):
    """Yield a temporary path beside `path`; when the block ends well it is flushed to disk and renamed to `path`.

    A killed process or a full disk leaves what stood at `path` before. The temporary name keeps the suffix, which
    image and array writers choose their format by.
    """
    path = Path(path)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(descriptor)
    try:
        yield Path(name)
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def image_grid(images, columns, gap=2):
    """Images uint8 [N, C, H, W] laid out row by row on white, `gap` pixels apart: uint8 [height, width, C]."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    grid = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = (gap + i * (size + gap) for i, size in zip(divmod(index, columns), (height, width), strict=True))
        grid[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return grid


def save_image(path, image):
    """Write an image, uint8 [H, W, 1 or 3], to `path`, atomically."""
    with atomic_path(path) as temporary:
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(temporary)
