"""The commands as processes of their own, for tests that start, stop and kill them."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 1200  # seconds: a hang ends a test, other work on the machine does not
SMALL = ["--recipe", "acgan-digits", "--g_conv_dim", "8", "--d_conv_dim", "8", "--device", "cpu"]


def start(folder, *command, **how):
    """A command as a process in `folder`; `how` is as in `subprocess.Popen`."""
    how = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
    return subprocess.Popen([sys.executable, *map(str, command)], cwd=folder, **how)


def telling(first_line, lines_apart=30):
    """train.py, as a command that says how far it is after `first_line` seconds, and then every `lines_apart`."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = 'train.py'\n"
    code += f"import train, runtime, utils\nutils.FIRST_LINE, utils.LINES_APART = {first_line}, {lines_apart}\n"
    return ["-c", f"{code}runtime.run(train.main)"]


def under_permissions():
    """A `preexec_fn`: files' permissions bind the command, though root runs it."""
    if os.geteuid() == 0:
        drop, override, read_search = 24, 1, 2  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        for capability in (override, read_search):
            if ctypes.CDLL(None).prctl(drop, capability, 0, 0, 0):
                os._exit(1)


def run(folder, *command, **how):
    process = start(folder, *command, **how)
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


def launch(folder, processes, *command):
    """`start` of a command in as many processes, which write to FOLDER/logs."""
    launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", processes, "--log_dir", folder / "logs"]
    return start(folder, *launcher, *command)


def launched(launcher):
    """The process numbers of those that a launcher started, by rank."""
    return [int(pid) for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()]


def kill_launched(launcher):
    """SIGKILL for a launcher and the processes that it started."""
    for pid in (launcher.pid, *launched(launcher)):
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
