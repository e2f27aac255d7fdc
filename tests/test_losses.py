"""Losses against their equations in NumPy, and the penalty's gradient against finite differences."""

import numpy as np
import paddle
import pytest

import losses
import sagan_models
from layers import SelfAttention

REAL, FAKE = np.array([2.0, -0.5, 0.3]), np.array([-3.0, 1.5, 0.2])


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


@pytest.mark.parametrize(
    ("name", "real", "fake", "generator"),
    [
        ("hinge", np.maximum(0, 1 - REAL), np.maximum(0, 1 + FAKE), -FAKE),
        ("wgan_gp", -REAL, FAKE, -FAKE),
        ("dcgan", -log_sigmoid(REAL), -log_sigmoid(-FAKE), -log_sigmoid(FAKE)),
        ("gan", -log_sigmoid(REAL), -log_sigmoid(-FAKE), log_sigmoid(-FAKE)),
    ],
)
def test_adversarial_losses_equal_their_equations(name, real, fake, generator):
    real_logits, fake_logits = paddle.to_tensor(REAL), paddle.to_tensor(FAKE)
    np.testing.assert_allclose(float(losses.discriminator_loss(name, real_logits, True)), real.mean(), rtol=1e-12)
    np.testing.assert_allclose(float(losses.discriminator_loss(name, fake_logits, False)), fake.mean(), rtol=1e-12)
    np.testing.assert_allclose(float(losses.generator_loss(name, fake_logits)), generator.mean(), rtol=1e-12)


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_cross_entropy_does_not_saturate(logit):
    """A sigmoid before the logarithm would make this loss infinite, or its gradient 0, in float32."""
    logits = paddle.to_tensor([logit], dtype="float32", stop_gradient=False)
    loss = losses.generator_loss("dcgan", logits)
    loss.backward()
    assert float(loss) == max(0.0, -logit)
    assert logits.grad.item() == (-1 if logit < 0 else 0)


def test_class_loss_is_the_cross_entropy_of_a_softmax():
    logits, labels = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]]), np.array([1, 0])
    expected = np.log(np.exp(logits).sum(1)) - logits[[0, 1], labels]
    loss = losses.class_loss(paddle.to_tensor(logits), paddle.to_tensor(labels))
    np.testing.assert_allclose(float(loss), expected.mean(), rtol=1e-12)


@pytest.mark.parametrize("labels", [[0, 1, 2, 1, 0], [3, 3, 3, 3, 3]])  # the second has no negatives
@pytest.mark.parametrize(("temperature", "margin"), [(0.5, 0.98), (0.001, 0.3)])
def test_d2d_ce_is_the_equation_of_its_paper(labels, temperature, margin):
    """Image by image, in NumPy. At a small temperature the exponentials overflow unless they are shifted."""
    rng = np.random.default_rng(0)
    embeddings, proxies = rng.standard_normal((5, 3)), rng.standard_normal((4, 3))
    losses_of_images = []
    for i, label in enumerate(labels):

        def cosine(vector, image=embeddings[i]):
            return vector @ image / np.linalg.norm(vector) / np.linalg.norm(image)

        positive = np.longdouble(min(cosine(proxies[label]) - margin, 0) / temperature)
        negatives = [max(cosine(embeddings[j]) - (1 - margin), 0) for j in range(5) if labels[j] != label]
        others = sum(np.exp(np.longdouble(n / temperature)) for n in negatives)
        losses_of_images.append(-np.log(np.exp(positive) / (np.exp(positive) + others)))
    tensors = [paddle.to_tensor(array, stop_gradient=False) for array in (embeddings, proxies)]
    loss = losses.d2d_ce(*tensors, paddle.to_tensor(labels), temperature, margin)
    np.testing.assert_allclose(float(loss), float(np.mean(losses_of_images)), rtol=1e-12, atol=1e-300)
    loss.backward()
    assert all(np.isfinite(tensor.grad.numpy()).all() for tensor in tensors)


def test_d2d_ce_does_not_depend_on_the_lengths_and_survives_zeros():
    rng = np.random.default_rng(0)
    embeddings, proxies, labels = (
        rng.standard_normal((4, 3)),
        rng.standard_normal((2, 3)),
        paddle.to_tensor([0, 1, 1, 0]),
    )
    plain = losses.d2d_ce(paddle.to_tensor(embeddings), paddle.to_tensor(proxies), labels, 0.5, 0.98)
    scaled = losses.d2d_ce(paddle.to_tensor(7 * embeddings), paddle.to_tensor(proxies / 9), labels, 0.5, 0.98)
    np.testing.assert_allclose(float(scaled), float(plain), rtol=1e-12)
    zeros = paddle.zeros([4, 3])
    zeros.stop_gradient = False
    losses.d2d_ce(zeros, paddle.ones([2, 3]), labels, 0.5, 0.98).backward()
    assert np.isfinite(zeros.grad.numpy()).all()


def test_penalty_of_a_linear_critic_equals_its_closed_form():
    """For D(x) = w·x the gradient is w everywhere."""
    w = np.random.default_rng(0).standard_normal((3, 4, 4))

    def critic(images, labels):
        return (images * paddle.to_tensor(w)).sum([1, 2, 3]), None

    real, fake = (paddle.to_tensor(np.random.default_rng(s).standard_normal((5, 3, 4, 4))) for s in (1, 2))
    penalty = losses.gradient_penalty(critic, real, fake, None, paddle.full([5, 1, 1, 1], 0.3, "float64"))
    np.testing.assert_allclose(float(penalty), (np.linalg.norm(w) - 1) ** 2, rtol=1e-12)


@pytest.fixture
def double():
    paddle.set_default_dtype("float64")
    yield
    paddle.set_default_dtype("float32")


@pytest.mark.slow
def test_penalty_gradient_through_attention_equals_finite_differences(make_parameters, double):
    """The penalty's derivative by D's weights, attention included, against central differences in float64."""
    p = make_parameters("sagan", imsize=32, attention_size=16, adv_loss="wgan_gp", d_conv_dim=8)
    D = sagan_models.build_discriminator(p)
    D.eval()  # no power iteration: the penalty is a function of the weights alone
    assert isinstance(D.attention, SelfAttention)
    D.attention.gamma.set_value(np.full(1, 0.7))
    rng = np.random.default_rng(0)
    real, fake = (paddle.to_tensor(rng.standard_normal((2, 3, 32, 32))) for _ in range(2))
    labels, alpha = paddle.to_tensor([1, 3]), paddle.to_tensor(rng.random((2, 1, 1, 1)))

    def penalty():
        return losses.gradient_penalty(D, real, fake, labels, alpha)

    penalty().backward()
    for weight in (D.attention.theta.weight_orig, D.attention.phi.weight_orig, D.attention.g.weight_orig):
        value, direction = weight.numpy(), rng.standard_normal(weight.shape)
        ends = []
        for sign in (1, -1):
            weight.set_value(value + sign * 1e-5 * direction)
            ends.append(float(penalty()))
        weight.set_value(value)
        slope = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(slope, (weight.grad.numpy() * direction).sum(), rtol=1e-5)
