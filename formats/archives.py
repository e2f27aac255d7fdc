"""Lists the files in a stranger's ZIP or tar, and reads them in place. Nothing is unpacked onto the disk."""

import io
import os
import stat
import struct
import tarfile
import zlib
from array import array
from collections import Counter
from typing import NamedTuple

import system
from formats.stored_zip import CENTRAL, FULL_16, FULL_32, UTF_8

MOST = 10**7  # files
LARGEST = 2**28  # bytes of one file
TAR_HEADER = 2**20  # bytes that one header of a tar may take, with the long names in it
LIST_BUFFER = 2**16  # bytes of a ZIP's list of files that are read at a time
LOCAL_HEADER = 30  # bytes of a ZIP's header before each file
END, END_64, LOCATOR = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
STORED, DEFLATED, UNIX = 0, 8, 3


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


class ZipMembers:
    """The files in a ZIP, in its order: `names`, and `members[i]`, a `Member`. A file takes 25 bytes and its name."""

    def __init__(self):
        self.names, self._offsets, self._sizes, self._stored, self._deflated = [], *map(array, "QQQB")

    def append(self, member):
        self.names.append(member.name)
        self._offsets.append(member.offset)
        self._sizes.append(member.size)
        self._stored.append(member.stored)
        self._deflated.append(member.deflated)

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        values = self._offsets[index], self._sizes[index], self._stored[index], bool(self._deflated[index])
        return Member(self.names[index], *values)

    def chosen(self, places):
        """The files at `places`, in that order, as `ZipMembers`."""
        result = ZipMembers()
        for place in places:
            result.append(self[place])
        return result

    def find(self, name):
        """The `Member` of that name, or None."""
        return self[self.names.index(name)] if name in self.names else None


def zip_members(path):
    """The `ZipMembers` in a ZIP. Raises ValueError, or an OSError, for a hostile or damaged one.

    Refused: absolute names and names with "..", links, encrypted files, two files of one name, other compressions than
    "stored" and "deflated". Python's own reader needs a kilobyte of memory for each file.
    """
    members = ZipMembers()
    with open(path, "rb", LIST_BUFFER) as file:
        for _ in range(_go_to_list(file)):
            if member := _next_in_list(file):
                members.append(member)
    if len(set(members.names)) < len(members):
        twice = next(name for name, count in Counter(members.names).items() if count > 1)
        raise ValueError(f"it holds {twice!r:.200} twice")
    return members


def _next_in_list(file):
    """The next `Member` in the list of files; None for a folder. It is read entry by entry: a claim takes no memory."""
    header = file.read(CENTRAL.size)
    if len(header) < CENTRAL.size or header[:4] != b"PK\1\2":
        raise ValueError("its list of files is damaged")
    _, made_by, _, flags, method, _, _, _, stored, size, n, m, k, _, _, mode, offset = CENTRAL.unpack(header)
    more = file.read(n + m + k)  # the name, the extra field and a comment
    name = more[:n].decode("utf-8" if flags & UTF_8 else "cp437")
    if FULL_32 in (size, stored, offset):
        size, stored, offset = _zip64(more[n : n + m], size, stored, offset)
    _check_name(name)
    if name.endswith("/"):
        return None
    if made_by >> 8 == UNIX and stat.S_ISLNK(mode >> 16):
        raise ValueError(f"{name!r:.200} in it is a link")
    if flags & 1:
        raise ValueError(f"{name!r:.200} in it is encrypted")
    if method not in (STORED, DEFLATED):
        raise ValueError(f"{name!r:.200} in it has an unknown compression")
    return Member(name, offset, size, stored, method == DEFLATED)


def _go_to_list(file):
    """Seek to the list of files of the ZIP in an open file. Returns the number of files."""
    length = file.seek(0, io.SEEK_END)
    start = file.seek(max(0, length - END.size - 2**16))
    end = file.read()
    place = end.rfind(b"PK\5\6")
    if place < 0 or len(end) - place < END.size:
        raise ValueError("it is not a ZIP, or it is cut short")
    *_, count, size, offset, _ = END.unpack_from(end, place)
    if count == FULL_16 or FULL_32 in (size, offset):
        file.seek(max(0, start + place - LOCATOR.size))
        mark, _, where, _ = LOCATOR.unpack(file.read(LOCATOR.size))
        if mark == b"PK\6\7":
            file.seek(where)
            content = file.read(END_64.size)
            if len(content) < END_64.size or content[:4] != b"PK\6\6":
                raise ValueError("its list of files is damaged")
            *_, count, size, offset = END_64.unpack(content)
    if count > MOST:
        raise ValueError(f"{count} files are too many")
    if offset + size > length:
        raise ValueError("its list of files is damaged")
    file.seek(offset)
    return count


def _zip64(extra, *values):
    """The `values` with those that are FULL_32 replaced by the ones in the extra field of a large file."""
    values, place = list(values), 0
    while len(extra) - place >= 4:
        kind, size = struct.unpack_from("<2H", extra, place)
        if kind == 1:
            large = iter(struct.unpack_from(f"<{size // 8}Q", extra, place + 4))
            # In the extra field the order is: size, stored size, offset.
            return [next(large, value) if value == FULL_32 else value for value in values]
        place += 4 + size
    return values


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
        more = system.read_at(descriptor, size - len(content), offset + len(content))
        if not more:
            raise ValueError("it is cut short")
        content = content + more if content else more
    return content


def _check_name(name):
    if ".." not in name and not {"\\", ":", "\0"} & set(name) and name[:1] not in ("", "/"):
        return  # most names
    names = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in names or ":" in names[0] or "\0" in name or not name:
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
