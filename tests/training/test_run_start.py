"""Where a run starts: with new weights, from another run's checkpoint, or from its own newest one."""

import shutil
from dataclasses import replace

import pytest
from commands import SMALL
from test_resume import train

import checkpoint
from dataset import load_dataset
from trainer import Trainer
from training.run_start import Start, find_start
from utils import UserError


@pytest.fixture
def run(make_parameters, tmp_path):
    """The parameters and images of a run of two steps, and its folder."""
    p = make_parameters(name="mine", total_step=2)
    images = load_dataset(p)
    path, _ = Trainer(p).train(images)
    return replace(p, total_step=9), images, path


def test_a_new_run_starts_with_new_weights(run, tmp_path):
    p, images, _ = run
    for resume in (None, "auto"):
        start = find_start(replace(p, resume=resume), tmp_path / "nothing", Start(), images)
        assert start == Start() and start.step == 0


def test_a_resumed_run_starts_from_its_own_newest_checkpoint(run, tmp_path):
    """The checkpoint that it started from is not read, and may be missing."""
    p, images, path = run
    loaded = checkpoint.load_file_or_run(path)._replace(step=1)
    for change, given in (({}, None), ({"pretrained_model": str(tmp_path / "gone")}, None), ({}, loaded)):
        start = find_start(replace(p, resume="auto", **change), path / "weights", Start(given), images)
        assert start.is_own and start.step == 2
        assert start.checkpoint.path == path / "weights" / "step-00000002.safetensors"


@pytest.mark.parametrize("resume", [None, "auto"])
def test_a_run_without_a_checkpoint_starts_from_the_given_one(run, tmp_path, resume):
    """It was read with the command line, or a recipe's or the run's file names it."""
    p, images, path = run
    p = replace(p, resume=resume, pretrained_model=str(path))
    loaded = checkpoint.load_file_or_run(path)
    for given in (loaded, None):
        start = find_start(p, tmp_path / "nothing", Start(given), images)
        assert not start.is_own and start.step == 2 and start.checkpoint.path == loaded.path
    with pytest.raises(UserError, match=r"--total_step 2 is reached: .*step-00000002.safetensors has 2 steps"):
        find_start(replace(p, total_step=2), tmp_path / "nothing", Start(), images)


def test_a_run_whose_last_step_is_saved_starts_there(run):
    p, images, path = run
    p = replace(p, resume="auto", total_step=2)
    assert find_start(p, path / "weights", Start(), images).step == 2
    with pytest.raises(UserError, match="--total_step 1 is reached"):
        find_start(replace(p, total_step=1), path / "weights", Start(), images)


def test_a_complete_run_says_that_nothing_is_left(run, capsys):
    p, images, path = run
    assert Trainer(replace(p, resume="auto", total_step=2)).train(images) == (path, None)
    assert "nothing is left to train: the run has its 2 steps\n" in capsys.readouterr().out


def test_a_recipe_file_can_name_the_weights_to_start_from(tmp_path, capsys):
    """The file of a run that started from a checkpoint does so. The log has the whole path, even a long one."""
    tmp_path /= 30 * "long"
    first = train(*SMALL, "--total_step", "1", "--save_path", str(tmp_path), "--name", "first")
    shutil.copy(checkpoint.load_file_or_run(first).path, tmp_path / "first.safetensors")
    recipe = (first / "parameters.yaml").read_text()
    recipe = recipe.replace("pretrained_model: null", f"pretrained_model: {tmp_path / 'first.safetensors'}")
    (tmp_path / "mine.yaml").write_text(recipe)
    for name, resume in (("second", []), ("third", ["--resume", "auto"])):
        second = train("--recipe", str(tmp_path / "mine.yaml"), "--total_step", "2", "--name", name, *resume)
        assert "goes on from" in capsys.readouterr().out
        line = f"started from {tmp_path / 'first.safetensors'} at step 1 of 2: "
        assert line in (second / "log.txt").read_text()
