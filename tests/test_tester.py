"""Where `test.py` writes: a folder for each test, and one that is interrupted goes on in its own."""

import contextlib
import hashlib
import json
import os
import re
import signal
import threading
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, start
from PIL import Image

import acgan_models
import checkpoint
import tester
import utils
from parameters import CommandLine
from utils import LOCK_FILE, UserError, lock

FILES = ["class_grid.png", "report.json", "report.md"]


@pytest.fixture
def model(make_parameters, tmp_path):
    """The file of a generator of digits, with untrained weights."""
    p = make_parameters(dataset="digits", num_classes=10)
    state = {name: tensor.numpy() for name, tensor in acgan_models.build_generator(p).state_dict().items()}
    checkpoint.save(tmp_path / "model.safetensors", 2, asdict(p), {"G": state})
    return tmp_path / "model.safetensors"


def run_test(*options):
    """Do test.py's work with the given options."""
    given = [str(option) for option in (*options, "--device", "cpu")]
    command = CommandLine(given, program="test")
    loaded, source = checkpoint.load_given(command.given, wanted=("G", "G_ema"))
    tester.Tester(command.parameters(loaded and loaded.parameters), loaded, source).test()


@contextlib.contextmanager
def interrupted(condition):
    """SIGINT comes as soon as `condition()` holds, and ends the block as a signal ends test.py."""

    def watch():
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch)
    thread.start()
    with pytest.raises(SystemExit) as caught:
        yield
    thread.join()
    assert caught.value.code == 130


def part_has(folder, share):
    """Whether the part in `folder` has this share of its images."""
    try:
        with np.load(folder / "part-0.npz") as arrays:
            return arrays["done"].mean() >= share
    except FileNotFoundError:
        return False


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def report(folder):
    return json.loads((folder / "report.json").read_text())


def test_two_tests_of_one_model_at_once(model, tmp_path):
    command = [ROOT / "test.py", "--pretrained_model", model, "--metrics", "none", "--device", "cpu"]
    processes = [
        start(tmp_path, *command, "--num_samples", 20_000, "--truncation", t, "--samples_npz", f"{t}.npz")
        for t in (0.7, 1.5)
    ]
    folders = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        folders.append(Path(re.search("^report: (.+)/report.md$", out, re.MULTILINE)[1]))
    assert sorted(folder.name for folder in folders) == ["test-model", "test-model-2"]
    assert [report(folder)["settings"]["truncation"] for folder in folders] == [0.7, 1.5]
    assert all(names(folder) == FILES for folder in folders)


def test_a_folder_that_another_test_uses(model, tmp_path):
    options = ["--pretrained_model", model, "--metrics", "none", "--num_samples", 20, "--test_path", tmp_path / "mine"]
    (tmp_path / "mine").mkdir()
    with (
        lock(tmp_path / "mine"),
        pytest.raises(UserError, match=f"mine is in use by process {os.getpid()} on") as caught,
    ):
        run_test(*options)
    assert str(caught.value).startswith("--test_path") and names(tmp_path / "mine") == [LOCK_FILE]
    run_test(*options)  # the lock of a process that is gone is none
    assert names(tmp_path / "mine") == FILES


def test_other_tests_leave_an_interrupted_one_alone(model, tmp_path, capsys):
    first, other = tmp_path / "test-model", ["--pretrained_model", model, "--num_samples", 20, "--metrics", "none"]
    command = ["--pretrained_model", model, "--num_samples", 20_000, "--metrics", "none"]
    command += ["--samples_npz", tmp_path / "all.npz"]
    with interrupted(lambda: any(path.stat().st_size > 10**6 for path in tmp_path.glob(".all.npz*"))):
        run_test(*command)
    kept = (first / "part-0.npz").read_bytes()
    run_test(*other)
    assert names(tmp_path / "test-model-2") == FILES
    with pytest.raises(UserError, match=r"^--test_path .*test-model has what an interrupted test of other options"):
        run_test(*other, "--test_path", first)
    assert (first / "part-0.npz").read_bytes() == kept
    with np.load(first / "part-0.npz") as held:
        np.savez(first / "part-0.npz", **{**held, "seconds": np.array(1000.0)})
    capsys.readouterr()
    run_test(*command)
    assert re.search(r"^goes on where it was: [1-9]\d*% is done$", capsys.readouterr().out, re.MULTILINE)
    assert names(first) == FILES and report(first)["seconds"]["samples"] > 1000
    assert not (tmp_path / "test-model-3").exists() and not list(tmp_path.glob(".all*"))
    run_test(*command[:-1], tmp_path / "again.npz")
    with np.load(tmp_path / "all.npz") as one, np.load(tmp_path / "again.npz") as other:
        assert (one["arr_0"] == other["arr_0"]).all()


def test_an_interrupted_comparison_goes_on(tmp_path, capsys):
    """Ctrl-C in the last stage, which is precision and recall of many samples."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "many.npz", rng.integers(0, 256, (5000, 16, 16, 1), np.uint8))
    options = ["--samples", tmp_path / "many.npz", "--dataset", "digits", "--metrics", "prdc"]
    options += ["--test_path", tmp_path / "out"]
    with interrupted(lambda: part_has(tmp_path / "out", 1)):
        run_test(*options)
    assert names(tmp_path / "out") == [LOCK_FILE, "part-0.npz"]
    capsys.readouterr()
    run_test(*options)
    assert "goes on where it was: 100% is done" in capsys.readouterr().out
    assert names(tmp_path / "out") == FILES[1:]


def pictures(folder, count):
    for index in range(count):
        (folder / str(index % 10)).mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(index).integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(image).save(folder / str(index % 10) / f"{index:04d}.png")
    return folder


def test_samples_that_change_are_other_samples(tmp_path, capsys):
    """One image, in as many bytes, and of the same time."""
    options = ["--samples", pictures(tmp_path / "s", 4000), "--dataset", "digits", "--metrics", "accuracy"]
    options += ["--save_path", tmp_path]
    with interrupted(lambda: part_has(tmp_path / "test-s", 0)):
        run_test(*options)
    path = tmp_path / "s" / "0" / "0000.png"
    before, data = path.stat(), bytearray(path.read_bytes())
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    data = path.read_bytes().ljust(before.st_size, b"\0")[: before.st_size]
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    capsys.readouterr()
    run_test(*options)
    assert "goes on" not in capsys.readouterr().out
    assert names(tmp_path / "test-s")[-1] == "part-0.npz"
    files = sorted(str(path.relative_to(tmp_path / "s")) for path in tmp_path.glob("s/*/*"))
    lines = [f"{hashlib.sha256((tmp_path / 's' / name).read_bytes()).hexdigest()}  {name}\n" for name in files]
    found = report(tmp_path / "test-s-2")["settings"]["sha256"]
    assert found == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_standing_statistics_are_a_stage(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(utils, "FIRST_LINE", 0)
    options = ["--pretrained_model", model, "--metrics", "none", "--num_samples", 20, "--standing_batches", 300]
    run_test(*options)
    seconds = report(tmp_path / "test-model")["seconds"]
    assert seconds["standing statistics"] > 0.1
    assert re.search(r"^standing statistics \(batch\): \d+ of 300, \d\d:\d\d left$", capsys.readouterr().err, re.M)


def test_a_report_of_nothing_measured_claims_no_samples(model, tmp_path, capsys):
    """None is drawn but for the picture; with a file of samples they are drawn, though not measured."""
    for name, options, count, drawn, labels in (
        ("none", (), 0, 0, "none"),
        ("written", ("--samples_npz", tmp_path / "a.npz", "--num_samples", 7), 7, 7, "auto: in turns"),
    ):
        run_test("--pretrained_model", model, "--metrics", "none", "--test_path", tmp_path / name, *options)
        settings = report(tmp_path / name)["settings"]
        assert [settings[key] for key in ("num_samples", "classes drawn", "labels")] == [count, drawn, labels]
        text = (tmp_path / name / "report.md").read_text()
        assert f"| num samples | {count} |" in text and "Nothing was measured." in text and "50000" not in text


def test_a_report_on_a_file_of_a_strange_name_is_a_table(model, tmp_path):
    strange = model.rename(tmp_path / "a|b\n`<script>.safetensors")
    run_test("--pretrained_model", strange, "--metrics", "none", "--test_path", tmp_path / "t")
    text = (tmp_path / "t" / "report.md").read_text()
    assert "a\\|b\\n\\`&lt;script&gt;.safetensors |" in text and "<" not in text
