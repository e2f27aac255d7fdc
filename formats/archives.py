"""Lists the files in a stranger's ZIP or tar, and reads them in place. Nothing is unpacked onto the disk."""

import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from typing import NamedTuple

MOST = 10**7  # files
LARGEST = 2**28  # bytes of one file
TAR_HEADER = 2**20  # bytes that one header of a tar may take, with the long names in it
LOCAL_HEADER = 30  # bytes of a ZIP's header before each file


class Member(NamedTuple):
    """A file in an archive. `name`: its path there. `offset`: where its content, or its header in a ZIP, begins.

    `size`: bytes of its content. `stored`: bytes that it takes in the archive, or None in a tar. `deflated`: whether it
    is compressed.
    """

    name: str
    offset: int
    size: int
    stored: int | None = None
    deflated: bool = False


def zip_members(path):
    """The files in a ZIP, in its order. Raises one of many exceptions, ValueError as a rule, for a hostile one.

    Refused: absolute names and names with "..", links, encrypted files, two files of one name, other compressions than
    "stored" and "deflated".
    """
    members, seen = [], set()
    with zipfile.ZipFile(path) as archive:
        if len(archive.filelist) > MOST:
            raise ValueError(f"{len(archive.filelist)} files are too many")
        for info in archive.filelist:
            _check_name(info.filename)
            if info.is_dir():
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                raise ValueError(f"{info.filename!r:.200} in it is a link")
            if info.flag_bits & 1:
                raise ValueError(f"{info.filename!r:.200} in it is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{info.filename!r:.200} in it has an unknown compression")
            if info.filename in seen:
                raise ValueError(f"it holds {info.filename!r:.200} twice")
            seen.add(info.filename)
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            members.append(Member(info.filename, info.header_offset, info.file_size, info.compress_size, deflated))
    return members


def tar_members(path, start=0, size=None):
    """The files in a tar, or in the tar at bytes `start` to `start` + `size` of a file, in its order.

    Raises one of many exceptions, ValueError as a rule, for a hostile one. Refused: absolute names and names with "..",
    links, devices, sparse files, files that end beyond the archive, headers of more than TAR_HEADER bytes.
    """
    members = []
    with open(path, "rb") as file:
        window = _Window(file, start, os.path.getsize(path) - start if size is None else size)
        with tarfile.open(fileobj=window, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # it would keep every header
                _check_name(info.name)
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    raise ValueError(f"{info.name!r:.200} in it is a link, a device or a sparse file")
                if info.offset_data + info.size > window.size:
                    raise ValueError(f"it is cut short at {info.name!r:.200}")
                members.append(Member(info.name, start + info.offset_data, info.size))
                if len(members) > MOST:
                    raise ValueError(f"more than {MOST} files are too many")
    return members


def read_member(descriptor, member):
    """The content of a file in the archive that is open as the file `descriptor`. Threads may share it.

    Raises ValueError if it is cut short, damaged, larger than its header claims or larger than LARGEST.
    """
    if max(member.size, member.stored or 0) > LARGEST:
        raise ValueError(f"it has {member.size} bytes, more than {LARGEST}")
    if member.stored is None:
        return _read(descriptor, member.offset, member.size)
    header = _read(descriptor, member.offset, LOCAL_HEADER)
    if header[:4] != b"PK\3\4":
        raise ValueError("its header in the ZIP is damaged")
    name, extra = struct.unpack_from("<HH", header, 26)
    content = _read(descriptor, member.offset + LOCAL_HEADER + name + extra, member.stored)
    if member.deflated:
        unpacker = zlib.decompressobj(-15)
        try:
            content = unpacker.decompress(content, member.size + 1)
        except zlib.error:
            raise ValueError("its compressed content is damaged") from None
    if len(content) != member.size:
        raise ValueError(f"it does not have the {member.size} bytes that the ZIP claims")
    return content


def _read(descriptor, offset, size):
    content = b""
    while len(content) < size:  # one read may return fewer bytes
        part = os.pread(descriptor, size - len(content), offset + len(content))
        if not part:
            raise ValueError("it is cut short")
        content = content + part if content else part
    return content


def _check_name(name):
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name or not name:
        raise ValueError(f"the name {name!r:.200} in it leads out of it")


class _Window(io.RawIOBase):
    """Bytes `start` to `start` + `size` of an open file, as a file. One read takes at most TAR_HEADER bytes."""

    def __init__(self, file, start, size):
        self.file, self.start, self.size, self.place = file, start, size, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        return self.place

    def tell(self):
        return self.place

    def read(self, size=-1):
        if size is None or not 0 <= size <= TAR_HEADER:
            raise ValueError("a header in it is too large")
        self.file.seek(self.start + self.place)
        content = self.file.read(max(0, min(size, self.size - self.place)))
        self.place += len(content)
        return content
