"""Fréchet Inception Distance (Heusel et al., *GANs Trained by a Two Time-Scale Update Rule*, NeurIPS 2017, eq. 6)."""

import math
import zipfile
from typing import NamedTuple

import numpy as np
import scipy  # which loads scipy.linalg at its first use

from metrics.record import ANY_DATA, BOTH_SPLITS, LAST_LAYER, REAL, TRAINING, Figure, Metric
from utils import UserError, atomic_path, npy_header, told

# No published extractor is wider; a file that claims more would only take memory.
WIDEST = 4096
# A spread below this share of the traces, of which rounding may take 1e-12, is not sure of its seventh digit.
CANCELS = 1e-5


class Gaussian(NamedTuple):
    """What FID keeps of a set of images: its features' mean [width] and unbiased covariance [width, width], float64."""

    mean: np.ndarray
    covariance: np.ndarray


class FeatureStatistics:
    """Mean and covariance of features that arrive in batches, in memory that does not grow with their number.

    `count` (int), `mean` (float64 [width]) and `scatter` (float64 [width, width], the sum of outer products about
    the mean) are the whole state. Batches and other accumulators are joined by Chan, Golub and LeVeque's pairwise
    update (*Algorithms for computing the sample variance*, 1983, eq. 2.1), so no large sums are subtracted and any
    split of the same features gives the same covariance to rounding.
    """

    def __init__(self, width):
        self.count = 0
        self.mean = np.zeros(width)
        self.scatter = np.zeros((width, width))

    def update(self, features):
        """Add a batch of features [N, width], float32 or float64. Raises UserError for another width or a NaN."""
        features = _checked(features, len(self.mean))
        if len(features):
            mean = features.mean(axis=0)
            self._join(len(features), mean, features - mean)

    def merge(self, other):
        """Add what another FeatureStatistics of the same width has seen, in another process say."""
        if other.mean.shape != self.mean.shape:
            raise UserError(f"statistics of widths {len(self.mean)} and {len(other.mean)} cannot be merged")
        if other.count:
            self._join(other.count, other.mean, np.empty((0, len(self.mean))))
            self.scatter += other.scatter

    def _join(self, count, mean, deviations):
        total = self.count + count
        shift = mean - self.mean
        between = math.sqrt(self.count * count / total) * shift
        rows = np.vstack([deviations, between])
        self.scatter += rows.T @ rows
        self.mean += shift * (count / total)
        self.count = total

    def state(self):
        """The state as a dict of arrays, to be saved or sent; `from_state` is the way back."""
        return {"count": np.array(self.count), "mean": self.mean, "scatter": self.scatter}

    @classmethod
    def from_state(cls, state):
        """Statistics that go on from what `state()` returned. Raises UserError where the arrays do not fit."""
        count, mean, scatter = (np.array(state[name]) for name in ("count", "mean", "scatter"))
        if count.shape != () or mean.ndim != 1 or scatter.shape != 2 * mean.shape:
            raise UserError(f"saved statistics do not fit: mean {list(mean.shape)} and scatter {list(scatter.shape)}")
        statistics = cls(0)
        statistics.count, statistics.mean, statistics.scatter = int(count), mean, scatter
        return statistics

    def gaussian(self):
        """The Gaussian of the features seen so far, with numpy.cov's ddof=1. Raises UserError for fewer than two."""
        _has_covariance(self.count)
        return Gaussian(self.mean.copy(), self.scatter / (self.count - 1))


def gaussian_of(features):
    """The Gaussian of features [N, width] that are all there at once; raises UserError as FeatureStatistics does."""
    statistics = FeatureStatistics(features.shape[1])
    statistics.update(features)
    return statistics.gaussian()


def _checked(features, width):
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or features.shape[1] != width:
        raise UserError(f"features of shape {list(features.shape)} do not fit others of width {width}")
    if not np.isfinite(features).all():
        raise UserError("the features hold a NaN or an infinity, so they have no mean and no FID")
    return features


def _has_covariance(count):
    if count < 2:
        raise UserError(f"a covariance needs at least two samples, not {count}")


def fid(a, b):
    """Fréchet distance between two Gaussians.

    |mean_a - mean_b|² + tr(A) + tr(B) - 2 tr((A B)^½), equation 6 of the paper. With A = FᵀF and B = GᵀG the last
    trace is the sum of the singular values of F Gᵀ, so no matrix square root is needed, and where a covariance is
    singular (fewer samples than dimensions) F or G just has fewer rows.

    Args:
        a, b: Gaussian, of the same width.

    Returns:
        {"fid": float}, at least 0.

    Raises:
        UserError: the widths differ, or a covariance has a negative eigenvalue beyond rounding.
    """
    if a.mean.shape != b.mean.shape:
        raise UserError(
            f"statistics of widths {len(a.mean)} and {len(b.mean)} cannot be compared: FID needs features of one layer"
        )
    change = b.covariance - a.covariance
    spread = None
    if np.linalg.norm(change) < 0.01 * np.linalg.norm(a.covariance):
        spread = _transport_distance(a.covariance, change)
    if spread is None:
        spread = _full_rank_distance(a.covariance, b.covariance)
    if spread is None:
        rows_a, rows_b = _factor(a.covariance), _factor(b.covariance)
        spread = _factored_distance(rows_a, rows_b, _singular_values(rows_a @ rows_b.T))
    shift = a.mean - b.mean
    return {"fid": float(shift @ shift + spread)}


def fid_of_features(a, b):
    """FID between two sets of features.

    Of no more samples than dimensions the centred features themselves are F and G, and no covariance is made: of the
    fifty images of an ImageNet class that is more than a hundred times faster.

    Args:
        a, b: float32 or float64 [N, width], of the same width; at least two each.

    Returns:
        {"fid": float}, at least 0.

    Raises:
        UserError: fewer samples, widths that differ, or a NaN.
    """
    width = np.shape(a)[-1]
    a, b = _checked(a, width), _checked(b, width)
    if max(len(a), len(b)) > width:
        return fid(gaussian_of(a), gaussian_of(b))
    _has_covariance(min(len(a), len(b)))
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    rows_a, rows_b = (a - mean_a) / math.sqrt(len(a) - 1), (b - mean_b) / math.sqrt(len(b) - 1)
    spread = _factored_distance(rows_a, rows_b, np.linalg.svd(rows_a @ rows_b.T, compute_uv=False))
    return {"fid": float(np.sum((mean_a - mean_b) ** 2) + spread)}


def _transport_distance(covariance, change):
    """tr(A) + tr(B) - 2 tr((A B)^½) of nearly equal A and B = A + `change`, whose traces cancel to nothing.

    It is tr(T A T), a sum of squares, for the symmetric T with (I + T) A (I + T) = B, the optimal map from one Gaussian
    to the other being I + T (Givens and Shortt, *A class of Wasserstein metrics for probability distributions*, 1984).
    In A's eigenvectors T A + A T = B - A - T A T is solved element by element; from T = 0 a few rounds settle, each as
    much closer as T is small. None where they do not, or where B varies in directions that A has not.
    """
    values, vectors = np.linalg.eigh(covariance)
    noise = _rounding(values)
    if values[0] < -noise:
        return None
    roots = np.sqrt(np.where(values > noise, values, 0))
    sums = values[:, None] + values
    sums[(roots[:, None] == 0) & (roots == 0)] = np.inf
    rest = change = vectors.T @ change @ vectors
    transport, step = 0.0, 0.0
    for _ in range(8):
        before, transport = transport, rest / sums * roots
        distance = np.vdot(transport, transport)
        last, step = step, np.linalg.norm(transport - before)
        if step**2 <= 1e-9 * last * math.sqrt(distance):  # steps fall as a geometric series does
            return distance if np.abs(rest[np.isinf(sums)]).max(initial=0) <= noise else None
        if not distance < 0.1 * np.sum(values):
            return None
        rest = change - transport @ transport.T
    return None


def _full_rank_distance(a, b):
    """tr(A) + tr(B) - 2 tr((A B)^½) of A = LLᵀ and B of full rank, from the eigenvalues of LᵀBL, which are A B's.

    None where one is singular, or the two so close that the traces cancel: there rounding would show.
    """
    falling = np.argsort(-np.diag(a))  # so that what is small comes last in L too, and keeps its digits
    a, b = (each.take(falling, axis=0).take(falling, axis=1) for each in (a, b))
    lower = _cholesky(a)
    if lower is None:
        return None
    product, _ = scipy.linalg.lapack.dsygst(b.T, lower, itype=2, lower=1)
    squares = scipy.linalg.eigvalsh(product, overwrite_a=True, check_finite=False, driver="evd")
    if squares[0] <= _rounding(squares) and _cholesky(b) is None:
        return None
    traces = np.trace(a) + np.trace(b)
    spread = traces - 2 * math.fsum(np.sqrt(np.maximum(squares, 0)))
    return spread if spread > CANCELS * traces else None


def _cholesky(covariance):
    """L [width, width] of covariance = LLᵀ, rubbish above its diagonal; None where the covariance is singular."""
    lower, failed = scipy.linalg.lapack.dpotrf(covariance.T, lower=1, clean=0)
    singular = failed or np.diag(lower).min() ** 2 <= 10 * _rounding(np.diag(covariance))
    return None if singular else lower


def _rounding(values):
    """How much of the eigenvalues, or the diagonal, of a positive matrix is rounding."""
    return len(values) * np.finfo(np.float64).eps * np.max(values)


def _factored_distance(rows_a, rows_b, singular_values):
    """tr(A) + tr(B) - 2 tr((A B)^½) of A = FᵀF and B = GᵀG, from F, G and the singular values of F Gᵀ."""
    traces = math.fsum([np.sum(rows_a**2), np.sum(rows_b**2)])
    spread = traces - 2 * math.fsum(singular_values)
    if spread < CANCELS * traces:
        spread = _procrustes_distance(rows_a, rows_b)
    return spread


def _factor(covariance):
    """F [rank, width] with covariance = FᵀF, by Cholesky with complete pivoting (LAPACK pstrf), which finds the rank.

    Its rows come in falling size, and so do rows and columns of what is built from them: this grading is what keeps
    the small singular values below accurate.
    """
    lower, pivots, rank, _ = scipy.linalg.lapack.dpstrf(covariance.T, lower=1)
    factor = np.take(np.triu(lower.T[:rank]), np.argsort(pivots), axis=1)
    trace = np.trace(covariance)
    if abs(np.sum(factor**2) - trace) > 1e-3 * abs(trace):
        raise UserError("the covariance has negative eigenvalues, so it is not one of any features")
    return factor


def _singular_values(product):
    """The singular values of a graded matrix, from the eigenvalues of the smaller of its Gram matrices."""
    if product.shape[0] < product.shape[1]:
        product = product.T
    squares = np.linalg.eigvalsh(product.T @ product)
    return np.sqrt(np.maximum(squares, 0))


def _procrustes_distance(rows_a, rows_b):
    """|Q F - G|² for the best rotation Q: tr(A) + tr(B) - 2 tr((A B)^½) as a sum of squares.

    For sets so close that the traces cancel, but of other directions; it takes a whole singular value decomposition.
    """
    rank = max(len(rows_a), len(rows_b))
    columns_a, columns_b = (np.pad(rows, ((0, rank - len(rows)), (0, 0))).T for rows in (rows_a, rows_b))
    rotation, _ = scipy.linalg.orthogonal_procrustes(columns_a, columns_b, check_finite=False)
    return np.sum((columns_a @ rotation - columns_b) ** 2)


def save_statistics(path, gaussian):
    """Write a Gaussian as the `.npz` with `mu` and `sigma` (float64) that pytorch-fid and TTUR read."""
    with atomic_path(path) as temporary:
        np.savez(temporary, mu=gaussian.mean, sigma=gaussian.covariance)


def load_statistics(path):
    """Read the `mu` [width] and `sigma` [width, width] of a `.npz` as pytorch-fid, TTUR and guided-diffusion publish.

    Other members (guided-diffusion's mu_s, sigma_s, arr_0) are left alone. Nothing in the file is run, and nothing is
    allocated before its headers agree with each other.

    Returns:
        Gaussian.

    Raises:
        UserError: no such file, not a `.npz`, damaged, `mu` or `sigma` missing, not finite, not of fitting shapes, or
            `sigma` not symmetric or with negative eigenvalues.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            mean, covariance = _read_array(archive, "mu", 1), _read_array(archive, "sigma", 2)
    except Exception as error:  # a stranger's file may trip anything below
        raise UserError(
            f"--reference {path}: no statistics (.npz with mu and sigma) can be read: {told(error)}"
        ) from None
    if covariance.shape != 2 * mean.shape:
        raise UserError(f"--reference {path}: mu {list(mean.shape)} and sigma {list(covariance.shape)} do not fit")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"--reference {path}: mu or sigma holds a NaN or an infinity")
    if np.abs(covariance - covariance.T).max() > 1e-3 * np.abs(covariance).max():
        raise UserError(f"--reference {path}: sigma is not symmetric, so it is no covariance")
    covariance = (covariance + covariance.T) / 2
    try:
        _factor(covariance)
    except UserError as error:
        raise UserError(f"--reference {path}: {error}") from None
    return Gaussian(mean, covariance)


def _read_array(archive, name, dimensions):
    """The array `name` of an open .npz as float64; ValueError if its header does not describe such an array."""
    with archive.open(f"{name}.npy") as member:
        shape, _, dtype = npy_header(member)
        if len(shape) != dimensions or not all(1 <= length <= WIDEST for length in shape) or dtype.kind != "f":
            raise ValueError(f"{name} is {dtype} {list(shape)}, not float in {dimensions} dimensions of 1 to {WIDEST}")
        size = math.prod(shape) * dtype.itemsize
        content = member.read(size)
    if len(content) < size:
        raise ValueError(f"{name} is cut short")
    return np.frombuffer(content, dtype).reshape(shape).astype(np.float64)


FEW = 10_000  # samples; below, the authors of FID (github.com/bioinf-jku/TTUR) warn, figures come out too high


def caution_few_samples(figures, settings):
    """The caution about FID of few samples, for the report."""
    count = settings["num_samples"]
    if count < FEW:
        return f"FID falls as samples become more: compare one of {count:,} with figures of as many only."


def _fid_metric(name, title, layer, number_format=".5f", **more):
    def compute(sets):
        return {name: fid(sets.real.gaussians[layer], sets.samples.gaussians[layer])["fid"]}

    figures = (Figure(name, title, number_format),)
    return Metric(name, figures, compute, order=10, layer=layer, fewest=2, caution=caution_few_samples, **more)


def _floor(sets):
    return {"fid_floor": fid(sets.training.gaussians[LAST_LAYER], sets.real.gaussians[LAST_LAYER])["fid"]}


METRICS = (
    _fid_metric("fid", "FID", LAST_LAYER, ".4f", auto=ANY_DATA),
    Metric(
        "floor",
        (Figure("fid_floor", "FID of real test images against training images", ".4f"),),
        _floor,
        order=10,
        sets=(REAL, TRAINING),
        layer=LAST_LAYER,
        auto=BOTH_SPLITS,
    ),
    _fid_metric("fid_64", "FID, 64 features", "64"),
    _fid_metric("fid_192", "FID, 192 features", "192"),
    _fid_metric("fid_768", "FID, 768 features", "768"),
)
