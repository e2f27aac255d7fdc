"""Every network at every size: shapes, ranges, gradient flow, initial weights."""

import numpy as np
import paddle
import pytest

import acgan_models
from checkpoint import models_of
from utils import UserError

SIZES = [("sagan", size) for size in (16, 32, 64, 128)] + [
    ("sagan-cifar10", 32),
    ("acgan-imagenet", 128),
    ("acgan-imagenet-torch", 128),
    ("acgan-cifar10", 32),
    ("acgan-mnist", 32),
    ("acgan-mnist", 16),
    ("acgan-mlp", 32),
    ("acgan-digits", 16),
]


def build(parameters):
    models = models_of(parameters)
    return models.build_generator(parameters), models.build_discriminator(parameters)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("model", "size"), SIZES)
def test_shapes_and_ranges(make_parameters, model, size, channels):
    dataset = "mnist" if channels == 1 else "fake"
    p = make_parameters(model, imsize=size, attention_size=min(32, size // 2), dataset=dataset)
    G, D = build(p)
    labels = paddle.to_tensor([0, 4, 2])
    images = G(paddle.randn([3, p.z_dim]), labels)
    assert list(images.shape) == [3, channels, size, size]
    assert np.abs(images.numpy()).max() <= 1
    logits, class_logits = D(images, labels)
    assert list(logits.shape) == [3]
    if p.is_sagan:
        assert class_logits is None
    else:
        assert list(class_logits.shape) == [3, p.num_classes]


@pytest.mark.parametrize(("model", "size"), SIZES)
def test_gradients_reach_every_parameter(make_parameters, model, size):
    p = make_parameters(model, imsize=size, attention_size=min(32, size // 2))
    G, D = build(p)
    for network in (G, D):
        for name, weight in network.named_parameters():
            if name.endswith("gamma"):  # with gamma 0 the attention's weights get no gradient
                weight.set_value(np.ones(1, "float32"))
    labels = paddle.to_tensor(np.arange(5))
    logits, class_logits = D(G(paddle.randn([5, p.z_dim]), labels), labels)
    loss = logits.square().sum() if class_logits is None else logits.square().sum() + class_logits.square().sum()
    loss.backward()
    for network in (G, D):
        assert [name for name, weight in network.named_parameters() if weight.grad is None] == []
        still = [name for name, weight in network.named_parameters() if not np.abs(weight.grad.numpy()).max() > 0]
        # A batch norm removes the effect of a bias before it. The gradient of that bias is only rounding.
        assert [name for name in still if not name.endswith("bias")] == []


@pytest.mark.parametrize("model", ["sagan", "sagan-cifar10", "acgan-cifar10", "acgan-mnist", "acgan-mlp"])
def test_discriminators_for_d2d_ce_return_embeddings_and_proxies(make_parameters, model):
    p = make_parameters(model, class_loss="d2d_ce", d2d_embed_dim=7)
    _, D = build(p)
    D.eval()  # without dropout
    images = paddle.randn([3, 3, p.imsize, p.imsize])
    logits, (embeddings, proxies) = D(images, paddle.to_tensor([0, 4, 2]))
    assert (list(logits.shape), list(embeddings.shape), list(proxies.shape)) == ([3], [3, 7], [5, 7])
    other, _ = D(images, paddle.to_tensor([1, 1, 1]))
    assert (other.numpy() == logits.numpy()).all(), "the score depends on the labels"


def test_blocks_for_cifar10_are_those_of_the_field(make_parameters):
    p = make_parameters("sagan-cifar10", g_conv_dim=32, d_conv_dim=16, z_dim=128)
    G, D = build(p)
    assert G.linear.weight_orig.shape == [128, 16 * 32]
    assert [block.conv1.weight_orig.shape[:2] for block in G.blocks] == [[32, 32]] * 3
    assert [block.conv1.weight_orig.shape[:2] for block in D.blocks] == [[16, 3], *[[16, 16]] * 3]
    assert [hasattr(block, "shortcut") for block in D.blocks] == [True, True, False, False]
    sizes = []
    for network in (G, D):
        network.attention.register_forward_pre_hook(lambda layer, inputs: sizes.append(inputs[0].shape[1:]))
    D(G(paddle.randn([2, 128]), paddle.to_tensor([0, 1])), paddle.to_tensor([0, 1]))
    assert sizes == [[32, 16, 16], [16, 16, 16]]


def test_widths_at_128_pixels_are_those_of_the_paper(make_parameters):
    p = make_parameters("sagan", imsize=128, g_conv_dim=64, d_conv_dim=64, num_classes=1000, z_dim=128)
    G, D = build(p)
    assert [block.conv1.weight_orig.shape[0] // 64 for block in G.blocks] == [16, 8, 4, 2, 1]
    assert [block.conv1.weight_orig.shape[0] // 64 for block in D.blocks] == [1, 2, 4, 8, 16, 16]
    assert G.attention.theta.weight_orig.shape[:2] == [4 * 64 // 8, 4 * 64]
    assert D.attention.theta.weight_orig.shape[:2] == [2 * 64 // 8, 2 * 64]
    assert G.linear.weight_orig.shape == [128, 16 * 64 * 16]


def test_initial_weights_follow_the_paper_and_the_seed(make_parameters):
    p = make_parameters("sagan")
    G, D = build(p)
    assert G.attention.gamma.item() == 0 and D.attention.gamma.item() == 0
    norm = G.blocks[0].cond_bn1
    assert (norm.embed.weight.numpy() == np.repeat([1, 0], norm.features)).all()
    weight = D.blocks[1].conv1.weight_orig.numpy()
    bound = np.sqrt(6 / ((weight.shape[0] + weight.shape[1]) * 9))
    assert 0.9 * bound < np.abs(weight).max() <= bound
    assert (D.linear.bias.numpy() == 0).all()
    again, _ = build(p)
    assert all((a.numpy() == b.numpy()).all() for a, b in zip(G.parameters(), again.parameters(), strict=True))
    other, _ = build(make_parameters("sagan", manual_seed=30))
    assert (G.linear.weight_orig.numpy() != other.linear.weight_orig.numpy()).any()


def test_images_depend_on_the_class(make_parameters):
    for model in ("acgan-imagenet", "acgan-cifar10", "acgan-mnist", "acgan-mlp", "acgan-digits"):
        G, _ = build(make_parameters(model))
        images = G(paddle.randn([1, 20]).tile([5, 1]), paddle.arange(5)).numpy()
        assert all(np.abs(images[0] - image).max() > 0.1 * images.std() for image in images[1:]), model


def test_z_dim_too_small_for_the_classes_is_refused(make_parameters):
    with pytest.raises(UserError, match="--z_dim 10 has no room"):
        acgan_models.build_generator(make_parameters("acgan-cifar10", z_dim=10, num_classes=10))


def test_initial_weights_of_the_tutorial_are_small(make_parameters):
    """With an embedding of N(0, 1), which Adam hardly moves, the classes would stay alike for long."""
    for network in build(make_parameters("acgan-mnist", g_conv_dim=64, d_conv_dim=64)):
        for name, weight in network.named_parameters():
            values = weight.numpy()
            if name.endswith("bias"):
                assert (values == 0).all()
            else:
                np.testing.assert_allclose(values.std(), 0.02, rtol=0.25)
                np.testing.assert_allclose(values.mean(), 1 if "norm" in name else 0, atol=0.01)
