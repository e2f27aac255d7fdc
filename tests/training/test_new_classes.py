"""A run that starts from a checkpoint of other classes: which weights it keeps, and which start anew."""

import dataclasses

import numpy as np
import pytest

import checkpoint
from dataset import batches, load_dataset
from networks import class_weights
from trainer import Trainer
from training.new_classes import parts_to_load
from training.run_start import Start
from utils import UserError

# The weights that belong to classes, by model.
OF_CLASSES = {
    "sagan": {"G": ("embed.weight",), "D": ("embedding.weight_orig", "embedding.weight_u", "embedding.weight_v")},
    "acgan-digits": {"G": ("linear.weight",), "D": ("heads.classes.weight", "heads.classes.bias")},
    "acgan-mnist": {"G": ("embedding.weight",), "D": ("heads.classes.weight", "heads.classes.bias")},
    "sagan-cifar10": {
        "G": ("embed.weight",),
        "D": ("embedding.weight_orig", "embedding.weight_u", "embedding.weight_v"),
    },
    "acgan-mlp": {
        "G": ("embedding.weight", "linears.0.weight"),
        "D": ("heads.classes.weight", "heads.classes.bias"),
    },
}
SMALL = {"imsize": 32, "attention_size": 16, "g_conv_dim": 4, "d_conv_dim": 4, "batch_size": 2}


def small(make_parameters, model, **changes):
    return make_parameters(model, ema_decay=0.9, **(SMALL if model.startswith("sagan") else {}) | changes)


@pytest.fixture(scope="module")
def checkpoints():
    """{model: what `trained` returned}."""
    return {}


def trained(checkpoints, p, steps=2):
    """The `Checkpoint` of a trainer after some steps."""
    if p.model in checkpoints:
        return checkpoints[p.model]
    trainer, data = Trainer(p), batches(load_dataset(p), p, first=0)
    for _ in range(steps):
        trainer.train_step(data)
    content = "before.safetensors", steps, dataclasses.asdict(p), trainer.state()
    return checkpoints.setdefault(p.model, checkpoint.Checkpoint(*content))


def weights(trainer):
    """Copies of the weights: {part: {name: array}}."""
    networks = {"G": trainer.G, "G_ema": trainer.G_ema, "D": trainer.D}
    return {part: {k: v.numpy().copy() for k, v in network.state_dict().items()} for part, network in networks.items()}


def start_from(before, p, **start):
    """A trainer with `p` that has loaded the checkpoint `before`, and its initial weights."""
    trainer = Trainer(p)
    fresh = weights(trainer)
    parts = parts_to_load(Start(before, **start), trainer.G, trainer.D, p)
    trainer.load(before.step, parts, before.path)
    return trainer, fresh


@pytest.mark.parametrize("classes", [3, 5, 8])
@pytest.mark.parametrize("model", OF_CLASSES)
def test_only_class_weights_start_anew(make_parameters, checkpoints, model, classes):
    """Embeddings and heads get the initial weights of the seed. The first layer keeps its rows for the noise."""
    before = trained(checkpoints, small(make_parameters, model))
    p = small(make_parameters, model, num_classes=classes, manual_seed=7)
    trainer, fresh = start_from(before, p, has_other_classes=True)
    found = weights(trainer)
    for part in ("G", "G_ema", "D"):
        for name, array in found[part].items():
            old, new = before.parts[part][name], fresh[part][name]
            if not name.endswith(OF_CLASSES[model][part[0]]):
                assert (array == old).all(), name
            elif name.startswith("linear"):  # the rows of the classes come first
                anew = max(classes, 5) if model == "acgan-digits" else classes
                assert (array[:anew] == new[:anew]).all()
                assert (array[anew:] == old[len(old) - len(array) + anew :]).all()
                assert 0 < anew < len(array)
            else:
                assert (array == new).all(), name
    # The new weights train as at a first step, and the others go on.
    data = batches(load_dataset(p), p, first=0)
    trainer.train_step(data)
    for part in ("g_optimizer", "d_optimizer"):
        for name, array in trainer.state()[part].items():
            weight, _, slot = name.rpartition("/")
            if slot == "beta2_pow_acc_0":
                is_new = weight.endswith(OF_CLASSES[model][part[0].upper()])
                np.testing.assert_allclose(array, p.beta2 ** (2 if is_new else 4), rtol=1e-5, err_msg=name)


def test_the_same_classes_keep_all_weights(make_parameters, checkpoints):
    before = trained(checkpoints, small(make_parameters, "acgan-digits"))
    trainer, _ = start_from(before, small(make_parameters, "acgan-digits", manual_seed=7))
    for part, arrays in weights(trainer).items():
        assert all((array == before.parts[part][name]).all() for name, array in arrays.items())


@pytest.mark.parametrize("lacks", ["D", "G_ema", "g_optimizer", "d_optimizer"])
def test_a_checkpoint_that_lacks_a_part_can_start_a_run_with_other_classes(make_parameters, checkpoints, lacks):
    before = trained(checkpoints, small(make_parameters, "acgan-mlp"))
    before = before._replace(parts={part: arrays for part, arrays in before.parts.items() if part != lacks})
    p = small(make_parameters, "acgan-mlp", num_classes=7)
    trainer, _ = start_from(before, p, has_other_classes=True)
    trainer.train_step(batches(load_dataset(p), p, first=0))


@pytest.mark.parametrize("model", ["acgan-digits", "acgan-mlp"])
def test_a_checkpoint_of_another_width_is_refused(make_parameters, checkpoints, model):
    before = trained(checkpoints, small(make_parameters, model))
    for change in ({"z_dim": 24}, {"g_conv_dim": 16}):
        with pytest.raises(UserError, match=r"before.safetensors holds linear\S* as .* but this network has"):
            start_from(before, small(make_parameters, model, num_classes=7, **change), has_other_classes=True)


@pytest.mark.parametrize("class_loss", ["cross_entropy", "d2d_ce"])
@pytest.mark.parametrize("model", ["sagan", "sagan-cifar10", "acgan-cifar10", "acgan-mnist", "acgan-mlp"])
def test_every_weight_whose_shape_depends_on_the_classes_is_found(make_parameters, model, class_loss):
    def shapes(network):
        return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}

    few, many = (
        Trainer(small(make_parameters, model, num_classes=classes, class_loss=class_loss)) for classes in (5, 8)
    )
    for one, other in ((few.G, many.G), (few.D, many.D)):
        differ = {name for name, shape in shapes(one).items() if shape != shapes(other)[name]}
        assert differ <= class_weights(other, 5).keys() <= shapes(other).keys()
        assert class_weights(other, 5)
