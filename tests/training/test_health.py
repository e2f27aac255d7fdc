"""Figures on a training: sigma and gates against NumPy, norms of gradients, shares of images on D's right side."""

import re

import numpy as np
import paddle
import pytest
from visualdl import LogReader

from dataset import batches, load_dataset
from trainer import Trainer
from training.health import gradient_norm, layer_figures
from training.visual_records import RECORDS


def test_layer_figures_are_sigma_and_the_gate(make_parameters):
    trainer = Trainer(make_parameters("sagan", imsize=32, attention_size=16))
    trainer.D.attention.gamma.set_value(np.array([0.25], "float32"))
    for _ in range(200):  # more power iterations, until the estimate is exact
        trainer.D.linear.weight()
        trainer.G.blocks[0].conv1.weight()
    figures = layer_figures({"G": trainer.G, "D": trainer.D})
    convolution, linear = trainer.G.blocks[0].conv1.weight_orig.numpy(), trainer.D.linear.weight_orig.numpy()
    expected = {
        "sigma G/blocks.0.conv1": np.linalg.norm(convolution.reshape(len(convolution), -1), 2),
        "sigma D/linear": np.linalg.norm(linear, 2),
        "health/gate D attention": 0.25,
        "health/gate G attention": 0,
    }
    for tag, value in expected.items():
        np.testing.assert_allclose(figures[tag], value, rtol=1e-4, err_msg=tag)
    weights = [name for network in (trainer.G, trainer.D) for name, _ in network.named_parameters() if "_orig" in name]
    assert len([tag for tag in figures if tag.startswith("sigma ")]) == len(weights)


def test_networks_without_such_layers_have_no_figures(make_parameters):
    trainer = Trainer(make_parameters("acgan-mlp"))
    assert layer_figures({"G": trainer.G, "D": trainer.D}) == {}


def test_gradient_norm_is_over_all_weights(make_parameters):
    p = make_parameters("acgan-mlp")
    trainer = Trainer(p)
    trainer.train_step(batches(load_dataset(p), p, first=0))
    for network in (trainer.G, trainer.D):
        whole = np.concatenate([weight.grad.numpy().ravel() for weight in network.parameters()])
        np.testing.assert_allclose(gradient_norm(network).item(), np.linalg.norm(whole), rtol=1e-5)


@pytest.mark.parametrize("adv_loss", ["hinge", "dcgan"])
def test_the_right_side_is_above_0_for_real_and_below_for_fake(make_parameters, adv_loss):
    trainer = Trainer(make_parameters("acgan-mlp", adv_loss=adv_loss))
    logits = paddle.to_tensor([3.0, 2.0, -1.0, 0.5])
    images, labels = paddle.zeros([4, 3, 16, 16]), paddle.zeros([4], "int64")
    for real, share in ((True, 0.75), (False, 0.25)):
        _, terms = trainer._d_loss(lambda *_: (logits, None), images, labels, None, real=real)
        assert float(terms["right_real" if real else "right_fake"]) == share


def test_visualdl_shows_the_health_of_a_run(make_parameters):
    p = make_parameters(
        "sagan", imsize=32, attention_size=16, adv_loss="hinge", total_step=2, sample_step=1, g_lr=0.0003
    )
    path, _ = Trainer(p).train(load_dataset(p))
    records = LogReader(file_path=str(path / RECORDS))
    tags = records.get_tags()["scalar"]
    groups = sorted({tag.split("/")[0] for tag in tags})
    assert groups == ["1 loss", "2 logits", "5 health", "6 speed", "7 sigma G", "8 sigma D"]
    points = {tag[2:]: [point.value for point in records.get_data("scalar", tag)] for tag in tags}
    assert all(len(values) == 2 and np.isfinite(values).all() for values in points.values())
    np.testing.assert_allclose(points["health/g_lr"], 0.0003, rtol=1e-6)
    assert {
        "health/right_real",
        "health/d_gradient",
        "health/gate G attention",
        "health/class_distance",
        "speed/d_seconds",
    } <= set(points)
    assert min(points["speed/peak_memory_MiB"]) > 50 and min(points["speed/g_seconds"]) > 0
    (line,) = [line for line in (path / "log.txt").read_text().splitlines() if " step 1 d_real" in line]
    assert " right_real " in line and " g_gradient " in line and "sigma" not in line
    health = re.findall(r"health at step (\d+): (.+)", (path / "log.txt").read_text())
    assert [step for step, _ in health] == ["1", "2"]
    figures = dict(re.findall(r"(\S+) (\S+)", health[1][1]))
    assert {"d_lr", "g_seconds", "peak_memory_MiB", "class_distance", "gate_D_attention", "sigma_G/linear"} <= set(
        figures
    )
    assert float(figures["sigma_G/linear"]) == pytest.approx(points["sigma G/linear"][1], rel=1e-3)
