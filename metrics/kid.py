"""Kernel Inception Distance (Binkowski et al., *Demystifying MMD GANs*, ICLR 2018, section 4)."""

import numpy as np

import randomness
from metrics.record import Figure, Metric
from utils import UserError


def kid(features_a, features_b, subsets=100, subset_size=1000, seed=0, progress=None):
    """The unbiased squared MMD with the kernel (x·y / width + 1)^3, over random subsets drawn without replacement.

    The estimate is the U-statistic of Gretton et al., *A Kernel Two-Sample Test* (JMLR 2012, eq. 3). It may be slightly
    negative for equal distributions. Subset s is a pure function of (seed, s).

    Args:
        features_a, features_b: float [N_a, width] and [N_b, width]; computed in float64.
        subsets: int, number of subsets.
        subset_size: int, at least 2 and at most the number of samples in either set.
        seed: int.
        progress: None, or a function progress(done, total) that is called after each subset.

    Returns:
        {"kid": float, "kid_std": float}, the mean and the (population) standard deviation over subsets.

    Raises:
        UserError: widths differ, a NaN, or fewer samples than a subset.
    """
    features_a, features_b = np.asarray(features_a), np.asarray(features_b)
    if features_a.ndim != 2 or features_b.ndim != 2 or features_a.shape[1] != features_b.shape[1]:
        raise UserError(
            "KID needs two sets of features [N, width] of one width, "
            f"not {list(features_a.shape)} and {list(features_b.shape)}"
        )
    if not (np.isfinite(features_a).all() and np.isfinite(features_b).all()):
        raise UserError("the features hold a NaN or an infinity, so they have no KID")
    count = min(len(features_a), len(features_b))
    if not 2 <= subset_size <= count:
        raise UserError(
            f"KID over subsets of {subset_size} samples is not possible: a subset has 2 to {count} samples here"
        )
    distances = []
    for subset in range(subsets):
        rng = randomness.rng(seed, "kid", subset)
        a, b = (
            features[rng.choice(len(features), subset_size, replace=False)].astype(np.float64)
            for features in (features_a, features_b)
        )
        distances.append(_squared_mmd(a, b))
        if progress:
            progress(len(distances), subsets)
    return {"kid": float(np.mean(distances)), "kid_std": float(np.std(distances))}


def _squared_mmd(a, b):
    size = len(a)
    within_a, within_b, between = _kernel(a, a), _kernel(b, b), _kernel(a, b)
    within = within_a.sum() - np.trace(within_a) + within_b.sum() - np.trace(within_b)
    return within / (size * (size - 1)) - 2 * between.mean()


def _kernel(a, b):
    product = a @ b.T / a.shape[1] + 1
    return product * product * product


SUBSETS, SUBSET_SIZE = 100, 1000  # as published


def _compute(sets):
    real, samples = sets.real, sets.samples
    size = min(SUBSET_SIZE, samples.count, real.count)
    with sets.progress("KID", "subset") as show:
        return kid(real.features, samples.features, SUBSETS, size, sets.seed, show)


def _settings(samples, real):
    return {"kid subsets": SUBSETS, "kid subset size": min(SUBSET_SIZE, samples, real)}


def _caution(figures, settings):
    size = settings["kid subset size"]
    counts = {"samples": settings["num_samples"], "real images": settings["number of real images"]}
    whole = " and ".join(name for name, count in counts.items() if count == size)
    if whole:
        return f"Each subset of KID holds all {size:,} {whole}: its standard deviation does not show how these vary."


METRICS = (
    Metric(
        "kid",
        (Figure("kid", "KID", ".6f"), Figure("kid_std", "KID, standard deviation over subsets", ".6f")),
        _compute,
        order=40,
        features=True,
        fewest=2,
        settings=_settings,
        caution=_caution,
    ),
)
