"""The records of a run on its page. The run's folder may come from a stranger."""

import json

import numpy as np
import pytest
from PIL import Image

from pages import records


def test_a_film_has_evenly_chosen_steps(tmp_path):
    for step in range(0, 100):
        Image.fromarray(np.full((50, 800, 3), step, np.uint8)).save(tmp_path / f"step-{step:08d}.png")
    frames = records.film(tmp_path)
    assert len(frames) == records.FRAMES and frames[0][0] == 0 and frames[-1][0] == 99
    assert all(picture.size == (640, 40) and picture.getpixel((9, 9)) == (step,) * 3 for step, picture in frames)


def test_a_film_leaves_out_broken_and_huge_files(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "PIXEL_LIMIT", 2000)
    picture = Image.fromarray(np.zeros((40, 40), np.uint8))
    picture.save(tmp_path / "step-00000001.png")
    picture.resize((80, 80)).save(tmp_path / "step-00000002.png")
    (tmp_path / "step-00000003.png").write_bytes(b"no picture")
    picture.save(tmp_path / "step-00000004.png", "JPEG")
    picture.save(tmp_path / "step-x.png")
    (tmp_path / "step-00000005.png").write_bytes((tmp_path / "step-00000001.png").read_bytes()[:40])
    assert [step for step, _ in records.film(tmp_path)] == [1]
    assert records.film(tmp_path / "none") == []


def report(folder, name, **changes):
    settings = {"num_classes": 10, "classes drawn": 5, "num_samples": 50_000, "number of real images": 50_000}
    content = {"figures": {"fid": 18.25, "inception_score": None}, "settings": settings}
    (folder / name).mkdir()
    (folder / name / "report.json").write_text(json.dumps(content | changes))


def test_reports_have_their_figures_beside_published_ones(tmp_path):
    report(tmp_path, "test-1")
    (found,) = records.reports(tmp_path, "sagan-imagenet")
    rows = {row[0]: row[1:] for row in found["table"]}
    assert found["name"] == "test-1" and rows["FID"] == ("18.2500", "18.65", "18.1482")
    assert rows["Inception Score"][0] == "none" and found["settings"]["classes drawn"] == "5"
    assert found["lines"][0] == "Samples of 5 of the 10 classes are compared with real images of all of them."
    (found,) = records.reports(tmp_path, "mine")
    assert found["table"][0][2:] == (None, None)


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ("/home/me/runs/s/step-1.safetensors", "step-1.safetensors"),
        (r"C:\runs\s\step-1.safetensors", "step-1.safetensors"),
        ("test images of folder in /home/me/my photos/test", "test images of folder in test"),
        ("folder in /home/me/photos/train and /home/me/photos/val", "folder in train and val"),
        ("/home/me/a.pdparams,/home/me/b.pdparams", "a.pdparams,b.pdparams"),
        ("images / seconds / core", None),
        ("training and test images of folder in flowers and flowers-test", None),
        ("resized by the bicubic filter, 16x16 pixels", None),
        (29, "29"),
    ],
)
def test_a_report_s_settings_do_not_tell_folders(tmp_path, setting, shown):
    settings = {"num_classes": 10, "classes drawn": 5, "num_samples": 9, "number of real images": 9, "file": setting}
    report(tmp_path, "test-1", settings=settings)
    (found,) = records.reports(tmp_path, "mine")
    assert found["settings"]["file"] == (shown or setting)


@pytest.mark.parametrize(
    "changes",
    [
        {"figures": {"fid": "x"}},
        {"figures": {"fid": 10**400}},
        {"figures": 3},
        {"settings": []},
        {"settings": {}},
        {"figures": {"fid": [[1]]}},
        {"settings": {"num_classes": 10, "classes drawn": [5]}},
    ],
)
def test_reports_that_cannot_be_read_are_left_out(tmp_path, changes):
    report(tmp_path, "test-1", **changes)
    report(tmp_path, "test-2")
    assert [found["name"] for found in records.reports(tmp_path, "mine")] == ["test-2"]


def test_devices_are_not_read(tmp_path):
    (tmp_path / "test-1").mkdir()
    for name in ("log.txt", "step-00000001.png", "test-1/report.json"):
        (tmp_path / name).symlink_to("/dev/zero")
    assert (records.film(tmp_path), records.reports(tmp_path, "mine"), records.curves(tmp_path)) == ([], [], [])


def test_a_huge_report_is_left_out(tmp_path):
    report(tmp_path, "test-1", versions="x" * 2**20)
    assert records.reports(tmp_path, "mine") == []


def test_curves_have_the_groups_of_visualdl(tmp_path):
    lines = ("step 1 accuracy_real 0.5 d_real 1 data_wait 0.25 new 3", "measured at step 1: fid 20")
    lines += ("health at step 1: g_seconds 2 gate_G_attention 0.5 gate_D_attention 0.25 sigma_G/linear 3",)
    (tmp_path / "log.txt").write_text("".join(f"2026-01-02 03:04:05 {line}\n" for line in lines))
    assert records.curves(tmp_path) == [
        ("fid", {"fid": [(1, 20.0)]}),
        ("class accuracy", {"real": [(1, 0.5)]}),
        ("loss", {"d_real": [(1, 1.0)]}),
        ("speed: data_wait", {"data_wait": [(1, 0.25)]}),
        ("other: new", {"new": [(1, 3.0)]}),
        ("speed: seconds", {"g_seconds": [(1, 2.0)]}),
        ("health: gates", {"gate_G_attention": [(1, 0.5)], "gate_D_attention": [(1, 0.25)]}),
    ]
    assert records.curves(tmp_path / "none") == []
