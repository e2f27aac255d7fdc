"""ZIPs that only grow: every reader opens them, also beyond 4 GB and 65,535 files."""

import io
import subprocess
import zipfile

import pytest

from formats.archives import read_member, zip_members
from formats.stored_zip import StoredZip


def test_python_and_unzip_read_the_files(tmp_path):
    path = tmp_path / "a.zip"
    files = {"a/b.png": b"hello", "名.txt": b"", "c": bytes(range(256)) * 1000}
    with open(path, "w+b") as file:
        writer = StoredZip(file)
        for name, content in files.items():
            writer.add(name, content)
        writer.finish()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files
    assert subprocess.run(["unzip", "-tq", path], capture_output=True).returncode == 0


def test_more_than_4_gb_and_65535_files(tmp_path):
    path = tmp_path / "a.zip"
    with open(path, "w+b") as file:
        writer = StoredZip(file)
        writer.begin("large", 5 * 2**30)
        file.seek(5 * 2**30 - 1, io.SEEK_CUR)  # the file is sparse
        file.write(b"x")
        writer.set_checksum(1)
        for number in range(70_000):
            writer.add(f"{number:08}", b"%d" % number)
        writer.finish()
        file.flush()
        members = zip_members(path)
        assert len(members) == 70_001 and members[0].size == 5 * 2**30 and members[-1].offset > 5 * 2**30
        assert [read_member(file.fileno(), members[place]) for place in (1, 70_000)] == [b"0", b"69999"]
        with pytest.raises(ValueError, match="it has 5368709120 bytes, more than"):
            read_member(file.fileno(), members[0])
    with zipfile.ZipFile(path) as archive:
        assert archive.read("00069999") == b"69999" and archive.getinfo("large").file_size == 5 * 2**30
    listed = subprocess.run(["unzip", "-l", path], capture_output=True, text=True, check=True).stdout
    assert listed.splitlines()[-1].split()[1] == "70001"


def test_an_interrupted_zip_goes_on_to_the_same_bytes(tmp_path):
    def write(file, names):
        writer = StoredZip(file)
        writer.read_back(20 - len(names))
        for name in names:
            writer.add(name, name.encode() * 7)
        return writer

    names = [f"{number:03}.png" for number in range(20)]
    straight, broken = io.BytesIO(), io.BytesIO()
    write(straight, names).finish()
    write(broken, names)
    broken.write(b"half a file")
    write(broken, names[12:]).finish()
    assert broken.getvalue() == straight.getvalue()
