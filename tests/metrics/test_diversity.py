"""Diversity within a class: pairs, their mean MS-SSIM, the count of varied classes, distances."""

import numpy as np
import pytest

from alignment import draw
from metrics.diversity import class_distance, class_ms_ssim, pairs, varied_classes
from metrics.ms_ssim import ms_ssim
from utils import UserError


def test_pairs_are_of_two_different_images():
    chosen = pairs(2, 0, 3)
    assert chosen.shape == (100, 2)
    np.testing.assert_array_equal(np.sort(chosen, axis=1), np.tile([0, 1], (100, 1)))


def test_all_pairs_are_equally_likely():
    """20,000 draws over the 20 ordered pairs of 5 images: 1000 each, with a standard deviation of 31."""
    chosen = pairs(5, 1, 0, 20000)
    counts = np.bincount(chosen[:, 0] * 5 + chosen[:, 1], minlength=25).reshape(5, 5)
    assert np.diag(counts).sum() == 0
    others = counts[~np.eye(5, dtype=bool)]
    assert np.abs(others - 1000).max() < 5 * 31


def test_pairs_depend_on_seed_and_class_alone():
    np.testing.assert_array_equal(pairs(50, 1, 2), pairs(50, 1, 2))
    assert (pairs(50, 1, 2) != pairs(50, 1, 3)).any()
    assert (pairs(50, 1, 2) != pairs(50, 2, 2)).any()


def test_one_image_has_no_pair():
    with pytest.raises(UserError, match="class 7 needs at least two images of it, not 1"):
        pairs(1, 0, 7)


def test_class_ms_ssim_is_the_mean_over_its_pairs():
    images = draw.blobs(6, 32, 1, 0)
    one_by_one = [ms_ssim(images[[i]], images[[j]])[0] for i, j in pairs(6, 4, 9)]
    assert class_ms_ssim(images, 4, 9) == pytest.approx(np.mean(one_by_one), rel=1e-12)


def test_ms_ssim_of_a_collapsed_class_is_one_and_of_a_varied_class_lower():
    images = draw.blobs(6, 32, 1, 0)
    assert class_ms_ssim(images[[0] * 6], 0, 0) == pytest.approx(1, rel=1e-12)
    assert class_ms_ssim(images, 0, 0) < 0.5


def test_varied_classes_are_counted_against_the_least_varied_real_one():
    found = varied_classes(real=[0.1, 0.25, 0.2, 0.05], fake=[0.24, 0.25, 0.26, 0.9])
    assert found == {
        "ms_ssim_real": pytest.approx(0.15),
        "ms_ssim": pytest.approx(0.4125),
        "varied_classes": 2,
        "varied_class_share": 0.5,
    }


def test_class_distance_is_the_mean_over_classes():
    """Class 0: two images, 5 apart. Class 1: three images, 1, 1 and 2 apart. Class 2: one image; it does not count."""
    images = np.array([[0, 0], [3, 4], [1, 0], [2, 0], [3, 0], [9, 9]], np.uint8).reshape(6, 1, 1, 2)
    found = class_distance(images, np.array([0, 0, 1, 1, 1, 2]))
    assert found == {"class_distance": pytest.approx((5 + 4 / 3) / 2)}
    assert np.isnan(class_distance(images[5:], np.array([2]))["class_distance"])
