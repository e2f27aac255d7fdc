"""The records of a run for VisualDL: charts, pictures, and the options by which it compares runs."""

import contextlib
import dataclasses
import math

import numpy as np

from metrics.record import SAMPLES
from parameters import METRICS, OPTIONS

RECORDS = "vdlrecords.run.log"  # the file
# Groups of charts in VisualDL. It sorts them by name, so a group's name begins with its place in this list.
GROUPS = ("loss", "logits", "class accuracy", "scores", "health", "speed", "sigma G", "sigma D")
# Tags of the metrics in VisualDL: GROUP/CHART.
TAGS = {
    "d_real": "loss/d_real",
    "d_fake": "loss/d_fake",
    "d_penalty": "loss/d_penalty",
    "d_class_real": "loss/d_class_real",
    "d_class_fake": "loss/d_class_fake",
    "g_adv": "loss/g_adv",
    "g_class": "loss/g_class",
    "D_x": "logits/D(x)",
    "D_G_z": "logits/D(G(z))",
    "accuracy_real": "class accuracy/real",
    "accuracy_fake": "class accuracy/fake",
    "right_real": "health/right_real",
    "right_fake": "health/right_fake",
    "d_gradient": "health/d_gradient",
    "g_gradient": "health/g_gradient",
    "images_per_second": "speed/images_per_second",
    "data_wait": "speed/data_wait",
}
COMPARED = ("Recipe", "Data", "Networks", "Losses", "Training")  # groups of options


class VisualRecords:
    """The records in the folder `path` of a run with `parameters`. They go on if they are there already.

    New ones begin with the options and with `real_grid`, a picture of real images, uint8 [H, W, 1 or 3].
    """

    def __init__(self, path, parameters, real_grid):
        from visualdl import LogWriter  # slow to import

        class Writer(LogWriter):
            @property
            def file_name(self):  # VisualDL encodes it as UTF-8, so it must be valid text
                return _escaped(super().file_name)

        records = path / RECORDS
        new = not records.exists() or records.stat().st_size == 0
        with contextlib.redirect_stdout(None):  # VisualDL prints a line if the file exists
            # A resumed run goes on in the same file, because VisualDL shows only the newest file of a folder.
            self._writer = Writer(str(path), file_name=RECORDS)
        if new:
            self._writer.add_hparams(*_compared(parameters))
            self.add_picture(0, "samples/real", real_grid)

    def add_figures(self, step, figures):
        """Add `figures`, {tag: float}. Values that are not finite are left out."""
        for tag, value in figures.items():
            if math.isfinite(value):
                self._writer.add_scalar(_numbered(tag), value, step)

    def add_picture(self, step, tag, grid):
        """Add `grid`, a picture, uint8 [H, W, 1 or 3]."""
        self._writer.add_image(tag, np.repeat(grid, 3, axis=2) if grid.shape[2] == 1 else grid, step)

    def flush(self):
        self._writer.flush()

    def close(self):
        self._writer.close()


def _numbered(tag):
    """The tag GROUP/CHART as VisualDL gets it, such as "1 loss/d_real"."""
    group, _, chart = tag.partition("/")
    return f"{GROUPS.index(group) + 1} {group}/{chart}"


def _compared(parameters):
    """({option: value}, [tag]): by these VisualDL compares runs. It shows the last value of each tag.

    The options are those that change the training, without switches that are off. The scores of `eval_step` are one
    of each metric. `name` is left out, because VisualDL would show it as the run's name.
    """
    p, values = parameters, {}
    for name, value in dataclasses.asdict(p).items():
        if OPTIONS[name].metadata["group"] in COMPARED and value is not None and value is not False:
            is_number = isinstance(value, (int, float))
            values[name] = (int(value) if isinstance(value, bool) else value) if is_number else _escaped(str(value))
    tags = ["loss/g_adv", "logits/D(x)", "logits/D(G(z))"]
    for metric in (METRICS[name] for name in p.chosen_metrics if p.eval_step):
        if SAMPLES in metric.sets:
            figure = metric.shown(p.by_classifier)[metric.best or metric.figures[0].name]
            tags.append(f"scores/{figure.name}")
    return values, list(map(_numbered, tags))


def _escaped(text):
    """`text` in valid UTF-8. It may contain the name of a file, with invalid bytes."""
    return text.encode(errors="backslashreplace").decode()
