"""Images per second of our Inception and of torch-fidelity's, on the same CPU in the same run.

    python -m venv /tmp/torch && /tmp/torch/bin/pip install torch torchvision torch-fidelity==0.4.0
    python benchmarks/inception_features.py --torch_python /tmp/torch/bin/python

The two run alternately, on the same images with the same drawn weights. torch-fidelity runs in a process of its own
environment. The fastest turn of each gives its rate. Their features are compared too.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
BATCH, SIZE, TURNS = 32, 128, 5


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--torch_python", required=True, help="the Python of an environment with torch-fidelity")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--turns", type=int, default=TURNS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from alignment import draw

    with tempfile.TemporaryDirectory() as folder:
        fixture = json.loads((ROOT / "tests" / "fixtures" / "inception_metrics.json").read_text())
        weights = {
            name: draw.weight(f"inception.{name}", shape, fixture["seed"], gain=2**0.5).astype(np.float32)
            for name, shape in fixture["state"].items()
        }
        images = draw.blobs(options.batch, SIZE, fixture["seed"], 0)
        np.savez(f"{folder}/weights.npz", **weights)
        np.save(f"{folder}/images.npy", images)
        ours, theirs = our_turns(weights, images), their_turns(options.torch_python, folder)
        seconds = {"ours": [], "torch-fidelity": []}
        for turn in range(-1, options.turns):  # the first turn warms up
            for name, turns in (("ours", ours), ("torch-fidelity", theirs)):
                taken, features = next(turns)
                seconds[name] += [taken] if turn >= 0 else []
                if name == "ours":
                    found = features
        difference = np.abs(found - features).max() / np.abs(features).max()
    rates = {name: [options.batch / taken for taken in each] for name, each in seconds.items()}
    for name, each in rates.items():
        print(f"{name:15} {max(each):6.2f} images/s; turns: {' '.join(f'{rate:.2f}' for rate in each)}")
    print(f"{max(rates['ours']) / max(rates['torch-fidelity']):.2f} times as fast; features differ by {difference:.0e}")


def our_turns(weights, images):
    """Yield seconds and features [N, 2048] of each turn of our Inception."""
    import runtime  # noqa: F401, sets the number of threads as in training
    from metrics.inception import Inception

    inception = Inception(weights)
    while True:
        start = time.perf_counter()
        features = inception.features(images)["2048"]
        yield time.perf_counter() - start, features


def their_turns(python, folder):
    """Yield seconds and features [N, 2048] of each turn of torch-fidelity. A line to its process starts a turn."""
    command = [python, __file__, "--serve", folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            while True:
                process.stdin.write("go\n")
                process.stdin.flush()
                line = process.stdout.readline()
                if not line:
                    sys.exit(f"torch-fidelity does not run in {python}")
                yield float(line), np.load(f"{folder}/features.npy")
        finally:
            process.kill()


def serve(folder):
    """Runs in torch-fidelity's environment: for each line of input it does one turn and prints the seconds."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    state = {name: torch.from_numpy(value) for name, value in np.load(f"{folder}/weights.npz").items()}
    torch.save(state, f"{folder}/weights.pth")
    extractor = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=f"{folder}/weights.pth"
    )
    images = torch.from_numpy(np.load(f"{folder}/images.npy"))
    for _ in sys.stdin:
        start = time.perf_counter()
        with torch.no_grad():
            (features,) = extractor(images)
        taken = time.perf_counter() - start
        np.save(f"{folder}/features.npy", features.numpy())
        print(taken, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        main()
