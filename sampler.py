"""Generated images by index: sample i depends on the seed, i and its class alone, in any batch and on any process."""

import numpy as np
import paddle
from scipy.special import ndtr, ndtri
from tqdm import tqdm

import runtime
from layers import BatchNorm
from pictures import COLUMNS


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
    z = np.stack([_noise(runtime.generator(p.manual_seed, purpose, i), p) for i in indices])
    if len(z) == 1:  # a matrix of one row has a kernel of its own, which rounds otherwise: the sample is drawn twice
        z, labels = np.repeat(z, 2, axis=0), np.repeat(labels, 2)
    with paddle.no_grad():
        images = generator(paddle.to_tensor(z.astype(paddle.get_default_dtype())), paddle.to_tensor(labels))
    return to_pixels(images, p)[: len(indices)]


def _noise(rng, parameters):
    """Noise [z_dim] from N(0, 1), whose values beyond ± `truncation` are drawn anew (Brock et al., 2019, section 3.1).

    Drawing anew until it fits is the same as inverting the distribution between the bounds, which takes one draw.
    """
    p = parameters
    if p.truncation is None:
        return rng.standard_normal(p.z_dim)
    low = ndtr(-p.truncation)
    return ndtri(low + rng.random(p.z_dim) * (1 - 2 * low))


def use_standing_statistics(generator, parameters):
    """Replace the running statistics of G's batch norms by their means over `standing_batches` batches.

    Each batch has `batch_size` samples of classes drawn uniformly (Brock et al., *Large Scale GAN Training for High
    Fidelity Natural Image Synthesis*, ICLR 2019, appendix B).
    """
    p = parameters
    norms = [layer for layer in generator.sublayers() if isinstance(layer, BatchNorm)]
    batches, hidden = range(p.standing_batches), runtime.rank() > 0 or not p.standing_batches
    for batch in tqdm(batches, desc="standing statistics", unit="batch", leave=False, disable=hidden):
        for norm in norms:
            norm.training, norm.momentum = True, batch / (batch + 1)
        indices = range(batch * p.batch_size, (batch + 1) * p.batch_size)
        labels = runtime.generator(p.manual_seed, "standing labels", batch).integers(p.num_classes, size=p.batch_size)
        generate(generator, p, indices, labels, "standing")
    for norm in norms:
        norm.eval()


def grid_samples(generator, parameters, classes):
    """Samples of `classes` (numbers) for a picture, uint8 [len(classes) * COLUMNS, C, H, W], class by class.

    Those of a class have the same noise at every call, whichever other classes there are.
    """
    labels = np.repeat(classes, COLUMNS)
    indices = [label * COLUMNS + column for label in classes for column in range(COLUMNS)]
    return generate(generator, parameters, indices, labels, "grid")
