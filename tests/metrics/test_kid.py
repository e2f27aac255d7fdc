"""KID against torch-fidelity and its definition written as loops."""

import json
from pathlib import Path

import numpy as np
import pytest

from alignment import draw
from metrics.kid import kid
from utils import UserError

FIXTURE = json.loads((Path(__file__).parents[1] / "fixtures" / "metrics.json").read_text())


def test_kid_equals_torch_fidelity():
    seed, count, shape = FIXTURE["seed"], FIXTURE["n"], (FIXTURE["n"], FIXTURE["dim"])
    real = draw.rng("features/real", seed).standard_normal(shape).astype(np.float32)
    fake = (0.9 * draw.rng("features/fake", seed).standard_normal(shape) + 0.25).astype(np.float32)
    score = kid(real, fake, subsets=1, subset_size=count)
    assert score["kid"] == pytest.approx(FIXTURE["kid_one_subset_of_all"], rel=1e-4)
    assert score["kid_std"] == 0


def test_kid_equals_its_definition():
    a, b = np.random.RandomState(0).standard_normal((2, 6, 3))

    def kernel(x, y):
        return (x @ y / 3 + 1) ** 3

    pairs = [(i, j) for i in range(6) for j in range(6)]
    within = sum(kernel(a[i], a[j]) + kernel(b[i], b[j]) for i, j in pairs if i != j) / 30
    between = sum(kernel(a[i], b[j]) for i, j in pairs) / 36
    assert kid(a, b, subsets=1, subset_size=6)["kid"] == pytest.approx(within - 2 * between, rel=1e-12)


def test_kid_is_unbiased():
    """Two sets of one distribution: the mean over subsets is near 0. The biased estimate would be near 0.1."""
    a, b = np.random.RandomState(1).standard_normal((2, 4000, 16))
    score = kid(a, b, subsets=60, subset_size=200)
    assert abs(score["kid"]) < 0.01
    assert 0 < score["kid_std"] < 0.05


def test_subsets_depend_on_the_seed_alone():
    a, b = np.random.RandomState(2).standard_normal((2, 300, 8))
    first = kid(a, b, subsets=5, subset_size=50, seed=3)
    assert kid(a, b, subsets=5, subset_size=50, seed=3) == first
    assert kid(a, b, subsets=5, subset_size=50, seed=4) != first


def test_progress_reaches_its_total():
    calls = []
    kid(*np.zeros((2, 9, 8)), subsets=5, subset_size=3, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 5) for done in range(1, 6)]


def test_bad_features_are_refused():
    features = np.zeros((5, 3))
    with pytest.raises(UserError, match="NaN"):
        kid(features, np.full((5, 3), np.nan), 1, 2)
    with pytest.raises(UserError, match=r"\[5, 3\] and \[5, 4\]"):
        kid(features, np.zeros((5, 4)), 1, 2)
    with pytest.raises(UserError, match="subsets of 6 samples is not possible: a subset has 2 to 5 samples here"):
        kid(features, np.zeros((9, 3)), 1, 6)
    with pytest.raises(UserError, match="subsets of 1"):
        kid(features, features, 1, 1)
