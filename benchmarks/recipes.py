"""Trains recipes with several seeds, tests each run, and prints a table in Markdown: mean and spread over the seeds.

    python benchmarks/recipes.py sagan-digits --out /tmp/recipes
    python benchmarks/recipes.py digits --out /tmp/recipes
    python benchmarks/recipes.py glyphs --out /tmp/recipes

The spread is the standard deviation over the seeds (n - 1). A run that is complete is neither trained nor measured
again, and a stopped one goes on. So the same command, once more, only prints the table. The figures of a run are in its
folder `test`: in `report.json`, those of glyphs in `figures.json`.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import glyphs
import numpy as np

ROOT = Path(__file__).parents[1]
REACGAN = ("--class_loss", "d2d_ce", "--class_loss_weight", "0.5")  # the authors' weight for CIFAR-10
DIFFAUGMENT = ("--diffaug", "color,translation,cutout")
# The one-hot class takes the place of 128 of the 192 numbers of z.
GLYPHS = ("--model", "acgan-digits", "--dataset", "folder", "--z_dim", "192", "--total_step", "3000")
# Comparison: its rows, each with the options of train.py.
COMPARISONS = {
    "sagan-digits": {"sagan-digits": ("--recipe", "sagan-digits")},
    "digits": {
        "ACGAN": ("--recipe", "acgan-digits"),
        "ReACGAN": ("--recipe", "acgan-digits", *REACGAN),
        "ACGAN with DiffAugment": ("--recipe", "acgan-digits", *DIFFAUGMENT),
        "ReACGAN with DiffAugment": ("--recipe", "acgan-digits", *REACGAN, *DIFFAUGMENT),
    },
    "glyphs": {
        "ACGAN": GLYPHS,
        **{f"ACGAN with weight {x}": (*GLYPHS, "--class_loss_weight", x) for x in ("1", "2", "4")},
        "ReACGAN": (*GLYPHS, *REACGAN, "--class_loss_weight", "2"),  # with 0.5, G learns no class in so few steps
        **{f"ReACGAN with weight {x}": (*GLYPHS, *REACGAN, "--class_loss_weight", x) for x in ("0.5", "1", "4")},
    },
}
# Figure: its title and format.
FIGURES = {
    "classifier_accuracy": ("read as the class asked for", ".2%"),
    "class_distance_ratio": ("distance within a class, generated over real", ".3f"),
    "classifier_fid": ("classifier FID", ".1f"),
}
# Figure of samples: the same figure of the real test images. The runs of one seed have equal ones.
OF_REAL = {"classifier_accuracy": "classifier_accuracy_real", "classifier_fid": "classifier_fid_floor"}
SAMPLES_OF_GLYPH = 100  # of each class


def measured_run(comparison, name, options, seed, out, threads):
    """Train and test the run of one row and one seed. Returns {figure: value}."""
    run = out / f"{comparison}-{name.replace(' ', '-')}-{seed}"
    data = out / "glyphs.npz", out / "glyphs-test.npz"
    if comparison == "glyphs":
        options = (*options, "--data_path", data[0])
        if not data[1].exists():
            call("benchmarks/glyphs.py", *data)
    if not (run / "test" / "report.json").exists():
        place = "--save_path", out, "--name", run.name, "--resume", "auto"
        call("train.py", *options, "--manual_seed", seed, *threads, *place)
    if comparison != "glyphs":
        return tested(run, run / "test", threads)
    figures = run / "test" / "figures.json"
    if not figures.exists():
        samples, count = run / "samples.npz", SAMPLES_OF_GLYPH * len(glyphs.CHARACTERS)
        only_draw = "--metrics", "none", "--samples_npz", samples, "--num_samples", count
        tested(run, run / "test", (*threads, *only_draw))
        values = {name: float(value) for name, value in figures_of_glyphs(samples, *data, seed).items()}
        figures.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return json.loads(figures.read_text(encoding="utf-8"))


def tested(weights, folder, options):
    """Test a run or a checkpoint, with the report in `folder`, unless it is there. Returns {figure: value}."""
    report = folder / "report.json"
    if not report.exists():
        call("test.py", "--pretrained_model", weights, "--test_path", folder, *options)
    return json.loads(report.read_text(encoding="utf-8"))["figures"]


def call(script, *arguments):
    """Run a script of this project; its output passes through. Exit if it fails."""
    if status := subprocess.run([sys.executable, ROOT / script, *map(str, arguments)]).returncode:
        sys.exit(status)


def figures_of_glyphs(samples, training, test, seed):
    """The figures that test.py gives for digits, of the glyphs in the file `samples`: {figure: value}."""
    from dataset import load_dataset
    from evaluation.extractors import ClassifierExtractor
    from evaluation.measurement import Needs
    from metrics.diversity import class_distance
    from metrics.fid import fid_of_features
    from parameters import Parameters

    p = Parameters(
        dataset="folder", imsize=glyphs.SIZE, data_path=str(training), test_data_path=str(test), manual_seed=seed
    )
    train_set, test_set = load_dataset(p), load_dataset(p, "test")
    extractor, needs = ClassifierExtractor(p, train_set), Needs((), True, False, (glyphs.SIZE,))
    with np.load(samples) as file:
        images, labels = file["arr_0"].transpose(0, 3, 1, 2), file["arr_1"]
    drawn, real = (extractor.read(*pair, needs) for pair in ((images, labels), (test_set.stacked(), test_set.labels)))
    distances = [
        class_distance(*pair)["class_distance"] for pair in ((images, labels), (train_set.stacked(), train_set.labels))
    ]
    return {
        "classifier_accuracy": drawn["right", glyphs.SIZE].mean(),
        "classifier_accuracy_real": real["right", glyphs.SIZE].mean(),
        "class_distance_ratio": distances[0] / distances[1],
        "classifier_fid": fid_of_features(drawn["features"], real["features"])["fid"],
    }


def table(rows):
    """The table in Markdown. `rows`: {name: [{figure: value} of each seed]}. The last row has the real test images."""
    lines = [f"| | seeds | {' | '.join(title for title, _ in FIGURES.values())} |", "|---" * (2 + len(FIGURES)) + "|"]
    for name, runs in rows.items():
        cells = [spread([run[figure] for run in runs], kind) for figure, (_, kind) in FIGURES.items()]
        lines.append(f"| {name} | {len(runs)} | {' | '.join(cells)} |")
    first, cells = next(iter(rows.values())), []
    for figure, (_, kind) in FIGURES.items():
        values = [run[OF_REAL[figure]] for run in first if OF_REAL.get(figure) in run]
        cells.append(spread(values, kind) if values else "")
    lines.append(f"| real test images | {len(first)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values, kind):
    """The mean of `values` and, of two or more, their standard deviation, in the format `kind`."""
    mean = format(statistics.mean(values), kind)
    return f"{mean} ± {format(statistics.stdev(values), kind)}" if len(values) > 1 else mean


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", default="29,30,31", help="seeds, such as %(default)s")
    parser.add_argument("--rows", help="only these rows, such as ACGAN,ReACGAN; left out: all")
    parser.add_argument("--threads", help="as train.py's --threads; left out: the physical cores")
    options = parser.parse_args()
    rows = COMPARISONS[options.comparison]
    chosen = options.rows.split(",") if options.rows else list(rows)
    if unknown := sorted(set(chosen) - set(rows)):
        parser.error(f"--rows has {unknown[0]}; the rows are {', '.join(rows)}")
    options.out.mkdir(parents=True, exist_ok=True)
    threads = ("--threads", options.threads) if options.threads else ()
    figures = {name: [] for name in chosen}
    for seed in map(int, options.seeds.split(",")):
        for name in chosen:
            run = measured_run(options.comparison, name, rows[name], seed, options.out, threads)
            figures[name].append(run)
            shown = ", ".join(f"{figure} {format(run[figure], kind)}" for figure, (_, kind) in FIGURES.items())
            real = format(run["classifier_accuracy_real"], FIGURES["classifier_accuracy"][1])
            print(f"{name}, seed {seed}: {shown}, classifier_accuracy_real {real}", flush=True)
    print(table(figures))


if __name__ == "__main__":
    main()
