"""Curves of a run: read from its log, drawn as SVG."""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from pages import curves


def log(folder, *lines):
    path = folder / "log.txt"
    path.write_text("".join(f"2026-01-02 03:04:05 {line}\n" for line in lines), encoding="utf-8")
    return path


def test_a_log_gives_its_figures_by_step(tmp_path):
    path = log(
        tmp_path,
        "started at step 0 of 30: 1437 images, 64 a step",
        "step 10 d_real 0.5 D_x nan g_adv 1e-3",
        "measured at step 10: classifier_fid 12.5",
        "health at step 10: gate_G_attention 0.5 sigma_G/linear 2",
        "changed --d_lr from 0.1 to 0.2",
        "step 20 d_real 0.25 D_x -2",
    )
    training, measured, health = curves.read_log(path)
    assert health["gate_G_attention"] == [(10, 0.5)]
    assert training == {"d_real": [(10, 0.5), (20, 0.25)], "g_adv": [(10, 0.001)], "D_x": [(20, -2.0)]}
    assert measured == {"classifier_fid": [(10, 12.5)]}


def test_any_file_is_read_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "ROW_LIMIT", 50)
    path = log(tmp_path, *(f"step {step} loss {step}" for step in range(1000)))
    path.write_bytes(path.read_bytes() + b"\xff\x00" * 50_000 + b"\nx y step 1 " + b"a 1 " * 9000)
    training, _, _ = curves.read_log(path)
    points = training["loss"]
    assert 25 <= len(points) <= 50 and points[0] == (0, 0.0) and points[-1][0] > 900
    assert len({second[0] - first[0] for first, second in pairwise(points)}) == 1
    assert len(training) <= curves.NAME_LIMIT


def polylines(picture):
    """The points of each curve in a chart."""
    root = ET.fromstring(f"<div>{picture}</div>")  # it is well-formed
    return [
        [tuple(map(float, point.split(","))) for point in line.get("points").split()] for line in root.iter("polyline")
    ]


def test_a_chart_draws_each_curve_inside_its_frame():
    picture = curves.chart({"one": [(0, 1.0), (10, 3.0), (20, 2.0)], "two": [(0, -1.0), (20, -1.0)]})
    one, two = polylines(picture)
    assert [x for x, _ in one] == [curves.LEFT, (curves.LEFT + curves.WIDTH - curves.RIGHT) / 2, 472]
    assert one[1][1] < one[2][1] < one[0][1] < two[0][1] == two[1][1]  # SVG counts from the top
    assert all(0 <= y <= curves.HEIGHT for line in (one, two) for _, y in line)
    assert re.findall(r'text-anchor="end">([^<]+)', picture)[:4] == ["-1", "0", "1", "2"]


def test_a_chart_thins_long_curves_by_means():
    points = [(step, step % 2) for step in range(10_000)]
    (line,) = polylines(curves.chart({"noise": points}))
    assert len(line) <= curves.POINTS and len({y for _, y in line}) == 1


@pytest.mark.parametrize(
    "points",
    [
        [(7, 0.0)],
        [(7, 5.0)],
        [(0, 1e29), (3_000_000, -1e29)],
        [(1, 1.0), (2, 1.0)],
        [(1, 0.0), (2, 5e-324)],
        [(1, 3e-320), (2, 9e-320)],
    ],
)
def test_a_chart_of_unusual_values(points):
    (line,) = polylines(curves.chart({"a": points}))
    assert len(line) == len(points)


def test_the_rules_of_a_chart_of_small_values_have_their_values():
    picture = curves.chart({"a": [(0, 0.0), (10, 4e-15)]})
    assert re.findall(r'text-anchor="end">([^<]+)', picture)[:5] == ["0", "1e-15", "2e-15", "3e-15", "4e-15"]


def test_names_are_escaped():
    picture = curves.chart({"<script>alert(1)</script>": [(1, 2.0)], '" onload="x': [(1, 1.0)]})
    assert "<script" not in picture and '" onload' not in picture
