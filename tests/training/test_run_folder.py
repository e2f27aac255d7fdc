"""A run's folder: its name, the checkpoints that it keeps, `latest` and `best`."""

import io
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from commands import LIMIT
from PIL import Image
from visualdl import LogReader

import checkpoint
import pictures
from dataset import load_dataset
from trainer import Trainer
from training.run_folder import RunFolder
from training.run_start import Start
from utils import RUN_FILE, UserError


@pytest.fixture
def images(make_parameters):
    return load_dataset(make_parameters())


def begin_run(parameters, images):
    run = RunFolder(parameters)
    run.begin(Start(), images)
    return run


def names(run):
    return sorted(path.name for path in run.weights.iterdir())


@pytest.mark.parametrize(("keep", "kept"), [(0, [1, 2, 3, 4, 5]), (1, [5]), (2, [4, 5]), (9, [1, 2, 3, 4, 5])])
def test_the_newest_checkpoints_are_kept(make_parameters, images, keep, kept):
    p = make_parameters(keep_checkpoints=keep)
    state = Trainer(p).state
    with begin_run(p, images) as run:
        for step in range(1, 6):
            run.save(step, state)
        run.save_best(5, 0.5, "fid", state)
    assert names(run) == ["best.safetensors", "latest", *(f"step-{step:08d}.safetensors" for step in kept)]
    assert checkpoint.load(run.weights / "latest").step == 5
    assert not (run.weights / "latest").readlink().is_absolute()  # a run folder may be moved


def test_the_best_is_kept_across_sessions(make_parameters, images):
    p = make_parameters(name="mine")
    state = Trainer(p).state
    best = []
    for resume, scores in ((None, [-3.0, -1.5, -2.0]), ("auto", [-1.75, float("nan"), -1.25])):
        with begin_run(make_parameters(name="mine", resume=resume), images) as run:
            for score in scores:
                run.save_best(len(best), score, "fid", state)
                run.save(100, state)  # waits until the best is written
                best.append(checkpoint.load(run.weights / "best.safetensors").step)
    assert best == [0, 1, 1, 1, 1, 5]


def test_a_damaged_best_is_replaced(make_parameters, images):
    p = make_parameters()
    state = Trainer(p).state
    with begin_run(p, images) as run:
        (run.weights / "best.safetensors").write_bytes(b"\xff" * 100)
        run.save_best(1, -9.0, "fid", state)
    assert checkpoint.load(run.weights / "best.safetensors").step == 1


def test_the_best_is_chosen_among_scores_that_compare(make_parameters, images):
    state = Trainer(make_parameters()).state
    best = []
    with begin_run(make_parameters(), images) as run:
        for step, (score, key) in enumerate([(-1.0, "a"), (-9.0, "b"), (-9.5, "b"), (-8.0, "b")]):
            run.save_best(step, score, key, state)
            run.save(100, state)
            best.append(checkpoint.load(run.weights / "best.safetensors").step)
    assert best == [0, 1, 1, 3]
    assert (run.path / "log.txt").read_text().count("measured in another way: the best is chosen anew") == 1


@pytest.mark.parametrize("resume", [None, "auto"])
def test_the_folder_of_a_run_that_never_began_is_used(make_parameters, images, resume):
    """Such a run leaves the lock of an ended process and a half-written file."""
    p = make_parameters(name="mine", resume=resume)
    folder = Path(p.save_path, "mine")
    folder.mkdir(parents=True)
    (folder / ".lock").write_text("process 1 on here")
    (folder / f".tmp-parameters-x{RUN_FILE}").write_text("half")
    with begin_run(p, images) as run, pytest.raises(UserError, match=f"in use by process {os.getpid()} "):
        RunFolder(make_parameters(name="mine", resume="auto"))
    assert run.path == folder
    assert sorted(path.name for path in folder.iterdir() if ".tmp" in path.name or path.name == RUN_FILE) == [RUN_FILE]


@pytest.mark.parametrize(
    ("resume", "says"),
    [(None, "exists already; .* --resume auto"), ("auto", f"not a run's folder: it has no {RUN_FILE}")],
)
def test_a_folder_of_something_else_is_refused(make_parameters, resume, says):
    p = make_parameters(name="mine", resume=resume)
    folder = Path(p.save_path, "mine")
    (folder / "weights").mkdir(parents=True)
    with pytest.raises(UserError, match=f"--name mine: .*{says}"):
        RunFolder(p)
    assert [path.name for path in folder.iterdir()] == ["weights"]


def test_runs_that_start_together_get_different_numbers(make_parameters):
    p, count, each = make_parameters(), 8, 10
    together, names, errors = threading.Barrier(count, timeout=LIMIT), [], []

    def start():
        for _ in range(each):
            together.wait()
            try:
                with RunFolder(p) as run:
                    names.append(run.path.name)
            except UserError as error:
                errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads switch between any two lines
    try:
        threads = [threading.Thread(target=start) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert errors == []
    assert sorted(names) == sorted(f"acgan-digits-{number}" for number in range(1, count * each + 1))


@pytest.mark.parametrize("made", ["file", "link"])
def test_a_save_path_that_is_not_a_folder_is_refused(make_parameters, made):
    p = make_parameters()
    path = Path(p.save_path)
    path.touch() if made == "file" else path.symlink_to("nowhere")
    with pytest.raises(UserError, match=f"--save_path {path}"):
        RunFolder(p)


def test_pictures_show_class_names(make_parameters, tmp_path, capsys):
    """The PNG and VisualDL's record are the same picture. Names that cannot be drawn are listed once."""
    names = ("daisy", "玫瑰", "雏菊")
    for name in names:
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (32, 32), (40 * number, 0, 0)).save(tmp_path / "data" / name / f"{number}.png")
    p = make_parameters("sagan", dataset="folder", data_path=str(tmp_path / "data"), num_classes=3, imsize=32)
    image_set = load_dataset(p)
    samples = np.random.default_rng(0).integers(0, 256, (30, 3, 32, 32), np.uint8)
    with RunFolder(p) as run:
        run.begin(Start(), image_set)
        run.write_samples(2, samples)
        run.write_samples(4, samples)
        run.write_animation()
    listed = [line for line in capsys.readouterr().out.splitlines() if "as numbers" in line]
    assert len(listed) == 1
    for name in names[1:]:
        assert f"{image_set.class_names.index(name)}: {name}" in listed[0] and "daisy" not in listed[0]
    shown = [name if name == "daisy" else str(number) for number, name in enumerate(image_set.class_names)]
    written = np.asarray(Image.open(run.images / "step-00000004.png"))
    assert (written == pictures.grid(samples, shown)).all()
    real = np.asarray(Image.open(run.images / "real.png"))
    assert real.shape == written.shape and (real[:, : -(10 * 66 + 2)] == written[:, : -(10 * 66 + 2)]).all()
    records = LogReader(file_path=str(run.path / "vdlrecords.run.log"))
    for tag, picture in (("samples/generated", written), ("samples/real", real)):
        recorded = records.get_data("image", tag)[-1].image.encoded_image_string
        assert (np.asarray(Image.open(io.BytesIO(recorded))) == picture).all()
    with Image.open(run.images / "samples-1.gif") as animation:
        assert animation.n_frames == 2
