"""Differences between operating systems: the functions, and the commands on a stand-in for Windows."""

import ast
import io
import json
import os
import sys
import types

import numpy as np
import pytest
from commands import ROOT, SMALL, run
from PIL import Image

import packing.readers
import system
from utils import UserError

# Windows lacks these names. Only `system` uses them.
LACKING = {
    "fcntl", "grp", "pwd", "resource", "termios", "fork", "killpg", "posix_fadvise", "pread", "pthread_sigmask",
    "sched_getaffinity", "setsid", "statvfs", "symlink", "symlink_to", "sysconf", "uname", "SIGHUP", "SIGKILL",
    "SIGPIPE", "SIG_BLOCK", "SIG_UNBLOCK", "geteuid", "getuid",
}  # fmt: skip
GUARDED = {("runtime.py", "sched_getaffinity")}  # used only where it exists


def names_in(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("/proc"):
            yield "/proc"


def test_only_system_uses_what_windows_lacks():
    folders = [folder for folder in ROOT.iterdir() if (folder / "__init__.py").is_file()]
    paths = [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.glob("*.py"))]
    for path in paths:
        if path.name != "system.py":
            found = {name for name in names_in(path) if name in LACKING | {"/proc"}}
            assert not {name for name in found if (path.name, name) not in GUARDED}, path


@pytest.fixture
def without_fcntl(monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)


@pytest.fixture
def msvcrt(without_fcntl, monkeypatch):
    """A stand-in for Windows' module: locks of bytes, which other open files cannot get."""
    locked = {}

    def locking(descriptor, mode, size):
        assert mode == 2 and size == 1
        key = os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR)
        if locked.setdefault(key, descriptor) != descriptor:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))


@pytest.mark.parametrize("how", ["fcntl", "msvcrt"])
def test_a_locked_file_cannot_be_locked_again(tmp_path, request, how):
    if how == "msvcrt":
        request.getfixturevalue("msvcrt")
    path = tmp_path / "lock"
    with open(path, "a+") as first, open(path, "a+") as second:
        system.try_lock(first)
        with pytest.raises(BlockingIOError):
            system.try_lock(second)
        first.write("owner")
        first.flush()
        assert path.read_text() == "owner"


def test_a_system_without_locks_is_told_from_a_locked_file(tmp_path, without_fcntl):
    with open(tmp_path / "lock", "w") as file:
        with pytest.raises(OSError, match="no file locks") as error:
            system.try_lock(file)
        assert not isinstance(error.value, BlockingIOError)
        system.wait_for_lock(file)


@pytest.mark.parametrize("version", [1, 2])
def test_memory_is_free_below_the_limit_of_each_control_group(tmp_path, version):
    """Free is the limit less what is used. Files that the system keeps in memory count as free."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    line = "0::/slurm/job/step" if version == 2 else "3:cpu:/\n4:hugetlb,memory:/slurm/job/step\n0::/"
    (tmp_path / "proc" / "self" / "cgroup").write_text(f"{line}\n")
    folder = tmp_path / "sys" / "fs" / "cgroup" / ("" if version == 2 else "memory")
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}[version]
    for group, most in (("slurm/job", 1000), ("slurm", "max")):
        (folder / group).mkdir(parents=True, exist_ok=True)
        for name, value in zip(names, (most, 700), strict=True):
            (folder / group / name).write_text(f"{value}\n")
        prefix = "total_" if version == 1 else ""
        (folder / group / "memory.stat").write_text(f"anon 500\n{prefix}active_file 40\n{prefix}inactive_file 60\n")
    assert system.free_in_groups(str(tmp_path)) == [400]


def test_bytes_are_read_without_pread(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"0123456789")
    monkeypatch.delattr(os, "pread", raising=False)
    descriptor = system.open_to_read(tmp_path / "file")
    assert [system.read_at(descriptor, 3, offset) for offset in (7, 0, 9)] == [b"789", b"012", b"9"]
    os.close(descriptor)


def test_readers_are_threads_where_processes_cannot_be_forked(monkeypatch):
    monkeypatch.setattr(packing.readers.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    with packing.readers.reading(lambda item: item * item, range(100), 3, bool) as found:
        assert list(found) == [item * item for item in range(100)]

    def fail(item):
        raise UserError(f"item {item}")

    with pytest.raises(UserError, match="item 0"), packing.readers.reading(fail, range(9), 3, bool) as found:
        list(found)


def pictures(folder):
    """Two class folders of four pictures each."""
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng(number).integers(256, size=(16, 16, 3), dtype=np.uint8)
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "PNG")
            (folder / name / f"{number}.png").write_bytes(content.getvalue())


@pytest.mark.slow
def test_every_command_runs_on_a_stand_in_for_windows(tmp_path):
    pictures(tmp_path / "images")
    mine = [*SMALL, "--save_path", "runs", "--name", "mine", "--log_step", "1", "--sample_step", "1"]
    folder = ["--imsize", "32", "--g_conv_dim", "4", "--d_conv_dim", "4", "--batch_size", "4", "--device", "cpu"]
    commands = [
        ["train.py", *mine, "--total_step", "2", "--model_save_step", "1", "--keep_checkpoints", "1"],
        ["train.py", *mine, "--total_step", "3", "--resume", "auto"],
        ["test.py", "--pretrained_model", "runs/mine", "--num_samples", "40", "--samples_npz", "samples.npz",
         "--samples_dir", "samples", "--metrics", "distance", "--device", "cpu"],
        ["pack.py", "--data_path", "images", "--imsize", "32", "--num_workers", "2", "--out", "packed.npz"],
        ["pack.py", "--data_path", "images", "--imsize", "32", "--out", "packed.zip"],
        *(["train.py", "--data_path", data, *folder, "--total_step", "1"]
          for data in ("images", "images", "packed.npz", "packed.zip")),
        ["convert.py", "runs/mine", "mine.pdparams"],
        ["convert.py", "runs/mine", "mine.safetensors"],
        ["generate.py", "--out", "sheets"],
        ["generate.py", "--pretrained_model", "runs/mine", "--interpolate", "0,1", "--frames", "4", "--out", "w.gif"],
        ["export.py", "--pretrained_model", "runs/mine", "--out", "exported"],
        ["gallery.py", "runs/mine", "--out", "page.html"],
        ["demo.py", "runs/mine"],  # up to its page: Gradio is another project's
    ]  # fmt: skip
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "gradio.py").write_text("raise ImportError('No module named gradio')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "stub")}
    code, out, err = run(tmp_path, ROOT / "tests" / "without_posix.py", json.dumps(commands), env=environment)
    assert code == 0, err
    ended = [line for line in out.splitlines() if " ended with " in line]
    assert ended == [f"{command[0]} ended with {2 * (command[0] == 'demo.py')}" for command in commands], err
    assert err.splitlines()[-1] == "demo.py: No module named gradio; demo.py needs Gradio: pip install -r " + (
        "requirements/demo.txt"
    )
    assert not list(tmp_path.rglob("latest"))
    left = [path for path in tmp_path.rglob(".*") if path.suffix in (".part", ".journal") or ".tmp" in path.name]
    assert left == []
