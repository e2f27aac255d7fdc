"""The share of a step that the figures of a run's health take: norms of gradients, gates, sigmas, signs of a collapse.

    python benchmarks/health.py acgan-digits
    python benchmarks/health.py sagan-digits

Norms are computed at each `--log_step`, everything else at each `--sample_step`. The recipe decides these intervals.
Times are medians. The shares of images on which D is right belong to the losses of each step, so they are not timed.
"""

import argparse
import statistics
import sys
from pathlib import Path

from saving import timed

sys.path.append(str(Path(__file__).parents[1]))

import runtime  # before paddle
from dataset import batches, load_dataset
from metrics.diversity import class_distance
from parameters import from_values, read_recipe
from trainer import Trainer
from training.collapse import Collapse
from training.health import gradient_norm, layer_figures


def share(step, norms, checks, parameters):
    """The share of a step of `step` seconds for the norms at each `log_step` and the checks at each `sample_step`."""
    return (norms / parameters.log_step + checks / parameters.sample_step) / step


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipe", choices=("acgan-digits", "sagan-digits"), help="its networks and intervals")
    parser.add_argument("--turns", type=int, default=30, help="steps that are timed; default %(default)s")
    options = parser.parse_args()
    p = from_values(read_recipe(options.recipe) | {"num_classes": 10, "device": "cpu"}, "the benchmark")
    runtime.start(p)
    images, trainer = load_dataset(p), Trainer(p)
    collapse = Collapse(p, class_distance(images.stacked(), images.labels)["class_distance"])
    data = batches(images, p, first=0)

    def norms():
        return [gradient_norm(network).item() for network in (trainer.G, trainer.D)]

    def check():
        """As at a `--sample_step`. The picture shows samples of the average, so those of G are drawn for the check."""
        collapse.add({"d_real": 1.0})
        collapse.check(trainer.step, trainer.sample_grid(trainer.G))
        layer_figures({"G": trainer.G, "D": trainer.D})

    functions = {"a step": lambda: trainer.train_step(data), "norms of gradients": norms, "a check": check}
    seconds = {name: [] for name in functions}
    for turn in range(options.turns + 3):  # the first three warm up
        for name, function in functions.items():
            taken = timed(function)
            if turn >= 3:
                seconds[name].append(taken)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name:20} {1000 * value:.2f} ms")
    intervals = f"norms at each {p.log_step} and a check at each {p.sample_step} steps"
    print(f"{options.recipe}, {intervals}: {share(*medians.values(), p):.2%} of a step")


if __name__ == "__main__":
    main()
