"""Choose the module that builds the networks of a run, and find the weights that belong to classes."""

from paddle import nn

import acgan_models
import sagan_models
from spectral_norm import SNEmbedding


def models_of(parameters):
    """The module that builds the networks of `parameters.model`.

    Its functions `build_generator` and `build_discriminator` set the initial weights. `make_generator` and
    `make_discriminator` do not; they are for weights from a file.
    """
    return sagan_models if parameters.is_sagan else acgan_models


def class_weights(network, classes_before):
    """The tensors of `network` that belong to classes: {name: rows}, for weights of a network of other classes.

    `rows` is None if the whole tensor belongs to classes. Otherwise it is a pair: the number of first rows that belong
    to classes in a network of `classes_before` classes, and in this one.
    """
    found = {}
    for name, layer in network.named_sublayers(include_self=True):
        prefix = f"{name}." if name else ""
        if isinstance(layer, (nn.Embedding, SNEmbedding)):
            found |= {prefix + key: None for key in layer.state_dict()}
        elif isinstance(layer, acgan_models.Heads):
            found |= {prefix + key: None for key in layer.state_dict() if key.startswith("classes.")}
        elif isinstance(layer, acgan_models.StackGenerator):  # the one-hot class replaces the first noise entries
            rows = max(classes_before, layer.num_classes)
            found[f"{prefix}linear.weight"] = rows, rows
        elif isinstance(layer, acgan_models.MLPGenerator):  # the first layer reads an embedding as wide as the classes
            found[f"{prefix}linears.0.weight"] = classes_before, layer.embedding.weight.shape[0]
    return found
