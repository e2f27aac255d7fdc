"""The benchmarks: command lines, processes that take turns, counts of operations."""

import json
import re
import subprocess
import sys

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from commands import ROOT

from checkpoint import load
from dataset import load_dataset

sys.path.append(str(ROOT / "benchmarks"))

import attention
import check_gpu
import flops
import glyphs
import health
import sample
import train_step
import turns

import recipes

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
    assert p["batch_size"] in (8, 16, 64, 100) and p["channels"] == (
        1 if name in ("acgan-mnist", "acgan-digits") else 3
    )


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
    checks.end = 0
    with pytest.raises(check_gpu.Skipped, match="the checks before it took 570 seconds"):
        checks.features()
    assert check_gpu.printed_by("no-such-command") == []


def test_glyphs_are_a_data_set_of_many_classes(tmp_path, make_parameters):
    training, test = tmp_path / "training.npz", tmp_path / "test.npz"
    for path, purpose in ((training, "training"), (test, "test")):
        glyphs.write(path, 3, 4, purpose)
    p = make_parameters(dataset="folder", num_classes=3, data_path=training, test_data_path=test)
    train_set, test_set = load_dataset(p), load_dataset(p, "test")
    assert train_set.class_names == ("0", "1", "2") and (train_set.labels == np.repeat(range(3), 4)).all()
    images = np.concatenate([train_set.stacked(), test_set.stacked()])
    assert images.shape == (24, 3, 16, 16) and (images[:, 0] == images[:, 2]).all()
    assert len(np.unique(images, axis=0)) == 24  # each image differs, in both files
    assert (images.max((1, 2, 3)) > 128).all() and (images[:, :, 0].max((1, 2)) < 128).all()  # white, inside
    assert (glyphs.glyphs(3, 4, "test")[0].transpose(0, 3, 1, 2) == test_set.stacked()).all()  # again the same
    assert len(set(glyphs.CHARACTERS)) == len(glyphs.CHARACTERS) == 128


@pytest.mark.slow
def test_glyphs_are_measured_as_digits_are(tmp_path):
    training, test = tmp_path / "training.npz", tmp_path / "test.npz"
    glyphs.write(training, 4, 30, "training")
    glyphs.write(test, 4, 30, "test")
    figures = recipes.figures_of_glyphs(test, training, test, seed=1)
    assert figures["classifier_accuracy"] == figures["classifier_accuracy_real"] > 0.9
    assert figures["classifier_fid"] < 1e-6 and 0.9 < figures["class_distance_ratio"] < 1.1
    assert recipes.figures_of_glyphs(training, training, test, seed=1)["class_distance_ratio"] == 1


@pytest.mark.slow
def test_a_comparison_is_measured_once(tmp_path, monkeypatch, capsys):
    small = ("--recipe", "sagan-digits", "--g_conv_dim", "4", "--d_conv_dim", "4", "--total_step", "2")
    monkeypatch.setitem(recipes.COMPARISONS, "sagan-digits", {"small": small})
    monkeypatch.setattr(sys, "argv", ["recipes.py", "sagan-digits", "--out", str(tmp_path), "--seeds", "1"])
    recipes.main()
    shown = capsys.readouterr().out
    run = tmp_path / "sagan-digits-small-1"
    figures = json.loads((run / "test" / "report.json").read_text())["figures"]
    assert f"small, seed 1: classifier_accuracy {figures['classifier_accuracy']:.2%}" in shown
    with monkeypatch.context() as context:
        context.setattr(recipes, "call", None)  # nothing is trained or tested again
        recipes.main()
        assert capsys.readouterr().out == shown
    monkeypatch.setattr(sys, "argv", ["attention.py", str(run)])
    attention.main()
    assert "| gate at 0 | 1 |" in capsys.readouterr().out
    assert not load(run / "no-attention" / "step-00000002.safetensors").parts["G_ema"][attention.GATE].any()


def test_a_table_shows_mean_and_spread():
    names = (*recipes.FIGURES, "classifier_accuracy_real")
    runs = [dict(zip(names, values, strict=True)) for values in ((0.97, 0.9, 3.0, 0.92), (0.99, 0.8, 5.0, 0.94))]
    rows = recipes.table({"two": runs, "one": runs[:1]}).splitlines()
    assert rows[2:] == [
        "| two | 2 | 98.00% ± 1.41% | 0.850 ± 0.071 | 4.0 ± 1.4 |",
        "| one | 1 | 97.00% | 0.900 | 3.0 |",
        "| real test images | 2 | 93.00% ± 1.41% |  |  |",
    ]
    runs[0]["classifier_fid_floor"] = 2.5
    assert recipes.table({"one": runs[:1]}).splitlines()[-1] == "| real test images | 1 | 92.00% |  | 2.5 |"


def test_the_figures_of_glyphs_are_kept_beside_the_report(tmp_path, monkeypatch, capsys):
    """Once measured, they are only read. Each weight of the page is a row."""
    called = []
    figures = dict(zip(recipes.FIGURES, (0.97, 0.9, 3.0), strict=True)) | {"classifier_accuracy_real": np.float64(0.93)}
    monkeypatch.setattr(recipes, "call", lambda script, *_: called.append(script))
    monkeypatch.setattr(recipes, "tested", lambda run, folder, _: folder.mkdir(parents=True))
    monkeypatch.setattr(recipes, "figures_of_glyphs", lambda *_: figures)
    rows = [f"ACGAN with weight {weight}" for weight in (1, 2, 4)]
    rows += [f"ReACGAN with weight {weight}" for weight in ("0.5", 1, 4)]
    options = ["--out", str(tmp_path), "--seeds", "29", "--rows", ",".join(rows)]
    monkeypatch.setattr(sys, "argv", ["recipes.py", "glyphs", *options])
    recipes.main()
    shown = capsys.readouterr().out
    assert "ReACGAN with weight 4, seed 29: classifier_accuracy 97.00%" in shown
    assert shown.count("classifier_accuracy_real 93.00%") == 6 and "| real test images | 1 | 93.00% |" in shown
    kept = tmp_path / "glyphs-ReACGAN-with-weight-4-29" / "test" / "figures.json"
    assert json.loads(kept.read_text()) == figures and called.count("train.py") == 6
    monkeypatch.setattr(recipes, "figures_of_glyphs", None)
    recipes.main()
    assert capsys.readouterr().out == shown


@pytest.mark.slow
def test_the_cost_of_health_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["health.py", "sagan-digits", "--turns", "1"])
    health.main()
    assert re.search(r"norms at each 10 and a check at each 100 steps: \d+\.\d\d% of a step", capsys.readouterr().out)


def test_the_share_of_health_counts_intervals(make_parameters):
    p = make_parameters(log_step=10, sample_step=100)
    assert health.share(2.0, 0.1, 5.0, p) == pytest.approx((0.01 + 0.05) / 2)
