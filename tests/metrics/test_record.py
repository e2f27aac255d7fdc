"""The records of the metrics: a new metric is one new file, and `--help` imports nothing slow."""

import json
import subprocess
import sys

import numpy as np
import pytest
from commands import LIMIT, ROOT, copy_program, run

from metrics import all_metrics

TOY = '''"""The distance between the mean images' features."""

import numpy as np

from metrics.record import Figure, Metric

METRICS = (
    Metric(
        "toy",
        (Figure("toy", "distance of the means", ".3f"), Figure("toy_count", "samples compared", ".0f")),
        lambda sets: {
            "toy": float(np.linalg.norm(sets.real.features.mean(0) - sets.samples.features.mean(0))),
            "toy_count": sets.samples.count,
        },
        features=True,
        fewest=7,
    ),
)
'''


@pytest.fixture
def program(tmp_path):
    """A copy of the program with one more file in metrics/."""
    copy_program(tmp_path)
    (tmp_path / "metrics" / "toy.py").write_text(TOY)
    return tmp_path


@pytest.mark.slow
def test_one_new_file_adds_a_metric(program):
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 1), np.uint8)
    np.savez(program / "some.npz", images)
    np.savez(program / "few.npz", images[:6])
    command = [program / "test.py", "--dataset", "digits", "--device", "cpu", "--metrics"]
    code, out, err = run(program, *command, "toy,is", "--samples", "some.npz", "--test_path", "out")
    assert code == 0, err
    figures = json.loads((program / "out" / "report.json").read_text())["figures"]
    assert figures["classifier_toy"] > 0 and figures["classifier_toy_count"] == 20
    text = f"{figures['classifier_toy']:.3f}"
    assert f"| classifier distance of the means | {text} |" in (program / "out" / "report.md").read_text()
    assert f"classifier distance of the means: {text}" in " ".join(out.split())
    code, _, err = run(program, *command, "toy", "--samples", "few.npz")
    assert code == 2 and "'toy' needs 7 samples or more, not 6" in err
    code, _, err = run(program, *command, "toys", "--samples", "few.npz")
    assert code == 2 and "distance,toy, each once" in err
    code, out, _ = run(program, program / "test.py", "--help")
    assert code == 0 and "distance, toy" in " ".join(out.split())


def test_every_metric_and_figure_has_one_record():
    figures = [figure.name for metric in all_metrics().values() for figure in metric.figures]
    assert len(set(figures)) == len(figures)
    for metric in all_metrics().values():
        assert metric.best in ("", *(figure.name for figure in metric.figures))


def test_help_needs_no_slow_imports():
    program = (
        "import sys\nimport parameters\n"
        "print(*{name.split('.')[0] for name in sys.modules} & {'paddle', 'cv2', 'PIL', 'sklearn', 'safetensors'})\n"
        "print(*(name for name in sys.modules if name in ('scipy.linalg', 'scipy.special')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    assert done.stdout.split() == [], done.stderr
