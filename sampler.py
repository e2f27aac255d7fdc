"""Generate images by index. Sample i depends only on the seed, i and its class, not on the batch or the process."""

from functools import partial

import numpy as np
import paddle
from scipy.special import ndtr, ndtri

import randomness
import runtime
from inference.folding import fold, mix_classes
from inference.predictor import Predictor, compiled
from layers import BatchNorm
from pictures import COLUMNS
from processes import collectives
from utils import progress

CHUNK = 16  # rows of each call of G in evaluation


def to_range(images, parameters):
    """Scale uint8 images to the networks' range: [-1, 1], or [0, 1] with `dont_normalize`."""
    images = images.astype(paddle.get_default_dtype())
    return images / 255 if parameters.dont_normalize else images / 127.5 - 1


def to_pixels(images, parameters):
    """Convert a generator's images, NumPy floats, to uint8: the inverse of `to_range`."""
    images = images * 255 if parameters.dont_normalize else (images + 1) * 127.5
    return images.round().clip(0, 255).astype("uint8")


def snapshot(generator, parameters, mixtures=None):
    """G in evaluation mode, as it is now, for `generate`. After its weights change, make a new one.

    It is a function from noise [CHUNK, z_dim] and labels int64 [CHUNK], both NumPy, to a list of one array, the images.
    On a CPU it is the folded generator, compiled. On a GPU, in float64, and where Paddle cannot compile it, it is the
    generator itself.

    `mixtures`, [M, num_classes]: label m stands for the weighted mean `mixtures[m]` of the classes' embeddings.
    """

    def folded():
        return fold(generator) if mixtures is None else mix_classes(fold(generator), mixtures)

    if paddle.get_device() == "cpu" and paddle.get_default_dtype() == "float32":
        inputs = [([CHUNK, parameters.z_dim], "float32"), ([CHUNK], "int64")]
        if predictor := compiled("the generator", folded, inputs, _threads_of_predictor()):
            return predictor
    return partial(_run_eagerly, generator if mixtures is None else folded())


def _threads_of_predictor():
    """The largest power of two that is not above the number of threads, nor above CHUNK.

    oneDNN chooses between kernels that round differently, and one of its criteria is how evenly threads share the work.
    A power of two shares CHUNK images evenly, so the choice, and with it the bits, are those for one thread.
    """
    return 1 << (min(runtime.threads(), CHUNK).bit_length() - 1)


def generate(frozen, parameters, indices, labels, purpose="sample"):
    """Draw samples `indices` of classes `labels` (both int [N]) from a `snapshot`. Returns uint8 [N, C, H, W]."""
    indices = np.asarray(indices)
    return draw_noise(frozen, parameters, noises(parameters, indices, purpose), labels, _rows_in_batch(indices))


def draw_noise(frozen, parameters, z, labels, rows):
    """Draw the images of noise `z` [N, z_dim] and classes `labels` from a `snapshot`. Returns uint8 [N, C, H, W].

    A matrix product rounds a row differently when the number of rows differs. So G always gets CHUNK rows, and image i
    is in the row `rows[i]`, from 0 to CHUNK - 1. Its bits then depend only on its noise, its class and this row.
    """
    p, labels, rows = parameters, np.asarray(labels), np.asarray(rows)

    def draw(places):
        batch, classes = np.zeros([CHUNK, p.z_dim]), np.zeros(CHUNK, np.int64)  # rows without an image stay 0
        batch[rows[places]] = z[places]
        classes[rows[places]] = labels[places]
        (images,) = frozen(batch.astype(paddle.get_default_dtype()), classes)
        return to_pixels(images[rows[places]], p)

    calls = _group_into_calls(rows)
    # A predictor uses several threads itself.
    images = list(map(draw, calls)) if isinstance(frozen, Predictor) else runtime.parallel(draw, calls)
    return np.concatenate(images)[np.argsort(np.concatenate(calls))]


def generate_batch(generator, parameters, indices, labels, purpose="sample"):
    """Like `generate`, but in one call of the generator itself, for batch norms that use the batch's own statistics."""
    z = noises(parameters, indices, purpose).astype(paddle.get_default_dtype())
    (images,) = _run_eagerly(generator, z, np.asarray(labels))
    return to_pixels(images, parameters)


def _run_eagerly(generator, z, labels):
    with paddle.no_grad():
        return [generator(paddle.to_tensor(z), paddle.to_tensor(labels)).numpy()]


def _rows_in_batch(indices):
    """The row of each sample, int [N], in a batch of G.

    Each aligned chunk of CHUNK samples fills a whole batch. Each chunk is rotated by 7 rows more than the one before.
    So samples at a fixed distance, such as those of one class, are also in different rows, and need few batches.
    """
    return (indices + 7 * (indices // CHUNK)) % CHUNK


def _group_into_calls(rows):
    """Group the positions in `rows`, int [N], into calls of G, so that no row occurs twice in a call."""
    order = np.argsort(rows, kind="stable")
    counts = np.bincount(rows, minlength=CHUNK)
    call = np.empty(len(rows), np.int64)
    call[order] = np.concatenate([np.arange(count) for count in counts])  # call n has the n-th sample of each row
    return [np.flatnonzero(call == number) for number in range(counts.max())]


def noises(parameters, indices, purpose="sample"):
    """Noise [N, z_dim] of the samples `indices`."""
    p = parameters
    return np.stack([_noise(randomness.rng(p.manual_seed, purpose, i), p) for i in indices])


def _noise(rng, parameters):
    """Noise [z_dim] from N(0, 1), truncated to ± `truncation` (Brock et al., 2019, section 3.1).

    The paper draws a value again until it lies between the bounds. Here one draw is enough: the inverse of the
    distribution function, between the bounds, gives the same distribution.
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
    batches, shown = range(p.standing_batches), collectives.rank() == 0 and p.standing_batches
    for batch in progress(batches, title="standing statistics", unit="batch", shown=shown):
        for norm in norms:
            norm.training, norm.momentum = True, batch / (batch + 1)
        indices = range(batch * p.batch_size, (batch + 1) * p.batch_size)
        numbers = randomness.rng(p.manual_seed, "standing labels", batch)
        labels = numbers.integers(p.num_classes, size=p.batch_size)
        with runtime.math_threads(1):  # one thread, so that the bits are the same with any number of processes
            generate_batch(generator, p, indices, labels, "standing")
    for norm in norms:
        norm.eval()


def grid_samples(generator, parameters, classes, draw=generate):
    """Samples of `classes` (numbers) for a picture, uint8 [len(classes) * COLUMNS, C, H, W], class by class.

    The noise of a class is the same in every call and does not depend on the other classes.
    `generator`, `draw`: a `snapshot` and `generate`, or a G that uses the batch's own statistics and `generate_batch`.
    """
    labels = np.repeat(classes, COLUMNS)
    indices = [label * COLUMNS + column for label in classes for column in range(COLUMNS)]
    return draw(generator, parameters, indices, labels, "grid")
