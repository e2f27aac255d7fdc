"""One figure against its reference, and by how much they may differ."""

from typing import NamedTuple

import numpy as np

from alignment import draw
from utils import UserError

# Of the largest figure of its group. A bias before a batch norm has the gradient 0 but for rounding, and a saturated
# hinge loss is 0: what is smaller than this is compared as if it were this large.
FLOOR = 1e-5


class Row(NamedTuple):
    """Figures of one quantity: NumPy arrays of one length, and the size that their difference is measured in."""

    stage: str  # forward, loss, bp_align, train_align or metric, as Paddle's reproduction guide has them
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
        """Index of the figure that differs most; a NaN does."""
        return int(np.argmax(np.nan_to_num(self.differences, nan=np.inf)))

    @property
    def difference(self):
        return float(self.differences[self.worst])

    @property
    def agrees(self):
        return self.difference <= self.tolerance  # which a NaN does not


def compare(stage, quantity, reference, ours, tolerance, floor=0.0):
    """A Row from the reference, a number, a list of numbers or a digest, and our array.

    Of a digest, the norm is measured relative to itself, mean and projection relative to the reference's root mean
    square, since both may cancel to nearly 0; so is each number of a list. `floor` is the least norm to measure by.
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
    scale[scale == 0] = 1  # a reference of zeros: the difference itself
    return Row(stage, quantity, labels, reference, ours, scale, tolerance)


def compare_all(stage, title, references, find, tolerance):
    """Rows for a dictionary of references, whose largest sets their floor; `find(name)` is our array of a name."""
    sizes = [abs(figure["norm"]) if isinstance(figure, dict) else abs(figure) for figure in references.values()]
    floor = FLOOR * max(sizes, default=0.0)
    return [
        compare(stage, f"{title} {name}", reference, find(name), tolerance, floor)
        for name, reference in references.items()
    ]
