"""Generators in evaluation mode with fewer operations: constants are computed once and merged into the weights.

`fold` divides weights by their sigma, and merges batch norms into an affine for each class or into the weights beside
them. A doubling and a convolution become one transposed convolution of stride 2. The results are equal up to
rounding. `paddle.jit.save` accepts the folded generators, with a free number of rows.
"""

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

import acgan_models
import operations
import sagan_models


def fold(generator):
    """The folded copy of `generator`, which is in evaluation mode. Later changes of the generator do not change it.

    It is a layer from noise float32 [N, z_dim] and labels int64 [N] to images float32 [N, C, H, W]. Raises TypeError
    for a generator of another project.
    """
    if type(generator) not in FOLDED:
        raise TypeError(f"{type(generator).__name__} cannot be folded")
    with paddle.no_grad():
        folded = FOLDED[type(generator)](generator)
    folded.eval()
    return folded


class Constants(nn.Layer):
    """A layer with constant weights."""

    def __init__(self, **tensors):
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor if tensor is None else tensor.detach().clone())


class ClassTable(Constants):
    """A row of `values` [classes, features] for each class: labels int64 [N] to [N, features]."""

    def forward(self, labels):
        return F.embedding(labels, self.values)


def mix_classes(folded, mixtures):
    """Change `folded` so that its label m stands for a mixture of classes. Returns it.

    `mixtures`: [M, classes]. Its row m holds the weights of the classes, and they sum to 1. Only the tables of the
    classes' embeddings depend on the class, and `mixtures` is multiplied with them.
    """
    for layer in folded.sublayers():
        if isinstance(layer, ClassTable):
            weights = paddle.to_tensor(np.asarray(mixtures), dtype=layer.values.dtype)
            layer.register_buffer("values", paddle.matmul(weights, layer.values))
    return folded


class Linear(Constants):
    """[N, in] to [N, out]. `weight` is [in, out]."""

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class Conv(Constants):
    """A convolution of [N, I, H, W] with `weight` [O, I, K, K]."""

    def __init__(self, padding, **tensors):
        super().__init__(**tensors)
        self.padding = padding

    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, padding=self.padding)


class ConvTranspose(Constants):
    """A transposed convolution of [N, I, H, W] with `weight` [I, O, K, K]."""

    def __init__(self, stride, padding, weight, bias=None):
        super().__init__(weight=weight, bias=bias)
        self.stride, self.padding = stride, padding

    def forward(self, x):
        return F.conv2d_transpose(x, self.weight, self.bias, stride=self.stride, padding=self.padding)


class ClassAffine(nn.Layer):
    """x [N, C, H, W] times `scale`, plus `shift`. Both are tables [classes, C]."""

    def __init__(self, scale, shift):
        super().__init__()
        self.scale, self.shift = ClassTable(values=scale), ClassTable(values=shift)

    def forward(self, x, labels):
        return x * self.scale(labels).unsqueeze([2, 3]) + self.shift(labels).unsqueeze([2, 3])


class Pixels(Constants):
    """A transposed convolution of stride 2 to few channels, as a convolution that gives the pixels of each 2x2 cell.

    oneDNN computes 16 output channels at a time. So 12 of a cell cost as much as 3 of a pixel.
    """

    def __init__(self, padding, weight, bias=None):
        kernel, before = _cell_kernel(weight.numpy(), padding)
        if bias is not None:
            bias = paddle.repeat_interleave(bias, 4)
        super().__init__(weight=paddle.to_tensor(kernel), bias=bias)
        self.padding = before

    def forward(self, x):
        return F.pixel_shuffle(F.conv2d(x, self.weight, self.bias, padding=self.padding), 2)


def _cell_kernel(weight, padding):
    """The kernel [4 * O, I, J, J] of `Pixels`, and its padding. `weight`, `padding`: [I, O, K, K] with an even K.

    Tap k of input i belongs to pixel 2 * i + k - padding, which is pixel 0 or 1 of cell i + d. So pixel `offset`
    of that cell has tap 2 * d + offset + padding.
    """
    inputs, outputs, taps, _ = weight.shape
    least, most = -((padding + 1) // 2), (taps - 1 - padding) // 2  # of d
    size = most - least + 1
    kernel = np.zeros([outputs, 2, 2, inputs, size, size], weight.dtype)
    for y, x, row, column in np.ndindex(2, 2, size, size):
        tap_y, tap_x = (2 * (most - place) + offset + padding for place, offset in ((row, y), (column, x)))
        if 0 <= tap_y < taps and 0 <= tap_x < taps:
            kernel[:, y, x, :, row, column] = weight[:, :, tap_y, tap_x].T
    return kernel.reshape([4 * outputs, inputs, size, size]), most


class Block(nn.Layer):
    """`sagan_models.GeneratorBlock`."""

    def __init__(self, block):
        super().__init__()
        conv1, conv2, shortcut = block.conv1, block.conv2, block.shortcut
        self.affine1 = _class_affine(block.cond_bn1)
        self.conv1 = ConvTranspose(2, 1, _doubling_kernel(conv1.weight()))
        self.affine2 = _class_affine(block.cond_bn2, conv1.bias)
        self.conv2 = Conv(1, weight=conv2.weight(), bias=conv2.bias + shortcut.bias)
        # The doubling of a 1x1 convolution is one weight for all four pixels. Paddle's doubling would change layouts.
        self.shortcut = ConvTranspose(2, 0, shortcut.weight().transpose([1, 0, 2, 3]).tile([1, 1, 2, 2]))

    def forward(self, x, labels):
        out = self.conv1(F.relu(self.affine1(x, labels)))
        out = self.conv2(F.relu(self.affine2(out, labels)))
        return out + self.shortcut(x)


class Attention(nn.Layer):
    """`layers.SelfAttention`, for feature maps of C channels and `size` pixels a side."""

    def __init__(self, attention, size):
        super().__init__()
        self.size = size
        self.theta, self.phi, self.g = (
            Conv(0, weight=conv.weight(), bias=conv.bias) for conv in (attention.theta, attention.phi, attention.g)
        )
        out = attention.out
        self.out = Conv(0, weight=attention.gamma * out.weight(), bias=attention.gamma * out.bias)
        self.widths = [conv.weight.shape[0] for conv in (self.theta, self.g)]

    def forward(self, x):
        (narrow, wide), places = self.widths, self.size**2
        query = self.theta(x).reshape([-1, narrow, places])
        key = F.max_pool2d(self.phi(x), 2).reshape([-1, narrow, places // 4])
        value = F.max_pool2d(self.g(x), 2).reshape([-1, wide, places // 4])
        weights = F.softmax(paddle.matmul(query, key, transpose_x=True))
        out = paddle.matmul(value, weights, transpose_y=True)
        return x + self.out(out.reshape([-1, wide, self.size, self.size]))


class SAGAN(nn.Layer):
    """`sagan_models.Generator`."""

    def __init__(self, generator):
        super().__init__()
        self.linear = Linear(weight=generator.linear.weight(), bias=generator.linear.bias)
        self.blocks = nn.LayerList([Block(block) for block in generator.blocks])
        self.attended = generator.attended
        self.attention = Attention(generator.attention, 8 << self.attended)
        scale, shift = _affine(generator.bn)
        self.scale, self.shift = (Constants(values=values.reshape([1, -1, 1, 1])) for values in (scale, shift))
        self.conv = Conv(1, weight=generator.conv.weight(), bias=generator.conv.bias)

    def forward(self, z, labels):
        out = self.linear(z)
        out = out.reshape([-1, out.shape[1] // 16, 4, 4])
        for index, block in enumerate(self.blocks):
            out = block(out, labels)
            if index == self.attended:
                out = self.attention(out)
        return paddle.tanh(self.conv(F.relu(out * self.scale.values + self.shift.values)))


class Stack(nn.Layer):
    """`acgan_models.StackGenerator`.

    The input of the first convolution has one pixel. So the linear layer and this convolution are one linear layer. Its
    rows for the one-hot class are a table.
    """

    def __init__(self, generator):
        super().__init__()
        convs = [_folded_transpose(conv, norm) for conv, norm in zip(generator.convs, generator.norms, strict=False)]
        kernel, bias = convs[0]
        self.classes, self.side = generator.num_classes, kernel.shape[2]
        wide = kernel.reshape([len(kernel), -1])
        weight = paddle.matmul(generator.linear.weight, wide)
        bias = paddle.mv(wide.t(), generator.linear.bias) + paddle.repeat_interleave(bias, self.side**2)
        self.table = ClassTable(values=weight[: self.classes])
        self.linear = Linear(weight=weight[self.classes :], bias=bias)
        middle = zip(convs[1:], list(generator.convs)[1:], strict=False)
        self.convs = nn.LayerList([ConvTranspose(_stride(conv), _padding(conv), *folded) for folded, conv in middle])
        last = generator.convs[-1]
        self.last = Pixels(_padding(last), last.weight, last.bias)

    def forward(self, z, labels):
        out = self.linear(z[:, self.classes :]) + self.table(labels)
        out = F.relu(out.reshape([-1, out.shape[1] // self.side**2, self.side, self.side]))
        for conv in self.convs:
            out = F.relu(conv(out))
        return paddle.tanh(self.last(out))


class Upsampling(nn.Layer):
    """`acgan_models.UpsampleGenerator`. The linear layer contains the first batch norm."""

    def __init__(self, generator):
        super().__init__()
        self.size = generator.size
        self.embedding = ClassTable(values=generator.embedding.weight)
        scale, shift = (paddle.repeat_interleave(values, self.size**2) for values in _affine(generator.norm))
        self.linear = Linear(weight=generator.linear.weight * scale, bias=generator.linear.bias * scale + shift)
        self.convs = nn.LayerList()
        for conv, norm in zip(generator.convs, generator.norms, strict=False):
            scale, shift = _affine(norm, conv.bias)
            self.convs.append(ConvTranspose(2, 1, _doubling_kernel(conv.weight) * scale.reshape([1, -1, 1, 1]), shift))
        self.last = Conv(1, weight=generator.convs[-1].weight, bias=generator.convs[-1].bias)

    def forward(self, z, labels):
        out = self.linear(self.embedding(labels) * z)
        out = out.reshape([-1, out.shape[1] // self.size**2, self.size, self.size])
        for conv in self.convs:
            out = F.leaky_relu(conv(out), 0.2)
        return paddle.tanh(self.last(out))


class MLP(nn.Layer):
    """`acgan_models.MLPGenerator`."""

    def __init__(self, generator):
        super().__init__()
        self.image_shape = generator.image_shape
        self.embedding = ClassTable(values=generator.embedding.weight)
        self.linears = nn.LayerList()
        norms = [None, *generator.norms, None]
        for linear, norm in zip(generator.linears, norms, strict=True):
            weight, bias = linear.weight, linear.bias
            if norm:
                scale, bias = _affine(norm, bias)
                weight = weight * scale
            self.linears.append(Linear(weight=weight, bias=bias))

    def forward(self, z, labels):
        out = paddle.concat([self.embedding(labels), z], axis=1)
        for linear in self.linears[:-1]:
            out = F.leaky_relu(linear(out), 0.2)
        return paddle.tanh(self.linears[-1](out)).reshape([-1, *self.image_shape])


FOLDED = {
    sagan_models.Generator: SAGAN,
    acgan_models.StackGenerator: Stack,
    acgan_models.UpsampleGenerator: Upsampling,
    acgan_models.MLPGenerator: MLP,
}


def _affine(norm, bias=None):
    """`scale`, `shift` [C] of a `BatchNorm` in evaluation mode, after a layer with `bias` [C]."""
    scale = norm.weight * operations.inverse_deviation(norm._variance, norm.epsilon)
    return scale, norm.bias - scale * (norm._mean if bias is None else norm._mean - bias)


def _class_affine(norm, bias=None):
    """The `ClassAffine` of a `ConditionalBatchNorm` after a layer with `bias` [C]."""
    own_scale, own_shift = _affine(norm.bn, bias)
    scale, shift = norm.embed.weight.chunk(2, axis=1)
    return ClassAffine(scale=scale * own_scale, shift=scale * own_shift + shift)


def _doubling_kernel(weight):
    """The kernel [I, O, 4, 4] that doubles and then convolves with `weight` [O, I, 3, 3]."""
    return operations.kernel_of_stride_2(weight.transpose([1, 0, 2, 3]), flipped=True)


def _folded_transpose(conv, norm):
    """Weight and bias of a transposed convolution that contains the batch norm after it."""
    scale, shift = _affine(norm, conv.bias)
    return conv.weight * scale.reshape([1, -1, 1, 1]), shift


def _stride(conv):
    return conv._stride[0]


def _padding(conv):
    return conv._padding if isinstance(conv._padding, int) else conv._padding[0]
