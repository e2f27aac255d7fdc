"""Fréchet Inception Distance (Heusel et al., *GANs Trained by a Two Time-Scale Update Rule*, NeurIPS 2017, eq. 6)."""

import math
import zipfile
from functools import partial
from typing import NamedTuple

import numpy as np
import scipy  # loads scipy.linalg only at its first use

from metrics.record import ANY_DATA, BOTH_SPLITS, LAST_LAYER, TEST, TRAINING, Figure, Metric
from utils import UserError, atomic_path, npy_header, one_line

WIDEST = 4096  # no published extractor is wider, so a file that claims more is refused
# Rounding is about 1e-12 of the traces. A distance below this share of the traces has fewer than seven correct digits.
CANCELS = 1e-5


class Gaussian(NamedTuple):
    """Mean [width] and unbiased covariance [width, width] of the features of a set of images, float64."""

    mean: np.ndarray
    covariance: np.ndarray


class FeatureStatistics:
    """Mean and covariance of features that arrive in batches. Memory does not grow with their number.

    The whole state is `count` (int), `mean` (float64 [width]) and `scatter` (float64 [width, width], the sum of outer
    products about the mean). Batches and other FeatureStatistics are added by the pairwise update of Chan, Golub and
    LeVeque (*Algorithms for computing the sample variance*, 1983, eq. 2.1). It does not subtract large sums. So any
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
        """Add the features of another FeatureStatistics of the same width, such as another process's."""
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
        """The state as a dict of arrays, to save or send. `from_state` reads it."""
        return {"count": np.array(self.count), "mean": self.mean, "scatter": self.scatter}

    @classmethod
    def from_state(cls, state):
        """The FeatureStatistics with this `state()`. Raises UserError if the arrays do not fit."""
        count, mean, scatter = (np.array(state[name]) for name in ("count", "mean", "scatter"))
        if count.shape != () or mean.ndim != 1 or scatter.shape != 2 * mean.shape:
            raise UserError(f"saved statistics do not fit: mean {list(mean.shape)} and scatter {list(scatter.shape)}")
        statistics = cls(0)
        statistics.count, statistics.mean, statistics.scatter = int(count), mean, scatter
        return statistics

    def gaussian(self):
        """The Gaussian of the features seen so far, with numpy.cov's ddof=1. Raises UserError for fewer than two."""
        _check_count(self.count)
        return Gaussian(self.mean.copy(), self.scatter / (self.count - 1))


def gaussian_of(features):
    """The Gaussian of features [N, width]. Raises UserError as FeatureStatistics does."""
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


def _check_count(count):
    if count < 2:
        raise UserError(f"a covariance needs at least two samples, not {count}")


def fid(a, b):
    """Fréchet distance between two Gaussians.

    The distance is |mean_a - mean_b|² + tr(A) + tr(B) - 2 tr((A B)^½), equation 6 of the paper. With A = FᵀF and
    B = GᵀG the last trace is the sum of the singular values of F Gᵀ. So no matrix square root is needed. With fewer
    samples than dimensions a covariance is singular, and its F or G has fewer rows.

    Nearly equal covariances take about 7 times as long as others, because their traces cancel (see `_distance`).

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
    return _distance(a.mean - b.mean, _factor(a.covariance), _factor(b.covariance), _graded_singular_values)


def fid_of_features(a, b):
    """FID between two sets of features.

    If neither set has more samples than dimensions, the centred features themselves are F and G, and no covariance is
    computed. For the fifty images of an ImageNet class this is more than a hundred times faster.

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
    _check_count(min(len(a), len(b)))
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    rows_a, rows_b = (a - mean_a) / math.sqrt(len(a) - 1), (b - mean_b) / math.sqrt(len(b) - 1)
    return _distance(mean_a - mean_b, rows_a, rows_b, partial(np.linalg.svd, compute_uv=False))


def _distance(shift, rows_a, rows_b, singular_values):
    """FID as `fid` returns it. `shift`: the difference of the means. `rows_a`: F. `rows_b`: G.

    `singular_values(F Gᵀ)` computes the singular values. The traces of nearly equal covariances cancel, and rounding
    would show. In that case the same distance is computed as a sum of squares. This is slower, because it takes a
    complete singular value decomposition.
    """
    traces = math.fsum([np.sum(rows_a**2), np.sum(rows_b**2)])
    spread = traces - 2 * math.fsum(singular_values(rows_a @ rows_b.T))
    if spread < CANCELS * traces:
        spread = _procrustes_distance(rows_a, rows_b)
    return {"fid": float(shift @ shift + spread)}


def _factor(covariance):
    """F [rank, width] with covariance = FᵀF, by Cholesky with complete pivoting (LAPACK pstrf), which finds the rank.

    The size of the rows of F falls from first to last. So does that of the rows and columns of a product F Gᵀ.
    """
    lower, pivots, rank, _ = scipy.linalg.lapack.dpstrf(covariance.T, lower=1)
    factor = np.take(np.triu(lower.T[:rank]), np.argsort(pivots), axis=1)
    trace = np.trace(covariance)
    if abs(np.sum(factor**2) - trace) > 1e-3 * abs(trace):
        raise UserError("the covariance has negative eigenvalues, so it is not the covariance of any features")
    return factor


def _graded_singular_values(product):
    """The singular values of a matrix with rows and columns of falling size.

    They are the roots of the eigenvalues of the smaller Gram matrix. This is 2.5 times as fast as a singular value
    decomposition. The small values stay accurate because the sizes fall.
    """
    if product.shape[0] < product.shape[1]:
        product = product.T
    squares = np.linalg.eigvalsh(product.T @ product)
    return np.sqrt(np.maximum(squares, 0))


def _procrustes_distance(rows_a, rows_b):
    """|Q F - G|² for the best rotation Q. It equals tr(A) + tr(B) - 2 tr((A B)^½), but is a sum of squares."""
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

    Other members (guided-diffusion's mu_s, sigma_s, arr_0) are not read. Nothing in the file is run. The header of an
    array is checked before the array is read.

    Returns:
        Gaussian.

    Raises:
        UserError: no such file, not a `.npz`, damaged, `mu` or `sigma` missing, not finite, not of fitting shapes, or
            `sigma` not symmetric or with negative eigenvalues.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            mean, covariance = _read_array(archive, "mu", 1), _read_array(archive, "sigma", 2)
    except Exception as error:  # a damaged file may raise anything
        raise UserError(
            f"--reference {path} cannot be read as statistics (.npz with mu and sigma): {one_line(error)}"
        ) from None
    if covariance.shape != 2 * mean.shape:
        raise UserError(f"--reference {path}: mu {list(mean.shape)} and sigma {list(covariance.shape)} do not fit")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"--reference {path}: mu or sigma holds a NaN or an infinity")
    if np.abs(covariance - covariance.T).max() > 1e-3 * np.abs(covariance).max():
        raise UserError(f"--reference {path}: sigma is not symmetric, so it is not a covariance")
    covariance = (covariance + covariance.T) / 2
    try:
        _factor(covariance)
    except UserError as error:
        raise UserError(f"--reference {path}: {error}") from None
    return Gaussian(mean, covariance)


def _read_array(archive, name, dimensions):
    """The array `name` of an open .npz as float64. Raises ValueError for another type or number of dimensions."""
    with archive.open(f"{name}.npy") as member:
        shape, _, dtype = npy_header(member)
        if len(shape) != dimensions or not all(1 <= length <= WIDEST for length in shape) or dtype.kind != "f":
            raise ValueError(f"{name} is {dtype} {list(shape)}, not float in {dimensions} dimensions of 1 to {WIDEST}")
        size = math.prod(shape) * dtype.itemsize
        content = member.read(size)
    if len(content) < size:
        raise ValueError(f"{name} is cut short")
    return np.frombuffer(content, dtype).reshape(shape).astype(np.float64)


FEW = 10_000  # samples; with fewer, FID is too high, as its authors warn (github.com/bioinf-jku/TTUR)


def caution_few_samples(figures, settings):
    """A warning for the report if FID is of few samples; else None."""
    count = settings["num_samples"]
    if count < FEW:
        return f"FID falls as the number of samples grows: compare it only with FID of {count:,} samples."


def _fid_metric(name, title, layer, number_format=".5f", **more):
    def compute(sets):
        return {name: fid(sets.real.gaussians[layer], sets.samples.gaussians[layer])["fid"]}

    figures = (Figure(name, title, number_format),)
    return Metric(name, figures, compute, order=10, layer=layer, fewest=2, caution=caution_few_samples, **more)


def _floor(sets):
    return {"fid_floor": fid(sets.training.gaussians[LAST_LAYER], sets.test.gaussians[LAST_LAYER])["fid"]}


METRICS = (
    _fid_metric("fid", "FID", LAST_LAYER, ".4f", auto=ANY_DATA),
    Metric(
        "floor",
        (Figure("fid_floor", "FID of real test images against training images", ".4f"),),
        _floor,
        order=10,
        sets=(TEST, TRAINING),
        layer=LAST_LAYER,
        auto=BOTH_SPLITS,
    ),
    _fid_metric("fid_64", "FID, 64 features", "64"),
    _fid_metric("fid_192", "FID, 192 features", "192"),
    _fid_metric("fid_768", "FID, 768 features", "768"),
)
