"""Choose the module that builds the networks of a run."""

import acgan_models
import sagan_models


def models_of(parameters):
    """The module that builds the networks of `parameters.model`.

    Its functions `build_generator` and `build_discriminator` set the initial weights. `make_generator` and
    `make_discriminator` do not; they are for weights from a file.
    """
    return sagan_models if parameters.is_sagan else acgan_models
