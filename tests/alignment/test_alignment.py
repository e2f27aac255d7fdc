"""The command `python -m alignment`: figures that agree and disagree, its messages and its reports."""

import copy
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from commands import LIMIT

import operations
from alignment import draw, report
from alignment.__main__ import check, main
from alignment.compare import compare, compare_all
from alignment.fixture import Fixture, read
from layers import BatchNorm, leaky_relu
from utils import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures"
SMALL = [
    "sagan128", "sagan_hinge", "sagan_dcgan", "sagan_wgan_gp",
    "sagan_cifar10", "sagan_cifar10_wgan_gp", "reacgan_cifar10", "reacgan_cifar10_narrow",
    "acgan_cifar10", "acgan_mnist", "acgan_mlp",
    "acgan_cifar10_narrow", "acgan_imagenet_narrow", "acgan_mnist_narrow", "acgan_mlp_narrow",
    "published_sagan_paddle", "published_sagan_paddle_float64", "published_sagan_torch",
    "published_acgan_paddle", "published_acgan_paddle_float64", "metrics",
]  # fmt: skip
SLOW = ["acgan_imagenet128", "inception_metrics"]


def count_figures(tree):
    """The number of quantities in a fixture: digests, lists of numbers and numbers."""
    if isinstance(tree, dict) and "norm" not in tree:
        return sum(count_figures(value) for value in tree.values())
    return sum(map(count_figures, tree)) if isinstance(tree, list) and isinstance(tree[0], dict) else 1


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_every_figure_agrees(name):
    check_every_figure(name)


@pytest.mark.parametrize("name", ["sagan_hinge", "acgan_cifar10_narrow", "acgan_mnist_narrow"])
def test_every_figure_agrees_in_the_plain_forms_that_gpus_use(name):
    with operations.plain_forms():
        check_every_figure(name)


def check_every_figure(name):
    fixture = read(FIXTURES / f"{name}.json")
    rows = check(fixture)
    assert [(row.quantity, row.difference) for row in rows if not row.agrees] == []
    if "trajectory" in fixture:
        sections = [
            "eval_forward", "first_d_grads", "first_g_grads", "trajectory", "final_G", "final_D", "final_eval_images"
        ]  # fmt: skip
        assert len(rows) == sum(count_figures(fixture[section]) for section in sections)
        # float64 gives far more digits than the tolerance needs. The median leaves out biases whose gradients are
        # only rounding.
        assert np.median([row.difference for row in rows]) < 1e-12


def test_published_layouts_agree_to_rounding_in_float64():
    """The published SAGAN and ACGAN layouts agree to rounding, with affine pairs and relu(x) shortcuts."""
    for name in ("published_sagan_torch", "published_sagan_paddle_float64", "published_acgan_paddle_float64"):
        rows = check(read(FIXTURES / f"{name}.json"))
        assert max(row.difference for row in rows if "float64" in row.quantity) < 1e-12


@pytest.fixture
def narrow():
    return read(FIXTURES / "acgan_mlp_narrow.json")


def with_one_number_changed(fixture, *path, factor=1 + 1e-6):
    """A copy of a fixture with one number multiplied by `factor`."""
    fixture = copy.deepcopy(fixture)
    *above, last = path
    entry = fixture
    for key in above:
        entry = entry[key]
    assert entry[last] != 0
    entry[last] *= factor
    return fixture


@pytest.mark.parametrize(
    "path",
    [
        ("eval_forward", "images", "norm"),
        ("eval_forward", "validity_logits", 2),
        ("eval_forward", "class_logits", "projection"),
        ("first_d_grads", "model.2.weight", "norm"),
        ("first_g_grads", "label_emb.weight", "projection"),
        ("trajectory", 2, "g_aux"),
        ("final_G", "model.3.running_var", "norm"),
        ("final_G", "model.11.bias", "projection"),
        ("final_D", "adv_layer.0.bias", "norm"),
        ("final_eval_images", "norm"),
    ],
)
def test_a_relative_error_of_a_millionth_disagrees(narrow, path):
    wrong = [row for row in check(with_one_number_changed(narrow, *path)) if not row.agrees]
    assert len(wrong) == 1
    assert 5e-7 < wrong[0].difference < 2e-6 or path[-1] == "projection"


def test_missing_sections_of_a_fixture_are_skipped(narrow):
    forward = {key: value for key, value in narrow.items() if key not in ("first_d_grads", "trajectory", "final_G")}
    assert {row.stage for row in check(Fixture(forward))} == {"forward", "train_align"}


def test_a_mean_is_compared_relative_to_the_rms_and_a_norm_relative_to_itself():
    array = np.array([[3.0, -3.0], [1.0, -1.0]])  # the values cancel: the mean is 0
    digest = draw.digest(array)
    row = compare("forward", "x", {**digest, "mean": 1e-9}, array, 1e-7)
    assert row.labels[row.worst] == "mean" and row.difference == pytest.approx(1e-9 / math.sqrt(5))
    row = compare("forward", "x", {**digest, "norm": digest["norm"] * 1.01}, array, 1e-7)
    assert row.labels[row.worst] == "norm" and row.difference == pytest.approx(0.01 / 1.01)


def test_a_reference_of_zeros_is_compared_absolutely():
    zeros = np.zeros((2, 3))
    assert compare("loss", "penalty", 0.0, 0.0, 1e-7).agrees
    assert compare("loss", "penalty", 0.0, 1e-3, 1e-7).difference == 1e-3
    assert compare("forward", "x", draw.digest(zeros), zeros, 1e-7).agrees
    assert not compare("forward", "x", draw.digest(zeros), zeros + 1e-3, 1e-7).agrees


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_disagree(value):
    array = np.array([1.0, value, 2.0])
    for reference in ([1.0, 1.5, 2.0], draw.digest([1.0, 1.5, 2.0]), [1.0, math.nan, 2.0]):
        assert not compare("forward", "x", reference, array, 1e-7).agrees


def test_gradients_that_are_only_rounding_are_compared_relative_to_the_largest():
    references = {"weight": {**draw.digest([2.0])}, "bias": {**draw.digest([1e-16])}}
    rows = compare_all("bp_align", "G", references, lambda name: [2.0] if name == "weight" else [-3e-16], 1e-7)
    assert all(row.agrees for row in rows)
    rows = compare_all("bp_align", "G", references, lambda name: [2.0] if name == "weight" else [1e-11], 1e-7)
    assert [row.agrees for row in rows] == [True, False]


def test_the_command_and_its_report_mark_figures_that_disagree(tmp_path, narrow):
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(with_one_number_changed(narrow, "trajectory", 1, "d_adv_real")))
    right = FIXTURES / "acgan_mlp_narrow.json"
    command = [sys.executable, "-m", "alignment", str(right), str(wrong), "--report", str(tmp_path / "report")]
    done = subprocess.run(command, cwd=FIXTURES.parents[1], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 1
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["stage", "quantity", "reference", "ours", "rel.", "difference", "verdict"]
    assert [line[1:4] for line in lines if "DISAGREES" in line] == [["step", "1", "d_adv_real"]]
    assert f"{right}: 82 of 82 quantities agree" in done.stdout
    assert f"{wrong}: 81 of 82 quantities agree, THE OTHERS DISAGREE" in done.stdout

    text = (tmp_path / "report" / "alignment.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len([row for row in rows if "| agrees |" in row]) == 82 + 81
    assert len([row for row in rows if "DISAGREES" in row]) == 1
    for stage, side in (("forward", "torch"), ("loss", "torch"), ("bp_align", "torch"), ("train_align", "benchmark")):
        # Read the files as reprod_log's `ReprodDiffHelper.load_info` and `compare_info` do.
        reference, ours = (
            np.load(tmp_path / "report" / f"{stage}_{side}.npy", allow_pickle=True).tolist()
            for side in (side, "paddle")
        )
        assert reference.keys() == ours.keys()
        assert all(type(value) is np.ndarray and value.dtype == np.float64 for value in reference.values())
        off = [key for key in reference if np.abs(reference[key] - ours[key]).max() > 2e-7]
        assert off == (["wrong/step 1 d_adv_real"] if stage == "loss" else [])
    assert reference["acgan_mlp_narrow/images"][0] == narrow["final_eval_images"]["norm"]


def test_a_user_mistake_is_one_sentence_and_exit_code_2(tmp_path):
    command = [sys.executable, "-m", "alignment", str(tmp_path / "none.json")]
    done = subprocess.run(command, cwd=FIXTURES.parents[1], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"{tmp_path / 'none.json'} cannot be read: No such file or directory")
    assert "Traceback" not in done.stderr


BROKEN = {
    "is not JSON": "{",
    "holds a JSON list, not an object": "[]",
    "is of no known protocol": "{}",
    'has protocol "stylegan"; known are sagan, acgan': '{"protocol": "stylegan"}',
    'lacks "kind"': '{"protocol": "acgan"}',
}


@pytest.mark.parametrize(("message", "text"), BROKEN.items())
def test_files_that_are_not_fixtures_are_refused(tmp_path, message, text):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(UserError) as refusal:
        main([str(path)])
    assert f"{path} {message}" in str(refusal.value)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ('has batch "4", not a whole number', {"batch": "4"}),
        ("has steps 0, not a whole number", {"steps": 0}),
        ("has seed -1, not a whole number", {"seed": -1}),
        ("has dropout 0.5", {"dropout": 0.5}),
        ("has the losses of 3 of 4 steps", {"steps": 4}),
        ("has the unknown loss g_loss", {"trajectory": [{"g_loss": 1.0}] * 3}),
        ("has the unknown figure score", {"eval_forward": {"score": 1.0}}),
        ("holds model.99.bias, which its network does not have", {"final_G": {"model.99.bias": draw.digest([1.0])}}),
        ("has images of shape [2]", {"eval_forward": {"images": draw.digest([1.0, 2.0])}}),
        ("holds nothing to compare", {"trajectory": None}),
        ("lacks linears.1.weight", {"G_state": {"model.0.weight": [4, 4]}}),
        ("asks for", {"G_state": {"model.0.weight": [2**20, 2**20]}}),
        ("gives model.0.weight the shape", {"G_state": {"model.0.weight": [-4, 4]}}),
        ("is malformed", {"eval_forward": 7}),
        ("is malformed", {"final_G": {"model.0.bias": "much"}}),
        ("epsilon 0.1", {"optimizer": Fixture(name="Adam", betas=[0.5, 0.9], epsilon=0.1, lr=0.1)}),
        ("has name \"SGD\"; known are Adam", {"optimizer": Fixture(name="SGD", lr=0.1)}),
    ],
)  # fmt: skip
def test_fixtures_with_wrong_entries_are_refused(tmp_path, narrow, message, changes):
    path = tmp_path / "broken.json"
    fixture = narrow | changes
    if message == "holds nothing to compare":
        fixture = {
            key: value for key, value in narrow.items() if not key.startswith(("first", "final", "eval", "traj"))
        }
    path.write_text(json.dumps(fixture))
    with pytest.raises(UserError) as refusal:
        main([str(path)])
    assert str(refusal.value).startswith(str(path)) and message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ('has network "biggan"; known are sagan, sagan-cifar10', {"network": "biggan"}),
        ("has image_size 64; sagan-cifar10 has 32", {"image_size": 64}),
        ("has temperature 0, not a number above 0", {"temperature": 0}),
        ("has margin", {"margin": "wide"}),
        ("holds class_linear", {"embed_dim": 7}),
        ("has the unknown loss d_class_fake", {"trajectory": [{"d_class_fake": 1.0}] * 5}),
    ],
)
def test_wrong_entries_of_reacgan_are_refused(message, changes):
    fixture = Fixture(read(FIXTURES / "reacgan_cifar10.json") | changes)
    with pytest.raises(UserError, match=message):
        check(fixture)


def test_a_report_does_not_overwrite_a_file(tmp_path):
    (tmp_path / "report").write_text("mine")
    with pytest.raises(UserError, match="--report"):
        main([str(FIXTURES / "metrics.json"), "--report", str(tmp_path / "report")])
    assert (tmp_path / "report").read_text() == "mine"


def test_a_row_shows_its_worst_figure():
    row = compare("forward", "x", [1.0, 1.0, 1.0], [1.0, 1.5, 1.25], 1e-7)
    assert report.cells(row) == ("forward", "x [1]", "1", "1.5", "5.0e-01", "DISAGREES (> 1e-07)")


def test_leaky_relu_and_batch_norm_agree_in_float32_and_float64():
    """Alignment runs in float64. There, leaky ReLU and batch norm avoid Paddle's float32 constants."""
    x = np.random.default_rng(0).standard_normal((6, 3, 4, 4))
    outputs = {}
    for dtype in ("float32", "float64"):
        paddle.set_default_dtype(dtype)
        norm = BatchNorm(3, epsilon=0.8)
        paddle.set_default_dtype("float32")
        tensor = paddle.to_tensor(x.astype(dtype), stop_gradient=False)
        out = leaky_relu(norm(tensor))
        (out * out * out).sum().backward()
        norm.eval()
        outputs[dtype] = [out, tensor.grad, norm(tensor), norm._mean, norm._variance]
    for single, double in zip(*outputs.values(), strict=True):
        np.testing.assert_allclose(single.numpy(), double.numpy(), rtol=2e-5, atol=2e-6)
