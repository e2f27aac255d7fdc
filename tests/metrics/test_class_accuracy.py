"""Class accuracy by resolution: resizing against its filters written out, accuracy against counting."""

import numpy as np
import pytest

from alignment import draw
from metrics.class_accuracy import RESOLUTIONS, at_resolution, class_accuracy, class_is_read
from metrics.imagenet_classes import inception_classes
from utils import UserError


def triangles(size, small):
    """[small, size]: each row holds a triangle filter around a small pixel's centre. Its reach is the factor."""
    reach = max(size / small, 1)
    centres, places = ((np.arange(count) + 0.5) * size / count for count in (small, size))
    weights = np.maximum(1 - np.abs(centres[:, None] - places) / reach, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def interpolation(small, size):
    """[size, small]: linear interpolation between the small pixels' centres; the outermost value beyond them."""
    places = (np.arange(size) + 0.5) * small / size - 0.5
    return np.stack([np.interp(places, np.arange(small), unit) for unit in np.eye(small)], axis=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resolution", [*RESOLUTIONS, 128, 48])
def test_at_resolution_equals_its_filters(channels, resolution):
    images = draw.blobs(3, 128, 5, 0)[:, :channels]
    found = at_resolution(images, resolution)
    down, up = triangles(128, resolution), interpolation(resolution, 128)
    expected = up @ (down @ images.astype(np.float64) @ down.T) @ up.T
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 2  # four roundings to 8 bits


def test_full_resolution_leaves_images_unchanged():
    images = draw.blobs(2, 32, 5, 0)
    np.testing.assert_array_equal(at_resolution(images, 32), images)


def test_stripes_too_fine_for_the_resolution_turn_grey():
    """Taking every fourth pixel would turn them black or white."""
    stripes = np.zeros((1, 3, 64, 64), np.uint8)
    stripes[..., ::2] = 255
    inner = at_resolution(stripes, 16)[..., 8:-8].astype(int)
    assert np.abs(inner - 127.5).max() < 2


@pytest.mark.parametrize("resolution", [0, 65])
def test_resolutions_that_images_do_not_have_are_refused(resolution):
    with pytest.raises(UserError, match=f"no resolution of {resolution}: give 1 to 64"):
        at_resolution(np.zeros((1, 3, 64, 64), np.uint8), resolution)


def test_accuracy_counts_the_logit_of_the_class_asked_for():
    """The largest of all 1008 logits counts. One of the five images is read as a class that the data set lacks, one as
    another class of the data set.
    """
    indices = inception_classes(["n01440764", "n02119789", "n03255030"])
    labels = np.array([0, 1, 2, 2, 0])
    winners = [449, 1, 7, 1000, 1]
    logits = np.random.RandomState(0).standard_normal((5, 1008))
    logits[np.arange(5), winners] = 10
    np.testing.assert_array_equal(class_is_read(logits, labels, indices), [True, True, False, True, False])
    assert class_accuracy(logits, labels, indices) == {"class_accuracy": 3 / 5}
    with pytest.raises(UserError, match="NaN"):
        class_accuracy(np.full((5, 1008), np.nan), labels, indices)
