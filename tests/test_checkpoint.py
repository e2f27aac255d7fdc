"""Our own checkpoints: written files are read back; damaged and foreign files are refused in one sentence."""

import contextlib
import dataclasses
import errno
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from commands import LIMIT, obey_file_permissions, start
from hostile_files import checkpoints
from safetensors.numpy import save_file

import checkpoint
from dataset import batches, load_dataset
from networks import models_of
from parameters import Parameters
from trainer import Trainer
from utils import UserError, atomic_path, remove_leftovers

ROOT = Path(checkpoint.__file__).parent


@pytest.fixture
def trained(make_parameters):
    p = make_parameters("acgan-digits", dataset="digits", num_classes=10)
    return p, Trainer(p).state()


@pytest.fixture
def saved(trained, tmp_path):
    p, parts = trained
    path = tmp_path / "step-00000007.safetensors"
    checkpoint.save(path, 7, dataclasses.asdict(p), parts)
    return path


def test_a_saved_checkpoint_is_read_back(saved, trained):
    p, parts = trained
    loaded = checkpoint.load(saved)
    assert loaded.step == 7 and Parameters(**loaded.parameters) == p
    assert {part for part, arrays in parts.items() if arrays} == loaded.parts.keys()
    for part, arrays in loaded.parts.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, parts[part][name])
            assert array.dtype == parts[part][name].dtype


def test_a_checkpoint_that_could_not_be_read_back_is_not_written(trained, tmp_path):
    p, parts = trained
    with pytest.raises(UserError, match=r"its header has \d+ bytes, more than 1048576; give"):
        checkpoint.save(tmp_path / "a.safetensors", 7, dataclasses.asdict(p), parts, {"data": "x" * 2**20})
    assert not os.listdir(tmp_path)


def test_class_names_are_kept(make_parameters, tmp_path):
    """As many names as allowed, as long as a file system allows, in any script, and names that are not UTF-8."""
    few = ("cat", "猫" * 85, "T-shirt/top", *map(str, range(6)), os.fsdecode(b"\xc4\xe3"))
    for names in (few, tuple(f"{label:0255d}" for label in range(65_536))):
        p = make_parameters("sagan", num_classes=len(names), imsize=32, attention_size=16, g_conv_dim=1)
        generator = models_of(p).make_generator(p)
        state = {name: tensor.numpy() for name, tensor in generator.state_dict().items()}
        path = tmp_path / f"{len(names)}.safetensors"
        checkpoint.save(path, 7, dataclasses.asdict(p), {"G": state}, class_names=names)
        assert checkpoint.load(path).class_names == names
        assert checkpoint.load(path, wanted=("G",)).parts.keys() == {"G"}


NAMES = [str(label) for label in range(10)]


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros(3, "float32"), "float32 [3]"),
        (np.zeros((2, 2), "uint8"), "uint8 [2, 2]"),
        (np.array(7, "uint8"), "uint8 []"),
        (np.zeros(0, "uint8"), "1 class names do not fit 10"),
        (np.frombuffer("\0".join(NAMES[:9]).encode(), "uint8"), "9 class names do not fit 10"),
        (np.frombuffer("\0".join(NAMES * 2).encode(), "uint8"), "20 class names do not fit 10"),
        (np.frombuffer("\0".join(["0"] * 10).encode(), "uint8"), "10 class names do not fit 10"),
        (np.zeros(10**7, "uint8"), "class names do not fit 10"),
    ],
)
def test_invalid_class_names_are_refused(trained, tmp_path, array, says):
    p, parts = trained
    path = tmp_path / "hostile.safetensors"
    checkpoint.save(path, 7, dataclasses.asdict(p), parts | {"classes": {"names": array}})
    with pytest.raises(UserError, match=f"^{path} .*{re.escape(says)}"):
        checkpoint.load(path)


@pytest.mark.parametrize("names", [3, NAMES[:9], [*NAMES[:9], 9], [*NAMES[:9], "\ud800"], ["0"] * 10])
def test_invalid_class_names_in_a_pickle_are_refused(trained, tmp_path, names):
    p, parts = trained
    path = tmp_path / "hostile.pdparams"
    content = {"format": checkpoint.FORMAT, "step": 7, "parameters": dataclasses.asdict(p), "G": parts["G"]}
    paddle.save(content | {"class_names": NAMES}, str(path))
    assert checkpoint.load(path).class_names == tuple(NAMES)
    paddle.save(content | {"class_names": names}, str(path))
    with pytest.raises(UserError, match="hostile"):
        checkpoint.load(path)


def test_differences_of_classes_are_described_in_one_line():
    differ = checkpoint.compare_classes
    assert differ(["a", "b"], ("a", "b")) == ""
    assert differ(["a", "b", "c"], ["a", "c"]) == "gone: b"
    assert differ(["a", "c"], ["a", "b", "c"]) == "new: b"
    assert differ(["a", "b"], ["a", "c"]) == "gone: b; new: c"
    assert differ(["a", "b", "c"], ["a", "c", "b"]) == "the same in another order: 1 is c, was b"
    assert differ("abcdefg", ["x\ny", "z" * 200]) == f"gone: a, b, c, d, e and 2 more; new: x?y, {'z' * 80}…"


def test_only_the_wanted_parts_are_read(saved):
    assert checkpoint.load(saved, wanted=("G",)).parts.keys() == {"G"}


def changed(parts, name, array):
    return parts | {"G": parts["G"] | {name: array}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p, parts: (p, changed(parts, "linear.bias", np.full(32, np.nan, "float32"))), "not finite"),
        (lambda p, parts: (p, changed(parts, "linear.bias", np.full(32, np.inf, "float32"))), "not finite"),
        (lambda p, parts: (p, changed(parts, "linear.bias", np.zeros(32, "int64"))), "not finite numbers"),
        (
            lambda p, parts: (p, changed(parts, "linear.bias", np.zeros(33, "float32"))),
            "as [33], but this network has [32]",
        ),
        (lambda p, parts: (p, changed(parts, "more", np.zeros(1, "float32"))), "holds more, which"),
        (lambda p, parts: (p, parts | {"G": {"linear.bias": parts["G"]["linear.bias"]}}), "lacks"),
        (lambda p, parts: (p | {"g_conv_dim": 4096}, parts), "this network has"),
        (lambda p, parts: (p | {"model": "sagan", "imsize": 256, "d_conv_dim": 4096}, parts), "of this network"),
        (lambda p, parts: (p | {"g_conv_dim": 10**12}, parts), "g_conv_dim"),
        (lambda p, parts: (p | {"g_conv_dim": "__import__('os')"}, parts), "g_conv_dim"),
        (lambda p, parts: (p | {"imsize": 17}, parts), "--imsize 17"),
        (lambda p, parts: (p | {"num_classes": -1}, parts), "num_classes"),
        (lambda p, parts: (p | {"unknown": 1}, parts), "unknown"),
        (lambda p, parts: (p | {"recipe": "../../etc"}, parts), "hostile.safetensors: the recipe's name '../../etc'"),
        (lambda p, parts: (p | {"recipe": "a\nb"}, parts), "the recipe's name 'a\\nb' is not a plain name"),
        (lambda p, parts: ({}, parts), "number of classes"),
        (lambda p, parts: (p | {"num_classes": None}, parts), "number of classes"),
        (lambda p, parts: (p, {}), "it has no weights"),
        (lambda p, parts: ([[]] * 400_000, parts), "header is too long"),
        (lambda p, parts: (p, {"G": {f"{k}": np.zeros(0, "float32") for k in range(20_000)}}), "header is too long"),
    ],
)
def test_a_checkpoint_with_false_content_is_refused(trained, tmp_path, monkeypatch, change, says):
    p, parts = change(dataclasses.asdict(trained[0]), trained[1])
    path = tmp_path / "hostile.safetensors"
    with monkeypatch.context() as changed:
        changed.setattr(checkpoint, "HEADER_LIMIT", 2**30)
        checkpoint.save(path, 7, p, parts)
    with pytest.raises(UserError) as caught:
        checkpoint.load(path)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_checkpoint_whose_entries_are_not_named_arrays_is_refused(make_parameters, tmp_path):
    path = tmp_path / "hostile.pdparams"
    for content, says in checkpoints(make_parameters()).values():
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"^{path} cannot be read as a checkpoint: G holds {says}, not arrays by"):
            checkpoint.load(path)


CLAIMS = [{"g_conv_dim": 4096}, {"z_dim": 4096, "d_conv_dim": 4096}, {"model": "sagan", "imsize": 128}]


def test_a_claimed_size_takes_no_memory(trained, tmp_path):
    """In a process that may take 300 MB more than after its imports."""
    for index, claim in enumerate(CLAIMS):
        checkpoint.save(tmp_path / f"{index}.safetensors", 7, dataclasses.asdict(trained[0]) | claim, trained[1])
    code = (
        "import resource, sys, checkpoint, utils\n"
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + 300 * 2**20,) * 2)\n"
        "for path in sys.argv[1:]:\n"
        "    try: checkpoint.load(path)\n"
        "    except utils.UserError as error: print('refused', error)\n"
    )
    paths = sorted(map(str, tmp_path.glob("*.safetensors")))
    done = subprocess.run([sys.executable, "-c", code, *paths], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused") == len(CLAIMS)


@pytest.mark.parametrize("part", ["g_optimizer", "d_optimizer"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda slots, name: slots | {"more/moment1_0": np.zeros(1, "float32")}, "holds more"),
        (lambda slots, name: slots | {name: np.zeros(3, "float32")}, "as [3]"),
        (lambda slots, name: slots | {name: np.zeros(slots[name].shape, "int64")}, "finite"),
        (lambda slots, name: slots | {name: np.full(slots[name].shape, np.nan, "float32")}, "finite"),
        (lambda slots, name: {key: slots[key] for key in slots if key != name}, "lacks"),
    ],
)
def test_optimizer_states_that_do_not_fit_are_refused(make_parameters, part, change, says):
    p = make_parameters("acgan-digits")
    trainer = Trainer(p)
    trainer.train_step(batches(load_dataset(p), p, first=0))
    parts = trainer.state()
    name = next(name for name in parts[part] if name.endswith("moment1_0"))
    with pytest.raises(UserError, match=re.escape(says)):
        Trainer(p).load(1, parts | {part: change(parts[part], name)}, "the file")


@pytest.mark.parametrize(
    "metadata",
    [
        {"step": "-1"}, {"step": "x"}, {"parameters": "[]"}, {"parameters": "[" * 10**5}, {"notes": "[]"},
        {"notes": "[" * 10**5}, {"checksums": "3"}, {"checksums": "{"}, {"checksums": '{"G": "x"}'},
    ],
)  # fmt: skip
def test_an_invalid_header_is_refused(trained, tmp_path, metadata):
    path, right = tmp_path / "hostile.safetensors", {"format": checkpoint.FORMAT, "step": "1", "parameters": "{}"}
    save_file({"G/x": np.zeros(1)}, path, right | metadata)
    with pytest.raises(UserError, match="hostile"):
        checkpoint.load(path)


def test_every_truncation_is_refused(saved, tmp_path):
    data, cut = saved.read_bytes(), tmp_path / "cut.safetensors"
    for length in range(0, len(data), 1000):
        cut.write_bytes(data[:length])
        with pytest.raises(UserError):
            checkpoint.load(cut)


def test_a_flipped_bit_is_refused(saved, tmp_path):
    """Wherever the bit is: the file is refused, or the values read are those that were written."""
    data, flipped, right = bytearray(saved.read_bytes()), tmp_path / "flipped.safetensors", checkpoint.load(saved)
    header, read = int.from_bytes(data[:8], "little"), 0
    for place in [*range(0, 2000, 7), *range(8 + header, len(data), 1009)]:
        data[place] ^= 1
        flipped.write_bytes(data)
        data[place] ^= 1
        with contextlib.suppress(UserError):
            found = checkpoint.load(flipped)
            assert found[1:3] == right[1:3] and found.parts.keys() == right.parts.keys()
            for part, arrays in found.parts.items():
                assert all((arrays[name] == array).all() for name, array in right.parts[part].items())
            read += place < 8 + header  # such as a letter of the word "checksums"
            assert read < 20 and place < 8 + header


def test_the_newest_whole_checkpoint_is_found(saved, tmp_path, capsys):
    shutil.copy(saved, tmp_path / "step-00000009.safetensors")
    cut, flipped = tmp_path / "step-00000010.safetensors", tmp_path / "step-00000011.safetensors"
    cut.write_bytes(saved.read_bytes()[:-5])
    flipped.write_bytes(saved.read_bytes()[:-5] + bytes(5))
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded.step == 7 and loaded.path.name == "step-00000009.safetensors"
    told = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in told] == [f"{path} is damaged and is skipped" for path in (flipped, cut)]


NEWEST = "import runtime, checkpoint, sys\nruntime.run(lambda: print(checkpoint.load_newest(sys.argv[1]).path))"


def remove_permissions(path):
    path.chmod(0)


def make_a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "error"), [(remove_permissions, errno.EACCES), (make_a_folder, errno.EISDIR)], ids=["mode 0", "folder"]
)
def test_an_unreadable_checkpoint_stops_the_program(saved, tmp_path, spoil, error):
    newest = tmp_path / "step-00000009.safetensors"
    shutil.copy(saved, newest)
    spoil(newest)
    process = start(ROOT, "-c", NEWEST, tmp_path, preexec_fn=obey_file_permissions)
    out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out, err) == (2, "", f"-c: {newest} cannot be read: {os.strerror(error)}\n")


def test_an_unreadable_folder_stops_the_program(saved, tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    saved.rename(weights / saved.name)
    weights.chmod(0o300)
    process = start(ROOT, "-c", NEWEST, weights, preexec_fn=obey_file_permissions)
    out, err = process.communicate(timeout=LIMIT)
    weights.chmod(0o700)
    assert (process.returncode, out, err) == (2, "", f"-c: {weights} cannot be read: Permission denied\n")


def test_an_unreadable_best_stops_the_program(tmp_path):
    (tmp_path / "best.safetensors").mkdir()
    with pytest.raises(UserError, match=r"best\.safetensors cannot be read: Is a directory"):
        checkpoint.best_score(tmp_path / "best.safetensors")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"not a run: it has no parameters\.yaml$"):
        checkpoint.load_file_or_run(tmp_path)
    (tmp_path / "model.safetensors").touch()  # as in a folder of export.py
    with pytest.raises(UserError) as caught:
        checkpoint.load_file_or_run(tmp_path)
    assert str(caught.value).endswith(f"no parameters.yaml; did you mean {tmp_path}/model.safetensors?")


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    """A real process, killed when the new file is half written."""
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    code = (
        "import os, signal, sys; from utils import atomic_path\n"
        f"with atomic_path({str(path)!r}) as temporary:\n"
        "    temporary.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -9
    assert path.read_bytes() == b"old"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(OSError), atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise OSError("disk full")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_an_interruption_at_any_line_leaves_no_temporary_file(tmp_path):
    """A signal's handler may raise between any two lines, those of the standard library included."""

    def write(lines):
        """Write the file. Raise SystemExit before line `lines` + 1 of those that run. Returns whether so many ran."""
        left = iter(range(lines))

        def trace(_frame, event, _argument):
            if event == "line" and next(left, None) is None:
                sys.settrace(None)  # the cleanup is not interrupted again
                raise SystemExit
            return trace

        with contextlib.suppress(SystemExit):
            sys.settrace(trace)
            try:
                with atomic_path(tmp_path / "file.bin") as temporary:
                    temporary.write_bytes(b"new")
                return False
            finally:
                sys.settrace(None)
        return True

    lines = 0
    while write(lines):
        lines += 1
        assert {path.name for path in tmp_path.iterdir()} <= {"file.bin"}
        if (tmp_path / "file.bin").exists():
            assert (tmp_path / "file.bin").read_bytes() == b"new"
    assert lines > 20


def test_a_written_file_has_the_mode_that_the_umask_leaves(tmp_path):
    """The umask is not read during the write, since reading it sets it for all threads."""
    code = (
        "import os; os.umask(0o027)\n"
        "from utils import atomic_path\n"
        "os.umask = lambda mask: print('umask is set')\n"
        f"with atomic_path({str(tmp_path / 'file')!r}) as path: path.write_text('new')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_leftovers_are_removed_and_folders_are_not(tmp_path):
    (tmp_path / ".tmp-a.png").write_text("half")
    (tmp_path / ".tmp-latest").symlink_to("nowhere")
    (tmp_path / ".tmp-mine").mkdir()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".tmp-mine"]


@pytest.mark.parametrize(
    "notes",
    [
        "[]",
        "{}",
        '{"score_key": "a", "score": "much"}',
        '{"score_key": "a", "score": 1%s}' % ("0" * 400),
        '{"metric": "fid", "score": 1}',
        "[" * 10**5,
        "{",
    ],
)
def test_any_score_beats_a_best_without_a_score(tmp_path, notes):
    path = tmp_path / "best.safetensors"
    save_file({"G/x": np.zeros(1)}, path, {"format": checkpoint.FORMAT, "notes": notes})
    assert checkpoint.best_score(path) == checkpoint.best_score(tmp_path / "none") == (-math.inf, None)


def test_a_message_about_a_file_names_its_option(saved, tmp_path):
    (tmp_path / "README.md").write_text("# 模型")
    wrong = checkpoint.load(saved)
    checkpoint.save(tmp_path / "wrong", 1, wrong.parameters | {"attention_size": 9, "model": "sagan"}, wrong.parts)
    for name, refused in (("README.md", " is a text file"), ("wrong", ": --attention_size 9 is not")):
        with pytest.raises(UserError, match=f"^RUN {tmp_path / name}{refused}"):
            checkpoint.load_file_or_run(tmp_path / name, "RUN")


def test_a_runs_name_without_its_folder_is_told_the_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sagan_models" / "mine").mkdir(parents=True)
    with pytest.raises(UserError, match=r"mine: there is no such file; did you mean sagan_models/mine\?"):
        checkpoint.load_file_or_run("mine")
    with pytest.raises(UserError, match=r"other: there is no such file$"):
        checkpoint.load_file_or_run("other")
