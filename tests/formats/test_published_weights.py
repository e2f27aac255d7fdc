"""Published checkpoints, in files written by their own frameworks, give the replications' figures."""

import json
import shutil
import subprocess
import sys

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from published_files import FIXTURES, PTH, paddle_fixture, paddle_state, write_paddle_sagan

import acgan_models
import checkpoint
import sagan_models
from alignment import draw
from alignment.compare import compare
from alignment.networks import FLOAT32, FLOAT64, precision
from formats import published_weights
from formats.safe_pickle import load_state
from parameters import Parameters
from utils import UserError

TORCH = json.loads((PTH / "figures.json").read_text())


def networks_of(path):
    """(Checkpoint, G, D) of a file; the networks are those that its parameters describe, with its weights."""
    loaded = checkpoint.load(path)
    p = Parameters(**loaded.parameters)
    models = sagan_models if p.model == "sagan" else acgan_models
    networks = {"G": models.build_generator(p), "D": models.build_discriminator(p)}
    for part, network in networks.items():
        checkpoint.load_network(network, loaded.parts[part], path)
        network.eval()
    return loaded, networks["G"], networks["D"]


def assert_figures(figures, G, D, tolerance):
    """Check the images, and D's outputs on them, against `figures`. Their seed draws the noise and the classes."""
    seed, batch, classes = figures["seed"], figures["batch"], figures["classes"]
    z = paddle.to_tensor(draw.noise(0, "g", batch, figures["z_dim"], seed).astype(paddle.get_default_dtype()))
    y = paddle.to_tensor(draw.labels(0, "g", batch, classes, seed))
    with paddle.no_grad():
        images = G(z, y)
        logits, class_logits = D(images, y)
    expected = figures["outputs"]
    ours = {"images": images, "d_out": logits, "logits": logits, "class_logits": class_logits}
    if class_logits is not None:
        ours |= {"class_probabilities": F.softmax(class_logits)}
    rows = [compare("forward", name, expected[name], ours[name].numpy(), tolerance) for name in expected]
    assert [(row.quantity, row.difference) for row in rows if not row.agrees] == []
    assert len(rows) > 1


CASES = [("", "float32", FLOAT32), ("_float64", "float64", FLOAT64)]


@pytest.mark.parametrize(("suffix", "dtype", "tolerance"), CASES)
def test_a_paddle_sagan_checkpoint_gives_its_figures(tmp_path, capsys, suffix, dtype, tolerance):
    figures = paddle_fixture(f"published_sagan_paddle{suffix}")
    path = tmp_path / "100000.pdparams"
    with precision(dtype):
        write_paddle_sagan(path, figures, dtype)
        loaded, G, D = networks_of(path)
        assert_figures(figures, G, D, tolerance)
    assert loaded.step == 100_000
    sizes = {"model": "sagan", "imsize": 128, "z_dim": figures["z_dim"], "num_classes": figures["classes"]}
    sizes |= {"g_conv_dim": figures["conv_dim"], "d_conv_dim": figures["conv_dim"], "relu_shortcut": False}
    assert sizes.items() <= (vars(Parameters()) | loaded.parameters).items()
    assert f"{path}: the Paddle SAGAN replication's checkpoint" in capsys.readouterr().out


@pytest.mark.parametrize(("suffix", "dtype", "tolerance"), CASES)
def test_paddle_acgan_checkpoints_give_their_figures(tmp_path, capsys, suffix, dtype, tolerance):
    figures = paddle_fixture(f"published_acgan_paddle{suffix}")
    with precision(dtype):
        for role in "GD":
            paddle.save(paddle_state(figures, role, dtype), str(tmp_path / f"{role}_499.pdparams"))
        loaded, G, D = networks_of(tmp_path / "G_499.pdparams")
        assert_figures(figures, G, D, tolerance)
    sizes = {"model": "acgan-imagenet", "imsize": 128, "z_dim": 110, "num_classes": figures["classes"]}
    assert (sizes | {"g_conv_dim": 64, "d_conv_dim": 64}).items() <= loaded.parameters.items()
    told = capsys.readouterr().out
    assert "G_499.pdparams: the Paddle ACGAN" in told and "D_499.pdparams: the Paddle ACGAN" in told


@pytest.mark.parametrize("name", TORCH)
def test_pytorch_checkpoints_give_their_figures(name, capsys):
    figures = TORCH[name]
    figures["outputs"] = {"images": figures["images"], "logits": figures["logits"]}
    if "class_logits" in figures:
        figures["outputs"]["class_logits"] = figures["class_logits"]
    for dtype, tolerance in (("float32", FLOAT32), ("float64", FLOAT64)):
        with precision(dtype):
            loaded, G, D = networks_of(PTH / name)
            assert_figures(figures, G, D, tolerance)
    assert loaded.parameters["num_classes"] == figures["classes"]
    assert loaded.parameters["z_dim"] == figures["z_dim"]
    told = capsys.readouterr().out
    if "sagan" in name:
        assert loaded.step == 1_234_567 and loaded.parameters["relu_shortcut"] is True
        assert "the PyTorch SAGAN replication's checkpoint; the shortcuts of its discriminator carry relu(x)" in told
    else:
        assert "the PyTorch ACGAN replication's checkpoint" in told


def test_reading_pytorch_checkpoints_needs_no_pytorch():
    """The files load in a process where importing torch fails."""
    program = "import sys; sys.modules['torch'] = None; import checkpoint; [checkpoint.load(p) for p in sys.argv[1:]]"
    files = [str(PTH / name) for name in TORCH]
    done = subprocess.run(
        [sys.executable, "-c", program, *files], cwd=FIXTURES.parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_an_acgan_generator_alone_gives_no_number_of_classes(tmp_path):
    shutil.copy(PTH / "cifar10_netG_epoch_0.pth", tmp_path / "netG_epoch_0.pth")
    path = tmp_path / "netG_epoch_0.pth"
    step, sizes, parts = published_weights.load(path, load_state(path))
    assert (step, sizes, list(parts)) == (
        0, {"model": "acgan-cifar10", "imsize": 32, "z_dim": 13, "g_conv_dim": 3}, ["G"]
    )  # fmt: skip


def test_a_discriminator_of_another_network_is_refused(tmp_path):
    shutil.copy(PTH / "cifar10_netG_epoch_0.pth", tmp_path / "netG_epoch_0.pth")
    shutil.copy(PTH / "imagenet_netD_epoch_0.pth", tmp_path / "netD_epoch_0.pth")
    with pytest.raises(UserError, match=r"netD_epoch_0\.pth is not the D that belongs to"):
        checkpoint.load(tmp_path / "netG_epoch_0.pth")


def test_folding_the_affine_pair_is_exact():
    """The folded embedding gives s·(w·x + b) + t, as the replication's conditional batch norm does."""
    rng = np.random.default_rng(0)
    w, b, x = rng.standard_normal((3, 6))
    embedding = rng.standard_normal((4, 12))
    state = {
        "block2.cond_bn1.bn.weight": w,
        "block2.cond_bn1.bn.bias": b,
        "block2.cond_bn1.embed.weight": embedding,
    }
    folded = published_weights.arrange(state, published_weights.SAGAN["G"], torch=False)
    assert list(folded) == ["blocks.1.cond_bn1.embed.weight"]
    scale, shift = np.split(folded["blocks.1.cond_bn1.embed.weight"], 2, axis=1)
    np.testing.assert_allclose(scale * x + shift, embedding[:, :6] * (w * x + b) + embedding[:, 6:], rtol=1e-13)


SAGAN, CIFAR10 = "sagan.pth", "cifar10_netG_epoch_0.pth"


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("gan.weight", np.zeros(3), "holds gan.weight, which its network does not have"),
        ("block1.snconv2d2.weight_orig", None, "lacks blocks.0.conv2.weight_orig"),
        ("block1.snconv2d2.weight_orig", np.zeros((24, 24, 3, 3)), "widest layer has 24 channels"),
        ("block1.snconv2d2.weight_orig", np.zeros((16, 8, 3, 3)), "holds blocks.0.conv2.weight_orig as [16, 8, 3, 3]"),
        ("snlinear0.weight_orig", np.zeros((512, 9)), "holds linear.weight_orig as [9, 512], but its other widths"),
        ("snlinear0.bias", [1.0], "holds snlinear0.bias as a list, not as an array"),
        ("block1.cond_bn1.bn.weight", np.zeros(16), "affine pair of blocks.0.cond_bn1.bn that does not fit"),
        ("fc1.weight", np.zeros(()), "holds linear.weight as [], not as 2 sizes of 1 or more"),
        ("fc1.weight", np.zeros((18, 0)), "holds linear.weight as [0, 18], not as 2 sizes of 1 or more"),
        ("fc1.weight", np.zeros((1200, 13)), "holds convs.0.weight as [18, 9, 4, 4], but its other widths make"),
        ("tconv3.0.weight", np.zeros((9, 4, 3, 3)), "is an ACGAN generator of no known make: its convolutions are [18"),
        ("tconv3.0.weight", np.zeros((9, 5, 4, 4)), "holds convs.1.weight as [9, 5, 4, 4]"),
    ],
)
def test_states_that_do_not_fit_together_are_refused(name, array, message):
    sagan = "block" in name or "sn" in name or "gan" in name
    state = load_state(PTH / (SAGAN if sagan else CIFAR10))
    weights = state["G_state_dict"] if sagan else state
    weights[name] = array
    if array is None:
        del weights[name]
    with pytest.raises(UserError) as refusal:
        published_weights.convert(state)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "fits no checkpoint: it holds 0 entries ()"),
        ({"weights": np.zeros(3)}, "fits no checkpoint: it holds 1 entries (weights); known are"),
        (dict.fromkeys(range(5), 1), "fits no checkpoint: it holds 5 entries (0, 1, 2, …); known are"),
        ({"G_state_dict": {"snlinear0.weight_orig": 1}}, "it holds 1 entries (G_state_dict)"),
        ({"a\nb" * 50: 1}, "it holds 1 entries (a?b"),
    ],
)
def test_an_unknown_checkpoint_is_refused(state, message):
    with pytest.raises(UserError) as refusal:
        published_weights.convert(state)
    assert message in str(refusal.value)
    assert "the SAGAN replications'" in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_refusal_names_the_file(tmp_path):
    path = tmp_path / "other.pdparams"
    paddle.save({"weights": paddle.ones([3])}, str(path))
    with pytest.raises(UserError) as refusal:
        checkpoint.load(path)
    assert str(refusal.value).startswith(f"{path} fits no checkpoint: it holds 1 entries (weights)")
