"""The SAGAN generator and discriminator (Zhang et al., ICML 2019, arXiv 1805.08318).

`--model sagan`, for 16 to 256 pixels: at 128 pixels the widths are the paper's. Smaller images use fewer of the same
blocks. For an image of size S, a layer of G at resolution r has `conv_dim * S / r` channels. D mirrors G.

`--model sagan-cifar10`, for 32 pixels: the residual networks of *Spectral Normalization for GANs* (Miyato et al., ICLR
2018) for CIFAR-10, with SAGAN's attention. All blocks of a network have the same width.
"""

import math
from itertools import pairwise

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from layers import BatchNorm, ConditionalBatchNorm, SelfAttention, initialize, recomputed, set_values
from spectral_norm import SNConv2D, SNEmbedding, SNLinear, SpectrallyNormalized


def build_generator(parameters):
    """The SAGAN generator that `parameters` describe, with its initial weights."""
    return initialize(make_generator(parameters), parameters.manual_seed, "G", _xavier)


def build_discriminator(parameters):
    """The SAGAN discriminator that `parameters` describe, with its initial weights."""
    return initialize(make_discriminator(parameters), parameters.manual_seed, "D", _xavier)


def make_generator(parameters):
    """`build_generator` without the initial weights, for weights that are read from a file."""
    p = parameters
    resolutions = [2**k for k in range(3, p.imsize.bit_length())]  # after each block
    if p.model == "sagan-cifar10":
        widths = [p.g_conv_dim] * (len(resolutions) + 1)
    else:
        # 4x4 and 8x8 are equally wide. At 128 pixels the widths are 16c, 16c, 8c, 4c, 2c, c.
        widths = [p.g_conv_dim * p.imsize // resolution for resolution in (8, *resolutions)]
    return Generator(p.z_dim, p.num_classes, widths, resolutions.index(p.attention_size), p.channels, p.recompute)


def make_discriminator(parameters):
    """`build_discriminator` without the initial weights."""
    p = parameters
    if p.model == "sagan-cifar10":
        resolutions, widths = [16, 8, 8, 8], [p.d_conv_dim] * 4
    else:
        # Each block halves the resolution, down to 4x4. The last one keeps it. At 128 pixels the widths are c, 2c, 4c,
        # 8c, 16c, 16c.
        resolutions = [*(p.imsize >> k for k in range(1, p.imsize.bit_length() - 2)), 4]
        widths = [p.d_conv_dim * p.imsize // (2 * resolution) for resolution in resolutions]
    return Discriminator(
        p.num_classes,
        widths,
        halvings=len(set(resolutions)),
        attended=resolutions.index(p.attention_size),
        channels=p.channels,
        embed_dim=p.embed_dim,
        twice_differentiable=p.adv_loss == "wgan_gp",
        relu_shortcut=p.relu_shortcut,
        recompute=p.recompute,
    )


def _xavier(layer, draw):
    """Xavier uniform weights; class scales 1 and shifts 0. Power iterations start at random, and 15 are run here."""
    if isinstance(layer, SpectrallyNormalized):
        fan_in, fan_out = layer.fans()
        bound = math.sqrt(6 / (fan_in + fan_out))
        set_values(layer.weight_orig, draw("weight_orig").uniform(-bound, bound, layer.weight_orig.shape))
        for name in ("weight_u", "weight_v"):
            vector = draw(name).standard_normal(getattr(layer, name).shape)
            set_values(getattr(layer, name), vector / math.sqrt(vector @ vector))
        for _ in range(15):  # evaluation does not iterate, so the vectors have to fit this weight already
            layer.weight()
    elif isinstance(layer, ConditionalBatchNorm):
        scale_and_shift = np.repeat([1.0, 0.0], layer.features)
        set_values(layer.embed.weight, np.broadcast_to(scale_and_shift, layer.embed.weight.shape))


class GeneratorBlock(nn.Layer):
    """Residual block that doubles the resolution: [N, I, H, W] and labels [N] to [N, O, 2H, 2W]."""

    def __init__(self, in_channels, out_channels, num_classes):
        super().__init__()
        self.cond_bn1 = ConditionalBatchNorm(in_channels, num_classes)
        self.conv1 = SNConv2D(in_channels, out_channels, 3)
        self.cond_bn2 = ConditionalBatchNorm(out_channels, num_classes)
        self.conv2 = SNConv2D(out_channels, out_channels, 3)
        self.shortcut = SNConv2D(in_channels, out_channels, 1)

    def forward(self, x, labels):
        out = self.conv1.upsampled(F.relu_(self.cond_bn1(x, labels)), biased=False)
        out = self.conv2(F.relu_(self.cond_bn2(out, labels, self.conv1.bias)))
        return out.add_(self.shortcut.upsampled(x))


class Generator(nn.Layer):
    """Noise [N, z_dim] and labels int64 [N] to images [N, channels, S, S] in [-1, 1].

    `widths`: the channels at 4x4, and after each block, which doubles the resolution. So S is 4 * 2^(number of blocks).
    `attended`: the index of the block that the attention follows. `recompute`: training runs each block again in the
    backward pass, to save memory.
    """

    def __init__(self, z_dim, num_classes, widths, attended, channels=3, recompute=False):
        super().__init__()
        self.recompute = recompute
        self.linear = SNLinear(z_dim, widths[0] * 16)
        self.blocks = nn.LayerList([GeneratorBlock(*pair, num_classes) for pair in pairwise(widths)])
        self.attended = attended
        self.attention = SelfAttention(widths[attended + 1])
        self.bn = BatchNorm(widths[-1], momentum=0.9999)
        self.conv = SNConv2D(widths[-1], channels, 3)

    def forward(self, z, labels):
        out = self.linear(z).reshape([z.shape[0], -1, 4, 4])
        for index, block in enumerate(self.blocks):
            out = recomputed(block, out, labels) if self.recompute else block(out, labels)
            if index == self.attended:
                out = self.attention(out)
        return paddle.tanh(self.conv(F.relu_(self.bn(out))))


class DiscriminatorBlock(nn.Layer):
    """Residual block: [N, I, H, W] to [N, O, H/2, W/2], or to [N, O, H, W] without `downsample`.

    `first`: the input is an image, so the first convolution has no ReLU before it. A block that keeps both resolution
    and width has an identity shortcut. `relu_shortcut`: the shortcut carries relu(x) instead of x. This is only for
    checkpoints of the published PyTorch replication, which changes x by an in-place ReLU.
    """

    def __init__(self, in_channels, out_channels, first=False, downsample=True, relu_shortcut=False):
        super().__init__()
        self.first, self.downsample, self.relu_shortcut = first, downsample, relu_shortcut
        self.conv1 = SNConv2D(in_channels, out_channels, 3)
        self.conv2 = SNConv2D(out_channels, out_channels, 3)
        if downsample or in_channels != out_channels:
            self.shortcut = SNConv2D(in_channels, out_channels, 1)

    def forward(self, x):
        activated = x if self.first else F.relu(x)
        out = F.relu_(self.conv1(activated))
        carried = activated if self.relu_shortcut else x
        if not self.downsample:
            return self.conv2(out) + carried
        # The order of pooling and the shortcut's 1x1 convolution does not matter, so all blocks use the cheaper one.
        return self.conv2.pooled(out) + self.shortcut.pooled(carried)


class Discriminator(nn.Layer):
    """Images [N, channels, S, S] and labels int64 [N] to (adversarial logits [N], input of the class loss, or None).

    `widths`: the channels after each block. The first `halvings` blocks halve the resolution. `attended`: the index of
    the block that the attention follows. `recompute` is as in `Generator`.

    Without `embed_dim` it is the projection discriminator (Miyato and Koyama, ICLR 2018): a linear score plus the inner
    product of the features with the class's embedding. It has no class loss. With `embed_dim` it is the discriminator
    of ReACGAN (Kang et al., NeurIPS 2021): the score is linear and does not depend on the labels. `losses.d2d_ce` reads
    embeddings of the images [N, embed_dim] and of the classes [num_classes, embed_dim], which are called proxies.
    """

    def __init__(
        self,
        num_classes,
        widths,
        halvings,
        attended,
        channels=3,
        embed_dim=None,
        twice_differentiable=False,
        relu_shortcut=False,
        recompute=False,
    ):
        super().__init__()
        self.recompute = recompute
        self.blocks = nn.LayerList([DiscriminatorBlock(channels, widths[0], first=True)])
        for index, pair in enumerate(pairwise(widths), start=1):
            self.blocks.append(DiscriminatorBlock(*pair, downsample=index < halvings, relu_shortcut=relu_shortcut))
        self.attended = attended
        self.attention = SelfAttention(widths[attended], twice_differentiable)
        self.linear = SNLinear(widths[-1], 1)
        self.class_linear = SNLinear(widths[-1], embed_dim) if embed_dim else None
        self.embedding = SNEmbedding(num_classes, embed_dim or widths[-1])

    def forward(self, images, labels):
        out = images
        for index, block in enumerate(self.blocks):
            out = recomputed(block, out) if self.recompute else block(out)
            if index == self.attended:
                out = self.attention(out)
        features = F.relu(out).sum([2, 3])
        score = self.linear(features).squeeze(1)
        if self.class_linear:
            return score, (self.class_linear(features), self.embedding.weight())
        return score + (self.embedding(labels) * features).sum(1), None
