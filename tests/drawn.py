"""Small generators that are ready to draw."""

import dataclasses

import numpy as np
from test_folding import drawn_generator

import checkpoint
from drawing.generator import OpenGenerator


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
