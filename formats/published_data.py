"""Readers of the published MNIST, Fashion-MNIST and CIFAR-10 files. They check every value that a file claims."""

import gzip
import io
import math
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np

import system
from formats.safe_pickle import load_pickle
from utils import UserError

IDX_LIMIT = 2**27  # bytes; MNIST's training images are 47 million
CIFAR10_LIMIT = 2**28  # bytes; the CIFAR-10 archive holds 186 million
CIFAR10_FOLDER, CIFAR10_ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"


def read_mnist(name, path, split):
    """Images uint8 [N, 28, 28] and labels uint8 [N] in 0 … 9 of "mnist" or "fashion-mnist", "train" or "test".

    `path` is the folder of the original files, gzipped or not. None downloads them through Paddle.
    Raises UserError if a file is missing, cut short or another file.
    """
    if path is None:
        image_file, label_file = _download_mnist(name, split)
    else:
        prefix = {"train": "train", "test": "t10k"}[split]
        image_file = _idx_file(path, f"{prefix}-images-idx3-ubyte")
        label_file = _idx_file(path, f"{prefix}-labels-idx1-ubyte")
    images, labels = read_idx(image_file, 3), read_idx(label_file, 1)
    if images.shape[1:] != (28, 28) or len(images) != len(labels) or labels.max(initial=0) > 9:
        raise UserError(
            f"{image_file} and {label_file} are not MNIST's: they hold images {images.shape} and {len(labels)} labels "
            f"up to {labels.max(initial=0)}, not images of 28x28 pixels and as many labels up to 9"
        )
    return images, labels


def _idx_file(folder, name):
    for path in (Path(folder, name), Path(folder, f"{name}.gz")):
        if path.is_file():
            return path
    raise UserError(
        f"{folder} holds no {name} or {name}.gz: give the folder of the four original files by --data_path, or leave "
        "--data_path out to download them"
    )


def read_idx(path, dimensions):
    """The uint8 array with `dimensions` axes in an IDX file, gzipped or not.

    Raises UserError if the file holds more or fewer bytes than its header claims.
    """
    data = _contents(path, IDX_LIMIT)
    start = 4 + 4 * dimensions
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) < start:
        raise UserError(f"{path} is not an IDX file of unsigned bytes in {dimensions} dimensions")
    shape = struct.unpack_from(f">{dimensions}I", data, 4)
    if len(data) - start != math.prod(shape):
        raise UserError(
            f"{path} holds {len(data) - start} bytes, but its header claims {shape}: it is cut short or damaged"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_cifar10(path, split):
    """Images uint8 [N, 32, 32, 3] and labels int64 [N] in 0 … 9 of CIFAR-10, "train" or "test".

    `path` is the published archive, the folder that it unpacks to, or a folder that holds one of them. None downloads
    the archive through Paddle. Raises UserError if a file is missing, cut short or another file.
    """
    names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    batches = [_read_cifar10_batch(name, data) for name, data in zip(names, _cifar10_files(path, names), strict=True)]
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _cifar10_files(path, names):
    """The contents of the named batches."""
    path = Path(_download_cifar10() if path is None else path)
    for folder in (path, path / CIFAR10_FOLDER):
        if (folder / names[0]).is_file():
            return [_contents(folder / name, CIFAR10_LIMIT) for name in names]
    archive = path if path.is_file() else path / CIFAR10_ARCHIVE
    if not archive.is_file():
        raise UserError(
            f"{path} holds neither {CIFAR10_ARCHIVE} nor {CIFAR10_FOLDER}: give the folder that holds one by "
            "--data_path, or leave --data_path out to download the archive"
        )
    data = _contents(archive, CIFAR10_LIMIT)
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            members = [tar.getmember(f"{CIFAR10_FOLDER}/{name}") for name in names]
    except Exception as error:  # tarfile may raise anything for a damaged archive
        raise UserError(f"{archive} is not CIFAR-10's archive, or is damaged: {error}") from None
    return [data[member.offset_data : member.offset_data + member.size] for member in members]


def _read_cifar10_batch(name, data):
    """Images uint8 [N, 3072] and labels int64 [N] of one batch, a dictionary pickled by Python 2."""
    try:
        batch = load_pickle(data, CIFAR10_LIMIT)
    except UserError as error:
        raise UserError(f"{name} of CIFAR-10: {error}") from None
    images, labels = (batch.get(key) if isinstance(batch, dict) else None for key in ("data", "labels"))
    if not (
        isinstance(images, np.ndarray)
        and images.dtype == np.uint8
        and isinstance(labels, list)
        and images.shape == (len(labels), 3072)
        and all(type(label) is int and 0 <= label < 10 for label in labels)
    ):
        raise UserError(f"{name} of CIFAR-10 does not hold uint8 images [N, 3072] and as many labels from 0 to 9")
    return images, np.array(labels, np.int64)


def _contents(path, limit):
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


def _download_mnist(name, split):
    from paddle.vision.datasets import MNIST, FashionMNIST

    data = {"mnist": MNIST, "fashion-mnist": FashionMNIST}[name]
    if split == "train":
        files = (data.TRAIN_IMAGE_URL, data.TRAIN_IMAGE_MD5), (data.TRAIN_LABEL_URL, data.TRAIN_LABEL_MD5)
    else:
        files = (data.TEST_IMAGE_URL, data.TEST_IMAGE_MD5), (data.TEST_LABEL_URL, data.TEST_LABEL_MD5)
    return [_download(url, md5, data.NAME) for url, md5 in files]


def _download_cifar10():
    from paddle.vision.datasets import cifar

    return _download(cifar.CIFAR10_URL, cifar.CIFAR10_MD5, "cifar")


def _download(url, md5, module):
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
