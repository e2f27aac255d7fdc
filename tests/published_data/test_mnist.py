"""IDX files, right and wrong, written here byte by byte; downloads from a local server."""

import gzip
import hashlib
import struct
import tracemalloc

import numpy as np
import pytest

from published_data.mnist import read_idx, read_mnist
from utils import UserError

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(array, magic=None):
    return struct.pack(f">I{array.ndim}I", magic or 0x800 + array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)


@pytest.fixture
def mnist(tmp_path, images):
    """A folder with twenty training images, one file gzipped, one not; the labels are 0 … 9 twice."""
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(idx(images)))
    (tmp_path / LABELS).write_bytes(idx(np.arange(20, dtype=np.uint8) % 10))
    return tmp_path


def test_reads_gzipped_and_plain_idx_files(mnist, images):
    read, labels = read_mnist("MNIST", mnist, "train")
    np.testing.assert_array_equal(read, images)
    np.testing.assert_array_equal(labels, np.arange(20) % 10)


def test_a_missing_file_is_named(mnist):
    with pytest.raises(UserError, match=r"holds no t10k-images-idx3-ubyte .*--data_path"):
        read_mnist("FashionMNIST", mnist, "test")


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (IMAGES, lambda data: b"", "not an IDX file"),
        (IMAGES, lambda data: b"<html>404</html>", "not an IDX file"),
        (IMAGES, lambda data: idx(np.zeros(20, np.uint8)), "not an IDX file"),
        (IMAGES, lambda data: data[:10], "not an IDX file"),
        (IMAGES, lambda data: data[:-1], "cut short"),
        (IMAGES, lambda data: data + b"\0", "damaged"),
        (IMAGES, lambda data: data[:4] + b"\xff" * 12 + data[16:], "cut short"),
        (IMAGES, lambda data: idx(np.zeros((20, 29, 28), np.uint8)), "not MNIST's"),
        (IMAGES, lambda data: idx(np.zeros((19, 28, 28), np.uint8)), "not MNIST's"),
        (LABELS, lambda data: idx(np.full(20, 10, np.uint8)), "not MNIST's"),
        (LABELS, lambda data: gzip.compress(data)[:-9], "cannot be read"),
        (LABELS, lambda data: b"\x1f\x8b" + bytes(50), "cannot be read"),
    ],
)
def test_wrong_idx_files_are_refused(mnist, images, name, damage, message):
    data = idx(images) if name == IMAGES else (mnist / LABELS).read_bytes()
    (mnist / name).write_bytes(damage(data))
    with pytest.raises(UserError, match=message):
        read_mnist("MNIST", mnist, "train")


@pytest.mark.parametrize(
    ("data", "problem", "memory"),
    [
        (struct.pack(">4I", 0x803, 150_000, 28, 28), "cut short", 5e6),  # claims 118 million bytes
        (gzip.compress(bytes(2**20)) * 250, "more than", 1.6e8),  # unpacks to 262 million
    ],
)
def test_a_file_with_a_false_size_takes_little_memory(tmp_path, data, problem, memory):
    (tmp_path / "x").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(UserError, match=problem):
        read_idx(tmp_path / "x", 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < memory


def test_downloads_mnist_once(server, tmp_path, images, monkeypatch):
    from paddle.vision.datasets import FashionMNIST

    address, asked = server
    for kind, array in (("IMAGE", images), ("LABEL", np.zeros(20, np.uint8))):
        data = gzip.compress(idx(array))
        (tmp_path / "served" / f"{kind}.gz").write_bytes(data)
        monkeypatch.setattr(FashionMNIST, f"TRAIN_{kind}_URL", f"{address}/{kind}.gz")
        monkeypatch.setattr(FashionMNIST, f"TRAIN_{kind}_MD5", hashlib.md5(data).hexdigest())
    read, labels = read_mnist("FashionMNIST", None, "train")
    np.testing.assert_array_equal(read, images)
    assert len(labels) == 20
    read_mnist("FashionMNIST", None, "train")
    assert asked == ["/IMAGE.gz", "/LABEL.gz"]


def test_a_download_that_fails_says_what_to_do(server, tmp_path, monkeypatch):
    from paddle.vision.datasets import MNIST

    url = f"{server[0]}/nothing.gz"
    monkeypatch.setattr(MNIST, "TRAIN_IMAGE_URL", url)
    with pytest.raises(UserError) as error:
        read_mnist("MNIST", None, "train")
    message = str(error.value)
    assert url in message and str(tmp_path / "cache" / "mnist") in message and "--data_path" in message
