"""Runs the networks, losses and updates of this project on a fixture. Compares their figures with the fixture's."""

import contextlib
import math
from functools import partial

import numpy as np
import paddle
import paddle.nn.functional as F

import acgan_models
import losses
import sagan_models
from acgan_models import STACKS
from alignment import draw
from alignment.compare import compare, compare_all
from checkpoint import load_network
from formats.published_weights import arrange, is_transposed, our_name, recognise
from formats.pytorch_names import LAYERS, MLP
from parameters import IMAGE_SIZES, SAGANS, Parameters
from trainer import Trainer
from training.step_batches import DBatch, GBatch
from utils import UserError

FLOAT64, FLOAT32 = 1e-7, 1e-4  # tolerances; the lower precision of reference and ours decides

KINDS = {"mnist": "acgan-mnist", "mlp": "acgan-mlp", "cifar10": "acgan-cifar10", "imagenet": "acgan-imagenet-torch"}

# {name of a figure in a fixture: our figure}. Ours is a metric of `Trainer` in LOSSES, and a function of D's
# (adversarial, class) logits in OUTPUTS.
LOSSES = {
    "sagan": {"d_loss_real": "d_real", "d_loss_fake": "d_fake", "gradient_penalty": "d_penalty", "g_loss": "g_adv"},
    "acgan": {
        "d_adv_real": "d_real",
        "d_aux_real": "d_class_real",
        "d_adv_fake": "d_fake",
        "d_aux_fake": "d_class_fake",
        "g_adv": "g_adv",
        "g_aux": "g_class",
    },
}
LOSSES["reacgan"] = LOSSES["sagan"] | {"d_class_real": "d_class_real", "g_class": "g_class"}
OUTPUTS = {
    "d_out": lambda logits, classes: logits,
    "validity_logits": lambda logits, classes: logits,
    "class_logits": lambda logits, classes: classes,
    "validity": lambda logits, classes: F.sigmoid(logits),
    "class_probabilities": lambda logits, classes: F.softmax(classes),
}


@contextlib.contextmanager
def precision(dtype):
    """Networks that are built in this context compute in `dtype`."""
    before = paddle.get_default_dtype()
    paddle.set_default_dtype(dtype)
    try:
        yield
    finally:
        paddle.set_default_dtype(before)


def check_training(fixture):
    """Rows of a fixture with a protocol in LOSSES: forward, gradients, losses, final weights and buffers."""
    protocol = fixture.choice("protocol", LOSSES)
    model = KINDS[fixture.choice("kind", KINDS)] if protocol == "acgan" else fixture.choice("network", SAGANS, "sagan")
    dtype = fixture.choice("precision", ("float64", "float32"), "float64")
    tolerance = FLOAT64 if dtype == "float64" else FLOAT32
    with precision(dtype):
        pair = Pair(fixture, model, torch=True)
        trainer = Trainer(parameters(fixture, model), (pair.G, pair.D))
        rows = pair.forward_rows(tolerance)
        pair.G.train()
        pair.D.train()
        # Train, and compare the first gradients and the losses of every step.
        for step in range(fixture.whole("steps") if "trajectory" in fixture else 0):
            metrics = {"d_penalty": 0.0, **trainer.update_discriminator(pair.d_batch(step))}
            if step == 0:
                rows += pair.gradient_rows("D", tolerance)
            metrics |= trainer.update_generator(pair.g_batch(step))
            if step == 0:
                rows += pair.gradient_rows("G", tolerance)
            rows += loss_rows(fixture, LOSSES[protocol], step, metrics, tolerance)
        return rows + pair.final_rows(tolerance)


def check_published(fixture):
    """Rows of a published checkpoint's fixture: the forward in float64 and in float32.

    The reference is in float32 unless the fixture says "float64".
    """
    reference = fixture.choice("precision", ("float64", "float32"), "float32")
    rows = []
    for dtype in ("float64", "float32"):
        with precision(dtype):
            kind, model = _published_network(fixture)
            pair = Pair(fixture, model, kind.startswith("torch"), relu_shortcut=kind == "torch-sagan")
            rows += pair.forward_rows(FLOAT64 if dtype == reference == "float64" else FLOAT32, f" in {dtype}")
    return rows


def _published_network(fixture):
    state = fixture.shapes("G_state")
    sagan = "snlinear0.weight_orig" in state
    kind = recognise({"G_state_dict": state} if sagan else state)
    if sagan:
        return kind, "sagan"
    if kind == "paddle-acgan":
        return kind, "acgan-imagenet"
    return kind, "acgan-imagenet-torch" if state["tconv2.0.weight"][-1] == 5 else "acgan-cifar10"


def parameters(fixture, model):
    """The Parameters of the fixture's training."""
    optimizer = fixture["optimizer"]
    optimizer.choice("name", ("Adam",))
    if optimizer["epsilon"] != 1e-8:
        raise UserError(f"has epsilon {optimizer['epsilon']}; Adam's here is 1e-8")
    beta1, beta2 = optimizer["betas"]
    sagan = model in SAGANS
    return Parameters(
        **_class_loss_options(fixture),
        model=model,
        z_dim=fixture.whole("z_dim"),
        num_classes=fixture.whole("classes"),
        imsize=fixture.whole("image_size"),
        batch_size=fixture.whole("batch"),
        adv_loss=fixture.choice("adv_loss", ("hinge", "dcgan", "wgan_gp")) if sagan else "dcgan",
        lambda_gp=10.0,
        d_lr=optimizer.positive("d_lr" if sagan else "lr"),
        g_lr=optimizer.positive("g_lr" if sagan else "lr"),
        beta1=beta1,
        beta2=beta2,
        ema_decay=0.0,
    )


def _class_loss_options(fixture):
    """The options of ReACGAN's class loss; empty for a fixture of another protocol."""
    if fixture.get("protocol") != "reacgan":
        return {}
    weight, temperature, margin = (fixture.positive(name) for name in ("class_loss_weight", "temperature", "margin"))
    return {
        "class_loss": "d2d_ce",
        "class_loss_weight": weight,
        "d2d_embed_dim": fixture.whole("embed_dim"),
        "d2d_temperature": temperature,
        "d2d_margin": margin,
    }


def loss_rows(fixture, names, step, metrics, tolerance):
    """Rows of the losses of one step. `metrics` are those of `Trainer`."""
    trajectory = fixture["trajectory"]
    if len(trajectory) <= step:
        raise UserError(f"has the losses of {len(trajectory)} of {fixture['steps']} steps")
    if unknown := trajectory[step].keys() - names.keys():
        raise UserError(f"has the unknown loss {min(unknown)[:60]}")
    return compare_all("loss", f"step {step}", trajectory[step], lambda name: float(metrics[names[name]]), tolerance)


class Pair:
    """G and D in a fixture's sizes with its drawn weights, and the rows of their figures.

    `torch`: the fixture has PyTorch's names and shapes, not Paddle's.
    """

    def __init__(self, fixture, model, torch, **variant):
        self.fixture, self.layers, self.torch = fixture, LAYERS[model], torch
        self.batch, self.seed = fixture.whole("batch"), fixture.whole("seed", 0, 2**32 - 1)
        self.z_dim, self.classes = fixture.whole("z_dim"), fixture.whole("classes")
        self.drawn = {role: self._draw(role) for role in "GD"}
        arrays = {role: arrange(state, self.layers[role], torch) for role, state in self.drawn.items()}
        self.G, self.D = build(fixture, model, arrays["G"], arrays["D"], **variant)
        for network, role in ((self.G, "G"), (self.D, "D")):
            load_network(network, arrays[role], f"and in {role}_state")

    def _draw(self, role):
        shapes = self.fixture.shapes(f"{role}_state")
        state = {name: draw.weight(f"{role}.{name}", shape, self.seed) for name, shape in shapes.items()}
        draw.settle(state)
        return state

    def d_batch(self, step):
        """The inputs of the D update of `step`."""
        size, channels = self.fixture.whole("image_size"), self._channels()
        real = draw.labels(step, "real", self.batch, self.classes, self.seed)
        fake = real if self.layers is LAYERS["sagan"] else draw.labels(step, "d", self.batch, self.classes, self.seed)
        alpha = draw.rng(f"alpha/{step}", self.seed).uniform(size=(self.batch, 1, 1, 1))
        images = draw.images(step, self.batch, channels, size, self.seed)
        noise = draw.noise(step, "d", self.batch, self.z_dim, self.seed)
        return DBatch(_tensor(images), _tensor(real), _tensor(noise), _tensor(fake), _tensor(alpha))

    def g_batch(self, step):
        """The inputs of the G update of `step`."""
        noise = draw.noise(step, "g", self.batch, self.z_dim, self.seed)
        return GBatch(_tensor(noise), _tensor(draw.labels(step, "g", self.batch, self.classes, self.seed)))

    def _channels(self):
        first = next(name for name in self.fixture["D_state"] if name.endswith(("weight", "weight_orig")))
        width = self.fixture["D_state"][first][1]
        return width // self.fixture["image_size"] ** 2 if self.layers is MLP else width

    def forward_rows(self, tolerance, suffix=""):
        """Rows of the first evaluation forward of both networks."""
        rows, figures = [], dict(self.fixture.get("eval_forward", {}))
        images, outputs = self._forward()
        if "images" in figures:
            rows.append(compare("forward", f"images{suffix}", figures.pop("images"), images, tolerance))
        for name, reference in figures.items():
            if name == "d2d_ce":
                rows.append(compare("forward", name + suffix, reference, self._d2d_ce(outputs), tolerance))
                continue
            if name not in OUTPUTS:
                raise UserError(f"has the unknown figure {name[:60]} in eval_forward")
            # A sigmoid far below 0 is exp(logit). It multiplies a relative error of the logit by the size of the logit,
            # which is -log(sigmoid). So widen the tolerance by this factor.
            factor = max(1.0, -math.log(max(min(reference), 1e-300))) if name == "validity" else 1.0
            ours = OUTPUTS[name](*outputs).numpy()
            rows.append(compare("forward", name + suffix, reference, ours, factor * tolerance))
        return rows

    def _d2d_ce(self, outputs):
        """The class loss of ReACGAN in an evaluation forward, from D's outputs."""
        options = _class_loss_options(self.fixture)
        labels = self.g_batch(0).labels
        return float(losses.d2d_ce(*outputs[1], labels, options["d2d_temperature"], options["d2d_margin"]))

    def gradient_rows(self, role, tolerance):
        """Rows of the gradients after a network's first update."""
        weights = dict(getattr(self, role).named_parameters())
        gradients = {name: paddle.zeros_like(w) if w.grad is None else w.grad for name, w in weights.items()}
        references = self.fixture.get(f"first_{role.lower()}_grads", {})
        return compare_all("bp_align", role, references, partial(self._in_fixture_shape, role, gradients), tolerance)

    def final_rows(self, tolerance):
        """Rows of all weights and buffers, and of an evaluation forward, after the last step."""
        rows = []
        for role in "GD":
            find = partial(self._in_fixture_shape, role, getattr(self, role).state_dict())
            rows += compare_all("train_align", role, self.fixture.get(f"final_{role}", {}), find, tolerance)
        if "final_eval_images" in self.fixture:
            reference = self.fixture["final_eval_images"]
            rows.append(compare("train_align", "images", reference, self._forward()[0], tolerance))
        return rows

    def _forward(self):
        batch = self.g_batch(0)
        self.G.eval()
        self.D.eval()
        with paddle.no_grad():
            images = self.G(batch.z, batch.labels)
            return images.numpy(), self.D(images, batch.labels)

    def _in_fixture_shape(self, role, tensors, name):
        """Our array for the fixture's tensor `name`, in the fixture's shape. If it is never used: the drawn array."""
        ours = our_name(self.layers[role], name)
        if ours is None:
            return self.drawn[role][name]
        if ours not in tensors:
            raise UserError(f"has {name[:60]}, which this {role} does not have")
        array = tensors[ours].numpy()
        return array.T if self.torch and is_transposed(ours, array) else array


def _tensor(array):
    return paddle.to_tensor(array.astype(paddle.get_default_dtype()) if array.dtype.kind == "f" else array)


def build(fixture, model, G, D, relu_shortcut=False):
    """The networks of `model`. `G` and `D`, NumPy arrays by our names, give their widths."""
    z_dim, classes, size = (fixture.whole(name) for name in ("z_dim", "classes", "image_size"))
    dropout = fixture.get("dropout", 0.0)
    if dropout != 0:
        raise UserError(f"has dropout {dropout}; frameworks draw different random numbers, so it must be 0")
    if model in SAGANS:
        if size not in IMAGE_SIZES[model]:
            raise UserError(f"has image_size {size}; {model} has {', '.join(map(str, IMAGE_SIZES[model]))}")
        p = Parameters(
            **_class_loss_options(fixture),
            model=model,
            dataset="mnist" if _width(D, "blocks.0.conv1.weight_orig", 1) == 1 else "imagenet",  # gray or RGB
            z_dim=z_dim,
            num_classes=classes,
            imsize=size,
            attention_size=min(32, size // 2),
            g_conv_dim=_width(G, "bn.weight"),
            d_conv_dim=_width(D, "blocks.0.conv1.bias"),
            adv_loss=fixture.get("adv_loss", "hinge"),
            relu_shortcut=relu_shortcut,
        )
        return sagan_models.make_generator(p), sagan_models.make_discriminator(p)
    if model in STACKS:
        stack = STACKS[model]
        up = [stage._replace(width=_width(G, f"convs.{k}.weight", 1)) for k, stage in enumerate(stack.generator)]
        down = [stage._replace(width=_width(D, f"convs.{k}.weight")) for k, stage in enumerate(stack.discriminator)]
        return (
            acgan_models.StackGenerator(z_dim, classes, _width(G, "linear.weight", 1), up, stack.bias),
            acgan_models.StackDiscriminator(classes, down, size, _width(D, "convs.0.weight", 1), stack.bias, dropout),
        )
    if model == "acgan-mnist":
        up = [_width(G, "norm.weight"), *(_width(G, f"convs.{k}.weight") for k in range(3))]
        down = [_width(D, f"convs.{k}.weight") for k in range(4)]
        return (
            acgan_models.UpsampleGenerator(z_dim, classes, up, size),
            acgan_models.StridedDiscriminator(classes, down, size, _width(D, "convs.0.weight", 1), dropout),
        )
    up = [_width(G, f"linears.{k}.weight", 1) for k in range(4)]
    down = [_width(D, f"linears.{k}.weight", 1) for k in range(3)]
    channels = _width(D, "linears.0.weight") // size**2
    return (
        acgan_models.MLPGenerator(z_dim, classes, _width(G, "embedding.weight", 1), up, size, channels),
        acgan_models.MLPDiscriminator(classes, down, size, channels, dropout),
    )


def _width(arrays, name, axis=0):
    if name not in arrays or np.ndim(arrays[name]) <= axis:
        raise UserError(f"lacks {name} (our name)")
    return arrays[name].shape[axis]
