"""Time of FID from two 2048×2048 statistics: our method, the matrix square root, and the eigenvalues of the product.

    python benchmarks/fid_distance.py

pytorch-fid computes `scipy.linalg.sqrtm` of the product of the covariances. torch-fidelity computes its `eigvals`. All
are timed on the same statistics in the same run. Ours and `eigvals` show the fastest of three runs, `sqrtm` one run.
The output shows elapsed seconds and processor seconds over all threads. Other work on the machine changes the latter
less.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import runtime  # noqa: F401, I001, sets the number of threads as in training

import numpy as np
from scipy.linalg import eigvals, sqrtm

from metrics.fid import Gaussian, fid

WIDTH = 2048
POWER_LAW = np.arange(1, WIDTH + 1) ** -0.6
EIGHT_DECADES = 10 ** (-4 * np.arange(WIDTH) / WIDTH)  # 8 decades in the covariance, so 16 in the product
CASES = {
    "5,000 samples": (5000, 1.1, POWER_LAW),
    "5,000 samples, steep spectrum": (5000, 1.1, EIGHT_DECADES),
    "1,000 samples, singular": (1000, 1.1, POWER_LAW),
    "nearly equal": (5000, 1 + 1e-6, POWER_LAW),
    "nearly equal, steep spectrum": (5000, 1 + 1e-6, EIGHT_DECADES),
}


def statistics(count, factor, scales):
    """Two Gaussians of features in random directions, with the standard deviations `scales`.

    The second features are the first times `factor`. If `factor` is above 1.01, noise is added to them.
    """
    source = np.random.RandomState(0)
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
    """(the result, the fewest elapsed seconds of `runs` runs, the fewest processor seconds)."""
    times = []
    for _ in range(runs):
        start = time.perf_counter(), time.process_time()
        result = function(*arguments)
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return result, *(min(column) for column in zip(*times, strict=True))


def main():
    for name, case in CASES.items():
        a, b = statistics(*case)
        print(f"{name}: {'FID':>16}{'elapsed':>11}{'processor':>11}   ours is faster by elapsed, by processor time")
        score, ours, ours_processor = fastest(lambda a, b: fid(a, b)["fid"], a, b)
        print(f"  {'ours':8}{score:16.9g}{ours:10.2f}s{ours_processor:10.2f}s", flush=True)
        for other, function, runs in (("eigvals", by_eigenvalues, 3), ("sqrtm", by_root, 1)):
            score, seconds, processor = fastest(function, a, b, runs=runs)
            ratios = f"{seconds / ours:6.1f}x{processor / ours_processor:6.1f}x"
            print(f"  {other:8}{score:16.9g}{seconds:10.2f}s{processor:10.2f}s{ratios}", flush=True)


if __name__ == "__main__":
    main()
