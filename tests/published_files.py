"""Checkpoints in the formats of the replications."""

import json
from pathlib import Path

import paddle

from alignment import draw

FIXTURES = Path(__file__).parent / "fixtures"
PTH = FIXTURES / "published"  # written by PyTorch


def paddle_fixture(name):
    figures = json.loads((FIXTURES / f"{name}.json").read_text())
    outputs = {key: value for key, value in figures["eval_forward"].items() if key != "validity"}  # sigmoid of d_out
    return figures | {"outputs": outputs}


def paddle_state(figures, role, dtype):
    """A Paddle network's state dictionary of tensors, as the replication saves it."""
    shapes = figures[f"{role}_state"]
    state = {name: draw.weight(f"{role}.{name}", shape, figures["seed"]) for name, shape in shapes.items()}
    draw.settle(state)
    return {name: paddle.to_tensor(array.astype(dtype)) for name, array in state.items()}


def write_paddle_sagan(path, figures, dtype="float32"):
    """A checkpoint as the Paddle SAGAN replication saves it, with an Adam optimizer's state."""
    states = {role: paddle_state(figures, role, dtype) for role in "GD"}
    layer = paddle.nn.Linear(2, 2)
    adam = paddle.optimizer.Adam(1e-4, 0.0, 0.9, parameters=layer.parameters())
    layer(paddle.ones([1, 2])).sum().backward()
    adam.step()
    content = {
        "step": 100_000,
        "G_state_dict": states["G"],
        "G_optimizer_state_dict": adam.state_dict(),
        "D_state_dict": states["D"],
        "D_optimizer_state_dict": adam.state_dict(),
    }
    paddle.save(content, str(path))


def published(folder):
    """A checkpoint of each published format: {kind: path}."""
    write_paddle_sagan(folder / "sagan.pdparams", paddle_fixture("published_sagan_paddle"))
    state = paddle_state(paddle_fixture("published_acgan_paddle"), "G", "float32")
    paddle.save(state, str(folder / "G_499.pdparams"))
    names = ("sagan.pth", "sagan_legacy.pth", "imagenet_netG_epoch_0.pth", "cifar10_netG_epoch_0.pth")
    torch = {name: PTH / name for name in names}
    return {"paddle-sagan": folder / "sagan.pdparams", "paddle-acgan": folder / "G_499.pdparams", **torch}
