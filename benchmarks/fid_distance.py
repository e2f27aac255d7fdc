"""From two 2048×2048 statistics to FID: ours against the matrix square root and the eigenvalues of the product.

    python benchmarks/fid_distance.py

pytorch-fid takes `scipy.linalg.sqrtm` of the product of the covariances, torch-fidelity the `eigvals` of it. Each is
timed on the same statistics in the same run, the fastest of three for ours and `eigvals`, once for `sqrtm`.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import runtime  # noqa: F401, I001, the threads a run has

import numpy as np
from scipy.linalg import eigvals, sqrtm

from metrics.fid import Gaussian, fid

WIDTH = 2048
CASES = {"5,000 samples": (5000, 1.1), "1,000 samples, singular": (1000, 1.1), "nearly equal": (5000, 1 + 1e-6)}


def statistics(count, factor):
    """Two Gaussians of features whose spectrum falls as Inception's does; the second's share their directions."""
    source = np.random.RandomState(0)
    scales = np.arange(1, WIDTH + 1) ** -0.6
    features = source.standard_normal((count, WIDTH)) * scales @ source.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5
    others = factor * features
    if factor > 1.01:
        others += 0.1 * source.standard_normal((count, WIDTH)) * scales
    return (Gaussian(each.mean(axis=0), np.cov(each, rowvar=False)) for each in (features, others))


def by_root(a, b):
    return _distance(a, b, np.trace(sqrtm(a.covariance @ b.covariance)).real)


def by_eigenvalues(a, b):
    return _distance(a, b, np.sqrt(eigvals(a.covariance @ b.covariance).astype(complex)).real.sum())


def _distance(a, b, root):
    return np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance) + np.trace(b.covariance) - 2 * root


def fastest(function, *arguments, runs=3):
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        result = function(*arguments)
        times.append(time.perf_counter() - start)
    return result, min(times)


def main():
    print(f"{'statistics':26}{'ours':>9}{'eigvals':>9}{'sqrtm':>9}   faster than   FID: ours, eigvals, sqrtm")
    for name, case in CASES.items():
        a, b = statistics(*case)
        score, ours = fastest(lambda a, b: fid(a, b)["fid"], a, b)
        eigen_score, eigen = fastest(by_eigenvalues, a, b)
        root_score, root = fastest(by_root, a, b, runs=1)
        print(
            f"{name:26}{ours:8.2f}s{eigen:8.2f}s{root:8.2f}s {eigen / ours:6.1f}x{root / ours:6.1f}x   "
            f"{score:.9g} {eigen_score:.9g} {root_score:.9g}",
            flush=True,
        )


if __name__ == "__main__":
    main()
