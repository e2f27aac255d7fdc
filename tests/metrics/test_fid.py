"""FID against torch-fidelity, scipy's matrix square root and closed forms; statistics in batches; hostile files."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import sqrtm

from alignment import draw
from metrics.fid import FeatureStatistics, Gaussian, fid, fid_of_features, load_statistics, save_statistics
from utils import UserError

FIXTURE = json.loads((Path(__file__).parents[1] / "fixtures" / "metrics.json").read_text())


def fixture_features():
    seed, shape = FIXTURE["seed"], (FIXTURE["n"], FIXTURE["dim"])
    real = draw.rng("features/real", seed).standard_normal(shape)
    fake = 0.9 * draw.rng("features/fake", seed).standard_normal(shape) + 0.25
    return real.astype(np.float32), fake.astype(np.float32)


def statistics_of(features, batch=100):
    statistics = FeatureStatistics(features.shape[1])
    for start in range(0, len(features), batch):
        statistics.update(features[start : start + batch])
    return statistics


def gaussian_of(features):
    return Gaussian(features.mean(axis=0), np.cov(features, rowvar=False))


def correlated(count, width, seed, decay=1.0):
    """Features whose covariance has the eigenvalues 1/i^(2·decay), rotated away from the axes."""
    source = np.random.RandomState(seed)
    rotation = np.linalg.qr(source.standard_normal((width, width)))[0]
    return (source.standard_normal((count, width)) / np.arange(1, width + 1) ** decay) @ rotation


def test_fid_equals_torch_fidelity():
    real, fake = fixture_features()
    score = fid(statistics_of(real).gaussian(), statistics_of(fake).gaussian())
    assert score["fid"] == pytest.approx(FIXTURE["fid"], rel=1e-6)


@pytest.mark.parametrize("decay", [0, 1, 2])
def test_fid_equals_scipys_matrix_square_root(decay):
    a, b = gaussian_of(correlated(300, 60, 1, decay)), gaussian_of(1.2 * correlated(200, 60, 2, decay) + 0.1)
    root = np.trace(sqrtm(a.covariance @ b.covariance)).real
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance) + np.trace(b.covariance) - 2 * root
    assert fid(a, b)["fid"] == pytest.approx(expected, rel=1e-8)
    assert fid(b, a)["fid"] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("decay", [0, 1, 3])
@pytest.mark.parametrize(("count_a", "count_b"), [(30, 30), (2, 40), (40, 300), (300, 20)])
def test_fid_of_fewer_samples_than_dimensions_is_exact(count_a, count_b, decay):
    """tr((A B)^(1/2)) is also the nuclear norm of the product of the centred features. It has no rounded zeros."""
    a, b = correlated(count_a, 64, 3, decay), correlated(count_b, 64, 4, decay) + 0.01
    centred_a, centred_b = ((x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (a, b))
    root = np.linalg.svd(centred_a @ centred_b.T, compute_uv=False).sum()
    expected = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2) + np.sum(centred_a**2) + np.sum(centred_b**2) - 2 * root
    assert fid(gaussian_of(a), gaussian_of(b))["fid"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("count_a", "count_b"), [(2, 3), (30, 64), (64, 64), (65, 30), (40, 300)])
def test_fid_of_features_equals_scipys_root(count_a, count_b):
    """With fewer and with more samples than dimensions, against SciPy's root of the covariances' product."""
    a, b = correlated(count_a, 64, 3).astype(np.float32), 1.2 * correlated(count_b, 64, 4).astype(np.float32) + 0.1
    covariances = [np.cov(each.astype(np.float64), rowvar=False) for each in (a, b)]
    root = np.sqrt(np.maximum(np.linalg.eigvals(covariances[0] @ covariances[1]).real, 0)).sum()
    shift = a.mean(axis=0, dtype=np.float64) - b.mean(axis=0, dtype=np.float64)
    expected = shift @ shift + np.trace(sum(covariances)) - 2 * root
    assert fid_of_features(a, b)["fid"] == pytest.approx(expected, rel=1e-6)
    assert fid_of_features(a, b)["fid"] == pytest.approx(fid(gaussian_of(a), gaussian_of(b))["fid"], rel=1e-6)


@pytest.mark.parametrize("count", [2, 30, 64, 300])
def test_small_shifts_and_scalings_of_features_are_measured_exactly(count):
    """A shift by 1e-6 in each of 64 dimensions; a scaling about the mean by 1 + 1e-4, which gives 1e-8 of the trace."""
    a = correlated(count, 64, 3)
    mean = a.mean(axis=0)
    larger = mean + (1 + 1e-4) * (a - mean)
    expected = 1e-8 * np.sum((a - mean) ** 2) / (count - 1)
    assert fid_of_features(a, a + 1e-6)["fid"] == pytest.approx(64e-12, rel=1e-6)
    assert fid_of_features(a, larger)["fid"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        (np.zeros((1, 4)), np.zeros((3, 4)), "at least two samples, not 1"),
        (np.zeros((9, 4)), np.zeros((0, 4)), "at least two samples, not 0"),
        (np.zeros((3, 4)), np.zeros((3, 5)), "width 4"),
        (np.zeros((3, 4)), np.full((3, 4), np.nan), "NaN"),
    ],
)
def test_features_without_a_distance_are_refused(a, b, sentence):
    with pytest.raises(UserError, match=sentence):
        fid_of_features(a, b)


@pytest.mark.parametrize("difference", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("count", [40, 500])
def test_fid_of_nearly_equal_sets_is_exact(count, difference):
    """B = (1 + d)^2 A, so the distance is d^2 tr(A): down to 1e-12 of the traces whose difference it is."""
    features = correlated(count, 64, 5)
    features -= features.mean(axis=0)
    a, b = gaussian_of(features), gaussian_of((1 + difference) * features)
    assert fid(a, b)["fid"] == pytest.approx(difference**2 * np.trace(a.covariance), rel=1e-6)


@pytest.mark.parametrize("difference", [0.3, 1e-2, 1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize(("count", "decay"), [(500, 0), (500, 1), (500, 2), (500, 3), (40, 0), (40, 1)])
def test_fid_of_covariances_that_do_not_commute_is_exact(count, decay, difference):
    """B = (I + T) A (I + T) with a symmetric T below 1: the optimal map is I + T, so the distance is tr(T A T)."""
    a = gaussian_of(correlated(count, 64, 5, decay))
    noise = np.random.RandomState(6).standard_normal((64, 64))
    change = difference / 16 * (noise + noise.T)
    moved = (np.eye(64) + change) @ a.covariance @ (np.eye(64) + change)
    b = Gaussian(a.mean, (moved + moved.T) / 2)
    expected = np.trace(change @ a.covariance @ change)
    assert fid(a, b)["fid"] == pytest.approx(expected, rel=1e-6)
    assert fid(b, a)["fid"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weak", [1e-5, 1e-7, 1e-9])
@pytest.mark.parametrize("others", [0.0, 1e-4])
def test_fid_sees_a_difference_in_a_weak_direction(weak, others):
    """One direction has `weak` times the variance of the strongest. In the other set it has 4 times that, or none."""
    rotation = np.linalg.qr(np.random.RandomState(7).standard_normal((24, 24)))[0]
    for factor in (4, 0):
        values_a, values_b = np.append(np.ones(23), weak), np.append(np.full(23, (1 + others) ** 2), weak * factor)
        a, b = (Gaussian(np.zeros(24), (rotation * values) @ rotation.T) for values in (values_a, values_b))
        expected = np.sum((np.sqrt(values_a) - np.sqrt(values_b)) ** 2)
        assert fid(a, b)["fid"] == pytest.approx(expected, rel=1e-6)
        assert fid(b, a)["fid"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("difference", [0.3, 0.03, 0.01])
def test_fid_of_features_of_unequal_scales_is_exact(difference):
    """Scales from 1 down to 10^-6, in random order, against the exact distance."""
    for seed in range(20):
        source = np.random.RandomState(seed)
        scales = 10.0 ** -source.uniform(0, 6, 40)
        x = correlated(120, 40, seed) * scales
        y = x * (1 + difference * source.standard_normal(40))
        a, b = ((each - each.mean(axis=0)) / np.sqrt(len(each) - 1) for each in (x, y))
        root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
        expected = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2) + np.sum(a**2) + np.sum(b**2) - 2 * root
        assert fid(gaussian_of(x), gaussian_of(y))["fid"] == pytest.approx(expected, rel=1e-8)


def test_equal_sets_are_at_distance_zero():
    a = gaussian_of(correlated(30, 64, 6))
    assert 0 <= fid(a, a)["fid"] < 1e-25


def test_fid_of_diagonal_covariances_equals_its_closed_form():
    """For independent normals, the squared differences of means and of standard deviations add up."""
    deviations_a, deviations_b = np.array([1.0, 2.0, 0.0, 0.5, 3.0]), np.array([2.0, 2.0, 1.0, 0.0, 1e-3])
    a = Gaussian(np.array([0.0, 1, 2, 3, 4]), np.diag(deviations_a**2))
    b = Gaussian(np.array([1.0, 1, 0, 3, 4]), np.diag(deviations_b**2))
    assert fid(a, b)["fid"] == pytest.approx(5 + np.sum((deviations_a - deviations_b) ** 2), rel=1e-12)


def test_fid_of_constant_features_equals_its_closed_form():
    constant = statistics_of(np.full((10, 4), 3.0)).gaussian()
    assert fid(constant, Gaussian(np.zeros(4), np.eye(4)))["fid"] == pytest.approx(36 + 4, rel=1e-12)
    assert fid(constant, constant)["fid"] == 0


def test_gaussians_without_a_distance_are_refused():
    a = Gaussian(np.zeros(2), np.eye(2))
    with pytest.raises(UserError, match="widths 2 and 3"):
        fid(a, Gaussian(np.zeros(3), np.eye(3)))
    with pytest.raises(UserError, match="negative eigenvalues"):
        fid(a, Gaussian(np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]])))


@pytest.mark.parametrize("batch", [1, 7, 16, 64, 1000])
def test_statistics_do_not_depend_on_batches(batch):
    features = correlated(500, 32, 7) * 1e-2 + 100  # a mean 10,000 times the deviation: plain sums of squares fail
    gaussian = statistics_of(features, batch).gaussian()
    np.testing.assert_allclose(gaussian.mean, features.mean(axis=0), rtol=1e-14)
    expected = np.cov(features, rowvar=False)
    np.testing.assert_allclose(gaussian.covariance, expected, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_merged_statistics_give_the_same_fid(processes):
    real, fake = fixture_features()
    reference = gaussian_of(real.astype(np.float64))
    merged = FeatureStatistics(real.shape[1])
    for rank in range(processes):
        merged.merge(statistics_of(fake[rank::processes], batch=16))
    assert merged.count == len(fake)
    once = fid(reference, gaussian_of(fake.astype(np.float64)))["fid"]
    assert fid(reference, merged.gaussian())["fid"] == pytest.approx(once, rel=1e-9)


def test_saved_statistics_can_be_continued(tmp_path):
    features = correlated(300, 20, 11)
    first = statistics_of(features[:100])
    np.savez(tmp_path / "state.npz", **first.state())
    with np.load(tmp_path / "state.npz") as state:
        resumed = FeatureStatistics.from_state(state)
    resumed.update(features[100:])
    np.testing.assert_allclose(resumed.gaussian().covariance, np.cov(features, rowvar=False), rtol=0, atol=1e-14)
    assert (first.count, resumed.count) == (100, 300)
    with pytest.raises(UserError, match=r"mean \[20\] and scatter \[20, 19\]"):
        FeatureStatistics.from_state({**first.state(), "scatter": first.scatter[:, 1:]})


def test_merging_an_empty_accumulator_changes_nothing():
    statistics = statistics_of(correlated(20, 5, 8))
    before = statistics.gaussian()
    statistics.merge(FeatureStatistics(5))
    statistics.update(np.empty((0, 5)))
    np.testing.assert_array_equal(statistics.gaussian().covariance, before.covariance)


def test_statistics_refuse_bad_features():
    statistics = FeatureStatistics(3)
    with pytest.raises(UserError, match=r"\[2, 4\] do not fit"):
        statistics.update(np.zeros((2, 4)))
    with pytest.raises(UserError, match="NaN"):
        statistics.update(np.array([[0, np.nan, 1]]))
    with pytest.raises(UserError, match="cannot be merged"):
        statistics.merge(FeatureStatistics(4))
    statistics.update(np.zeros((1, 3)))
    with pytest.raises(UserError, match="at least two samples, not 1"):
        statistics.gaussian()


def test_saved_statistics_are_read_back(tmp_path):
    gaussian = gaussian_of(correlated(50, 6, 9))
    save_statistics(tmp_path / "a.npz", gaussian)
    read = load_statistics(tmp_path / "a.npz")
    np.testing.assert_array_equal(read.mean, gaussian.mean)
    np.testing.assert_allclose(read.covariance, gaussian.covariance, rtol=1e-15)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_published_statistics_files_are_read(tmp_path):
    """TTUR and pytorch-fid compress. guided-diffusion adds its samples, which are not read here."""
    gaussian = gaussian_of(correlated(50, 6, 10))
    np.savez_compressed(tmp_path / "ttur.npz", mu=gaussian.mean, sigma=gaussian.covariance)
    others = {"mu_s": np.zeros(3), "sigma_s": np.eye(3), "arr_0": np.array([print], dtype=object)}
    float32 = {"mu": gaussian.mean.astype(np.float32), "sigma": gaussian.covariance.astype(np.float32)}
    np.savez(tmp_path / "guided.npz", **float32, **others)
    np.testing.assert_allclose(load_statistics(tmp_path / "ttur.npz").covariance, gaussian.covariance, rtol=1e-15)
    read = load_statistics(tmp_path / "guided.npz")
    assert read.mean.dtype == read.covariance.dtype == np.float64
    np.testing.assert_allclose(read.covariance, gaussian.covariance, rtol=1e-6, atol=1e-7)


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npz_with_header(header):
    """An archive whose sigma is only a header."""
    file = io.BytesIO(npz(mu=np.zeros(4)))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("sigma.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    return file.getvalue()


def header(shape):
    return f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}\n"


def flipped(content):
    """`content` with one bit changed in the middle of sigma's numbers."""
    place = content.index(b"sigma.npy") + 1000
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


NOT_SYMMETRIC = np.eye(4) + np.triu(np.ones((4, 4)), 1)
BAD_FILES = {
    "text": b"mu,sigma",
    "empty": b"",
    "a bare array": npz(mu=np.zeros(4))[4:],
    "no sigma": npz(mu=np.zeros(4)),
    "no mu": npz(sigma=np.eye(4)),
    "widths differ": npz(mu=np.zeros(3), sigma=np.eye(4)),
    "sigma not square": npz(mu=np.zeros(3), sigma=np.ones((3, 4))),
    "sigma of one dimension": npz(mu=np.zeros(3), sigma=np.ones(3)),
    "integers": npz(mu=np.zeros(3, int), sigma=np.eye(3, dtype=int)),
    "complex": npz(mu=np.zeros(3), sigma=np.eye(3) * 1j),
    "pickled objects": npz(mu=np.zeros(1), sigma=np.array([[print]], dtype=object)),
    "NaN": npz(mu=np.array([0, np.nan]), sigma=np.eye(2)),
    "infinite": npz(mu=np.zeros(2), sigma=np.full((2, 2), np.inf)),
    "not symmetric": npz(mu=np.zeros(4), sigma=NOT_SYMMETRIC),
    "indefinite": npz(mu=np.zeros(2), sigma=np.array([[1.0, 2.0], [2.0, 1.0]])),
    "negative definite": npz(mu=np.zeros(2), sigma=-np.eye(2)),
    "2^60 bytes claimed": npz_with_header(header((2**30, 2**27))),
    "negative": npz_with_header(header((-1, 4))),
    "nothing where numbers should be": npz_with_header(header((4, 4))),
    "no header": npz_with_header("{'descr': (\n"),
    "a long header": npz_with_header(header((4, 4)) + " " * 20000),
    "a deep header": npz_with_header("(" * 9000),
    "cut off": npz(mu=np.zeros(20), sigma=np.eye(20))[:2000],
    "a flipped bit": flipped(npz(mu=np.zeros(20), sigma=np.eye(20))),
}


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES)
def test_bad_statistics_files_are_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "reference.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"--reference .*reference\.npz") as caught:
        load_statistics(path)
    assert "\n" not in str(caught.value)


def test_a_missing_statistics_file_is_refused(tmp_path):
    for path in (tmp_path / "absent.npz", tmp_path):
        with pytest.raises(UserError, match=r"--reference .*: (No such file|Is a directory)"):
            load_statistics(path)
