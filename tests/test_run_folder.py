"""A run's folder: which checkpoints it keeps, what `latest` and `best` are, what a failed write does."""

import pytest

import checkpoint
from dataset import load_dataset
from run_folder import RunFolder
from trainer import Trainer


@pytest.fixture
def images(make_parameters):
    return load_dataset(make_parameters())


def begun(parameters, images):
    run = RunFolder(parameters)
    run.begin(0, images)
    return run


def names(run):
    return sorted(path.name for path in run.weights.iterdir())


@pytest.mark.parametrize(("keep", "kept"), [(0, [1, 2, 3, 4, 5]), (1, [5]), (2, [4, 5]), (9, [1, 2, 3, 4, 5])])
def test_the_newest_checkpoints_are_kept(make_parameters, images, keep, kept):
    p = make_parameters(keep_checkpoints=keep)
    state = Trainer(p).state
    with begun(p, images) as run:
        for step in range(1, 6):
            run.save(step, state)
        run.save_best(5, 0.5, state)
    assert names(run) == ["best.safetensors", "latest", *(f"step-{step:08d}.safetensors" for step in kept)]
    assert checkpoint.load(run.weights / "latest").step == 5
    assert not (run.weights / "latest").readlink().is_absolute()  # a run folder may move


def test_the_best_is_kept_across_sessions(make_parameters, images):
    p = make_parameters(name="mine")
    state = Trainer(p).state
    best = []
    for resume, scores in ((None, [-3.0, -1.5, -2.0]), ("auto", [-1.75, float("nan"), -1.25])):
        with begun(make_parameters(name="mine", resume=resume), images) as run:
            for score in scores:
                run.save_best(len(best), score, state)
                run.save(100, state)  # which waits for the best
                best.append(checkpoint.load(run.weights / "best.safetensors").step)
    assert best == [0, 1, 1, 1, 1, 5]


def test_a_damaged_best_is_replaced(make_parameters, images):
    p = make_parameters()
    state = Trainer(p).state
    with begun(p, images) as run:
        (run.weights / "best.safetensors").write_bytes(b"\xff" * 100)
        run.save_best(1, -9.0, state)
    assert checkpoint.load(run.weights / "best.safetensors").step == 1
