"""The table of an alignment, on the terminal, as Markdown and in the format of `reprod_log`."""

import numpy as np

from utils import atomic_path

COLUMNS = ("stage", "quantity", "reference", "ours", "rel. difference", "verdict")
# Paddle's reproduction guide calls a stage's pair of files STAGE_paddle.npy and STAGE_torch.npy, but for the training.
REFERENCES = {"train_align": "benchmark"}
STAGES = ("forward", "metric", "loss", "bp_align", "train_align")


def cells(row):
    """A Row as text: of its figures, the one that differs most."""
    worst = row.worst
    return (
        row.stage,
        f"{row.quantity} {row.labels[worst]}".strip(),
        f"{row.reference[worst]:.10g}",
        f"{row.ours[worst]:.10g}",
        f"{row.difference:.1e}",
        "agrees" if row.agrees else f"DISAGREES (> {row.tolerance:g})",
    )


def text_table(rows):
    """The rows as lines of aligned text."""
    table = [COLUMNS, *map(cells, rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(COLUMNS))]
    lines = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in table]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def summary(name, rows):
    """One line on a fixture: how many of its quantities agree, and which differs most for its tolerance."""
    agreeing = sum(row.agrees for row in rows)
    worst = max(rows, key=lambda row: np.nan_to_num(row.difference / row.tolerance, nan=np.inf))
    verdict = "agree" if agreeing == len(rows) else "agree, THE OTHERS DISAGREE"
    return (
        f"{name}: {agreeing} of {len(rows)} quantities {verdict}; largest difference {worst.difference:.1e} "
        f"of {worst.tolerance:g} allowed ({worst.stage}, {worst.quantity})"
    )


def write(folder, results):
    """Write alignment.md and, by stage, the pairs of files of `reprod_log`; `results`: (name, fixture, rows) tuples.

    A file of `reprod_log` is `np.save` of a dictionary of arrays, which its reader opens with `allow_pickle`; keys are
    FIXTURE/QUANTITY and values the compared figures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stage in STAGES:
        logs = {"reference": {}, "ours": {}}
        for name, _, rows in results:
            for row in rows:
                if row.stage == stage:
                    logs["reference"][f"{name}/{row.quantity}"] = row.reference
                    logs["ours"][f"{name}/{row.quantity}"] = row.ours
        for side, log in zip((REFERENCES.get(stage, "torch"), "paddle"), logs.values(), strict=True):
            if log:
                with atomic_path(folder / f"{stage}_{side}.npy") as path:
                    np.save(path, log)
    with atomic_path(folder / "alignment.md") as path:
        path.write_text(markdown(results), encoding="utf-8")


def markdown(results):
    """The whole report: for each fixture a summary, a line a stage, and the whole table folded away."""
    parts = ["# Alignment\n"]
    for name, fixture, rows in results:
        stages = [
            f"- {stage}: {len(part)} quantities, largest difference {max(row.difference for row in part):.1e}"
            for stage in STAGES
            if (part := [row for row in rows if row.stage == stage])
        ]
        lines = [COLUMNS, ("---",) * len(COLUMNS), *map(cells, rows)]
        table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
        parts += [
            f"## {name}\n",
            f"Reference: {fixture.get('reference', 'not said')}.\n",
            f"{summary(name, rows)}.\n",
            "\n".join(stages) + "\n",
            f"<details><summary>All {len(rows)} quantities</summary>\n\n{table}\n\n</details>\n",
        ]
    return "\n".join(parts)
