"""`test.py` with several processes and other batch sizes: the same samples, byte for byte, and the same figures."""

import json
import signal
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from commands import LIMIT, ROOT, SMALL, launch, run, start, wait_for

import checkpoint

COUNT = 600  # chunks of 256, 256 and 88 samples; 88 is 12 x 7 + 4
METRICS = "fid,floor,is,kid,prdc,intra_fid,accuracy,ms_ssim,distance"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a short training."""
    folder = tmp_path_factory.mktemp("run")
    code, _, err = run(folder, ROOT / "train.py", *SMALL, "--total_step", 6, "--name", "run")
    assert code == 0, err
    return folder / "sagan_models" / "run"


def command(path, batch_size, *options):
    return [
        *(
            ROOT / "test.py",
            "--pretrained_model",
            path,
            "--device",
            "cpu",
            "--num_samples",
            COUNT,
            "--metrics",
            METRICS,
        ),
        *("--batch_size_test", batch_size, "--test_path", "out", "--samples_npz", "samples.npz", *options),
    ]


def wait_for_success(process):
    """Wait until a process ends with exit code 0; returns its stderr."""
    try:
        _, err = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return err


def interrupt(process, folder):
    """Stop a test in `folder` by SIGINT when it has drawn a thousand samples."""
    try:
        wait_for(process, lambda: len(list(folder.glob("pngs/*/*"))) > 1000)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT)
    finally:
        process.kill()


def results(folder):
    """(checksums of the samples, their PNG files' bytes, figures, report) of a test in `folder`."""
    with zipfile.ZipFile(folder / "samples.npz") as archive:
        checksums = {member.filename: member.CRC for member in archive.infolist()}
    pictures = {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("pngs/*/*")}
    report = json.loads((folder / "out" / "report.json").read_text())
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["class_grid.png", "report.json", "report.md"]
    return checksums, pictures, report["figures"], report


@pytest.fixture(scope="module")
def one(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    wait_for_success(start(folder, *command(trained, 64, "--samples_dir", "pngs")))
    return results(folder)


def assert_same(found, expected):
    checksums, pictures, figures, _ = found
    assert checksums == expected[0] and len(checksums) == 2
    assert pictures == expected[1] and len(pictures) == COUNT
    assert figures.keys() == expected[2].keys()
    for name, value in expected[2].items():
        assert figures[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [7, 16])
def test_another_batch_size_gives_the_same_samples_and_figures(trained, one, tmp_path, batch_size):
    wait_for_success(start(tmp_path, *command(trained, batch_size, "--samples_dir", "pngs")))
    assert_same(results(tmp_path), one)


@pytest.mark.parametrize(
    ("processes", "batch_size"),
    [(2, 7), *(pytest.param(n, b, marks=pytest.mark.slow) for n, b in [(2, 16), (2, 64), (4, 7), (4, 16), (4, 64)])],
)
def test_several_processes_give_the_same_samples_and_figures(trained, one, tmp_path, processes, batch_size):
    wait_for_success(launch(tmp_path, processes, *command(trained, batch_size, "--samples_dir", "pngs")))
    assert_same(results(tmp_path), one)
    assert results(tmp_path)[3]["processes"] == processes


@pytest.mark.slow
def test_one_process_finishes_a_test_that_two_began(trained, tmp_path):
    """Two processes are interrupted, one resumes. The figures are those of an uninterrupted test."""
    options = ["--samples_dir", "pngs", "--metrics", "fid,accuracy", "--num_samples", 6000]
    interrupt(launch(tmp_path, 2, *command(trained, 16, *options)), tmp_path)
    assert not (tmp_path / "out" / "report.json").exists() and not (tmp_path / "samples.npz").exists()
    drawn = {path: path.stat().st_mtime_ns for path in tmp_path.glob("pngs/*/*")}
    code, out, err = run(tmp_path, *command(trained, 16, *options))
    assert code == 0 and "resuming" in out, err
    kept = sum(path.stat().st_mtime_ns == time for path, time in drawn.items())
    assert kept > 1000 - 2 * 256
    whole = tmp_path / "whole"
    whole.mkdir()
    wait_for_success(start(whole, *command(trained, 16, *options)))
    found, expected = results(tmp_path), results(whole)
    assert found[0] == expected[0] and found[1] == expected[1]
    for name, value in expected[2].items():
        assert found[2][name] == pytest.approx(value, rel=1e-9), name


@pytest.mark.slow
def test_a_test_killed_before_its_first_sample_starts_again(trained, tmp_path):
    """It is killed while it reads the real images. The folders exist, but no samples."""
    options = [*command(trained, 16), "--samples_dir", "pngs", "--num_samples", 300]
    process = start(tmp_path, *options)
    try:
        wait_for(process, lambda: (tmp_path / "pngs" / "0009").exists())
        process.kill()
    finally:
        process.communicate(timeout=LIMIT)
    for path in tmp_path.glob("pngs/*/*"):  # samples that it drew before the kill
        path.unlink()
    for path in tmp_path.glob("out/process-*"):
        path.unlink()
    code, _, err = run(tmp_path, *options)
    assert code == 0, err
    assert len(list(tmp_path.glob("pngs/*/*.png"))) == 300


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["pngs", ".samples.npz.*.part"])
def test_resuming_without_the_drawn_samples_is_refused(trained, tmp_path, gone):
    """The samples of an interrupted test are removed. The test does not resume as if they were there."""
    options = [*command(trained, 16), "--samples_dir", "pngs", "--metrics", "none", "--num_samples", 60_000]
    process = start(tmp_path, *options)
    interrupt(process, tmp_path)
    assert process.returncode == 130
    (place,) = tmp_path.glob(gone)
    place.rename(tmp_path / "away")
    code, _, err = run(tmp_path, *options)
    about_option, *sentences = err.splitlines()
    assert about_option.startswith("--batch_size_test has no effect")
    assert code == 2 and "gone" in sentences[0] and len(sentences) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--samples_dir", "full"], "--samples_dir full is not empty"),
        (["--labels", "99"], "--labels: there is no class 99; "),
        (["--samples_npz", "nowhere/samples.npz"], "nowhere"),
    ],
)
def test_a_mistake_ends_all_processes(trained, tmp_path, options, says):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    process = launch(tmp_path, 2, *command(trained, 16), *options)
    began = time.monotonic()
    try:
        process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert process.returncode != 0 and time.monotonic() - began < 60
    logs = [Path(tmp_path, "logs", f"workerlog.{rank}").read_text() for rank in (0, 1)]
    assert says in logs[0] and not any("Traceback" in log for log in logs)


@pytest.mark.parametrize(
    ("options", "labels", "settings"),
    [
        (["--labels", "3,7"], [3, 7], {"weights": "moving average", "labels": "3,7: repeated in order"}),
        (["--use_ema", "false"], range(10), {"weights": "as trained", "truncation": None}),
        (["--truncation", "0.5", "--standing_batches", "2"], range(10),
         {"truncation": 0.5, "batch statistics": "standing, over 2 batches"}),
    ],
)  # fmt: skip
def test_sampling_options_are_reported(trained, one, tmp_path, options, labels, settings):
    """Classes, weights, truncation and batch statistics; the drawn classes are those of --labels."""
    code, _, err = run(tmp_path, *command(trained, 64), *options, "--metrics", "none", "--num_samples", 40)
    assert code == 0, err
    with np.load(tmp_path / "samples.npz") as arrays:
        images, drawn = arrays["arr_0"], arrays["arr_1"]
    assert (drawn == np.resize(labels, 40)).all() and len(np.unique(images, axis=0)) == 40
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    text = (tmp_path / "out" / "report.md").read_text()
    for name, value in settings.items():
        assert report["settings"][name] == value and f"| {name} | {'none' if value is None else value} |" in text
    weights = checkpoint.load_file_or_run(trained).parts
    assert any((weights["G"][name] != weights["G_ema"][name]).any() for name in weights["G"])
