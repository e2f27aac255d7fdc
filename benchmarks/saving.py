"""The time that training waits for a checkpoint: written in the foreground, and written in the background.

    python benchmarks/saving.py

It saves SAGAN at 64 pixels, with both optimizers and a moving average. The two ways alternate in one run, and their
medians are compared. A step during a write is compared with a step alone. The files are in the system's temporary
folder.
"""

import dataclasses
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import runtime  # noqa: F401, I001, sets the number of threads as in training

import checkpoint
from dataset import batches, load_dataset
from parameters import Parameters
from training.run_folder import RunFolder
from training.run_start import Start
from trainer import Trainer

ROUNDS = 7


def timed(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def main():
    p = dataclasses.replace(
        Parameters(), dataset="fake", num_classes=10, imsize=64, batch_size=2, ema_decay=0.999, device="cpu"
    )
    images, trainer = load_dataset(p), Trainer(p)
    data = batches(images, p, first=0)
    trainer.train_step(data)
    values = dataclasses.asdict(p)
    seconds = {"waiting for the write": [], "copying alone": [], "a step": [], "a step beside a write": []}
    with tempfile.TemporaryDirectory() as folder, RunFolder(dataclasses.replace(p, save_path=folder)) as run:
        run.begin(Start(), images)
        path = run.weights / "waited.safetensors"
        for _ in range(ROUNDS):
            seconds["waiting for the write"].append(timed(lambda: checkpoint.save(path, 1, values, trainer.state())))
            seconds["a step"].append(timed(trainer.train_step, data))
            seconds["copying alone"].append(timed(run.save, trainer.step, trainer.state))
            seconds["a step beside a write"].append(timed(trainer.train_step, data))
            run._wait()
        size = path.stat().st_size
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"a checkpoint of {size / 2**20:.0f} MB")
    for name, value in medians.items():
        print(f"{name:21} {value:.3f} s")
    print(f"training waits {medians['waiting for the write'] / medians['copying alone']:.1f} times shorter")


if __name__ == "__main__":
    main()
