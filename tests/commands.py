"""The commands as processes of their own, for tests that start, stop and kill them."""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = ["--recipe", "acgan-digits", "--g_conv_dim", "8", "--d_conv_dim", "8", "--device", "cpu"]


def start(folder, *command):
    return subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(folder, *command):
    process = start(folder, *command)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def wait_for(process, condition, seconds=120):
    """Wait until `condition()` holds while `process` runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate(timeout=30)[1]
        time.sleep(0.005)


def wait_for_step(process, run_folder, step):
    """Wait until the log of a run with `--log_step 1` has `step`."""
    log = run_folder / "log.txt"
    wait_for(process, lambda: log.exists() and f" step {step} " in log.read_text())
