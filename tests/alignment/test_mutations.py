"""Alignment finds mistakes: each mutant breaks one thing in the networks or the training, and a figure disagrees.

`pytest -s tests/alignment/test_mutations.py` prints the table of docs/alignment.md.
"""

import contextlib
import dataclasses
from pathlib import Path

import paddle
import paddle.nn.functional as F
import pytest

import acgan_models
import layers
import losses
import operations
import sagan_models
import spectral_norm
import trainer
from alignment import networks
from alignment.fixture import Fixture, read
from layers import BatchNorm, ConditionalBatchNorm, SelfAttention
from processes.groups import Alone
from spectral_norm import SNConv2D, SpectrallyNormalized

FIXTURES = Path(__file__).parents[1] / "fixtures"
CIFAR, REACGAN = "sagan_cifar10", "reacgan_cifar10"
SAGAN, PENALTY = "sagan_hinge", "sagan_wgan_gp"
CIFAR10, MNIST, MLP = "acgan_cifar10_narrow", "acgan_mnist_narrow", "acgan_mlp_narrow"
MUTANTS = {}


def mutant(name, fixture, caught):
    """Register a function of `patch` (pytest's monkeypatch) as a mutant.

    `caught`: the stage and the start of the first quantity that disagrees.
    """

    def register(function):
        MUTANTS[name] = (fixture, caught, function)
        return function

    return register


def wrap(patch, owner, name, around):
    """Replace `owner.name` by `around(original, *arguments)`."""
    original = getattr(owner, name)
    patch.setattr(owner, name, lambda *args, **kwargs: around(original, *args, **kwargs))


def replace_paddle(patch, owner, **changes):
    """Give the module `owner` its own `paddle`, with `changes`."""

    class Paddle:
        def __getattr__(self, name):
            return changes[name] if name in changes else getattr(paddle, name)

    patch.setattr(owner, "paddle", Paddle())


def change_parameters(patch, **changes):
    wrap(
        patch,
        networks,
        "parameters",
        lambda original, *args: dataclasses.replace(p := original(*args), **{k: f(p) for k, f in changes.items()}),
    )


@mutant("spectral norm iterates in evaluation too", SAGAN, "forward images")
def _(patch):
    def always(original, self):
        training, self.training = self.training, True
        weight = original(self)
        self.training = training
        return weight

    wrap(patch, SpectrallyNormalized, "weight", always)


@mutant("spectral norm does not iterate in training", SAGAN, "bp_align D")
def _(patch):
    def never(original, self):
        training, self.training = self.training, False
        weight = original(self)
        self.training = training
        return weight

    wrap(patch, SpectrallyNormalized, "weight", never)


@mutant("the power iteration starts from v, as if the matrix were its transpose", SAGAN, "bp_align D")
def _(patch):
    def weight(self):
        matrix = self.weight_orig.t() if self.transposed else self.weight_orig.flatten(1)
        if self.training:
            with paddle.no_grad():
                u = spectral_norm._unit(paddle.mv(matrix, self.weight_v))
                v = spectral_norm._unit(paddle.mv(matrix.t(), u))
                paddle.assign(u, self.weight_u)
                paddle.assign(v, self.weight_v)
        u, v = self.weight_u.clone(), self.weight_v.clone()
        return self.weight_orig / paddle.dot(u, paddle.mv(matrix, v))

    patch.setattr(SpectrallyNormalized, "weight", weight)


@mutant("sigma is a constant to the gradient", SAGAN, "bp_align D")
def _(patch):
    def weight(original, self):
        normalised = original(self)
        return self.weight_orig * (normalised / self.weight_orig).detach()

    wrap(patch, SpectrallyNormalized, "weight", weight)


@mutant("batch-norm momentum is the share of the new", SAGAN, "train_align G")
def _(patch):
    wrap(
        patch,
        BatchNorm,
        "__init__",
        lambda original, self, features, momentum=0.9, epsilon=1e-5, affine=True: original(
            self, features, 1 - momentum, epsilon, affine
        ),
    )


@mutant("batch-norm momentum is 0.999 in the last layer too", SAGAN, "train_align G bn")
def _(patch):
    wrap(
        patch,
        sagan_models,
        "BatchNorm",
        lambda original, features, momentum=0.9, **rest: original(features, 0.999, **rest),
    )


@mutant("the running variance is the biased one", SAGAN, "train_align G")
def _(patch):
    def forward(original, self, x, *args):
        before = self._variance.clone()
        out = original(self, x, *args)
        if self.training:
            count = x.size // x.shape[1]
            new = (self._variance - self.momentum * before) * ((count - 1) / count)
            paddle.assign(self.momentum * before + new, self._variance)
        return out

    wrap(patch, BatchNorm, "forward", forward)


@mutant("generated images for D come from G in evaluation mode", SAGAN, "bp_align D")
def _(patch):
    def update(original, self, batch):
        self.G.eval()
        metrics = original(self, batch)
        self.G.train()
        return metrics

    wrap(patch, trainer.Trainer, "update_discriminator", update)


@mutant("batch-norm epsilon 0.8 taken for a momentum, epsilon 1e-5", MNIST, "forward images")
def _(patch):
    wrap(
        patch,
        acgan_models,
        "BatchNorm",
        lambda original, features, momentum=0.9, epsilon=1e-5: original(features, momentum, 1e-5),
    )


@mutant("batch-norm epsilon 1e-3 for 1e-5", CIFAR10, "forward images")
def _(patch):
    wrap(
        patch,
        acgan_models,
        "BatchNorm",
        lambda original, features, momentum=0.9, epsilon=1e-3: original(features, momentum, epsilon),
    )


@mutant("a class's scale and shift change places", SAGAN, "forward images")
def _(patch):
    def forward(self, x, labels, bias=None):
        shift, scale = self.embed(labels).chunk(2, axis=1)
        return self.bn(x, bias, scale, shift)

    patch.setattr(ConditionalBatchNorm, "forward", forward)


@mutant("D pools before its second convolution", SAGAN, "forward d_out")
def _(patch):
    patch.setattr(SNConv2D, "pooled", lambda self, x: self(F.avg_pool2d(x, 2)))


@mutant("D's shortcut carries relu(x)", SAGAN, "forward d_out")
def _(patch):
    wrap(
        patch,
        sagan_models,
        "Discriminator",
        lambda original, *args, **options: original(*args, **options | {"relu_shortcut": True}),
    )


@mutant("D's shortcut takes the pixel at the corner for the mean", SAGAN, "forward d_out")
def _(patch):
    def pooled(original, self, x):
        return self(x)[:, :, ::2, ::2] if self.padding == 0 else original(self, x)

    wrap(patch, SNConv2D, "pooled", pooled)


@mutant("G upsamples by bilinear interpolation", SAGAN, "forward images")
def _(patch):
    def upsample_conv(x, weight, bias=None):
        x = F.interpolate(x, scale_factor=2, mode="bilinear")
        return operations.conv(x, weight, bias, padding=weight.shape[-1] // 2)

    patch.setattr(operations, "upsample_conv", upsample_conv)


@mutant("attention is not scaled by gamma", SAGAN, "forward images")
def _(patch):
    def forward(original, self, x):
        attended = original(self, x) - x
        return x + attended / self.gamma

    wrap(patch, SelfAttention, "forward", forward)


@mutant("attention's softmax is over queries", SAGAN, "forward images")
def _(patch):
    def build(original, self, channels, *args):
        original(self, channels, *args)
        self._softmax = lambda logits: F.softmax(logits, axis=1)

    wrap(patch, SelfAttention, "__init__", build)


@mutant("attention's keys and values are not pooled", SAGAN, "forward images")
def _(patch):
    patch.setattr(layers, "_max_pool", lambda x: x)


@mutant("attention's keys and values are mean-pooled", SAGAN, "forward images")
def _(patch):
    patch.setattr(layers, "_max_pool", lambda x: F.avg_pool2d(x, 2))


@mutant("the gradient of the fake loss reaches G", SAGAN, "bp_align G")
def _(patch):
    def build(original, self, *args):
        original(self, *args)
        self.g_optimizer.clear_grad = lambda **_: None  # as if gradients were cleared only at the step's start

    replace_paddle(patch, trainer, no_grad=contextlib.nullcontext)
    wrap(patch, trainer.Trainer, "__init__", build)


@mutant("gradients add up over steps", SAGAN, "train_align G")
def _(patch):
    def build(original, self, *args):
        original(self, *args)
        self.g_optimizer.clear_grad = lambda **_: None

    wrap(patch, trainer.Trainer, "__init__", build)


@mutant("Adam's betas change places", SAGAN, "loss step 1 g_loss")
def _(patch):
    change_parameters(patch, beta1=lambda p: p.beta2, beta2=lambda p: p.beta1)


@mutant("the learning rates change places", SAGAN, "bp_align G")
def _(patch):
    change_parameters(patch, d_lr=lambda p: p.g_lr, g_lr=lambda p: p.d_lr)


@mutant("D's fake pass uses other classes than its real one", SAGAN, "loss step 1 d_loss_fake")
def _(patch):
    def batch(original, self, step):
        right = original(self, step)
        return right._replace(fake_labels=right.fake_labels.flip([0]))

    wrap(patch, networks.Pair, "d_batch", batch)


@mutant("the hinge's margin is 0", SAGAN, "bp_align D")
def _(patch):
    patch.setattr(
        losses, "discriminator_loss", lambda adv_loss, logits, real: F.relu(-logits if real else logits).mean()
    )


@mutant("G's loss has the other sign", SAGAN, "bp_align G")
def _(patch):
    wrap(patch, losses, "generator_loss", lambda original, *args: -original(*args))


@mutant("the penalty is missing", PENALTY, "bp_align D")
def _(patch):
    patch.setattr(losses, "gradient_penalty", lambda *args: paddle.zeros([]))


@mutant("the penalty is not weighted", PENALTY, "bp_align D")
def _(patch):
    change_parameters(patch, lambda_gp=lambda p: 1.0)


@mutant("the penalty mixes fake by alpha and real by the rest", PENALTY, "bp_align D")
def _(patch):
    wrap(
        patch,
        losses,
        "gradient_penalty",
        lambda original, discriminator, real, fake, *rest: original(discriminator, fake, real, *rest),
    )


@mutant("the penalty's gradient stops at the attention", PENALTY, "bp_align D")
def _(patch):
    wrap(
        patch,
        layers,
        "_softmax_twice_differentiable",
        lambda original, logits: original(logits).detach(),
    )


@mutant("noise stands before the class", MLP, "forward images")
def _(patch):
    replace_paddle(patch, acgan_models, concat=lambda tensors, axis: paddle.concat(tensors[::-1], axis=axis))


@mutant("the one-hot class stands behind the noise", CIFAR10, "forward images")
def _(patch):
    replace_paddle(patch, acgan_models, concat=lambda tensors, axis: paddle.concat(tensors[::-1], axis=axis))


@mutant("leaky slope 0.01", MLP, "forward images")
def _(patch):
    patch.setattr(acgan_models, "leaky_relu", lambda x: F.leaky_relu(x, 0.01))


@mutant("G's loss is the minimax one", CIFAR10, "bp_align G")
def _(patch):
    wrap(patch, losses, "generator_loss", lambda original, adv_loss, logits: original("gan", logits))


@mutant("D does not learn classes from generated images", CIFAR10, "bp_align D")
def _(patch):
    count = []

    def loss(original, logits, labels):
        count.append(1)
        return original(logits.detach() if len(count) % 3 == 2 else logits, labels)  # calls: real, fake, G's

    wrap(patch, losses, "class_loss", loss)


@mutant("the class loss is a softmax over a softmax", CIFAR10, "bp_align D")
def _(patch):
    wrap(patch, losses, "class_loss", lambda original, logits, labels: original(F.softmax(logits), labels))


def change_attention(patch, network):
    """Build the function `network` of sagan_models with the attention at 8 pixels."""
    wrap(patch, sagan_models, network, lambda original, p: original(dataclasses.replace(p, attention_size=8)))


@mutant("G's attention follows another block", CIFAR, "forward images")
def _(patch):
    change_attention(patch, "make_generator")


@mutant("D's attention follows another block", CIFAR, "forward d_out")
def _(patch):
    change_attention(patch, "make_discriminator")


@mutant("D's last blocks halve the resolution too", CIFAR, "forward d_out")
def _(patch):
    wrap(
        patch,
        sagan_models.DiscriminatorBlock,
        "forward",
        lambda original, self, x: original(self, x) if self.downsample else F.avg_pool2d(original(self, x), 2),
    )


@mutant("D2D-CE's margin is 0.5", REACGAN, "forward d2d_ce")
def _(patch):
    wrap(patch, losses, "d2d_ce", lambda original, *args: original(*args[:4], 0.5, *args[5:]))


@mutant("D2D-CE's temperature is 1", REACGAN, "forward d2d_ce")
def _(patch):
    wrap(patch, losses, "d2d_ce", lambda original, *args: original(*args[:3], 1.0, *args[4:]))


@mutant("D2D-CE's negatives are images of the own class too", REACGAN, "forward d2d_ce")
def _(patch):
    def gather(original, x, group):
        return original(x, group) if x.is_floating_point() else paddle.full_like(x, -1)

    wrap(patch, operations, "gather", gather)


@mutant("D2D-CE's embeddings are not scaled to length 1", REACGAN, "forward d2d_ce")
def _(patch):
    patch.setattr(losses, "_unit", lambda vectors: vectors)


@mutant("D2D-CE's embeddings of the negatives are constants to the gradient", REACGAN, "bp_align D")
def _(patch):
    wrap(patch, operations, "gather", lambda original, x, group: original(x, group).detach())


@mutant("D learns D2D-CE from generated images too", REACGAN, "bp_align D")
def _(patch):
    def d_loss(original, self, D, images, labels, *rest, real):
        loss, terms = original(self, D, images, labels, *rest, real=real)
        if not real:
            D.eval()  # no further power iteration
            _, classes = D(images, labels)
            loss = loss + 0.5 * self._class_loss(classes, labels, Alone())
            D.train()
        return loss, terms

    wrap(patch, trainer.Trainer, "_d_loss", d_loss)


def first_disagreement(fixture):
    figures = read(FIXTURES / f"{fixture}.json")
    if fixture == PENALTY:  # the first step is enough
        figures = Fixture({key: value for key, value in figures.items() if not key.startswith("final")}, steps=1)
    wrong = [row for row in networks.check_training(figures) if not row.agrees]
    return wrong[0] if wrong else None


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_is_caught(name, monkeypatch):
    fixture, caught, mutate = MUTANTS[name]
    mutate(monkeypatch)
    row = first_disagreement(fixture)
    assert row is not None, "no figure disagrees"
    print(f"\n| {name} | {fixture} | {row.stage}: {row.quantity} | {row.difference:.0e} |", end="")
    assert f"{row.stage} {row.quantity}".startswith(caught)


def test_pooling_before_or_after_a_1x1_convolution_gives_the_same_network(monkeypatch):
    """A mean and a 1x1 convolution commute, so no mutant pools the shortcut on the other side of its convolution."""
    calls = []

    def pooled(original, self, x):
        if self.padding:
            return original(self, x)
        calls.append(1)
        return F.avg_pool2d(self(x), 2)

    wrap(monkeypatch, SNConv2D, "pooled", pooled)
    assert first_disagreement(SAGAN) is None
    assert calls
