"""The Inception Score against torch-fidelity and closed forms."""

import json
from pathlib import Path

import numpy as np
import pytest

from alignment import draw
from metrics.inception_score import inception_score
from utils import UserError

FIXTURE = json.loads((Path(__file__).parents[1] / "fixtures" / "metrics.json").read_text())


def test_fixture():
    shape = (FIXTURE["n"], FIXTURE["classes"])
    logits = (3 * draw.rng("logits", FIXTURE["seed"]).standard_normal(shape)).astype(np.float32)
    score = inception_score(logits, FIXTURE["splits"])
    assert score["inception_score"] == pytest.approx(FIXTURE["inception_score"]["mean"], rel=1e-6)
    assert score["inception_score_std"] == pytest.approx(FIXTURE["inception_score"]["std"], rel=1e-6)


def test_sure_and_varied_samples_score_the_number_of_classes():
    """Also where the softmax of every other class underflows to 0."""
    for sureness in (60, 5000):
        logits = sureness * np.eye(7)[np.arange(70) % 7]
        assert inception_score(logits, 5) == {
            "inception_score": pytest.approx(7),
            "inception_score_std": pytest.approx(0),
        }


def test_equal_samples_score_one():
    assert inception_score(np.tile([[0.5, -2.0, 3.0]], (20, 1)), 4)["inception_score"] == pytest.approx(1, abs=1e-12)


def test_parts_are_contiguous_and_may_differ_in_size():
    """7 samples in 2 parts: 3 and 4. The first shows one class, the second two: scores 1 and 2."""
    logits = 100 * np.eye(2)[[0, 0, 0, 0, 1, 0, 1]]
    score = inception_score(logits, 2)
    assert score == {"inception_score": pytest.approx(1.5), "inception_score_std": pytest.approx(0.5)}


def test_bad_logits():
    with pytest.raises(UserError, match="NaN"):
        inception_score(np.array([[1.0, np.nan]]), 1)
    with pytest.raises(UserError, match=r"over 10 parts .* not 3"):
        inception_score(np.zeros((3, 4)), 10)
    with pytest.raises(UserError, match=r"\[N, classes\], not \[4\]"):
        inception_score(np.zeros(4), 1)
