"""The benchmarks: command lines, processes that take turns, counts of operations."""

import subprocess
import sys

import paddle
import paddle.nn.functional as F
import pytest
from commands import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import check_gpu
import flops
import sample
import train_step
import turns

STEADY = "import time, sys; sys.path.insert(0, sys.argv[1]); import turns\ndef work():\n yield\n while True:\n"
STEADY += "  time.sleep(float(sys.argv[2]))\n  print('noise')\n  yield\nturns.serve(work())"


@pytest.mark.parametrize("script", ["train_step", "sample", "flops", "plot"])
def test_help_and_unknown_works(script):
    command = [sys.executable, ROOT / "benchmarks" / f"{script}.py"]
    assert "--torch_python" in subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    if script != "plot":
        wrong = subprocess.run([*command, "--torch_python", "python", "sagan"], capture_output=True, text=True)
        assert wrong.returncode == 2 and "unknown work sagan; known are sagan-128-w" in wrong.stderr


def steady_side(name, seconds):
    return turns.Side(name, [sys.executable, "-c", STEADY, ROOT / "benchmarks", seconds], threads=1)


def test_sides_take_turns_and_report_seconds_and_memory():
    slow, fast = steady_side("slow", 0.06), steady_side("fast", 0.02)
    taken = turns.measure([slow, fast], turns=3, seconds=0, load=1)
    assert [len(taken[name]) for name in ("slow", "fast")] == [turns.LEAST] * 2  # there is no time for a third
    assert turns.median_ratio(taken["slow"], taken["fast"]) > 1
    assert min(taken["slow"]) >= 0.06 and slow.peak >= slow.base > 1
    assert slow.process.returncode is not None and fast.process.returncode is not None


def test_a_side_that_ends_early_is_named():
    with pytest.raises(SystemExit, match="the process of broken has ended early"):
        turns.measure([turns.Side("broken", [sys.executable, "-c", "pass"], threads=1)], 1, 1)


@pytest.mark.parametrize("name", train_step.WORKS)
def test_every_work_is_a_training_that_exists(name):
    p = train_step.settings(train_step.WORKS[name])
    assert p["batch_size"] in (8, 16, 64, 100) and p["channels"] == (1 if name == "acgan-mnist" else 3)


def test_our_steps_and_samples_run():
    values = train_step.sagan(32, 8, 3, 2)
    for work in (train_step.our_steps(ROOT, values), sample.our_samples(ROOT, values)):
        for _ in range(2):  # the imports, one turn
            next(work)


def test_operations_are_counted_with_their_gradients():
    image, weight = paddle.randn([2, 3, 8, 8]), paddle.randn([5, 3, 3, 3])
    weight.stop_gradient = False
    with flops.PaddleCounter() as counter:
        out = F.conv2d(image, weight, padding=1)  # forward, and the gradient of the weight
    assert counter.count == (2 * 2 * 5 * 8 * 8 * 27, 0)
    with flops.PaddleCounter() as counter:
        F.relu(out.detach())
        out + out.detach()
    size = 4 * 2 * 5 * 8 * 8
    assert counter.count == (0, (1 + 1) * size + (2 + 1) * size + 2 * size)  # the sum has a gradient for one term
    with flops.PaddleCounter() as counter, paddle.no_grad():
        paddle.matmul(paddle.randn([4, 7, 6]), paddle.randn([4, 7, 5]), transpose_x=True)
        F.conv2d_transpose(out, weight, stride=2)
        F.linear(paddle.randn([3, 8]), paddle.randn([8, 9]))
    assert counter.count.multiply_adds == 4 * 6 * 5 * 7 + 2 * 5 * 8 * 8 * 27 + 3 * 8 * 9


@pytest.mark.slow
def test_the_check_of_gpus_passes_on_the_cpu_with_two_processes(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "check_gpu.py", "--device", "cpu", "--processes", "2"]
    done = subprocess.run([*command, "--out", tmp_path / "page.md"], capture_output=True, text=True)
    page = (tmp_path / "page.md").read_text()
    assert done.returncode == 0, page
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")][1:]
    results = {row[0]: row[1] for row in rows}
    skipped = {name for name, result in results.items() if result == "skipped"}
    assert skipped == {"20 steps in bfloat16", "20 steps in float16", "speed"}
    assert len(results) == 9 and set(results.values()) == {"pass", "skipped"}
    assert all(row[2] for row in rows) and "Paddle" in page


def test_a_failed_check_has_its_figure_and_a_missing_gpu_is_named(tmp_path):
    with pytest.raises(check_gpu.Failure, match=r"metrics differ by 2.0e-02, at most 1.0e-02 allowed"):
        check_gpu.within(0.02, 0.01, "metrics differ by")
    with pytest.raises(check_gpu.Failure):
        check_gpu.within(float("nan"), 0.01, "metrics differ by")
    checks = check_gpu.Checks("cpu", 1, tmp_path)
    with pytest.raises(check_gpu.Failure, match=r"exit code 2: train\.py: --imsize"):
        checks.train("wrong", "--recipe", "sagan-imagenet", "--dataset", "fake", "--imsize", "33")
    with pytest.raises(check_gpu.Skipped, match="one GPU is visible"):
        checks.processes_agree()
