"""The fast forms of operations against their plain definitions: values and gradients."""

import contextlib
import re
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

import operations
from processes.groups import Alone, Member, Team


def random(*shape):
    return paddle.to_tensor(np.random.default_rng(sum(shape)).standard_normal(shape))


def leaves(*shapes):
    tensors = [random(*shape) for shape in shapes]
    for tensor in tensors:
        tensor.stop_gradient = False
    return tensors


def results(operation, *shapes):
    """The output of `operation` on random tensors, and its gradients for a random direction."""
    tensors = leaves(*shapes)
    # A fast form may change its input. So the input is not a leaf.
    out = operation(*(tensor * 1 for tensor in tensors))
    (out * random(*out.shape)).sum().backward()
    return [out.numpy(), *(tensor.grad.numpy() for tensor in tensors)]


def assert_fast_equals_plain(operation, *shapes):
    fast = results(operation, *shapes)
    with operations.plain_forms():
        plain = results(operation, *shapes)
    for ours, theirs in zip(fast, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("operation", "shapes"),
    [
        (operations.add_bias, [(2, 3, 4, 6), (3,)]),
        (operations.double, [(2, 3, 4, 6)]),
        (operations.mean_pool, [(2, 3, 4, 6)]),
        (lambda x, w, b: operations.conv(x, w, b, padding=1), [(2, 3, 4, 4), (5, 3, 3, 3), (5,)]),
        (lambda x, w, b: operations.conv(x, w, b, padding=1, stride=2), [(2, 3, 8, 8), (5, 3, 3, 3), (5,)]),
        (lambda x, w, b: operations.conv_transpose(x, w, b, padding=1, stride=2), [(2, 3, 4, 4), (3, 5, 4, 4), (5,)]),
    ],
)
def test_a_fast_form_equals_its_plain_form(operation, shapes):
    assert_fast_equals_plain(operation, *shapes)


@pytest.mark.parametrize("size", [1, 2, 4, 5, 8, 9])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (4, 2, 1), (1, 1, 0)])
def test_convolutions_of_few_pixels_equal_their_plain_form(size, kernel, stride, padding):
    """On both sides of the resolution up to which one product computes all images; pairs of numbers too."""
    if size + 2 * padding >= kernel:
        conv = lambda x, w, b: operations.conv(x, w, b, padding, [stride, stride])  # noqa: E731
        assert_fast_equals_plain(conv, (3, 4, size, size), (5, 4, kernel, kernel), (5,))
    if (size - 1) * stride - 2 * padding + kernel > 1:  # Paddle 2 has no smaller output
        transposed = lambda x, w, b: operations.conv_transpose(x, w, b, [padding, padding], stride)  # noqa: E731
        assert_fast_equals_plain(transposed, (3, 4, size, size), (4, 5, kernel, kernel), (5,))


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("size", [4, 8, 16, 32])
@pytest.mark.parametrize("fast", [True, False])
def test_resampling_convolutions_equal_their_definition(kernel, size, fast):
    def up(x, weight, bias):
        return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=kernel // 2)

    def down(x, weight, bias):
        return F.avg_pool2d(F.conv2d(x, weight, bias, padding=kernel // 2), 2)

    shapes = [(2, 3, size, size), (5, 3, kernel, kernel), (5,)]
    for operation, definition in ((operations.upsample_conv, up), (operations.conv_pool, down)):
        with contextlib.nullcontext() if fast else operations.plain_forms():
            ours = results(operation, *shapes)
        for value, expected in zip(ours, results(definition, *shapes), strict=True):
            np.testing.assert_allclose(value, expected, atol=1e-11)


def normalised(x, scale, shift, epsilon=0.125):
    """Batch norm by its definition."""
    axes = [0, *range(2, x.ndim)]
    mean = x.mean(axes, keepdim=True)
    variance = ((x - mean) ** 2).mean(axes, keepdim=True)
    values = [tensor.reshape([*tensor.shape, *[1] * (x.ndim - 2)]) for tensor in (scale, shift)]
    return values[0] * (x - mean) / paddle.sqrt(variance + epsilon) + values[1]


@pytest.mark.parametrize(("shape", "matrix"), [((5, 3, 3, 3), (5, 27)), ((6, 4), (6, 4))])
def test_spectral_norm_and_its_gradient_equal_the_definition(shape, matrix):
    rows, columns = random(matrix[0]), random(matrix[1])
    assert_fast_equals_plain(lambda weight: operations.spectrally_normalised(weight, rows, columns), shape)


def test_a_forward_without_a_backward_frees_its_memory():
    weight = paddle.zeros([1024, 1024], "float32")  # 4 MiB
    weight.stop_gradient = False
    x = paddle.zeros([64, 64, 16, 16])
    bias, scale = paddle.ones([64]), paddle.ones([1, 64])
    for tensor in (x, bias, scale):
        tensor.stop_gradient = False

    def memory():
        return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024

    def forward():
        operations.spectrally_normalised(weight, paddle.ones([1024]), paddle.ones([1024]))
        out, _, _ = operations.batch_norm(operations.add_bias(x * 1, bias), scale, scale, None, 0.125, Alone())
        operations.mean_pool(operations.double(out))

    forward()
    before = memory()
    for _ in range(20):
        forward()
    assert memory() < before + 40


@pytest.mark.parametrize("pixels", [(), (4, 5), (1, 1)])
@pytest.mark.parametrize("rows", [1, 6])
def test_batch_norm_and_its_gradients_equal_the_definition(pixels, rows):
    shapes = [(6, 3, *pixels), (rows, 3), (rows, 3)]
    ours = results(lambda *args: operations.batch_norm(*args, None, 0.125, Alone())[0], *shapes)
    for value, expected in zip(ours, results(normalised, *shapes), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-10)


def test_a_bias_before_a_batch_norm_changes_only_the_mean():
    x, scale, shift, bias = leaves((4, 3, 2, 2), (1, 3), (1, 3), (3,))
    plain, mean, variance = operations.batch_norm(x, scale, shift, None, 0.125, Alone())
    out, biased_mean, same_variance = operations.batch_norm(x, scale, shift, bias, 0.125, Alone())
    assert (out.numpy() == plain.numpy()).all() and (variance.numpy() == same_variance.numpy()).all()
    np.testing.assert_allclose(biased_mean.numpy(), (mean + bias).numpy())
    out.sum().backward()
    assert (bias.grad.numpy() == 0).all()


def test_a_team_normalises_as_one_thread_does():
    whole = results(lambda *args: operations.batch_norm(*args, None, 0.125, Alone())[0], (7, 3, 4, 4), (7, 3), (7, 3))
    cuts = [slice(0, 2), slice(2, 4), slice(4, 7)]
    team = Team(3, rows=7)
    tensors, direction = [random(7, 3, 4, 4), random(7, 3), random(7, 3)], random(7, 3, 4, 4)
    inputs = [[tensor[cut].clone() for tensor in tensors] for cut in cuts]

    def work(member):
        for tensor in inputs[member]:
            tensor.stop_gradient = False
        out, *statistics = operations.batch_norm(*inputs[member], None, 0.125, Member(team, member))
        (out * direction[cuts[member]]).sum().backward()
        return [out.numpy(), *(tensor.grad.numpy() for tensor in inputs[member])], [s.numpy() for s in statistics]

    found = team.run(work)
    for values, expected in zip(zip(*(out for out, _ in found), strict=True), whole, strict=True):
        np.testing.assert_allclose(np.concatenate(values), expected, rtol=1e-11, atol=1e-12)
    for statistics in zip(*(statistics for _, statistics in found), strict=True):
        assert all((values == statistics[0]).all() for values in statistics)


def test_an_error_of_one_member_ends_the_team():
    team = Team(2, rows=2)

    def work(member):
        if member == 1:
            raise ValueError("a bad row")
        team.add_up(member, paddle.ones([1]))

    with pytest.raises(ValueError, match="a bad row"):
        team.run(work)


def test_plain_forms_have_second_derivatives():
    x, weight, bias = leaves((2, 3, 4, 4), (3, 3, 3, 3), (3,))
    with operations.plain_forms():
        out = (operations.conv(x, weight, bias, padding=1) ** 2).sum()
        (gradient,) = paddle.grad(out, x, create_graph=True)
        (gradient**2).sum().backward()
    assert np.isfinite(weight.grad.numpy()).all() and (weight.grad.numpy() != 0).any()
