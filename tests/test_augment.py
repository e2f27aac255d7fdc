"""Differentiable augmentation against loops over pixels, its derivatives, and the ranges of its random values."""

import numpy as np
import paddle
import pytest

import randomness
from augment import KINDS, augment, random_values
from parameters import DIFFAUG

ALL = "color,translation,cutout"


def by_loops(image, values, kinds):
    """The definition of the authors' code for one image, float64 [C, S, S], one pixel at a time."""
    brightness, saturation, contrast, down, right, row, column = values
    channels, size, _ = image.shape
    for kind in kinds.split(","):
        out = np.zeros_like(image)
        for y in range(size):
            for x in range(size):
                if kind == "color":
                    pixel = image[:, y, x] + brightness
                    gray = sum(pixel) / channels
                    out[:, y, x] = [gray + saturation * (value - gray) for value in pixel]
                elif kind == "translation":
                    if 0 <= y - down < size and 0 <= x - right < size:
                        out[:, y, x] = image[:, int(y - down), int(x - right)]
                else:
                    half = (size + 1) // 2  # the side of the square
                    top, left = row - half // 2, column - half // 2
                    if not (top <= y < top + half and left <= x < left + half):
                        out[:, y, x] = image[:, y, x]
        if kind == "color":
            mean = sum(out.flatten()) / out.size
            out = mean + contrast * (out - mean)
        image = out
    return image


@pytest.fixture
def double():
    paddle.set_default_dtype("float64")
    yield
    paddle.set_default_dtype("float32")


@pytest.mark.parametrize("kinds", [*KINDS, ALL, "cutout,translation,color"])
@pytest.mark.parametrize(("channels", "size"), [(3, 16), (1, 9)])
def test_augmentation_equals_its_definition(double, kinds, channels, size):
    rng = np.random.default_rng(0)
    images, values = rng.uniform(-1, 1, (12, channels, size, size)), random_values(rng, 12, size)
    found = augment(paddle.to_tensor(images), paddle.to_tensor(values), kinds).numpy()
    expected = [by_loops(image, row, kinds) for image, row in zip(images, values, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


def test_shifts_and_cuts_change_no_other_bits():
    """In float32 too: a shifted pixel has the bits of its source."""
    rng = np.random.default_rng(1)
    images, values = rng.uniform(-1, 1, (6, 3, 32, 32)).astype("float32"), random_values(rng, 6, 32)
    kinds = "translation,cutout"
    found = augment(paddle.to_tensor(images), paddle.to_tensor(values.astype("float32")), kinds).numpy()
    expected = [by_loops(image, row, kinds) for image, row in zip(images, values, strict=True)]
    assert (found == np.stack(expected)).all()


def test_random_values_have_the_published_ranges():
    values = random_values(np.random.default_rng(0), 20_000, 32)
    low, high = values.min(0), values.max(0)
    np.testing.assert_allclose(low[:3], [-0.5, 0, 0.5], atol=1e-3)
    np.testing.assert_allclose(high[:3], [0.5, 2, 1.5], atol=1e-3)
    for column, places in ((3, range(-4, 5)), (4, range(-4, 5)), (5, range(33)), (6, range(33))):
        found, counts = np.unique(values[:, column], return_counts=True)
        assert found.tolist() == list(places)
        assert counts.min() > 0.8 * len(values) / len(places)
    odd = random_values(np.random.default_rng(0), 5000, 6)  # a square of 3 pixels: the middles are the pixels
    assert set(odd[:, 5]) == set(range(6)) and set(odd[:, 3]) == {-1, 0, 1}
    assert np.abs(np.corrcoef(values.T) - np.eye(7)).max() < 0.05, "two values depend on each other"


def test_the_values_of_a_row_do_not_depend_on_the_number_of_rows():
    few, many = (random_values(randomness.rng(1, "diffaug/d/real", 3, 0), rows, 16) for rows in (4, 9))
    assert (few == many[:4]).all() and (many[0] != many[1]).any()


@pytest.mark.parametrize("kinds", [*KINDS, ALL])
def test_first_and_second_derivatives(double, kinds):
    """Against differences, for a function of the images that has second derivatives."""
    rng = np.random.default_rng(2)
    images, weights = rng.uniform(-1, 1, (3, 3, 6, 6)), paddle.to_tensor(rng.standard_normal((3, 3, 6, 6)))
    values = paddle.to_tensor(random_values(rng, 3, 6))

    def penalty(array, create_graph=False):
        """(images, value, squared norm of its gradient), as a gradient penalty computes them."""
        x = paddle.to_tensor(array)
        x.stop_gradient = False
        value = (augment(x, values, kinds) ** 3 * weights).sum()
        (gradient,) = paddle.grad(value, x, create_graph=create_graph)
        return x, value, gradient

    x, _, gradient = penalty(images, create_graph=True)
    (gradient * gradient).sum().backward()
    direction = rng.standard_normal(images.shape)
    (_, value, slope), (_, before, slope_before) = (penalty(images + step * direction) for step in (1e-5, -1e-5))
    first = float((gradient * paddle.to_tensor(direction)).sum())
    np.testing.assert_allclose(float(value - before) / 2e-5, first, rtol=1e-6)
    second = float((x.grad * paddle.to_tensor(direction)).sum())
    change = float((slope * slope).sum() - (slope_before * slope_before).sum())
    np.testing.assert_allclose(change / 2e-5, second, rtol=1e-6)
    assert abs(second) > 1e-3


def test_the_option_accepts_the_kinds_that_exist():
    assert DIFFAUG.accepts(",".join(KINDS)) and all(map(DIFFAUG.accepts, KINDS))
    for wrong in ("", "colour", "color,color", "color,"):
        assert not DIFFAUG.accepts(wrong)
