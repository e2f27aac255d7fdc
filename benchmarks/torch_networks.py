"""The reference networks and their training step in plain PyTorch, as the replications write them.

`networks` makes a pair of networks, and `Training` does steps. As in the replications, the generated images of D's
update are detached after the forward, and G's update also computes gradients of D's weights, which D's next update
drops. Names of layers are the replications'. This needs PyTorch, not Paddle. `torch_alignment.py` checks it.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm


class ConditionalBatchNorm(nn.Module):
    """Batch norm with a scale and a shift per class. `embed` holds the scales, then the shifts."""

    def __init__(self, width, classes):
        super().__init__()
        self.bn = nn.BatchNorm2d(width, momentum=0.001, affine=False)
        self.embed = nn.Embedding(classes, 2 * width)
        self.embed.weight.data[:, :width], self.embed.weight.data[:, width:] = 1, 0

    def forward(self, x, y):
        scale, shift = self.embed(y).chunk(2, 1)
        return scale[:, :, None, None] * self.bn(x) + shift[:, :, None, None]


class SelfAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.snconv1x1_theta = spectral_norm(nn.Conv2d(width, max(1, width // 8), 1))
        self.snconv1x1_phi = spectral_norm(nn.Conv2d(width, max(1, width // 8), 1))
        self.snconv1x1_g = spectral_norm(nn.Conv2d(width, width // 2, 1))
        self.snconv1x1_attn = spectral_norm(nn.Conv2d(width // 2, width, 1))
        self.maxpool = nn.MaxPool2d(2)
        self.softmax = nn.Softmax(-1)
        self.sigma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        n, _, h, w = x.shape
        theta = self.snconv1x1_theta(x).view(n, -1, h * w)
        phi = self.maxpool(self.snconv1x1_phi(x)).view(n, -1, h * w // 4)
        attention = self.softmax(torch.bmm(theta.permute(0, 2, 1), phi))
        values = self.maxpool(self.snconv1x1_g(x)).view(n, -1, h * w // 4)
        attended = torch.bmm(values, attention.permute(0, 2, 1)).view(n, -1, h, w)
        return x + self.sigma * self.snconv1x1_attn(attended)


class GeneratorBlock(nn.Module):
    def __init__(self, before, width, classes):
        super().__init__()
        self.cond_bn1 = ConditionalBatchNorm(before, classes)
        self.snconv2d1 = spectral_norm(nn.Conv2d(before, width, 3, padding=1))
        self.cond_bn2 = ConditionalBatchNorm(width, classes)
        self.snconv2d2 = spectral_norm(nn.Conv2d(width, width, 3, padding=1))
        self.snconv2d0 = spectral_norm(nn.Conv2d(before, width, 1))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x, y):
        out = self.relu(self.cond_bn1(x, y))
        out = self.snconv2d1(F.interpolate(out, scale_factor=2, mode="nearest"))
        out = self.snconv2d2(self.relu(self.cond_bn2(out, y)))
        return out + self.snconv2d0(F.interpolate(x, scale_factor=2, mode="nearest"))


class Generator(nn.Module):
    """SAGAN's generator (Zhang et al., ICML 2019), for images of 32 to 256 pixels."""

    def __init__(self, z_dim, classes, width, size, attention_size, channels):
        super().__init__()
        resolutions = [2**k for k in range(3, size.bit_length())]
        widths = [width * size // 8, *(width * size // resolution for resolution in resolutions)]
        self.snlinear0 = spectral_norm(nn.Linear(z_dim, widths[0] * 16))
        self.attended = resolutions.index(attention_size) + 1
        self.names = [f"block{number}" for number in range(1, len(widths))]
        for name, pair in zip(self.names, pairwise(widths), strict=True):
            setattr(self, name, GeneratorBlock(*pair, classes))
        self.self_attn = SelfAttention(widths[self.attended])
        self.bn = nn.BatchNorm2d(width, momentum=0.0001)
        self.relu = nn.ReLU(inplace=True)
        self.snconv2d1 = spectral_norm(nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, z, y):
        out = self.snlinear0(z).view(len(z), -1, 4, 4)
        for number, name in enumerate(self.names, start=1):
            out = getattr(self, name)(out, y)
            if number == self.attended:
                out = self.self_attn(out)
        return torch.tanh(self.snconv2d1(self.relu(self.bn(out))))


class DiscriminatorBlock(nn.Module):
    def __init__(self, before, width, first=False):
        super().__init__()
        self.first = first
        self.snconv2d1 = spectral_norm(nn.Conv2d(before, width, 3, padding=1))
        self.snconv2d2 = spectral_norm(nn.Conv2d(width, width, 3, padding=1))
        self.snconv2d0 = spectral_norm(nn.Conv2d(before, width, 1))
        self.downsample = nn.AvgPool2d(2)

    def forward(self, x, down=True):
        out = self.snconv2d1(x if self.first else F.relu(x))
        out = self.snconv2d2(F.relu(out, inplace=True))
        if not down:
            return out + x
        if self.first:
            return self.downsample(out) + self.snconv2d0(self.downsample(x))
        return self.downsample(out) + self.downsample(self.snconv2d0(x))


class Discriminator(nn.Module):
    """SAGAN's projection discriminator, for images of 32 to 256 pixels."""

    def __init__(self, classes, width, size, attention_size, channels):
        super().__init__()
        resolutions = [size >> k for k in range(1, size.bit_length() - 2)]
        widths = [width * size // (2 * resolution) for resolution in resolutions]
        self.attended = resolutions.index(attention_size)
        self.opt_block1 = DiscriminatorBlock(channels, widths[0], first=True)
        self.names = [f"block{number}" for number in range(1, len(widths) + 1)]
        for name, pair in zip(self.names, pairwise([*widths, widths[-1]]), strict=True):
            setattr(self, name, DiscriminatorBlock(*pair))
        self.self_attn = SelfAttention(widths[self.attended])
        self.snlinear1 = spectral_norm(nn.Linear(widths[-1], 1))
        self.sn_embedding1 = spectral_norm(nn.Embedding(classes, widths[-1]))

    def forward(self, x, y):
        out = self.opt_block1(x)
        for number, name in enumerate(self.names):
            if number == self.attended:
                out = self.self_attn(out)
            out = getattr(self, name)(out, down=name != self.names[-1])
        features = F.relu(out, inplace=True).sum((2, 3))
        return self.snlinear1(features).squeeze(1) + (features * self.sn_embedding1(y)).sum(1), None


class TutorialGenerator(nn.Module):
    """The step-by-step tutorial's generator for MNIST."""

    def __init__(self, z_dim, classes, widths, size):
        super().__init__()
        self.size = size // 4
        self.label_emb = nn.Embedding(classes, z_dim)
        self.l1 = nn.Sequential(nn.Linear(z_dim, widths[0] * self.size**2))
        self.conv_blocks = nn.Sequential(
            nn.BatchNorm2d(widths[0]),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(widths[0], widths[1], 3, stride=1, padding=1),
            nn.BatchNorm2d(widths[1], 0.8),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(widths[1], widths[2], 3, stride=1, padding=1),
            nn.BatchNorm2d(widths[2], 0.8),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(widths[2], widths[3], 3, stride=1, padding=1),
            nn.Tanh(),
        )

    def forward(self, z, y):
        out = self.l1(torch.mul(self.label_emb(y), z))
        return self.conv_blocks(out.view(len(z), -1, self.size, self.size))


class TutorialDiscriminator(nn.Module):
    """The step-by-step tutorial's discriminator for MNIST."""

    def __init__(self, classes, channels, widths, size, dropout):
        super().__init__()
        layers = []
        for before, width in pairwise([channels, *widths]):
            norm = [nn.BatchNorm2d(width, 0.8)] if layers else []
            layers += [nn.Conv2d(before, width, 3, 2, 1), nn.LeakyReLU(0.2, inplace=True), nn.Dropout2d(dropout), *norm]
        self.conv_blocks = nn.Sequential(*layers)
        features = widths[-1] * math.ceil(size / 2 ** len(widths)) ** 2
        self.adv_layer = nn.Sequential(nn.Linear(features, 1))
        self.aux_layer = nn.Sequential(nn.Linear(features, classes))

    def forward(self, x, y):
        out = self.conv_blocks(x).view(len(x), -1)
        return self.adv_layer(out).squeeze(1), self.aux_layer(out)


class Stack(NamedTuple):
    """The ACGAN replications' networks. `up`, `down`: kernel, stride, padding of G's and D's convolutions."""

    g_widths: tuple  # of the linear layer and of all convolutions but the last
    up: tuple
    d_widths: tuple
    down: tuple
    bias: bool


D_WIDTHS = (16, 32, 64, 128, 256, 512)
DOWN = ((3, 2, 1), (3, 1, 1)) * 3
STACKS = {
    "acgan-imagenet": Stack((768, 384, 256, 192, 64, 32), ((4, 2, 0), *[(4, 2, 1)] * 5), D_WIDTHS, DOWN, True),
    "acgan-imagenet-torch": Stack(
        (768, 384, 256, 192, 64), (*[(5, 2, 0)] * 4, (8, 2, 0)), D_WIDTHS, ((3, 2, 1), (3, 1, 0)) * 3, False
    ),
    "acgan-cifar10": Stack((384, 192, 96, 48), ((4, 1, 0), *[(4, 2, 1)] * 3), D_WIDTHS, DOWN, False),
    # The network of `make demo`. It has no replication.
    "acgan-digits": Stack((256, 128, 64), ((4, 1, 0), *[(4, 2, 1)] * 2), (32, 64, 128), [(4, 2, 1)] * 3, False),
}


class StackGenerator(nn.Module):
    def __init__(self, z_dim, classes, widths, up, bias, channels):
        super().__init__()
        self.classes = classes
        self.fc1 = nn.Linear(z_dim, widths[0])
        self.names = [f"tconv{number}" for number in range(2, 2 + len(up))]
        for name, (before, width), shape in zip(self.names, pairwise([*widths, channels]), up, strict=True):
            conv = nn.ConvTranspose2d(before, width, *shape, bias=bias)
            rest = [nn.Tanh()] if name == self.names[-1] else [nn.BatchNorm2d(width), nn.ReLU(True)]
            setattr(self, name, nn.Sequential(conv, *rest))

    def forward(self, z, y):
        out = torch.cat([F.one_hot(y, self.classes).to(z.dtype), z[:, self.classes :]], dim=1)
        out = self.fc1(out)[:, :, None, None]
        for name in self.names:
            out = getattr(self, name)(out)
        return out


class StackDiscriminator(nn.Module):
    def __init__(self, classes, channels, widths, down, bias, size, dropout):
        super().__init__()
        self.names = [f"conv{number}" for number in range(1, 1 + len(widths))]
        for index, (before, width) in enumerate(pairwise([channels, *widths])):
            kernel, stride, padding = down[index]
            conv = nn.Conv2d(before, width, kernel, stride, padding, bias=bias)
            norm = [nn.BatchNorm2d(width)] if index else []
            rest = nn.LeakyReLU(0.2, inplace=True), nn.Dropout(dropout, inplace=False)
            setattr(self, self.names[index], nn.Sequential(conv, *norm, *rest))
            size = (size + 2 * padding - kernel) // stride + 1
        self.fc_dis = nn.Linear(widths[-1] * size**2, 1)
        self.fc_aux = nn.Linear(widths[-1] * size**2, classes)

    def forward(self, x, y):
        for name in self.names:
            x = getattr(self, name)(x)
        x = x.view(len(x), -1)
        return self.fc_dis(x).squeeze(1), self.fc_aux(x)


def networks(p, g_widths=None, d_widths=None):
    """(G, D) of the settings `p`, a dictionary of the options of `Parameters` and of `channels`.

    `g_widths`, `d_widths`: an ACGAN's widths, instead of those that follow from `g_conv_dim` and `d_conv_dim`.
    """
    z_dim, classes, size, channels = p["z_dim"], p["num_classes"], p["imsize"], p["channels"]
    if p["model"] == "sagan":
        G = Generator(z_dim, classes, p["g_conv_dim"], size, p["attention_size"], channels)
        D = Discriminator(classes, p["d_conv_dim"], size, p["attention_size"], channels)
        for layer in (*G.modules(), *D.modules()):
            if hasattr(layer, "weight_orig"):
                nn.init.xavier_uniform_(layer.weight_orig)
        return G, D
    if p["model"] == "acgan-mnist":
        g_widths = g_widths or [2 * p["g_conv_dim"], 2 * p["g_conv_dim"], p["g_conv_dim"], channels]
        d_widths = d_widths or [width * p["d_conv_dim"] // 64 for width in D_WIDTHS[:4]]
        G = TutorialGenerator(z_dim, classes, g_widths, size)
        return G, TutorialDiscriminator(classes, channels, d_widths, size, p["dropout"])
    stack = STACKS[p["model"]]
    g_widths = g_widths or [width * p["g_conv_dim"] // 64 for width in stack.g_widths]
    d_widths = d_widths or [width * p["d_conv_dim"] // 64 for width in stack.d_widths]
    G = StackGenerator(z_dim, classes, g_widths, stack.up, stack.bias, channels)
    return G, StackDiscriminator(classes, channels, d_widths, stack.down, stack.bias, size, p["dropout"])


class Training:
    """Trains a pair (G, D) by the settings `p`. An update returns its losses as tensors, by name."""

    def __init__(self, p, G, D):
        self.p, self.G, self.D = p, G, D
        betas = p["beta1"], p["beta2"]
        self.g_optimizer = torch.optim.Adam(G.parameters(), p["g_lr"], betas)
        self.d_optimizer = torch.optim.Adam(D.parameters(), p["d_lr"], betas)

    def step(self, images, labels):
        """One update of D on uint8 images [N, C, H, W] and int64 labels [N], and one of G."""
        n, z_dim, classes = len(images), self.p["z_dim"], self.p["num_classes"]
        fake_labels = labels if self.p["model"] == "sagan" else torch.randint(classes, (n,))
        self.update_d(images / 127.5 - 1, labels, torch.randn(n, z_dim), fake_labels)
        self.update_g(torch.randn(n, z_dim), torch.randint(classes, (n,)))

    def update_d(self, images, labels, z, fake_labels, alpha=None):
        real, real_classes = self.D(images, labels)
        fake_images = self.G(z, fake_labels).detach()
        fake, fake_classes = self.D(fake_images, fake_labels)
        loss = self.p["adv_loss"]
        if loss == "hinge":
            losses = {"real": F.relu(1 - real).mean(), "fake": F.relu(1 + fake).mean()}
        elif loss == "wgan_gp":
            mixed = (alpha * images + (1 - alpha) * fake_images).requires_grad_()
            (slope,) = torch.autograd.grad(self.D(mixed, labels)[0].sum(), mixed, create_graph=True)
            losses = {"real": -real.mean(), "fake": fake.mean()}
            losses["penalty"] = self.p["lambda_gp"] * ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
        else:
            losses = {"real": cross_entropy(real, 1.0), "fake": cross_entropy(fake, 0.0)}
        if real_classes is not None:
            losses["real_class"] = self.p["class_loss_weight"] * F.cross_entropy(real_classes, labels)
            losses["fake_class"] = self.p["class_loss_weight"] * F.cross_entropy(fake_classes, fake_labels)
        return self._update(self.d_optimizer, losses)

    def update_g(self, z, labels):
        logits, classes = self.D(self.G(z, labels), labels)
        losses = {"g": cross_entropy(logits, 1.0) if self.p["adv_loss"] == "dcgan" else -logits.mean()}
        if classes is not None:
            losses["g_class"] = self.p["class_loss_weight"] * F.cross_entropy(classes, labels)
        return self._update(self.g_optimizer, losses)

    @staticmethod
    def _update(optimizer, losses):
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        return losses


def cross_entropy(logits, target):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
