"""Diversity within a class: MS-SSIM and distance between images of the same class.

A collapsed generator has a distance near 0 and a MS-SSIM near 1.
"""

import numpy as np

import randomness
from metrics.ms_ssim import SMALLEST, ms_ssim
from metrics.record import CLASSIFIED_DATA, Figure, Metric
from utils import UserError

PAIRS = 100  # per class, as in the paper


def class_distance(images, labels, most=1000):
    """Mean Euclidean distance between two images of the same class, in grey levels, averaged over the classes.

    `images` uint8 [N, C, H, W], `labels` int64 [N]. All pairs of the first `most` images of a class are compared.
    Classes with fewer than two images are left out. Returns {"class_distance": float}: NaN if no class is left.
    """
    means = []
    for label in np.unique(labels):
        flat = images[labels == label][:most].reshape(-1, np.prod(images.shape[1:])).astype(np.float64)
        count = len(flat)
        if count < 2:
            continue
        squares = (flat**2).sum(1)
        distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * flat @ flat.T, 0))
        np.fill_diagonal(distances, 0)
        means.append(distances.sum() / (count * (count - 1)))
    return {"class_distance": float(np.mean(means)) if means else float("nan")}


def pairs(count, seed, label, how_many=PAIRS):
    """Random pairs of two different indices below `count`: int64 [how_many, 2], a pure function of (seed, label).

    Pairs are drawn independently. So with few images a pair may occur twice. Raises UserError if `count` is below 2.
    """
    if count < 2:
        raise UserError(f"diversity within class {label} needs at least two images of it, not {count}")
    rng = randomness.rng(seed, "pairs", label)
    first = rng.integers(count, size=how_many)
    return np.stack([first, (first + rng.integers(1, count, size=how_many)) % count], axis=1)


def class_ms_ssim(images, seed, label):
    """Mean MS-SSIM over the random `pairs` of one class's images uint8 [N, C, H, W]: float. Lower means more varied.

    The diversity of Odena et al., *Conditional Image Synthesis with Auxiliary Classifier GANs* (ICML 2017, section
    4.2). Images need at least 16 × 16 pixels; the paper's have 128 × 128. `images` may be any object that has a length
    and supports `images[int array]`. Raises UserError as `pairs` and `ms_ssim` do.
    """
    first, second = pairs(len(images), seed, label).T
    return float(ms_ssim(images[first], images[second]).mean())


def varied_classes(real, fake):
    """The number of classes with samples at least as varied as the least varied real class (section 4.2).

    The paper's figure is 84.7 % of ImageNet's 1000 classes.

    Args:
        real, fake: float [num_classes], the `class_ms_ssim` of each class, for real images and for samples.

    Returns:
        {"ms_ssim_real": float, "ms_ssim": float, "varied_classes": int, "varied_class_share": float}: both means over
        classes, then the number and the share of classes with a sample MS-SSIM not above the largest real one.
    """
    real, fake = np.asarray(real), np.asarray(fake)
    varied = fake <= real.max()
    return {
        "ms_ssim_real": float(real.mean()),
        "ms_ssim": float(fake.mean()),
        "varied_classes": int(varied.sum()),
        "varied_class_share": float(varied.mean()),
    }


MOST = 1000  # images of a class that `distance` compares


def _class_distance(images, seed, label):
    """`class_distance` of the first images of one class; NaN if there are fewer than two."""
    count = min(len(images), MOST)
    if count < 2:
        return np.nan
    return class_distance(images[np.arange(count)], np.full(count, label))["class_distance"]


def _distance_ratio(sets):
    real, samples = (summary.within_classes["distance"] for summary in (sets.real, sets.samples))
    both = np.isfinite(real) & np.isfinite(samples)  # the classes with two images or more
    known = real[both].any()
    return {"class_distance_ratio": float(samples[both].mean() / real[both].mean()) if known else np.nan}


def _no_distance(figures, settings):
    if not np.isfinite(figures["class_distance_ratio"]):
        return "No distance: it needs two samples of a class, and two real images of that class that differ."


METRICS = (
    Metric(
        "ms_ssim",
        (
            Figure("ms_ssim", "MS-SSIM within a class", ".4f"),
            Figure("ms_ssim_real", "MS-SSIM within a class, real images", ".4f"),
            Figure("varied_classes", "classes at least as varied as the least varied real one", ".0f"),
            Figure("varied_class_share", "share of classes at least as varied as the least varied real one", ".1%"),
        ),
        lambda sets: varied_classes(*(s.within_classes["ms_ssim"] for s in (sets.real, sets.samples))),
        order=70,
        within_class=class_ms_ssim,
        fewest_of_class=2,
        smallest=SMALLEST,
        needs_classes=True,
    ),
    Metric(
        "distance",
        (Figure("class_distance_ratio", "distance within a class, generated over real", ".3f"),),
        _distance_ratio,
        order=80,
        within_class=_class_distance,
        needs_classes=True,
        higher_is_better=True,
        auto=CLASSIFIED_DATA,
        caution=_no_distance,
    ),
)
