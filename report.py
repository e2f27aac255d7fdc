"""The result of a test: a table on screen, `report.json` for programs, `report.md` to paste."""

import json
import platform
import re
import sys
import time
from importlib import metadata
from typing import NamedTuple

import numpy as np
import paddle

import runtime
from utils import atomic_path

# (its line in a table, how it is written); a figure of a classifier has its prefix before both.
FIGURES = {
    "fid": ("FID", ".4f"),
    "fid_floor": ("FID of real test images against training images", ".4f"),
    "fid_64": ("FID, 64 features", ".5f"),
    "fid_192": ("FID, 192 features", ".5f"),
    "fid_768": ("FID, 768 features", ".5f"),
    "intra_fid": ("intra-FID", ".4f"),
    "inception_score": ("Inception Score", ".4f"),
    "inception_score_std": ("Inception Score, standard deviation over 10 parts", ".4f"),
    "score": ("score", ".4f"),
    "score_std": ("score, standard deviation over 10 parts", ".4f"),
    "kid": ("KID", ".6f"),
    "kid_std": ("KID, standard deviation over subsets", ".6f"),
    "precision": ("precision", ".4f"),
    "recall": ("recall", ".4f"),
    "density": ("density", ".4f"),
    "coverage": ("coverage", ".4f"),
    "accuracy": ("read as the class asked for", ".2%"),
    "accuracy_real": ("real test images read as their class", ".2%"),
    "ms_ssim": ("MS-SSIM within a class", ".4f"),
    "ms_ssim_real": ("MS-SSIM within a class, real images", ".4f"),
    "varied_classes": ("classes at least as varied as the least varied real one", ".0f"),
    "varied_class_share": ("share of classes at least as varied as the least varied real one", ".1%"),
    "class_distance_ratio": ("distance within a class, generated over real", ".3f"),
}
# Of Markdown: a letter or digit on both sides makes an underscore plain.
MARKUP = re.compile(r"[\\`*\[\]<>&|~$#]|(?<![^\W_])_|_(?![^\W_])")
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


class Published(NamedTuple):
    """A published figure: the paper's and the replication's (None: there is none), and the settings it was taken with.

    Those are the report's by name; of a text, a part that the report's has to hold.
    """

    paper: str | None
    replication: str | None
    settings: dict


PLAIN = {
    "weights": "as trained", "batch statistics": "running", "truncation": None, "half precision": False,
    "inception weights": "published file",
}  # fmt: skip
SAGAN = {"dataset": "imagenet", "num_samples": 50_000, "classes drawn": 1000, "imsize": 128} | PLAIN
ACGAN = {"dataset": "imagenet", "classes drawn": 10, "imsize": 128} | PLAIN
CIFAR10 = {"dataset": "cifar10", "num_samples": 50_000, "classes drawn": 10, "imsize": 32} | PLAIN
# Recipe -> figure -> what is published of it.
PUBLISHED = {
    "sagan-imagenet": {
        "fid": Published("18.65", "18.1482", SAGAN),
        "inception_score": Published("52.52", "51.6682", SAGAN),
        "intra_fid": Published("83.7", None, SAGAN),
    },
    "acgan-imagenet": {
        "accuracy": Published("10.1 % ± 2.0, of 100 models", None, ACGAN),
        "accuracy_64": Published("7.0 %, of 100 models", None, ACGAN),
        "varied_class_share": Published("84.7 % of 1000 classes, of 100 models", None, ACGAN | {"classes drawn": 1000}),
    },
    "acgan-cifar10": {"inception_score": Published("8.25 ± 0.07", None, CIFAR10)},
}
PUBLISHED["acgan-imagenet-torch"] = PUBLISHED["acgan-imagenet"]
UNKNOWN = {  # recipe: what is not known of its published figures
    "acgan-imagenet": (
        "The paper's are of 100 models of 10 classes each, taken together; of how many samples is not known.",
    ),
}
UNKNOWN["acgan-imagenet-torch"] = UNKNOWN["acgan-imagenet"]

# Figures that compare the samples as one set with the real images as another.
OF_SETS = {"fid", "fid_64", "fid_192", "fid_768", "kid", "precision", "recall", "density", "coverage"}
FEW = 10_000  # samples: below, the authors of FID (github.com/bioinf-jku/TTUR) warn, figures come out too high


def _parts(name):
    """(whether a figure is a classifier's, its name in FIGURES, its resolution or "")."""
    bare = name.removeprefix("classifier_")
    if bare in FIGURES:
        return bare != name, bare, ""
    kind, _, resolution = bare.removesuffix("_real").rpartition("_")  # accuracy_32, accuracy_32_real
    return bare != name, kind + ("_real" if bare.endswith("_real") else ""), resolution


def described(name):
    """(the line of a figure in a table, its format)."""
    by_classifier, key, resolution = _parts(name)
    line, form = FIGURES[key]
    prefix = "classifier " if by_classifier and "accuracy" not in key else ""
    return prefix + line + (f", at {resolution} pixels" if resolution else ""), form


def rows(figures):
    """(line, figure as text, its name) of each figure, in the order of FIGURES."""
    place = {name: number for number, name in enumerate(FIGURES)}
    for name, value in sorted(figures.items(), key=lambda item: place[_parts(item[0])[1]]):
        line, form = described(name)
        yield line, format(value, form) if np.isfinite(value) else "none", name


def table(figures):
    """The figures as aligned lines of text."""
    lines = [(line, text) for line, text, _ in rows(figures)]
    width = max((len(line) for line, _ in lines), default=0)
    return [f"{line}:{' ' * (width - len(line))} {text}" for line, text in lines]


def cautions(figures, settings):
    """What figures must not be taken for: lines of text. `settings` are the report's."""
    count, classes, drawn = (settings[name] for name in ("num_samples", "num_classes", "classes drawn"))
    names, lines = {_parts(name)[1] for name in figures}, []
    if "unknown" not in (classes, drawn) and drawn < classes and names & OF_SETS:
        lines.append(f"Samples of {drawn} of the {classes} classes are compared with real images of all of them.")
    if count < FEW and names & {"fid", "fid_64", "fid_192", "fid_768", "intra_fid"}:
        lines.append(f"FID falls as samples become more: compare one of {count:,} with figures of as many only.")
    if "kid" in names:
        size, real = settings["kid subset size"], settings["number of real images"]
        whole = " and ".join(what for what, has in (("samples", count), ("real images", real)) if has == size)
        if whole:
            lines.append(f"Each subset of KID holds all {size:,} {whole}: its deviation does not tell how they vary.")
    if not np.isfinite(figures.get("class_distance_ratio", 0)):
        lines.append("No distance: it needs two samples of a class, and two real images of that class that differ.")
    steps, needed = settings.get("steps"), settings.get("steps until batch statistics settle")
    if needed and steps < needed:
        lines.append(
            f"The running batch statistics need about {needed:,} steps to settle, and these weights have {steps:,}: "
            "images may look grey and score badly. --standing_batches 50 takes the statistics anew."
        )
    return lines


def versions():
    """What the figures depend on beside the settings: versions, and the machine."""
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

    `figures`: floats by name; `settings`: what the figures are of, plain values by name; `seconds` by stage, 0 where
    there was nothing to do.
    """
    content = {
        "figures": {name: value if np.isfinite(value) else None for name, value in figures.items()},
        "settings": settings,
        "parameters": json.loads(json.dumps(vars(parameters))),
        "versions": versions(),
        "processes": runtime.world_size(),
        "seconds": {stage: value for stage, value in seconds.items() if value},
        "command": [*sys.argv],
        "written": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    data = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    for name, text in (("report.json", data), ("report.md", _markdown(figures, content, parameters))):
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # a file's name need not be UTF-8


def _markdown(figures, content, parameters):
    """The report as Markdown."""
    recipe, settings = parameters.recipe, content["settings"]
    lines = ["# " + _escaped(f"{'' if recipe == 'none' else f'{recipe}: '}{settings['samples']}"), ""]
    published = {name: found for name, found in PUBLISHED.get(recipe, {}).items() if name in figures}
    if not figures:
        lines += ["Nothing was measured."]
    elif published:
        lines += ["| figure | here | paper | replication |", "|---|---|---|---|"]
        for line, text, name in rows(figures):
            paper, replication = published[name][:2] if name in published else (None, None)
            lines.append(_row(line, text, paper or "", replication or ""))
        for line in (*_comparison(published, settings), *UNKNOWN.get(recipe, ())):
            lines += ["", _escaped(line)]
    else:
        lines += ["| figure | |", "|---|---|", *(_row(line, text) for line, text, _ in rows(figures))]
    for line in cautions(figures, settings):
        lines += ["", _escaped(line)]
    lines += ["", "| setting | |", "|---|---|"]
    lines += [_row(name.replace("_", " "), _shown(value)) for name, value in settings.items()]
    lines += [_row(name, value) for name, value in content["versions"].items()]
    lines += [_row("processes", content["processes"])]
    lines += [_row(f"seconds, {stage}", value) for stage, value in content["seconds"].items()]
    return "\n".join(lines) + "\n"


def _row(*cells):
    """A row of a table in Markdown."""
    return f"| {' | '.join(_escaped(str(cell)) for cell in cells)} |"


def _escaped(text):
    """`text` as one line of Markdown that shows it: strangers' files bring names, and they are no markup."""
    text = MARKUP.sub(lambda match: ENTITIES.get(match[0], f"\\{match[0]}"), text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _comparison(published, settings):
    """Which settings keep which figures from being compared with the published ones: sentences."""
    lines_of = {}  # what differs, and what may: the figures of which it does
    for name, figure in published.items():
        differ = []
        for setting, wanted in figure.settings.items():
            found = settings.get(setting, "unknown")
            if not (wanted in str(found) if isinstance(wanted, str) else found == wanted):
                differ.append(f"{setting} {_shown(found)} instead of {_shown(wanted)}")
        lines_of.setdefault(("; ".join(differ), ", ".join(figure.settings)), []).append(described(name)[0])
    for (differ, compared), lines in lines_of.items():
        which = "the published figures" if len(lines_of) == 1 else f"what is published of “{'”, “'.join(lines)}”"
        if differ:
            yield f"Not comparable with {which}: {differ}."
        else:
            yield f"The same as of {which}: {compared}. The reference images have to be too."


def _shown(value):
    return {"None": "none", "True": "yes", "False": "no"}.get(str(value), str(value))
