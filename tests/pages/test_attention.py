"""Attention maps: the weights that the network itself uses, drawn at the right places."""

import numpy as np
import paddle
import pytest
from drawn import drawn_generator

from pages import attention


@pytest.fixture
def generator(make_parameters):
    return drawn_generator(make_parameters("sagan", imsize=32, attention_size=16))


def test_maps_are_the_weights_of_the_network(generator):
    layer, z, labels = generator.attention, np.random.default_rng(0).normal(size=(2, 20)), [3, 1]
    seen = []
    hook = layer.register_forward_post_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    images, maps = attention.attention_maps(generator, z, labels)
    hook.remove()
    (x, output), _ = seen[0], maps
    assert images.shape == (2, 3, 32, 32) and maps.shape == (2, 16, 16, 8, 8) and maps.dtype == np.float32
    assert np.abs(maps.sum((3, 4)) - 1).max() < 1e-5
    # Equation 2 of the paper, from the maps: the output is x + gamma * out(sum of values by weight).
    with paddle.no_grad():
        value = paddle.nn.functional.max_pool2d(layer.g(x), 2).numpy().reshape(2, -1, 64)
        read = np.einsum("ncj,nij->nci", value, maps.reshape(2, 256, 64)).reshape(2, -1, 16, 16)
        expected = x + layer.gamma * layer.out(paddle.to_tensor(read.astype("float32")))
    assert np.abs((expected - output).numpy()).max() < 1e-4
    assert not layer._forward_post_hooks  # nothing is left behind


def test_an_acgan_has_no_attention(make_parameters, generator):
    assert attention.has_attention(generator)
    assert not attention.has_attention(drawn_generator(make_parameters("acgan-digits")))


def test_a_point_chooses_the_map_of_its_position():
    maps = np.arange(16 * 16 * 4).reshape(16, 16, 2, 2)
    for point, (row, column) in {(0, 0): (0, 0), (0.5, 0.99): (8, 15), (1, -3): (15, 0), (2, 1): (15, 15)}.items():
        assert (attention.map_of(maps, point) == maps[row, column]).all()


def test_an_overlay_is_brightest_where_the_weight_is_largest():
    weights = np.zeros((8, 8))
    weights[6, 1] = 0.3
    image = np.full((1, 32, 32), 100, np.uint8)
    picture = attention.overlay(image, weights, (0.2, 0.8), (230, 60, 60))
    assert picture.shape == (3, 128, 128) and picture.dtype == np.uint8
    red = picture[0].astype(int) - picture[1]
    red[:60] = 0  # the dot of the query point is in the upper half
    assert np.unravel_index(red.argmax(), red.shape) == pytest.approx((104, 24), abs=8)
    assert (picture[:, 100, 100] == 45).all()  # a place of weight 0 is dark
    dot = picture[:, int(0.2 * 128), int(0.8 * 128)]
    assert tuple(dot) == (230, 60, 60)


@pytest.mark.parametrize(("shape", "side"), [((1, 32, 32), 128), ((3, 64, 64), 128), ((3, 256, 256), 256)])
def test_points_are_marked_in_the_image(shape, side):
    image = np.zeros(shape, np.uint8)
    picture = attention.with_points(image)
    assert picture.shape == (3, side, side) and not image.any()
    for (y, x), colour in zip(attention.POINTS, attention.COLOURS, strict=True):
        assert tuple(picture[:, int(y * side), int(x * side)]) == colour
