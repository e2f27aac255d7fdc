"""Inception Score (Salimans et al., *Improved Techniques for Training GANs*, NeurIPS 2016, section 4)."""

import numpy as np
import scipy  # loads scipy.special only at its first use

from metrics.record import ANY_DATA, SAMPLES, Figure, Metric
from utils import UserError


class ScoreSums:
    """The Inception Score of samples that arrive in any order. Memory does not grow with their number.

    The whole state is three sums per split: `counts` (int64 [splits]), `probabilities` (float64 [splits, classes], the
    sum of p(y|x)) and `negentropies` (float64 [splits], the sum of p(y|x) log p(y|x) over samples and classes). So the
    score does not depend on batches and processes, except for rounding.
    """

    def __init__(self, classes, splits=10):
        self.counts = np.zeros(splits, dtype=np.int64)
        self.probabilities = np.zeros((splits, classes))
        self.negentropies = np.zeros(splits)

    def update(self, logits, split):
        """Add samples with `logits` float [N, classes]. `split` int [N] is that of each, as `split_of` computes it.

        Raises UserError for another number of classes or a NaN.
        """
        logits = np.asarray(logits, dtype=np.float64)
        if logits.ndim != 2 or logits.shape[1] != self.probabilities.shape[1]:
            raise UserError(
                f"the Inception Score needs logits [N, {self.probabilities.shape[1]}], not {list(logits.shape)}"
            )
        if not np.isfinite(logits).all():
            raise UserError("the logits hold a NaN or an infinity, so they have no Inception Score")
        log_conditional = scipy.special.log_softmax(logits, axis=1)
        conditional = np.exp(log_conditional)
        np.add.at(self.counts, split, 1)
        np.add.at(self.probabilities, split, conditional)
        np.add.at(self.negentropies, split, np.sum(conditional * log_conditional, axis=1))

    def merge(self, other):
        """Add the samples of another ScoreSums of the same classes and splits, such as another process's."""
        if other.probabilities.shape != self.probabilities.shape:
            raise UserError(
                f"Inception Scores over {list(other.probabilities.shape)} and {list(self.probabilities.shape)} splits "
                "and classes cannot be merged"
            )
        self.counts += other.counts
        self.probabilities += other.probabilities
        self.negentropies += other.negentropies

    def state(self):
        """The state as a dict of arrays, to save or send. `from_state` reads it."""
        return {"counts": self.counts, "probabilities": self.probabilities, "negentropies": self.negentropies}

    @classmethod
    def from_state(cls, state):
        """The ScoreSums with this `state()`. Raises UserError if the arrays do not fit."""
        sums = cls(*np.shape(state["probabilities"])[::-1])
        for name, own in sums.state().items():
            if np.shape(state[name]) != own.shape:
                raise UserError(
                    f"saved sums of the Inception Score do not fit: {name} is {list(np.shape(state[name]))}"
                )
            own[:] = state[name]
        return sums

    def result(self):
        """The score, as `inception_score` returns it. Raises UserError if a split has no sample."""
        if not self.counts.all():
            raise UserError(
                f"the Inception Score over {len(self.counts)} splits needs at least one sample a split, "
                f"not {self.counts.sum()} in all"
            )
        marginal = self.probabilities / self.counts[:, None]
        # The mean divergence is the entropy of the marginal minus the mean entropy of the conditionals.
        divergences = self.negentropies / self.counts - scipy.special.xlogy(marginal, marginal).sum(axis=1)
        scores = np.exp(divergences)
        return {"inception_score": float(scores.mean()), "inception_score_std": float(scores.std())}


def split_of(indices, count, splits):
    """The split of each sample index int [N], when `count` samples are cut into `splits` contiguous ones: int64 [N].

    Split k begins at sample k·count // splits. So the sizes of the splits differ by at most one.
    """
    return ((np.asarray(indices, dtype=np.int64) + 1) * splits - 1) // count


def inception_score(logits, splits=10):
    """exp(E_x KL(p(y|x) || p(y))) of each of `splits` contiguous splits of the samples, in the order given.

    The published scores are the mean and the (population) standard deviation over 10 splits of 5,000 samples. If
    samples are ordered by class, each split has few classes, which lowers the score: shuffle them first.

    Args:
        logits: float [N, classes], of the classifier before its softmax; computed in float64.
        splits: int, at least 1, number of splits.

    Returns:
        {"inception_score": float, "inception_score_std": float}.

    Raises:
        UserError: no [N, classes], a NaN, or fewer samples than splits.
    """
    logits = np.asarray(logits)
    if logits.ndim != 2:
        raise UserError(f"the Inception Score needs logits [N, classes], not {list(logits.shape)}")
    sums = ScoreSums(logits.shape[1], splits)
    sums.update(logits, split_of(np.arange(len(logits)), len(logits), splits))
    return sums.result()


SPLITS = 10  # splits of the samples, as published

METRICS = (
    Metric(
        "is",
        (
            Figure("inception_score", "Inception Score", ".4f", "classifier_score", "classifier score"),
            Figure(
                "inception_score_std",
                f"Inception Score, standard deviation over {SPLITS} splits",
                ".4f",
                "classifier_score_std",
                f"classifier score, standard deviation over {SPLITS} splits",
            ),
        ),
        lambda sets: sets.samples.score,
        order=30,
        sets=(SAMPLES,),
        logits=True,
        fewest=SPLITS,
        higher_is_better=True,
        auto=ANY_DATA,
    ),
)
