"""MNIST and Fashion-MNIST, read from the published IDX files. Every value that a file claims is checked."""

import math
import struct
from functools import partial
from pathlib import Path

import numpy as np

from formats.downloads import download, read_whole
from published_data.record import DataSet
from utils import UserError

IDX_LIMIT = 2**27  # bytes; MNIST's training images are 47 million


def read_mnist(paddle_name, path, split):
    """Images uint8 [N, 28, 28] and labels uint8 [N] in 0 … 9, "train" or "test".

    `path` is the folder of the original files, gzipped or not. None downloads them: the class `paddle_name`, "MNIST" or
    "FashionMNIST", of `paddle.vision.datasets` has their addresses. Raises UserError if a file is missing, cut short or
    another file.
    """
    if path is None:
        image_file, label_file = _download_mnist(paddle_name, split)
    else:
        prefix = {"train": "train", "test": "t10k"}[split]
        image_file = _idx_file(path, f"{prefix}-images-idx3-ubyte")
        label_file = _idx_file(path, f"{prefix}-labels-idx1-ubyte")
    return read_mnist_files(image_file, label_file)


def read_mnist_files(image_file, label_file):
    """Images uint8 [N, 28, 28] and labels uint8 [N] in 0 … 9. Raises UserError if a file does not have MNIST's form."""
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
    data = read_whole(path, IDX_LIMIT)
    start = 4 + 4 * dimensions
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) < start:
        raise UserError(f"{path} is not an IDX file of unsigned bytes in {dimensions} dimensions")
    shape = struct.unpack_from(f">{dimensions}I", data, 4)
    if len(data) - start != math.prod(shape):
        raise UserError(
            f"{path} holds {len(data) - start} bytes, but its header claims {shape}: it is cut short or damaged"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _download_mnist(paddle_name, split):
    from paddle.vision import datasets

    data = getattr(datasets, paddle_name)
    if split == "train":
        files = (data.TRAIN_IMAGE_URL, data.TRAIN_IMAGE_MD5), (data.TRAIN_LABEL_URL, data.TRAIN_LABEL_MD5)
    else:
        files = (data.TEST_IMAGE_URL, data.TEST_IMAGE_MD5), (data.TEST_LABEL_URL, data.TEST_LABEL_MD5)
    return [download(url, md5, data.NAME) for url, md5 in files]


DATA_SETS = (
    DataSet(
        "mnist",
        class_names=tuple("0123456789"),
        read=partial(read_mnist, "MNIST"),
        recipe="acgan-mnist",
        licence="cc-by-sa-3.0",
        source="MNIST (Y. LeCun, C. Cortes, http://yann.lecun.com/exdb/mnist/), licence CC BY-SA 3.0.",
        order=20,
        gray=True,
    ),
    DataSet(
        "fashion-mnist",
        class_names=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        read=partial(read_mnist, "FashionMNIST"),
        recipe="acgan-mnist",
        licence="mit",
        source="Fashion-MNIST (Zalando, https://github.com/zalandoresearch/fashion-mnist), licence MIT.",
        order=30,
        gray=True,
    ),
)
