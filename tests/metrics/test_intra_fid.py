"""Intra-FID against each class's Fréchet distance written out with SciPy's matrix square root."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from metrics.fid import FeatureStatistics, fid
from metrics.intra_fid import intra_fid
from utils import UserError

WIDTH, CLASSES = 12, 4


def features(seed, counts):
    """(features, labels), shuffled; `counts`: the number of samples of each class. Each class has its own mean and
    spread.
    """
    rng = np.random.default_rng(seed)
    rows, labels = [], np.repeat(np.arange(len(counts)), counts)
    for label, count in enumerate(counts):
        mixing = np.random.default_rng((seed, label)).standard_normal((WIDTH, WIDTH))
        rows.append(rng.standard_normal((count, WIDTH)) @ mixing + label)
    order = rng.permutation(len(labels))
    return np.concatenate(rows)[order].astype(np.float32), labels[order]


def frechet(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    covariances = [np.cov(rows.T) for rows in (a, b)]
    root = sqrtm(covariances[0] @ covariances[1])
    shift = a.mean(0) - b.mean(0)
    return shift @ shift + np.trace(covariances[0] + covariances[1] - 2 * root.real)


def test_intra_fid_is_the_mean_over_classes():
    real, real_labels = features(0, [50, 70, 40, 90])
    fake, fake_labels = features(1, [60, 30, 80, 50])
    calls = []
    found = intra_fid(real, real_labels, fake, fake_labels, CLASSES, lambda done, total: calls.append((done, total)))
    expected = [frechet(real[real_labels == label], fake[fake_labels == label]) for label in range(CLASSES)]
    np.testing.assert_allclose(found["intra_fid_classes"], expected, rtol=1e-6)
    assert found["intra_fid"] == pytest.approx(np.mean(expected), rel=1e-6)
    assert calls == [(done, CLASSES) for done in range(1, CLASSES + 1)]


@pytest.mark.filterwarnings("ignore:Matrix is singular")
def test_intra_fid_of_fewer_samples_than_dimensions():
    """Two samples of a class, five of another, in 12 dimensions. SciPy's root of a singular product holds to 1e-4."""
    real, real_labels = features(0, [2, 5, 20, 90])
    fake, fake_labels = features(1, [60, 2, 3, 5])
    found = intra_fid(real, real_labels, fake, fake_labels, CLASSES)["intra_fid_classes"]
    expected = [frechet(real[real_labels == label], fake[fake_labels == label]) for label in range(CLASSES)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_intra_fid_sees_wrong_classes_that_fid_does_not():
    """The samples show every class, but not the class asked for. For FID the set is the same."""
    real, labels = features(0, [50, 70, 40, 90])
    assert intra_fid(real, labels, real, labels, CLASSES)["intra_fid"] == pytest.approx(0, abs=1e-9)
    mixed = np.random.default_rng(0).permutation(labels)
    gaussians = []
    for order in (np.arange(len(real)), np.argsort(mixed)):
        statistics = FeatureStatistics(WIDTH)
        statistics.update(real[order])
        gaussians.append(statistics.gaussian())
    assert fid(*gaussians)["fid"] < 1e-9
    assert intra_fid(real, labels, real, mixed, CLASSES)["intra_fid"] > 1


def test_classes_that_cannot_be_compared_are_refused():
    real, labels = features(0, [50, 70, 40, 90])
    few = labels.copy()
    few[np.flatnonzero(labels == 2)[1:]] = 0
    with pytest.raises(UserError, match="two generated images of each class; class 2 has 1"):
        intra_fid(real, labels, real, few, CLASSES)
    with pytest.raises(UserError, match="two real images of each class; class 4 has 0"):
        intra_fid(real, labels, real, labels, 5)
    with pytest.raises(UserError, match="do not fit others of width 12"):
        intra_fid(real, labels, real[:, :11], labels, CLASSES)
    broken = real.copy()
    broken[7, 3] = np.nan
    with pytest.raises(UserError, match="hold a NaN"):
        intra_fid(real, labels, broken, labels, CLASSES)
