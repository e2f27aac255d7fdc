"""The folders of `test.py`: each test has its own, and an interrupted test resumes in its own."""

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
from commands import LIMIT, ROOT, run, start
from PIL import Image

import acgan_models
import checkpoint
import tester
import utils
from command.line import CommandLine
from networks import models_of
from utils import LOCK_FILE, UserError, lock

FILES = ["class_grid.png", "report.json", "report.md"]


@pytest.fixture
def model(make_parameters, tmp_path):
    """The file of an untrained generator of digits."""
    p = make_parameters(dataset="digits", num_classes=10)
    state = {name: tensor.numpy() for name, tensor in acgan_models.build_generator(p).state_dict().items()}
    checkpoint.save(tmp_path / "model.safetensors", 2, asdict(p), {"G": state})
    return tmp_path / "model.safetensors"


def run_test(*options):
    """Do test.py's work with the given options."""
    given = [str(option) for option in (*options, "--device", "cpu")]
    command = CommandLine(given, program="test")
    needed = command.checkpoint_to_load()
    loaded = checkpoint.load_file_or_run(*needed, wanted=("G", "G_ema")) if needed else None
    tester.Tester(command.parameters(loaded and loaded.parameters), loaded).test()


@contextlib.contextmanager
def interrupted(condition):
    """Send SIGINT as soon as `condition()` holds. The block must end as a signal ends test.py."""

    def watch():
        deadline = time.monotonic() + LIMIT
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch)
    thread.start()
    with pytest.raises(SystemExit) as caught:
        yield
    thread.join()
    assert caught.value.code == 130


def has_measured(folder, share):
    """Whether the test in `folder` has measured at least this share of its images."""
    try:
        with np.load(folder / "process-0.npz") as arrays:
            return arrays["done"].mean() >= share
    except FileNotFoundError:
        return False


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def report(folder):
    return json.loads((folder / "report.json").read_text())


@pytest.mark.parametrize("place", [[], ["--test_path", "mine"]], ids=["default", "--test_path"])
def test_a_refused_test_leaves_no_folder(model, tmp_path, place, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "0.png").touch()
    (tmp_path / "kept").mkdir()
    options = ["--pretrained_model", model, "--metrics", "none", "--num_samples", 20, "--samples_dir", "full"]
    for test_path in (place, ["--test_path", "kept"]):
        with pytest.raises(UserError, match="--samples_dir full is not empty"):
            run_test(*options, *test_path)
    assert names(tmp_path) == ["full", "kept", "model.safetensors"]


@pytest.mark.slow
def test_two_tests_of_one_model_at_once_use_two_folders(model, tmp_path):
    command = [ROOT / "test.py", "--pretrained_model", model, "--metrics", "none", "--device", "cpu"]
    processes = [
        start(tmp_path, *command, "--num_samples", 20_000, "--truncation", t, "--samples_npz", f"{t}.npz")
        for t in (0.7, 1.5)
    ]
    folders = []
    for process in processes:
        out, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, err
        folders.append(Path(re.search("^report: (.+)/report.md$", out, re.MULTILINE)[1]))
    assert sorted(folder.name for folder in folders) == ["test-model", "test-model-2"]
    assert [report(folder)["settings"]["truncation"] for folder in folders] == [0.7, 1.5]
    assert all(names(folder) == FILES for folder in folders)


def test_a_folder_that_another_test_uses_is_refused(model, tmp_path):
    options = ["--pretrained_model", model, "--metrics", "none", "--num_samples", 20, "--test_path", tmp_path / "mine"]
    (tmp_path / "mine").mkdir()
    with (
        lock(tmp_path / "mine"),
        pytest.raises(UserError, match=f"mine is in use by process {os.getpid()} on") as caught,
    ):
        run_test(*options)
    assert str(caught.value).startswith("--test_path") and names(tmp_path / "mine") == [LOCK_FILE]
    run_test(*options)  # the lock of an ended process does not count
    assert names(tmp_path / "mine") == FILES


@pytest.mark.slow
def test_other_tests_leave_an_interrupted_one_alone(model, tmp_path, capsys):
    first, other = tmp_path / "test-model", ["--pretrained_model", model, "--num_samples", 20, "--metrics", "none"]
    command = ["--pretrained_model", model, "--num_samples", 20_000, "--metrics", "none"]
    command += ["--samples_npz", tmp_path / "all.npz"]
    with interrupted(lambda: any(path.stat().st_size > 10**6 for path in tmp_path.glob(".all.npz*"))):
        run_test(*command)
    kept = (first / "process-0.npz").read_bytes()
    run_test(*other)
    assert names(tmp_path / "test-model-2") == FILES
    with pytest.raises(
        UserError, match=r"^--test_path .*test-model holds the files of an interrupted test with other options"
    ):
        run_test(*other, "--test_path", first)
    assert (first / "process-0.npz").read_bytes() == kept
    with np.load(first / "process-0.npz") as held:
        np.savez(first / "process-0.npz", **{**held, "seconds": np.array(1000.0)})
    capsys.readouterr()
    run_test(*command)
    assert re.search(r"^resuming: [1-9]\d*% is done$", capsys.readouterr().out, re.MULTILINE)
    assert names(first) == FILES and report(first)["seconds"]["samples"] > 1000
    assert not (tmp_path / "test-model-3").exists() and not list(tmp_path.glob(".all*"))
    run_test(*command[:-1], tmp_path / "again.npz")
    with np.load(tmp_path / "all.npz") as one, np.load(tmp_path / "again.npz") as other:
        assert (one["arr_0"] == other["arr_0"]).all()


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on(tmp_path, capsys):
    """Ctrl-C in the last stage: precision and recall of many samples."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "many.npz", rng.integers(0, 256, (5000, 16, 16, 1), np.uint8))
    options = ["--samples", tmp_path / "many.npz", "--dataset", "digits", "--metrics", "prdc"]
    options += ["--test_path", tmp_path / "out"]
    with interrupted(lambda: has_measured(tmp_path / "out", 1)):
        run_test(*options)
    assert names(tmp_path / "out") == [LOCK_FILE, "process-0.npz"]
    capsys.readouterr()
    run_test(*options)
    assert "resuming: 100% is done" in capsys.readouterr().out
    assert names(tmp_path / "out") == FILES[1:]


def pictures(folder, count):
    for index in range(count):
        (folder / str(index % 10)).mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(index).integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(image).save(folder / str(index % 10) / f"{index:04d}.png")
    return folder


def test_changed_samples_do_not_resume_the_old_test(tmp_path, capsys):
    """One image changes, but not its number of bytes and its time."""
    options = ["--samples", pictures(tmp_path / "s", 4000), "--dataset", "digits", "--metrics", "accuracy"]
    options += ["--save_path", tmp_path]
    with interrupted(lambda: has_measured(tmp_path / "test-s", 0)):
        run_test(*options)
    path = tmp_path / "s" / "0" / "0000.png"
    before, data = path.stat(), bytearray(path.read_bytes())
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    data = path.read_bytes().ljust(before.st_size, b"\0")[: before.st_size]
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    capsys.readouterr()
    run_test(*options)
    assert "resuming" not in capsys.readouterr().out
    assert names(tmp_path / "test-s")[-1] == "process-0.npz"
    files = sorted(str(path.relative_to(tmp_path / "s")) for path in tmp_path.glob("s/*/*"))
    lines = [f"{hashlib.sha256((tmp_path / 's' / name).read_bytes()).hexdigest()}  {name}\n" for name in files]
    found = report(tmp_path / "test-s-2")["settings"]["sha256"]
    assert found == hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.mark.slow
def test_each_image_of_given_samples_is_opened_twice(tmp_path):
    """Once for its size and digest, once for its pixels. Its class comes from its folder."""
    pictures(tmp_path / "s", 40)
    program = (
        "import collections, sys\n"
        "opened = collections.Counter()\n"
        "sys.addaudithook(lambda name, values: opened.update([str(values[0])]) if name == 'open' else None)\n"
        "import test\n"
        "test.main()\n"
        "print('opened', {count for path, count in opened.items() if path.endswith('.png') and '/s/' in path})\n"
    )
    command = ["-c", program, "--samples", tmp_path / "s", "--dataset", "digits", "--metrics", "fid,is,accuracy"]
    code, out, err = run(ROOT, *command, "--device", "cpu", "--test_path", tmp_path / "out")
    assert code == 0, err
    assert out.splitlines()[-1] == "opened {2}"
    assert report(tmp_path / "out")["settings"]["labels"] == "the samples' own"


def test_standing_statistics_report_progress_and_time(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(utils, "FIRST_LINE", 0)
    options = ["--pretrained_model", model, "--metrics", "none", "--num_samples", 20, "--standing_batches", 300]
    run_test(*options)
    seconds = report(tmp_path / "test-model")["seconds"]
    assert seconds["standing statistics"] > 0.1
    line = r"^standing statistics: \d+ of 300, [\d.]+ batch/s, \d\d:\d\d left$"
    assert re.search(line, capsys.readouterr().err, re.M)


def test_a_report_without_metrics_counts_only_written_samples(model, tmp_path, capsys):
    """Without a file of samples, samples are drawn only for the picture. With one they are drawn, but not measured."""
    for name, options, count, drawn, labels in (
        ("none", (), 0, 0, "none"),
        ("written", ("--samples_npz", tmp_path / "a.npz", "--num_samples", 7), 7, 7, "auto: repeated in order"),
    ):
        run_test("--pretrained_model", model, "--metrics", "none", "--test_path", tmp_path / name, *options)
        settings = report(tmp_path / name)["settings"]
        assert [settings[key] for key in ("num_samples", "classes drawn", "labels")] == [count, drawn, labels]
        text = (tmp_path / name / "report.md").read_text()
        assert f"| num samples | {count} |" in text and "Nothing was measured." in text and "50000" not in text


def test_a_strange_file_name_does_not_break_the_report(model, tmp_path):
    strange = model.rename(tmp_path / "a|b\n`<script>.safetensors")
    run_test("--pretrained_model", strange, "--metrics", "none", "--test_path", tmp_path / "t")
    text = (tmp_path / "t" / "report.md").read_text()
    assert "a\\|b\\n\\`&lt;script&gt;.safetensors |" in text and "<" not in text


FLOWERS = ("aster", "daisy", "iris", "lily", "lotus", "poppy", "rose", "sage", "thyme", "tulip", "violet", "雏菊")


@pytest.fixture
def flowers(make_parameters, tmp_path):
    """The options to test an untrained generator of FLOWERS against images of them."""
    for name in FLOWERS:
        for number in range(2):
            path = tmp_path / "flowers" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (100 * number, 0, 0)).save(path)
    p = make_parameters("acgan-mlp", dataset="folder", num_classes=len(FLOWERS))
    state = {name: tensor.numpy() for name, tensor in acgan_models.build_generator(p).state_dict().items()}
    checkpoint.save(tmp_path / "model.safetensors", 2, asdict(p), {"G": state})
    data = ["--test_data_path", tmp_path / "flowers"]
    return ["--pretrained_model", tmp_path / "model.safetensors", *data, "--num_samples", 24]


def grid_of(folder):
    return np.asarray(Image.open(folder / "class_grid.png"))


def test_the_class_grid_shows_the_chosen_classes(flowers, tmp_path, capsys):
    run_test(*flowers, "--metrics", "none", "--test_path", tmp_path / "all")
    assert "as numbers" not in capsys.readouterr().out  # the first ten names can be drawn
    run_test(*flowers, "--metrics", "none", "--labels", "雏菊,rose,1", "--test_path", tmp_path / "some")
    assert "shows these class names as numbers: 11: 雏菊\n" in capsys.readouterr().out
    everything, some = grid_of(tmp_path / "all"), grid_of(tmp_path / "some")
    step = 4 * 16 + 2
    assert len(everything) == 10 * step + 2 and len(some) == 3 * step + 2
    for row, label in ((1, 6), (2, 1)):
        rows = [grid[place * step : (place + 1) * step] for grid, place in ((everything, label), (some, row))]
        assert (rows[0][:, -10 * step :] == rows[1][:, -10 * step :]).all()  # the same samples
        text = [row[:, : -10 * step - 2] for row in rows]
        width = min(pixels.shape[1] for pixels in text)
        assert (text[0][:, -width:] == text[1][:, -width:]).all() and text[0].min() < 100  # and the same name
    numbers = ",".join(map(str, range(11, 0, -1)))
    run_test(*flowers, "--metrics", "none", "--labels", numbers, "--test_path", tmp_path / "many")
    many = grid_of(tmp_path / "many")
    assert len(many) == 10 * step + 2
    assert (many[5 * step : 6 * step, -10 * step :] == everything[6 * step : 7 * step, -10 * step :]).all()


def test_the_class_grid_shows_one_chosen_class(flowers, tmp_path):
    for labels in ("daisy", "rose,daisy"):
        run_test(*flowers, "--metrics", "none", "--labels", labels, "--test_path", tmp_path / labels)
    one, two = grid_of(tmp_path / "daisy"), grid_of(tmp_path / "rose,daisy")
    step = 4 * 16 + 2
    assert len(one) == step + 2
    samples = slice(-10 * step, None)
    assert (one[:, samples] == two[step:, samples]).all() and len(np.unique(one[:, samples])) > 2
    assert one[:, : samples.start - 2].min() < 100  # the name


def test_folders_of_samples_have_the_names_of_classes(flowers, tmp_path):
    """They are read back as these classes."""
    options = [*flowers, "--metrics", "none", "--labels", "tulip,雏菊", "--samples_dir", tmp_path / "samples"]
    run_test(*options)
    assert names(tmp_path / "samples") == ["0009-tulip", "0011-雏菊"]
    counts = [len(names(folder)) for folder in sorted((tmp_path / "samples").iterdir())]
    assert counts == [12, 12]
    again = ["--samples", tmp_path / "samples", "--dataset", "folder", *flowers[2:4], "--metrics", "distance"]
    run_test(*again, "--test_path", tmp_path / "again")
    settings = report(tmp_path / "again")["settings"]
    assert settings["labels"] == "the samples' own" and settings["classes drawn"] == 2


def test_renamed_classes_do_not_resume_the_old_test(flowers, tmp_path):
    """The test writes folders of the old names and is interrupted. Then a class is renamed."""
    few = [*flowers[:-1], 20_000, "--metrics", "none", "--samples_dir", tmp_path / "samples"]
    with interrupted(lambda: len(list(tmp_path.glob("samples/*/*.png"))) > 100):
        run_test(*few)
    (tmp_path / "flowers" / "iris").rename(tmp_path / "flowers" / "irises")
    with pytest.raises(UserError, match=r"--samples_dir .* is not empty"):
        run_test(*few)


def test_a_distance_of_one_sample_is_explained(model, tmp_path, capsys):
    options = ["--pretrained_model", model, "--metrics", "distance"]
    run_test(*options, "--num_samples", 1)
    assert "No distance: it needs two samples of a class" in capsys.readouterr().out
    assert "No distance" in (tmp_path / "test-model" / "report.md").read_text()
    run_test(*options, "--num_samples", 20)
    assert "No distance" not in capsys.readouterr().out


@pytest.mark.parametrize("same", [True, False])
def test_a_distance_to_equal_real_images_is_explained(flowers, tmp_path, capsys, same):
    if same:
        for path in (tmp_path / "flowers").glob("*/1.png"):
            path.write_bytes((path.parent / "0.png").read_bytes())
    run_test(*flowers, "--metrics", "distance", "--labels", "uniform")
    assert ("two real images of that class that differ" in capsys.readouterr().out) == same


@pytest.mark.parametrize(
    ("kind", "step", "options", "said"),
    [
        ("sagan", 6, [], True),
        ("sagan", 11_000, [], True),
        ("sagan", 12_000, [], False),
        ("sagan", 0, [], False),  # the number of steps is not known
        ("sagan", 6, ["--standing_batches", 2], False),
        ("acgan-digits", 3, [], True),
        ("acgan-digits", 11, [], False),
    ],
)
def test_unsettled_batch_statistics_are_reported(make_parameters, tmp_path, capsys, kind, step, options, said):
    p = make_parameters(kind)
    generator = models_of(p).build_generator(p)
    state = {name: tensor.numpy() for name, tensor in generator.state_dict().items()}
    checkpoint.save(tmp_path / "model.safetensors", step, asdict(p), {"G": state})
    run_test("--pretrained_model", tmp_path / "model.safetensors", "--metrics", "none", "--num_samples", 2, *options)
    lines = [line for line in capsys.readouterr().out.splitlines() if "--standing_batches" in line]
    text = (tmp_path / "test-model" / "report.md").read_text()
    assert len(lines) == said and all(line in text for line in lines)
    if said:
        assert f"these weights have {step:,}:" in lines[0]


def test_more_updates_per_step_settle_statistics_sooner(make_parameters, tmp_path, capsys):
    p = make_parameters("sagan", d_steps_per_iter=5)
    state = {name: tensor.numpy() for name, tensor in models_of(p).build_generator(p).state_dict().items()}
    checkpoint.save(tmp_path / "model.safetensors", 5000, asdict(p), {"G": state})
    run_test("--pretrained_model", tmp_path / "model.safetensors", "--metrics", "none", "--num_samples", 2)
    assert "--standing_batches" not in capsys.readouterr().out
