"""Inception Score (Salimans et al., *Improved Techniques for Training GANs*, NeurIPS 2016, section 4)."""

import numpy as np
from scipy.special import log_softmax, logsumexp

from utils import UserError


def inception_score(logits, splits=10):
    """exp(E_x KL(p(y|x) || p(y))) over `splits` contiguous parts of the samples, in the order given.

    The published scores are the mean and the (population) standard deviation over 10 parts of 5,000 samples. Samples
    ordered by class make each part poor in classes, which lowers the score: shuffle them first.

    Args:
        logits: float [N, classes], of the classifier before its softmax; computed in float64.
        splits: int, number of parts.

    Returns:
        {"inception_score": float, "inception_score_std": float}.

    Raises:
        UserError: no [N, classes], a NaN, or fewer samples than parts.
    """
    logits = np.asarray(logits)
    if logits.ndim != 2:
        raise UserError(f"the Inception Score needs logits [N, classes], not {list(logits.shape)}")
    count = len(logits)
    if not 1 <= splits <= count:
        raise UserError(f"the Inception Score over {splits} parts needs at least one sample a part, not {count} in all")
    if not np.isfinite(logits).all():
        raise UserError("the logits hold a NaN or an infinity, so they have no Inception Score")
    scores = []
    for part in range(splits):
        chunk = logits[part * count // splits : (part + 1) * count // splits]
        log_conditional = log_softmax(chunk.astype(np.float64), axis=1)
        log_marginal = logsumexp(log_conditional, axis=0) - np.log(len(chunk))
        divergence = np.sum(np.exp(log_conditional) * (log_conditional - log_marginal), axis=1)
        scores.append(np.exp(divergence.mean()))
    return {"inception_score": float(np.mean(scores)), "inception_score_std": float(np.std(scores))}
