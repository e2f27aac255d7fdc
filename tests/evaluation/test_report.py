"""The report: one line for each figure, the published figures beside it, and the reasons why they do not compare."""

import dataclasses
import html
import json
import math
import re

import pytest

from command.line import CommandLine
from evaluation import report
from parameters import METRICS

RESOLUTIONS = (8, 16, 32, 64)
OF_METRIC = {  # the figures that `evaluation.Evaluation` computes for each
    **{name: [name] for name in ("fid", "fid_64", "fid_192", "fid_768", "intra_fid")},
    "floor": ["fid_floor"],
    "is": ["inception_score", "inception_score_std"],
    "kid": ["kid", "kid_std"],
    "prdc": ["precision", "recall", "density", "coverage"],
    "accuracy": ["accuracy", "accuracy_real", *(f"accuracy_{n}{r}" for n in RESOLUTIONS for r in ("", "_real"))],
    "ms_ssim": ["ms_ssim", "ms_ssim_real", "varied_classes", "varied_class_share"],
    "distance": ["class_distance_ratio"],
    "cas": ["cas", "cas_real", "cas_reverse"],
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
    assert len({len(line) - len(line.split()[-1]) for line in lines}) == 1  # the figures are aligned


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


def write_report(folder, recipe, figures, settings=None, seconds=None, **options):
    """Write a report on `recipe`; returns (report.json, report.md). The settings are those of its published figures,
    with `settings` changed.
    """
    p = CommandLine(["--recipe", recipe, "--samples", str(folder), "--metrics", "none"], program="test").parameters()
    p = dataclasses.replace(p, **options)
    classes = p.num_classes or 1000
    settings = {
        "samples": "them", "dataset": p.dataset, "num_samples": 50_000, "num_classes": classes,
        "classes drawn": classes, "imsize": p.imsize,
        "weights": "as trained", "batch statistics": "running", "truncation": None, "half precision": False,
        "inception weights": "published file w.pth, SHA-256", "number of real images": 50_000, "kid subset size": 1000,
    } | (settings or {})  # fmt: skip
    report.write(folder, figures, settings, p, seconds or {"samples": 1.5})

    def refuse(literal):
        raise AssertionError(f"{literal} is no JSON")

    content = json.loads((folder / "report.json").read_text(encoding="utf-8"), parse_constant=refuse)
    return content, (folder / "report.md").read_text(encoding="utf-8")


def verdicts(text):
    """A report's sentences on published figures."""
    return [line for line in text.splitlines() if "ompar" in line or line.startswith(("The ", "Same settings"))]


@pytest.mark.parametrize(
    ("recipe", "figures", "columns"),
    [
        ("sagan-imagenet", ("fid", "inception_score", "intra_fid"),
         [("FID", "18.65", "18.1482"), ("Inception Score", "52.52", "51.6682"), ("intra-FID", "83.7", "")]),
        ("acgan-imagenet", ("accuracy", "accuracy_64", "varied_class_share"),
         [("read as the class asked for", "10.1 % ± 2.0, of 100 models", ""),
          ("read as the class asked for, at 64 pixels", "7.0 %, of 100 models", ""),
          ("share of classes at least as varied as the least varied real one",
           "84.7 % of 1000 classes, of 100 models", "")]),
        ("acgan-imagenet-torch", ("accuracy",), [("read as the class asked for", "10.1 % ± 2.0, of 100 models", "")]),
        ("acgan-cifar10", ("inception_score", "fid"), [("Inception Score", "8.25 ± 0.07", ""), ("FID", "", "")]),
        ("sagan-imagenet-ema", ("fid", "inception_score"), [("FID", "", "12.83"), ("Inception Score", "", "69.54")]),
        ("sagan-cifar10", ("fid", "inception_score"), [("FID", "", "9.43"), ("Inception Score", "", "9.32")]),
        ("reacgan-cifar10", ("fid", "inception_score"), [("FID", "", "3.87"), ("Inception Score", "", "9.85")]),
        ("reacgan-imagenet", ("fid", "inception_score"),
         [("FID", "8.21, with other settings: 2,048 images in a step, validation images", "15.65"),
          ("Inception Score", "", "66.67")]),
        ("acgan-digits", ("classifier_fid",), [("classifier FID", "", "")]),
    ],
)  # fmt: skip
def test_published_figures_are_in_columns_beside_ours(tmp_path, recipe, figures, columns):
    _, text = write_report(tmp_path, recipe, dict.fromkeys(figures, 0.25))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    for line, paper, replication in columns:
        (row,) = [row for row in rows if row[0] == line]
        assert row[2:] == ([] if recipe == "acgan-digits" else [paper, replication])  # no figures published
        assert row[1] in ("0.2500", "25.00%", "25.0%")
    assert all(len(row) in (2, 4) for row in rows)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, None),
        ({"num_samples": 5000}, "num_samples 5000 instead of 50000"),
        ({"classes drawn": 10, "truncation": 0.5}, "classes drawn 10 instead of 1000; truncation 0.5 instead of none"),
        ({"dataset": "cifar10"}, "dataset cifar10 instead of imagenet"),
        ({"imsize": 64}, "imsize 64 instead of 128"),
        ({"half precision": True}, "half precision yes instead of no"),
        ({"weights": "moving average"}, "weights moving average instead of as trained"),
        (
            {"batch statistics": "standing, over 9 batches"},
            "batch statistics standing, over 9 batches instead of running",
        ),
        (
            {"inception weights": "own file published.pth"},
            "inception weights own file published.pth instead of published file",
        ),
        ({"classes drawn": "unknown"}, "classes drawn unknown instead of 1000"),
    ],
)
def test_the_report_says_whether_its_settings_are_the_published_ones(tmp_path, settings, why):
    _, text = write_report(tmp_path, "sagan-imagenet", {"inception_score": 20.0}, settings)
    (found,) = verdicts(text)
    if why:
        assert found == f"Not comparable with the published figures: {why}."
    else:
        assert found == (
            "Same settings as the published figures: dataset, num_samples, classes drawn, imsize, weights, batch "
            "statistics, truncation, half precision, inception weights. The real images, their crop and their filter "
            "have to be the same too."
        )


def test_truncation_of_samples_from_a_file_is_unknown(tmp_path):
    settings = {"samples": "them", "num_samples": 50_000, "num_classes": 1000, "classes drawn": 1000, "imsize": 128}
    p = CommandLine(
        ["--recipe", "sagan-imagenet", "--samples", str(tmp_path), "--metrics", "none"], program="test"
    ).parameters()
    report.write(tmp_path, {"fid": 20.0}, settings, p, {})
    assert "truncation unknown instead of none" in (tmp_path / "report.md").read_text()


def test_each_figure_is_compared_by_its_own_settings(tmp_path):
    """FID depends on the real images, and the Inception Score does not."""
    figures = {"fid": 20.0, "inception_score": 50.0}
    _, text = write_report(tmp_path, "sagan-imagenet", figures, {"real split": "train"})
    differs, compares = verdicts(text)
    assert differs == "Not comparable with the published values of “FID”: real split train instead of test."
    assert compares.startswith("Same settings as the published values of “Inception Score”: dataset, num_samples,")


def test_figures_of_one_model_are_not_those_of_a_hundred(tmp_path):
    figures = {"accuracy": 0.1, "varied_class_share": 0.8}
    drawn = {"models": 100, "classes drawn": 1000, "num_samples": 10}
    compares, unknown = verdicts(write_report(tmp_path, "acgan-imagenet", figures, drawn)[1])
    assert compares.startswith("Same settings as the published figures: dataset, models, classes drawn,")
    assert "num_samples" not in compares
    differs, _ = verdicts(write_report(tmp_path, "acgan-imagenet", figures, {"models": 1})[1])
    assert differs == (
        "Not comparable with the published figures: models 1 instead of 100; classes drawn 10 instead of 1000."
    )
    assert (
        unknown
        == "The paper's figures are of 100 models of 10 classes each, taken together; the number of samples is unknown."
    )


CUT_OUT = "shorter side resized by the {} filter, middle cut out, 128x128 pixels"
EMA = {"real split": "train", "weights": "moving average", "transform": CUT_OUT.format("bilinear")}


@pytest.mark.parametrize(
    ("recipe", "settings", "why"),
    [
        ("sagan-imagenet", {"real split": "test"}, None),
        ("sagan-imagenet", {"real split": "train"}, "real split train instead of test"),
        ("sagan-imagenet", {}, "real split unknown instead of test"),  # --reference does not tell it
        ("sagan-imagenet-ema", EMA, None),
        ("sagan-imagenet-ema", EMA | {"real split": "test"}, "real split test instead of train"),
        (
            "sagan-imagenet-ema",
            EMA | {"transform": "resized by the bilinear filter, 128x128 pixels"},
            "transform resized by the bilinear filter, 128x128 pixels instead of shorter side resized by the bilinear "
            "filter, middle cut out",
        ),
        ("sagan-cifar10", {"real split": "train"}, None),
        ("sagan-cifar10", {"real split": "both"}, "real split both instead of train"),
    ],
)
def test_the_report_says_whether_the_real_images_are_the_published_ones(tmp_path, recipe, settings, why):
    """FID depends on them, and the Inception Score does not."""
    _, text = write_report(tmp_path, recipe, {"fid": 20.0}, settings)
    (found,) = verdicts(text)
    assert found == f"Not comparable with the published figures: {why}." if why else found.startswith("Same settings")
    _, text = write_report(tmp_path, recipe, {"inception_score": 20.0}, settings)
    assert verdicts(text)[0].startswith("Same settings")


@pytest.mark.parametrize("name", ["bilinear", "lanczos"])
def test_the_published_figures_of_reacgan_have_another_filter_and_other_networks(tmp_path, name):
    """StudioGAN's ReACGAN has BigGAN's networks. Its real images are resized by Lanczos' filter."""
    settings = EMA | {"batch statistics": "standing, over 9 batches", "transform": CUT_OUT.format(name)}
    first, other = verdicts(write_report(tmp_path, "reacgan-imagenet", {"fid": 20.0}, settings)[1])
    assert first.startswith("Same settings as the published" if name == "lanczos" else "Not comparable with")
    assert ("resized by the bilinear filter" in first) == (name == "bilinear")
    assert other.startswith("The published figures are of other networks, BigGAN's, with embeddings of 2,048 numbers")


@pytest.mark.parametrize("recipe", ["acgan-imagenet", "sagan-imagenet", "acgan-cifar10"])
def test_figures_without_published_values_get_no_comparison(tmp_path, recipe):
    _, text = write_report(tmp_path, recipe, {"kid": 0.1, "precision": 0.5}, {"truncation": 0.5})
    assert not verdicts(text) and "| paper |" not in text


def test_samples_without_a_recipe_get_no_comparison(tmp_path):
    p = CommandLine(["--samples", str(tmp_path), "--metrics", "none"], program="test").parameters()
    settings = {"samples": "them", "num_samples": 50_000, "num_classes": "unknown", "classes drawn": "unknown"}
    report.write(tmp_path, {"fid": 20.0}, settings, p, {})
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# them\n") and "18.65" not in text and not verdicts(text)


def test_a_recipe_without_published_figures_gets_no_comparison(tmp_path):
    assert not verdicts(write_report(tmp_path, "acgan-digits", {"classifier_fid": 1.0})[1])


def test_report_json_holds_figures_settings_and_options(tmp_path):
    """Any JSON parser reads it: figures that are not finite become null."""
    figures = {"fid": 12.345678901234567, "class_distance_ratio": math.nan, "kid": math.inf, "varied_classes": 3}
    settings = {
        "truncation": 0.5,
        "labels": "3,7: repeated in order",
        "weights": "as trained",
        "file": "odd|name \udcff.safetensors",
    }
    seconds = {"samples": 1.5, "classes": 0.0}  # a stage without work
    content, text = write_report(tmp_path, "sagan-imagenet", figures, settings, seconds, truncation=0.5)
    assert content["figures"] == {
        "fid": 12.345678901234567, "class_distance_ratio": None, "kid": None, "varied_classes": 3,
    }  # fmt: skip
    assert content["settings"]["labels"] == "3,7: repeated in order" and content["parameters"]["truncation"] == 0.5
    assert content["seconds"] == {"samples": 1.5} and content["processes"] == 1
    assert {"numpy", "python", "machine"} < content["versions"].keys()
    for line in (
        "| labels | 3,7: repeated in order |",
        "| truncation | 0.5 |",
        "| weights | as trained |",
        "| seconds, samples | 1.5 |",
        "| file | odd\\|name \\udcff",
    ):
        assert line in text


HOSTILE = [
    "a|b", "|", "a\\|b", "\\", "a\nb", "a\r\n\r\n# b", "\n\n| a | b |", "<script>alert(1)</script>", "</table>", "<!--",
    "&lt;b&gt;", "`rm`", "```", "**bold**", "_it_", "__it__", "~~gone~~", "[text](javascript:alert(1))",
    "![x](http://h/x.png)", "$x$", "\x1b[2J", "a\u2028b", "a\u202eb", "\udcff", "- a", "# a #", "> a",
]  # fmt: skip


def shown(markdown):
    """The text that a reader sees for a line or a cell of Markdown."""
    return html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown))


def assert_plain(line):
    """Check that a line of Markdown holds no code, HTML, link or emphasis."""
    unescaped = re.sub(r"\\[!-/:-@\[-`{-~]|&(lt|gt|amp);", "", line)
    assert not re.search(r"[<>&`*~$\[\]]|(?<![^\W_])_|_(?![^\W_])", unescaped), line


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_from_files_stays_text(tmp_path, text):
    """In the heading and in every setting. The report has as many lines and cells as with a harmless text."""
    names = ("samples", "file", "labels", "real images", "weights", "inception weights")
    figures = {"fid": 20.0}
    _, harmless = write_report(tmp_path, "sagan-imagenet", figures, dict.fromkeys(names, "x"))
    _, found = write_report(tmp_path, "sagan-imagenet", figures, dict.fromkeys(names, text))
    lines = found.split("\n")
    assert len(lines) == len(harmless.split("\n")) == len(found.splitlines()) + 1
    for line in lines:
        assert_plain(line)
    expected = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    assert shown(lines[0]) == f"# sagan-imagenet: {expected}"
    rows = [re.split(r"(?<!\\)(?:\\\\)*\|", line) for line in lines if line.startswith("|")]
    assert {len(row) for row in rows} == {4, 6}  # 2 or 4 cells, and the text before the first bar and after the last
    assert f"| real images | {expected} |" in map(shown, lines)


@pytest.mark.parametrize("recipe", ["a|b", "<script>alert(1)</script>", "`a`", "*a*", "[a](b)"])
def test_a_recipes_name_stays_text(tmp_path, recipe):
    p = CommandLine(["--samples", str(tmp_path), "--metrics", "none"], program="test").parameters()
    settings = {"samples": "them", "num_samples": 5, "num_classes": 10, "classes drawn": 10}
    report.write(tmp_path, {}, settings, dataclasses.replace(p, recipe=recipe), {})
    heading = (tmp_path / "report.md").read_text().split("\n")[0]
    assert_plain(heading)
    assert shown(heading) == f"# {recipe}: them"


@pytest.mark.parametrize(
    ("name", "count", "warned"),
    [("fid", 9999, True), ("classifier_fid", 9999, True), ("fid", 10_000, False), ("inception_score", 9999, False)],
)
def test_the_fid_of_few_samples_gets_a_warning(tmp_path, name, count, warned):
    _, text = write_report(tmp_path, "acgan-digits", {name: 1.0}, {"num_samples": count})
    assert ("FID falls as the number of samples grows: compare it only with FID of 9,999" in text) == warned


def test_accuracies_are_listed_together():
    """By rising resolution with the full one last, then those of real images. No other metric comes between."""
    figures = {f"accuracy{n}{r}": 0.5 for n in ("_8", "_64", "") for r in ("", "_real")}
    names = [name for _, _, name in report.rows({"ms_ssim": 0.5, **figures, "fid": 1.0})]
    assert names == ["fid", "accuracy_8", "accuracy_64", "accuracy", *(f"accuracy{n}_real" for n in ("_8", "_64", "")),
                     "ms_ssim"]  # fmt: skip


@pytest.mark.parametrize(
    ("figure", "drawn", "warned"),
    [
        ("fid", 1, True),
        ("classifier_fid", 9, True),
        ("classifier_kid", 1, True),
        ("recall", 1, True),
        ("fid", 10, False),
        ("fid", "unknown", False),
        ("fid_floor", 1, False),
        ("accuracy", 1, False),
    ],
)
def test_samples_of_some_classes_against_images_of_all_get_a_warning(figure, drawn, warned):
    settings = {"num_samples": 10**6, "num_classes": 10, "classes drawn": drawn, "number of real images": 10**6}
    lines = report.cautions({figure: 1.0}, settings | {"kid subset size": 1000})
    sentence = f"Samples of {drawn} of the 10 classes are compared with real images of all of them."
    assert lines == [sentence] * warned


@pytest.mark.parametrize(
    ("count", "real", "whole"),
    [
        (2000, 3000, None),
        (500, 3000, "500 samples"),
        (1000, 3000, "1,000 samples"),
        (2000, 360, "360 real images"),
        (360, 360, "360 samples and real images"),
    ],
)
def test_kid_subsets_that_hold_all_images_get_a_warning(count, real, whole):
    settings = {"num_samples": count, "num_classes": 10, "classes drawn": 10, "number of real images": real}
    lines = report.cautions({"classifier_kid": 1.0}, settings | {"kid subset size": min(1000, count, real)})
    assert lines == (
        [f"Each subset of KID holds all {whole}: its standard deviation does not show how these vary."] if whole else []
    )


@pytest.mark.parametrize(("value", "said"), [(math.nan, True), (math.inf, True), (0.5, False)])
def test_a_missing_distance_is_explained(tmp_path, value, said):
    _, text = write_report(tmp_path, "acgan-digits", {"class_distance_ratio": value})
    assert ("No distance: it needs two samples of a class" in text) == said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 6, "steps until batch statistics settle": 12000}, True),
        ({"steps": 12000, "steps until batch statistics settle": 12000}, False),
        ({}, False),
    ],
)
def test_unsettled_batch_statistics_get_a_warning(tmp_path, settings, said):
    _, text = write_report(tmp_path, "sagan-imagenet", {"fid": 300.0}, settings)
    assert ("batch statistics need about 12,000 steps to settle, but these weights have 6:" in text) == said
    assert ("--standing_batches" in text) == said
