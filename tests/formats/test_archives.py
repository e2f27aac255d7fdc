"""The list of files in a ZIP and a tar: as Python's own readers list them, and damaged in every byte."""

import io
import os
import struct
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest

from formats.archives import read_member, tar_members, zip_members

FILES = {"a/b.png": b"hello" * 50, "名.txt": b"", "c": bytes(range(256))}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_listed_and_read_as_python_does(tmp_path, method):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.mkdir("folder") if hasattr(archive, "mkdir") else archive.writestr("folder/", b"")
        for name, content in FILES.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(content)
        archive.comment = b"a comment"
    members = zip_members(path)
    with open(path, "rb") as file:
        found = {name: read_member(file.fileno(), members[place]) for place, name in enumerate(members.names)}
    assert found == FILES
    assert members.find("c").size == 256 and members.find("d") is None


@pytest.mark.parametrize("count", [1, 10**7])
def test_a_huge_list_of_files_takes_no_memory(tmp_path, count):
    """The list of 3 GB is a hole in the file, so it takes no space on the disk."""
    size = 3 * 10**9
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, 0)
    end += struct.pack("<4sLQL", b"PK\6\7", 0, size, 1)
    end += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2**16 - 1, 2**16 - 1, size, 0, 0)
    with open(tmp_path / "a.zip", "wb") as file:
        file.seek(size)
        file.write(end)
    tracemalloc.start()
    with pytest.raises(ValueError, match="its list of files is damaged"):
        zip_members(tmp_path / "a.zip")
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_a_tar_is_listed_and_read_as_python_does(tmp_path):
    path = tmp_path / "a.tar"
    long = "x/" * 100 + "long.png"
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        files = FILES if form == tarfile.USTAR_FORMAT else FILES | {long: b"long"}
        with tarfile.open(path, "w", format=form) as tar:
            folder = tarfile.TarInfo("folder")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        with open(path, "rb") as file:
            assert {m.name: read_member(file.fileno(), m) for m in tar_members(path)} == files


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_damage_in_any_byte_raises_an_exception_or_changes_content_only(tmp_path, kind):
    """Never a crash, a hang or content beyond the file. Callers turn every exception into a sentence."""
    path = tmp_path / "a"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in FILES.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w") as tar:
            for name, content in FILES.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    whole, refused = path.read_bytes(), 0
    rng = np.random.default_rng(0)
    for place in rng.permutation(len(whole))[:400]:
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            members = (zip_members if kind == "zip" else tar_members)(path)
            with open(path, "rb") as file:
                for index in range(len(members)):
                    assert len(read_member(file.fileno(), members[index])) == members[index].size
                    assert ".." not in members[index].name and not os.path.isabs(members[index].name)
        except AssertionError:
            raise
        except Exception:
            refused += 1
    assert refused > 20
