"""The result of a test: a table for the screen, `report.json` for programs, `report.md` for people."""

import functools
import json
import math
import platform
import re
import sys
import time
from importlib import metadata
from typing import NamedTuple

import numpy as np
import paddle

from drawing.generator import caution
from metrics import all_metrics
from processes import collectives
from utils import atomic_path

# Characters that Markdown may read as markup. An underscore between two letters or digits is not markup.
MARKUP = re.compile(r"[\\`*\[\]<>&|~$#]|(?<![^\W_])_|_(?![^\W_])")
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
READ_LIMIT = 2**20  # bytes of a report.json that `read` accepts


class Published(NamedTuple):
    """A published figure: the paper's and the replication's (None: not published), and its settings.

    `settings` have the names of the report's. A setting compares if its value in the report is equal, or, for a text,
    contains that text.
    """

    paper: str | None
    replication: str | None
    settings: dict


PLAIN = {
    "weights": "as trained", "batch statistics": "running", "truncation": None, "half precision": False,
    "inception weights": "published file",
}  # fmt: skip
IMAGENET = {"dataset": "imagenet", "num_samples": 50_000, "classes drawn": 1000, "imsize": 128} | PLAIN
ACGAN = {"dataset": "imagenet", "models": 100, "classes drawn": 1000, "imsize": 128} | PLAIN
AVERAGE = {"weights": "moving average"}
STUDIOGAN = AVERAGE | {"batch statistics": "standing"}
# The row "transform" of a published FID, where the source names its filter.
CUT_OUT = "shorter side resized by the {} filter, middle cut out"
CIFAR10 = {"dataset": "cifar10", "num_samples": 50_000, "classes drawn": 10, "imsize": 32} | PLAIN
# Recipe -> figure -> its published values.
PUBLISHED = {
    "sagan-imagenet": {
        "fid": Published("18.65", "18.1482", IMAGENET | {"real split": "test"}),
        "inception_score": Published("52.52", "51.6682", IMAGENET),
        "intra_fid": Published("83.7", None, IMAGENET | {"real split": "test"}),
    },
    "acgan-imagenet": {
        "accuracy": Published("10.1 % ± 2.0, of 100 models", None, ACGAN),
        "accuracy_64": Published("7.0 %, of 100 models", None, ACGAN),
        "varied_class_share": Published("84.7 % of 1000 classes, of 100 models", None, ACGAN),
    },
    "acgan-cifar10": {"inception_score": Published("8.25 ± 0.07", None, CIFAR10)},
    "sagan-imagenet-ema": {  # mmgeneration's
        "fid": Published(
            None, "12.83", IMAGENET | AVERAGE | {"real split": "train", "transform": CUT_OUT.format("bilinear")}
        ),
        "inception_score": Published(None, "69.54", IMAGENET | AVERAGE),
    },
    "sagan-cifar10": {  # mmgeneration's
        "fid": Published(None, "9.43", CIFAR10 | {"real split": "train"}),
        "inception_score": Published(None, "9.32", CIFAR10),
    },
    "reacgan-cifar10": {  # StudioGAN's
        "fid": Published(None, "3.87", CIFAR10 | STUDIOGAN | {"real split": "train"}),
        "inception_score": Published(None, "9.85", CIFAR10 | STUDIOGAN),
    },
    "reacgan-imagenet": {  # StudioGAN's
        "fid": Published(
            "8.21, with other settings: 2,048 images in a step, validation images",
            "15.65",
            IMAGENET | STUDIOGAN | {"real split": "train", "transform": CUT_OUT.format("lanczos")},
        ),
        "inception_score": Published(None, "66.67", IMAGENET | STUDIOGAN),
    },
}
PUBLISHED["acgan-imagenet-torch"] = PUBLISHED["acgan-imagenet"]
UNKNOWN = {  # recipe: sentences about unknown facts of its published figures
    "acgan-imagenet": (
        "The paper's figures are of 100 models of 10 classes each, taken together; the number of samples is unknown.",
    ),
    "reacgan-cifar10": ("The published figures are of other networks, BigGAN's.",),
    "reacgan-imagenet": (
        "The published figures are of other networks, BigGAN's, with embeddings of 2,048 numbers and a class loss of "
        "weight 1.",
    ),
}
UNKNOWN["acgan-imagenet-torch"] = UNKNOWN["acgan-imagenet"]


@functools.cache
def _known_figures():
    """{name: (figure, its metric)} of all figures of all metrics, in the order of the table."""
    return {
        figure.name: (figure, metric)
        for metric in all_metrics().values()
        for by_classifier in (False, True)
        for figure in metric.shown(by_classifier).values()
    }


def title(name):
    """The title of the figure `name`, or None if no metric has it."""
    return _known_figures()[name][0].title if name in _known_figures() else None


def rows(figures):
    """(title, figure as text, its name) of each figure, in the order of the table."""
    for name, (figure, _) in _known_figures().items():
        if name in figures:
            value = figures[name]
            yield figure.title, format(value, figure.format) if np.isfinite(value) else "none", name


def table(figures):
    """The figures as aligned lines of text."""
    lines = [(line, text) for line, text, _ in rows(figures)]
    width = max((len(line) for line, _ in lines), default=0)
    return [f"{line}:{' ' * (width - len(line))} {text}" for line, text in lines]


def cautions(figures, settings):
    """Lines that warn of the limits of the figures. `settings` are those of the report."""
    classes, drawn, lines = settings["num_classes"], settings["classes drawn"], []
    metrics = {metric.name: metric for name, (_, metric) in _known_figures().items() if name in figures}.values()
    if "unknown" not in (classes, drawn) and drawn < classes and any(metric.compares_sets for metric in metrics):
        lines.append(f"Samples of {drawn} of the {classes} classes are compared with real images of all of them.")
    lines += dict.fromkeys(filter(None, (metric.caution(figures, settings) for metric in metrics)))
    unsettled = caution(settings.get("steps"), settings.get("steps until batch statistics settle"))
    return [*lines, unsettled] if unsettled else lines


def versions():
    """Versions of libraries, and the machine. The figures depend on them."""
    gpu = paddle.device.cuda.get_device_name() if paddle.get_device() != "cpu" else None
    names = ("paddlepaddle", "paddlepaddle-gpu", "numpy", "scipy", "pillow", "opencv-python-headless")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | {"python": platform.python_version(), "machine": gpu or f"{platform.machine()} CPU"}


def write(folder, figures, settings, parameters, seconds):
    """Write `report.json` and `report.md` into `folder`.

    `figures`: floats by name. `settings`: plain values by name; they decide the figures. `seconds`: time by stage, 0 if
    there was nothing to do.
    """
    content = {
        "figures": {name: value if np.isfinite(value) else None for name, value in figures.items()},
        "settings": settings,
        "parameters": json.loads(json.dumps(vars(parameters))),
        "versions": versions(),
        "processes": collectives.world_size(),
        "seconds": {stage: value for stage, value in seconds.items() if value},
        "command": [*sys.argv],
        "written": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    data = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    for name, text in (("report.json", data), ("report.md", _markdown(figures, content, parameters))):
        with atomic_path(folder / name) as temporary:
            # A path in the report may not be UTF-8.
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def read(path):
    """(figures, settings) of the report.json at `path`: floats by name, and plain values by name.

    None if the file cannot be read as a report: it may come from a stranger.
    """
    try:
        if not path.is_file() or path.stat().st_size > READ_LIMIT:  # a device never ends
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        figures = {name: math.nan if value is None else float(value) for name, value in content["figures"].items()}
        return figures, dict(content["settings"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _markdown(figures, content, parameters):
    """The report as Markdown."""
    recipe, settings = parameters.recipe, content["settings"]
    lines = ["# " + escaped(f"{'' if recipe == 'none' else f'{recipe}: '}{settings['samples']}"), ""]
    # The table of figures, beside published ones if there are any, and the sentences about them.
    published = {name: found for name, found in PUBLISHED.get(recipe, {}).items() if name in figures}
    if not figures:
        lines += ["Nothing was measured."]
    elif published:
        lines += ["| figure | here | paper | replication |", "|---|---|---|---|"]
        for line, text, name in rows(figures):
            paper, replication = published[name][:2] if name in published else (None, None)
            lines.append(_row(line, text, paper or "", replication or ""))
        for line in (*_comparison(published, settings), *UNKNOWN.get(recipe, ())):
            lines += ["", escaped(line)]
    else:
        lines += ["| figure | |", "|---|---|", *(_row(line, text) for line, text, _ in rows(figures))]
    for line in cautions(figures, settings):
        lines += ["", escaped(line)]
    # The table of settings.
    lines += ["", "| setting | |", "|---|---|"]
    lines += [_row(name.replace("_", " "), _shown(value)) for name, value in settings.items()]
    lines += [_row(name, value) for name, value in content["versions"].items()]
    lines += [_row("processes", content["processes"])]
    lines += [_row(f"seconds, {stage}", value) for stage, value in content["seconds"].items()]
    return "\n".join(lines) + "\n"


def _row(*cells):
    """A row of a table in Markdown."""
    return f"| {' | '.join(escaped(str(cell)) for cell in cells)} |"


def escaped(text):
    """`text` as one line of Markdown without markup. Text from a stranger's file might contain markup."""
    text = MARKUP.sub(lambda match: ENTITIES.get(match[0], f"\\{match[0]}"), text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _comparison(published, settings):
    """Sentences that name the figures comparable with the published ones, and the settings that differ."""
    titles_of = {}  # {(differences, compared settings): titles of the figures that have them}
    for name, figure in published.items():
        differ = []
        for setting, wanted in figure.settings.items():
            found = settings.get(setting, "unknown")
            if not (wanted in str(found) if isinstance(wanted, str) else found == wanted):
                differ.append(f"{setting} {_shown(found)} instead of {_shown(wanted)}")
        titles_of.setdefault(("; ".join(differ), ", ".join(figure.settings)), []).append(
            _known_figures()[name][0].title
        )
    for (differ, compared), titles in titles_of.items():
        quoted = "”, “".join(titles)
        which = "the published figures" if len(titles_of) == 1 else f"the published values of “{quoted}”"
        if differ:
            yield f"Not comparable with {which}: {differ}."
        else:
            same = "The real images, their crop and their filter have to be the same too."
            yield f"Same settings as {which}: {compared}. {same}"


def _shown(value):
    return {"None": "none", "True": "yes", "False": "no"}.get(str(value), str(value))
