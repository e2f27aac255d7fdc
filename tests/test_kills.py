"""`kill -9` at random moments: the files on disk always suffice to resume, and the end equals an unbroken run."""

import re
import signal
import time

import numpy as np
import pytest
from commands import LIMIT, ROOT, SMALL, run, start, wait_for
from test_resume import assert_same_run, train

import checkpoint

INTERVAL = 2  # steps between checkpoints
OPTIONS = [*SMALL, "--batch_size", 8, "--log_step", 1, "--model_save_step", INTERVAL, "--sample_step", 10]


def last_step(run_folder):
    """The last step in a run's log."""
    log = run_folder / "log.txt"
    steps = re.findall(r" step (\d+) ", log.read_text()) if log.exists() else []
    return int(steps[-1]) if steps else 0


def newest_step(run_folder):
    loaded = checkpoint.load_newest(run_folder / "weights")
    return loaded.step if loaded else 0


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.timeout(1800))])
def test_a_run_killed_at_random_moments_equals_an_unbroken_one(kills, tmp_path, capsys):
    rng = np.random.default_rng(5)
    mine = tmp_path / "sagan_models" / "mine"
    command = [ROOT / "train.py", *OPTIONS, "--keep_checkpoints", 3, "--name", "mine", "--resume", "auto"]
    behind, leftovers, saved = [], 0, 0
    for _ in range(kills):
        process = start(tmp_path, *command, "--total_step", 10**6)
        while (line := process.stdout.readline()) and not line.startswith("goes on" if saved else "1437 images"):
            pass
        assert not saved or int(re.search(r"step (\d+)", line)[1]) == saved, process.communicate(timeout=LIMIT)[1]
        time.sleep(rng.uniform(0, 2))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=LIMIT)
        before, saved, done = saved, newest_step(mine), last_step(mine)
        assert saved >= before and saved % INTERVAL == 0
        # One checkpoint may be half-written, and the checkpoint of the log's last step may still wait for it.
        assert saved >= (done - 1) // INTERVAL * INTERVAL - INTERVAL
        latest = mine / "weights" / "latest"
        if saved:
            assert checkpoint.load(latest).step in (saved - INTERVAL, saved)
        behind.append(done - saved)
        leftovers += any(".tmp" in path.name for path in mine.rglob("*"))
    steps = saved + 2 * INTERVAL
    train("--resume", str(mine), "--total_step", str(steps))
    assert not [path for path in mine.rglob("*") if ".tmp" in path.name]
    with capsys.disabled():
        print(f"\n{kills} kills, {leftovers} in the middle of a write; steps lost {sorted(behind)}; {steps} steps")
    train(*map(str, [*OPTIONS, "--total_step", steps, "--keep_checkpoints", 3, "--save_path", tmp_path / "straight"]))
    assert_same_run(mine, tmp_path / "straight" / "acgan-digits-1")


@pytest.mark.slow
def test_a_run_killed_before_it_begins_trains_with_the_same_command(tmp_path):
    """It is killed as soon as its folder exists."""
    command = [ROOT / "train.py", *OPTIONS, "--total_step", INTERVAL, "--resume", "auto", "--name", "mine"]
    command += ["--eval_step", INTERVAL, "--eval_samples", 50, "--metrics", "distance"]
    process = start(tmp_path, *command)
    wait_for(process, (tmp_path / "sagan_models" / "mine").exists)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=LIMIT)
    code, _, err = run(tmp_path, *command)
    assert code == 0, err
    assert newest_step(tmp_path / "sagan_models" / "mine") == INTERVAL
