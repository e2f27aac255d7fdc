"""Differentiable augmentation: random changes of the images that D sees.

Zhao et al., *Differentiable Augmentation for Data-Efficient GAN Training*, NeurIPS 2020. D then learns few images by
heart more slowly. D and G are trained through the changes, and real and generated images get the same kinds of them.
The code of the authors sets the ranges. All functions take images [N, C, S, S] and have second derivatives.
"""

import numpy as np
import paddle

TRANSLATION = 0.125  # the largest shift, as a share of the side
CUTOUT = 0.5  # the side of the square that is cut out, as a share of the side of the image
WIDTH = 7  # random values for an image


def random_values(rng, rows, size):
    """Random values for `rows` images of `size` pixels a side, float64 [rows, WIDTH].

    The columns are: a number added to the brightness, the factor of the saturation, the factor of the contrast, the
    shift down and to the right in pixels, and the row and the column of the middle of the square that is cut out.
    A row of the result does not depend on the number of rows.
    """
    shift, cut = _pixels(size, TRANSLATION), _pixels(size, CUTOUT)
    values = rng.random((rows, WIDTH))
    places = 2 * shift + 1, size + 1 - cut % 2  # the numbers of shifts, and of middles, to choose from
    values[:, :3] = values[:, :3] * [1, 2, 1] + [-0.5, 0, 0.5]
    values[:, 3:5] = np.floor(values[:, 3:5] * places[0]) - shift
    values[:, 5:] = np.floor(values[:, 5:] * places[1])
    return values


def augment(images, values, kinds):
    """`images` changed by `kinds`, for example "color,translation,cutout", in this order.

    `values`: a row of `random_values` for each image, [N, WIDTH], of the same dtype as the images. None: the images are
    not changed.
    """
    if values is None:
        return images
    for kind in kinds.split(","):
        images = KINDS[kind](images, values)
    return images


def _color(images, values):
    """Brightness, saturation and contrast. Gray images have no saturation."""
    brightness, saturation, contrast = (values[:, column].reshape([-1, 1, 1, 1]) for column in range(3))
    images = images + brightness
    gray = images.mean(1, keepdim=True)
    images = (images - gray) * saturation + gray
    mean = images.mean([1, 2, 3], keepdim=True)
    return (images - mean) * contrast + mean


def _translation(images, values):
    """Shift each image. The pixels that become free are 0.

    A product with a matrix of zeros and ones moves the rows, and another one the columns. Products of matrices are
    among the few operations that have second derivatives in every version of Paddle.
    """
    down, right = (_shifts(values[:, column], images.shape[-1]) for column in (3, 4))
    return paddle.matmul(paddle.matmul(down, images), right, transpose_y=True)


def _shifts(pixels, size):
    """For each of `pixels` [N], the matrix that shifts a column of `size` values down: [N, 1, size, size]."""
    places = paddle.arange(size, dtype=pixels.dtype)
    source = places - pixels.reshape([-1, 1, 1, 1])  # [N, 1, 1, size]
    return (source.reshape([-1, 1, size, 1]) == places).astype(pixels.dtype)


def _cutout(images, values):
    """Set a square to 0. It may lie partly outside of the image."""
    size = images.shape[-1]
    cut = _pixels(size, CUTOUT)
    places = paddle.arange(size, dtype=values.dtype)
    first = values[:, 5:] - cut // 2  # [N, 2]: the first row and column of the square
    inside = [
        ((places >= first[:, axis : axis + 1]) & (places < first[:, axis : axis + 1] + cut)).astype(images.dtype)
        for axis in range(2)
    ]
    return images * (1 - inside[0].unsqueeze([1, 3]) * inside[1].unsqueeze([1, 2]))


def _pixels(size, share):
    """`share` of `size` pixels, rounded half up."""
    return int(size * share + 0.5)


KINDS = {"color": _color, "translation": _translation, "cutout": _cutout}
