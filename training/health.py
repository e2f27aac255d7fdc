"""Figures that show how well a training goes: norms of gradients, spectral norms, gates of the attention."""

import paddle

from layers import SelfAttention
from spectral_norm import SpectrallyNormalized


def gradient_norm(network):
    """The Euclidean norm of the last update's gradients of `network`, all weights together: a scalar tensor."""
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    return paddle.sqrt(paddle.stack([(gradient * gradient).sum() for gradient in gradients]).sum())


def layer_figures(networks):
    """{VisualDL's tag: float} of the layers of `networks`, {"G" or "D": network}.

    The largest singular value (sigma) of each spectrally normalised weight, by the power iteration's last vectors, and
    the gate (gamma) of each self-attention. The host waits for the device once.
    """
    figures = {}
    for part, network in networks.items():
        for name, layer in network.named_sublayers():
            if isinstance(layer, SelfAttention):
                figures[f"health/gate {part} {name}"] = layer.gamma.detach().sum()
            elif isinstance(layer, SpectrallyNormalized):
                figures[f"sigma {part}/{name}"] = layer.sigma()
    if not figures:
        return {}
    return dict(zip(figures, paddle.stack(list(figures.values())).tolist(), strict=True))
