"""Layers of the networks: batch norm, dropout, self-attention. Those with spectral norm are in `spectral_norm.py`.

Also the initial weights, and the functions that find or change the state of such layers in a network.
"""

import contextlib
import itertools
import math
from functools import partial

import numpy as np
import paddle
import paddle.distributed
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer
from paddle.distributed.fleet.utils import recompute

import operations
import randomness
from processes.groups import Alone
from spectral_norm import SNConv2D, SpectrallyNormalized

LARGE = 1 << 19  # from this number of values on, the fast form of batch norm is faster than Paddle's kernel


class BatchNorm(nn.Layer):
    """Batch norm over every axis but the second, [N, C] or [N, C, H, W] (Ioffe and Szegedy, ICML 2015).

    An update keeps the share `momentum` of the running statistics. The running variance uses the unbiased batch
    variance, as in PyTorch and cuDNN. `affine` adds a learned scale and shift.

    `training_on_block` sets `group`: the rows that have common statistics in a training forward. `Alone` are the rows
    of the input. While `updates` is False, the running statistics do not change.
    """

    group = Alone()
    updates = True

    def __init__(self, features, momentum=0.9, epsilon=1e-5, affine=True):
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        # Paddle's kernels round epsilon to float32. In float64 that error shows. Scaling the input by k cancels it:
        # BN(kx; k²·eps) = BN(x; eps).
        double = paddle.get_default_dtype() == "float64"
        self._scale = math.sqrt(float(np.float32(epsilon)) / epsilon) if double else 1.0
        if affine:
            self.weight = self.create_parameter([features], default_initializer=nn.initializer.Constant(1.0))
            self.bias = self.create_parameter([features], is_bias=True)
        else:
            self.register_buffer("weight", paddle.ones([features]), persistable=False)
            self.register_buffer("bias", paddle.zeros([features]), persistable=False)
        self.register_buffer("_mean", paddle.zeros([features]))
        self.register_buffer("_variance", paddle.ones([features]))

    def forward(self, x, bias=None, scale=None, shift=None):
        """Normalise `x`, then apply the affine.

        `bias` [C]: the bias of the convolution before, if it was not added to `x`. Training need not add it, because
        the norm removes it again. `scale`, `shift` [N, C]: an affine for each row, for a norm without one of its own.
        """
        own = scale is None
        if own:
            scale, shift = self.weight.unsqueeze(0), self.bias.unsqueeze(0)
        if not self.training:
            # The norm and the affine are one affine.
            scale = scale * operations.inverse_deviation(self._variance, self.epsilon)
            return operations.affine(x, scale, shift - scale * (self._mean if bias is None else self._mean - bias))
        if operations.is_fast(x) and (x.size >= LARGE or not isinstance(self.group, Alone)):
            out, mean, variance = operations.batch_norm(x, scale, shift, bias, self.epsilon, self.group)
            pixels = x.size // (len(x) * x.shape[1])
            self._update_running_statistics(mean, variance, self.group.count(len(x)) * pixels)
            return out
        x = x if bias is None else operations.add_bias(x, bias)
        x = x if self._scale == 1 else x * self._scale
        out = self._by_kernel(x) if isinstance(self.group, Alone) else self._synchronized(x)
        return out if own else operations.affine(out, scale, shift)

    def _by_kernel(self, x):
        # With momentum 0 the kernel writes the batch's own statistics. They then update the running statistics.
        mean, variance = paddle.zeros_like(self._mean), paddle.zeros_like(self._variance)
        out = F.batch_norm(x, mean, variance, self.weight, self.bias, True, momentum=0.0, epsilon=self.epsilon)
        mean, variance = mean / self._scale, variance / self._scale**2
        # Paddle's CPU kernel gives the biased variance, its GPU kernel the unbiased one.
        self._update_running_statistics(mean, variance, x.size // x.shape[1] if x.place.is_cpu_place() else 1)
        return out

    def _synchronized(self, x):
        """The training forward with the statistics of all processes. All its operations have second derivatives.

        Sums run over the pixels of each image first, then over the images. In float32 one sum over both is wrong in the
        fourth digit. `spread` expands in two steps for the same reason: the gradient of an expansion is a sum.
        """

        def total(values):
            return AllReduce.apply(
                counts * (values.sum([2, 3], keepdim=True) if x.ndim == 4 else values).sum(0, keepdim=True)
            )

        def spread(values):
            return values.expand([1, *x.shape[1:]])

        count = self.group.count(len(x)) * (x.size // (x.shape[0] * x.shape[1]))
        counts = float(self.group.counts)
        precise = x.astype(self._mean.dtype)
        mean = total(precise) / count
        centred = precise - spread(mean)
        variance = total(centred * centred) / count
        self._update_running_statistics(mean.flatten() / self._scale, variance.flatten() / self._scale**2, count)
        weight, bias = (tensor.reshape(mean.shape) for tensor in (self.weight, self.bias))
        deviation = paddle.sqrt(variance + self.epsilon * self._scale**2)
        out = centred / spread(deviation) * spread(weight) + spread(bias)
        return out.astype(x.dtype)

    def _update_running_statistics(self, mean, variance, count):
        """Move the running statistics towards `mean` and the biased `variance` of `count` values."""
        if not self.updates:
            return
        with paddle.no_grad():
            unbiased = variance * (count / (count - 1)) if count > 1 else variance
            keep = self.momentum
            paddle.assign(keep * self._mean + (1 - keep) * mean, self._mean)
            paddle.assign(keep * self._variance + (1 - keep) * unbiased, self._variance)


class AllReduce(PyLayer):
    """The sum of a tensor over all processes. Its gradient is the sum of the processes' gradients, at every order."""

    @staticmethod
    def forward(ctx, x):
        total = x.clone()
        paddle.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        return AllReduce.apply(gradient)


@contextlib.contextmanager
def training_on_block(networks, block, group, sources=None):
    """In this context, training forwards of `networks` compute one `blocks.Block` of a batch.

    Batch norms use the statistics of the rows in `group`, an object of `processes.groups`. Dropout draws random numbers
    from `sources`, a NumPy source for each row of the block. Without them it draws Paddle's random numbers for the
    whole batch, and uses those of the block's rows. In both cases a row's numbers do not depend on the block.
    """
    for layer in _layers_of(BatchNorm, *networks):
        layer.group = group
    for number, layer in enumerate(_layers_of(SpectrallyNormalized, *networks)):
        layer.group, layer.number, layer.forwards = group, number, 0
    for layer in _layers_of(Dropout, *networks):
        layer.block, layer.sources = block, sources
    try:
        yield
    finally:
        for layer in _layers_of((BatchNorm, SpectrallyNormalized), *networks):
            layer.group = Alone()
        for layer in _layers_of(Dropout, *networks):
            layer.block = layer.sources = None


def recomputed(block, *inputs):
    """`block(*inputs)`. A backward pass runs the block again, so that its inner results need no memory until then.

    The second run changes no running statistics and no singular vectors. It finds the vectors of the first run if the
    block has no other forward in between.
    """
    if not paddle.is_grad_enabled():
        return block(*inputs)
    runs = itertools.count()

    def run(_, *inputs):
        with _without_updates(block) if next(runs) else contextlib.nullcontext():
            return block(*inputs)

    # The first argument makes the result differentiable even if the inputs are images, which have no gradient.
    return recompute(run, next(iter(block.parameters())), *inputs, preserve_rng_state=False)


@contextlib.contextmanager
def _without_updates(block):
    layers = _layers_of((BatchNorm, SpectrallyNormalized), block)
    for layer in layers:
        layer.updates = False
    try:
        yield
    finally:
        for layer in layers:
            layer.updates = True


def running_statistics(*networks):
    """The running means and variances of the batch norms in `networks`, which training forwards change."""
    return [buffer for norm in _layers_of(BatchNorm, *networks) for buffer in (norm._mean, norm._variance)]


def singular_vectors(*networks):
    """The singular vectors of the spectral norms in `networks`, which training forwards change."""
    layers = _layers_of(SpectrallyNormalized, *networks)
    return [buffer for layer in layers for buffer in (layer.weight_u, layer.weight_v)]


def forwards_to_settle(network):
    """The number of training forwards that the running statistics of `network` need to settle.

    After it, their initial values have a share of less than a tenth.
    """
    slowest = max(layer.momentum for layer in network.sublayers() if isinstance(layer, BatchNorm))
    return math.ceil(math.log(0.1) / math.log(slowest))


@contextlib.contextmanager
def batch_statistics(network):
    """In this context, the batch norms of `network` use the batch's own statistics. The running ones do not change."""
    norms = _layers_of(BatchNorm, network)
    before = [(norm.training, norm.momentum) for norm in norms]
    for norm in norms:
        norm.training, norm.momentum = True, 1
    try:
        yield
    finally:
        for norm, (training, momentum) in zip(norms, before, strict=True):
            norm.training, norm.momentum = training, momentum


def _layers_of(kind, *networks):
    """The layers in `networks` that are instances of `kind`, a class or a tuple of classes."""
    return [layer for network in networks for layer in network.sublayers() if isinstance(layer, kind)]


def leaky_relu(x, slope=0.2):
    """max(x, slope·x). In float64 it is computed from ReLUs, because Paddle 2's kernel rounds the slope to float32."""
    return F.relu(x) - slope * F.relu(-x) if x.dtype == paddle.float64 else F.leaky_relu(x, slope)


class ConditionalBatchNorm(nn.Layer):
    """Batch norm with a scale and a shift per class (Dumoulin et al., ICLR 2017; SAGAN section 4).

    `embed` [num_classes, 2 * features] holds the scales, which start at 1, then the shifts, which start at 0.
    """

    def __init__(self, features, num_classes, momentum=0.999):
        super().__init__()
        self.bn = BatchNorm(features, momentum, affine=False)
        self.embed = nn.Embedding(num_classes, 2 * features)
        self.features = features

    def forward(self, x, labels, bias=None):
        """`bias` is as in `BatchNorm.forward`."""
        return self.bn(x, bias, *self.embed(labels).chunk(2, axis=1))


class Dropout(nn.Layer):
    """Dropout of single activations, or with `spatial` of whole channels of [N, C, H, W]. It keeps the mean.

    It is not Paddle's, because that one lacks the second derivative that a gradient penalty needs.

    `training_on_block` sets `block` and `sources`. Random numbers from NumPy's `sources` are ten times faster on a CPU
    than Paddle's.
    """

    block = sources = None

    def __init__(self, share, spatial=False):
        super().__init__()
        self.share, self.spatial = share, spatial

    def forward(self, x):
        if not self.training or self.share == 0:
            return x
        shape = [x.shape[1], 1, 1] if self.spatial else x.shape[1:]
        if self.sources:
            return x * paddle.to_tensor(self._draw(shape).astype(str(x.dtype).rsplit(".", 1)[-1]))
        if self.block:
            rows = self.block.rows
            draws = paddle.rand([self.block.whole, *shape])[rows.start : rows.stop]
        else:
            draws = paddle.rand([len(x), *shape])
        return x * ((draws >= self.share).astype(x.dtype) / (1 - self.share))

    def _draw(self, shape):
        """The factors of the activations, [N, *shape]: 0, or the inverse of the kept share."""
        # A byte is precise enough for shares such as 1/2 and 1/4. Others are rounded to a multiple of 2^-16.
        kind = np.uint8 if self.share * 256 % 1 == 0 else np.uint16
        values = np.iinfo(kind).max + 1
        limit, size = min(round(self.share * values), values - 1), math.prod(shape)  # some are kept, however few
        draws = [np.frombuffer(source.bytes(size * kind().itemsize), kind) for source in self.sources]
        return (np.stack(draws).reshape([len(draws), *shape]) >= limit) * (values / (values - limit))


class SelfAttention(nn.Layer):
    """Self-attention over positions, [N, C, H, W] to the same shape (SAGAN section 3, equations 1 to 3).

    Keys and values are max-pooled 2x2, as in the authors' code. `gamma`, the learned gate, starts at 0.

    `twice_differentiable` builds softmax and max-pooling from operations that have second derivatives in Paddle. A
    gradient penalty needs it, because it differentiates D twice.
    """

    def __init__(self, channels, twice_differentiable=False):
        super().__init__()
        self.theta = SNConv2D(channels, max(1, channels // 8), 1)
        self.phi = SNConv2D(channels, max(1, channels // 8), 1)
        self.g = SNConv2D(channels, max(1, channels // 2), 1)
        self.out = SNConv2D(max(1, channels // 2), channels, 1)
        self.gamma = self.create_parameter([1], default_initializer=nn.initializer.Constant(0.0))
        self._softmax = _softmax_twice_differentiable if twice_differentiable else F.softmax
        self._pool = _max_pool_twice_differentiable if twice_differentiable else _max_pool

    def weights(self, x):
        """The weights of the keys (last axis) for each position, [N, HW, HW/4]. They sum to 1 over the keys."""
        query = _positions(self.theta(x))  # [N, C/8, HW]
        key = _positions(self._pool(self.phi(x)))  # [N, C/8, HW/4]
        return self._softmax(paddle.matmul(query, key, transpose_x=True))

    def forward(self, x):
        attention = self.weights(x)
        value = _positions(self._pool(self.g(x)))  # [N, C/2, HW/4]
        attended = paddle.matmul(value, attention, transpose_y=True).reshape([*value.shape[:2], *x.shape[2:]])
        return x + self.gamma * self.out(attended)


def _positions(x):
    return x.reshape([*x.shape[:2], -1])  # flatten has no second derivative in Paddle


def _max_pool(x):
    return F.max_pool2d(x, 2)


def _max_pool_twice_differentiable(x):
    n, c, h, w = x.shape
    cells = x.reshape([n, c, h // 2, 2, w // 2, 2]).transpose([0, 1, 2, 4, 3, 5]).reshape([n, c, h // 2, w // 2, 4])
    return (cells * F.one_hot(cells.argmax(-1), 4).astype(x.dtype)).sum(-1)


def _softmax_twice_differentiable(logits):
    shifted = logits - logits.detach().max(-1, keepdim=True)
    # exp(x) = sigmoid(x) / sigmoid(-x). Paddle 2.6 has no second derivative of exp. Nothing overflows: shifted <= 0.
    exponential = F.sigmoid(shifted) / F.sigmoid(-shifted)
    return exponential / exponential.sum(-1, keepdim=True)


def initialize(network, seed, role, rule):
    """Draw the initial weights of `network` and return it. (seed, role, name) of a weight decides its values.

    `role` is "G" or "D". `rule(layer, draw)` sets the random weights of one layer. `draw(name)` is a NumPy source of
    random numbers for the layer's tensor `name`.
    """
    for prefix, layer in network.named_sublayers():
        rule(layer, partial(_draw, seed, role, prefix))
    return network


def _draw(seed, role, prefix, name):
    return randomness.rng(seed, f"weights/{role}/{prefix}.{name}")


def set_values(tensor, values):
    """Write NumPy values into a parameter or buffer, cast to its dtype."""
    tensor.set_value(values.astype(str(tensor.dtype).rsplit(".", 1)[-1]))
