"""Training on two hosts. Two network namespaces of this host stand for them: one address each, one cable between."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import LIMIT

import checkpoint
from processes import watch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and the command ip (iproute2)"),
]
ROOT = Path(checkpoint.__file__).parent
TRAIN = [ROOT / "train.py", "--recipe", "acgan-digits", "--g_conv_dim", "8", "--d_conv_dim", "8", "--device", "cpu"]
SHORT = [
    "--sync_bn",
    "--batch_size",
    "8",
    "--total_step",
    "20",
    "--log_step",
    "5",
    "--sample_step",
    "10",
    "--model_save_step",
    "10",
]


class Hosts:
    """Two hosts, 10.77.0.1 and 10.77.0.2. One launcher can be started on each."""

    def __init__(self):
        self.names = [f"acgan{os.getpid()}{letter}" for letter in "ab"]
        self.cables = [f"v{os.getpid()}{letter}" for letter in "ab"]
        self.launchers = []

    def __enter__(self):
        for name in self.names:
            if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
                pytest.skip("needs the right to add network namespaces")
        self._ip("link", "add", self.cables[0], "type", "veth", "peer", "name", self.cables[1])
        for number, (name, cable) in enumerate(zip(self.names, self.cables, strict=True), start=1):
            self._ip("link", "set", cable, "netns", name)
            self._ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", cable)
            self._ip("-n", name, "link", "set", cable, "up")
            self._ip("-n", name, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_):
        for launcher in self.launchers:
            launcher.terminate()
        for launcher in self.launchers:
            launcher.wait(LIMIT)
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    @staticmethod
    def _ip(*words):
        subprocess.run(["ip", *words], check=True)

    def cut(self):
        """Pull the cable."""
        self._ip("-n", self.names[1], "link", "set", self.cables[1], "down")

    def launch(self, folders, *arguments):
        """Start two processes on each host, in its folder; returns the launchers."""
        for rank, (name, cable, folder) in enumerate(zip(self.names, self.cables, folders, strict=True)):
            launch = ["--nnodes", 2, "--rank", rank, "--master", "10.77.0.1:4700", "--host", f"10.77.0.{rank + 1}"]
            launch += ["--nproc_per_node", 2, "--log_dir", f"log{rank}"]
            command = ["ip", "netns", "exec", name, sys.executable, "-m", "paddle.distributed.launch", *launch]
            with open(folder / f"host{rank}.txt", "w") as output:
                launcher = subprocess.Popen(
                    list(map(str, [*command, *arguments])), cwd=folder, stdout=output, stderr=subprocess.STDOUT,
                    env=os.environ | {"GLOO_SOCKET_IFNAME": cable},
                )  # fmt: skip
            self.launchers.append(launcher)
        return self.launchers


def wait_for_step(log, step, launchers):
    deadline = time.monotonic() + LIMIT
    while not (log.exists() and f"step {step} " in log.read_text()):
        assert time.monotonic() < deadline and all(launcher.poll() is None for launcher in launchers)
        time.sleep(0.1)


def test_two_processes_on_each_of_two_hosts_equal_four_on_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    command = ["-m", "paddle.distributed.launch", "--nproc_per_node", 4, *TRAIN, *SHORT]
    subprocess.run([sys.executable, *map(str, command)], cwd=one, timeout=LIMIT, check=True, capture_output=True)
    with Hosts() as hosts:
        for launcher in hosts.launch([two, two], *TRAIN, *SHORT):
            assert launcher.wait(LIMIT) == 0
    first, second = (checkpoint.load_file_or_run(folder / "sagan_models" / "acgan-digits-1") for folder in (one, two))
    assert first.step == second.step == 20
    assert first.fingerprint() == second.fingerprint()


def test_a_lost_connection_ends_both_hosts(tmp_path):
    with Hosts() as hosts:
        launchers = hosts.launch([tmp_path] * 2, *TRAIN, "--total_step", 100_000, "--log_step", 1)
        wait_for_step(tmp_path / "sagan_models" / "acgan-digits-1" / "log.txt", 3, launchers)
        hosts.cut()
        for launcher in launchers:
            assert launcher.wait(LIMIT) == watch.DIED
    here, there = ((tmp_path / f"log{host}" / "workerlog.0").read_text() for host in (0, 1))
    assert "has not answered for 25 seconds: the run stops; --resume" in here
    assert f"rank 0 ({socket.gethostname()}, pid " in there
    assert "Traceback" not in here + there


def test_both_hosts_refuse_a_run_folder_that_one_lacks(tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    subprocess.run([sys.executable, *map(str, [*TRAIN, *SHORT])], cwd=folders[0], check=True, capture_output=True)
    for resume in ("sagan_models/acgan-digits-1", "auto"):
        with Hosts() as hosts:
            launchers = hosts.launch(folders, ROOT / "train.py", "--resume", resume, "--device", "cpu")
            assert [launcher.wait(LIMIT) for launcher in launchers] == [2, 2]
        said = [(folders[host] / f"log{host}" / "workerlog.0").read_text() for host in (0, 1)]
        wanted = (
            "is not a run's folder" if resume != "auto" else "give every process the same command and, with --resume"
        )
        assert all(wanted in text for text in said), said
