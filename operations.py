"""Exact fast forms of the networks' operations for the CPU, each beside its plain definition.

Paddle's CPU kernels for broadcast arithmetic, nearest doubling and batch norm are slow. The fast forms compute the same
values by products of matrices and by arithmetic on rows. A row is one channel of one image: [N, C, H, W] becomes
[N * C, H * W]. Fast forms have no second derivative. GPUs, and networks that need second derivatives, use the plain
forms.
"""

import contextlib
import threading

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from processes.groups import Alone

# Up to this resolution a convolution is one matrix product for all images. One product for each image would read all
# the weights for few pixels.
TOGETHER_UP_TO = 4

_thread = threading.local()


@contextlib.contextmanager
def plain_forms():
    """In this context the operations of this thread use their plain forms."""
    before, _thread.plain = getattr(_thread, "plain", False), True
    try:
        yield
    finally:
        _thread.plain = before


def is_fast(x):
    """Whether operations on `x` use the fast forms."""
    return x.place.is_cpu_place() and not getattr(_thread, "plain", False)


def _rows(x):
    """A view of [N, C, …] as rows [N * C, …]."""
    return x.reshape([x.shape[0] * x.shape[1], -1])


def _spread(values, x):
    """Values [N or 1, C] as a column [N * C, 1], one for each row of `x` [N, C, …]."""
    return values.expand(x.shape[:2]).reshape([-1, 1])


def _row_sums(x):
    """The sums over the pixels of [N, C, …]: [N, C]. A product with ones is faster than Paddle's sum."""
    rows = _rows(x)
    return (paddle.mv(rows, paddle.ones(rows.shape[1:], x.dtype)) if rows.shape[1] > 1 else rows).reshape(x.shape[:2])


def _wanted(*tensors):
    """For each tensor, whether its gradient is wanted. PyLayer takes None for the gradients of the others."""
    return [not tensor.stop_gradient for tensor in tensors]


def add_bias(x, bias):
    """x [N, C, H, W] plus bias [C]. The fast form changes `x` itself, so no other operation may use it."""
    if is_fast(x):
        return _AddBias.apply(x, bias)
    return x + bias.reshape([1, -1, 1, 1])


class _AddBias(PyLayer):
    @staticmethod
    def forward(ctx, x, bias):
        ctx.wanted = _wanted(x, bias)
        x = x.contiguous()  # nearly always `x` itself; otherwise its rows would be a copy
        _rows(x).add_(_spread(bias.unsqueeze(0), x))
        return x

    @staticmethod
    def backward(ctx, gradient):
        x, bias = ctx.wanted
        return gradient if x else None, _row_sums(gradient).sum(0) if bias else None


def spectrally_normalised(weight, rows, columns, divided=None):
    """`weight` divided by `rows`·W·`columns`, where W is the weight as a matrix. The two vectors count as constants.

    `divided`: the result of `divide` for the same arguments, if it is known already.
    """
    if is_fast(weight):
        divided = divided or divide(weight, rows, columns)
        # In a function, because Paddle would take a tensor that is both argument and result for a change in place.
        return _SpectrallyNormalised.apply(weight, rows, columns, lambda: divided)
    return weight / paddle.dot(rows, paddle.mv(weight.flatten(1), columns))


def divide(weight, rows, columns):
    """The value of the fast form of `spectrally_normalised`, and 1 / (`rows`·W·`columns`) [1]."""
    with paddle.no_grad():
        matrix = weight.flatten(1)
        inverse = 1 / paddle.dot(rows, paddle.mv(matrix, columns))
        return (matrix * inverse.expand([len(rows), 1])).reshape(weight.shape), inverse


class _SpectrallyNormalised(PyLayer):
    """The gradient is that of Miyato et al., ICLR 2018, equation 12."""

    @staticmethod
    def forward(ctx, weight, rows, columns, divided):
        out, inverse = divided()
        # Do not save the output: with this graph it would form a circle, which is freed only by a backward pass.
        ctx.save_for_backward(weight, inverse, rows, columns)
        return out.detach()  # shares the memory: threads that share the value need tensors of their own

    @staticmethod
    def backward(ctx, gradient):
        weight, inverse, rows, columns = ctx.saved_tensor()
        along = paddle.matmul(gradient.reshape([1, -1]), weight.reshape([-1, 1])).reshape([1]) * inverse
        # gradient - along * rows * columns
        matrix = paddle.addmm(gradient.flatten(1), (-along * rows).unsqueeze(1), columns.unsqueeze(0))
        return matrix.multiply_(inverse.expand([len(rows), 1])).reshape(gradient.shape)


def affine(x, scale, shift):
    """`scale * x + shift` for x [N, C, …] and `scale`, `shift` [1, C] or [N, C]."""
    return (_rows(x) * _spread(scale, x) + _spread(shift, x)).reshape(x.shape)


def inverse_deviation(variance, epsilon):
    """`1 / sqrt(variance + epsilon)`. Paddle 2 rounds an added number to float32, but not an added tensor."""
    return paddle.rsqrt(variance + paddle.full_like(variance, epsilon))


def batch_norm(x, scale, shift, bias, epsilon, group):
    """Batch norm of x [N, C] or [N, C, H, W] with the batch's own statistics. Returns (output, mean, variance).

    The output is `scale * (x - mean) / sqrt(variance + epsilon) + shift`, with the biased variance. `scale`, `shift`:
    [1, C], or [N, C] for values of each image's class. `bias` [C] or None: a bias of `x` that was not added, because
    the norm removes it again. It is in the mean, and its gradient is 0.
    `group` is the rows that have common statistics, an object of `processes.groups`.
    """
    count = group.count(len(x)) * (x.size // (x.shape[0] * x.shape[1]))
    with paddle.no_grad():
        mean = group.add_up(_row_sums(x).sum(0)) / count
        centred = _rows(x) - _spread(mean.unsqueeze(0), x)
        variance = group.add_up(_row_sums((centred * centred).reshape(x.shape)).sum(0)) / count
        inverse = inverse_deviation(variance, epsilon)
        mean = mean if bias is None else mean + bias
    return _BatchNorm.apply(x, scale, shift, bias, (centred, inverse, count, group)), mean, variance


class _BatchNorm(PyLayer):
    """Ioffe and Szegedy, ICML 2015, algorithm 1 and the gradients of section 3."""

    @staticmethod
    def forward(ctx, x, scale, shift, bias, statistics):
        centred, inverse, ctx.count, ctx.group = statistics
        ctx.bias = bias
        ctx.save_for_backward(centred, scale, inverse)
        ctx.wanted = _wanted(x, scale, shift, *([] if bias is None else [bias]))
        return (centred * _spread(scale * inverse, x)).add_(_spread(shift, x)).reshape(x.shape)

    @staticmethod
    def backward(ctx, gradient):
        centred, scale, inverse = ctx.saved_tensor()
        # For each row: the sums of the gradient, and of the gradient times the normalised input.
        sums = _row_sums(gradient)
        products = _row_sums((_rows(gradient) * centred).reshape(gradient.shape)) * inverse
        # For each channel: the terms of the gradient that pass through the mean and through the deviation. Padding rows
        # are not in these statistics, so their gradients lack the two terms.
        terms = ctx.group.add_up(paddle.stack([(scale * sums).sum(0), (scale * products).sum(0)]))
        by_mean, by_deviation = terms * (ctx.group.counts * inverse / ctx.count)
        x = centred * _spread((-by_deviation * inverse).unsqueeze(0), gradient)
        x.add_(_spread(-by_mean.unsqueeze(0), gradient)).add_(_rows(gradient) * _spread(scale * inverse, gradient))
        if len(scale) == 1:
            sums, products = sums.sum(0, keepdim=True), products.sum(0, keepdim=True)
        gradients = [x.reshape(gradient.shape), products, sums, ctx.bias is not None and paddle.zeros_like(ctx.bias)]
        return tuple(value if wanted else None for value, wanted in zip(gradients, ctx.wanted, strict=False))


def double(x):
    """Nearest neighbour doubling: [N, C, H, W] to [N, C, 2H, 2W]."""
    return _Double.apply(x) if is_fast(x) else F.interpolate(x, scale_factor=2, mode="nearest")


class _Double(PyLayer):
    @staticmethod
    def forward(ctx, x):
        return _doubled(x)

    @staticmethod
    def backward(ctx, gradient):
        return F.avg_pool2d(gradient, 2) * 4


def _doubled(x):
    n, c, h, w = x.shape
    # The complex number x + xi lies in memory as the pair x, x. This is the fastest way to make pairs.
    lines = paddle.as_real(paddle.complex(x, x)).reshape([n * c * h, 1, 2 * w])
    return paddle.concat([lines, lines], axis=1).reshape([n, c, 2 * h, 2 * w])


def mean_pool(x):
    """2x2 means: [N, C, H, W] to [N, C, H/2, W/2]."""
    return _MeanPool.apply(x) if is_fast(x) else F.avg_pool2d(x, 2)


class _MeanPool(PyLayer):
    @staticmethod
    def forward(ctx, x):
        return F.avg_pool2d(x, 2)

    @staticmethod
    def backward(ctx, gradient):
        return _doubled(gradient / 4)


def conv(x, weight, bias=None, padding=0, stride=1):
    """Convolution of [N, I, H, W] with weight [O, I, K, K], plus bias [O]. `padding`, `stride`: a number, or a pair."""
    if not is_fast(x):
        return F.conv2d(x, weight, bias, stride, padding)
    padding, stride = _number(padding), _number(stride)
    side = (x.shape[-1] + 2 * padding - weight.shape[-1]) // stride + 1
    if side <= TOGETHER_UP_TO:
        n, outputs = len(x), len(weight)
        taps = F.unfold(x, weight.shape[-1], stride, padding).transpose([1, 0, 2]).reshape([weight[0].size, -1])
        out = paddle.matmul(weight.reshape([outputs, -1]), taps).reshape([outputs, n, -1])
        out = out.transpose([1, 0, 2]).reshape([n, outputs, -1, side])
    else:
        out = F.conv2d(x, weight, None, stride, padding)
    return out if bias is None else add_bias(out, bias)


def conv_transpose(x, weight, bias=None, padding=0, stride=1):
    """Transposed convolution of [N, I, H, W] with weight [I, O, K, K], plus bias [O]. The rest is as in `conv`."""
    if not is_fast(x):
        return F.conv2d_transpose(x, weight, bias, stride, padding)
    padding, stride = _number(padding), _number(stride)
    (n, inputs, height, width), kernel = x.shape, weight.shape[-1]
    if height == width == 1 and padding == 0:  # a linear layer
        out = paddle.matmul(x.reshape([n, inputs]), weight.reshape([inputs, -1])).reshape([n, -1, kernel, kernel])
    elif width <= TOGETHER_UP_TO:
        pixels = x.transpose([1, 0, 2, 3]).reshape([inputs, -1])
        taps = paddle.matmul(weight.reshape([inputs, -1]), pixels, transpose_x=True)
        taps = taps.reshape([weight[0].size, n, -1]).transpose([1, 0, 2])
        size = [(side - 1) * stride - 2 * padding + kernel for side in (height, width)]
        out = F.fold(taps, size, kernel, stride, padding)
    else:
        out = F.conv2d_transpose(x, weight, None, stride, padding)
    return out if bias is None else add_bias(out, bias)


def _number(setting):
    """A padding or a stride as a number. Paddle's layers keep a pair of equal numbers."""
    return setting if isinstance(setting, int) else setting[0]


def upsample_conv(x, weight, bias=None):
    """`conv(double(x))` for a 1x1 or 3x3 kernel, by the cheapest exact method: [N, I, H, W] to [N, O, 2H, 2W].

    A 1x1 convolution runs before the doubling, which gives the same result. A doubling and a 3x3 convolution together
    equal one 4x4 transposed convolution of stride 2. Its kernel sums the taps that read the same pixel.
    """
    if weight.shape[-1] == 1:
        return double(conv(x, weight, bias))
    kernel = kernel_of_stride_2(weight.transpose([1, 0, 2, 3]), flipped=True)
    return conv_transpose(x, kernel, bias, padding=1, stride=2)


def conv_pool(x, weight, bias=None):
    """`mean_pool(conv(x))` for a 1x1 or 3x3 kernel, by the cheapest exact method: [N, I, H, W] to [N, O, H/2, W/2].

    A 1x1 convolution runs after the pooling. A 3x3 convolution and the pooling equal one 4x4 convolution of stride 2.
    """
    if weight.shape[-1] == 1:
        return conv(mean_pool(x), weight, bias)
    return conv(x, kernel_of_stride_2(weight) / 4, bias, padding=1, stride=2)


def kernel_of_stride_2(weight, flipped=False):
    """[A, B, 3, 3] to [A, B, 4, 4]: the sum of the kernel, or of the `flipped` one, at the positions of a 2x2 cell.

    The sum is linear in the nine taps, so it is a product with a matrix of zeros and ones.
    """
    sums = np.zeros([3, 3, 4, 4])
    for row, column in np.ndindex(3, 3):
        y, x = (2 - row, 2 - column) if flipped else (row, column)
        sums[row, column, y : y + 2, x : x + 2] = 1
    matrix = paddle.to_tensor(sums.reshape([9, 16]).astype(str(weight.dtype).rsplit(".", 1)[-1]))
    return paddle.matmul(weight.reshape([-1, 9]), matrix).reshape([*weight.shape[:2], 4, 4])


def gather(x, group):
    """The rows x [N, …] of every call of `group`, in order: [group.count(N), …]. Padding rows are left out.

    The gradient of a row is the sum of its gradients over the calls.
    """
    if isinstance(group, Alone):
        return x
    x = x if group.counts else 0 * x
    around = group.before, group.count(len(x)) - group.before - len(x)  # rows of the calls before and after
    first, last = ([paddle.zeros([rows, *x.shape[1:]], x.dtype)] if rows else [] for rows in around)
    x = paddle.concat([*first, x, *last])
    return group.add_up(x) if x.stop_gradient else _AddUp.apply(x, group)


class _AddUp(PyLayer):
    """The sum of a tensor over the calls of a group."""

    @staticmethod
    def forward(ctx, x, group):
        ctx.group = group
        return group.add_up(x.clone())

    @staticmethod
    def backward(ctx, gradient):
        return ctx.group.add_up(gradient.clone())
