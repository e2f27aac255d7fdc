"""The result of a test: a table on screen, `report.json` for programs, `report.md` to paste."""

import json
import platform
import sys
import time
from importlib import metadata

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
    "varied_class_share": ("their share", ".1%"),
    "class_distance_ratio": ("distance within a class, generated over real", ".3f"),
}
# Recipe -> figure -> (the paper's, the replication's); None where there is none.
PUBLISHED = {
    "sagan-imagenet": {
        "fid": ("18.65", "18.1482"),
        "inception_score": ("52.52", "51.6682"),
        "intra_fid": ("83.7", None),
    },
    "acgan-imagenet": {
        "accuracy": ("10.1 % ± 2.0", None),
        "accuracy_64": ("7.0 %", None),
        "varied_class_share": ("84.7 %", None),
    },
    "acgan-cifar10": {"inception_score": ("8.25 ± 0.07", None)},
}
PUBLISHED["acgan-imagenet-torch"] = PUBLISHED["acgan-imagenet"]
# Recipe -> (what has to be so for a figure to be comparable with the published ones, by option).
COMPARABLE = {
    "sagan-imagenet": {"num_samples": 50_000, "num_classes": 1000, "imsize": 128, "truncation": None},
    "acgan-imagenet": {"num_classes": 10, "imsize": 128, "truncation": None},
    "acgan-imagenet-torch": {"num_classes": 10, "imsize": 128, "truncation": None},
    "acgan-cifar10": {"num_samples": 50_000, "num_classes": 10, "imsize": 32, "truncation": None},
}

FEW = 10_000  # samples: below, the authors of FID (github.com/bioinf-jku/TTUR) warn, figures come out too high


def described(name):
    """(the line of a figure in a table, its format)."""
    bare = name.removeprefix("classifier_")
    if bare in FIGURES:
        line, form = FIGURES[bare]
        return ("classifier " if bare != name and "accuracy" not in bare else "") + line, form
    bare, _, resolution = bare.removesuffix("_real").rpartition("_")  # accuracy_32, accuracy_32_real
    line, form = FIGURES[bare + ("_real" if name.endswith("_real") else "")]
    return f"{line}, at {resolution} pixels", form


def rows(figures):
    """(line, figure as text, its name) of each figure, in the order of FIGURES."""
    place = {name: number for number, name in enumerate(FIGURES)}
    for name, value in sorted(figures.items(), key=lambda item: place.get(item[0].removeprefix("classifier_"), 99)):
        line, form = described(name)
        yield line, format(value, form) if np.isfinite(value) else "none", name


def table(figures):
    """The figures as aligned lines of text."""
    lines = [(line, text) for line, text, _ in rows(figures)]
    width = max((len(line) for line, _ in lines), default=0)
    return [f"{line}:{' ' * (width - len(line))} {text}" for line, text in lines]


def cautions(figures, count):
    """What figures of `count` samples must not be taken for: lines of text."""
    if count < FEW and any("fid" in name and not name.endswith("floor") for name in figures):
        return [f"FID falls as samples become more: compare one of {count:,} with figures of as many only."]
    return []


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

    `figures`: floats by name; `settings`: what the figures are of, plain values by name; `seconds` by stage.
    """
    content = {
        "figures": {name: value if np.isfinite(value) else None for name, value in figures.items()},
        "settings": settings,
        "parameters": json.loads(json.dumps(vars(parameters))),
        "versions": versions(),
        "processes": runtime.world_size(),
        "seconds": seconds,
        "command": [*sys.argv],
        "written": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    data = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    for name, text in (("report.json", data), ("report.md", _markdown(figures, content, parameters))):
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # a file's name need not be UTF-8


def _markdown(figures, content, parameters):
    """The report as Markdown."""
    recipe = parameters.recipe
    published = PUBLISHED.get(recipe, {})
    lines = [f"# {recipe}: {content['settings']['samples']}", ""]
    if not figures:
        lines += ["Nothing was measured."]
    elif published:
        lines += ["| figure | here | paper | replication |", "|---|---|---|---|"]
        for line, text, name in rows(figures):
            paper, replication = published.get(name, (None, None))
            lines.append(f"| {line} | {text} | {paper or ''} | {replication or ''} |")
        lines += ["", _comparison(content["settings"], recipe)]
    else:
        lines += ["| figure | |", "|---|---|", *(f"| {line} | {text} |" for line, text, _ in rows(figures))]
    for line in cautions(figures, content["settings"]["num_samples"]):
        lines += ["", line]
    lines += ["", "| setting | |", "|---|---|"]
    for name, value in content["settings"].items():
        shown = _shown(value).replace("|", "\\|")
        lines.append(f"| {name.replace('_', ' ')} | {shown} |")
    lines += [f"| {name} | {value} |" for name, value in content["versions"].items()]
    lines += [f"| processes | {content['processes']} |"]
    lines += [f"| seconds, {stage} | {value} |" for stage, value in content["seconds"].items()]
    return "\n".join(lines) + "\n"


def _comparison(settings, recipe):
    """Which settings keep the figures from being compared with the published ones."""
    wanted = COMPARABLE[recipe]
    found = {name: settings.get(name) for name in wanted}
    differ = [
        f"{name} {_shown(found[name])} instead of {_shown(value)}"
        for name, value in wanted.items()
        if found[name] != value
    ]
    if differ:
        return f"Not comparable with the published figures: {'; '.join(differ)}."
    return "The settings are those of the published figures; the reference images have to be too."


def _shown(value):
    return "none" if value is None else str(value)
