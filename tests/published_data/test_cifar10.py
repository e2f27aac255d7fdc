"""CIFAR-10's files, right and wrong, written here byte by byte; downloads from a local server."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import pytest

from published_data.cifar10 import read_cifar10
from utils import UserError


class Python2Pickler(pickle._Pickler):
    """Writes str as Python 2 did, and NumPy's functions by their names of that time, as in the CIFAR-10 archive."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, text):
        data = text if isinstance(text, bytes) else text.encode("latin-1")
        short = len(data) < 256
        self.write(
            pickle.SHORT_BINSTRING + bytes([len(data)]) if short else pickle.BINSTRING + struct.pack("<i", len(data))
        )
        self.write(data)

    dispatch[str] = dispatch[bytes] = save_string

    def save_global(self, obj, name=None):
        module = "numpy.core.multiarray" if obj.__name__ == "_reconstruct" else obj.__module__
        self.write(pickle.GLOBAL + f"{module}\n{obj.__name__}\n".encode())

    dispatch[type] = dispatch[type(len)] = save_global


def cifar_batch(first, count=4, **changes):
    data = np.arange(first, first + count * 3072).astype(np.uint8).reshape(count, 3072)
    labels = [(first + i) % 10 for i in range(count)]
    batch = {"batch_label": "training batch", "labels": labels, "data": data, "filenames": ["a.png"] * count}
    buffer = io.BytesIO()
    Python2Pickler(buffer, 2).dump(batch | changes)
    return buffer.getvalue()


NAMES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


def cifar_folder(path, batches=None):
    folder = path / "cifar-10-batches-py"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes((batches or {}).get(name) or cifar_batch(number))
    return folder


def archive(path, folder):
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, folder.name)
    return path


@pytest.mark.parametrize("given", ["archive", "folder of the archive", "batches", "folder of the batches"])
def test_reads_cifar10(tmp_path, given):
    folder = cifar_folder(tmp_path)
    path = folder if given == "batches" else tmp_path
    if "archive" in given:
        path = archive(tmp_path / "cifar-10-python.tar.gz", folder)
        folder.rename(tmp_path / "elsewhere")
    images, labels = read_cifar10(path.parent if given == "folder of the archive" else path, "train")
    assert images.shape == (20, 32, 32, 3) and images.dtype == np.uint8
    assert images[4, 0, 0].tolist() == [1, (1 + 1024) % 256, (1 + 2048) % 256]  # red, green and blue are planes
    assert images[4, 1, 0, 0] == 33
    assert labels.tolist() == [(batch + i) % 10 for batch in range(5) for i in range(4)]
    assert len(read_cifar10(path, "test")[0]) == 4


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (cifar_batch(0)[:-100], "data_batch_2 .* cut short"),
        (cifar_batch(0, labels=[0, 1, 2, 10]), "does not hold"),
        (cifar_batch(0, labels=[0, 1, 2]), "does not hold"),
        (cifar_batch(0, data=np.zeros((4, 3072), np.float32)), "does not hold"),
        (cifar_batch(0, data="no array"), "does not hold"),
        (pickle.dumps([1, 2], 2), "does not hold"),
        (b"cos\nsystem\n(S'touch RAN'\ntR.", "data_batch_2"),
        (b"\x80\x02cos\nsystem\nU\x09touch RAN\x85R.", "names os.system"),
    ],
)
def test_wrong_cifar10_batches_are_refused(tmp_path, monkeypatch, batch, message):
    monkeypatch.chdir(tmp_path)
    cifar_folder(tmp_path, {"data_batch_2": batch})
    with pytest.raises(UserError, match=message):
        read_cifar10(tmp_path, "train")
    assert not (tmp_path / "RAN").exists()


def test_wrong_cifar10_archives_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds neither"):
        read_cifar10(tmp_path, "train")
    folder = cifar_folder(tmp_path)
    whole = archive(tmp_path / "whole.tar.gz", folder).read_bytes()
    (folder / "data_batch_3").unlink()
    (folder / "data_batch_3").symlink_to("/etc/passwd")
    archive(tmp_path / "link.tar.gz", folder)
    (folder / "data_batch_3").unlink()
    archive(tmp_path / "lacks.tar.gz", folder)
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "junk.tar.gz").write_bytes(b"junk" * 1000)
    # A chain of long-name headers. tarfile reads each one by a nested call.
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1
    (tmp_path / "deep.tar.gz").write_bytes(gzip.compress((header.tobuf() + b"a" + bytes(511)) * 5000))
    for name in ("link", "lacks", "cut", "junk", "deep"):
        with pytest.raises(UserError):
            read_cifar10(tmp_path / f"{name}.tar.gz", "train")


def test_processes_that_start_together_download_cifar10_once(server, tmp_path, monkeypatch):
    from paddle.vision.datasets import cifar

    address, asked = server
    path = archive(tmp_path / "served" / "cifar-10-python.tar.gz", cifar_folder(tmp_path))
    monkeypatch.setattr(cifar, "CIFAR10_URL", f"{address}/{path.name}")
    monkeypatch.setattr(cifar, "CIFAR10_MD5", hashlib.md5(path.read_bytes()).hexdigest())
    with ThreadPoolExecutor(4) as pool:  # threads instead of processes: an open file holds the lock
        for images, _ in pool.map(lambda _: read_cifar10(None, "test"), range(4)):
            assert images.shape == (4, 32, 32, 3)
    assert asked == [f"/{path.name}"]
