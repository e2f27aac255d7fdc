"""Where SAGAN's generator looks: maps of its self-attention, drawn over the images (Zhang et al., 2019, figure 5)."""

import numpy as np
import paddle
from PIL import Image

import runtime
from layers import SelfAttention

POINTS = ((0.5, 0.5), (0.3, 0.3), (0.3, 0.7), (0.7, 0.3), (0.7, 0.7))  # (y, x), as shares of the image
COLOURS = ((230, 60, 60), (60, 130, 255), (40, 190, 90), (245, 160, 20), (200, 80, 220))  # of the points, RGB
SHOWN = 128  # pixels; smaller images are enlarged to about this side, so that maps are legible


def has_attention(generator):
    """Whether `generator` has a self-attention whose maps can be shown."""
    return isinstance(getattr(generator, "attention", None), SelfAttention)


def attention_maps(generator, z, labels):
    """(images float [N, C, H, W], maps float32 [N, R, R, R/2, R/2]) of noise [N, z_dim] and labels int [N].

    R is the resolution of the attention. maps[n, y, x] is the map of the query point at row y and column x: the weights
    of all places in the image, which sum to 1. `generator` is in evaluation mode.
    """
    found = []

    def keep(layer, inputs, _output):
        found.append(layer.weights(inputs[0]).numpy())

    hook = generator.attention.register_forward_post_hook(keep)
    try:
        # One thread, so that the bits do not depend on the number of threads.
        with paddle.no_grad(), runtime.math_threads(1):
            noise = paddle.to_tensor(z.astype(paddle.get_default_dtype()))
            images = generator(noise, paddle.to_tensor(np.asarray(labels))).numpy()
    finally:
        hook.remove()
    (weights,) = found
    side = round(weights.shape[1] ** 0.5)
    return images, weights.astype(np.float32).reshape(len(weights), side, side, side // 2, side // 2)


def map_of(maps, point):
    """The map [R/2, R/2] of one image's `maps` [R, R, R/2, R/2] for the query `point`, (y, x) as shares."""
    side = len(maps)
    y, x = (min(max(int(share * side), 0), side - 1) for share in point)
    return maps[y, x]


def with_points(image, points=POINTS):
    """`image`, uint8 [C, H, W], enlarged, with a dot at each of `points`. Returns uint8 [3, side, side]."""
    picture = _enlarged(image)
    for point, colour in zip(points, COLOURS, strict=False):
        _dot(picture, point, colour)
    return picture.transpose(2, 0, 1)


def overlay(image, weights, point, colour):
    """A map over its image: dark where the weight is 0, in `colour` where it is largest, with a dot at the query point.

    `image`: uint8 [C, H, W]. `weights`: [R/2, R/2]. Returns uint8 [3, side, side].
    """
    picture = _enlarged(image)
    grey = picture.mean(axis=2, keepdims=True) * 0.45
    share = Image.fromarray((weights / weights.max()).astype(np.float32))
    share = np.asarray(share.resize(picture.shape[:2], Image.Resampling.BILINEAR))[..., None]
    picture = (grey * (1 - share * 0.8) + np.array(colour) * share * 0.8).astype(np.uint8)
    _dot(picture, point, colour)
    return picture.transpose(2, 0, 1)


def _enlarged(image):
    """`image`, uint8 [C, H, W], as RGB uint8 [side, side, 3], enlarged by a whole factor."""
    factor = max(1, SHOWN // image.shape[-1])
    image = image.repeat(factor, axis=1).repeat(factor, axis=2)
    return np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0).copy()


def _dot(picture, point, colour):
    """Draw a dot with a white rim into `picture`, uint8 [side, side, 3]."""
    side = len(picture)
    y, x = (share * side for share in point)
    rows, columns = np.mgrid[:side, :side] + 0.5
    distance = np.hypot(rows - y, columns - x)
    radius = max(3, side // 28)
    picture[distance <= radius + 1.5] = 255
    picture[distance <= radius] = colour
