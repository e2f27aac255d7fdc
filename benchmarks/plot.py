"""Plots how many times as fast as PyTorch a SAGAN step is: by batch, resolution and number of classes.

    python benchmarks/plot.py --torch_python /tmp/torch/bin/python docs/images/step-speed.png

The networks have width 32. Left: batches of 1 to 32 with 1000 classes. Right: 10 and 1000 classes with a batch of 16.
Each measured point is added to a file beside the picture (.json), and a new picture is drawn. Points in that file are
not measured again, so a stopped run goes on where it was.
"""

import argparse
import json
from pathlib import Path

import train_step
import turns

WIDTH, BATCH = 32, 16
SIZES, BATCHES, CLASSES = (32, 64, 128), (1, 2, 4, 8, 16, 32), (10, 1000)
COLORS = ("#0072b2", "#e69f00", "#009e73")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("picture", type=Path, help="PNG to write")
    parser.add_argument("--torch_python", required=True, help="the Python of an environment with PyTorch")
    parser.add_argument("--turns", type=int, default=5, help="rounds to measure for each point")
    parser.add_argument("--seconds", type=float, default=20, help="stop after this time of one point")
    parser.add_argument("--threads", type=int, help="of each side; left out: the physical cores")
    options = parser.parse_args()
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    file = options.picture.with_suffix(".json")
    ratios = json.loads(file.read_text()) if file.exists() else {}
    for size, batch, classes in points():
        name = key(size, batch, classes)
        if name not in ratios:
            ratios[name] = round(ratio(size, batch, classes, options), 3)
            print(f"{name}: {ratios[name]}", flush=True)
            file.write_text(json.dumps(ratios, indent=0) + "\n")
        draw(ratios, options.picture)


def points():
    """(pixels, batch, classes) of all points, the cheapest first."""
    grid = {(size, batch, 1000) for size in SIZES for batch in BATCHES}
    grid |= {(size, BATCH, classes) for size in SIZES for classes in CLASSES}
    return sorted(grid, key=lambda point: (point[0] ** 2 * point[1], point))


def key(size, batch, classes):
    return f"{size} pixels, batch {batch}, {classes} classes"


def ratio(size, batch, classes, options):
    """PyTorch's time of a step / ours, the median over the rounds."""
    values = train_step.sagan(size, WIDTH, classes, batch)
    script, threads = train_step.__file__, options.threads or turns.physical_cores()
    theirs = turns.torch_side(script, threads, train_step.settings(values), options.torch_python)
    sides = [turns.our_side(script, threads, values), theirs]
    taken = turns.measure(sides, options.turns, options.seconds)
    return turns.median_ratio(taken["PyTorch"], taken["ours"])


def draw(ratios, path):
    """Write the picture of `ratios` {key of a point: ratio}."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for index, size in enumerate(SIZES):
        found = [(batch, ratios[key(size, batch, 1000)]) for batch in BATCHES if key(size, batch, 1000) in ratios]
        left.plot(*zip(*found, strict=True) if found else ([], []), "o-", color=COLORS[index], label=f"{size} pixels")
        for place, classes in enumerate(CLASSES):
            if key(size, BATCH, classes) in ratios:
                bar = right.bar(3 * index + place, ratios[key(size, BATCH, classes)], color=COLORS[index], alpha=0.6)
                right.bar_label(bar, [f"{classes}\nclasses"], label_type="center", fontsize=8)
    left.set(xscale="log", xlabel="batch (1000 classes)", ylabel="PyTorch's time / ours")
    left.set_xticks(BATCHES, BATCHES)
    left.minorticks_off()
    left.legend()
    right.set_xticks([3 * index + 0.5 for index in range(len(SIZES))], [f"{size} pixels" for size in SIZES])
    right.set_xlim(-0.7, 3 * len(SIZES) - 1.3)
    right.set_xlabel(f"resolution (batch {BATCH})")
    for axes in (left, right):
        axes.axhline(1, color="gray", linewidth=1, linestyle="--")
        axes.grid(axis="y", alpha=0.3)
        axes.set_ylim(bottom=0)
    figure.suptitle(f"A training step of SAGAN, width {WIDTH}: times as fast as PyTorch")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
