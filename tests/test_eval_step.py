"""`train.py --eval_step`: it measures during training, does not change the training, and keeps the best weights."""

import re
import shutil
import signal
import time
from functools import partial

import pytest
from commands import LIMIT, ROOT, SMALL, launch, run, start, train_with_progress, wait_for
from PIL import Image
from test_resume import train
from visualdl import LogReader

import checkpoint
import metrics.kid
from dataset import load_dataset
from trainer import Trainer
from utils import UserError

COMMAND = [ROOT / "train.py", *SMALL, "--log_step", 1, "--sample_step", 100, "--model_save_step", 100]
QUICK = ["--eval_step", "2", "--eval_samples", "100", "--metrics", "distance"]  # distance needs no classifier
MEASURE = ["--eval_step", 2, "--eval_samples", 300, "--metrics", "fid,is,accuracy"]
NAMES = [
    "classifier_fid",
    "classifier_score",
    "classifier_score_std",
    "classifier_accuracy",
    "classifier_accuracy_real",
]


def measured(folder):
    """{step: figures by name} of log.txt."""
    lines = re.findall(r"measured at step (\d+): (.+)", (folder / "log.txt").read_text())
    return {
        int(step): dict(zip(w[::2], map(float, w[1::2]), strict=True)) for step, text in lines for w in [text.split()]
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of two runs of six steps: `measured` and, without measurements, `plain`."""
    folder = tmp_path_factory.mktemp("runs")
    for name, options in (("measured", MEASURE), ("plain", [])):
        code, _, err = run(folder, *COMMAND, "--total_step", 6, "--name", name, *options)
        assert code == 0, err
    return folder / "sagan_models"


def test_figures_are_logged(trained):
    figures = measured(trained / "measured")
    assert list(figures) == [2, 4, 6]
    assert all(sorted(found) == sorted(NAMES) for found in figures.values())
    reader = LogReader(file_path=str(trained / "measured" / "vdlrecords.run.log"))
    for name in NAMES:
        points = reader.get_data("scalar", f"4 scores/{name}")
        assert [point.id for point in points] == [2, 4, 6]
        assert [point.value for point in points] == pytest.approx([f[name] for f in figures.values()], rel=1e-4)


def test_the_best_is_kept(trained):
    """The best has the lowest FID, since FID is the first metric."""
    figures = measured(trained / "measured")
    best = min(figures, key=lambda step: figures[step]["classifier_fid"])
    path = trained / "measured" / "weights" / "best.safetensors"
    assert checkpoint.load(path).step == best
    assert checkpoint.best_score(path)[0] == pytest.approx(-figures[best]["classifier_fid"], rel=1e-5)


@pytest.mark.slow
def test_labels_of_eval_step_accept_class_names(tmp_path):
    """The names are those of the training images."""
    for name in ("daisy", "rose", "tulip"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (16, 16), (60 * number, 0, 0)).save(tmp_path / "data" / name / f"{number}.png")
    command = [ROOT / "train.py", "--recipe", "acgan-mlp", "--dataset", "folder", "--data_path", "data", "--imsize", 16]
    command += ["--batch_size", 4, "--total_step", 2, "--device", "cpu", "--eval_step", 1, "--eval_samples", 6]
    command += ["--test_data_path", "data", "--metrics", "distance", "--labels"]
    code, _, err = run(tmp_path, *command, "dasy", "--name", "refused")
    assert code == 2 and "--labels: there is no class dasy; " in err and "did you mean daisy?" in err
    assert not (tmp_path / "sagan_models").exists()
    code, _, err = run(tmp_path, *command, "tulip,0", "--name", "named")
    assert code == 0, err
    assert list(measured(tmp_path / "sagan_models" / "named")) == [1, 2]


def test_measuring_does_not_change_the_training(trained):
    states = [checkpoint.load_file_or_run(trained / name) for name in ("measured", "plain")]
    assert states[0].step == states[1].step == 6
    for part, arrays in states[0].parts.items():
        for name, array in arrays.items():
            assert (states[1].parts[part][name] == array).all(), f"{part}/{name}"
    logs = [(trained / name / "log.txt").read_text() for name in ("measured", "plain")]
    steps = [re.findall(r"step \d+ (d_real .+) images", log) for log in logs]
    assert steps[0] == steps[1] and len(steps[0]) == 6


@pytest.mark.slow
def test_test_py_gives_the_same_figures_for_the_best(trained, tmp_path):
    best = trained / "measured" / "weights" / "best.safetensors"
    command = [ROOT / "test.py", "--pretrained_model", best, "--num_samples", 300, "--metrics", "fid,is,accuracy"]
    code, out, err = run(tmp_path, *command, "--test_path", "t", "--device", "cpu")
    assert code == 0, err
    figures = measured(trained / "measured")[checkpoint.load(best).step]
    assert float(re.search(r"classifier FID: +(\S+)", out)[1]) == pytest.approx(figures["classifier_fid"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("score", [-1e-3, -1e9])
def test_a_resumed_run_keeps_an_earlier_best_that_is_better(trained, tmp_path, score):
    folder = tmp_path / "run"
    shutil.copytree(trained / "measured", folder)
    best = folder / "weights" / "best.safetensors"
    loaded = checkpoint.load(best)
    checkpoint.save(best, 2, loaded.parameters, loaded.parts, loaded.notes | {"score": score})
    code, _, err = run(tmp_path, ROOT / "train.py", "--resume", folder, "--total_step", 8)
    assert code == 0, err
    assert list(measured(folder)) == [2, 4, 6, 8]
    assert checkpoint.load(best).step == (2 if score == -1e-3 else 8)


@pytest.mark.slow
def test_two_processes_measure_as_one(trained, tmp_path):
    """Each process has half of the batch, with synchronised batch norm. The training and the figures are the same."""
    options = [*COMMAND, "--total_step", 4, "--global_batch_size", 64, "--sync_bn", *MEASURE]
    process = launch(tmp_path, 2, *options, "--name", "two")
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    one, two = measured(trained / "measured"), measured(tmp_path / "sagan_models" / "two")
    for step in (2, 4):
        assert two[step]["classifier_fid"] == pytest.approx(one[step]["classifier_fid"], rel=1e-2)
    assert (tmp_path / "sagan_models" / "two" / "weights" / "best.safetensors").exists()


def test_the_best_is_chosen_anew_when_scores_do_not_compare(tmp_path):
    folder = train(*SMALL, *QUICK, "--total_step", "2", "--save_path", str(tmp_path))
    best = folder / "weights" / "best.safetensors"
    loaded = checkpoint.load(best)
    checkpoint.save(best, 2, loaded.parameters, loaded.parts, loaded.notes | {"score": 1e9})
    train("--resume", str(folder), "--total_step", "4")
    assert checkpoint.load(best).step == 2
    train("--resume", str(folder), "--total_step", "6", "--eval_samples", "200")
    assert checkpoint.load(best).step == 6 and checkpoint.best_score(best)[0] < 1e9
    assert "the best is chosen anew" in (folder / "log.txt").read_text()


def test_an_interrupted_measurement_runs_again(tmp_path):
    options = [*QUICK, "--eval_samples", 10**6, "--total_step", 4, "--name", "run"]
    process = start(tmp_path, *train_with_progress(0), *COMMAND[1:], *options)
    folder, shown = tmp_path / "sagan_models" / "run", ""
    while "distance, real:" not in shown:  # the measurement's progress
        shown += process.stderr.read(1)
        assert process.poll() is None, shown
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130 and "stopped at step 2" in err, err
    assert measured(folder) == {}
    train("--resume", str(folder), "--eval_samples", "100")
    assert list(measured(folder)) == [2, 4]
    assert checkpoint.load(folder / "weights" / "best.safetensors").step in (2, 4)


@pytest.mark.slow
def test_an_interrupted_measurement_of_the_last_step_stops_the_run(make_parameters, monkeypatch):
    """The run is stopped, not complete, so its measurement runs again on resume."""

    def interrupted(*arguments, compare=metrics.kid.kid):
        signal.raise_signal(signal.SIGINT)
        return compare(*arguments)

    monkeypatch.setattr(metrics.kid, "kid", interrupted)
    p = make_parameters(dataset="digits", num_classes=10, total_step=2, eval_step=2, eval_samples=100, metrics="kid")
    path, stopped = Trainer(p).train(load_dataset(p))
    assert stopped == signal.SIGINT and measured(path) == {}
    assert checkpoint.load_file_or_run(path).step == 2


def test_the_last_step_is_measured_once(trained, tmp_path):
    """The run was trained without measurements and is resumed twice with them."""
    folder = tmp_path / "run"
    shutil.copytree(trained / "plain", folder, symlinks=True)
    lines = []
    for _ in range(2):
        train("--resume", str(folder), *QUICK)
        lines += re.findall("(.+) measured at step 6", (folder / "log.txt").read_text())
    assert len(lines) == 2 and lines[0] == lines[1]  # with their time, so it is one measurement
    for name in ("step-00000006", "best"):
        saved = checkpoint.load(folder / "weights" / f"{name}.safetensors").parts
        for part, arrays in checkpoint.load_file_or_run(trained / "plain").parts.items():
            assert saved[part].keys() == arrays.keys()
            assert all((saved[part][tensor] == array).all() for tensor, array in arrays.items())


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_during_a_measurement_saves_the_step(tmp_path, processes):
    """The measurement is dropped and the step is saved. The resumed run measures first."""
    options = [*COMMAND, "--total_step", 1000, "--eval_step", 2, "--eval_samples", 10**6, "--metrics", "fid"]
    options += ["--name", "run"]
    begin = partial(launch, tmp_path, processes) if processes > 1 else partial(start, tmp_path)
    process = begin(*options)
    log = tmp_path / "sagan_models" / "run" / "log.txt"
    try:
        wait_for(process, lambda: log.exists() and " step 1 " in log.read_text())
        time.sleep(3)  # step 2 takes a tenth of a second, its measurement takes minutes
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert "Traceback" not in err
    assert processes > 1 or process.returncode == 130
    step = checkpoint.load_file_or_run(log.parent).step
    assert step == 2 and measured(log.parent) == {}
    process = begin(ROOT / "train.py", "--resume", log.parent, "--total_step", 4, "--eval_samples", 100)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    assert list(measured(log.parent)) == [2, 4]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--metrics", "is", "--eval_samples", "9"], "'is' needs 10 samples or more, not 9"),
        (["--metrics", "intra_fid", "--eval_samples", "15"], "2 samples of each class"),
        (["--metrics", "none"], "--eval_step has nothing to measure"),
        (["--metrics", "fid", "--labels", "99"], "--labels: there is no class 99; "),
    ],
)
def test_impossible_measurements_are_refused_before_a_folder_is_made(tmp_path, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=says):
        train(*SMALL, "--total_step", "4", "--eval_step", "2", *options)
    assert list(tmp_path.iterdir()) == []
