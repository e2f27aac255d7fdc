"""The records in a run's folder that a page shows: the film of its samples, its curves, and the reports of its tests.

The folder may come from a stranger. A file that cannot be read is left out.
"""

import math
import re
from pathlib import Path

import numpy as np
from PIL import Image

from evaluation import report
from pages.curves import read_log
from training.run_folder import LOG
from training.visual_records import TAGS

FRAMES, FRAME_SIDE = 24, 640  # of a film: the most frames; their largest side in pixels
PIXEL_LIMIT = 2**26
OWN_SCALES = ("health", "speed", "other")  # groups whose figures need charts of their own, except those in CHARTS
CHARTS = {
    "right_real": "health: right", "right_fake": "health: right",
    "d_gradient": "health: gradients", "g_gradient": "health: gradients",
    "class_distance": "health: class_distance", "d_seconds": "speed: seconds", "g_seconds": "speed: seconds",
}  # fmt: skip
REPORTS = 8  # the most


def film(folder):
    """[(step, picture)] of the grids step-NUMBER.png in `folder`: at most FRAMES Pillow images, evenly chosen."""
    paths = [path for path in sorted(Path(folder).glob("step-*.png")) if path.is_file()]  # a device never ends
    chosen = np.unique(np.linspace(0, len(paths) - 1, FRAMES).round().astype(int)) if paths else ()
    frames = []
    for path in (paths[number] for number in chosen):
        try:
            step = int(path.stem.removeprefix("step-"))
            with Image.open(path, formats=("PNG",)) as picture:
                if math.prod(picture.size) > PIXEL_LIMIT:
                    continue
                frame = picture.convert("L" if picture.mode == "L" else "RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
        frame.thumbnail((FRAME_SIDE, FRAME_SIDE), Image.Resampling.BOX)
        frames.append((step, frame))
    return frames


def curves(run):
    """[(group, {figure: [(step, value), …]})] of the log of a run, in VisualDL's groups.

    Figures of different scales are groups of their own.
    """
    path = Path(run, LOG)
    if not path.is_file():
        return []
    training, measured, health = read_log(path)
    groups = {}
    for name, points in training.items():
        group, _, label = TAGS.get(name, f"other/{name}").partition("/")
        group = CHARTS.get(name, f"{group}: {label}") if group in OWN_SCALES else group
        groups.setdefault(group, {})[label] = points
    for name, points in health.items():
        if group := "health: gates" if name.startswith("gate_") else CHARTS.get(name):
            groups.setdefault(group, {})[name] = points
    return [*((name, {name: points}) for name, points in measured.items()), *groups.items()]


def reports(run, recipe):
    """The reports of the tests of a run, those of the last steps first: dictionaries.

    `name`: the name of the folder. `table`: (title, figure, the paper's, the replication's) as text. `published`:
    whether figures are published for the recipe. `lines`: cautions. `settings`: {name: text}.
    """
    paths = sorted(Path(run).glob("*/report.json"), reverse=True)
    found = (_read_report(path, recipe) for path in paths[:REPORTS])
    return [read for read in found if read]


def _read_report(path, recipe):
    if not (read := report.read(path)):
        return None
    figures, settings = read
    published = report.PUBLISHED.get(recipe, {})
    table = [(title, text, *(published[name][:2] if name in published else (None, None)))
             for title, text, name in report.rows(figures)]  # fmt: skip
    try:
        return {
            "name": path.parent.name,
            "table": table,
            "published": bool(published),
            "lines": report.cautions(figures, settings),
            "settings": {name.replace("_", " "): _without_folders(value)[:300] for name, value in settings.items()},
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):  # settings of other types
        return None


def _without_folders(setting):
    """A setting as text. Each absolute path keeps only its last name, because a page may be published."""
    # A setting may hold several paths: "/a/train and /a/val", or "/a/first.pdparams,/b/second.pdparams".
    texts = re.split(r"( and |,)", str(setting))
    return "".join(re.sub(r"(^|[ (])([A-Za-z]:)?[/\\](?! ).*[/\\]", r"\1", text) for text in texts)
