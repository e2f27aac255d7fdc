"""Exported names and shapes are those of the PyTorch reference networks."""

import json

import numpy as np
import pytest
from published_files import FIXTURES

from formats.published_weights import arrange
from formats.pytorch_names import LAYERS, to_pytorch
from networks import models_of
from parameters import IMAGE_SIZES

SIZES = {
    **{f"sagan {size}": {"imsize": size, "attention_size": size // 2} for size in IMAGE_SIZES["sagan"]},
    "sagan-cifar10": {}, "acgan-imagenet": {}, "acgan-imagenet-torch": {}, "acgan-cifar10": {}, "acgan-mnist": {},
    "acgan-mlp": {}, "acgan-digits": {},
}  # fmt: skip


def arrays_of(p):
    rng = np.random.default_rng(0)
    shapes = {name: tensor.shape for name, tensor in models_of(p).make_generator(p).state_dict().items()}
    return {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}


@pytest.mark.parametrize("name", SIZES)
def test_names_come_back(make_parameters, name):
    """Reading the exported arrays as the replication's gives the same arrays again, for every network and size."""
    p = make_parameters(name.split()[0], **SIZES[name])
    arrays = arrays_of(p)
    back = arrange(to_pytorch(arrays, p.model), LAYERS[p.model]["G"], torch=True)
    assert back.keys() == arrays.keys() and all((back[key] == arrays[key]).all() for key in arrays)


@pytest.mark.parametrize(
    ("model", "fixture", "sizes"),
    [
        ("sagan", "published_sagan_torch", {"imsize": 128}),
        ("acgan-cifar10", "acgan_cifar10", {}),
        ("acgan-mnist", "acgan_mnist", {"dataset": "mnist"}),
        ("acgan-mlp", "acgan_mlp", {"dataset": "mnist", "imsize": 32}),
    ],
)
def test_names_and_shapes_are_the_references(make_parameters, model, fixture, sizes):
    """`G_state` in a fixture has the names and shapes of the network in PyTorch."""
    figures = json.loads((FIXTURES / f"{fixture}.json").read_text())
    width = figures.get("conv_dim", 64)
    p = make_parameters(
        model, z_dim=figures["z_dim"], num_classes=figures["classes"], g_conv_dim=width, attention_size=32, **sizes
    )
    exported = {name: list(array.shape) for name, array in to_pytorch(arrays_of(p), model).items()}
    assert exported == {name: list(shape) for name, shape in figures["G_state"].items()}
