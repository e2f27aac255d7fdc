"""The model card names the data's licence, and has the scores of the newest report on these weights."""

import dataclasses
import json
import os

import pytest
import yaml
from drawn import drawn_generator

import checkpoint
from drawing.generator import OpenGenerator
from exporting.card import model_card
from parameters import Parameters
from utils import file_digest

FIGURES = {"classifier_accuracy": 0.986, "classifier_fid": 9.02}


@pytest.fixture
def card_of(tmp_path, make_parameters):
    """`card_of(class_names, report, **parameters)`: the text of the card of weights in a run with the file `report`."""

    def make(class_names=(), report=None, **changes):
        p = make_parameters("acgan-mlp", **changes)
        arrays = {name: tensor.numpy() for name, tensor in drawn_generator(p).state_dict().items()}
        path = tmp_path / "run" / "weights" / "step-00000007.safetensors"
        path.parent.mkdir(parents=True)
        (tmp_path / "run" / "parameters.yaml").touch()
        checkpoint.save(path, 7, dataclasses.asdict(p), {"G_ema": arrays}, class_names=class_names)
        if report is not None:
            (tmp_path / "run" / "test-1").mkdir()
            text = json.dumps(report).replace("DIGEST", file_digest(path))
            (tmp_path / "run" / "test-1" / "report.json").write_text(text)
        loaded = checkpoint.load(path)
        return model_card(OpenGenerator(p, loaded), loaded, has_onnx=False)

    return make


def test_the_card_has_what_a_hub_reads(card_of):
    card = card_of(dataset="digits", num_classes=10)
    _, head, text = card.split("---\n", 2)
    head = yaml.safe_load(head)
    assert head["license"] == "cc-by-4.0" and head["library_name"] == "paddlepaddle" and "acgan" in head["tags"]
    for words in ("after 7 steps", "moving average", "UCI Machine Learning", "CC BY 4.0", "## Intended use and limits"):
        assert words in text
    assert "Not measured." in text and "onnx" not in card
    assert "1610.09585" in text and "2111.01118" not in text


@pytest.mark.parametrize(("name", "title"), [("my <flowers>", "my &lt;flowers&gt;"), (None, "acgan-mnist")])
def test_the_title_is_the_run_s_name_or_the_recipe(card_of, name, title):
    assert f"---\n\n# {title}\n" in card_of(name=name, recipe="acgan-mnist")


def test_a_card_of_reacgan_cites_its_paper_too(card_of):
    card = card_of(class_loss="d2d_ce")
    assert "1610.09585" in card and "- Class loss: Kang, Shim, Cho, Park, *Rebooting ACGAN: " in card


@pytest.mark.parametrize("data", [{"dataset": "folder"}, {"dataset": "imagenet", "class_names": ("daisy", "tulip")}])
def test_the_licence_of_ones_own_images_is_left_to_the_user(card_of, data):
    """`--data_path` alone means --dataset imagenet. Then the names of the classes tell that the images are others."""
    card = card_of(num_classes=2, **data)
    assert (
        "license: other" in card
        and "Not known here: before you publish, name the images, their source and their licence." in card
    )


def test_scores_are_those_of_a_report_on_the_same_weights(card_of):
    card = card_of(report={"figures": FIGURES, "settings": {"sha256": "DIGEST", "num_samples": 10_000}})
    assert "| read as the class asked for | 98.60% |" in card and "Measured by `test.py` on 10,000 samples." in card


@pytest.mark.parametrize(
    "report",
    [
        {"figures": FIGURES, "settings": {"sha256": "of other weights", "num_samples": 10_000}},
        {"figures": {"classifier_fid": "high"}, "settings": {"sha256": "DIGEST", "num_samples": 10_000}},
        {"figures": {}, "settings": {"sha256": "DIGEST", "num_samples": 10_000}},
        {"figures": FIGURES, "settings": {"sha256": "DIGEST", "num_samples": "many"}},
        [],
    ],
)
def test_other_reports_give_no_scores(card_of, report):
    assert "Not measured." in card_of(report=report)


def test_reports_are_read_in_any_folder_of_the_run_and_strangers_files_do_no_harm(card_of, tmp_path):
    """`--test_path RUN/test` is such a folder. A pipe or a device would never end."""
    run = tmp_path / "run"
    for name in ("deep", "huge", "link", "pipe", "test", "zero"):
        (run / name).mkdir(parents=True)
    (run / "deep" / "report.json").write_text("[" * 100_000)
    (run / "huge" / "report.json").write_text('{"figures": {"classifier_fid": 1}' + " " * 2**20)
    (run / "link" / "report.json").symlink_to("nothing")
    os.mkfifo(run / "pipe" / "report.json")
    (run / "zero" / "report.json").symlink_to("/dev/zero")
    assert "Not measured." in card_of(report=None)
    weights = run / "weights" / "step-00000007.safetensors"
    content = {"figures": FIGURES, "settings": {"sha256": file_digest(weights), "num_samples": 512}}
    (run / "test" / "report.json").write_text(json.dumps(content))
    loaded = checkpoint.load(weights)
    card = model_card(OpenGenerator(Parameters(**loaded.parameters), loaded), loaded, has_onnx=False)
    assert "Measured by `test.py` on 512 samples." in card


def test_names_of_classes_are_no_markup(card_of):
    names = ("a*b*", "<script>", "[x](y)", "cat", "\udce9")
    card = card_of(class_names=names)
    assert "<script>" not in card and "a*b*" not in card and "[x](y)" not in card and "cat" in card
    card.encode()
