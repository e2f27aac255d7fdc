"""Generated images by index: sample i depends on the seed, i and its class alone, in any batch and on any process."""

import numpy as np
import paddle

import runtime
from utils import image_grid

GRID_CLASSES, GRID_COLUMNS = 10, 10


def to_range(images, parameters):
    """uint8 images to the range networks read: [-1, 1], or [0, 1] with `dont_normalize`."""
    images = images.astype(paddle.get_default_dtype())
    return images / 255 if parameters.dont_normalize else images / 127.5 - 1


def to_pixels(images, parameters):
    """A generator's images to NumPy uint8, the reverse of `to_range`."""
    images = images * 255 if parameters.dont_normalize else (images + 1) * 127.5
    return images.round().clip(0, 255).astype("uint8").numpy()


def generate(generator, parameters, indices, labels, purpose="sample"):
    """Images uint8 [N, C, H, W] of samples `indices` of classes `labels` (both int [N]), by G in the mode it is in."""
    p = parameters
    z = np.stack([runtime.generator(p.manual_seed, purpose, i).standard_normal(p.z_dim) for i in indices])
    with paddle.no_grad():
        images = generator(paddle.to_tensor(z.astype(paddle.get_default_dtype())), paddle.to_tensor(labels))
    return to_pixels(images, p)


def class_grid(generator, parameters):
    """A picture, uint8 [H, W, C]: the first ten classes in order, a row each, the same noise at every call."""
    classes = min(parameters.num_classes, GRID_CLASSES)
    labels = np.repeat(np.arange(classes), GRID_COLUMNS)
    return image_grid(generate(generator, parameters, range(len(labels)), labels, "grid"), GRID_COLUMNS)
