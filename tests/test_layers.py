"""Layers against their definitions, computed with NumPy, SciPy or Paddle's own kernels."""

import numpy as np
import paddle
import pytest

import layers
import spectral_norm


@pytest.fixture(autouse=True)
def double():
    paddle.set_default_dtype("float64")
    yield
    paddle.set_default_dtype("float32")


def random(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape)


def filled(layer):
    """`layer` with random weights and buffers."""
    for name, tensor in layer.state_dict().items():
        if name.endswith(("_u", "_v")):
            tensor.set_value(np.ones(tensor.shape) / np.sqrt(tensor.size))
        else:
            tensor.set_value(random(*tensor.shape))
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        lambda: spectral_norm.SNConv2D(6, 5, 3),
        lambda: spectral_norm.SNLinear(7, 4),
        lambda: spectral_norm.SNEmbedding(9, 5),
    ],
)
def test_spectral_norm_converges_to_the_largest_singular_value(layer):
    layer = filled(layer())
    for _ in range(200):
        weight = layer.weight().numpy()
    matrix = weight.T if layer.transposed else weight.reshape(weight.shape[0], -1)
    np.testing.assert_allclose(np.linalg.svd(matrix, compute_uv=False)[0], 1, rtol=1e-9)


def test_spectral_norm_iterates_only_in_training():
    layer = filled(spectral_norm.SNConv2D(6, 5, 3))
    layer.eval()
    before = layer.weight_u.numpy()
    first = layer.weight().numpy()
    assert (layer.weight_u.numpy() == before).all() and (layer.weight().numpy() == first).all()
    layer.train()
    layer.weight()
    assert np.abs(layer.weight_u.numpy() - before).max() > 1e-3


def test_spectral_norm_gradient_passes_through_sigma():
    """The gradient of W / u'Wv with u and v constant (Miyato et al., equation 12)."""
    layer = filled(spectral_norm.SNLinear(4, 3))
    layer.eval()
    (layer.weight() * paddle.to_tensor(random(4, 3))).sum().backward()
    W, u, v, c = layer.weight_orig.numpy(), layer.weight_u.numpy(), layer.weight_v.numpy(), random(4, 3)
    sigma = v @ W @ u
    np.testing.assert_allclose(
        layer.weight_orig.grad.numpy(), c / sigma - (c * W).sum() / sigma**2 * np.outer(v, u), rtol=1e-12
    )


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 4, 5)])
def test_batch_norm_statistics_are_unbiased_and_exact(shape):
    layer, x = layers.BatchNorm(shape[1], momentum=0.999), random(*shape)
    out = layer(paddle.to_tensor(x)).numpy()
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    np.testing.assert_allclose(layer._mean.numpy(), 0.001 * x.mean(axes), rtol=1e-12)
    np.testing.assert_allclose(layer._variance.numpy(), 0.999 + 0.001 * x.var(axes, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(out.mean(axes), 0, atol=1e-12)
    np.testing.assert_allclose(out.var(axes), 1, rtol=1e-4)
    layer.eval()
    running = layer._mean.numpy()
    layer(paddle.to_tensor(x))
    assert (layer._mean.numpy() == running).all()


def test_conditional_batch_norm_uses_the_class_of_each_sample():
    layer = filled(layers.ConditionalBatchNorm(3, 4))
    layer.eval()
    layer.bn._mean.set_value(np.zeros(3))
    layer.bn._variance.set_value(np.ones(3))
    x, labels = random(2, 3, 4, 4), np.array([3, 1])
    table = layer.embed.weight.numpy()[labels].reshape(2, 6, 1, 1)
    expected = table[:, :3] * x / np.sqrt(1 + 1e-5) + table[:, 3:]
    np.testing.assert_allclose(layer(paddle.to_tensor(x), paddle.to_tensor(labels)).numpy(), expected, rtol=1e-9)


def test_attention_follows_the_papers_equations():
    layer = filled(layers.SelfAttention(8))
    layer.eval()
    x = random(2, 8, 4, 6)

    def project(conv, value):
        weight = conv.weight().numpy()[:, :, 0, 0]
        return np.einsum("oc,nchw->nohw", weight, value) + conv.bias.numpy()[:, None, None]

    def pooled(value):
        n, c, h, w = value.shape
        return value.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5)).reshape(n, c, -1)

    query = project(layer.theta, x).reshape(2, 1, -1)
    scores = np.einsum("nci,ncj->nij", query, pooled(project(layer.phi, x)))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    attended = np.einsum("nij,ncj->nci", weights, pooled(project(layer.g, x))).reshape(2, 4, 4, 6)
    expected = x + layer.gamma.numpy() * project(layer.out, attended)
    np.testing.assert_allclose(layer(paddle.to_tensor(x)).numpy(), expected, rtol=1e-10)
    twice = layers.SelfAttention(8, twice_differentiable=True)
    twice.set_state_dict(layer.state_dict())
    twice.eval()
    np.testing.assert_allclose(twice(paddle.to_tensor(x)).numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("spatial", [False, True])
def test_dropout_drops_its_share_and_scales_the_rest(spatial):
    layer, x = layers.Dropout(0.25, spatial), paddle.ones([200, 50, 4, 4])
    out = layer(x).numpy()
    assert set(np.unique(out)) == {0, 1 / 0.75}
    dropped = (out == 0).mean((2, 3))
    assert set(np.unique(dropped)) == {0, 1} if spatial else len(np.unique(dropped)) > 2
    np.testing.assert_allclose(dropped.mean(), 0.25, atol=0.02)
    layer.eval()
    assert layer(x) is x


def test_dropout_of_nearly_all_activations():
    layer = layers.Dropout(0.999999)
    layer.sources = [np.random.default_rng(row) for row in range(4)]
    factors = np.unique(layer(paddle.ones([4, 50_000])).numpy())
    assert factors.tolist() == [0, 2**16]


@pytest.mark.parametrize(("momenta", "expected"), [((0.9,), 22), ((0.9, 0.99), 230), ((0.999, 0.9), 2302)])
def test_forwards_to_settle_leave_a_tenth_of_the_first_statistics(momenta, expected):
    """After so many batches of mean 0, less than a tenth of the first mean is left, and not one batch earlier."""
    network = paddle.nn.Sequential(*(layers.BatchNorm(3, momentum) for momentum in momenta))
    forwards = layers.forwards_to_settle(network)
    assert forwards == pytest.approx(expected, abs=1)
    slowest = max(network, key=lambda norm: norm.momentum)
    slowest._mean.set_value(np.ones(3))
    batch = paddle.to_tensor(np.array([[-1.0] * 3, [1.0] * 3]))
    left = []
    for _ in range(forwards):
        slowest(batch)
        left.append(slowest._mean.numpy().max())
    assert left[-1] < 0.1 <= left[-2]
