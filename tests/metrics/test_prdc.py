"""Precision, recall, density and coverage against the package prdc 0.2."""

import json
from pathlib import Path

import numpy as np
import pytest

from alignment import draw
from metrics.prdc import prdc
from utils import UserError

FIXTURE = json.loads((Path(__file__).parents[1] / "fixtures" / "metrics.json").read_text())


def fixture_features():
    seed, shape = FIXTURE["seed"], (FIXTURE["n"], FIXTURE["dim"])
    real = draw.rng("features/real", seed).standard_normal(shape).astype(np.float32)
    fake = (0.9 * draw.rng("features/fake", seed).standard_normal(shape) + 0.25).astype(np.float32)
    return real, fake


@pytest.mark.parametrize("block", [64, 333, 5000])
def test_prdc_in_blocks_of_any_size_equals_the_package(block):
    assert prdc(*fixture_features(), nearest=5, block=block) == pytest.approx(FIXTURE["prdc_k5"], abs=1e-6)


# The figures of prdc 0.2 for 60 real samples against 20 copies of them, 5 of these twice, and 40 others.
COPIES = {
    1: (0.8461538461538461, 0.48333333333333334, 1.3076923076923077, 0.7166666666666667),
    3: (0.9692307692307692, 0.8666666666666667, 1.1589743589743589, 1.0),
    5: (0.9846153846153847, 0.9166666666666666, 1.1876923076923078, 1.0),
}


@pytest.mark.parametrize("nearest", COPIES)
@pytest.mark.parametrize("block", [1, 16, 25, 2048])
def test_copies_of_real_samples(nearest, block):
    """Copies lie exactly on the edges of balls, so the figures depend on whether an edge counts as inside."""
    real = draw.rng("ties/real", 0).standard_normal((60, 8)).astype(np.float32)
    others = draw.rng("ties/fake", 0).standard_normal((40, 8)).astype(np.float32)
    scores = prdc(real, np.concatenate([real[:20], real[:5], others]), nearest, block)
    assert tuple(scores.values()) == pytest.approx(COPIES[nearest], abs=1e-12)


def test_a_common_offset_changes_nothing():
    """An offset changes no distance. Products in float32 would lose the distances here."""
    real, fake = (np.round(features, 2).astype(np.float64) for features in fixture_features())
    assert prdc(real + 5000, fake + 5000) == prdc(real, fake)


def test_progress_reaches_its_total():
    calls = []
    prdc(*fixture_features(), block=200, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 6 + 6 + 9) for done in range(1, 22)]


def test_bad_features_are_refused():
    features = np.random.RandomState(0).standard_normal((6, 3))
    with pytest.raises(UserError, match="NaN"):
        prdc(features, np.full((6, 3), np.nan))
    with pytest.raises(UserError, match=r"\[6, 3\] and \[6, 4\]"):
        prdc(features, np.zeros((6, 4)))
    with pytest.raises(UserError, match="5-th neighbour need more samples than 5, not 5"):
        prdc(features, features[:5])
