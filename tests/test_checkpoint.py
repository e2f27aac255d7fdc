"""Our own checkpoints: what is written is read, what is not whole or not ours is refused in one sentence."""

import os
import subprocess
import sys

import numpy as np
import pytest

import checkpoint
from utils import UserError, atomic_path

PARTS = {
    "G": {"linear.weight": np.arange(6, dtype="float32").reshape(2, 3)},
    "g_optimizer": {"w/moment1_0": np.ones(2)},
}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "step-00000007.safetensors"
    checkpoint.save(path, 7, {"model": "sagan", "name": None}, PARTS)
    return path


def test_what_is_written_is_read(saved):
    loaded = checkpoint.load(saved)
    assert (loaded.step, loaded.parameters) == (7, {"model": "sagan", "name": None})
    assert loaded.parts.keys() == PARTS.keys()
    for part, arrays in PARTS.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(loaded.parts[part][name], array)
            assert loaded.parts[part][name].dtype == array.dtype


def test_every_truncation_is_refused(saved, tmp_path):
    data, cut = saved.read_bytes(), tmp_path / "cut.safetensors"
    for length in range(0, len(data), 17):
        cut.write_bytes(data[:length])
        with pytest.raises(UserError):
            checkpoint.load(cut)


def test_the_newest_whole_checkpoint_is_found(saved, tmp_path, capsys):
    checkpoint.save(tmp_path / "step-00000009.safetensors", 9, {}, PARTS)
    (tmp_path / "step-00000010.safetensors").write_bytes(saved.read_bytes()[:-5])
    assert checkpoint.newest(tmp_path).name == "step-00000009.safetensors"
    assert "step-00000010.safetensors is not whole" in capsys.readouterr().err


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run's"):
        checkpoint.find(tmp_path)


def test_a_killed_writer_leaves_what_was_there(tmp_path):
    """A real process, killed with the new file half written."""
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    code = (
        "import os, signal, sys; from utils import atomic_path\n"
        f"with atomic_path({str(path)!r}) as temporary:\n"
        "    temporary.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == -9
    assert path.read_bytes() == b"old"


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(OSError), atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise OSError("disk full")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
