"""Twins of the networks, for threads that compute gradients side by side. Each thread needs gradients of its own."""

import copy

import paddle


class Twins:
    """Twins of a tuple of networks. They share the networks' weights in memory, but not the gradients."""

    def __init__(self, networks):
        self.networks = networks
        self._made = []

    def take(self, count):
        """`count` tuples of networks with equal values. The first one has the networks themselves, the others twins."""
        while len(self._made) < count - 1:
            self._made.append(tuple(copy.deepcopy(network) for network in self.networks))
        taken = self._made[: count - 1]
        for twins in taken:
            for twin, network in zip(twins, self.networks, strict=True):
                _link(twin, network)
        return [self.networks, *taken]

    def add_gradients(self, count):
        """Add the gradients of the first `count` - 1 twins to those of the networks, in a fixed order."""
        for twins in self._made[: count - 1]:
            for twin, network in zip(twins, self.networks, strict=True):
                for own, whole in zip(twin.parameters(), network.parameters(), strict=True):
                    if own.grad is not None:
                        with paddle.no_grad():
                            whole.grad.add_(own.grad)
                        own.clear_gradient(False)


def _link(twin, network):
    """Let `twin` use the weights of `network`, and copies of its buffers."""
    for ours, theirs in zip(twin.sublayers(include_self=True), network.sublayers(include_self=True), strict=True):
        ours.training = theirs.training
        for name, weight in theirs._parameters.items():
            if weight is not None:
                ours._parameters[name] = weight.detach()  # has the same memory, but its own gradient
                ours._parameters[name].stop_gradient = weight.stop_gradient
        for name, buffer in theirs._buffers.items():
            ours._buffers[name] = buffer.clone()
