"""Weights of Paddle, PyTorch and safetensors are read without running code; hostile files are refused."""

import contextlib
import gc
import json
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hostile_files import LIVE, checkpoints, corpus, entry, pickled, safetensors_file

import runtime  # noqa: F401  (before paddle)
from formats.pickle_machine import Machine
from formats.safe_pickle import load_pickle, load_state
from utils import UserError

ROOT = Path(__file__).parents[2]
FIXTURES = Path(__file__).parents[1] / "fixtures"
CASES = list(corpus("canary"))
MB = 2**20


def assert_same(found, expected):
    """Check that structure, types, shapes, data types and all values are equal."""
    assert type(found) is (dict if isinstance(expected, dict) else type(expected))
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        assert found.flags.c_contiguous
        assert found.flags.writeable
        np.testing.assert_array_equal(found, expected, strict=True)
    else:
        assert found == expected


def refusal(path):
    with pytest.raises(UserError) as caught:
        load_state(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 300
    return sentence


# Files of every format, as the framework writes them


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_paddle_state_dict(tmp_path, protocol):
    import paddle

    network = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4), paddle.nn.Linear(5, 70))
    paddle.save(network.state_dict(), str(tmp_path / "G_499.pdparams"), protocol=protocol)
    expected = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    assert_same(load_state(tmp_path / "G_499.pdparams"), expected)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_paddle_nested_state_dicts(tmp_path, protocol):
    import paddle

    network = paddle.nn.utils.spectral_norm(paddle.nn.Linear(4, 3))
    schedule = paddle.optimizer.lr.StepDecay(0.1, 10)
    optimizer = paddle.optimizer.Adam(schedule, parameters=network.parameters())
    network(paddle.ones([2, 4])).sum().backward()
    optimizer.step()
    states = {"step": 7, "G_state_dict": network.state_dict(), "G_optimizer_state_dict": optimizer.state_dict()}
    paddle.save(states, str(tmp_path / "whole.pdparams"), protocol=protocol)
    paddle.save(optimizer.state_dict(), str(tmp_path / "adam.pdopt"), protocol=protocol)

    def arrays(state):
        return {name: item.numpy() if paddle.is_tensor(item) else item for name, item in state.items()}

    expected = {name: arrays(state) if name != "step" else state for name, state in states.items()}
    assert expected["G_optimizer_state_dict"]["LR_Scheduler"]["last_lr"] == 0.1
    assert_same(load_state(tmp_path / "whole.pdparams"), expected)
    assert_same(load_state(tmp_path / "adam.pdopt"), expected["G_optimizer_state_dict"])


def test_paddle_half_precision_is_widened(tmp_path):
    import paddle

    exact = np.array([[1.5, -2.0, 0.15625], [-0.0, np.inf, 3.0]], np.float32)
    kinds = {kind: paddle.to_tensor(exact).astype(kind) for kind in ("float16", "bfloat16", "float32")}
    for name, content in {"flat": kinds, "nested": {"step": 1, "state": kinds}}.items():
        paddle.save(content, str(tmp_path / name))
    for state in (load_state(tmp_path / "flat"), load_state(tmp_path / "nested")["state"]):
        assert_same(state, {"float16": exact, "bfloat16": exact, "float32": exact})


def test_paddle_parameters_in_slices(tmp_path):
    """The layout in which `paddle.save` writes parameters above 1 GB in protocols 2 and 3. Paddle reads it too."""
    import paddle

    whole = np.arange(24, dtype=np.float32)
    slices = {f"w@@.{number}": whole[8 * number : 8 * number + 8] for number in range(3)}
    information = {"w": {"OriginShape": (4, 6), "slices": list(slices)}}
    names = {"b": "linear_0.b_0"}
    state = {"b": whole[:2], "StructuredToParameterName@@": names} | slices | {"UnpackBigParamInfor@@": information}
    (tmp_path / "big.pdparams").write_bytes(pickle.dumps(state, 2))
    found = load_state(tmp_path / "big.pdparams")
    assert_same(found, {"b": whole[:2], "w": whole.reshape(4, 6)})
    assert_same(found, paddle.load(str(tmp_path / "big.pdparams"), return_numpy=True))


@pytest.mark.parametrize("file", ["torch_zip.pth", "torch_legacy.pth"])
def test_torch_files(file):
    """Written by PyTorch 2.13 in the format since 1.6 and the one before; see fixtures/make_torch_files.py."""

    def drawn(*shape, dtype=np.float32):
        return ((np.arange(np.prod(shape, dtype=int)) * 37 % 101 - 50) / 8).astype(dtype).reshape(shape)

    affine = {"1.weight": drawn(4), "1.bias": drawn(4)}
    network = {"0.bias": drawn(4), "0.weight_orig": drawn(4, 3, 3, 3), "0.weight_u": drawn(4), "0.weight_v": drawn(27)}
    statistics = {"1.running_mean": drawn(4), "1.running_var": drawn(4)}
    network |= affine | statistics | {"1.num_batches_tracked": drawn(dtype=np.int64)}
    whole, floats, integers = drawn(6, 8), drawn(2, 3), ("int64", "int32", "int16", "int8")
    kinds = {"float16": floats, "bfloat16": floats, "float64": drawn(2, 3, dtype=np.float64)}
    kinds |= {kind: drawn(2, 3, dtype=kind) for kind in integers}
    kinds |= {"uint8": abs(floats).astype(np.uint8), "bool": floats > 0}
    state = load_state(FIXTURES / file)
    optimizer = state.pop("G_optimizer_state_dict")
    adam = {"step": np.array(1, np.float32), "exp_avg": drawn(4) * 0, "exp_avg_sq": drawn(4) * 0}
    assert_same(optimizer["state"], {0: adam, 1: adam})
    assert optimizer["param_groups"][0]["betas"] == (0.0, 0.9)
    expected = {
        "step": 7,
        "G_state_dict": network,
        "kinds": kinds,
        "views": [whole, whole.T.copy(), whole[1:4, ::2].copy(), np.array(whole[5, 7]), whole],
        "parameter": drawn(3),
        "old": drawn(2, 2),
        "empty": drawn(0, 3),
        "plain": {"name": "a é 中", "rate": 0.25, "big": 2**40, "flags": (True, None)},
    }
    assert_same(state, expected)


def test_safetensors(tmp_path):
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3), "b": np.array([True, False])}
    safetensors.numpy.save_file(arrays | {"h": np.array([0.5, -1], np.float16)}, tmp_path / "weights")
    found = load_state(tmp_path / "weights")
    assert_same(dict(sorted(found.items())), dict(sorted((arrays | {"h": np.array([0.5, -1], np.float32)}).items())))
    half = {"w": entry("BF16", (1, 2)), "__metadata__": {"by": "hand: NumPy has no bfloat16"}}
    (tmp_path / "half").write_bytes(safetensors_file(half, struct.pack("<HH", 0x3FC0, 0xC000)))
    assert_same(load_state(tmp_path / "half"), {"w": np.array([[1.5, -2.0]], np.float32)})


# Plain pickles


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_plain_values_and_arrays(protocol):
    rng = np.random.default_rng(5)
    kinds = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float64")
    content = {kind: (rng.normal(size=(3, 40)) * 100).astype(kind) for kind in kinds}
    content |= {
        "fortran": np.asfortranarray(rng.normal(size=(2, 3, 4))),
        "one": np.array(2.5),
        "none": np.zeros((0, 2)),
    }
    content |= {"scalars": [np.float32(0.1), np.int64(-5), np.bool_(True)]}
    content |= {
        "plain": OrderedDict(a=[1, -1, 300, 70000, -(2**40), 1.5], b=(None, True, ("é" * 5000, b"", b"\xff" * 999)))
    }
    content |= {3: {}, -70000: "", "same": [content["int8"]] * 2}
    expected = content | {"scalars": [float(np.float32(0.1)), -5, True]}
    assert_same(load_pickle(pickle.dumps(content, protocol), 10**5), expected)


def test_pickled_arrays_of_the_other_byte_order_come_native():
    found = load_pickle(pickle.dumps(np.arange(5, dtype=">f8"), 4), 40)
    assert found.dtype.isnative
    assert_same(found, np.arange(5, dtype="f8"))


def test_cifar_10_batch_of_python_2():
    """The layout of data_batch_1 with one image of 300 bytes: cPickle's protocol 2, strings as bytes."""
    data = bytes(range(256)) + bytes(44)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x06cnumpy\nndarray\nq\x07K\x00\x85q\x08U\x01bq\t\x87q\nRq\x0b(K\x01"
    )
    kind = (
        b"cnumpy\ndtype\nq\rU\x02u1q\x0eK\x00K\x01\x87q\x0fRq\x10(K\x03U\x01|q\x11NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
    )
    array += b"K\x01M,\x01\x86q\x0c" + kind + b"K\x00tq\x12b\x89T,\x01\x00\x00" + data + b"q\x13tq\x14b"
    batch = b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]q\x05K\x06aU\x04data"
    batch += array + b"U\tfilenamesq\x15]q\x16U\x05a.pngau."
    expected = {
        "batch_label": "training batch 1 of 5",
        "labels": [6],
        "data": np.frombuffer(data, np.uint8)[None].copy(),
    }
    expected |= {"filenames": ["a.png"]}
    assert_same(pickle.loads(batch, encoding="latin1"), expected)
    assert_same(load_pickle(batch, 300), expected)


def test_arrays_take_no_more_than_the_limit():
    data = pickle.dumps([np.zeros(100, np.float32), np.ones(100, np.float32)], 4)
    assert len(load_pickle(data, 800)) == 2
    with pytest.raises(UserError, match=r"^the pickle describes more array bytes than it holds$"):
        load_pickle(data, 799)


def test_a_memo_number_of_four_billion_is_read(tmp_path):
    (tmp_path / "x").write_bytes(pickled(b"]r\xff\xff\xff\xff"))
    assert load_state(tmp_path / "x") == {"w": []}


@pytest.mark.parametrize("protocol", [2, 4])
def test_reading_takes_the_memory_of_the_file_and_the_arrays(tmp_path, protocol):
    state = {str(index): np.random.default_rng(index).bytes(MB) for index in range(24)}
    state = {name: np.frombuffer(content, np.uint8) for name, content in state.items()}
    (tmp_path / "x").write_bytes(pickle.dumps(state, protocol))
    tracemalloc.start()
    found = load_state(tmp_path / "x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (tmp_path / "x").stat().st_size + 24 * MB + 4 * MB
    assert_same(found, {name: array.copy() for name, array in state.items()})


# Files that are refused


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """(folder, {name of a hostile file: (path, text of its refusal)})."""
    folder = tmp_path_factory.mktemp("hostile")
    files = {}
    for number, (name, (content, said)) in enumerate(corpus(str(folder / "canary")).items()):
        files[name] = folder / f"{number}.pth", said
        files[name][0].write_bytes(content)
    return folder, files


@pytest.fixture(scope="module")
def truncated(tmp_path_factory):
    """Paths of files of every format, cut at every 1,000th byte."""
    import paddle

    folder = tmp_path_factory.mktemp("truncated")
    weights = {f"w{index}": paddle.rand([60, 60]) for index in range(3)}
    for protocol in (2, 4):
        paddle.save(weights, str(folder / f"paddle_{protocol}"), protocol=protocol)
        paddle.save({"step": 1, "G": weights}, str(folder / f"nested_{protocol}"), protocol=protocol)
    safetensors.numpy.save_file({name: tensor.numpy() for name, tensor in weights.items()}, folder / "safetensors")
    paths = []
    for file in [*folder.iterdir(), FIXTURES / "torch_zip.pth", FIXTURES / "torch_legacy.pth"]:
        assert load_state(file)
        content = file.read_bytes()
        for length in range(0, len(content), 1000):
            paths.append(folder / f"{file.name}-{length}")
            paths[-1].write_bytes(content[:length])
    return paths


@pytest.mark.parametrize("name", CASES)
def test_hostile_file_is_refused(hostile, name):
    folder, files = hostile
    path, said = files[name]
    sentence = refusal(path)
    assert said in sentence
    assert str(path) in sentence
    assert not (folder / "canary").exists()


def test_truncated_file_is_refused(truncated):
    assert len(truncated) > 200
    for path in truncated:
        assert "cut short" in (sentence := refusal(path)) or "damaged" in sentence or "empty" in sentence


UNSAFE = """
import io, os, pickle, sys, zipfile
canary, *paths = sys.argv[1:]
for path in paths:
    content = open(path, "rb").read()
    stream = io.BytesIO(zipfile.ZipFile(path).read("archive/data.pkl") if content.startswith(b"PK") else content)
    try:
        while True:
            pickle.load(stream)
    except Exception:
        pass
    if os.path.exists(canary):
        os.remove(canary)
        print(path)
"""


def test_pickle_itself_runs_the_payloads(hostile):
    folder, files = hostile
    paths = [str(path) for name, (path, _) in files.items() if name in LIVE]
    command = [sys.executable, "-W", "ignore", "-c", UNSAFE, str(folder / "canary"), *paths]
    executed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout.split()
    assert executed == paths
    assert len(executed) == 27


# Python looks for cycles at a different moment in each process. Here it does not look at all, because the memory of a
# refused file has to be free before the next file is read.
SAFE = """
import gc, json, resource, sys
from checkpoint import load
from utils import UserError
gc.disable()
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 128 * 2**20,) * 2)
refused = []
for path in json.load(sys.stdin):
    try:
        load(path)
    except UserError as error:
        refused.append(str(error))
print(json.dumps(refused))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits its address space by what /proc says")
def test_all_hostile_files_are_refused_in_128_mb(hostile, truncated, make_parameters, tmp_path, capsys):
    """In a process that may take 128 MB more than after its imports. Prints the files tried, refused and executed."""
    folder, files = hostile
    tried = [str(path) for path, _ in files.values()] + [str(path) for path in truncated]
    for number, (content, _) in enumerate(checkpoints(make_parameters()).values()):
        tried.append(str(tmp_path / f"{number}.pdparams"))
        Path(tried[-1]).write_bytes(content)
    command = [sys.executable, "-c", SAFE]
    done = subprocess.run(command, input=json.dumps(tried), capture_output=True, text=True, check=True, cwd=ROOT)
    refused, executed = json.loads(done.stdout), int((folder / "canary").exists())
    with capsys.disabled():
        print(f"\nhostile files: tried {len(tried)}, refused {len(refused)}, executed {executed}")
    assert len(refused) == len(tried) > 400
    assert not executed
    assert not [sentence for sentence in refused if "MemoryError" in sentence]


@pytest.mark.parametrize("name", ["flood of wide texts", "memo bomb of lists"])
def test_a_refused_file_leaves_nothing_in_memory(hostile, name):
    path, _ = hostile[1][name]
    gc.collect()
    gc.disable()
    try:
        for read in (load_state, lambda path: load_pickle(path.read_bytes(), limit=MB)):
            with contextlib.suppress(UserError):
                read(path)
            assert not [item for item in gc.get_objects() if isinstance(item, Machine)]
    finally:
        gc.enable()


def test_missing_and_special_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "none") == f"{tmp_path}/none cannot be read: No such file or directory"
    assert refusal(tmp_path).startswith(f"{tmp_path} is a folder; known are")
    assert "pipe is not a regular file" in refusal(tmp_path / "pipe")
    assert "/dev/zero is not a regular file" in refusal("/dev/zero")
    assert "name?\u2028" not in refusal(tmp_path / "name\n\u2028")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"# Weights\n\tof a GAN\r\n", "a text file"),
        (("条件生成对抗网络" * 8).encode(), "a text file"),  # the first 64 bytes end within a character
        ("模型".encode("utf-8-sig"), "a text file"),
        ("条件生成对抗网络".encode("gbk"), "of an unknown format (it begins with cc f5 bc fe c9 fa b3 c9)"),
        (b"text\x00\x01", "of an unknown format (it begins with 74 65 78 74 00 01)"),
    ],
)
def test_text_is_called_text(tmp_path, content, kind):
    (tmp_path / "x").write_bytes(content)
    assert refusal(tmp_path / "x").startswith(f"{tmp_path}/x is {kind}; known are")


def test_file_without_permission_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(pickle.dumps({}))
    (tmp_path / "secret").chmod(0)
    user = os.geteuid()
    try:
        if user == 0:  # root ignores permissions
            os.seteuid(65534)
        assert refusal(tmp_path / "secret").endswith("secret cannot be read: Permission denied")
    finally:
        os.seteuid(user)
