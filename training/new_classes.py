"""Start from a checkpoint of other classes: its class weights start anew, all its other weights are kept."""

import numpy as np

from networks import class_weights
from parameters import from_values

MOMENTS, POWERS = ("moment1_0", "moment2_0"), ("beta1_pow_acc_0", "beta2_pow_acc_0")  # Adam's state


def parts_to_load(start, G, D, parameters):
    """The parts of the checkpoint of `start` for the networks `G` and `D`, which have their initial weights.

    If it was trained on other classes, class embeddings and class heads get their values in `G` and `D`, and their
    state of Adam is that of a first step.
    """
    parts = dict(start.checkpoint.parts)
    if not start.has_other_classes:
        return parts
    before = from_values(start.checkpoint.parameters, start.checkpoint.path).num_classes
    betas = parameters.beta1, parameters.beta2
    for network, optimizer, names in ((G, "g_optimizer", ("G", "G_ema")), (D, "d_optimizer", ("D",))):
        state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        rows = class_weights(network, before)
        for part in filter(parts.get, names):
            parts[part] = parts[part] | {
                name: _renewed(state[name], parts[part].get(name, state[name]), rows[name]) for name in rows
            }
        if parts.get(optimizer):
            parts[optimizer] = dict(parts[optimizer])
            for name, _ in network.named_parameters():
                if name in rows:
                    parts[optimizer] |= _first_state(name, state[name], betas)
    return parts


def _renewed(fresh, old, rows):
    """The initial weight `fresh`, with the rows of the checkpoint's weight `old` that do not belong to classes.

    `rows`: as in `networks.class_weights`. If the other rows have another shape, it is `old`, which cannot be loaded.
    """
    if rows is None:
        return fresh
    before, now = rows
    return np.concatenate([fresh[:now], old[before:]]) if old[before:].shape == fresh[now:].shape else old


def _first_state(name, weight, betas):
    """Adam's state of a weight before its first step, by name."""
    moments = {f"{name}/{moment}": np.zeros_like(weight) for moment in MOMENTS}
    powers = {f"{name}/{power}": np.full(1, beta, weight.dtype) for power, beta in zip(POWERS, betas, strict=True)}
    return moments | powers
