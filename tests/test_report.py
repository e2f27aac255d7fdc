"""The report: a line for every figure, the published ones beside it, and why they cannot be compared."""

import dataclasses
import json
import math

import pytest

import report
from parameters import METRICS, get_parameters

RESOLUTIONS = (8, 16, 32, 64)
OF_METRIC = {  # the figures that `evaluation.Evaluation` makes of each
    **{name: [name] for name in ("fid", "fid_64", "fid_192", "fid_768", "intra_fid")},
    "floor": ["fid_floor"],
    "is": ["inception_score", "inception_score_std"],
    "kid": ["kid", "kid_std"],
    "prdc": ["precision", "recall", "density", "coverage"],
    "accuracy": ["accuracy", "accuracy_real", *(f"accuracy_{n}{r}" for n in RESOLUTIONS for r in ("", "_real"))],
    "ms_ssim": ["ms_ssim", "ms_ssim_real", "varied_classes", "varied_class_share"],
    "distance": ["class_distance_ratio"],
}
INCEPTION = [name for metric in METRICS for name in OF_METRIC[metric]]
CLASSIFIER = [
    "classifier_fid", "classifier_fid_floor", "classifier_intra_fid", "classifier_score", "classifier_score_std",
    "classifier_kid", "classifier_kid_std", "classifier_precision", "classifier_recall", "classifier_density",
    "classifier_coverage", "classifier_accuracy", "classifier_accuracy_real",
]  # fmt: skip


@pytest.mark.parametrize("names", [INCEPTION, CLASSIFIER])
def test_every_figure_has_a_line_of_its_own(names):
    lines = report.table({name: 0.5 for name in names})
    texts = [line.rpartition(":")[0] for line in lines]
    assert len(set(texts)) == len(names)
    assert len({len(line) - len(line.split()[-1]) for line in lines}) == 1  # the figures stand below each other


def test_figures_as_text():
    shown = dict(line.split(":") for line in report.table({"fid": 18.65004, "accuracy_32": 0.1234, "kid": 0.00123456}))
    assert {name: text.strip() for name, text in shown.items()} == {
        "FID": "18.6500",
        "KID": "0.001235",
        "read as the class asked for, at 32 pixels": "12.34%",
    }
    (line,) = report.table({"class_distance_ratio": math.nan})
    assert line.endswith(" none")
    assert report.table({}) == []


def written(folder, recipe, figures, settings=None, **options):
    """(report.json, report.md) of a test of `recipe`."""
    p = get_parameters(["--recipe", recipe, "--samples", str(folder), "--metrics", "none"], program="test")
    p = dataclasses.replace(p, **options)
    settings = {"samples": "them", "num_samples": 50_000, "num_classes": p.num_classes, "imsize": p.imsize} | (
        settings or {}
    )
    report.write(folder, figures, settings, p, {"samples": 1.5})

    def refuse(literal):
        raise AssertionError(f"{literal} is no JSON")

    content = json.loads((folder / "report.json").read_text(encoding="utf-8"), parse_constant=refuse)
    return content, (folder / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("recipe", "figures", "columns"),
    [
        ("sagan-imagenet", ("fid", "inception_score", "intra_fid"),
         [("FID", "18.65", "18.1482"), ("Inception Score", "52.52", "51.6682"), ("intra-FID", "83.7", "")]),
        ("acgan-imagenet", ("accuracy", "accuracy_64", "varied_class_share"),
         [("read as the class asked for", "10.1 % ± 2.0", ""),
          ("read as the class asked for, at 64 pixels", "7.0 %", ""), ("their share", "84.7 %", "")]),
        ("acgan-imagenet-torch", ("accuracy",), [("read as the class asked for", "10.1 % ± 2.0", "")]),
        ("acgan-cifar10", ("inception_score", "fid"), [("Inception Score", "8.25 ± 0.07", ""), ("FID", "", "")]),
        ("acgan-digits", ("classifier_fid",), [("classifier FID", "", "")]),
    ],
)  # fmt: skip
def test_published_figures_stand_beside(tmp_path, recipe, figures, columns):
    _, text = written(tmp_path, recipe, dict.fromkeys(figures, 0.25))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    for line, paper, replication in columns:
        (row,) = [row for row in rows if row[0] == line]
        assert row[2:] == ([] if recipe == "acgan-digits" else [paper, replication])  # of which nothing is published
        assert row[1] in ("0.2500", "25.00%", "25.0%")
    assert all(len(row) in (2, 4) for row in rows)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, None),
        ({"num_samples": 5000}, "num_samples 5000 instead of 50000"),
        ({"num_classes": 10, "truncation": 0.5}, "num_classes 10 instead of 1000; truncation 0.5 instead of none"),
    ],
)
def test_whether_it_compares(tmp_path, settings, why):
    _, text = written(tmp_path, "sagan-imagenet", {"fid": 20.0}, {"num_classes": 1000} | settings)
    found = [line for line in text.splitlines() if "comparable" in line or "are those of" in line]
    assert found == [f"Not comparable with the published figures: {why}." if why else found[0]]
    assert ("Not" in found[0]) == bool(why)


def test_a_recipe_without_published_figures_compares_nothing(tmp_path):
    assert "published" not in written(tmp_path, "acgan-digits", {"classifier_fid": 1.0})[1]


def test_report_for_programs(tmp_path):
    """All figures, settings and options, in JSON that any parser reads, whatever is not finite."""
    figures = {"fid": 12.345678901234567, "class_distance_ratio": math.nan, "kid": math.inf, "varied_classes": 3}
    settings = {"truncation": 0.5, "labels": "3,7", "weights": "as trained", "file": "odd|name \udcff.safetensors"}
    content, text = written(tmp_path, "sagan-imagenet", figures, settings, truncation=0.5)
    assert content["figures"] == {
        "fid": 12.345678901234567, "class_distance_ratio": None, "kid": None, "varied_classes": 3,
    }  # fmt: skip
    assert content["settings"]["labels"] == "3,7" and content["parameters"]["truncation"] == 0.5
    assert content["seconds"] == {"samples": 1.5} and content["processes"] == 1
    assert {"numpy", "python", "machine"} < content["versions"].keys()
    for line in (
        "| labels | 3,7 |",
        "| truncation | 0.5 |",
        "| weights | as trained |",
        "| seconds, samples | 1.5 |",
        "| file | odd\\|name \\udcff",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("name", "count", "warned"),
    [("fid", 9999, True), ("classifier_fid", 9999, True), ("fid", 10_000, False), ("inception_score", 9999, False)],
)
def test_few_samples_make_a_high_fid(tmp_path, name, count, warned):
    _, text = written(tmp_path, "acgan-digits", {name: 1.0}, {"num_samples": count})
    assert ("FID falls as samples become more: compare one of 9,999" in text) == warned
