"""`--dry_run`: what it measures, and its arithmetic."""

import os

from commands import ROOT, SMALL, run

from dataset import load_dataset
from trainer import Trainer
from training.dry_run import Measured, measure, report


def test_a_dry_run_predicts_the_size_of_a_checkpoint(make_parameters):
    p = make_parameters("acgan-mlp", ema_decay=0.9, sample_step=1, log_step=1)
    image_set = load_dataset(p)
    trainer, drawn = Trainer(p), []
    sample_grid = trainer.sample_grid
    trainer.sample_grid = lambda generator: drawn.append(generator) or sample_grid(generator)
    measured = measure(trainer, image_set)
    assert drawn == [trainer.G_ema, trainer.G]  # as training does with --ema_decay
    assert not os.path.exists(p.save_path)
    assert measured.step > measured.wait > 0 and measured.memory > 2**26
    path, _ = Trainer(p).train(image_set)
    saved = (path / "weights" / "latest").stat().st_size
    assert abs(saved - measured.checkpoint_size) < 30_000  # the header
    files = [file for file in path.rglob("*") if file.is_file() and file.parent.name != "weights"]
    written = sum(file.stat().st_size for file in files)
    real = (path / "samples" / "real.png").stat().st_size
    pictures = written - real * measured.picture_size / (path / "samples" / "step-00000004.png").stat().st_size
    figures = p.total_step * (measured.figures + measured.layer_figures)
    assert 0.7 < pictures / (p.total_step * measured.picture_size + 64 * figures) < 1.3


def test_slow_steps_are_timed_less_often(make_parameters, monkeypatch):
    p = make_parameters("acgan-mlp", total_step=100)
    monkeypatch.setattr("training.dry_run.PATIENCE", 0)
    measured = measure(trainer := Trainer(p), load_dataset(p))
    assert (measured.warm_up, measured.timed, trainer.step) == (1, 1, 2)


def test_the_arithmetic_of_a_dry_run(make_parameters):
    p = make_parameters(
        total_step=10_000, sample_step=100, model_save_step=1000, log_step=10, keep_checkpoints=3, eval_step=500,
        batch_size=8, d_steps_per_iter=2,
    )  # fmt: skip
    measured = Measured(
        warm_up=1, timed=2, step=0.5, wait=0.1, picture=2.0, picture_size=3 * 2**20, checkpoint_size=2**30,
        exchanged=625_000_000, figures=16, layer_figures=4, memory=3 * 2**30,
    )  # fmt: skip
    lines = list(report(p, measured, 1))
    assert lines[0] == "timed 2 steps after 1 other; no run was written"
    assert lines[1:6] == [
        "seconds per step    0.5, of which 0.1 wait for data",
        "images per second   32",
        "peak memory         3 GiB of main memory",
        "time                1 h 27 min for 10000 steps and 100 pictures, without the measurements of --eval_step",
        # 4 checkpoints, 300 pictures, 1000 lines of 16 figures and 100 of 4
        "disk                4.29 GiB, with 4 checkpoints of 1 GiB",
    ]
    assert [line.split("  ")[-1].strip() for line in lines[7:11]] == [
        "as many images", "43 min 20 s", "21 min 40 s", "10 min 50 s",
    ]  # fmt: skip
    assert lines[8].split()[:3] == ["2", "32", "64"]
    assert "596 MiB of gradients, at 10 Gbit/s in up to 1 s" in lines[-1]


def test_a_dry_run_writes_no_run(tmp_path):
    code, out, err = run(tmp_path, ROOT / "train.py", *SMALL, "--dry_run", "--save_path", "runs")
    assert (code, os.listdir(tmp_path)) == (0, []), err
    assert "timed 20 steps after 3 others; no run was written" in out
    assert "for 700 steps and 7 pictures\n" in out
