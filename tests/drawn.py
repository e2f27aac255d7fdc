"""Small generators that are ready to draw."""

import dataclasses

import numpy as np

import checkpoint
from drawing.generator import OpenGenerator
from networks import models_of

SIZES = {  # kind of generator, which begins with its model: options that it needs
    "sagan": {},
    "sagan, attention last": {"imsize": 32, "attention_size": 32},
    "sagan-cifar10": {},
    "acgan-imagenet": {},
    "acgan-imagenet-torch": {},
    "acgan-cifar10": {},
    "acgan-mnist": {"dataset": "mnist"},
    "acgan-mlp": {"dataset": "mnist"},
    "acgan-digits": {"dataset": "mnist"},
}


def drawn_generator(p):
    """A generator with drawn biases and statistics, whose last layer is strong, so that images differ much."""
    rng, network = np.random.default_rng(0), models_of(p).build_generator(p)
    for name, tensor in network.state_dict().items():
        if name.endswith("_variance"):
            tensor.set_value(rng.uniform(0.5, 2, tensor.shape).astype("float32"))
        elif name.endswith(("_mean", "bias", "gamma")):
            tensor.set_value(rng.normal(size=tensor.shape).astype("float32"))
        elif not p.is_sagan and name.endswith("weight") and len(tensor.shape) > 1:
            fan_in = np.prod(tensor.shape) / tensor.shape[0 if "linear" not in name else 1]
            tensor.set_value((rng.normal(size=tensor.shape) * 2 / fan_in**0.5).astype("float32"))
    network.eval()
    return network


def opened(p, **parts):
    """An `OpenGenerator` of a generator with drawn statistics."""
    network = drawn_generator(p)
    arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    for name in arrays:
        if name.endswith("embed.weight"):  # SAGAN's classes are equal before the training
            arrays[name] += np.random.default_rng(0).normal(size=arrays[name].shape).astype("float32")
    names = tuple("abcdefghij"[: p.num_classes])
    loaded = checkpoint.Checkpoint("file", 7, dataclasses.asdict(p), parts or {"G": arrays}, class_names=names)
    return OpenGenerator(p, loaded)
