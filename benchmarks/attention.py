"""Tests a trained SAGAN twice: as it is, and with the gate of the generator's attention set to 0.

    python benchmarks/attention.py sagan_models/sagan-digits-1

Prints the gates and a table in Markdown. With the gate at 0 the attention adds nothing, and the other weights stay as
they are. A report goes into the run's folder (`test`), and one beside the changed checkpoint (`no-attention/test`).
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import recipes

sys.path.append(str(recipes.ROOT))

import checkpoint

GATE = "attention.gamma"


def without_attention(loaded):
    """The `Checkpoint` with every gate of G's attention at 0."""
    parts = {part: dict(arrays) for part, arrays in loaded.parts.items() if part in ("G", "G_ema")}
    for arrays in parts.values():
        arrays[GATE] = np.zeros_like(arrays[GATE])
    return loaded._replace(parts=parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a run of SAGAN")
    parser.add_argument("--threads", help="as test.py's --threads; left out: the physical cores")
    options = parser.parse_args()
    threads = ("--threads", options.threads) if options.threads else ()
    loaded = checkpoint.load_file_or_run(options.run, "run")
    for part in ("G", "G_ema", "D"):
        if part in loaded.parts:
            print(f"gate of {part}: {loaded.parts[part][GATE].item():.4f}")
    folder = options.run / "no-attention"
    folder.mkdir(exist_ok=True)
    changed = without_attention(loaded)
    file = folder / loaded.path.name
    checkpoint.save(file, changed.step, changed.parameters, changed.parts, changed.notes, changed.class_names)
    rows = {
        "as trained": recipes.tested(options.run, options.run / "test", threads),
        "gate at 0": recipes.tested(file, folder / "test", threads),
    }
    print(recipes.table({name: [figures] for name, figures in rows.items()}))


if __name__ == "__main__":
    main()
