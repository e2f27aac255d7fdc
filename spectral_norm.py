"""Layers with spectral norm: linear, embedding, and convolutions that resample."""

import math

import paddle
import paddle.nn.functional as F
from paddle import nn

import operations
from processes.groups import Alone


class SpectrallyNormalized(nn.Layer):
    """A weight divided by its largest singular value, which one power iteration per training forward estimates.

    Miyato et al., *Spectral Normalization for GANs*, ICLR 2018, algorithm 1. `weight_orig` is the parameter. The
    buffers `weight_u` [rows] and `weight_v` [columns] hold the singular vectors. Evaluation does not change them, nor
    does training while `updates` is False.

    `training_on_block` sets `group`, the calls that compute one batch, and `number`, the layer's number. The weights
    are equal in all calls. So one of them computes the iteration and the division for all.
    """

    updates, group, number, forwards = True, Alone(), 0, 0

    def __init__(self, shape, transposed=False):
        super().__init__()
        self.transposed = transposed  # for Paddle's Linear: the weight is [in, out], the matrix its transpose
        self.weight_orig = self.create_parameter(shape)
        rows, columns = reversed(shape) if transposed else (shape[0], math.prod(shape[1:]))
        self.register_buffer("weight_u", paddle.zeros([rows]))
        self.register_buffer("weight_v", paddle.zeros([columns]))

    def fans(self):
        """Fan-in and fan-out of the weight, for Xavier's initialisation."""
        shape = self.weight_orig.shape
        taps = math.prod(shape[2:])
        return (shape[0], shape[1]) if self.transposed else (shape[1] * taps, shape[0] * taps)

    def weight(self):
        """The normalised weight, in the shape of `weight_orig`. In training mode it runs one power iteration first."""
        divided = None
        if self.training and self.updates:
            self.forwards += 1
            u, v, divided = self.group.once((self.number, self.forwards), self._iterate)
            with paddle.no_grad():
                paddle.assign(u, self.weight_u)
                paddle.assign(v, self.weight_v)
        else:
            # Copies: a later power iteration changes the buffers, but must not change this graph.
            u, v = self.weight_u.clone(), self.weight_v.clone()
        return operations.spectrally_normalised(self.weight_orig, *self._rows_and_columns(u, v), divided)

    def sigma(self):
        """The largest singular value of the weight, as the singular vectors estimate it: a scalar tensor."""
        rows, columns = self._rows_and_columns(self.weight_u, self.weight_v)
        with paddle.no_grad():
            return paddle.dot(rows, paddle.mv(self.weight_orig.flatten(1), columns)).sum()

    def _rows_and_columns(self, u, v):
        return (v, u) if self.transposed else (u, v)

    def _iterate(self):
        """Singular vectors after a power iteration: (u, v, result of `operations.divide` or None)."""
        with paddle.no_grad():
            matrix = self.weight_orig.flatten(1)
            if self.transposed:
                v = _unit(paddle.mv(matrix, self.weight_u))
                u = _unit(_row_product(v, matrix))
            else:
                v = _unit(_row_product(self.weight_u, matrix))
                u = _unit(paddle.mv(matrix, v))
        fast = operations.is_fast(matrix)
        return u, v, operations.divide(self.weight_orig, *self._rows_and_columns(u, v)) if fast else None


def _row_product(vector, matrix):
    """The product of a row vector [R] and a matrix [R, C]: [C]. A product with the transposed matrix would copy it."""
    return paddle.matmul(vector.unsqueeze(0), matrix).squeeze(0)


def _unit(vector):
    return vector / paddle.clip(paddle.sqrt(paddle.sum(vector * vector)), min=1e-12)


class SNLinear(SpectrallyNormalized):
    """Linear layer with spectral norm: [N, in] to [N, out]."""

    def __init__(self, in_features, out_features):
        super().__init__([in_features, out_features], transposed=True)
        self.bias = self.create_parameter([out_features], is_bias=True)

    def forward(self, x):
        return F.linear(x, self.weight(), self.bias)


class SNEmbedding(SpectrallyNormalized):
    """Embedding with spectral norm: int64 [N] to [N, features]."""

    def __init__(self, num_embeddings, features):
        super().__init__([num_embeddings, features])

    def forward(self, index):
        return F.embedding(index, self.weight())


class SNConv2D(SpectrallyNormalized):
    """Convolution of stride 1 with spectral norm.

    `forward` keeps the resolution. `upsampled` doubles it (nearest) before the convolution. `pooled` takes 2x2 means
    after the convolution.
    """

    def __init__(self, in_channels, out_channels, kernel_size):
        super().__init__([out_channels, in_channels, kernel_size, kernel_size])
        self.bias = self.create_parameter([out_channels], is_bias=True)
        self.padding = kernel_size // 2

    def forward(self, x):
        return operations.conv(x, self.weight(), self.bias, self.padding)

    def upsampled(self, x, biased=True):
        """x [N, I, H, W] doubled, then convolved: [N, O, 2H, 2W]. Without `biased` the bias is not added."""
        return operations.upsample_conv(x, self.weight(), self.bias if biased else None)

    def pooled(self, x):
        """x [N, I, H, W] convolved, then 2x2 means: [N, O, H/2, W/2]."""
        return operations.conv_pool(x, self.weight(), self.bias)
