"""Adversarial losses on logits, class losses, and the gradient penalty."""

import paddle
import paddle.nn.functional as F

import operations
from processes.groups import Alone


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


def d2d_ce(embeddings, proxies, labels, temperature, margin, group=None):
    """The data-to-data cross-entropy of ReACGAN (Kang et al., *Rebooting ACGAN*, NeurIPS 2021, equation 7), a scalar.

    The mean over the images i of -log(exp(p_i) / (exp(p_i) + Σ_j exp(n_ij))), where j are the images of other classes:

    - p_i = min(cos(image i, its class) - margin, 0) / temperature,
    - n_ij = max(cos(image i, image j) - (1 - margin), 0) / temperature.

    `embeddings` [N, E] of images, `proxies` [num_classes, E], one of each class, `labels` int64 [N]. The images j are
    those of `group`, an object of `processes.groups`; left out: those of `embeddings`.
    """
    group = group or Alone()
    images = _unit(embeddings)
    # As tensors, because Paddle 2 rounds numbers to float32.
    temperature, margin = (paddle.full([1], value, images.dtype) for value in (temperature, margin))
    others, their_labels = operations.gather(images, group), operations.gather(labels, group)
    positive = (images * _unit(F.embedding(labels, proxies))).sum(1, keepdim=True) - margin
    negative = paddle.matmul(images, others, transpose_y=True) - (1 - margin)
    positive, negative = -F.relu(-positive) / temperature, F.relu(negative) / temperature  # [N, 1], [N, M]
    same = (labels.unsqueeze(1) == their_labels.unsqueeze(0)).astype(images.dtype)
    logits = paddle.concat([positive, negative - 1e30 * same], axis=1)
    return (paddle.logsumexp(logits, axis=1, keepdim=True) - positive).mean()


def similarities(embeddings, proxies):
    """The cosines of `embeddings` [N, E] with `proxies` [num_classes, E]: [N, num_classes]."""
    return paddle.matmul(_unit(embeddings), _unit(proxies), transpose_y=True)


def _unit(vectors):
    """Rows [N, E] scaled to length 1. A row of zeros stays 0, with a finite gradient."""
    return vectors / paddle.sqrt((vectors * vectors).sum(1, keepdim=True) + 1e-24)


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
