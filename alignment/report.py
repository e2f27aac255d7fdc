"""Tables of the compared figures: on the terminal, as Markdown, and as files for `reprod_log`."""

import numpy as np

from utils import atomic_path

COLUMNS = ("stage", "quantity", "reference", "ours", "rel. difference", "verdict")
# Paddle's reproduction guide names the two files of a stage STAGE_paddle.npy and STAGE_torch.npy, except for training.
REFERENCES = {"train_align": "benchmark"}
STAGES = ("forward", "metric", "loss", "bp_align", "train_align")


def cells(row):
    """The cells of a Row in the table, as text. They show the figure that differs most."""
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
    """One line on a fixture: how many quantities agree, and the largest difference relative to its tolerance."""
    agreeing = sum(row.agrees for row in rows)
    worst = max(rows, key=lambda row: np.nan_to_num(row.difference / row.tolerance, nan=np.inf))
    verdict = "agree" if agreeing == len(rows) else "agree, THE OTHERS DISAGREE"
    return (
        f"{name}: {agreeing} of {len(rows)} quantities {verdict}; largest difference {worst.difference:.1e} "
        f"of {worst.tolerance:g} allowed ({worst.stage}, {worst.quantity})"
    )


def write(folder, results):
    """Write alignment.md and the two files of each stage for `reprod_log`. `results`: (name, fixture, rows) tuples.

    `reprod_log` reads a dictionary of arrays, written by `np.save`. A key is FIXTURE/QUANTITY, its value the figures.
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
    """The report as Markdown: for each fixture a summary, a line per stage, and the complete table, collapsed."""
    sections = ["# Alignment\n"]
    for name, fixture, rows in results:
        stages = [
            f"- {stage}: {len(of_stage)} quantities, largest difference {max(row.difference for row in of_stage):.1e}"
            for stage in STAGES
            if (of_stage := [row for row in rows if row.stage == stage])
        ]
        lines = [COLUMNS, ("---",) * len(COLUMNS), *map(cells, rows)]
        table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
        sections += [
            f"## {name}\n",
            f"Reference: {fixture.get('reference', 'not said')}.\n",
            f"{summary(name, rows)}.\n",
            "\n".join(stages) + "\n",
            f"<details><summary>All {len(rows)} quantities</summary>\n\n{table}\n\n</details>\n",
        ]
    return "\n".join(sections)
