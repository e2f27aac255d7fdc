"""Time and peak memory of `test.py` over 5,000 and 50,000 samples of a small generator, scored with the classifier.

    python benchmarks/samples_memory.py sagan_models/acgan-digits-1

A first run with 1,000 samples trains the classifier. The two measured runs read it from the cache.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEST = Path(__file__).parents[1] / "test.py"


def measured(model, samples, folder):
    """(seconds, peak memory in MiB, lines of figures) of one process that measures `samples` samples."""
    command = [sys.executable, TEST, "--pretrained_model", model, "--num_samples", str(samples), "--test_path", folder]
    start = time.monotonic()
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command} failed")
    return time.monotonic() - start, usage.ru_maxrss / 1024, re.findall("^classifier .+|^read .+", out, re.MULTILINE)


def main():
    with tempfile.TemporaryDirectory() as folder:
        measured(sys.argv[1], 1000, Path(folder, "first"))
        for samples in (5000, 50_000):
            seconds, memory, figures = measured(sys.argv[1], samples, Path(folder, str(samples)))
            print(f"{samples:6} samples: {seconds:6.1f} s, {memory:5.0f} MiB at most")
            print("\n".join(f"        {line}" for line in figures))


if __name__ == "__main__":
    main()
