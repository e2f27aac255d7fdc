"""The generators and discriminators of the ACGAN recipes (Odena, Olah, Shlens, ICML 2017, arXiv 1610.09585).

The table STACKS describes four pairs: `acgan-imagenet`, `acgan-imagenet-torch`, `acgan-cifar10` and `acgan-digits`.
Their G is a stack of transposed convolutions, their D a stack of convolutions. `acgan-mnist` and `acgan-mlp` are two
tutorials' pairs for MNIST. Widths in the code are those at `g_conv_dim` and `d_conv_dim` 64, and scale with them.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import paddle
import paddle.nn.functional as F
from paddle import nn

import operations
from layers import BatchNorm, Dropout, initialize, leaky_relu, set_values
from utils import UserError


class Stage(NamedTuple):
    """One (transposed) convolution of a stack."""

    width: int  # output channels; a generator's last stage has None: the image's
    kernel: int
    stride: int
    padding: int


class Stack(NamedTuple):
    """A generator and a discriminator. `linear`: width of G's linear layer. `bias`: whether convolutions have biases.

    `generator` and `discriminator` are tuples of `Stage`.
    """

    image_size: int
    linear: int
    generator: tuple
    discriminator: tuple
    bias: bool


STACKS = {
    "acgan-imagenet": Stack(
        image_size=128,
        linear=768,
        generator=(Stage(384, 4, 2, 0), *(Stage(width, 4, 2, 1) for width in (256, 192, 64, 32, None))),
        discriminator=tuple(Stage(16 << k, 3, 2 - k % 2, 1) for k in range(6)),
        bias=True,
    ),
    "acgan-imagenet-torch": Stack(
        image_size=128,
        linear=768,
        generator=(*(Stage(width, 5, 2, 0) for width in (384, 256, 192, 64)), Stage(None, 8, 2, 0)),
        discriminator=tuple(Stage(16 << k, 3, 2 - k % 2, 1 - k % 2) for k in range(6)),
        bias=False,
    ),
    "acgan-cifar10": Stack(
        image_size=32,
        linear=384,
        generator=(Stage(192, 4, 1, 0), *(Stage(width, 4, 2, 1) for width in (96, 48, None))),
        discriminator=tuple(Stage(16 << k, 3, 2 - k % 2, 1) for k in range(6)),
        bias=False,
    ),
    "acgan-digits": Stack(
        image_size=16,
        linear=256,
        generator=(Stage(128, 4, 1, 0), Stage(64, 4, 2, 1), Stage(None, 4, 2, 1)),
        discriminator=(Stage(32, 4, 2, 1), Stage(64, 4, 2, 1), Stage(128, 4, 2, 1)),
        bias=False,
    ),
}


def build_generator(parameters):
    """The ACGAN generator that `parameters` describe, with its initial weights."""
    return initialize(make_generator(parameters), parameters.manual_seed, "G", _weights_rule(parameters))


def build_discriminator(parameters):
    """The ACGAN discriminator that `parameters` describe, with its initial weights."""
    return initialize(make_discriminator(parameters), parameters.manual_seed, "D", _weights_rule(parameters))


def make_generator(parameters):
    """`build_generator` without the initial weights, for weights that are read from a file."""
    p = parameters
    if p.model in STACKS:
        if p.z_dim <= p.num_classes:
            raise UserError(
                f"--z_dim {p.z_dim} has no room for noise: {p.model} writes the one-hot class over the first "
                f"{p.num_classes} entries; give a larger --z_dim"
            )
        stack = STACKS[p.model]
        stages = [stage._replace(width=scaled(stage.width, p.g_conv_dim) or p.channels) for stage in stack.generator]
        linear = scaled(stack.linear, p.g_conv_dim)
        return StackGenerator(p.z_dim, p.num_classes, linear, stages, stack.bias)
    if p.model == "acgan-mnist":
        widths = [2 * p.g_conv_dim, 2 * p.g_conv_dim, p.g_conv_dim, p.channels]
        return UpsampleGenerator(p.z_dim, p.num_classes, widths, p.imsize)
    widths = [p.g_conv_dim << k for k in range(1, 5)]
    return MLPGenerator(p.z_dim, p.num_classes, p.num_classes, widths, p.imsize, p.channels)


def make_discriminator(parameters):
    """`build_discriminator` without the initial weights."""
    p = parameters
    if p.model in STACKS:
        stack = STACKS[p.model]
        stages = [stage._replace(width=scaled(stage.width, p.d_conv_dim)) for stage in stack.discriminator]
        return StackDiscriminator(p.num_classes, stages, p.imsize, p.channels, stack.bias, p.dropout, p.embed_dim)
    if p.model == "acgan-mnist":
        widths = [scaled(width, p.d_conv_dim) for width in (16, 32, 64, 128)]
        return StridedDiscriminator(p.num_classes, widths, p.imsize, p.channels, p.dropout, p.embed_dim)
    widths = [p.d_conv_dim << k for k in (3, 2, 1)]
    return MLPDiscriminator(p.num_classes, widths, p.imsize, p.channels, p.dropout, p.embed_dim)


def scaled(width, conv_dim):
    """The width at `conv_dim` of a layer that has `width` channels at 64. None stays None."""
    return width and max(1, width * conv_dim // 64)


def final_size(image_size, stages):
    """The side in pixels of the output of a discriminator's `stages`, for an image of side `image_size`."""
    size = image_size
    for stage in stages:
        size = (size + 2 * stage.padding - stage.kernel) // stage.stride + 1
    return size


def _weights_rule(parameters):
    return _tutorial_weights if parameters.model == "acgan-mnist" else _replications_weights


def _replications_weights(layer, draw):
    """The replications' initialisation: DCGAN's for convolutions and batch norms, PyTorch's default for the rest.

    Convolutions N(0, 0.02), batch norm scales N(1, 0.02) (Radford et al., ICLR 2016), embeddings N(0, 1), weights and
    biases of linear layers uniform in ±1/sqrt(in).
    """
    if isinstance(layer, nn.Embedding):
        set_values(layer.weight, draw("weight").standard_normal(layer.weight.shape))
    elif isinstance(layer, nn.Linear):
        bound = 1 / math.sqrt(layer.weight.shape[0])
        set_values(layer.weight, draw("weight").uniform(-bound, bound, layer.weight.shape))
        set_values(layer.bias, draw("bias").uniform(-bound, bound, layer.bias.shape))
    else:
        _tutorial_weights(layer, draw)


def _tutorial_weights(layer, draw):
    """The step-by-step tutorial's initialisation: every weight N(0, 0.02), batch norm scales N(1, 0.02), biases 0."""
    if isinstance(layer, BatchNorm):
        set_values(layer.weight, 1 + 0.02 * draw("weight").standard_normal(layer.weight.shape))
    elif isinstance(layer, (nn.Conv2D, nn.Conv2DTranspose, nn.Embedding, nn.Linear)):
        set_values(layer.weight, 0.02 * draw("weight").standard_normal(layer.weight.shape))


def _conv(layer, x, biased=True):
    """The convolution `layer` of x, in the form that is fast on this device. Without `biased` its bias is not added."""
    return operations.conv(x, layer.weight, layer.bias if biased else None, layer._padding, layer._stride)


def _conv_transpose(layer, x, biased=True):
    return operations.conv_transpose(x, layer.weight, layer.bias if biased else None, layer._padding, layer._stride)


class Heads(nn.Layer):
    """The end of a discriminator: features [N, …] to (adversarial logits [N], input of the class loss).

    The class loss reads class logits [N, num_classes]. With `embed_dim`, `losses.d2d_ce` reads embeddings of the images
    [N, embed_dim] and of the classes [num_classes, embed_dim], which are called proxies.
    """

    def __init__(self, features, num_classes, embed_dim=None):
        super().__init__()
        self.adversarial = nn.Linear(features, 1)
        if embed_dim:
            self.class_linear, self.embedding = nn.Linear(features, embed_dim), nn.Embedding(num_classes, embed_dim)
        else:
            self.classes = nn.Linear(features, num_classes)
        self.embed_dim = embed_dim

    def forward(self, x):
        x = x.reshape([x.shape[0], -1])  # flatten has no second derivative in Paddle
        score = self.adversarial(x).squeeze(1)
        return score, (self.class_linear(x), self.embedding.weight) if self.embed_dim else self.classes(x)


class StackGenerator(nn.Layer):
    """Noise [N, z_dim] and labels int64 [N] to images [N, C, H, W].

    The one-hot class replaces the first `num_classes` entries of the noise. A linear layer gives `linear` features at
    1x1. Transposed convolutions follow, with batch norm and ReLU between them.
    """

    def __init__(self, z_dim, num_classes, linear, stages, bias):
        super().__init__()
        self.num_classes = num_classes
        self.linear = nn.Linear(z_dim, linear)
        inputs = [linear, *(stage.width for stage in stages)]
        self.convs = nn.LayerList(
            [
                nn.Conv2DTranspose(width, *stage, bias_attr=None if bias else False)
                for width, stage in zip(inputs, stages, strict=False)
            ]
        )
        self.norms = nn.LayerList([BatchNorm(stage.width) for stage in stages[:-1]])

    def forward(self, z, labels):
        one_hot = F.one_hot(labels, self.num_classes).astype(z.dtype)
        out = self.linear(paddle.concat([one_hot, z[:, self.num_classes :]], axis=1)).unsqueeze([2, 3])
        for conv, norm in zip(self.convs, self.norms, strict=False):
            out = F.relu_(norm(_conv_transpose(conv, out, biased=False), conv.bias))
        return paddle.tanh(_conv_transpose(self.convs[-1], out))


class StackDiscriminator(nn.Layer):
    """Images [N, channels, S, S] and (unread) labels to the two heads.

    Each convolution is followed by batch norm (except the first), leaky ReLU 0.2 and dropout.
    """

    def __init__(self, num_classes, stages, image_size, channels, bias, dropout, embed_dim=None):
        super().__init__()
        inputs = [channels, *(stage.width for stage in stages)]
        self.convs = nn.LayerList(
            [
                nn.Conv2D(width, *stage, bias_attr=None if bias else False)
                for width, stage in zip(inputs, stages, strict=False)
            ]
        )
        self.norms = nn.LayerList([BatchNorm(stage.width) for stage in stages[1:]])
        self.dropout = Dropout(dropout)
        self.heads = Heads(stages[-1].width * final_size(image_size, stages) ** 2, num_classes, embed_dim)

    def forward(self, images, labels):
        out = images
        for index, conv in enumerate(self.convs):
            out = _conv(conv, out, biased=index == 0)
            if index > 0:
                out = self.norms[index - 1](out, conv.bias)
            out = self.dropout(leaky_relu(out))
        return self.heads(out)


class UpsampleGenerator(nn.Layer):
    """The step-by-step tutorial's generator: noise [N, z_dim] and labels int64 [N] to images [N, C, S, S].

    Its input is the noise times a class embedding. `widths`: the channels of the linear layer's 2D output, of the two
    hidden convolutions and of the image. The hidden batch norms have epsilon 0.8, as published.
    """

    def __init__(self, z_dim, num_classes, widths, image_size):
        super().__init__()
        self.size = image_size // 4
        self.embedding = nn.Embedding(num_classes, z_dim)
        self.linear = nn.Linear(z_dim, widths[0] * self.size**2)
        self.norm = BatchNorm(widths[0])
        self.convs = nn.LayerList([nn.Conv2D(*pair, 3, padding=1) for pair in pairwise(widths)])
        self.norms = nn.LayerList([BatchNorm(width, epsilon=0.8) for width in widths[1:-1]])

    def forward(self, z, labels):
        out = self.linear(self.embedding(labels) * z).reshape([z.shape[0], -1, self.size, self.size])
        out = self.norm(out)
        for conv, norm in zip(self.convs, self.norms, strict=False):
            out = leaky_relu(norm(operations.upsample_conv(out, conv.weight), conv.bias))
        return paddle.tanh(_conv(self.convs[-1], out))


class StridedDiscriminator(nn.Layer):
    """The step-by-step tutorial's discriminator: images [N, channels, S, S] and (unread) labels to the two heads.

    Each 3x3 convolution of stride 2 is followed by leaky ReLU 0.2, spatial dropout and batch norm of epsilon 0.8
    (except the first).
    """

    def __init__(self, num_classes, widths, image_size, channels, dropout, embed_dim=None):
        super().__init__()
        self.convs = nn.LayerList(
            [nn.Conv2D(*pair, 3, stride=2, padding=1) for pair in zip([channels, *widths[:-1]], widths, strict=True)]
        )
        self.norms = nn.LayerList([BatchNorm(width, epsilon=0.8) for width in widths[1:]])
        self.dropout = Dropout(dropout, spatial=True)
        self.heads = Heads(widths[-1] * math.ceil(image_size / 2 ** len(widths)) ** 2, num_classes, embed_dim)

    def forward(self, images, labels):
        out = images
        for index, conv in enumerate(self.convs):
            out = self.dropout(leaky_relu(_conv(conv, out)))
            if index > 0:
                out = self.norms[index - 1](out)
        return self.heads(out)


class MLPGenerator(nn.Layer):
    """The tutorial article's generator: noise [N, z_dim] and labels int64 [N] to images [N, C, S, S].

    Its input is a class embedding and the noise, concatenated. Batch norms have epsilon 0.8, as published.
    """

    def __init__(self, z_dim, num_classes, embedding_dim, widths, image_size, channels):
        super().__init__()
        self.image_shape = [channels, image_size, image_size]
        self.embedding = nn.Embedding(num_classes, embedding_dim)
        sizes = [embedding_dim + z_dim, *widths, math.prod(self.image_shape)]
        self.linears = nn.LayerList([nn.Linear(*pair) for pair in pairwise(sizes)])
        self.norms = nn.LayerList([BatchNorm(width, epsilon=0.8) for width in widths[1:]])

    def forward(self, z, labels):
        out = paddle.concat([self.embedding(labels), z], axis=1)
        out = leaky_relu(self.linears[0](out))
        for index, norm in enumerate(self.norms, start=1):
            out = leaky_relu(norm(self.linears[index](out)))
        return paddle.tanh(self.linears[-1](out)).reshape([z.shape[0], *self.image_shape])


class MLPDiscriminator(nn.Layer):
    """The tutorial article's discriminator: images [N, channels, S, S] and (unread) labels to the two heads.

    Each linear layer is followed by dropout (except the first) and leaky ReLU 0.2.
    """

    def __init__(self, num_classes, widths, image_size, channels, dropout, embed_dim=None):
        super().__init__()
        sizes = [channels * image_size**2, *widths]
        self.linears = nn.LayerList([nn.Linear(*pair) for pair in zip(sizes[:-1], widths, strict=True)])
        self.dropout = Dropout(dropout)
        self.heads = Heads(widths[-1], num_classes, embed_dim)

    def forward(self, images, labels):
        out = leaky_relu(self.linears[0](images.reshape([images.shape[0], -1])))
        for linear in self.linears[1:]:
            out = leaky_relu(self.dropout(linear(out)))
        return self.heads(out)
