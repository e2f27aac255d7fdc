"""Reads .pdparams, .pth and .safetensors files without running anything in them."""

import codecs
import pickle
import stat
import struct
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import safetensors

from formats.pickle_machine import Machine, contiguous, make_array
from utils import UserError, printable

_KNOWN_FORMATS = "; known are Paddle's .pdparams, PyTorch's .pth and .safetensors files"
_KINDS = {
    b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image", b"\x1f\x8b": "a gzip archive",
    b"\x89HDF": "an HDF5 file", b"<": "an HTML or XML page",
}  # fmt: skip
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # the first of the pickles in a file of PyTorch before 1.6
# Limits, because reading these takes more memory than their bytes in the file.
_MAX_MEMBERS = 2**16  # files in a ZIP archive
_MAX_HEADER = 4 * 2**20  # bytes in the header of a safetensors file
_SAFETENSORS = {
    "BOOL": "b1", "U8": "u1", "I8": "i1", "I16": "i2", "I32": "i4", "U32": "u4", "I64": "i8", "U64": "u8",
    "BF16": "u2", "F16": "f2", "F32": "f4", "F64": "f8",
}  # fmt: skip


def load_state(path):
    """Read a published checkpoint: nested plain dictionaries, lists and tuples of NumPy arrays and plain values.

    The content shows the format: Paddle's `paddle.save` (pickle protocols 2 to 4), PyTorch's `torch.save` (the ZIP
    format, and the format before 1.6), or safetensors.

    Arrays are native, C-contiguous and writable. float16 and bfloat16 become float32; Paddle stores bfloat16 as uint16.
    NumPy scalars become Python numbers. The result lacks two things: the names that Paddle keeps beside the weights,
    and PyTorch's version numbers.

    The memory it takes, besides the arrays that it returns, is the size of the file, at most the same again for other
    objects, and 64 MB.

    Raises UserError if the file cannot be read, has no known format, is damaged, or holds anything except data.
    """
    try:
        data = _read_file(path)
        if data.startswith(b"PK\x03\x04"):
            state = _load_torch_zip(data)
        elif data.startswith(pickle.PROTO):
            state = _load_pickles(data)
        elif data[8:9] == b"{":
            state = _load_safetensors(data)
        else:
            raise UserError(f"is {_kind(data)}")
        if not isinstance(state, dict):
            raise UserError(f"holds one {type(state).__name__}, not a dictionary of arrays")
        return state
    except Exception as error:  # a stranger's file may cause any error, and the user must not see a traceback
        raise _in_one_sentence(error, path, _KNOWN_FORMATS) from None


def load_pickle(data, limit):
    """The content of `data`, the bytes of one pickle of protocol 2 to 5. All arrays together may take `limit` bytes.

    It may hold dict, OrderedDict (read as dict), list, tuple, str, bytes, int, float, bool, None, and NumPy arrays and
    scalars of bool, integer and float types. Strings of Python 2 are read as Latin-1. Raises UserError for anything
    else.
    """
    try:
        machine = Machine(data, limit)
        value = machine.run()
        machine.finish()
        return machine.plain(value)
    except Exception as error:  # as in `load_state`
        raise _in_one_sentence(error, "the pickle", "") from None


def _in_one_sentence(error, subject, ending):
    """A UserError of one sentence for any error. It begins with `subject`.

    This is not a context manager, because its frames would refer to each other. Then the objects of a refused file
    would stay in memory until Python looks for cycles.
    """
    subject = str(subject) if len(str(subject)) <= 120 else f"…{str(subject)[-120:]}"
    if isinstance(error, UserError):
        message = str(error)
    elif isinstance(error, OSError):
        message, ending = f"cannot be read: {error.strerror}", ""
    else:
        message = f"is damaged ({type(error).__name__}: {printable(str(error))})"
    return UserError(printable(subject, 121) + " " + message + ending)


def _read_file(path):
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):  # opening a pipe would wait, and a device may never end
        raise UserError("is a folder" if stat.S_ISDIR(mode) else "is not a regular file")
    return Path(path).read_bytes()


def _kind(data):
    for magic, kind in _KINDS.items():
        if data[:64].lstrip().startswith(magic):
            return kind
    if not data:
        return "empty"
    return "a text file" if _is_text(data[:64]) else f"of an unknown format (it begins with {data[:8].hex(' ')})"


def _is_text(start):
    """Whether the first bytes of a file are text in UTF-8. The last character may be cut short."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\r\n" for character in text)


def _load_pickles(data):
    """The content of Paddle's file, which is one pickle, or of PyTorch's before 1.6: five pickles and the storages."""
    machine = Machine(data, len(data), widen=True)
    state = machine.run()
    if type(state) is int and state == _TORCH_MAGIC:
        # PyTorch before 1.6. After the magic number come four more pickles, then the storages.
        machine.run()  # the version of the protocol, which is always 1001
        machine.run()  # the integer sizes of the machine that wrote it; storages are little-endian in any case
        state = machine.run()
        for key in machine.run():
            storage = machine.storages[key]
            if machine.number("<q") != storage.count:
                raise UserError(f"gives the storage {printable(key)} two sizes")
            storage.raw = machine.take(storage.count * storage.dtype.itemsize)
        machine.finish()
        return machine.plain(state)
    # Paddle.
    machine.finish()
    state = machine.plain(state)
    if isinstance(state, dict):
        state.pop("StructuredToParameterName@@", None)
        # Paddle cuts arrays of more than 1 GB into flat slices in protocols 2 and 3. Join them.
        for name, about in state.pop("UnpackBigParamInfor@@", {}).items():
            state[name] = np.concatenate([state.pop(key) for key in about["slices"]]).reshape(about["OriginShape"])
    return state


def _load_torch_zip(data):
    """The content of PyTorch's file since 1.6: a ZIP archive of NAME/data.pkl and a member NAME/data/KEY per storage.

    The archive is not compressed.
    """
    if data.count(b"PK\x01\x02") > _MAX_MEMBERS:
        raise UserError(f"is a ZIP archive of more than {_MAX_MEMBERS} files")
    # Find the one pickle in the archive.
    members = {member.filename: member for member in zipfile.ZipFile(BytesIO(data)).infolist()}
    for name in members:
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise UserError(f"is a ZIP archive with a file named {printable(name)}, outside its folder")
    pickles = [name for name in members if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UserError(f"is a ZIP archive with {len(pickles) or 'no'} data.pkl, not a file of PyTorch")
    folder = pickles[0].removesuffix("data.pkl")
    # Run it.
    machine = Machine(_member(data, members[pickles[0]]), len(data), widen=True)
    state = machine.run()
    machine.finish()
    order = f"{folder}byteorder"
    if order in members and _member(data, members[order]) != b"little":
        raise UserError("was written on a big-endian machine; save it again on a little-endian one")
    # Give each storage its bytes. The directory of a hostile archive may give many members the same bytes. The check
    # limits the work of the loop.
    if sum(storage.count * storage.dtype.itemsize for storage in machine.storages.values()) > len(data):
        raise UserError("describes more storage bytes than it holds")
    for key, storage in machine.storages.items():
        if f"{folder}data/{key}" not in members:
            raise UserError(f"lacks the storage {printable(key)}")
        storage.raw = _member(data, members[f"{folder}data/{key}"])
        if len(storage.raw) != storage.count * storage.dtype.itemsize:
            raise UserError(f"gives the storage {printable(key)} two sizes")
    return machine.plain(state)


def _member(data, member):
    """The bytes of a member of a ZIP archive, as a view of `data`: no copy. A compressed member is refused."""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size or member.flag_bits & 1:
        raise UserError(f"is a ZIP archive, and its {printable(member.filename)} is compressed or encrypted")
    name_length, extra_length = struct.unpack_from("<HH", data, member.header_offset + 26)
    start = member.header_offset + 30 + name_length + extra_length
    view = memoryview(data)[start : start + member.file_size]
    if len(view) != member.file_size or zlib.crc32(view) != member.CRC:
        raise UserError(f"is a ZIP archive, and its {printable(member.filename)} is damaged")
    return view


def _load_safetensors(data):
    (header,) = struct.unpack_from("<Q", data)
    if header > min(_MAX_HEADER, len(data) - 8):
        raise UserError(f"claims a header of {header} bytes in a safetensors file of {len(data)} bytes")
    state, tensors = {}, safetensors.deserialize(data)
    while tensors:  # remove each from the list: the memory of the library's copy is free when ours is made
        name, tensor = tensors.pop()
        if tensor["dtype"] not in _SAFETENSORS:
            raise UserError(f"holds an array of the type {tensor['dtype']}; known are bool, integers and floats")
        dtype, shape = np.dtype(f"<{_SAFETENSORS[tensor['dtype']]}"), tuple(tensor["shape"])
        state[name] = make_array(tensor["data"], dtype, shape, contiguous(shape), widen=True)
    return state
