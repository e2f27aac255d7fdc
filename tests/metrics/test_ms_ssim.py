"""MS-SSIM against pytorch-msssim 1.0.0 and, where the window shrinks, TensorFlow's msssim.py."""

import json
from pathlib import Path

import numpy as np
import pytest

from alignment import draw
from metrics.ms_ssim import ms_ssim
from utils import UserError

FIXTURE = json.loads((Path(__file__).parents[1] / "fixtures" / "metrics.json").read_text())


def pairs(count, size, seed=1):
    """Two sets of uint8 images, and a mix that resembles the first."""
    first, second = draw.blobs(count, size, seed, 0), draw.blobs(count, size, seed, 1)
    return first, second, np.round(0.8 * first + 0.2 * second).astype(np.uint8)


def test_ms_ssim_equals_pytorch_msssim():
    first, second, mix = pairs(8, 176, FIXTURE["seed"])
    expected = FIXTURE["ms_ssim"]
    np.testing.assert_allclose(ms_ssim(first, second), expected["pairs_0_1"], atol=1e-5)
    np.testing.assert_allclose(ms_ssim(first, mix), expected["pairs_0_mix"], atol=1e-5)


# From 176 pixels on, pytorch-msssim's figures; below, those of msssim.py in tensorflow/models. Sides of 100 and 200
# pixels become odd when halved.
SIZES = {
    16: (0.8905008716924584, 0.9435651497442895),
    100: (0.9218105271053684, 0.8689494722908423),
    128: (0.9210838422422475, 0.8686152949815347),
    200: (0.9241641089984904, 0.877672497285527),
}


@pytest.mark.parametrize("size", SIZES)
def test_ms_ssim_of_other_sizes_equals_the_references(size):
    first, _, mix = pairs(2, size)
    np.testing.assert_allclose(ms_ssim(first, mix), SIZES[size], atol=1e-5)


def test_ms_ssim_is_one_for_equal_images_and_independent_of_order_and_batch():
    first, second, _ = pairs(6, 64)
    np.testing.assert_allclose(ms_ssim(first, first), 1, rtol=1e-12)
    np.testing.assert_allclose(ms_ssim(first, second), ms_ssim(second, first), rtol=1e-12)
    alone = [ms_ssim(first[i : i + 1], second[i : i + 1])[0] for i in range(6)]
    np.testing.assert_allclose(ms_ssim(first, second), alone, rtol=1e-12)


def test_float_images_of_another_range_give_the_same_ms_ssim():
    first, _, mix = pairs(2, 64)
    np.testing.assert_allclose(ms_ssim(first / 255, mix / 255, data_range=1), ms_ssim(first, mix), rtol=1e-9)


def test_ms_ssim_of_an_image_and_its_negative_is_zero():
    first = pairs(2, 64)[0]
    np.testing.assert_array_equal(ms_ssim(first, 255 - first), 0)


def test_bad_images_are_refused():
    images = np.zeros((2, 3, 32, 32), np.uint8)
    with pytest.raises(UserError, match=r"\[2, 3, 32, 32\] and \[2, 3, 32, 33\]"):
        ms_ssim(images, np.zeros((2, 3, 32, 33), np.uint8))
    with pytest.raises(UserError, match="16 pixels or more"):
        ms_ssim(images[:, :, :15], images[:, :, :15])
    with pytest.raises(UserError, match="NaN"):
        ms_ssim(images / 255, np.full(images.shape, np.nan))
    assert ms_ssim(images[:0], images[:0]).shape == (0,)
