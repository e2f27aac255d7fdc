"""Start, stop and kill the commands as separate processes."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 1200  # seconds; a hanging test ends, but a busy machine fails no test
SMALL = ["--recipe", "acgan-digits", "--g_conv_dim", "8", "--d_conv_dim", "8", "--device", "cpu"]


def start(folder, *command, **how):
    """Start a Python command in `folder`; `how` is passed to `subprocess.Popen`."""
    how = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
    return subprocess.Popen([sys.executable, *map(str, command)], cwd=folder, **how)


def copy_program(folder):
    """Copy the program to `folder`, so that a test can add a file to it."""
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    for path in (ROOT / "recipes", *(file.parent for file in ROOT.glob("*/__init__.py"))):
        shutil.copytree(path, folder / path.name)


def train_with_progress(first_line, lines_apart=30):
    """train.py as a command that prints its progress after `first_line` seconds, then every `lines_apart` seconds."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = 'train.py'\n"
    code += f"import train, runtime, utils\nutils.FIRST_LINE, utils.LINES_APART = {first_line}, {lines_apart}\n"
    return ["-c", f"{code}runtime.run(train.main)"]


def obey_file_permissions():
    """A `preexec_fn`: file permissions apply to the command, even if root runs it."""
    if os.geteuid() == 0:
        drop, override, read_search = 24, 1, 2  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        for capability in (override, read_search):
            if ctypes.CDLL(None).prctl(drop, capability, 0, 0, 0):
                os._exit(1)


def run(folder, *command, **how):
    """Run a Python command in `folder` to its end. Returns (exit code, stdout, stderr)."""
    process = start(folder, *command, **how)
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


def launch(folder, processes, *command):
    """Start a command in `processes` processes by Paddle's launcher; they log to FOLDER/logs."""
    launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", processes, "--log_dir", folder / "logs"]
    return start(folder, *launcher, *command)


def worker_pids(launcher):
    """The process ids of a launcher's workers, by rank."""
    return [int(pid) for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()]


def kill_launched(launcher):
    """Kill a launcher and its workers by SIGKILL."""
    for pid in (launcher.pid, *worker_pids(launcher)):
        os.kill(pid, signal.SIGKILL)
    launcher.communicate(timeout=LIMIT)


def wait_for(process, condition, seconds=LIMIT):
    """Wait until `condition()` holds while `process` runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate(timeout=LIMIT)[1]
        time.sleep(0.005)


def wait_for_step(process, run_folder, step):
    """Wait until the log of a run with `--log_step 1` has `step`."""
    log = run_folder / "log.txt"
    wait_for(process, lambda: log.exists() and f" step {step} " in log.read_text())
