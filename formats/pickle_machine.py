"""A pickle machine that makes arrays and plain values, and cannot do anything else.

A pickle is a program for a small stack machine, and `pickle.load` imports and calls whatever that program names. The
machine here knows only the instructions that dictionaries of arrays are written with. The few names it knows stand
for functions of this module; nothing is imported, no attribute is looked up or set. What a file says of an array is
checked against the bytes the file has before the array is made.
"""

import math
import pickle
import struct
from dataclasses import dataclass

import numpy as np

from utils import UserError

# An instruction is one byte and the object it makes about a hundred: so many are counted for each, and together they
# may come to the pickle's size and an allowance (a quarter of a million objects; a checkpoint has some ten thousand).
_OBJECT = 256
_ALLOWANCE = 64 * 2**20
_LONG = 256  # strings above this many bytes stay in the file until they are wanted
_DEPTH = 64  # levels of nesting
_DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
# bfloat16 has no NumPy type; Paddle stores it as uint16, and so does this module until it is widened
_TORCH_STORAGES = {
    "Bool": "b1", "Byte": "u1", "Char": "i1", "Short": "i2", "Int": "i4", "Long": "i8",
    "BFloat16": "u2", "Half": "f2", "Float": "f4", "Double": "f8",
}  # fmt: skip


def short(text, length=80):
    """A stranger's text as it may stand in a sentence."""
    return "".join(character if character.isprintable() else "?" for character in text[:length])


def make_array(raw, dtype, shape, strides, offset=0, widen=False):
    """A contiguous copy, in this machine's byte order, of the elements of `raw` that lie in its bounds.

    `strides` and `offset` count elements. With `widen` 16-bit floats come as float32, and uint16 is bfloat16.
    """
    count = math.prod(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if count and (last + 1) * dtype.itemsize > len(raw):
        raise UserError(f"holds an array that reaches beyond its {len(raw)} bytes")
    # a bool is read as a number, and any number but 0 is True: no byte is left that is neither
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


# What instructions make before anything is checked. An array refers to its bytes; a storage of PyTorch's gets its own
# only after the pickle is read.


@dataclass(slots=True, eq=False)
class _Span:
    view: memoryview
    codec: str | None = None  # None: bytes; otherwise text in this encoding
    latin1: bool = False  # protocol 2 has no bytes: it writes Latin-1 text, in UTF-8, and a call that encodes it

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
    """A dictionary that BUILD may hang attributes on; they are dropped."""


class Machine:
    """Runs the pickles in `data`, whose arrays may take `limit` bytes; `position` is the first byte not yet read."""

    def __init__(self, data, limit, widen=False):
        self.data = memoryview(data)
        self.position = 0
        self.room = len(data) + _ALLOWANCE
        self.limit = limit
        self.widen = widen
        self.storages = {}
        self.arrays = {}

    def run(self):
        """The object that the next pickle makes, stand-ins and all."""
        self.stack, self.marks, self.memo = [], [], {}
        while (opcode := bytes(self.take(1))) != pickle.STOP:
            if opcode not in _INSTRUCTIONS:
                raise UserError(f"uses the pickle instruction 0x{opcode.hex()}, which a checkpoint has no use for")
            self.spend(_OBJECT)
            _INSTRUCTIONS[opcode](self)
        value = self.stack.pop()
        self.stack, self.marks, self.memo = [], [], {}
        return value

    def finish(self):
        """Raise UserError where bytes are left after the last pickle."""
        if self.position != len(self.data):
            raise UserError(f"goes on for {len(self.data) - self.position} bytes after its end")

    def spend(self, size):
        """Count `size` bytes of small objects; raises UserError when they come to more than a checkpoint's would."""
        self.room -= size
        if self.room < 0:
            raise UserError("holds far more small objects than a checkpoint has")

    def check(self, count):
        """Raise UserError unless `count` bytes are left to read."""
        left = len(self.data) - self.position
        if not 0 <= count <= left:
            raise UserError(f"is cut short or damaged: {count} bytes are claimed where {left} are left")

    def take(self, count):
        """The next `count` bytes, a memoryview; raises UserError where fewer are left."""
        self.check(count)
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, code):
        """The next number, of the `struct` format `code`."""
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def integer(self, count):
        """The next `count` bytes as a signed little-endian integer."""
        return int.from_bytes(self.take(count), "little", signed=True)

    def string(self, count, codec):
        """The next `count` bytes as text in `codec`, or as bytes where that is None; a stand-in for long ones."""
        span = _Span(self.take(count), codec)
        if count > _LONG:
            return span
        self.spend(4 * count)  # one wide character makes a text take four bytes for each
        return span.value()

    def line(self):
        """The next line as text, without its end; None for one that is longer than a name."""
        line, end, _ = bytes(self.data[self.position : self.position + _LONG]).partition(b"\n")
        self.take(len(line) + 1)
        return line.decode() if end else None

    def push(self, value):
        """Put `value` on the stack."""
        self.stack.append(value)

    def pop_to_mark(self):
        """Take what is above the last mark off the stack: a list."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def pop_tuple(self, count):
        """Put the last `count` objects of the stack together as a tuple."""
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.push(items)

    def append(self, items):
        """Append `items` to the list on top of the stack; raises UserError for anything else there."""
        if type(self.stack[-1]) is not list:
            raise UserError("appends to something that is no list")
        self.stack[-1].extend(items)

    def set_items(self, items):
        """Set `items`, keys and values in turn, in the dictionary on top; raises UserError for anything else there."""
        if not isinstance(self.stack[-1], dict):
            raise UserError("sets keys of something that is no dictionary")
        _fill(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def find(self, module, name):
        """Push what stands for the function `module.name`; raises UserError unless it is one of _NAMES."""
        if type(module) is not str or type(name) is not str:
            raise UserError("names a function by something that is no text")
        if (module, name) not in _NAMES:
            raise UserError(f"names {short(f'{module}.{name}')}, which a checkpoint has no use for")
        self.push(_NAMES[module, name])

    def find_on_stack(self):
        """`find` of the module and the name on top of the stack."""
        name, module = self.stack.pop(), self.stack.pop()
        self.find(module, name)

    def reduce(self):
        """Call the function under the top of the stack with the tuple on top; raises UserError for other objects."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if not callable(function) or type(arguments) is not tuple:  # what is callable here came out of _NAMES
            raise UserError("calls something that is no function")
        self.push(function(*arguments))

    def build(self):
        """Give an array or a data type the state on top of the stack; raises UserError for any other of either."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _Array) and type(state) is tuple and len(state) == 5:
            _, shape, target.dtype, fortran, target.source = state
            target.shape, target.strides = _sizes(shape), contiguous(_sizes(shape), fortran is True)
        elif isinstance(target, _Dtype) and type(state) is tuple and len(state) == 8:
            _, target.order, subarray, names, fields, *_ = state
            if subarray is not None or names is not None or fields is not None:
                raise UserError("holds an array of records, not of numbers")
        elif not (isinstance(target, _OrderedDict) and type(state) is dict):
            raise UserError("sets the state of something that has none")

    def persistent(self):
        """Push the storage that the top of the stack refers to; raises UserError for any other reference."""
        kind, dtype, key, _location, count, *view = self.stack.pop()
        if kind != "storage" or not isinstance(dtype, np.dtype) or view not in ([], [None]):
            raise UserError("refers to something outside its pickle that is no tensor storage")
        if type(key) is not str or type(count) is not int or count < 0:
            raise UserError("refers to a tensor storage without a name and a size")
        storage = self.storages.setdefault(key, _Storage(dtype, count))
        if (storage.dtype, storage.count) != (dtype, count):
            raise UserError(f"gives the storage {short(key)} two types or sizes")
        self.push(storage)

    def plain(self, value, depth=0):
        """`value` without stand-ins, as a tree: what was shared is repeated, so a walk over it has no surprises.

        Raises UserError for a tree of too many objects or levels, and for what is neither array nor plain value.
        """
        self.spend(_OBJECT)
        if depth > _DEPTH:
            raise UserError(f"is nested more than {_DEPTH} levels deep")
        if isinstance(value, dict):
            return {key: self.plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.plain(item, depth + 1) for item in value)
        if isinstance(value, _Array):
            array = self.array(value)
            return array.item() if value.scalar else array
        if isinstance(value, _Span):
            self.spend(4 * len(value.view))
            return value.value()
        if value is None or isinstance(value, bool | int | float | str | bytes):
            return value
        raise UserError("holds a bare data type, storage or function")

    def array(self, stand_in):
        """The array that `stand_in` describes, one object however often the file refers to it."""
        dtype, shape, strides = _dtype_of(stand_in.dtype), stand_in.shape, stand_in.strides
        key = id(stand_in.source), dtype, shape, strides, stand_in.offset
        if key not in self.arrays:
            self.limit -= math.prod(shape) * dtype.itemsize
            if self.limit < 0:
                raise UserError("describes more array bytes than it holds")
            if isinstance(stand_in.source, _Span) and stand_in.source.latin1:
                self.spend(len(stand_in.source.view))  # decoded anew for each array that refers to it
            raw = _raw(stand_in.source)
            self.arrays[key] = make_array(raw, dtype, shape, strides, stand_in.offset, self.widen)
        return self.arrays[key]


def _raw(source):
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


def _sizes(values):
    if not isinstance(values, list | tuple) or len(values) > 32 or any(type(n) is not int or n < 0 for n in values):
        raise UserError("holds an array whose shape or strides are no sizes")
    return tuple(values)


def _fill(target, pairs):
    for key, value in pairs:
        # other keys could be made to hash alike, or nest so deep that hashing them overflows the stack
        if type(key) is not str and not (type(key) is int and abs(key) < 2**31):
            raise UserError("has a dictionary key that is neither a short text nor a small whole number")
        target[key] = value


# What a pickle may call, by the names it may call it by.


def _ordered_dict(pairs=()):
    result = _OrderedDict()
    _fill(result, pairs)
    return result


def _dtype(code, _align=False, _copy=True):
    if type(code) is not str or code not in _DTYPES:
        what = short(code, 20) if type(code) is str else "no name"
        raise UserError(f"holds an array of the type {what}; known are bool, integers and floats")
    return _Dtype(code)


def _reconstruct(_subtype, _shape, _code):
    return _Array()


def _frombuffer(source, dtype, shape, order):
    return _Array(source, dtype, _sizes(shape), contiguous(_sizes(shape), order == "F"))


def _scalar(dtype, source):
    return _Array(source, dtype, scalar=True)


def _encode(text, codec):
    if codec in ("latin1", "latin-1") and type(text) is str:
        return text.encode("latin-1")
    if codec in ("latin1", "latin-1") and isinstance(text, _Span) and text.codec == "utf-8":
        return _Span(text.view, "utf-8", latin1=True)
    raise UserError("encodes something else than Latin-1 text")


def _bytes(*arguments):  # protocol 2 writes empty bytes as a call without arguments
    if arguments:
        raise UserError("makes bytes of something else than a text")
    return b""


def _paddle_tensor(name_and_array):
    _name, array = name_and_array
    return array


def _rebuild_tensor(storage, offset, size, stride, _requires_grad=False, _hooks=None, flags=None):
    if not isinstance(storage, _Storage) or flags:  # flags mark conjugate or negated views
        raise UserError("holds a tensor of a kind that a checkpoint has no use for")
    (offset,), shape, strides = _sizes([offset]), _sizes(size), _sizes(stride)
    if len(shape) != len(strides):
        raise UserError("holds a tensor whose shape and strides differ in length")
    return _Array(storage, storage.dtype, shape, strides, offset)


def _rebuild_parameter(tensor, _requires_grad, _hooks):
    return tensor


_NAMES = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("numpy", "ndarray"): object(),  # an argument of _reconstruct, never looked at
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
    pickle.BINPERSID: lambda m: m.persistent(),
}
