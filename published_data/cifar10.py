"""CIFAR-10, read from the published archive. Every value that a file claims is checked."""

import io
import tarfile
from pathlib import Path

import numpy as np

from formats.downloads import download, read_whole
from published_data.record import DataSet
from utils import UserError

CIFAR10_LIMIT = 2**28  # bytes; the CIFAR-10 archive holds 186 million
CIFAR10_FOLDER, CIFAR10_ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"


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
            return [read_whole(folder / name, CIFAR10_LIMIT) for name in names]
    archive = path if path.is_file() else path / CIFAR10_ARCHIVE
    if not archive.is_file():
        raise UserError(
            f"{path} holds neither {CIFAR10_ARCHIVE} nor {CIFAR10_FOLDER}: give the folder that holds one by "
            "--data_path, or leave --data_path out to download the archive"
        )
    data = read_whole(archive, CIFAR10_LIMIT)
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            members = [tar.getmember(f"{CIFAR10_FOLDER}/{name}") for name in names]
    except Exception as error:  # tarfile may raise anything for a damaged archive
        raise UserError(f"{archive} is not CIFAR-10's archive, or is damaged: {error}") from None
    return [data[member.offset_data : member.offset_data + member.size] for member in members]


def _read_cifar10_batch(name, data):
    """Images uint8 [N, 3072] and labels int64 [N] of one batch, a dictionary pickled by Python 2."""
    from formats.safe_pickle import load_pickle

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


def _download_cifar10():
    from paddle.vision.datasets import cifar

    return download(cifar.CIFAR10_URL, cifar.CIFAR10_MD5, "cifar")


DATA_SETS = (
    DataSet(
        "cifar10",
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        read=read_cifar10,
        recipe="acgan-cifar10",
        licence="other",
        source="CIFAR-10 (A. Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html). Its authors state no licence.",
        order=40,
    ),
)
