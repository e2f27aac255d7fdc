"""Precision, recall, density and coverage (PRDC), computed in blocks of samples.

Precision and recall: Kynkäänniemi et al., *Improved Precision and Recall Metric for Assessing Generative Models*
(NeurIPS 2019, eq. 1-2). Density and coverage: Naeem et al., *Reliable Fidelity and Diversity Metrics for Generative
Models* (ICML 2020, eq. 3-4). The figures equal those of the latter's package prdc.
"""

import numpy as np

from metrics.record import Figure, Metric
from utils import UserError


def prdc(real, fake, nearest=5, block=2048, progress=None):
    """Compare two sets of features. A sample's ball reaches to its `nearest`-th neighbour in its own set.

    precision: the share of fake samples in any real ball. recall: the share of real samples in any fake ball.
    density: the mean number of real balls that contain a fake sample, divided by `nearest`. coverage: the share of real
    balls that contain a fake sample.

    Products are in float64. Distances are then rounded to float32 as in the package. So both treat samples on the edge
    of a ball, such as copies of real samples, as outside it. Besides the features it takes the memory of a few arrays
    of [block, block] and [N, nearest].

    Args:
        real, fake: float [N_real, width] and [N_fake, width].
        nearest: int, k of the k-th neighbour, below the number of samples in either set.
        block: int, samples per block; changes speed and memory, not the result.
        progress: None, or a function progress(done, total) that is called after each pair of blocks.

    Returns:
        {"precision": float, "recall": float, "density": float, "coverage": float}.

    Raises:
        UserError: widths differ, a NaN, or too few samples.
    """
    real, fake = np.asarray(real), np.asarray(fake)
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise UserError(
            "precision and recall need two sets of features [N, width] of one width, "
            f"not {list(real.shape)} and {list(fake.shape)}"
        )
    if not (np.isfinite(real).all() and np.isfinite(fake).all()):
        raise UserError("the features hold a NaN or an infinity, so they have no precision and recall")
    count = min(len(real), len(fake))
    if not 1 <= nearest < count:
        raise UserError(
            f"precision and recall by the {nearest}-th neighbour need more samples than {nearest}, not {count}"
        )

    # Compute the radii of all balls.
    real_blocks, fake_blocks = _blocks(len(real), block), _blocks(len(fake), block)
    real_pairs = len(real_blocks) * (len(real_blocks) + 1) // 2
    fake_pairs = len(fake_blocks) * (len(fake_blocks) + 1) // 2
    step = _counter(progress, real_pairs + fake_pairs + len(real_blocks) * len(fake_blocks))
    real_radii = _radii(real, real_blocks, nearest, step)
    fake_radii = _radii(fake, fake_blocks, nearest, step)

    # Count the samples inside the balls of the other set.
    balls_around_fake = np.zeros(len(fake), dtype=np.int64)
    real_is_recalled = np.zeros(len(real), dtype=bool)
    real_is_covered = np.zeros(len(real), dtype=bool)
    for rows in real_blocks:
        left = _prepare(real[rows])
        for columns in fake_blocks:
            distances = _distances(left, _prepare(fake[columns]))
            in_real_ball = distances < real_radii[rows, None]
            balls_around_fake[columns] += in_real_ball.sum(axis=0)
            real_is_covered[rows] |= in_real_ball.any(axis=1)
            real_is_recalled[rows] |= (distances < fake_radii[None, columns]).any(axis=1)
            step()
    return {
        "precision": float((balls_around_fake > 0).mean()),
        "recall": float(real_is_recalled.mean()),
        "density": float(balls_around_fake.mean() / nearest),
        "coverage": float(real_is_covered.mean()),
    }


def _radii(features, blocks, nearest, step):
    """The distance, float32 [N], from each sample to its `nearest`-th neighbour in the same set."""
    # The nearest + 1 smallest distances include the sample itself, at distance 0.
    smallest = np.full((len(features), nearest + 1), np.inf, dtype=np.float32)

    def keep_smallest(rows, distances):
        candidates = np.concatenate([smallest[rows], distances], axis=1)
        smallest[rows] = np.partition(candidates, nearest, axis=1)[:, : nearest + 1]

    for index, rows in enumerate(blocks):
        left = _prepare(features[rows])
        for columns in blocks[index:]:
            distances = _distances(left, _prepare(features[columns]))
            if columns is rows:
                np.fill_diagonal(distances, 0)
            else:
                keep_smallest(columns, distances.T)
            keep_smallest(rows, distances)
            step()
    return smallest.max(axis=1)


def _blocks(count, size):
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _prepare(features):
    features = features.astype(np.float64)
    return features, np.einsum("ij,ij->i", features, features)


def _distances(left, right):
    """Euclidean distances, float32 [rows, columns], of two blocks as `_prepare` gives them."""
    (rows, row_norms), (columns, column_norms) = left, right
    squares = rows @ columns.T
    squares *= -2
    squares += row_norms[:, None]
    squares += column_norms
    distances = np.maximum(squares, 0).astype(np.float32)
    return np.sqrt(distances, out=distances)


def _counter(progress, total):
    done = 0

    def step():
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return step


NEAREST = 5  # a ball reaches to this neighbour, as published


def _compute(sets):
    with sets.progress("precision, recall", "block") as show:
        return prdc(sets.real.features, sets.samples.features, NEAREST, progress=show)


METRICS = (
    Metric(
        "prdc",
        tuple(Figure(name, name, ".4f") for name in ("precision", "recall", "density", "coverage")),
        _compute,
        order=50,
        features=True,
        fewest=NEAREST + 1,
        higher_is_better=True,
        best="density",
        settings=lambda samples, real: {"prdc": f"{NEAREST} nearest neighbours"},
    ),
)
