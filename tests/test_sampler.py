"""Samples depend only on the weights, the seed, their index and their class; truncation; standing statistics."""

import dataclasses

import numpy as np
import paddle
import pytest
from scipy.stats import kstest, truncnorm

import acgan_models
import checkpoint
import randomness
import sagan_models
import sampler
from evaluation.evaluation import Evaluation
from evaluation.sources import Drawn
from inference.folding import fold
from inference.predictor import Predictor
from layers import BatchNorm
from networks import models_of
from utils import UserError


class Recorder(paddle.nn.Layer):
    """A generator that keeps its inputs and returns its noise as images."""

    def __init__(self):
        super().__init__()
        self.noise, self.labels = [], []

    def forward(self, z, labels):
        self.noise.append(z.numpy())
        self.labels += labels.tolist()
        return z.reshape([len(z), 1, 4, -1]) / 4


def noise_of(p, batches):
    recorder = Recorder()
    images = [sampler.generate_batch(recorder, p, batch, np.array(batch) % 5) for batch in batches]
    assert all(image.dtype == np.uint8 for image in images)
    return np.concatenate(recorder.noise)


@pytest.mark.parametrize("truncation", [0.04, 0.5, 2.0, None])
def test_noise_follows_the_truncated_normal(make_parameters, truncation):
    p = make_parameters(truncation=truncation)
    noise = noise_of(p, [range(1000)]).astype(np.float64)
    assert noise.shape == (1000, 20)
    assert (noise == noise_of(p, [range(500), range(500, 1000)])).all()
    if truncation:
        assert 0.99 * truncation < np.abs(noise).max() <= truncation * (1 + 1e-6)
    expected = truncnorm(-truncation, truncation).cdf if truncation else "norm"
    assert kstest(noise.ravel(), expected).pvalue > 0.01
    assert kstest(noise[:, 7], expected).pvalue > 0.01
    neighbours = np.corrcoef(noise[:, 0], noise[:, 1])[0, 1], np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]
    assert np.abs(neighbours).max() < 0.1


@pytest.mark.parametrize("truncation", [0.5, None])
def test_a_sample_does_not_depend_on_its_batch(make_parameters, truncation):
    p = make_parameters(truncation=truncation)
    whole = noise_of(p, [range(12)])
    assert (noise_of(p, [range(2), range(2, 6), range(6, 12)]) == whole).all()
    assert (noise_of(p, [[11, 3]]) == whole[[11, 3]]).all()
    assert not (noise_of(make_parameters(truncation=truncation, manual_seed=1), [range(12)]) == whole).any()


class Bits(Predictor):
    """A compiled generator whose images are the bytes of its floats."""

    def __call__(self, z, labels):
        (floats,) = super().__call__(z, labels)
        return [floats.view(np.uint8).astype(np.float32) / 255]


CUTS = {
    **{
        f"by {size}": [range(80)[first : first + size] for first in range(0, 80, size)]
        for size in (1, 2, 7, 16, 23, 64)
    },
    "every tenth": [np.arange(first, 80, 10) for first in range(10)],
    "backwards": [np.arange(80)[::-1]],
    "twice": [[7, 3, 7], [3, 3]],
}


SIZES = {
    "sagan": {"imsize": 32, "attention_size": 16},
    "sagan, one block": {"imsize": 8, "attention_size": 8},
    "sagan, wide": {"imsize": 128, "g_conv_dim": 32, "num_classes": 1000, "z_dim": 128},
    "sagan-cifar10": {},
    "acgan-imagenet": {},
    "acgan-imagenet, wide": {"g_conv_dim": 64, "z_dim": 110},
    "acgan-imagenet-torch": {},
    "acgan-cifar10": {},
    "acgan-mnist": {},
    "acgan-mnist, wide": {"g_conv_dim": 64, "dataset": "mnist"},
    "acgan-mlp": {},
}
SLOW = {"sagan, one block", "sagan-cifar10", "acgan-imagenet-torch"}  # like "sagan" and "acgan-imagenet"


def network_of(make_parameters, name, **changes):
    """Parameters of a size in SIZES, and its generator with drawn statistics."""
    p = make_parameters(name.partition(",")[0], **SIZES[name] | changes)
    return p, with_statistics(models_of(p).build_generator(p), np.random.default_rng(0))


def bits_of(network, p):
    inputs = [([sampler.CHUNK, p.z_dim], "float32"), ([sampler.CHUNK], "int64")]
    return Bits(fold(network), inputs, sampler._threads_of_predictor())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if "wide" in name or name in SLOW else name for name in SIZES]
)
def test_a_sample_has_the_same_bits_in_any_batch_and_on_any_number_of_threads(make_parameters, name, monkeypatch):
    p, network = network_of(make_parameters, name, dont_normalize=True)
    frozen = bits_of(network, p)
    whole = sampler.generate(frozen, p, range(80), np.arange(80) % 5)
    for cut, batches in CUTS.items():
        for indices in map(np.array, batches):
            images = sampler.generate(frozen, p, indices, indices % 5)
            assert (images == whole[indices]).all(), f"{cut}: {indices}"
    few = np.arange(16)
    for count in (
        "1",
        "3",
        "4",
        *(("8", "40") if "wide" in name else ()),
    ):  # other machines, and several processes on one
        monkeypatch.setenv("MKL_NUM_THREADS", count)
        assert (sampler.generate(bits_of(network, p), p, few, few % 5) == whole[:16]).all(), f"{count} threads"


@pytest.mark.parametrize(("threads", "used"), [(1, 1), (2, 2), (3, 2), (6, 4), (16, 16), (40, 16)])
def test_a_predictor_has_a_power_of_two_threads(monkeypatch, threads, used):
    monkeypatch.setenv("MKL_NUM_THREADS", str(threads))
    assert sampler._threads_of_predictor() == used


class EagerBits(paddle.nn.Layer):
    """A generator whose images are the bytes of another generator's floats."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, z, labels):
        floats = np.ascontiguousarray(self.network(z, labels).numpy())
        return paddle.to_tensor(floats.view(np.uint8).astype(np.float32) / 255)


def test_a_generator_that_cannot_be_compiled_runs_eagerly_with_the_same_bits_in_any_batch(make_parameters, capsys):
    p, network = network_of(make_parameters, "acgan-mnist", dont_normalize=True)
    frozen = sampler.snapshot(EagerBits(network), p)
    assert "the generator runs without oneDNN" in capsys.readouterr().err
    whole = sampler.generate(frozen, p, range(40), np.arange(40) % 5)
    for indices in (np.arange(40)[::-1], np.array([39]), np.arange(3, 40, 5)):
        assert (sampler.generate(frozen, p, indices, indices % 5) == whole[indices]).all()


def test_a_snapshot_draws_the_samples_of_the_generator(make_parameters, capsys):
    p, network = network_of(make_parameters, "sagan")
    frozen = sampler.snapshot(network, p)
    assert isinstance(frozen, Predictor) and not capsys.readouterr().err
    found = sampler.generate(frozen, p, range(40), np.arange(40) % 5).astype(int)
    expected = sampler.generate_batch(network, p, range(40), np.arange(40) % 5).astype(int)
    assert expected.std(0).mean() > 1 and np.abs(found - expected).max() <= 1


def test_every_evaluation_draws_from_the_weights_of_its_time(make_parameters):
    p, network = network_of(make_parameters, "acgan-cifar10")
    evaluation = Evaluation(dataclasses.replace(p, metrics="none"))
    first = evaluation.drawn(network, 16)
    before = first.images(np.arange(16))
    with paddle.no_grad():
        network.convs[-1].weight.set_value(-network.convs[-1].weight)
    after = evaluation.drawn(network, 16).images(np.arange(16)).astype(int)
    assert (first.images(np.arange(16)) == before).all()  # the same samples in the whole of an evaluation
    assert before.std() > 0.5 and np.abs(after + before - 255).max() <= 1  # tanh(-x) = -tanh(x)


class CountingRows(Recorder):
    """A Recorder that returns images of 3 x 4 x 4. Its recorded noise shows how many rows each call has."""

    def forward(self, z, labels):
        super().forward(z, labels)
        return paddle.zeros([len(z), 3, 4, 4])


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_the_generator_always_gets_chunks_of_the_same_size(make_parameters, batch_size):
    p, counting = make_parameters(batch_size_test=batch_size), CountingRows()
    source = Drawn(counting, p, np.arange(300) % 5)
    for indices in (np.arange(256), np.arange(256, 300), np.array([299]), np.arange(3, 300, 5)):
        assert source.images(indices).shape == (len(indices), 3, 4, 4)
    sampler.grid_samples(source.snapshot, p, range(5))
    assert {len(noise) for noise in counting.noise} == {sampler.CHUNK}
    assert len(counting.noise) < 16 + 3 + 1 + 60 / 16 * 1.5 + 4  # indices at a fixed distance fill whole chunks too


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("auto", [0, 1, 2, 3, 4, 0, 1]),
        ("uniform", [0, 1, 2, 3, 4, 0, 1]),
        ("3", [3] * 7),
        ("4,0", [4, 0, 4, 0, 4, 0, 4]),
    ],
)
def test_labels_choose_the_drawn_classes(make_parameters, labels, expected):
    p = make_parameters(labels=labels, metrics="none")
    assert Evaluation(p).drawn(None, 7).labels.tolist() == expected


FLOWERS = ("daisy", "rose", "poppy, red", "0", "auto", "tulip", "雏菊")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("rose", [1]),
        ("tulip,daisy", [5, 0]),
        ("rose, 2 ,雏菊", [1, 2, 6]),
        ("0", [3]),  # the name goes before the number
        ("00", [0]),
        ("poppy, red", [2]),
        ("auto", [0, 1, 2, 3, 4, 5, 6]),  # the option's own word goes before a name
        ("4", [4]),
        ("auto,rose", [4, 1]),
    ],
)
def test_labels_accept_class_names(make_parameters, labels, expected):
    p = make_parameters(labels=labels, num_classes=7, metrics="none")
    evaluation = Evaluation(p, FLOWERS)
    assert evaluation.chosen_classes == expected
    assert evaluation.drawn(None, len(expected)).labels.tolist() == expected


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ("3,99", "--labels: there is no class 99; the 7 classes are daisy, rose, poppy, red, 0, auto, …"),
        ("dasy", "--labels: there is no class dasy; .*; give names, or numbers from 0 to 6; did you mean daisy[?]"),
        ("rose,1", "--labels rose,1: 'rose' and '1' are the same class"),
        ("9" * 5000, "--labels: there is no class 9{80}; "),
        ("-1", "--labels: there is no class -1; "),
        ("all", "--labels: there is no class all; .* from 0 to 6; uniform draws all classes$"),
    ],
)
def test_unknown_classes_are_refused(make_parameters, labels, sentence):
    p = make_parameters(labels=labels, num_classes=7, metrics="none")
    with pytest.raises(UserError, match=f"^{sentence}"):
        Evaluation(p, FLOWERS).drawn(None, 7)


def test_unknown_classes_are_refused_if_names_are_not_known(make_parameters):
    with pytest.raises(UserError, match="--labels: there is no class 99; the 5 classes are "):
        Evaluation(make_parameters(labels="3,99", metrics="none")).drawn(None, 7)


def test_a_class_has_the_same_samples_in_every_picture(make_parameters):
    """The first classes have samples 0, 1, … of the pictures' noise."""
    p = make_parameters(num_classes=20)
    recorder = Recorder()
    sampler.grid_samples(recorder, p, range(10), sampler.generate_batch)
    assert recorder.labels == np.repeat(np.arange(10), 10).tolist()
    first = np.concatenate(recorder.noise)
    drawn = Recorder()
    sampler.generate_batch(drawn, p, range(100), np.repeat(np.arange(10), 10), "grid")
    assert (np.concatenate(drawn.noise) == first).all()
    chosen = Recorder()
    sampler.grid_samples(chosen, p, [7, 3, 19], sampler.generate_batch)
    assert chosen.labels == [7] * 10 + [3] * 10 + [19] * 10
    noise = np.concatenate(chosen.noise)
    assert (noise[:10] == first[70:80]).all() and (noise[10:20] == first[30:40]).all()


def with_statistics(network, rng):
    """Give `network` running statistics that a new network does not have."""
    for name, tensor in network.state_dict().items():
        if name.endswith("_variance"):
            paddle.assign(paddle.to_tensor(rng.uniform(0.5, 2, tensor.shape).astype("float32")), tensor)
        elif name.endswith("_mean"):
            paddle.assign(paddle.to_tensor(rng.normal(size=tensor.shape).astype("float32")), tensor)
    network.eval()
    return network


@pytest.mark.parametrize("model", ["acgan-digits", "sagan"])
def test_standing_statistics_are_the_mean_over_batches(make_parameters, model):
    """Against NumPy's statistics of each batch norm's own input, while the network runs on the batch's statistics."""
    p = make_parameters(model, standing_batches=3, batch_size=6, truncation=1.0)
    build = (sagan_models if model == "sagan" else acgan_models).build_generator
    network = with_statistics(build(p), np.random.default_rng(0))
    before = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    twin = build(p)
    checkpoint.load_network(twin, before, "twin")
    sampler.use_standing_statistics(network, p)
    names = {name: layer for name, layer in twin.named_sublayers() if isinstance(layer, BatchNorm)}
    means, variances = {name: [] for name in names}, {name: [] for name in names}

    def keep(name):
        def hook(layer, inputs):
            x = np.moveaxis(inputs[0].numpy().astype(np.float64), 1, -1)
            means[name].append(x.reshape(-1, x.shape[-1]).mean(0))
            variances[name].append(x.reshape(-1, x.shape[-1]).var(0, ddof=1))

        return hook

    twin.eval()
    for name, layer in names.items():
        layer.training = True
        layer.register_forward_pre_hook(keep(name))
    for batch in range(3):
        labels = randomness.rng(p.manual_seed, "standing labels", batch).integers(p.num_classes, size=6)
        sampler.generate_batch(twin, p, range(batch * 6, batch * 6 + 6), labels, "standing")
    after = network.state_dict()
    statistics = {f"{name}.{kind}" for name in names for kind in ("_mean", "_variance")}
    for name in names:
        assert len(means[name]) == 3
        scale = np.sqrt(np.mean(variances[name]))
        found = after[f"{name}._mean"].numpy()
        np.testing.assert_allclose(found, np.mean(means[name], 0), rtol=1e-5, atol=1e-5 * scale)
        np.testing.assert_allclose(after[f"{name}._variance"].numpy(), np.mean(variances[name], 0), rtol=1e-4)
    for name, array in before.items():
        assert (after[name].numpy() == array).all() != (name in statistics), name
    assert not any(layer.training for layer in network.sublayers())
    frozen = sampler.snapshot(network, p)
    images = sampler.generate(frozen, p, range(4), np.arange(4))
    assert (sampler.generate(frozen, p, [2], np.array([2])) == images[2]).all()  # samples do not depend on their batch


def test_without_standing_batches_the_running_statistics_stay(make_parameters):
    p = make_parameters()
    network = with_statistics(acgan_models.build_generator(p), np.random.default_rng(0))
    before = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    sampler.use_standing_statistics(network, p)
    assert all((tensor.numpy() == before[name]).all() for name, tensor in network.state_dict().items())
