"""Tell when a training may have collapsed: samples are alike, D always wins, or a loss explodes."""

import contextlib
import math

import numpy as np

from metrics.diversity import class_distance
from pictures import COLUMNS

START = 0.1  # share of the run after which a sign is reported; before it, networks still find their balance
ALIKE, ALIKE_EVER = 0.3, 0.1  # of the best distance; of the distance of real images
RIGHT, RIGHT_CHECKS = 0.99, 5
EXPLODED = 100  # times the median
SMALL_LOSS = 0.1  # a median below it counts as this, because a loss near 0 may well become 100 times as large
KEPT = 100  # checks; their losses make the median
LOSSES = ("d_real", "d_fake", "d_penalty", "d_class_real", "d_class_fake", "g_adv", "g_class")
ADVICE = "docs/troubleshooting.md#collapse has the list"
HELP = {
    "alike": f"a lower --g_lr or a larger --batch_size often helps; {ADVICE}",
    "beaten": f"a lower --d_lr or more real images often help; {ADVICE}",
    "exploded": f"lower --d_lr and --g_lr often help; {ADVICE}",
}


class Collapse:
    """Looks for signs of a collapse at each `--sample_step`, and reports each sign once.

    `real_distance`: the `class_distance` of real images. If it is 0 or NaN, samples are not compared.
    `notes`: `notes()` of the same run at the step where it goes on. Anything else starts anew.
    """

    def __init__(self, parameters, real_distance, notes=None):
        self.parameters, self.real_distance = parameters, real_distance
        self.sums, self.count = {}, 0  # of the metrics since the last check, by name
        self.distance = math.nan  # of samples of a class at the last check, as a share of that of real images
        self.best = 0.0  # its largest value so far, at most 1
        self.right_checks = 0  # checks in a row where D was right on nearly all images
        self.losses = {}  # {name: its absolute values at the last checks}
        self.reported = []  # names of the signs that were reported
        with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError, OverflowError):
            vars(self).update(_read_notes(notes))

    def notes(self):
        """The state as plain values."""
        losses = {name: list(values) for name, values in self.losses.items()}
        state = {"sums": self.sums, "count": self.count, "best": self.best, "right_checks": self.right_checks}
        return state | {"losses": losses, "reported": list(self.reported)}

    def add(self, metrics):
        """Take note of `metrics`, floats by name, of a step up to the next check."""
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in metrics.items()}
        self.count += 1

    def check(self, step, samples):
        """The signs that are new at `step`: a list of sentences.

        `samples`: of the generator in training, as `sampler.grid_samples` returns. Losses and shares are means over the
        metrics that `add` got since the last check, at least one.
        """
        means = {name: total / self.count for name, total in self.sums.items()}
        self.sums, self.count = {}, 0
        found = {"alike": self._alike(samples), "beaten": self._beaten(means), "exploded": self._exploded(means)}
        if step < START * self.parameters.total_step:
            return []
        new = [name for name, sign in found.items() if sign and name not in self.reported]
        self.reported += new
        return [f"the training may have collapsed at step {step}: {found[name]}; {HELP[name]}" for name in new]

    def _alike(self, samples):
        if not self.real_distance > 0:
            return None
        labels = np.arange(len(samples)) // COLUMNS
        self.distance = class_distance(samples, labels)["class_distance"] / self.real_distance
        self.best = max(self.best, min(self.distance, 1.0))
        if self.distance >= max(ALIKE * self.best, ALIKE_EVER):
            return None
        return (
            f"samples of a class look alike: their distance is {self.distance:.2f} of the distance of real images, and "
            f"it was {self.best:.2f} at best"
        )

    def _beaten(self, means):
        right = "right_real" in means and min(means["right_real"], means["right_fake"]) > RIGHT
        self.right_checks = self.right_checks + 1 if right else 0
        if self.right_checks >= RIGHT_CHECKS:
            return f"D was right on over 99 % of the real and of the generated images at {RIGHT_CHECKS} checks in a row"
        return None

    def _exploded(self, means):
        exploded = None
        for name, value in self._losses_of(means).items():
            before = self.losses.setdefault(name, [])
            if before and value > EXPLODED * max(np.median(before), SMALL_LOSS):
                exploded = exploded or f"{name} is {value:.3g}, and its median is {np.median(before):.3g}"
            before.append(value)
            del before[:-KEPT]
        return exploded

    def _losses_of(self, means):
        """The absolute values of the losses in `means`, by name."""
        losses = {name: value for name, value in means.items() if name in LOSSES}
        if self.parameters.adv_loss == "wgan_gp":
            # Its logits have no zero point, so only differences between them mean something.
            losses["d_real + d_fake"] = losses.pop("d_real") + losses.pop("d_fake")
            del losses["g_adv"]
        return {name: abs(value) for name, value in losses.items()}


def _read_notes(notes):
    """The state in `notes`, which a stranger may have written. Raises an exception if they have another form."""
    if int(notes["count"]) < 0:
        raise ValueError("a negative count")
    return {
        "sums": {name: float(value) for name, value in notes["sums"].items()},
        "count": int(notes["count"]),
        "best": float(notes["best"]),
        "right_checks": int(notes["right_checks"]),
        "losses": {name: list(map(float, values)) for name, values in notes["losses"].items()},
        "reported": list(map(str, notes["reported"])),
    }
