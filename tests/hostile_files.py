"""Files that would run code, exhaust memory or end in a traceback if pickle read them.

`corpus(canary)`: {name: (content, text of the refusal)}. The payloads in `LIVE` create the file `canary` when `pickle`
or `python` runs them; a test in test_safe_pickle.py checks that they do.
`checkpoints(parameters)` has the same form: files that can be read but are not our checkpoints.
"""

import copy
import dataclasses
import io
import json
import pickle
import struct
import zipfile

import checkpoint
from networks import models_of

LIVE = set()
MAGIC = 0x1950A86A20F9469CFC6C
FLOAT = b"ctorch\nFloatStorage\n"
FOUR_FLOATS = struct.pack("<q", 4) + bytes(16)
ORDERED = b"ccollections\nOrderedDict\n)R"


# Pieces of pickles. Each leaves one object on the stack.


def value(plain):
    return pickle.dumps(plain, 2)[2:-1]


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def dotted(module, attribute):
    return value(module) + value(attribute) + b"\x93"


def call(function, *arguments):
    return function + b"(" + b"".join(arguments) + b"tR"


def raw(data):
    return b"B" + struct.pack("<I", len(data)) + data


def dtype(code, state=(3, "<", None, None, None, -1, -1, 0)):
    return call(name("numpy", "dtype"), value(code), value(False), value(True)) + value(state) + b"b"


def blank():
    return call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), value((0,)), raw(b"b"))


def array(shape=(2,), kind=None, content=None):
    shape = shape if isinstance(shape, bytes) else value(shape)
    kind, content = kind or dtype("f4"), content or raw(bytes(8))
    return blank() + b"(" + value(1) + shape + kind + value(False) + content + b"tb"


def storage(key="0", count=4, *view):
    return b"(" + value("storage") + FLOAT + value(key) + value("cpu") + value(count) + b"".join(view) + b"tQ"


def tensor(size=(4,), stride=(1,), offset=0, of=None):
    function = name("torch._utils", "_rebuild_tensor_v2")
    return call(function, of or storage(), value(offset), value(size), value(stride), value(False), ORDERED)


# Whole files


def pickled(body, protocol=4):
    """A state dictionary with one value: the object that `body` leaves on the stack."""
    return b"\x80%c}" % protocol + value("w") + body + b"s."


def zipped(body, members=None, compression=zipfile.ZIP_STORED, twins=0):
    """A file as torch.save writes it since 1.6, with one storage of four floats. `twins`: the number of its names in
    the directory.
    """
    file = io.BytesIO()
    members = {"archive/data.pkl": pickled(body), "archive/data/0": bytes(16)} | (members or {})
    with zipfile.ZipFile(file, "w", compression) as archive:
        for member, content in members.items():
            if content is not None:
                archive.writestr(member, content)
        for number in range(1, twins):
            archive.filelist.append(copy.copy(archive.getinfo("archive/data/0")))
            archive.filelist[-1].filename = f"archive/data/{number}"
    return file.getvalue()


def legacy(body, keys=("0",), storages=FOUR_FLOATS, info=None):
    """A file as torch.save wrote it before 1.6."""
    info = pickled(info) if info else pickle.dumps({"little_endian": True}, 2)
    return (
        pickle.dumps(MAGIC, 2) + pickle.dumps(1001, 2) + info + pickled(body) + pickle.dumps(list(keys), 2) + storages
    )


def safetensors_file(header, data=b"", length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(kind="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": kind, "shape": list(shape), "data_offsets": list(offsets)}


def doubled(first, again):
    """60 levels; each refers twice to the level before. A few hundred bytes describe 2^60 objects."""
    levels = (again(level, level + 1) for level in range(60))
    return b"(" + first + b"q\x00" + b"".join(levels) + b"t"


def corpus(canary):
    groups = executing(canary), memory(), wrong_arrays(), wrong_structure(), torch_files(), others()
    return {name: case for group in groups for name, case in group.items()}


def executing(canary):
    command, code = value(f"touch {canary}"), value(f"open({canary!r}, 'w').close()")
    system = name("os", "system")
    module = call(name("builtins", "__import__"), value("os"))
    numpys = "numpy.testing._private.utils"  # imports os and has a function that calls exec, in NumPy 1 and 2
    mapped = (value(argument) for argument in (canary, "uint8", "w+", 0, (1,)))
    memmap = name("numpy", "memmap") + b"(" + b"".join(mapped) + b"t"
    os_system = pickled(call(system, command))
    live = {
        "os.system": (os_system, "names os.system"),
        "posix.system": (pickled(call(name("posix", "system"), command)), "names posix.system"),
        "subprocess.call": (pickled(call(name("subprocess", "call"), value(["touch", canary]))), "names subprocess."),
        "eval": (pickled(call(name("builtins", "eval"), code)), "names builtins.eval"),
        "eval of Python 2": (pickled(call(name("__builtin__", "eval"), code), 2), "names __builtin__.eval"),
        "exec": (pickled(call(name("builtins", "exec"), code)), "names builtins.exec"),
        "open": (pickled(call(name("builtins", "open"), value(canary), value("w"))), "names builtins.open"),
        "nested reduce, getattr": (
            pickled(call(call(name("builtins", "getattr"), module, value("system")), command)),
            "names builtins.getattr",
        ),
        "nested reduce, partial": (
            pickled(call(call(name("functools", "partial"), system, command))),
            "names functools.partial",
        ),
        "nested reduce, map": (
            pickled(call(name("builtins", "list"), call(name("builtins", "map"), system, b"]" + command + b"a"))),
            "names builtins.list",
        ),
        "sideways through numpy": (pickled(call(dotted(numpys, "os.system"), command)), f"names {numpys}.os.system"),
        "sideways through random": (pickled(call(dotted("random", "_os.system"), command)), "names random._os.system"),
        "numpy's exec": (pickled(call(name(numpys, "runstring"), code, b"}")), f"names {numpys}.runstring"),
        "numpy.memmap": (pickled(memmap + b"R"), "names numpy.memmap"),
        "NEWOBJ": (pickled(memmap + b"\x81"), "names numpy.memmap"),
        "NEWOBJ_EX": (pickled(memmap + b"}\x92"), "names numpy.memmap"),
        "INST": (pickled(b"(" + command + b"ios\nsystem\n"), "instruction 0x69"),
        "OBJ": (pickled(b"(" + system + command + b"o"), "names os.system"),
        "protocol 0": (f"cos\nsystem\n(S'touch {canary}'\ntR.".encode(), "is a text file"),
        "__setstate__": (
            pickled(ORDERED + b"}" + value("__setstate__") + system + b"sb" + command + b"b"),
            "os.system",
        ),
        "after an array": (
            pickled(array() + b"s" + value("v") + call(system, command)),
            "names os.system",
        ),
        "before a wrong instruction": (os_system[:-1] + b"\xff.", "names os.system"),
        "in a data type": (pickled(array(kind=call(system, command))), "names os.system"),
        "in the ZIP format": (zipped(call(system, command)), "names os.system"),
        "in the legacy format": (legacy(call(system, command)), "names os.system"),
        "in the legacy format's system information": (legacy(value(1), info=call(system, command)), "names os.system"),
        "in the legacy format's keys": (
            legacy(value(1), storages=b"")[: -len(pickle.dumps(["0"], 2))] + os_system,
            "names os.system",
        ),
    }
    LIVE.update(live)
    hooks = name("torch._utils", "_rebuild_parameter"), tensor(), value(False), call(system, command)
    return live | {
        "in a tensor's hooks": (zipped(call(*hooks)), "names os.system"),
        "builtins in numpy": (
            pickled(call(dotted("numpy.core.multiarray", "__builtins__.eval"), code)),
            "names numpy.core.multiarray.__builtins__.eval",
        ),
        "sideways through collections": (
            pickled(call(dotted("collections", "_sys.modules.get"), value("os"))),
            "names collections._sys.modules.get",
        ),
        "an attribute of a known name": (
            pickled(call(dotted("collections", "OrderedDict.__init__.__globals__.get"), value("eval"))),
            "names collections.OrderedDict.__init__",
        ),
        "a known function of another module": (pickled(name("os", "OrderedDict")), "names os.OrderedDict"),
        "a name of several lines": (pickled(dotted("os", "system\nor\nthat")), "names os.system?or?that"),
        "extension": (pickled(b"\x82\x01"), "instruction 0x82"),
        "persistent name": (pickled(b"P" + canary.encode() + b"\n"), "instruction 0x50"),
        "out-of-band buffer": (pickled(b"\x97"), "instruction 0x97"),
        "state of a function": (pickled(name("collections", "OrderedDict") + value({"x": 1}) + b"b"), "sets the state"),
        "state of a dictionary": (pickled(b"}" + value({"update": 1}) + b"b"), "sets the state"),
        "slots of a dictionary": (pickled(ORDERED + value((None, {"update": 1})) + b"b"), "sets the state"),
        "call of a text": (pickled(call(value("os.system"), command)), "calls something that is not a function"),
        "call without a tuple": (pickled(name("collections", "OrderedDict") + b"]R"), "calls something"),
        "function left over": (pickled(name("collections", "OrderedDict")), "holds a bare"),
        "numpy.ndarray left over": (pickled(name("numpy", "ndarray")), "holds a bare"),
        "numpy.ndarray called": (pickled(call(name("numpy", "ndarray"), value((2**40,)))), "calls something"),
        "codec that is a module": (pickled(call(name("_codecs", "encode"), value("x"), value("zip"))), "encodes"),
    }


def memory():
    deep_tuple = b")" + b"\x85" * 100_000
    content = raw(bytes(8192)) + b"qc"
    text = call(name("_codecs", "encode"), value("\x80" * 2**20), value("latin1")) + b"qc"
    return {
        "memo bomb of lists": (
            pickled(doubled(b"]", lambda old, new: b"](h%ch%ceq%c" % (old, old, new))),
            "more small objects",
        ),
        "memo bomb of tuples": (
            pickled(doubled(b")", lambda old, new: b"h%ch%c\x86q%c" % (old, old, new))),
            "more small objects",
        ),
        "memo bomb of dictionaries": (
            pickled(doubled(b"}", lambda old, new: b"}(K\x01h%cK\x02h%cuq%c" % (old, old, new))),
            "more small objects",
        ),
        "memo bomb of one long text": (
            pickled(b"](" + value("x" * 100_000) + b"h\x00" * 10_000 + b"e"),
            "more small objects",
        ),
        "list in itself": (pickled(b"]q\x00h\x00a"), "nested more than 64"),
        "dictionary in itself": (pickled(b"}q\x00K\x01h\x00s"), "nested more than 64"),
        "deep lists": (pickled(b"]" * 100_000 + b"a" * 99_999), "nested more than 64"),
        "deep tuples": (pickled(deep_tuple), "nested more than 64"),
        "deep tuple as a key": (pickled(b"}" + deep_tuple + b"K\x01s"), "dictionary key"),
        "deep tuple as a name": (pickled(deep_tuple + value("x") + b"\x93"), "something that is not a text"),
        "deep tuple as a type": (pickled(array(kind=deep_tuple)), "without a data type"),
        "deep tuple as a storage": (
            zipped(b"(" + value("storage") + FLOAT + deep_tuple + b"K\x01K\x01tQ"),
            "without a name",
        ),
        "deep tuple as a shape": (pickled(array(deep_tuple)), "not sizes"),
        "flood of lists": (pickled(b"]" * 3_000_000), "more small objects"),
        "flood of marks": (pickled(b"(" * 3_000_000), "more small objects"),
        "flood of memo entries": (pickled(b"]" + b"\x94" * 3_000_000), "more small objects"),
        "flood of wide texts": (
            pickled(b"](" + (b"\x8c\xff" + "𝄞".encode() + b"x" * 251) * 60_000 + b"e"),
            "more small objects",
        ),
        "bytes of 2^60": (pickled(b"\x8e" + struct.pack("<Q", 2**60)), "1152921504606846976 bytes are claimed"),
        "bytearray of 2^60": (pickled(b"\x96" + struct.pack("<Q", 2**60)), "1152921504606846976 bytes are claimed"),
        "text of 2^60": (pickled(b"\x8d" + struct.pack("<Q", 2**60)), "1152921504606846976 bytes are claimed"),
        "frame of 2^60": (pickled(b"\x95" + struct.pack("<Q", 2**60) + value(1)), "bytes are claimed"),
        "bytes of 2^32": (pickled(b"B" + struct.pack("<I", 2**32 - 1)), "4294967295 bytes are claimed"),
        "string of Python 2 of negative length": (pickled(b"T" + struct.pack("<i", -5)), "-5 bytes are claimed"),
        "long integer of 2^31": (pickled(b"\x8b" + struct.pack("<i", 2**31 - 1)), "instruction 0x8b"),
        "bytes(2^40)": (pickled(call(name("builtins", "bytes"), value(2**40))), "makes bytes of something other"),
        "bytearray(2^40)": (pickled(call(name("builtins", "bytearray"), value(2**40))), "names builtins.bytearray"),
        "one text as many arrays": (
            pickled(b"](" + text + b"".join(array((n,), content=b"hc") for n in range(1, 1000)) + b"e"),
            "more small objects",
        ),
        "one buffer as many arrays": (
            pickled(b"](" + b"".join(array((n,), content=content if n == 1 else b"hc") for n in range(1, 2000)) + b"e"),
            "more array bytes",
        ),
    }


def wrong_arrays():
    shapes = {
        "shape of 2^60": ((2**60,), "more array bytes"),
        "shape of 2^93": ((2**31,) * 3, "more array bytes"),
        "shape beyond the bytes": ((3,), "reaches beyond its 8 bytes"),
        "negative shape": ((-1,), "not sizes"),
        "two negative sizes": ((-1, -2), "not sizes"),
        "fractional shape": ((1.5,), "not sizes"),
        "shape of truths": ((True, True), "not sizes"),
        "shape that is a number": (2, "not sizes"),
        "shape that is nothing": (None, "not sizes"),
        "empty, but of 2^62 columns": ((0, 2**62, 2**62), "damaged"),
        "shape of 33 dimensions": ((1,) * 33, "not sizes"),
    }
    kinds = (
        "O",
        "O8",
        "V1000000000",
        "U10",
        "S10",
        "a1000000000",
        "M8[s]",
        "c16",
        "f16",
        "f4,f4",
        "(1000000,)f4",
        "<f4",
    )
    record = (3, "|", None, ("a",), {"a": ("f4", 0)}, 4, 1, 0)
    subarray = (3, "|", ("f4", (2**30,)), None, None, 4, 1, 0)
    objects = array(kind=dtype("O8", (3, "|", None, None, None, -1, -1, 63)), content=value([1, 2]))
    return (
        {case: (pickled(array(shape)), said) for case, (shape, said) in shapes.items()}
        | {f"type {kind}": (pickled(array(kind=dtype(kind))), "holds an array of the type") for kind in kinds}
        | {
            "array of objects": (pickled(objects), "holds an array of the type O8"),
            "array of records": (pickled(array(kind=dtype("f4", record))), "records"),
            "array of subarrays": (pickled(array(kind=dtype("f4", subarray))), "records"),
            "type that is no text": (pickled(array(kind=dtype([("a", "f4")]))), "holds an array of the type no name"),
            "byte order": (
                pickled(array(kind=dtype("f4", (3, "(9,)f", None, None, None, -1, -1, 0)))),
                "without a data",
            ),
            "state of a type": (pickled(array(kind=dtype("f4", (3, "<")))), "sets the state"),
            "array without a type": (pickled(array(kind=value("f4"))), "without a data type"),
            "array without content": (pickled(blank()), "without a data type"),
            "array of a number": (pickled(array(content=value(7))), "without its bytes"),
            "array of its own": (pickled(array(content=b"hc").replace(b"R(", b"Rqc(", 1)), "without its bytes"),
            "scalar without bytes": (
                pickled(call(name("numpy.core.multiarray", "scalar"), dtype("f8"), raw(b""))),
                "beyond",
            ),
            "scalar of objects": (
                pickled(call(name("numpy._core.multiarray", "scalar"), dtype("O8"), raw(b""))),
                "type O8",
            ),
            "buffer of 2^60": (
                pickled(
                    call(
                        name("numpy._core.numeric", "_frombuffer"),
                        raw(b"1234"),
                        dtype("f4"),
                        value((2**60,)),
                        value("C"),
                    )
                ),
                "more array bytes",
            ),
        }
    )


def wrong_structure():
    keys = {"large": 2**40, "fractional": 0.5, "of bytes": b"w", "None": None, "tuple": ("a",), "long": "w" * 300}
    unpack = {"a": array(), "UnpackBigParamInfor@@": value({"w": {"slices": ["a", "a"], "OriginShape": (4,)}})}
    sliced = b"\x80\x04}(" + b"".join(value(key) + item for key, item in unpack.items()) + b"u."
    return {f"key, {case}": (pickled(value({key: 1})), "dictionary key") for case, key in keys.items()} | {
        "no dictionary": (pickle.dumps([1, 2]), "holds one list"),
        "one array": (b"\x80\x04" + array() + b".", "holds one ndarray"),
        "set": (pickle.dumps({"w": {1, 2}}, 4), "instruction 0x8f"),
        "complex number": (pickle.dumps({"w": 1j}), "names builtins.complex"),
        "something after its end": (pickled(value(1)) + b"more", "goes on for 4 bytes"),
        "two pickles": (pickled(value(1)) * 2, "after its end"),
        "nothing but a stop": (b"\x80\x04.", "damaged (IndexError"),
        "memo entry that is not": (pickled(b"h\x07"), "damaged (KeyError"),
        "end of nothing": (pickled(b"e"), "damaged (IndexError"),
        "append to a number": (pickled(b"K\x01K\x02a"), "not a list"),
        "items of a list": (pickled(b"]K\x01K\x02s"), "not a dictionary"),
        "text that is not UTF-8": (pickled(b"\x8c\x02\xff\xff"), "damaged (UnicodeDecodeError"),
        "name without an end": (pickled(b"c" + b"x" * 600), "by something that is not a text"),
        "tensor of nowhere": (pickled(tensor()), "without its bytes"),
        "slice used twice": (sliced, "damaged (KeyError"),
    }


def torch_files():
    many = b"](" + b"".join(tensor((4, n), (1, 0)) for n in range(1, 200)) + b"e"
    good, lying, offset = zipped(tensor()), bytearray(zipped(tensor())), zipped(tensor()).index(b"PK\x01\x02")
    struct.pack_into("<II", lying, offset + 20, 2**31, 2**31)  # the sizes in the directory's first entry
    flipped = bytearray(good)
    flipped[good.index(bytes(16))] = 1
    bomb = {"archive/data/0": bytes(64 * 2**20)}
    overlap = b"](" + b"".join(storage(str(number), 2**14) for number in range(50)) + b"e"
    quantized = call(name("torch._utils", "_rebuild_qtensor"), storage())
    conjugate = tensor()[:-2] + value({"conj": True}) + b"tR"
    return {
        "strides beyond the storage": (zipped(tensor((2,), (4,))), "beyond its 16 bytes"),
        "size beyond the storage": (zipped(tensor((5,))), "beyond its 16 bytes"),
        "offset beyond the storage": (zipped(tensor((4,), (1,), 1)), "beyond its 16 bytes"),
        "negative offset": (zipped(tensor((4,), (1,), -1)), "not sizes"),
        "negative stride": (zipped(tensor((4,), (-1,), 3)), "not sizes"),
        "tensor of negative shape": (zipped(tensor((-4,))), "not sizes"),
        "strides of another length": (zipped(tensor((4,), (1, 1))), "of different lengths"),
        "expanded to 2^40": (zipped(tensor((2**40,), (0,))), "more array bytes"),
        "expanded many times": (zipped(many), "more array bytes"),
        "storage of 2^60": (zipped(tensor(of=storage("0", 2**60))), "more storage bytes"),
        "storage of negative size": (zipped(tensor(of=storage("0", -4))), "without a name"),
        "storage of two sizes": (zipped(b"](" + tensor() + tensor(of=storage("0", 5)) + b"e"), "two types or sizes"),
        "storage that is missing": (zipped(tensor(of=storage("1"))), "lacks the storage 1"),
        "storage elsewhere": (zipped(tensor(of=storage("../../etc/passwd"))), "lacks the storage"),
        "storage of no kind": (zipped(b"(" + value("module") + FLOAT + b"K\x01K\x01K\x01tQ"), "not a tensor storage"),
        "reference to a number": (zipped(b"K\x01Q"), "damaged (TypeError"),
        "storage left over": (zipped(storage()), "holds a bare"),
        "tensor of a text": (zipped(tensor(of=value("0"))), "a tensor of a kind"),
        "conjugate tensor": (zipped(conjugate), "a tensor of a kind"),
        "quantized tensor": (zipped(quantized), "names torch._utils._rebuild_qtensor"),
        "TorchScript": (zipped(name("__torch__.models", "G")), "names __torch__.models.G"),
        "big-endian": (zipped(tensor(), {"archive/byteorder": b"big"}), "big-endian"),
        "path traversal": (zipped(tensor(), {"archive/../../evil": b"x"}), "archive/../../evil, outside its folder"),
        "absolute path": (zipped(tensor(), {"/etc/evil": b"x"}), "/etc/evil, outside"),
        "path of Windows": (zipped(tensor(), {"archive\\..\\evil": b"x"}), "outside its folder"),
        "zip bomb": (zipped(tensor(), bomb, zipfile.ZIP_DEFLATED), "compressed or encrypted"),
        "overlapping storages": (
            zipped(overlap, {"archive/data/0": bytes(2**16)}, twins=50),
            "more storage bytes",
        ),
        "compressed pickle": (zipped(tensor(), None, zipfile.ZIP_BZIP2), "compressed or encrypted"),
        "sizes of 2^31 in the directory": (bytes(lying), "data.pkl is damaged"),
        "flipped byte": (bytes(flipped), "archive/data/0 is damaged"),
        "directory of many": (zipped(tensor(), {"archive/x": b"PK\x01\x02" * 70_000}), "more than 65536 files"),
        "no data.pkl": (zipped(tensor(), {"archive/data.pkl": None}), "with no data.pkl"),
        "two data.pkl": (zipped(tensor(), {"other/data.pkl": b"x"}), "with 2 data.pkl"),
        "ZIP header alone": (good[:64], "damaged (BadZipFile"),
        "legacy storage of 2^60": (
            legacy(tensor(of=storage("0", 2**60, b"N")), storages=struct.pack("<q", 2**60)),
            "4611686018427387904 bytes are claimed",
        ),
        "legacy storage of two sizes": (legacy(tensor(of=storage("0", 5, b"N"))), "two sizes"),
        "legacy storage without a key": (legacy(tensor(of=storage("0", 4, b"N")), (), b""), "without its bytes"),
        "legacy key without a storage": (legacy(tensor(of=storage("0", 4, b"N")), ("9",)), "damaged (KeyError"),
        "legacy view of a storage": (legacy(tensor(of=storage("0", 4, value(("0", 0, 2**60))))), "a tensor storage"),
        "legacy file cut short": (legacy(tensor(of=storage("0", 4, b"N")), storages=b""), "bytes are claimed"),
    }


def others():
    weights = {"w": entry()}
    return {
        "safetensors header of 2^60": (
            safetensors_file(weights, bytes(4), 2**60),
            "a header of 1152921504606846976 bytes",
        ),
        "safetensors header of 5 MB": (safetensors_file(b"{" + b" " * 5 * 2**20), "claims a header of 5242881 bytes"),
        "safetensors header that is no JSON": (safetensors_file(b"{not JSON"), "damaged (SafetensorError"),
        "safetensors deep header": (safetensors_file(b'{"a":' * 100_000), "damaged (SafetensorError"),
        "safetensors offsets beyond": (
            safetensors_file({"w": entry(offsets=(0, 2**60))}, bytes(4)),
            "damaged (Safetensor",
        ),
        "safetensors offsets that are negative": (
            safetensors_file({"w": entry(offsets=(-4, 0))}, bytes(4)),
            "damaged (Safe",
        ),
        "safetensors shape of 2^120": (
            safetensors_file({"w": entry(shape=(2**60, 2**60))}, bytes(4)),
            "damaged (Safetensor",
        ),
        "safetensors negative shape": (
            safetensors_file({"w": entry(shape=(-1,))}, bytes(4)),
            "damaged (SafetensorError",
        ),
        "safetensors overlap": (safetensors_file(weights | {"v": entry()}, bytes(4)), "damaged (SafetensorError"),
        "safetensors unknown type": (safetensors_file({"w": entry("F1")}, bytes(4)), "damaged (SafetensorError"),
        "safetensors complex type": (safetensors_file({"w": entry("C64", (1,), (0, 8))}, bytes(8)), "type C64"),
        "safetensors cut short": (safetensors_file(weights, bytes(3)), "damaged (SafetensorError"),
        "safetensors with more": (safetensors_file(weights, bytes(5)), "damaged (SafetensorError"),
        "empty file": (b"", "is empty"),
        "one byte": (b"\x80", "is cut short"),
        "text": (b"Hello, these are no weights.\n", "is a text file"),
        "web page": (b"\n<!DOCTYPE html><html>404</html>", "is an HTML or XML page"),
        "image": (b"\x89PNG\r\n\x1a\n" + bytes(100), "is a PNG image"),
        "zeros": (bytes(1000), "unknown format (it begins with 00 00"),
        "archive of another kind": (
            zipped(value(1), {"archive/data.pkl": None, "word/document.xml": b"<"}),
            "no data.pkl",
        ),
    }


def checkpoints(parameters):
    """A generator's checkpoint as `convert.py` writes it, with one or two wrong entries."""
    network = models_of(parameters).build_generator(parameters)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    right = {"format": checkpoint.FORMAT, "step": 1, "parameters": dataclasses.asdict(parameters)}
    first, array = next(iter(weights.items()))
    changes = {
        "checkpoint with a number as a weight": ({first: 0.5}, f"'{first}' as a float"),
        "checkpoint with a list as a weight": ({first: [0.5]}, f"'{first}' as a list"),
        "checkpoint with a number as a name": ({7: array}, "7 as a ndarray"),
        "checkpoint with a number and a text more": ({7: array, "more": array}, "7 as a ndarray"),
    }
    return {case: (pickle.dumps(right | {"G": weights | change}, 2), said) for case, (change, said) in changes.items()}
