"""Adversarial and class losses on logits, and the gradient penalty."""

import paddle
import paddle.nn.functional as F

import operations


def discriminator_loss(adv_loss, logits, real):
    """D's adversarial loss from its logits [N] on images that are all real, or all generated. A scalar mean.

    hinge: SAGAN equation 4. dcgan and gan: binary cross-entropy (Goodfellow et al., NeurIPS 2014, equation 1).
    wgan_gp: the mean logit (Gulrajani et al., NeurIPS 2017, equation 3), without `gradient_penalty`.
    """
    if adv_loss == "hinge":
        return F.relu(1 - logits if real else 1 + logits).mean()
    if adv_loss == "wgan_gp":
        return -logits.mean() if real else logits.mean()
    return _cross_entropy(logits, float(real))


def generator_loss(adv_loss, fake_logits):
    """G's adversarial loss from D's logits [N] on generated images. It is a scalar mean over the batch.

    dcgan: the non-saturating -log D(G(z)). gan: the minimax log(1 - D(G(z))), which saturates while D is much better
    than G. hinge, wgan_gp: -D(G(z)).
    """
    if adv_loss == "dcgan":
        return _cross_entropy(fake_logits, 1.0)
    if adv_loss == "gan":
        return -_cross_entropy(fake_logits, 0.0)
    return -fake_logits.mean()


def class_loss(class_logits, labels):
    """Mean cross-entropy of class logits [N, num_classes] with labels int64 [N] (ACGAN section 3, L_C), a scalar."""
    return F.cross_entropy(class_logits, labels)


def gradient_penalty(discriminator, real, fake, labels, alpha, counts=True):
    """Mean of (‖∇D(x)‖₂ - 1)² at x = alpha·real + (1 - alpha)·fake (Gulrajani et al. 2017, equation 3), a scalar.

    `real`, `fake`: [N, C, H, W]; `labels` int64 [N]; `alpha` in [0, 1], [N, 1, 1, 1]. `counts` is False for padding
    rows, which must not change other processes' gradients through synchronised batch norm.
    """
    mixed = (alpha * real + (1 - alpha) * fake).detach()
    mixed.stop_gradient = False
    with operations.plain_forms():  # only they have second derivatives
        logits, _ = discriminator(mixed, labels)
    (gradient,) = paddle.grad(float(counts) * logits.sum(), mixed, create_graph=True)
    # The offset 1e-16 keeps the derivative of the square root finite if the gradient is exactly 0.
    norm = paddle.sqrt((gradient * gradient).sum([1, 2, 3]) + 1e-16)
    return ((norm - 1) ** 2).mean()


def _cross_entropy(logits, target):
    return F.binary_cross_entropy_with_logits(logits, paddle.full_like(logits, target))
