"""Time of the exact forms of each convolution in the recipes' networks, forward and backward.

    python benchmarks/convolutions.py
    python benchmarks/convolutions.py sagan-32 --turns 9

Forms of one shape take turns. A row has the median milliseconds of each form, and the ratio of the first form's time to
it. The results of all forms are compared with those of the first form. To try another form, add a function to FORMS.
"""

import argparse
import statistics
import sys
import time
from typing import NamedTuple

import turns

sys.path.insert(0, str(turns.ROOT))
import runtime  # noqa: F401, I001, sets the number of threads as in training

import numpy as np
import paddle
import paddle.nn.functional as F

# The rows of a flattened 3x3 kernel that each tap of the 4x4 kernel adds up.
SPREAD = np.zeros([3, 3, 4, 4], np.float32)
for tap in np.ndindex(3, 3, 2, 2):
    SPREAD[tap[0], tap[1], tap[0] + tap[2], tap[1] + tap[3]] = 1


def conv(x, weight):
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


def conv_as_product(x, weight):
    """One matrix product over the whole batch."""
    n, _, height, width = x.shape
    taps = taps_of(x, weight.shape[-1])  # [I·k·k, N·H·W]
    out = paddle.matmul(weight.reshape([weight.shape[0], -1]), taps)
    return out.reshape([-1, n, height, width]).transpose([1, 0, 2, 3])


def taps_of(x, kernel):
    columns = F.unfold(x, kernel, paddings=kernel // 2)  # [N, I·k·k, H·W]
    return columns.transpose([1, 0, 2]).reshape([columns.shape[1], -1])


def conv_1x1_as_product(x, weight):
    out = paddle.matmul(weight.reshape(weight.shape[:2]), x.reshape([*x.shape[:2], -1]))
    return out.reshape([out.shape[0], out.shape[1], *x.shape[2:]])


def double(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


def double_by_expand(x):
    n, c, h, w = x.shape
    return x.reshape([n, c, h, 1, w, 1]).expand([n, c, h, 2, w, 2]).reshape([n, c, 2 * h, 2 * w])


def kernel_by_slices(weight):
    padded = F.pad(weight, [1, 1, 1, 1])
    return padded[:, :, 1:, 1:] + padded[:, :, :-1, 1:] + padded[:, :, 1:, :-1] + padded[:, :, :-1, :-1]


def kernel_by_product(weight):
    spread = paddle.to_tensor(SPREAD.reshape([9, 16]))
    return paddle.matmul(weight.reshape([-1, 9]), spread).reshape([*weight.shape[:2], 4, 4])


def transposed(kernel):
    return lambda x, weight: F.conv2d_transpose(
        x, kernel(weight.flip([2, 3])).transpose([1, 0, 2, 3]), stride=2, padding=1
    )


def strided(kernel):
    return lambda x, weight: F.conv2d(x, kernel(weight) / 4, stride=2, padding=1)


FORMS = {  # {kind: {name: function of an image and a weight}}; the first is the definition
    "3x3": {"plain": conv, "one product": conv_as_product},
    "1x1": {"plain": conv, "product": conv_1x1_as_product},
    "double, 3x3": {
        "plain": lambda x, weight: conv(double(x), weight),
        "expand": lambda x, weight: conv(double_by_expand(x), weight),
        "fused": transposed(kernel_by_slices),
        "fused by product": transposed(kernel_by_product),
    },
    "3x3, mean": {
        "plain": lambda x, weight: F.avg_pool2d(conv(x, weight), 2),
        "fused": strided(kernel_by_slices),
        "fused by product": strided(kernel_by_product),
    },
    "double, 1x1": {
        "plain": lambda x, weight: conv(double(x), weight),
        "conv first": lambda x, weight: double(conv(x, weight)),
        "conv first, expand": lambda x, weight: double_by_expand(conv_1x1_as_product(x, weight)),
    },
    "1x1, mean": {
        "plain": lambda x, weight: F.avg_pool2d(conv(x, weight), 2),
        "mean first": lambda x, weight: conv(F.avg_pool2d(x, 2), weight),
        "mean first, product": lambda x, weight: conv_1x1_as_product(F.avg_pool2d(x, 2), weight),
    },
}


class Shape(NamedTuple):
    kind: str
    batch: int
    inputs: int  # channels
    outputs: int
    side: int  # of the input, in pixels


def sagan_shapes(size, width, batch):
    """The shapes of SAGAN's residual blocks, G's and then D's, each once."""
    shapes = []
    side, before = 4, width * size // 8
    while side < size:
        after = width * size // (2 * side)
        shapes += [Shape("double, 3x3", batch, before, after, side), Shape("double, 1x1", batch, before, after, side)]
        shapes.append(Shape("3x3", batch, after, after, 2 * side))
        side, before = 2 * side, after
    before = 3
    while side > 4:
        after = width * size // side
        shapes += [Shape("3x3", batch, before, after, side), Shape("3x3, mean", batch, after, after, side)]
        shapes.append(Shape("1x1, mean", batch, before, after, side))
        side, before = side // 2, after
    return list(dict.fromkeys([*shapes, Shape("3x3", batch, before, before, 4)]))


SHAPES = {
    "sagan-128-w64": sagan_shapes(128, 64, 8),
    "sagan-128-w32": sagan_shapes(128, 32, 16),
    "sagan-32": sagan_shapes(32, 64, 64),
    "acgan-mnist": [
        Shape("double, 3x3", 64, 128, 128, 8),
        Shape("double, 3x3", 64, 128, 64, 16),
        Shape("3x3", 64, 64, 1, 32),
    ],
}


def medians(shape, count):
    """{form: median milliseconds of a forward and a backward} over `count` turns of each, after one that warms up."""
    numbers = np.random.default_rng(0)
    kernel = 3 if "3x3" in shape.kind else 1

    def tensor(*sizes):
        value = paddle.to_tensor(numbers.standard_normal(sizes, np.float32))
        value.stop_gradient = False
        return value

    x = tensor(shape.batch, shape.inputs, shape.side, shape.side)
    weight = tensor(shape.outputs, shape.inputs, kernel, kernel) / (shape.inputs * kernel**2) ** 0.5
    weight = weight.detach()
    weight.stop_gradient = False
    gradient, first, taken = None, None, {}
    for turn in range(-1, count):
        for name, form in FORMS[shape.kind].items():
            start = time.perf_counter()
            out = form(x, weight)
            gradient = paddle.ones_like(out) if gradient is None else gradient
            results = [out, *paddle.grad(out, [x, weight], gradient)]
            spent = time.perf_counter() - start
            if turn >= 0:
                taken.setdefault(name, []).append(1000 * spent)
                continue
            results = [result.numpy() for result in results]
            first = first or results
            for expected, result in zip(first, results, strict=True):
                if np.abs(expected - result).max() > 1e-4 * np.abs(expected).max():
                    sys.exit(f"{shape}: the form {name} gives another result")
    return {name: statistics.median(values) for name, values in taken.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", nargs="*", help=f"some of {', '.join(SHAPES)}; left out: all")
    parser.add_argument("--turns", type=int, default=5, help="turns of each form")
    options = parser.parse_args()
    for name in turns.chosen(parser, options, SHAPES):
        print(f"{name}\n\n| shape | forms: ms, times as fast as plain |\n|---|---|")
        for shape in SHAPES[name]:
            found = medians(shape, options.turns)
            plain = found["plain"]
            cells = [f"{form} {taken:.1f}, {plain / taken:.2f}" for form, taken in found.items()]
            size = f"{shape.kind}: {shape.batch}×{shape.inputs}→{shape.outputs} at {shape.side}"
            print(f"| {size} | {'; '.join(cells)} |", flush=True)
        print()


if __name__ == "__main__":
    main()
