"""Published checkpoints of the replications: recognise one by its content, and convert its weights to our names.

A kind is a framework and a network. "paddle-sagan" and "torch-sagan" are one dictionary with `step`, `G_state_dict` and
`D_state_dict`. "paddle-acgan" and "torch-acgan" are the bare state dictionary of one network.
"""

from pathlib import Path

import numpy as np

from acgan_models import STACKS, final_size, scaled
from formats.safe_pickle import load_state
from utils import UserError, printable

KINDS = {
    "paddle-sagan": "the Paddle SAGAN replication's checkpoint",
    "torch-sagan": "the PyTorch SAGAN replication's checkpoint; "
    "the shortcuts of its discriminator carry relu(x), as with --relu_shortcut",
    "paddle-acgan": "the Paddle ACGAN replication's checkpoint",
    "torch-acgan": "the PyTorch ACGAN replication's checkpoint",
}
KNOWN = (
    "known are the SAGAN replications' (Paddle's, PyTorch's: step, G_state_dict, D_state_dict) and the ACGAN "
    "replications' (Paddle's, PyTorch's: a state dict with fc1 and tconv2, or with conv1 and fc_dis)"
)


def _blocks(names, layers):
    return {
        f"{name}.{theirs}": f"blocks.{index}.{ours}"
        for index, name in enumerate(names)
        for theirs, ours in layers.items()
    }


_ATTENTION = {
    "self_attn": "attention",
    "self_attn.snconv1x1_theta": "attention.theta",
    "self_attn.snconv1x1_phi": "attention.phi",
    "self_attn.snconv1x1_g": "attention.g",
    "self_attn.snconv1x1_attn": "attention.out",
}
_CONVOLUTIONS = {"snconv2d1": "conv1", "snconv2d2": "conv2", "snconv2d0": "shortcut"}
_CONDITIONAL = {f"cond_bn{k}.{layer}": f"cond_bn{k}.{layer}" for k in (1, 2) for layer in ("bn", "embed")}

# {the replication's name of a layer: our name}. None: a layer that the published network holds but never uses. The
# sixth block is for 256 pixels, which no replication has.
SAGAN = {
    "G": {
        "snlinear0": "linear",
        **_blocks([f"block{k}" for k in range(1, 7)], _CONVOLUTIONS | _CONDITIONAL),
        **_ATTENTION,
        "bn": "bn",
        "snconv2d1": "conv",
    },
    "D": {
        **_blocks(["opt_block1", *(f"block{k}" for k in range(1, 6))], _CONVOLUTIONS),
        "block5.snconv2d0": None,
        **_ATTENTION,
        "snlinear1": "linear",
        "sn_embedding1": "embedding",
    },
}
STACK = {
    "G": {
        "fc1": "linear",
        **{f"tconv{k + 2}.0": f"convs.{k}" for k in range(6)},
        **{f"tconv{k + 2}.1": f"norms.{k}" for k in range(5)},
    },
    "D": {
        **{f"conv{k + 1}.0": f"convs.{k}" for k in range(6)},
        **{f"conv{k + 2}.1": f"norms.{k}" for k in range(5)},
        "fc_dis": "heads.adversarial",
        "fc_aux": "heads.classes",
    },
}
LEAVES = {"running_mean": "_mean", "running_var": "_variance", "sigma": "gamma"}


def our_name(layers, name):
    """Our name of the tensor that a replication calls `name`; None for a tensor that is never used.

    `layers` maps the replication's names of layers to ours. Raises UserError if the layer is not among them.
    """
    layer, _, leaf = name.rpartition(".")
    if layer not in layers:
        raise UserError(f"holds {printable(name)}, which its network does not have")
    return layers[layer] and f"{layers[layer]}.{LEAVES.get(leaf, leaf)}"


def is_transposed(name, array):
    """Whether PyTorch holds the transpose of the array that we call `name`. It does for weights of linear layers."""
    return array.ndim == 2 and "embed" not in name


def arrange(state, layers, torch):
    """A replication's state dictionary of NumPy arrays, converted to our names and shapes. `torch`: PyTorch wrote it.

    The conditional batch norms of the Paddle SAGAN replication hold one more scale w and shift b. They are folded into
    the class embeddings. This is exact: s·(w·x + b) + t = (s·w)·x + (s·b + t).
    """
    # Rename and transpose.
    arrays = {}
    for name, array in state.items():
        if name.endswith(".num_batches_tracked"):  # a count that PyTorch keeps beside running statistics
            continue
        if not isinstance(array, np.ndarray):
            raise UserError(f"holds {printable(name)} as a {type(array).__name__}, not as an array")
        if ours := our_name(layers, name):
            arrays[ours] = np.ascontiguousarray(array.T) if torch and is_transposed(ours, array) else array
    # Fold the affine pairs.
    for name in [name for name in arrays if name.endswith(".embed.weight")]:
        norm = name.removesuffix("embed.weight") + "bn"
        if f"{norm}.weight" in arrays:
            arrays[name] = _fold(norm, arrays[name], arrays.pop(f"{norm}.weight"), arrays.pop(f"{norm}.bias", None))
    return arrays


def _fold(norm, embedding, weight, bias):
    if embedding.ndim != 2 or bias is None or not weight.shape == bias.shape == (embedding.shape[1] / 2,):
        raise UserError(f"holds an affine pair of {norm} that does not fit its class embedding")
    scale, shift = np.split(embedding, 2, axis=1)
    return np.concatenate([scale * weight, scale * bias + shift], axis=1)


def recognise(state):
    """The kind, a key of KINDS, of a published checkpoint. `state` is as `safe_pickle.load_state` returns it.

    Raises UserError for an unknown kind. The message lists the content of the file and the known kinds.
    """
    generator = state.get("G_state_dict")
    if isinstance(generator, dict) and "snlinear0.weight_orig" in generator:
        names, network = generator, "sagan"
    elif {"fc1.weight", "tconv2.0.weight"} <= state.keys() or {"conv1.0.weight", "fc_dis.weight"} <= state.keys():
        names, network = state, "acgan"
    else:
        names, network = (), ""
    leaves = {name.rpartition(".")[2] for name in names if isinstance(name, str)}
    for framework, statistics in (("paddle", "_variance"), ("torch", "running_var")):
        if statistics in leaves:
            return f"{framework}-{network}"
    first = ", ".join(printable(str(key), 40) for key in list(state)[:3]) + (", …" if len(state) > 3 else "")
    raise UserError(f"fits no checkpoint: it holds {len(state)} entries ({first}); {KNOWN}")


def convert(state):
    """(steps done, parameters, parts) of a published checkpoint, as `checkpoint.Checkpoint` holds them.

    The shapes of the arrays give the parameters: model and imsize; z_dim and g_conv_dim from G; d_conv_dim from D;
    num_classes, except from an ACGAN's G, because its shapes do not show it. A discriminator of the PyTorch SAGAN
    replication also sets `relu_shortcut`. Parts are "G" and "D": NumPy arrays by our names. Raises UserError for a
    state of unknown kind, or with widths that no network here has.
    """
    kind = recognise(state)
    torch = kind.startswith("torch")
    # SAGAN: both networks and the step.
    if kind.endswith("sagan"):
        states = {role: state.get(f"{role}_state_dict") for role in "GD"}
        parts = {role: arrange(part, SAGAN[role], torch) for role, part in states.items() if isinstance(part, dict)}
        parameters = {"model": "sagan", "imsize": 128, "attention_size": 32, **_sagan_generator(parts["G"])}
        if "D" in parts:
            parameters |= _sagan_discriminator(parts["D"], parameters["num_classes"])
            if torch:
                parameters["relu_shortcut"] = True
        step = state.get("step")
        return step if type(step) is int and step >= 0 else 0, parameters, parts
    # ACGAN: one network.
    role, read = ("G", _stack_generator) if "fc1.weight" in state else ("D", _stack_discriminator)
    parts = {role: arrange(state, STACK[role], torch)}
    return 0, read(parts[role]), parts


def load(path, state):
    """`convert` for the `state` of the file `path`. An ACGAN's other network is added if its file is in the folder.

    The files have the same name, except that one has a D in the place of the first G. Prints the kind of each file.
    Raises UserError, which names the file.
    """
    path = Path(path)
    step, parameters, parts = _convert_file(path, state)
    if recognise(state).endswith("acgan"):
        old, new = ("G", "D") if "G" in parts else ("D", "G")
        other = path.with_name(path.name.replace(old, new, 1))
        if other != path and other.is_file():
            _, others, other_parts = _convert_file(other, load_state(other))
            if new not in other_parts or others["model"] != parameters["model"]:
                raise UserError(f"{other} is not the {new} that belongs to {path}; move it away to load {path} alone")
            parameters, parts = parameters | others, parts | other_parts
    return step, parameters, parts


def _convert_file(path, state):
    try:
        converted = convert(state)
    except UserError as error:
        raise UserError(f"{path} {error}") from None
    print(f"{path}: {KINDS[recognise(state)]}", flush=True)
    return converted


# These functions read the sizes of a network from its largest arrays, and check the other large arrays against them. So
# a network of these sizes takes at most a few times the memory of the file, whatever the file claims.
# `checkpoint.load_network` checks all other arrays.


def _sagan_generator(arrays):
    wide, conv_dim = _widest(arrays, "blocks.0.conv2.weight_orig")
    z_dim, classes = _shape(arrays, "linear.weight_orig", 2)[0], _shape(arrays, "blocks.0.cond_bn1.embed.weight", 2)[0]
    _check_shape(arrays, "linear.weight_orig", (z_dim, 16 * wide))
    _check_shape(arrays, "blocks.0.cond_bn1.embed.weight", (classes, 2 * wide))
    return {"z_dim": z_dim, "num_classes": classes, "g_conv_dim": conv_dim}


def _sagan_discriminator(arrays, classes):
    wide, conv_dim = _widest(arrays, "blocks.4.conv2.weight_orig")
    _check_shape(arrays, "embedding.weight_orig", (classes, wide))
    return {"d_conv_dim": conv_dim}


def _widest(arrays, name):
    wide = _shape(arrays, name, 4)[0]
    _check_shape(arrays, name, (wide, wide, 3, 3))
    if wide % 16:
        raise UserError(f"is a SAGAN, but its widest layer has {wide} channels, not a multiple of 16")
    return wide, wide // 16


def _stack_generator(arrays):
    z_dim, linear = _shape(arrays, "linear.weight", 2)
    shapes = _convolutions(arrays)
    for model, stack in STACKS.items():
        stages = stack.generator
        if [stage.kernel for stage in stages] == [shape[2] for shape in shapes] and stack.bias == _biased(arrays):
            conv_dim = -(-linear * 64 // stack.linear)
            widths = [scaled(stage.width, conv_dim) or 3 for stage in stages]
            inputs = [scaled(stack.linear, conv_dim), *widths]
            _check_shape(arrays, "linear.weight", (z_dim, inputs[0]))
            for index, (before, width, stage) in enumerate(zip(inputs, widths, stages, strict=False)):
                _check_shape(arrays, f"convs.{index}.weight", (before, width, stage.kernel, stage.kernel))
            return {"model": model, "imsize": stack.image_size, "z_dim": z_dim, "g_conv_dim": conv_dim}
    raise _no_stack("generator", shapes)


def _stack_discriminator(arrays):
    features, classes = _shape(arrays, "heads.classes.weight", 2)
    shapes = _convolutions(arrays)
    for model, stack in STACKS.items():
        stages = stack.discriminator
        area = final_size(stack.image_size, stages) ** 2
        if len(stages) == len(shapes) and features == shapes[-1][0] * area and stack.bias == _biased(arrays):
            conv_dim = -(-shapes[-1][0] * 64 // stages[-1].width)
            widths = [scaled(stage.width, conv_dim) for stage in stages]
            for index, (before, width, stage) in enumerate(zip([3, *widths], widths, stages, strict=False)):
                _check_shape(arrays, f"convs.{index}.weight", (width, before, stage.kernel, stage.kernel))
            return {"model": model, "imsize": stack.image_size, "num_classes": classes, "d_conv_dim": conv_dim}
    raise _no_stack("discriminator", shapes)


def _convolutions(arrays):
    count = sum(name.startswith("convs.") and name.endswith(".weight") for name in arrays)
    return [_shape(arrays, f"convs.{index}.weight", 4) for index in range(count)]


def _biased(arrays):
    return "convs.0.bias" in arrays


def _no_stack(network, shapes):
    convolutions = ", ".join(str(list(shape)) for shape in shapes)
    return UserError(f"is an ACGAN {network} of no known make: its convolutions are {convolutions}")


def _shape(arrays, name, dimensions):
    if name not in arrays:
        raise UserError(f"lacks {name}")
    shape = arrays[name].shape
    if len(shape) != dimensions or 0 in shape:
        raise UserError(f"holds {name} as {list(shape)}, not as {dimensions} sizes of 1 or more")
    return shape


def _check_shape(arrays, name, shape):
    if _shape(arrays, name, len(shape)) != shape:
        raise UserError(f"holds {name} as {list(arrays[name].shape)}, but its other widths make it {list(shape)}")
