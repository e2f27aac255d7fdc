"""The Inception Score against torch-fidelity and closed forms."""

import json
from pathlib import Path

import numpy as np
import pytest

from alignment import draw
from metrics.inception_score import ScoreSums, inception_score, split_of
from utils import UserError

FIXTURE = json.loads((Path(__file__).parents[1] / "fixtures" / "metrics.json").read_text())


def fixture_logits():
    return 3 * draw.rng("logits", FIXTURE["seed"]).standard_normal((FIXTURE["n"], FIXTURE["classes"]))


def test_score_equals_torch_fidelity():
    score = inception_score(fixture_logits().astype(np.float32), FIXTURE["splits"])
    assert score["inception_score"] == pytest.approx(FIXTURE["inception_score"]["mean"], rel=1e-6)
    assert score["inception_score_std"] == pytest.approx(FIXTURE["inception_score"]["std"], rel=1e-6)


def test_confident_and_varied_samples_score_the_number_of_classes():
    """Also where the softmax of all other classes underflows to 0."""
    for sureness in (60, 5000):
        logits = sureness * np.eye(7)[np.arange(70) % 7]
        assert inception_score(logits, 5) == {
            "inception_score": pytest.approx(7),
            "inception_score_std": pytest.approx(0),
        }


def test_equal_samples_score_one():
    assert inception_score(np.tile([[0.5, -2.0, 3.0]], (20, 1)), 4)["inception_score"] == pytest.approx(1, abs=1e-12)


def test_splits_are_contiguous_and_may_differ_in_size():
    """7 samples in 2 splits: 3 and 4. The first shows one class, the second two: scores 1 and 2."""
    logits = 100 * np.eye(2)[[0, 0, 0, 0, 1, 0, 1]]
    score = inception_score(logits, 2)
    assert score == {"inception_score": pytest.approx(1.5), "inception_score_std": pytest.approx(0.5)}


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_sums_do_not_depend_on_batches_order_or_processes(batch, processes):
    logits, splits = fixture_logits(), 7
    count = len(logits)
    order = np.random.RandomState(0).permutation(count)
    merged = ScoreSums(logits.shape[1], splits)
    for rank in range(processes):
        sums, mine = ScoreSums(logits.shape[1], splits), order[rank::processes]
        for start in range(0, len(mine), batch):
            chosen = mine[start : start + batch]
            sums.update(logits[chosen], split_of(chosen, count, splits))
        merged.merge(ScoreSums.from_state(sums.state()))
    assert merged.result() == pytest.approx(inception_score(logits, splits), rel=1e-12)


def test_saved_sums_can_be_continued(tmp_path):
    logits = fixture_logits()
    split = split_of(np.arange(len(logits)), len(logits), 5)
    first = ScoreSums(logits.shape[1], 5)
    first.update(logits[:200], split[:200])
    np.savez(tmp_path / "sums.npz", **first.state())
    with np.load(tmp_path / "sums.npz") as state:
        resumed = ScoreSums.from_state(state)
    resumed.update(logits[200:], split[200:])
    assert resumed.result() == pytest.approx(inception_score(logits, 5), rel=1e-12)
    assert first.counts.sum() == 200


@pytest.mark.parametrize(("count", "splits"), [(7, 2), (10, 10), (50000, 10), (101, 7)])
def test_samples_are_cut_into_contiguous_splits(count, splits):
    expected = [k for k in range(splits) for _ in range(k * count // splits, (k + 1) * count // splits)]
    np.testing.assert_array_equal(split_of(np.arange(count), count, splits), expected)


def test_sums_that_do_not_fit_are_refused():
    sums = ScoreSums(3, 2)
    with pytest.raises(UserError, match="cannot be merged"):
        sums.merge(ScoreSums(3, 4))
    with pytest.raises(UserError, match=r"\[N, 3\], not \[1, 4\]"):
        sums.update(np.zeros((1, 4)), [0])
    sums.update(np.zeros((5, 3)), [1] * 5)
    with pytest.raises(UserError, match="at least one sample a split, not 5"):
        sums.result()
    with pytest.raises(UserError, match=r"negentropies is \[3\]"):
        ScoreSums.from_state({**sums.state(), "negentropies": np.zeros(3)})


def test_bad_logits_are_refused():
    with pytest.raises(UserError, match="NaN"):
        inception_score(np.array([[1.0, np.nan]]), 1)
    with pytest.raises(UserError, match=r"over 10 splits .* not 3"):
        inception_score(np.zeros((3, 4)), 10)
    with pytest.raises(UserError, match=r"\[N, classes\], not \[4\]"):
        inception_score(np.zeros(4), 1)
