"""Names and shapes of weights in the PyTorch writings of the networks: those of the replications and tutorials."""

import numpy as np

from acgan_models import STACKS
from formats.published_weights import LEAVES, SAGAN, STACK, is_transposed

# {name of a layer in the PyTorch references: our name}.
MNIST = {
    "G": {
        "label_emb": "embedding",
        "l1.0": "linear",
        "conv_blocks.0": "norm",
        **{f"conv_blocks.{at}": f"convs.{index}" for index, at in enumerate((2, 6, 9))},
        **{f"conv_blocks.{at}": f"norms.{index}" for index, at in enumerate((3, 7))},
    },
    "D": {
        **{f"conv_blocks.{at}": f"convs.{index}" for index, at in enumerate((0, 3, 7, 11))},
        **{f"conv_blocks.{at}": f"norms.{index}" for index, at in enumerate((6, 10, 14))},
        "adv_layer.0": "heads.adversarial",
        "aux_layer.0": "heads.classes",
    },
}
MLP = {
    "G": {
        "label_emb": "embedding",
        **{f"model.{at}": f"linears.{index}" for index, at in enumerate((0, 2, 5, 8, 11))},
        **{f"model.{at}": f"norms.{index}" for index, at in enumerate((3, 6, 9))},
    },
    "D": {
        **{f"model.{at}": f"linears.{index}" for index, at in enumerate((0, 2, 5))},
        "adv_layer.0": "heads.adversarial",
        "aux_layer.0": "heads.classes",
    },
}
D2D_CE = {"snlinear2": "class_linear"}  # ReACGAN's D has this layer besides SAGAN's
SAGANS = {"G": SAGAN["G"], "D": SAGAN["D"] | D2D_CE}
LAYERS = {
    "sagan": SAGANS,
    "sagan-cifar10": SAGANS,
    "acgan-mnist": MNIST,
    "acgan-mlp": MLP,
    **dict.fromkeys(STACKS, STACK),
}


def to_pytorch(arrays, model):
    """A generator's weights by PyTorch's names, in PyTorch's shapes.

    `arrays`: NumPy by our names. `model`: a name in IMAGE_SIZES. The result is a strict state dictionary of the
    reference network, without the counts `num_batches_tracked`, which PyTorch does not need.
    """
    layers = {ours: theirs for theirs, ours in LAYERS[model]["G"].items() if ours}
    leaves = {ours: theirs for theirs, ours in LEAVES.items()}
    named = {}
    for name, array in arrays.items():
        layer, _, leaf = name.rpartition(".")
        theirs = f"{layers[layer]}.{leaves.get(leaf, leaf)}"
        named[theirs] = np.ascontiguousarray(array.T if is_transposed(name, array) else array)
    return named
