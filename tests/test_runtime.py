"""The numbers of threads and cores; settings of the user are kept."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import runtime

ROOT = Path(runtime.__file__).parent
SET = ("MKL_NUM_THREADS", "FLAGS_paddle_num_threads", "MKL_DEBUG_CPU_TYPE", "OMP_NUM_THREADS")


def environment_after_import(**given):
    clean = {name: value for name, value in os.environ.items() if name not in SET}
    code = f"import json, os, runtime; print(json.dumps({{n: os.environ.get(n) for n in {SET}}}))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=clean | given, capture_output=True, text=True, check=True
    )
    return json.loads(result.stdout)


def test_threads_are_the_physical_cores():
    found = environment_after_import()
    assert 1 <= int(found["FLAGS_paddle_num_threads"]) <= len(os.sched_getaffinity(0))
    assert found["MKL_NUM_THREADS"] == found["FLAGS_paddle_num_threads"]
    amd = "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    assert found["MKL_DEBUG_CPU_TYPE"] == ("5" if amd else None)


def test_processes_share_the_cores():
    assert environment_after_import(PADDLE_LOCAL_SIZE="64")["FLAGS_paddle_num_threads"] == "1"


def test_settings_of_the_user_are_kept():
    given = {"MKL_NUM_THREADS": "7", "FLAGS_paddle_num_threads": "9", "MKL_DEBUG_CPU_TYPE": "4"}
    found = environment_after_import(**given)
    assert {name: found[name] for name in given} == given
    found = environment_after_import(OMP_NUM_THREADS="3")
    assert found["OMP_NUM_THREADS"] == "3" and found["FLAGS_paddle_num_threads"] is None


def test_a_core_with_several_threads_counts_once():
    block = "processor\t: {}\nphysical id\t: 0\ncore id\t\t: {}\n"
    usable = sorted(os.sched_getaffinity(0))
    twins = "\n".join(block.format(cpu, 0) for cpu in usable)
    assert runtime._physical_cores(twins) == 1
    apart = "\n".join(block.format(cpu, cpu) for cpu in usable)
    assert runtime._physical_cores(apart) == len(usable)
    assert runtime._physical_cores("") == len(usable)


def test_a_list_of_threads_means_its_first_number(monkeypatch):
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert runtime.threads() == 3


def test_the_option_sets_the_threads(monkeypatch):
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    runtime.start(SimpleNamespace(device="cpu", threads=3))
    assert runtime.threads() == 3
    monkeypatch.undo()
    runtime.set_threads(runtime.threads())


BLOCKED_WRITE = """
import os, signal, sys, threading, time
import runtime

reader, writer = os.pipe()
os.dup2(writer, 2)
os.set_blocking(2, False)
try:
    while True:
        os.write(2, b"-" * 1024)
except BlockingIOError:  # the pipe is full
    os.set_blocking(2, True)

def interrupt():
    begun.wait()
    time.sleep(1)  # until the main thread waits for the pipe, in its write to sys.stderr
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    time.sleep(0.2)
    text = b""
    while b"last line" not in text:
        text += os.read(reader, 1 << 20)
    os.write(1, text.replace(b"-" * 1024, b""))

def write():
    begun.set()
    print("progress", file=sys.stderr, flush=True)

begun, thread = threading.Event(), threading.Thread(target=interrupt)
thread.start()
try:
    WRITE
finally:
    print("last line", file=sys.stderr, flush=True)
    thread.join()
"""
STOPPING = "stopping; send the signal once more to quit at once"


@pytest.mark.parametrize(
    ("statement", "code", "answer"),
    [
        ("with runtime.stop_signals(): write()", 0, STOPPING),
        ("runtime.quit_on_signals(cleanly=True, with_paddle=False); write()", 130, "-c: stopped by SIGINT"),
    ],
)
def test_a_signal_during_a_write_to_stderr_is_answered(statement, code, answer):
    """Python refuses a second write to sys.stderr in the handler: "reentrant call inside <_io.BufferedWriter"."""
    command = [sys.executable, "-c", BLOCKED_WRITE.replace("WRITE", statement)]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    result = subprocess.run(command, cwd=ROOT, env=buffered, capture_output=True, text=True)
    assert (result.returncode, result.stdout.split("\n")) == (code, [answer, "progress", "last line", ""])
