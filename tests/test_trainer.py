"""Training steps: the changes of each update, rounds of accumulation, resuming, reproducible noise."""

import dataclasses
import re

import numpy as np
import paddle
import pytest

import checkpoint
import operations
from augment import augment, random_values
from dataset import batches, load_dataset
from processes.groups import Alone
from trainer import Trainer, resolve
from training.run_start import Start
from training.step_batches import DBatch, GBatch, d_batch, g_batch

DIFFAUG = "color,translation,cutout"


def arrays(network):
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def changed(before, network):
    return {name for name, tensor in network.state_dict().items() if (tensor.numpy() != before[name]).any()}


def fake_data(parameters):
    return batches(load_dataset(parameters), parameters, first=0)


def parameter_names(network):
    return {name for name, _ in network.named_parameters()}


@pytest.fixture
def double():
    paddle.set_default_dtype("float64")
    yield
    paddle.set_default_dtype("float32")


D2D_CE = {"class_loss": "d2d_ce", "d2d_embed_dim": 8}


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("sagan", {}),
        ("sagan-cifar10", {}),
        ("acgan-cifar10", {}),
        ("acgan-mnist", {}),
        ("acgan-mlp", {}),
        ("sagan-cifar10", D2D_CE),
        ("acgan-cifar10", D2D_CE),
    ],
)
def test_each_update_changes_only_its_own_network(make_parameters, model, changes):
    # With hinge, a bias's gradients on real and fake can cancel. Dropout can drop a whole channel.
    p = make_parameters(model, adv_loss="dcgan", dropout=0.0, **changes)
    trainer = Trainer(p)
    for network in (trainer.G, trainer.D):
        for name, weight in network.named_parameters():
            if name.endswith("gamma"):  # with gamma 0 the attention's weights would not learn
                weight.set_value(np.ones(1, "float32"))
    images, labels, _ = next(fake_data(p))
    g, d = arrays(trainer.G), arrays(trainer.D)
    trainer.update_discriminator(d_batch(p, 0, 0, paddle.to_tensor(images), paddle.to_tensor(labels)))
    unseen = {name for name in parameter_names(trainer.D) if "embedding" in name}  # has rows of absent classes
    keys = {"attention.phi.bias"}  # adds the same to all logits of a softmax, so its gradient is 0 but for rounding
    assert changed(d, trainer.D) >= parameter_names(trainer.D) - unseen - keys
    assert not changed(g, trainer.G) & parameter_names(trainer.G), "D's update moved G's weights"
    g, d = arrays(trainer.G), arrays(trainer.D)
    trainer.update_generator(g_batch(p, 0, 0))
    # A batch norm removes the bias before it, so its gradient is 0.
    removed = {name for name in parameter_names(trainer.G) if re.fullmatch(r"convs\.\d\.bias|.*conv1\.bias", name)}
    learned = {name for name in parameter_names(trainer.G) - removed - keys if "embed" not in name}
    assert changed(g, trainer.G) >= learned
    assert not changed(d, trainer.D) & parameter_names(trainer.D), "G's update moved D's weights"
    assert not any(weight.stop_gradient for weight in trainer.D.parameters())


@pytest.mark.parametrize(
    ("parts", "anew"),
    [
        (("G",), "no discriminator, no optimizer of G, no optimizer of D: these start anew"),
        (("G", "G_ema"), "no discriminator, no optimizer of G, no optimizer of D: these start anew"),
        (("D",), "no generator, no optimizer of G, no optimizer of D: these start anew"),
        (("G", "D"), "no optimizer of G, no optimizer of D: these start anew"),
        (("G", "D", "g_optimizer"), "no optimizer of D: this starts anew"),
        (("G", "D", "g_optimizer", "d_optimizer"), None),
    ],
)
def test_a_start_names_the_parts_that_its_checkpoint_lacks(make_parameters, parts, anew, capsys):
    """These parts start with their initial values."""
    p = make_parameters(total_step=3, sample_step=100, ema_decay=0.9)
    first = Trainer(p)
    first.train_step(fake_data(p))
    state = first.state()
    start = checkpoint.Checkpoint("w.safetensors", 2, dataclasses.asdict(p), {part: state[part] for part in parts})
    data = load_dataset(p)
    capsys.readouterr()
    Trainer(p).train(data, Start(start))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("goes on from")]
    assert line == "goes on from w.safetensors, step 2" + (f"; it holds {anew}" if anew else "")


@pytest.mark.parametrize("adv_loss", ["hinge", "dcgan", "wgan_gp", "gan"])
@pytest.mark.parametrize(
    "model",
    [pytest.param("sagan", marks=pytest.mark.slow), "sagan-cifar10", "acgan-cifar10", "acgan-mnist", "acgan-mlp"],
)
def test_every_loss_trains(make_parameters, model, adv_loss):
    options = {"inst_noise_sigma": 0.1, "ema_decay": 0.9, "d_steps_per_iter": 2, "diffaug": DIFFAUG}
    p = make_parameters(model, adv_loss=adv_loss, **options)
    trainer, data = Trainer(p), fake_data(p)
    for _ in range(2):
        metrics = trainer.train_step(data)
    expected = {"d_real", "d_fake", "g_adv", "D_x", "D_G_z"}
    expected |= {"d_penalty"} if adv_loss == "wgan_gp" else {"right_real", "right_fake"}
    if not p.is_sagan:
        expected |= {"d_class_real", "d_class_fake", "g_class", "accuracy_real", "accuracy_fake"}
    assert set(metrics) == expected
    assert all(np.isfinite(float(value)) for value in metrics.values())


@pytest.mark.parametrize("adv_loss", ["hinge", "wgan_gp"])
@pytest.mark.parametrize("model", ["sagan-cifar10", "acgan-cifar10"])
def test_d2d_ce_trains_with_every_kind_of_network(make_parameters, model, adv_loss):
    """D's class loss is of real images only."""
    p = make_parameters(model, adv_loss=adv_loss, batch_size_in_gpu=2, **D2D_CE)
    trainer, data = Trainer(p), fake_data(p)
    for _ in range(2):
        metrics = trainer.train_step(data)
    expected = {"d_real", "d_fake", "g_adv", "D_x", "D_G_z", "d_class_real", "g_class", "accuracy_real"}
    expected |= {"accuracy_fake"} | ({"d_penalty"} if adv_loss == "wgan_gp" else {"right_real", "right_fake"})
    assert set(metrics) == expected
    assert all(np.isfinite(float(value)) for value in metrics.values())


# D2D-CE of a perfect D is the logarithm of 1 + the number of negatives, here about 12.
@pytest.mark.parametrize(("changes", "limit"), [({}, 0.1), (D2D_CE, 2.7)])
def test_the_class_loss_is_learned(make_parameters, changes, limit):
    """The class of an image is its bright quadrant. D reads every class within 50 steps."""
    p = make_parameters("acgan-mlp", num_classes=4, dropout=0.0, d_lr=1e-3, batch_size=16, **changes)
    trainer = Trainer(p)
    bright = np.eye(4, dtype=np.uint8).reshape(4, 1, 2, 2).repeat(8, 2).repeat(8, 3).repeat(3, 1) * 255
    for step in range(50):
        labels = np.random.default_rng(step).integers(4, size=16)
        batch = d_batch(p, 0, 0, paddle.to_tensor(bright[labels]), paddle.to_tensor(labels))
        metrics = trainer.update_discriminator(batch)
    assert float(metrics["accuracy_real"]) == 1
    assert float(metrics["d_class_real"]) < limit


@pytest.mark.parametrize("model", ["sagan", "acgan-mlp"])
def test_accumulated_rounds_equal_one_batch(make_parameters, double, model):
    """No batch norm uses batch statistics here, so 4 rounds of 1 give the gradients of one round of 4."""
    p = make_parameters(model, dropout=0.0, adv_loss="hinge", diffaug=DIFFAUG)
    rng = np.random.default_rng(0)
    batch = DBatch(
        paddle.to_tensor(rng.uniform(-1, 1, (4, 3, p.imsize, p.imsize))),
        paddle.to_tensor(rng.integers(5, size=4)),
        paddle.to_tensor(rng.standard_normal((4, p.z_dim))),
        paddle.to_tensor(rng.integers(5, size=4)),
        real_changes=paddle.to_tensor(random_values(rng, 4, p.imsize)),
        fake_changes=paddle.to_tensor(random_values(rng, 4, p.imsize)),
    )
    gradients = []
    for size in (None, 2, 1):
        trainer = Trainer(dataclasses.replace(p, batch_size_in_gpu=size))
        trainer.G.eval()  # batch norm and power iterations hold still
        trainer.D.eval()
        trainer.update_discriminator(batch)
        trainer.update_generator(GBatch(batch.z, batch.labels, fake_changes=batch.real_changes))
        gradients.append([w.grad.numpy() for n in (trainer.D, trainer.G) for w in n.parameters() if w.grad is not None])
    for cut in gradients[1:]:
        for whole, found in zip(gradients[0], cut, strict=True):
            np.testing.assert_allclose(found, whole, rtol=1e-9, atol=1e-12 * np.abs(whole).max())


def test_noise_and_labels_are_pure_functions_of_the_step(make_parameters):
    p = make_parameters("acgan-digits", inst_noise_sigma=0.5, diffaug="color")
    first, trainer, data = g_batch(p, 3, 0), Trainer(p), fake_data(p)
    for _ in range(2):
        trainer.train_step(data)
    again = g_batch(p, 3, 0)
    for a, b in zip(first._replace(sources=None), again._replace(sources=None), strict=True):
        assert (np.asarray(a) == np.asarray(b)).all()
    assert [rng.bytes(9) for rng in first.sources(range(4))] == [rng.bytes(9) for rng in again.sources(range(4))]
    for other in (g_batch(p, 3, 1), g_batch(p, 4, 0)):
        for name in ("z", "fake_noise", "fake_changes"):
            assert (getattr(first, name).numpy() != getattr(other, name).numpy()).any()


def test_instance_noise_fades_to_zero(make_parameters):
    p = make_parameters("acgan-digits", inst_noise_sigma=0.5, inst_noise_sigma_iters=10)
    deviations = []
    for step in (0, 5, 10):
        noise = g_batch(p, step, 0).fake_noise
        deviations.append(0 if noise is None else noise.numpy().std())
    np.testing.assert_allclose(deviations, [0.5, 0.25, 0], rtol=0.05)


def test_the_discriminator_sees_augmented_images_only(make_parameters, monkeypatch):
    """Real and generated ones, in both updates and in the penalty, each with random values of its own."""
    p = make_parameters("acgan-mlp", dropout=0.0, adv_loss="wgan_gp", diffaug="color,cutout")
    trainer, seen = Trainer(p), []
    images, labels, _ = next(fake_data(p))
    d, g = d_batch(p, 0, 0, paddle.to_tensor(images), paddle.to_tensor(labels)), g_batch(p, 0, 0)
    generated = [trainer.G(batch.z, labels) for batch, labels in ((d, d.fake_labels), (g, g.labels))]
    forward = trainer.D.forward
    monkeypatch.setattr(trainer.D, "forward", lambda images, labels: seen.append(images) or forward(images, labels))
    trainer.update_discriminator(d)
    trainer.update_generator(g)
    mixed = d.alpha * d.images + (1 - d.alpha) * generated[0]
    plain = (d.images, generated[0], mixed, generated[1])
    changes = (d.real_changes, d.fake_changes, d.real_changes, g.fake_changes)
    for found, images, values in zip(seen, plain, changes, strict=True):
        assert len({*map(tuple, values.tolist())}) == len(images)
        np.testing.assert_allclose(found.numpy(), augment(images, values, "color,cutout").numpy(), atol=1e-5)
        assert (found.numpy() != images.numpy()).mean() > 0.5
    assert len({tuple(values.flatten().tolist()) for values in changes}) == 3


def test_the_generator_learns_through_the_augmentation(make_parameters, double):
    """The gradient of G's loss, against differences."""
    p = make_parameters("acgan-mlp", dropout=0.0, diffaug=DIFFAUG)
    trainer, batch = Trainer(p), g_batch(p, 0, 0)

    def loss():
        ((loss, _),) = trainer._g_losses(trainer.G, trainer.D, batch, Alone())
        return loss

    weight = trainer.G.linears[0].weight
    loss().backward()
    before, direction = weight.numpy().copy(), np.random.default_rng(0).standard_normal(weight.shape)
    values = []
    for step in (1e-6, -1e-6):
        weight.set_value(before + step * direction)
        values.append(float(loss()))
    slope = (weight.grad.numpy() * direction).sum()
    np.testing.assert_allclose((values[0] - values[1]) / 2e-6, slope, rtol=1e-5)
    assert abs(slope) > 1e-6


@pytest.mark.parametrize("start", [0, 3])
def test_moving_average_follows_its_definition(make_parameters, start):
    """With --ema_start it is a copy of G until that step, and its decay is full from then on."""
    p = make_parameters("acgan-digits", ema_decay=0.6, ema_start=start)
    trainer, data = Trainer(p), fake_data(p)
    expected = trainer.G.linear.weight.numpy()
    for step in range(12):
        trainer.train_step(data)
        decay = min(0.6, (1 + step) / (10 + step)) if start == 0 else 0.6 * (step >= start)
        expected = decay * expected + (1 - decay) * trainer.G.linear.weight.numpy()
    np.testing.assert_allclose(trainer.G_ema.linear.weight.numpy(), expected, rtol=1e-5, atol=1e-7)
    assert (trainer.G_ema.norms[0]._mean.numpy() == trainer.G.norms[0]._mean.numpy()).all()


@pytest.mark.parametrize(
    ("model", "changes"),
    [("sagan", {}), ("acgan-cifar10", {}), ("sagan-cifar10", D2D_CE | {"ema_start": 4})],
)
def test_a_resumed_training_equals_an_unbroken_one(make_parameters, model, changes, tmp_path):
    check_resumed_training(make_parameters, model, tmp_path, **changes)


def test_a_resumed_training_in_the_plain_forms_equals_an_unbroken_one(make_parameters, tmp_path):
    with operations.plain_forms():
        check_resumed_training(make_parameters, "acgan-cifar10", tmp_path)


def check_resumed_training(make_parameters, model, tmp_path, **changes):
    """5 steps straight against 3, a checkpoint file, and 2 more: the same bits."""
    p = make_parameters(model, ema_decay=0.9, diffaug=DIFFAUG, **changes)
    images = load_dataset(p)
    straight, data = Trainer(p), batches(images, p, first=0)
    for _ in range(5):
        straight.train_step(data)
    broken, data = Trainer(p), batches(images, p, first=0)
    for _ in range(3):
        broken.train_step(data)
    checkpoint.save(tmp_path / "three.safetensors", broken.step, dataclasses.asdict(p), broken.state())
    resumed, loaded = Trainer(p), checkpoint.load(tmp_path / "three.safetensors")
    resumed.load(loaded.step, loaded.parts, "the broken run")
    data = batches(images, p, first=3)
    for _ in range(2):
        resumed.train_step(data)
    for part, expected in straight.state().items():
        found = resumed.state()[part]
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            assert (found[name] == array).all(), f"{part}/{name}"


def test_epochs_become_steps(make_parameters):
    p = make_parameters("acgan-digits", batch_size=100, niter=3, save_freq=1, num_classes=None)
    resolved = resolve(p, load_dataset(p))  # 10,000 fake images
    assert (resolved.total_step, resolved.model_save_step, resolved.num_classes) == (300, 100, 10)
    assert resolved.niter is None and resolved.save_freq is None


def test_recomputed_blocks_train_with_the_same_bits(make_parameters):
    """Weights, running statistics and singular vectors, with two rounds of accumulation too."""
    for changes in ({}, {"batch_size_in_gpu": 2, "ema_decay": 0.9, "class_loss": "d2d_ce"}):
        states = []
        for recompute in (False, True):
            p = make_parameters("sagan", batch_size=4, recompute=recompute, **changes)
            trainer, data = Trainer(p), batches(load_dataset(p), p, first=0)
            for _ in range(2):
                metrics = trainer.train_step(data)
            states.append(trainer.state() | {"metrics": {name: value.numpy() for name, value in metrics.items()}})
        plain, recomputed = states
        for part, arrays in plain.items():
            for name, array in arrays.items():
                assert np.array_equal(recomputed[part][name], array), f"{part}/{name}"
