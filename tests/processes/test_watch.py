"""A run with real processes, when one of them fails, dies, hangs or was started with other options."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import LIMIT
from PIL import Image

import runtime
from processes import watch

ROOT = Path(runtime.__file__).parent
TINY = [
    "--recipe",
    "acgan-digits",
    "--g_conv_dim",
    "8",
    "--d_conv_dim",
    "8",
    "--device",
    "cpu",
    "--total_step",
    "100000",
]
MEETINGS = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
import runtime
from processes import collectives
from utils import UserError

def main():
    collectives.meet()
    print("met", flush=True)
    if collectives.rank() == int(sys.argv[2]):
        if sys.argv[1] == "mistake":
            raise UserError("the images are gone")
        if sys.argv[1] == "bug":
            raise ValueError("not\\na number")
        if sys.argv[1] == "end":
            return 3
        if sys.argv[1] == "late":
            time.sleep(1)
    elif sys.argv[1] == "end":
        time.sleep(1)
        return 3
    for _ in range(5000 if sys.argv[1] == "long" else 1):
        collectives.meet()
        time.sleep(0.01)
    return 0

runtime.run(main)
"""


STEPS = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
import runtime
from processes import collectives

def main():
    with runtime.stop_signals() as stop:
        collectives.meet()
        print("begun", flush=True)
        step = 0
        while not stop.requested():
            step += 1
            time.sleep(0.03 * collectives.rank())  # rank 0 waits for the others most of the time
        assert stop.requested()
        print("stopped at", step, "by", stop.signal, flush=True)
    collectives.meet()
    return 0

runtime.run(main)
"""


class Group:
    """Processes started one by one with the launcher's environment. Only they themselves watch over each other."""

    def __init__(self, folder, commands):
        self.outputs = [Path(folder, f"output.{rank}") for rank in range(len(commands))]
        with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
            store, meeting = (f"127.0.0.1:{server.getsockname()[1]}" for server in (first, second))
        self.meeting = ("127.0.0.1", int(meeting.split(":")[1]))
        endpoints = [meeting] + [f"127.0.0.1:{port}" for port in range(1, len(commands))]
        self.processes = []
        for rank, command in enumerate(commands):
            environment = {
                "PADDLE_TRAINER_ID": str(rank), "PADDLE_TRAINERS_NUM": str(len(commands)), "PADDLE_MASTER": store,
                "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints), "PADDLE_CURRENT_ENDPOINT": endpoints[rank],
                "PADDLE_DISTRI_BACKEND": "gloo", "PADDLE_LOCAL_SIZE": str(len(commands)),
            }  # fmt: skip
            with open(self.outputs[rank], "w") as output:
                process = subprocess.Popen(
                    [sys.executable, *map(str, command)], cwd=folder, env=os.environ | environment, stdout=output,
                    stderr=subprocess.STDOUT,
                )  # fmt: skip
            self.processes.append(process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def name(self, rank):
        return f"rank {rank} ({socket.gethostname()}, pid {self.processes[rank].pid})"

    def text(self, rank):
        return self.outputs[rank].read_text()

    def wait_for_text(self, text):
        """Wait until every process has printed `text`."""
        deadline = time.monotonic() + LIMIT
        while not all(text in self.text(rank) for rank in range(len(self.processes))):
            assert time.monotonic() < deadline and all(p.poll() is None for p in self.processes), self.outputs
            time.sleep(0.05)

    def exit_codes(self):
        """Wait until all have ended; returns their exit codes."""
        deadline = time.monotonic() + LIMIT
        return [process.wait(max(0.1, deadline - time.monotonic())) for process in self.processes]


def changed_meetings(folder, *lines):
    """Write MEETINGS as a script that runs `lines` before it starts; returns its path."""
    script = Path(folder, "meetings.py")
    imports = "from processes import collectives\n"
    changed = "\n".join(["from processes import collectives, watch", "import ctypes", *lines, ""])
    script.write_text(MEETINGS.replace(imports, changed))
    return script


def meetings(folder, count, *arguments):
    script = Path(folder, "meetings.py")
    script.write_text(MEETINGS)
    return Group(folder, [[script, *arguments]] * count)


@pytest.mark.parametrize("dead", [0, 2])
def test_a_dead_process_ends_the_others_and_is_named(tmp_path, dead):
    with meetings(tmp_path, 3, "long", "0") as group:
        group.wait_for_text("met")
        group.processes[dead].kill()
        exit_codes = group.exit_codes()
        assert exit_codes == [-signal.SIGKILL if rank == dead else watch.DIED for rank in range(3)]
        for rank in {0, 1, 2} - {dead}:
            assert f"meetings.py: {group.name(dead)} has died: the run stops; --resume" in group.text(rank)


@pytest.mark.parametrize(
    ("failing", "what", "code", "reason"),
    [
        (0, "mistake", 2, "the images are gone"),
        pytest.param(1, "mistake", 2, "the images are gone", marks=pytest.mark.slow),
        (1, "bug", 1, "ValueError: not a number"),
    ],
)
def test_the_others_learn_why_a_process_failed(tmp_path, failing, what, code, reason):
    with meetings(tmp_path, 3, what, str(failing)) as group:
        assert group.exit_codes() == [code] * 3
        for rank in {0, 1, 2} - {failing}:
            assert f"{group.name(failing)} has stopped: {reason}\n" in group.text(rank)
        assert ("Traceback" in group.text(failing)) == (what == "bug")


def test_the_first_failure_is_reported(tmp_path):
    """Another process ends because of it, without a message, before rank 0 does."""
    script = changed_meetings(tmp_path, "watch.GRACE_SECONDS = 0.2 if collectives.rank() else 2")
    with Group(tmp_path, [[script, "mistake", "1"]] * 3) as group:
        assert group.exit_codes() == [2] * 3
        assert f"{group.name(1)} has stopped: the images are gone\n" in group.text(0)


@pytest.mark.parametrize("first", [0, 1])
def test_a_process_may_end_before_the_others(tmp_path, first):
    with meetings(tmp_path, 3, "end", str(first)) as group:
        assert group.exit_codes() == [3] * 3
        assert all(group.text(rank) == "met\n" for rank in range(3))


def test_a_late_process_is_waited_for(tmp_path):
    with meetings(tmp_path, 3, "late", "1") as group:
        assert group.exit_codes() == [0] * 3


def connect(address):
    """Connect to `address`, where nothing may listen yet."""
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            return socket.create_connection(address)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_messages_of_strangers_are_ignored(tmp_path):
    """They connect while rank 0 waits for rank 1."""
    with meetings(tmp_path, 3, "late", "1") as group:
        group.processes[1].send_signal(signal.SIGSTOP)
        for words in (b"GET / HTTP/1.1\r\n\r\n", b'{"run": "another", "rank": 1}\n', b"[1]\n", b"\xff" * 20_000, b""):
            with connect(group.meeting) as link:
                link.sendall(words)
        group.processes[1].send_signal(signal.SIGCONT)
        assert group.exit_codes() == [0] * 3
        assert "Traceback" not in group.text(0)


def test_a_silent_stranger_delays_no_process(tmp_path):
    with meetings(tmp_path, 3, "late", "1") as group:
        group.processes[1].send_signal(signal.SIGSTOP)
        with connect(group.meeting):
            group.processes[1].send_signal(signal.SIGCONT)
            assert group.exit_codes() == [0] * 3


@pytest.mark.parametrize("stranger", ["closes", "is an echo"])
def test_a_process_leaves_a_stranger_at_the_address_of_rank_0(tmp_path, stranger):
    """Such as a server of an earlier run, or the process's own connection to itself, possible at such a port."""
    script = changed_meetings(
        tmp_path,
        "import pathlib",
        "while collectives.rank() == 0 and not pathlib.Path('gone').exists(): time.sleep(0.05)",
    )
    with Group(tmp_path, [[script, "late", "1"]] * 2) as group:
        with socket.create_server(group.meeting) as server:
            server.settimeout(LIMIT)
            link, _ = server.accept()
            with link:
                link.settimeout(LIMIT)
                hello = link.recv(4096)
                if stranger == "is an echo":
                    link.sendall(hello)
                    assert link.recv(4096) == b""
        (tmp_path / "gone").touch()
        assert group.exit_codes() == [0] * 2


@pytest.mark.parametrize("held", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_process_with_a_blocked_interpreter_is_waited_for(tmp_path, held):
    """Blocked for three beats, as by an import, between the connection and the first message."""
    script = changed_meetings(
        tmp_path,
        "watch.BEAT_SECONDS = 0.5",
        "def hold(*arguments, read=watch.Watch._read):",
        "    ctypes.PyDLL(None).usleep(1_500_000)",
        "    read(*arguments)",
        f"if collectives.rank() == {held}: watch.Watch._read = hold",
    )
    with Group(tmp_path, [[script, "late", "1"]] * 2) as group:
        assert group.exit_codes() == [0] * 2, group.text(1 - held)


@pytest.mark.parametrize("told", [[0], [1], [0, 1, 2]])
def test_processes_stop_by_the_same_signal_at_the_same_moment(tmp_path, told):
    """Whichever processes receive it, also while they wait for each other."""
    script = tmp_path / "steps.py"
    script.write_text(STEPS)
    with Group(tmp_path, [[script]] * 3) as group:
        group.wait_for_text("begun")
        for rank in told:
            group.processes[rank].send_signal(signal.SIGTERM if rank else signal.SIGINT)
        assert group.exit_codes() == [0] * 3
        lines = [group.text(rank).splitlines()[-1] for rank in range(3)]
        assert len(set(lines)) == 1 and re.fullmatch(rf"stopped at \d+ by {15 if max(told) else 2}", lines[0]), lines
        assert [("stopping; send the signal once more" in group.text(rank)) for rank in range(3)] == [
            rank in told for rank in range(3)
        ]


@pytest.mark.slow
def test_a_process_that_never_starts_is_named(tmp_path):
    script = changed_meetings(tmp_path, "watch.JOIN_SECONDS = watch.LEAVE_SECONDS = 2")
    with Group(tmp_path, [[script, "late", "5"], [script, "late", "5"], ["-c", "pass"]]) as group:
        assert group.exit_codes() == [2, 2, 0]
        assert "meetings.py: rank 2 did not connect within 2 seconds: read the reason in its log\n" in group.text(0)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_process_ends_the_others(tmp_path, frozen):
    with meetings(tmp_path, 3, "long", "0") as group:
        group.wait_for_text("met")
        group.processes[frozen].send_signal(signal.SIGSTOP)
        for rank in {0, 1, 2} - {frozen}:
            assert group.processes[rank].wait(LIMIT) == watch.DIED
            assert f"{group.name(frozen)} has not answered for 25 seconds" in group.text(rank)


@pytest.mark.slow
def test_a_run_that_was_suspended_goes_on(tmp_path):
    """As when a batch system suspends a job for another one."""
    with meetings(tmp_path, 3, "long", "0") as group:
        group.wait_for_text("met")
        for process in group.processes:
            process.send_signal(signal.SIGSTOP)
        time.sleep(60)
        for process in group.processes:
            process.send_signal(signal.SIGCONT)
            time.sleep(1)
        assert group.exit_codes() == [0] * 3


def test_different_options_of_processes_are_refused(tmp_path):
    command = [ROOT / "train.py", *TINY]
    with Group(
        tmp_path, [[*command, "--d_lr", "0.0004"], [*command, "--d_lr", "0.0001", "--num_workers", "2"]]
    ) as group:
        assert group.exit_codes() == [2, 2]
        for rank in (0, 1):
            assert "train.py: rank 1 has --d_lr 0.0001, rank 0 has 0.0004: give every process" in group.text(rank)
    assert not (tmp_path / "sagan_models").exists()


def make_images(folder):
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / name / f"{number}.png")


def test_missing_images_on_one_host_end_all_processes(tmp_path):
    make_images(tmp_path / "images")
    command = [ROOT / "train.py", *TINY, "--dataset", "folder", "--data_path"]
    with Group(tmp_path, [[*command, "images"], [*command, "elsewhere"]]) as group:
        assert group.exit_codes() == [2, 2]
        assert f"{group.name(1)} has stopped: --data_path elsewhere does not exist" in group.text(0)


def test_a_copy_has_the_same_fingerprint_and_a_changed_data_set_another(tmp_path, make_parameters):
    from dataset import load_dataset

    make_images(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")

    def differences():
        one, two = (
            load_dataset(
                make_parameters(dataset="folder", num_classes=None, data_path=str(tmp_path / name))
            ).fingerprint()
            for name in ("one", "two")
        )
        return {name for name in one if one[name] != two[name]}

    assert differences() == set()
    changed = tmp_path / "two" / "cat" / "1.png"
    changed.write_bytes(changed.read_bytes() + b"longer")
    assert differences() == {"file sizes"}
    changed.rename(changed.with_name("1a.png"))
    assert differences() == {"file sizes", "file names"}
    changed.with_name("1a.png").unlink()
    assert differences() == {"number of images", "labels", "file names", "file sizes"}
    (tmp_path / "two" / "cat").rename(tmp_path / "two" / "cow")
    assert "classes" in differences()
    digits = [load_dataset(make_parameters(dataset="digits", num_classes=None, imsize=16)) for _ in range(2)]
    digits[1].images = digits[1].images.copy()
    digits[1].images[5, 3, 3] ^= 1
    one, two = (image_set.fingerprint() for image_set in digits)
    assert {name for name in one if one[name] != two[name]} == {"images"}


@pytest.mark.parametrize("dead", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_training_ends_when_a_process_is_killed(tmp_path, dead):
    with Group(tmp_path, [[ROOT / "train.py", *TINY, "--log_step", "1"]] * 2) as group:
        log = tmp_path / "sagan_models" / "acgan-digits-1" / "log.txt"
        deadline = time.monotonic() + LIMIT
        while not (log.exists() and "step 3 " in log.read_text()):
            assert time.monotonic() < deadline and all(p.poll() is None for p in group.processes)
            time.sleep(0.1)
        group.processes[dead].kill()
        assert group.exit_codes()[1 - dead] == watch.DIED
        text = group.text(1 - dead)
        assert f"train.py: {group.name(dead)} has died" in text and "Traceback" not in text


@pytest.mark.slow
@pytest.mark.parametrize("dead", [0, 1, 2])
def test_the_launcher_ends_when_a_process_is_killed(tmp_path, dead):
    command = ["-m", "paddle.distributed.launch", "--nproc_per_node", "3", ROOT / "train.py", *TINY, "--log_step", "1"]
    launcher = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    log = tmp_path / "sagan_models" / "acgan-digits-1" / "log.txt"
    deadline = time.monotonic() + LIMIT
    while not (log.exists() and "step 3 " in log.read_text()):
        assert time.monotonic() < deadline and launcher.poll() is None
        time.sleep(0.1)
    pids = {}
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = dict(word.split("=", 1) for word in entry.read_text().split("\0") if "=" in word)
            parent = int(re.search(r"^PPid:\t(\d+)", (entry.parent / "status").read_text(), re.MULTILINE)[1])
        except OSError:
            continue
        if parent == launcher.pid and "PADDLE_TRAINER_ID" in variables:
            pids[int(variables["PADDLE_TRAINER_ID"])] = int(entry.parent.name)
    assert sorted(pids) == [0, 1, 2]
    os.kill(pids[dead], signal.SIGKILL)
    out, _ = launcher.communicate(timeout=LIMIT)
    assert launcher.returncode == (256 - signal.SIGKILL if dead == 0 else watch.DIED)
    said = f"train.py: rank {dead} ({socket.gethostname()}, pid {pids[dead]}) has died"
    for rank in {0, 1, 2} - {dead}:
        assert said in (tmp_path / "log" / f"workerlog.{rank}").read_text()
    assert all(not Path(f"/proc/{pid}").exists() for pid in pids.values()), out
