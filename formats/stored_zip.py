"""Writes a ZIP of uncompressed files that only grows, so that an interrupted writer can go on where it stopped.

More than 65,535 files and more than 4 GB work (ZIP64). The format: PKWARE's APPNOTE.TXT 6.3.10, 4.3 and 4.5.3.
"""

import os
import struct
import zlib
from array import array

LOCAL = struct.Struct("<4s5H3L2H")
CENTRAL = struct.Struct("<4s6H3L5H2L")
FULL_32, FULL_16 = 2**32 - 1, 2**16 - 1
DOS_TIME, DOS_DATE = 0, 33  # 1 January 1980: the same content gives the same file
UTF_8 = 1 << 11


class StoredZip:
    """A ZIP that is written to `file`, which is open for reading and writing and empty.

    `sizes`, `names` and `checksums`: those of the files in it, in their order.
    """

    def __init__(self, file):
        self.file, self.names = file, []
        self.sizes, self.offsets, self.checksums = array("Q"), array("Q"), array("I")

    def add(self, name, content):
        """Append a whole file."""
        self.begin(name, len(content), zlib.crc32(content))
        self.file.write(content)

    def begin(self, name, size, checksum=0):
        """Append the header of a file of `size` bytes. Its content must be written to `file` next."""
        self.names.append(name)
        self.sizes.append(size)
        self.offsets.append(self.file.tell())
        self.checksums.append(checksum)
        self.file.write(self._local_header(-1))

    def set_checksum(self, checksum):
        """Give the last file its CRC-32 after its content is written."""
        self.checksums[-1] = checksum
        self.file.seek(self.offsets[-1])
        self.file.write(self._local_header(-1))
        self.file.seek(0, os.SEEK_END)

    def read_back(self, count):
        """Continue after the first `count` files that another `StoredZip` wrote to `file`. The rest is cut off."""
        place = 0
        for _ in range(count):
            self.file.seek(place)
            fields = LOCAL.unpack(self.file.read(LOCAL.size))
            if fields[0] != b"PK\3\4" or fields[7] == FULL_32:
                raise ValueError("it is damaged")
            self.names.append(self.file.read(fields[9]).decode())
            self.sizes.append(fields[8])
            self.checksums.append(fields[6])
            self.offsets.append(place)
            place += LOCAL.size + fields[9] + fields[10] + fields[8]
        self.file.seek(place)
        self.file.truncate()

    def finish(self):
        """Append the list of all files. The ZIP is complete then."""
        start, count = self.file.tell(), len(self.names)
        for index in range(count):
            self.file.write(self._central_header(index))
        end = self.file.tell()
        size = end - start
        if count >= FULL_16 or end >= FULL_32:
            record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
            self.file.write(record + struct.pack("<4sLQL", b"PK\6\7", 0, end, 1))
        count, size, start = min(count, FULL_16), min(size, FULL_32), min(start, FULL_32)
        self.file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, start, 0))

    def _local_header(self, index):
        name, size = self.names[index].encode(), self.sizes[index]
        large = size >= FULL_32
        extra = struct.pack("<2H2Q", 1, 16, size, size) if large else b""
        size = FULL_32 if large else size
        version = 45 if large else 20
        fields = (version, UTF_8, 0, DOS_TIME, DOS_DATE, self.checksums[index], size, size, len(name), len(extra))
        return LOCAL.pack(b"PK\3\4", *fields) + name + extra

    def _central_header(self, index):
        name, size, offset = self.names[index].encode(), self.sizes[index], self.offsets[index]
        large = [size] * 2 * (size >= FULL_32) + [offset] * (offset >= FULL_32)
        extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        version = 45 if large else 20
        size, offset = min(size, FULL_32), min(offset, FULL_32)
        unix, permissions = 3 << 8, 0o100644 << 16
        fields = (unix | version, version, UTF_8, 0, DOS_TIME, DOS_DATE, self.checksums[index], size, size, len(name))
        return CENTRAL.pack(b"PK\1\2", *fields, len(extra), 0, 0, 0, permissions, offset) + name + extra
