"""Time and peak memory of precision, recall, density and coverage, for two sets of 50,000 features of width 2048.

    python benchmarks/prdc_memory.py [--samples 50000]

The features are random numbers, because time and memory depend only on the sizes.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import runtime  # noqa: F401, I001, sets the number of threads as in training

import numpy as np
from tqdm import tqdm

from metrics.prdc import prdc

WIDTH = 2048


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=50000, help="in each of the two sets")
    samples = parser.parse_args().samples
    source = np.random.default_rng(0)
    real, fake = (source.standard_normal((samples, WIDTH), dtype=np.float32) for _ in range(2))
    before, start, processor = _peak(), time.perf_counter(), time.process_time()
    with tqdm(unit="pair of blocks") as bar:

        def progress(done, total):
            bar.total = total
            bar.update(done - bar.n)

        print(prdc(real, fake, progress=progress))
    minutes, processor = (time.perf_counter() - start) / 60, (time.process_time() - processor) / 60
    print(
        f"{samples:,} × {samples:,} × {WIDTH} float32: {minutes:.1f} minutes, {processor:.1f} minutes of processor time"
    )
    print(f"peak memory {_peak():.2f} GiB, including {before:.2f} GiB for Python and the features")


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux


if __name__ == "__main__":
    main()
