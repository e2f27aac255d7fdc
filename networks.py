"""The choice of networks: the module that builds those of a run."""

import acgan_models
import sagan_models


def models_of(parameters):
    """The module whose functions build the networks that `parameters` describe, of `--model`.

    `build_generator` and `build_discriminator` give them with their initial weights, `make_generator` and
    `make_discriminator` without, for weights that come from a file.
    """
    return sagan_models if parameters.model == "sagan" else acgan_models
