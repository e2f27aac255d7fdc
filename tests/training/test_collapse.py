"""The alarm about a collapsed training: its three signs, and runs that collapse in different ways."""

import json
import re

import numpy as np
import pytest

import checkpoint
from command.line import CommandLine
from dataset import load_dataset
from trainer import Trainer, resolve
from training.collapse import HELP, Collapse

HEALTHY = {"d_real": 0.7, "d_fake": 0.6, "g_adv": 0.9, "right_real": 0.8, "right_fake": 0.7}


def spread(share):
    """Samples, as `sampler.grid_samples` returns, of two classes; their distance grows with `share`."""
    noise = np.random.default_rng(0).uniform(-1, 1, (20, 1, 4, 4))
    return (128 + 100 * share * noise).round().astype(np.uint8)


REAL = 100 * np.sqrt(2 / 3 * 16)  # about the distance of samples with share 1


def check_all(collapse, readings, first=10):
    """Signs by check: one reading {metric or "spread": value} per check, at the steps `first`, `first` + 1, …"""
    signs = []
    for step, reading in enumerate(readings, first):
        values = HEALTHY | reading
        share = values.pop("spread", 1)
        collapse.add(values)
        signs.append(collapse.check(step, spread(share)))
    return signs


@pytest.fixture
def collapse(make_parameters):
    return Collapse(make_parameters(total_step=100), REAL)


def test_samples_that_become_alike(collapse):
    signs = check_all(collapse, [{"spread": share} for share in (0.8, 0.5, 0.26, 0.2, 0.2)])
    assert [len(found) for found in signs] == [0, 0, 0, 1, 0]  # once, below 0.3 of 0.8
    assert re.search(
        r"at step 13: samples of a class look alike: .* is 0.2\d of .* and it was 0.[78]\d at best; ", signs[3][0]
    )


def test_samples_that_were_alike_from_the_start(collapse):
    assert len(check_all(collapse, [{"spread": 0.08}])[0]) == 1


def test_samples_more_varied_than_real_images_are_no_measure(collapse):
    assert not any(check_all(collapse, [{"spread": share} for share in (1.2, 0.33)]))


def test_images_without_a_distance_are_not_compared(make_parameters):
    for real_distance in (0.0, float("nan")):
        collapse = Collapse(make_parameters(total_step=100), real_distance)
        assert not any(check_all(collapse, [{"spread": share} for share in (1, 0, 0)]))


@pytest.mark.parametrize(("values", "expected"), [((1, 1, 1, 1, 1, 1), 4), ((1, 1, 1, 1, 0.98, 1, 1, 1, 1, 1), 9)])
def test_a_discriminator_that_is_always_right(collapse, values, expected):
    signs = check_all(collapse, [{"right_real": value, "right_fake": 1.0} for value in values])
    assert [number for number, found in enumerate(signs) if found] == [expected]
    assert "D was right on over 99 % of the real and of the generated images at 5 checks in a row" in signs[expected][0]


def test_a_loss_that_explodes(collapse):
    signs = check_all(collapse, [{"g_adv": value} for value in (0.5, -0.5, 0.6, 49, -60, 80)])
    assert [len(found) for found in signs] == [0, 0, 0, 0, 1, 0]
    assert "g_adv is 60, and its median is 0.55; lower --d_lr" in signs[4][0]


def test_a_small_loss_may_grow(collapse):
    assert not any(check_all(collapse, [{"d_real": value} for value in (1e-6, 1e-6, 1e-6, 9)]))


def test_logits_of_wgan_gp_may_drift_together(make_parameters):
    collapse = Collapse(make_parameters(total_step=100, adv_loss="wgan_gp"), REAL)
    drift = [0.1, 1, 100, 1e4]
    readings = [{"d_real": -x, "d_fake": x + 0.1, "g_adv": -x, "d_penalty": 0.1} for x in drift]
    assert not any(check_all(collapse, readings))
    assert any(check_all(collapse, [readings[-1] | {"d_fake": 2e4}]))


def test_nothing_is_reported_in_the_first_tenth(collapse):
    assert not any(check_all(collapse, [{"spread": 1}, {"spread": 0}, {"g_adv": 1e9}], first=1))
    assert len(check_all(collapse, [{"spread": 0}])[0]) == 1


def test_values_between_checks_are_averaged(collapse):
    for g_adv in (0.5, 0.7):
        collapse.add(HEALTHY | {"g_adv": g_adv})
    collapse.check(1, spread(1))
    assert collapse.losses["g_adv"] == [pytest.approx(0.6)]


def test_the_state_survives_a_resume(make_parameters, collapse):
    """Each check on an object made from the notes of the last one finds what one object finds."""
    readings = [{"spread": 0.9}, {"g_adv": 3.0}, {"right_real": 1, "right_fake": 1, "g_adv": 999}, {"spread": 0.1}]
    readings += [{"spread": 0.1, "right_real": 1, "right_fake": 1}] * 5
    straight = check_all(collapse, readings)
    notes, resumed = None, []
    for step, reading in enumerate(readings, 10):
        one = Collapse(make_parameters(total_step=100), REAL, notes)
        resumed += check_all(one, [reading], step)
        notes = json.loads(json.dumps(one.notes()))
    assert resumed == straight and sum(map(len, straight)) == len(HELP) == 3


@pytest.mark.parametrize(
    "notes", [None, 7, "x", {}, {"sums": 1}, {"sums": {}, "count": "x"}, {"sums": {"d_real": None}, "count": 1}]
)
def test_notes_of_another_form_start_anew(make_parameters, notes):
    p = make_parameters(total_step=100)
    assert Collapse(p, REAL, notes).notes() == Collapse(p, REAL).notes()


def test_a_negative_count_starts_anew(make_parameters):
    """With one more reading it would be 0, and the check divides by it."""
    p = make_parameters(total_step=100)
    collapse = Collapse(p, REAL, Collapse(p, REAL).notes() | {"count": -1})
    assert check_all(collapse, [{}]) == [[]]


def train(tmp_path, *options):
    """Train acgan-digits with narrow networks. Returns {step: the sign reported there}, and the run's folder."""
    command = ["--recipe", "acgan-digits", "--total_step", "200", "--sample_step", "20", "--log_step", "5"]
    command += ["--g_conv_dim", "16", "--d_conv_dim", "16", "--batch_size", "16", "--device", "cpu"]
    command += ["--save_path", str(tmp_path), "--name", "run", "--resume", "auto", *options]
    p = CommandLine(command).parameters()
    image_set = load_dataset(p)
    Trainer(resolve(p, image_set)).train(image_set)
    log = (tmp_path / "run" / "log.txt").read_text()
    return dict(re.findall("collapsed at step ([0-9]+): (.+)", log)), tmp_path / "run"


def test_a_run_tells_a_collapse_once_and_goes_on(tmp_path, capsys):
    """D learns much faster than G, and is soon right on all images."""
    steps = ("--total_step", "40", "--sample_step", "3", "--log_step", "3")
    signs, path = train(tmp_path, "--d_lr", "0.005", "--g_lr", "1e-6", "--inst_noise_sigma", "0", *steps)
    ((step, sign),) = signs.items()
    assert int(step) <= 27 and sign.startswith("D was right on over 99 %")
    assert capsys.readouterr().out.count(f"the training may have collapsed at step {step}: {sign}") == 1
    assert " step 39 " in (path / "log.txt").read_text()
    assert checkpoint.load(path / "weights" / "latest").notes["collapse"]["reported"] == ["beaten"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "sign"),
    [
        ("--d_lr 0.005 --g_lr 1e-6 --inst_noise_sigma 0", "D was right"),  # D learns much faster than G
        ("--adv_loss gan --d_lr 0.005 --g_lr 1e-4 --inst_noise_sigma 0", "D was right"),  # G's loss saturates
        ("--g_steps_per_iter 20 --g_lr 0.005 --inst_noise_sigma 0", "samples of a class look alike"),
        ("--adv_loss wgan_gp --lambda_gp 0 --d_lr 0.1", "d_penalty is"),  # nothing bounds the critic
    ],
)
def test_collapsing_runs_are_reported_within_five_checks(tmp_path, options, sign):
    signs, _ = train(tmp_path, *options.split(), "--total_step", "100")
    assert any(found.startswith(sign) for found in signs.values()), signs  # the run's five checks


@pytest.mark.slow
def test_a_learning_rate_that_is_raised_on_resume_is_reported(tmp_path):
    healthy, _ = train(tmp_path, "--total_step", "100")
    signs, _ = train(tmp_path, "--d_lr", "30")
    assert not healthy
    assert signs and min(map(int, signs)) <= 200, signs


@pytest.mark.slow
def test_a_generator_that_ignores_its_noise_is_reported(tmp_path, monkeypatch):
    trained = Trainer.train_step

    def train_step(trainer, data):
        if trainer.step >= 100:
            weight = trainer.G.linear.weight
            weight.set_value(np.zeros(weight.shape, "float32"))
        return trained(trainer, data)

    monkeypatch.setattr(Trainer, "train_step", train_step)
    signs, _ = train(tmp_path)
    assert next(iter(signs)) == "120", signs
    assert signs["120"].startswith("samples of a class look alike")
