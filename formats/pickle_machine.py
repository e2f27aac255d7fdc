"""A machine that runs pickles safely. It makes arrays and plain values, and cannot do anything else.

A pickle is a program for a small stack machine. `pickle.load` imports and calls any function that the program names.
The machine here knows only the instructions for dictionaries of arrays. It knows only a few names, and they stand for
functions of this module. It imports nothing, and looks up or sets no attribute of a named object. A file claims the
size of each array. The machine compares it with the bytes in the file before it makes the array.
"""

import math
import pickle
import struct
from dataclasses import dataclass

import numpy as np

from utils import UserError, printable

# An instruction takes one byte in the file, but the object that it makes takes about a hundred bytes of memory. So the
# machine counts _OBJECT_BYTES bytes for each. Together they may take the size of the pickle plus _ALLOWANCE, which is a
# quarter of a million objects. A checkpoint has about ten thousand.
_OBJECT_BYTES = 256
_ALLOWANCE = 64 * 2**20
_LONG_STRING = 256  # bytes; a longer string is copied out of the file only when it is needed
_MAX_DEPTH = 64  # levels of nesting at most
_DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
# bfloat16 has no NumPy type. Paddle stores it as uint16, and so does this module until it widens it to float32.
_TORCH_STORAGES = {
    "Bool": "b1", "Byte": "u1", "Char": "i1", "Short": "i2", "Int": "i4", "Long": "i8",
    "BFloat16": "u2", "Half": "f2", "Float": "f4", "Double": "f8",
}  # fmt: skip


def make_array(raw, dtype, shape, strides, offset=0, widen=False):
    """A contiguous array in native byte order, copied from the bytes `raw`. Raises UserError if it reaches beyond them.

    `strides` and `offset` count elements. With `widen`, float16 becomes float32, and uint16 is read as bfloat16 and
    becomes float32.
    """
    count = math.prod(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if count and (last + 1) * dtype.itemsize > len(raw):
        raise UserError(f"holds an array that reaches beyond its {len(raw)} bytes")
    # A bool is read as a number, and every number except 0 becomes True. A file may hold bytes other than 0 and 1.
    stored = np.dtype(np.uint8) if dtype.kind == "b" else dtype
    elements = np.frombuffer(raw, stored, last + 1)[offset:] if count else np.empty(0, stored)
    steps = [stride * stored.itemsize if count and size > 1 else 0 for size, stride in zip(shape, strides, strict=True)]
    view = np.lib.stride_tricks.as_strided(elements, shape, steps)
    if widen and dtype == np.float16:
        return view.astype(np.float32, order="C")
    if widen and dtype == np.uint16:
        bits = view.astype(np.uint32, order="C")
        bits <<= 16  # a bfloat16 is the upper half of a float32
        return bits.view(np.float32)
    return view.astype(dtype.newbyteorder("="), order="C")


def contiguous(shape, fortran=False):
    """The strides, in elements, of an array without gaps."""
    strides, step = [], 1
    for size in shape if fortran else reversed(shape):
        strides.append(step)
        step *= size
    return tuple(strides if fortran else reversed(strides))


# Stand-ins: instructions make them, and `Machine.plain` checks them and replaces them. An array refers to its bytes. A
# PyTorch storage gets its bytes after the pickle is read.


@dataclass(slots=True, eq=False)
class _Span:
    view: memoryview
    codec: str | None = None  # None: bytes; otherwise text in this encoding
    latin1: bool = False  # True: encode the text as Latin-1, because protocol 2 writes bytes as a text and such a call

    def value(self):
        if self.codec is None:
            return bytes(self.view)
        text = str(self.view, self.codec, "surrogatepass")  # as Python's own pickle
        return text.encode("latin-1") if self.latin1 else text


@dataclass(slots=True, eq=False)
class _Storage:
    dtype: np.dtype
    count: int
    raw: memoryview | None = None


@dataclass(slots=True, eq=False)
class _Dtype:
    code: str
    order: str = "="


@dataclass(slots=True, eq=False)
class _Array:
    source: object = None
    dtype: object = None
    shape: tuple = ()
    strides: tuple = ()  # in elements
    offset: int = 0  # in elements
    scalar: bool = False


class _OrderedDict(dict):
    """A dictionary. The instruction BUILD may set attributes of it, which are ignored."""


class Machine:
    """Runs the pickles in `data`, one after another.

    `limit`: bytes that all arrays together may take. `memory_left`: bytes that other objects may still take.
    `position`: the first byte of `data` that is not read yet.
    """

    def __init__(self, data, limit, widen=False):
        self.data = memoryview(data)
        self.position = 0
        self.memory_left = len(data) + _ALLOWANCE
        self.array_bytes_left = limit
        self.widen = widen
        self.storages = {}
        self.arrays = {}

    def run(self):
        """The object that the next pickle makes. It may contain stand-ins, which `plain` replaces."""
        self.stack, self.marks, self.memo = [], [], {}
        while (opcode := bytes(self.take(1))) != pickle.STOP:
            if opcode not in _INSTRUCTIONS:
                raise UserError(f"uses the pickle instruction 0x{opcode.hex()}, which a checkpoint has no use for")
            self.count_memory(_OBJECT_BYTES)
            _INSTRUCTIONS[opcode](self)
        value = self.stack.pop()
        self.stack, self.marks, self.memo = [], [], {}
        return value

    def finish(self):
        """Raise UserError if bytes follow the last pickle."""
        if self.position != len(self.data):
            raise UserError(f"goes on for {len(self.data) - self.position} bytes after its end")

    def count_memory(self, size):
        """Count `size` bytes of small objects. Raises UserError if `memory_left` does not suffice."""
        self.memory_left -= size
        if self.memory_left < 0:
            raise UserError("holds far more small objects than a checkpoint has")

    def check(self, count):
        """Raise UserError unless `count` bytes are left to read."""
        left = len(self.data) - self.position
        if not 0 <= count <= left:
            raise UserError(f"is cut short or damaged: {count} bytes are claimed, but {left} are left")

    def take(self, count):
        """The next `count` bytes, a memoryview. Raises UserError if fewer are left."""
        self.check(count)
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, code):
        """The next number, in the `struct` format `code`."""
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def integer(self, count):
        """The next `count` bytes as a signed little-endian integer."""
        return int.from_bytes(self.take(count), "little", signed=True)

    def string(self, count, codec):
        """The next `count` bytes as text in `codec`, or as bytes if `codec` is None. A stand-in if they are many."""
        span = _Span(self.take(count), codec)
        if count > _LONG_STRING:
            return span
        self.count_memory(4 * count)  # Python stores 4 bytes for every character if one character is wide
        return span.value()

    def line(self):
        """The next line as text, without its end; None if it is longer than any name."""
        line, end, _ = bytes(self.data[self.position : self.position + _LONG_STRING]).partition(b"\n")
        self.take(len(line) + 1)
        return line.decode() if end else None

    def push(self, value):
        """Put `value` on the stack."""
        self.stack.append(value)

    def pop_to_mark(self):
        """Remove the objects above the last mark from the stack. Returns them as a list."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def pop_tuple(self, count):
        """Replace the top `count` objects of the stack by one tuple of them."""
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.push(items)

    def append(self, items):
        """Append `items` to the list on top of the stack. Raises UserError if there is no list."""
        if type(self.stack[-1]) is not list:
            raise UserError("appends to something that is not a list")
        self.stack[-1].extend(items)

    def set_items(self, items):
        """Set `items` in the dictionary on top of the stack. Raises UserError if there is no dictionary.

        `items` alternate: a key, its value, the next key.
        """
        if not isinstance(self.stack[-1], dict):
            raise UserError("sets keys of something that is not a dictionary")
        _set_items(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def find(self, module, name):
        """Push the object that stands for the function `module.name`. Raises UserError unless _NAMES has it."""
        if type(module) is not str or type(name) is not str:
            raise UserError("names a function by something that is not a text")
        if (module, name) not in _NAMES:
            raise UserError(f"names {printable(f'{module}.{name}')}, which a checkpoint has no use for")
        self.push(_NAMES[module, name])

    def find_on_stack(self):
        """`find` with the module and the name from the top of the stack."""
        name, module = self.stack.pop(), self.stack.pop()
        self.find(module, name)

    def reduce(self):
        """Call a function with a tuple of arguments, both from the stack. Raises UserError for other objects."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if not callable(function) or type(arguments) is not tuple:  # only _NAMES can put a callable on the stack
            raise UserError("calls something that is not a function")
        self.push(function(*arguments))

    def build(self):
        """Set the state of an array or a data type, both from the stack. Raises UserError for anything else."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _Array) and type(state) is tuple and len(state) == 5:
            _, shape, target.dtype, fortran, target.source = state
            target.shape, target.strides = _checked_sizes(shape), contiguous(_checked_sizes(shape), fortran is True)
        elif isinstance(target, _Dtype) and type(state) is tuple and len(state) == 8:
            _, target.order, subarray, names, fields, *_ = state
            if subarray is not None or names is not None or fields is not None:
                raise UserError("holds an array of records, not of numbers")
        elif not (isinstance(target, _OrderedDict) and type(state) is dict):
            raise UserError("sets the state of something that has no state")

    def push_storage(self):
        """Push the storage that the top of the stack refers to. Raises UserError for any other reference."""
        kind, dtype, key, _location, count, *view = self.stack.pop()
        if kind != "storage" or not isinstance(dtype, np.dtype) or view not in ([], [None]):
            raise UserError("refers to something outside its pickle that is not a tensor storage")
        if type(key) is not str or type(count) is not int or count < 0:
            raise UserError("refers to a tensor storage without a name and a size")
        storage = self.storages.setdefault(key, _Storage(dtype, count))
        if (storage.dtype, storage.count) != (dtype, count):
            raise UserError(f"gives the storage {printable(key)} two types or sizes")
        self.push(storage)

    def plain(self, value, depth=0):
        """`value` without stand-ins: a tree of arrays and plain values.

        A container that the pickle shares is copied at each place, so the result has no cycles. Raises UserError for
        too many objects or levels, and for an object that is neither an array nor a plain value.
        """
        self.count_memory(_OBJECT_BYTES)
        if depth > _MAX_DEPTH:
            raise UserError(f"is nested more than {_MAX_DEPTH} levels deep")
        if isinstance(value, dict):
            return {key: self.plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.plain(item, depth + 1) for item in value)
        if isinstance(value, _Array):
            array = self.array(value)
            return array.item() if value.scalar else array
        if isinstance(value, _Span):
            self.count_memory(4 * len(value.view))
            return value.value()
        if value is None or isinstance(value, bool | int | float | str | bytes):
            return value
        raise UserError("holds a bare data type, storage or function")

    def array(self, stand_in):
        """The array that `stand_in` describes. Repeated references to the same array give the same object."""
        dtype, shape, strides = _dtype_of(stand_in.dtype), stand_in.shape, stand_in.strides
        key = id(stand_in.source), dtype, shape, strides, stand_in.offset
        if key not in self.arrays:
            self.array_bytes_left -= math.prod(shape) * dtype.itemsize
            if self.array_bytes_left < 0:
                raise UserError("describes more array bytes than it holds")
            if isinstance(stand_in.source, _Span) and stand_in.source.latin1:
                self.count_memory(len(stand_in.source.view))  # each array that refers to it decodes it again
            raw = _bytes_of(stand_in.source)
            self.arrays[key] = make_array(raw, dtype, shape, strides, stand_in.offset, self.widen)
        return self.arrays[key]


def _bytes_of(source):
    if isinstance(source, _Storage) and source.raw is not None:
        return source.raw
    if isinstance(source, _Span):
        return source.view if source.codec in (None, "latin-1") else source.value()
    if isinstance(source, str):  # a byte string of Python 2
        return source.encode("latin-1")
    if isinstance(source, bytes):
        return source
    raise UserError("holds an array without its bytes")


def _dtype_of(stand_in):
    if isinstance(stand_in, np.dtype):
        return stand_in
    if isinstance(stand_in, _Dtype) and type(stand_in.order) is str and stand_in.order in tuple("<>|="):
        return np.dtype(stand_in.order + stand_in.code)
    raise UserError("holds an array without a data type")


def _checked_sizes(values):
    if not isinstance(values, list | tuple) or len(values) > 32 or any(type(n) is not int or n < 0 for n in values):
        raise UserError("holds an array with a shape or strides that are not sizes")
    return tuple(values)


def _set_items(target, pairs):
    for key, value in pairs:
        # Other keys are dangerous. A hostile file can give many of them one hash, which makes the dictionary slow, or
        # nest them so deeply that hashing overflows the stack.
        if type(key) is not str and not (type(key) is int and abs(key) < 2**31):
            raise UserError("has a dictionary key that is neither a short text nor a small whole number")
        target[key] = value


# The functions that a pickle may call. _NAMES maps their names in a pickle to them.


def _ordered_dict(pairs=()):
    result = _OrderedDict()
    _set_items(result, pairs)
    return result


def _dtype(code, _align=False, _copy=True):
    if type(code) is not str or code not in _DTYPES:
        kind = printable(code, 20) if type(code) is str else "no name"
        raise UserError(f"holds an array of the type {kind}; known are bool, integers and floats")
    return _Dtype(code)


def _reconstruct(_subtype, _shape, _code):
    return _Array()


def _frombuffer(source, dtype, shape, order):
    return _Array(source, dtype, _checked_sizes(shape), contiguous(_checked_sizes(shape), order == "F"))


def _scalar(dtype, source):
    return _Array(source, dtype, scalar=True)


def _encode(text, codec):
    if codec in ("latin1", "latin-1") and type(text) is str:
        return text.encode("latin-1")
    if codec in ("latin1", "latin-1") and isinstance(text, _Span) and text.codec == "utf-8":
        return _Span(text.view, "utf-8", latin1=True)
    raise UserError("encodes something other than Latin-1 text")


def _bytes(*arguments):  # protocol 2 writes empty bytes as a call without arguments
    if arguments:
        raise UserError("makes bytes of something other than a text")
    return b""


def _paddle_tensor(name_and_array):  # Paddle writes a tensor as a call of `tuple` with its name and its array
    _name, array = name_and_array
    return array


def _rebuild_tensor(storage, offset, size, stride, _requires_grad=False, _hooks=None, flags=None):
    if not isinstance(storage, _Storage) or flags:  # flags mark conjugate or negated views
        raise UserError("holds a tensor of a kind that a checkpoint has no use for")
    (offset,), shape, strides = _checked_sizes([offset]), _checked_sizes(size), _checked_sizes(stride)
    if len(shape) != len(strides):
        raise UserError("holds a tensor with a shape and strides of different lengths")
    return _Array(storage, storage.dtype, shape, strides, offset)


def _rebuild_parameter(tensor, _requires_grad, _hooks):
    return tensor


_NAMES = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("numpy", "ndarray"): object(),  # an argument of _reconstruct, which ignores it
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}
for _core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    _NAMES[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _NAMES[f"{_core}.multiarray", "scalar"] = _scalar
    _NAMES[f"{_core}.numeric", "_frombuffer"] = _frombuffer
for _builtins in ("builtins", "__builtin__"):  # Python 3 and 2
    _NAMES[_builtins, "bytes"] = _bytes
    _NAMES[_builtins, "tuple"] = _paddle_tensor
for _storage, _code in _TORCH_STORAGES.items():
    _NAMES["torch", f"{_storage}Storage"] = np.dtype(f"<{_code}")

_INSTRUCTIONS = {
    pickle.PROTO: lambda m: m.take(1),
    pickle.FRAME: lambda m: m.check(m.number("<Q")),
    pickle.MARK: lambda m: m.marks.append(len(m.stack)),
    pickle.NONE: lambda m: m.push(None),
    pickle.NEWTRUE: lambda m: m.push(True),
    pickle.NEWFALSE: lambda m: m.push(False),
    pickle.BININT: lambda m: m.push(m.number("<i")),
    pickle.BININT1: lambda m: m.push(m.number("<B")),
    pickle.BININT2: lambda m: m.push(m.number("<H")),
    pickle.LONG1: lambda m: m.push(m.integer(m.number("<B"))),
    pickle.BINFLOAT: lambda m: m.push(m.number(">d")),
    pickle.SHORT_BINSTRING: lambda m: m.push(m.string(m.number("<B"), "latin-1")),
    pickle.BINSTRING: lambda m: m.push(m.string(m.number("<i"), "latin-1")),
    pickle.SHORT_BINBYTES: lambda m: m.push(m.string(m.number("<B"), None)),
    pickle.BINBYTES: lambda m: m.push(m.string(m.number("<I"), None)),
    pickle.BINBYTES8: lambda m: m.push(m.string(m.number("<Q"), None)),
    pickle.BYTEARRAY8: lambda m: m.push(m.string(m.number("<Q"), None)),
    pickle.SHORT_BINUNICODE: lambda m: m.push(m.string(m.number("<B"), "utf-8")),
    pickle.BINUNICODE: lambda m: m.push(m.string(m.number("<I"), "utf-8")),
    pickle.BINUNICODE8: lambda m: m.push(m.string(m.number("<Q"), "utf-8")),
    pickle.EMPTY_TUPLE: lambda m: m.push(()),
    pickle.EMPTY_LIST: lambda m: m.push([]),
    pickle.EMPTY_DICT: lambda m: m.push({}),
    pickle.TUPLE1: lambda m: m.pop_tuple(1),
    pickle.TUPLE2: lambda m: m.pop_tuple(2),
    pickle.TUPLE3: lambda m: m.pop_tuple(3),
    pickle.TUPLE: lambda m: m.push(tuple(m.pop_to_mark())),
    pickle.APPEND: lambda m: m.append([m.stack.pop()]),
    pickle.APPENDS: lambda m: m.append(m.pop_to_mark()),
    pickle.SETITEM: lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    pickle.SETITEMS: lambda m: m.set_items(m.pop_to_mark()),
    pickle.MEMOIZE: lambda m: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    pickle.BINPUT: lambda m: m.memo.__setitem__(m.number("<B"), m.stack[-1]),
    pickle.LONG_BINPUT: lambda m: m.memo.__setitem__(m.number("<I"), m.stack[-1]),
    pickle.BINGET: lambda m: m.push(m.memo[m.number("<B")]),
    pickle.LONG_BINGET: lambda m: m.push(m.memo[m.number("<I")]),
    pickle.GLOBAL: lambda m: m.find(m.line(), m.line()),
    pickle.STACK_GLOBAL: lambda m: m.find_on_stack(),
    pickle.REDUCE: lambda m: m.reduce(),
    pickle.BUILD: lambda m: m.build(),
    pickle.BINPERSID: lambda m: m.push_storage(),
}
