"""Accuracy: the share of samples in which a classifier recognises the requested class, at several resolutions.

This is the discriminability of Odena et al., *Conditional Image Synthesis with Auxiliary Classifier GANs* (ICML 2017,
section 4.1).
"""

import numpy as np

from metrics.record import CLASSIFIED_DATA, Figure, Metric
from utils import UserError

# Pixels a side, below full size. The paper's, for images of 128 pixels.
RESOLUTIONS = (8, 16, 32, 64)


def at_resolution(images, resolution):
    """Images uint8 [N, C, S, S] reduced to the detail of `resolution` × `resolution` pixels, again of size S.

    The paper says only that resolution is "artificially decreased by bilinear interpolation". Here a pixel of the small
    image is a mean of its surroundings, with weights of a triangle that is as wide as the factor (Pillow's bilinear
    resize). Bilinear interpolation then enlarges the small image. The authors probably used TensorFlow 1's
    resize_bilinear, which takes every k-th pixel for a factor k. That adds aliasing, which lowers the accuracy more
    than the lost resolution alone. So accuracies below full size may be higher here than in the paper.

    Raises UserError for a resolution above S or below 1.
    """
    from PIL import Image  # here, because `--help` does not need it

    size = images.shape[-1]
    if not 1 <= resolution <= size:
        raise UserError(f"images of {size} pixels a side have no resolution of {resolution}: give 1 to {size}")
    planes = (Image.fromarray(plane) for plane in images.reshape(-1, *images.shape[2:]))
    bilinear, small = Image.Resampling.BILINEAR, (resolution, resolution)
    resized = [np.asarray(plane.resize(small, bilinear).resize((size, size), bilinear)) for plane in planes]
    return np.stack(resized).reshape(images.shape)


def class_is_read(logits, labels, indices):
    """Whether the largest logit is that of the requested class: bool [N].

    Args:
        logits: float [N, K] of a classifier.
        labels: int [N], the requested classes, 0 to num_classes - 1.
        indices: int [num_classes], the index of the logit of each class. For Inception: `inception_classes`. All K
            logits are compared, so the largest may belong to a class outside the data set. That counts as wrong.

    Raises UserError for a NaN.
    """
    if not np.isfinite(logits).all():
        raise UserError("the logits hold a NaN or an infinity, so no class can be read")
    return np.argmax(logits, axis=1) == np.asarray(indices)[labels]


def class_accuracy(logits, labels, indices):
    """The share of samples for which `class_is_read` is True: {"class_accuracy": float}."""
    return {"class_accuracy": float(class_is_read(logits, labels, indices).mean())}


def _compute(sets):
    figures, full = {}, max(sets.samples.right)
    for resolution, right in sets.samples.right.items():
        name = "accuracy" if resolution == full else f"accuracy_{resolution}"
        figures[name] = right / sets.samples.count
        figures[f"{name}_real"] = sets.real.right[resolution] / sets.real.count
    return figures


def _figures():
    """The figures: the accuracy of the samples at each resolution, full size last, then that of the real images."""
    for suffix, title in (("", "read as the class asked for"), ("_real", "real test images read as their class")):
        for resolution in RESOLUTIONS:
            low = f"{title}, at {resolution} pixels"
            yield Figure(f"accuracy_{resolution}{suffix}", low, ".2%", classifier_title=low)
        yield Figure(f"accuracy{suffix}", title, ".2%", classifier_title=title)


METRICS = (
    Metric(
        "accuracy",
        tuple(_figures()),
        _compute,
        order=60,
        reads_classes=True,
        needs_classes=True,
        higher_is_better=True,
        best="accuracy",
        auto=CLASSIFIED_DATA,
    ),
)
