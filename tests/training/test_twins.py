"""Threads that compute the gradients of a batch together."""

import numpy as np
import paddle
import pytest

import operations
from dataset import batches, load_dataset
from trainer import Trainer
from training import gradients
from training.twins import Twins


@pytest.fixture
def double():
    paddle.set_default_dtype("float64")
    yield
    paddle.set_default_dtype("float32")


def trained(p, threads, monkeypatch, steps=2):
    """The state after some steps, and the metrics of the last step. Each thread gets two rows or more."""
    monkeypatch.setenv("MKL_NUM_THREADS", str(threads))
    monkeypatch.setattr(gradients, "PIXELS_PER_THREAD", 1)
    trainer, data = Trainer(p), batches(load_dataset(p), p, first=0)
    for _ in range(steps):
        metrics = trainer.train_step(data)
    state = {f"{part}/{name}": array for part, arrays in trainer.state().items() for name, array in arrays.items()}
    return state | {name: float(value) for name, value in metrics.items()}


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("sagan", {}),
        pytest.param("sagan", {"batch_size_in_gpu": 4}, marks=pytest.mark.slow),  # two rounds of accumulation
        ("acgan-cifar10", {"dropout": 0.3}),
        ("acgan-mnist", {}),
        ("acgan-mlp", {"diffaug": "color,translation,cutout"}),
        ("sagan-cifar10", {"class_loss": "d2d_ce"}),  # the negatives are the images of all threads
        ("acgan-cifar10", {"class_loss": "d2d_ce", "dropout": 0.0, "batch_size_in_gpu": 4}),
    ],
)
def test_any_number_of_threads_trains_alike(make_parameters, monkeypatch, double, model, changes):
    # With cross-entropy no gradient is only rounding, which Adam would amplify.
    p = make_parameters(model, batch_size=8, adv_loss="dcgan", **changes)
    one = trained(p, 1, monkeypatch)
    for threads in (2, 3):
        several = trained(p, threads, monkeypatch)
        assert several.keys() == one.keys()
        for name, value in one.items():
            np.testing.assert_allclose(several[name], value, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("model", ["sagan", "acgan-cifar10"])
def test_several_threads_give_the_same_bits_again(make_parameters, monkeypatch, model):
    p = make_parameters(model, batch_size=8)
    first, second = trained(p, 2, monkeypatch), trained(p, 2, monkeypatch)
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("model", ["sagan", "acgan-cifar10", "acgan-mnist"])
def test_plain_forms_train_as_the_fast_forms(make_parameters, monkeypatch, double, model):
    p = make_parameters(model, batch_size=4, dropout=0.0)
    fast = trained(p, 1, monkeypatch)
    with operations.plain_forms():
        plain = trained(p, 1, monkeypatch)
    for name, value in fast.items():
        np.testing.assert_allclose(plain[name], value, rtol=1e-6, atol=1e-8, err_msg=name)


def test_a_loss_that_fails_in_a_thread_ends_the_update(make_parameters, monkeypatch):
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    monkeypatch.setattr(gradients, "PIXELS_PER_THREAD", 1)
    p = make_parameters("sagan", batch_size=4)
    trainer, data = Trainer(p), batches(load_dataset(p), p, first=0)
    monkeypatch.setattr(trainer, "_d_loss", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.train_step(data)


def test_twins_share_the_weights_and_nothing_else(make_parameters):
    trainer = Trainer(make_parameters("sagan"))
    twins = Twins((trainer.G, trainer.D))
    own, (_, D) = twins.take(2)
    assert own == (trainer.G, trainer.D)
    weight, twin = trainer.D.linear.weight_orig, D.linear.weight_orig
    weight.set_value(paddle.ones_like(weight))
    assert (twin.numpy() == 1).all()
    before = trainer.D.linear.weight_u.numpy().copy()
    D.linear.weight_u.set_value(paddle.zeros_like(D.linear.weight_u))
    assert (trainer.D.linear.weight_u.numpy() == before).all()
    (twin.sum() * 2).backward()
    assert weight.grad is None
    weight.sum().backward()
    for other in trainer.D.parameters():
        if other is not weight:
            other.sum().backward()
    twins.add_gradients(2)
    assert (weight.grad.numpy() == 3).all() and twin.grad is None
