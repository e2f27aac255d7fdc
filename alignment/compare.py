"""Compares figures with their references, within a tolerance."""

from typing import NamedTuple

import numpy as np

from alignment import draw
from utils import UserError

# A share of the largest figure in a group. The difference of a smaller figure is divided by this size instead of its
# own. The reason: some figures are 0 except for rounding, such as the gradient of a bias before a batch norm, or a
# saturated hinge loss.
FLOOR = 1e-5


class Row(NamedTuple):
    """The figures of one quantity, in arrays of the same length. Differences are relative to `scale`."""

    stage: str  # forward, loss, bp_align, train_align or metric, as in Paddle's reproduction guide
    quantity: str
    labels: list
    reference: np.ndarray
    ours: np.ndarray
    scale: np.ndarray
    tolerance: float

    @property
    def differences(self):
        return np.abs(self.ours - self.reference) / self.scale

    @property
    def worst(self):
        """Index of the figure that differs most. A NaN counts as the largest difference."""
        return int(np.argmax(np.nan_to_num(self.differences, nan=np.inf)))

    @property
    def difference(self):
        return float(self.differences[self.worst])

    @property
    def agrees(self):
        return self.difference <= self.tolerance  # False for NaN


def compare(stage, quantity, reference, ours, tolerance, floor=0.0):
    """A Row from our array and the reference: a number, a list of numbers, or a digest.

    For a digest, the difference of the norm is relative to the norm. The differences of the mean and the projection are
    relative to the root mean square of the reference, because both may cancel to nearly 0. For a list, differences are
    relative to the root mean square of its numbers. `floor` is the smallest size to divide by.
    """
    ours = np.asarray(ours, dtype=np.float64)
    if isinstance(reference, dict):
        digest = draw.digest(ours)
        if digest["shape"] != reference["shape"]:
            raise UserError(f"has {quantity} of shape {reference['shape']}; here it is {digest['shape']}")
        norm = max(reference["norm"], floor)
        root_mean_square = norm / max(1, ours.size) ** 0.5
        scale = np.array([norm, root_mean_square, root_mean_square])
        labels = ["norm", "mean", "projection"]
        reference, ours = (np.array([figures[label] for label in labels]) for figures in (reference, digest))
    else:
        reference, ours = np.array(reference, dtype=np.float64).ravel(), ours.ravel()
        if reference.shape != ours.shape:
            raise UserError(f"has {reference.size} values of {quantity}; here there are {ours.size}")
        scale = np.full(len(reference), max(np.sqrt(np.mean(reference**2)), floor))
        labels = [f"[{index}]" for index in range(len(reference))] if len(reference) > 1 else [""]
    scale[scale == 0] = 1  # all references are 0: use the absolute difference
    return Row(stage, quantity, labels, reference, ours, scale, tolerance)


def compare_all(stage, title, references, find, tolerance):
    """Rows for a dictionary of references. The largest one gives the floor of all. `find(name)` returns our array."""
    sizes = [abs(figure["norm"]) if isinstance(figure, dict) else abs(figure) for figure in references.values()]
    floor = FLOOR * max(sizes, default=0.0)
    return [
        compare(stage, f"{title} {name}", reference, find(name), tolerance, floor)
        for name, reference in references.items()
    ]
