"""The commands as a user types them, each in its own process."""

import contextlib
import fcntl
import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import paddle
import pytest
from commands import LIMIT, ROOT, SMALL, run, start, train_with_progress, wait_for, wait_for_step
from PIL import Image

import acgan_models
import checkpoint
import sampler
from evaluation.report import PUBLISHED
from parameters import Parameters
from utils import RUN_FILE

SHORT = ["--total_step", "6", "--log_step", "2", "--sample_step", "3", "--model_save_step", "4"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(the folder of a short training, its output)."""
    folder = tmp_path_factory.mktemp("run")
    code, out, err = run(folder, ROOT / "train.py", *SMALL, *SHORT)
    assert code == 0, err
    return folder / "sagan_models" / "acgan-digits-1", out


def test_training_writes_its_folder(trained):
    path, out = trained
    assert out.splitlines()[0].startswith("recipe acgan-digits")
    assert f"python test.py --pretrained_model {path.relative_to(path.parents[1])}" in out
    assert (path / "weights" / "latest").resolve().name == "step-00000006.safetensors"
    steps = re.findall(r"step (\d+) d_real", (path / "log.txt").read_text())
    assert steps == ["2", "4", "6"]
    assert [p.name for p in sorted((path / "weights").iterdir())] == [
        "latest",
        "step-00000004.safetensors",
        "step-00000006.safetensors",
    ]
    pictures = sorted(p.name for p in (path / "samples").iterdir())
    assert pictures == ["real.png", "samples-1.gif", "step-00000003.png", "step-00000006.png"]
    assert Image.open(path / "samples" / "samples-1.gif").n_frames == 2
    assert Image.open(path / "samples" / "step-00000006.png").size[1] == 10 * (4 * 16 + 2) + 2  # 10 rows


@pytest.mark.slow
def test_visualdl_serves_the_run_across_sessions(trained, tmp_path):
    """`visualdl --logdir sagan_models` for a resumed run, with the requests of its own web page."""
    path = tmp_path / "sagan_models" / "acgan-digits-1"
    shutil.copytree(trained[0], path)
    code, _, err = run(tmp_path, ROOT / "train.py", "--resume", path, "--total_step", 8)
    assert code == 0, err
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["-m", "visualdl.server.app", "--logdir", path.parent, "--port", port, "--host", "127.0.0.1"]
    server = start(path.parents[1], *command, "--disable-telemetry")

    def ask(what, **arguments):
        address = f"http://127.0.0.1:{port}/app/api/{what}?{urllib.parse.urlencode(arguments)}"
        request = urllib.request.Request(address, headers={"Accept-Language": "en"})
        with urllib.request.urlopen(request, timeout=LIMIT) as answer:
            return json.loads(answer.read())["data"]

    try:
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                (name,) = ask("runs")
                break
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() < deadline and server.poll() is None
                time.sleep(0.5)
        assert Path(name).name == "acgan-digits-1"
        (tags,) = ask("scalar/tags")["tags"]
        assert {
            "loss/d_real", "loss/d_fake", "loss/d_class_real", "loss/d_class_fake", "loss/g_adv", "loss/g_class",
            "logits/D(x)", "logits/D(G(z))", "class accuracy/real", "class accuracy/fake",
            "health/right_real", "health/right_fake", "health/d_gradient", "health/g_gradient",
            "health/d_lr", "health/g_lr", "speed/images_per_second", "speed/data_wait", "speed/d_seconds",
            "speed/g_seconds", "speed/peak_memory_MiB", "health/class_distance",
        } == {re.sub("^[0-9] ", "", tag) for tag in tags}  # fmt: skip
        groups = sorted({tag.partition("/")[0] for tag in tags})  # as VisualDL shows them
        assert groups == ["1 loss", "2 logits", "3 class accuracy", "5 health", "6 speed"]
        points = ask("scalar/list", run=name, tag="1 loss/d_real")  # [time, step, value]
        logged = re.findall(r"step (\d+) d_real (\S+)", (path / "log.txt").read_text())
        assert [point[1] for point in points] == [int(step) for step, _ in logged]
        np.testing.assert_allclose([point[2] for point in points], [float(value) for _, value in logged], rtol=1e-3)
        (images,) = ask("image/tags")["tags"]
        assert set(images) == {"samples/real", "samples/generated"}
        ((settings,),) = [ask("hparams/list")]
        assert settings["hparams"]["g_conv_dim"] == 8 and settings["hparams"]["model"] == "acgan-digits"
        assert settings["name"] == name and "name" not in settings["hparams"]
        assert settings["metrics"]["1 loss/g_adv"] == ask("scalar/list", run=name, tag="1 loss/g_adv")[-1][2]
    finally:
        server.terminate()
        server.communicate(timeout=LIMIT)


def test_testing_draws_and_measures(trained, tmp_path):
    path, _ = trained
    npz, folder = tmp_path / "samples.npz", tmp_path / "pngs"
    command = [ROOT / "test.py", "--pretrained_model", path, "--num_samples", 25]
    code, out, err = run(tmp_path, *command, "--samples_npz", npz, "--samples_dir", folder, "--device", "cpu")
    assert code == 0, err
    shown = dict(re.findall(r"^(.+?): +([\d.]+)", out, re.MULTILINE))
    report = json.loads((path / "test-step-00000006" / "report.json").read_text())
    figures = report["figures"]
    assert figures["classifier_accuracy_real"] >= 0.97
    assert float(shown["read as the class asked for"]) == pytest.approx(100 * figures["classifier_accuracy"], abs=0.01)
    assert float(shown["classifier FID"]) == pytest.approx(figures["classifier_fid"], abs=1e-4)
    assert figures["classifier_fid"] > figures["classifier_fid_floor"] > 0  # after six steps of training
    assert {name for name in figures if "fid" in name and "classifier" not in name} == set()
    assert report["settings"]["num_samples"] == 25 and len(report["settings"]["sha256"]) == 64
    grid = Path(re.search("^class grid: (.+)$", out, re.MULTILINE)[1])
    assert grid == path / "test-step-00000006" / "class_grid.png" and Image.open(grid).size[1] == 10 * (4 * 16 + 2) + 2
    with np.load(npz, allow_pickle=False) as arrays:
        images, labels = arrays["arr_0"], arrays["arr_1"]
    assert images.shape == (25, 16, 16, 1) and images.dtype == np.uint8
    assert (labels == np.arange(25) % 10).all()
    assert zipfile.ZipFile(npz).testzip() is None
    for index in (0, 24):
        picture = np.asarray(Image.open(folder / f"{labels[index]:04d}" / f"{index:06d}.png"))
        assert (picture == images[index, :, :, 0]).all()


def test_a_report_says_what_its_figures_depend_on(trained, tmp_path):
    """One class of ten, and so few samples that each subset of KID holds them all. The screen and both files say so."""
    command = [ROOT / "test.py", "--pretrained_model", trained[0], "--test_path", tmp_path, "--device", "cpu"]
    code, out, err = run(tmp_path, *command, "--labels", 3, "--num_samples", 25, "--metrics", "fid,kid,prdc,distance")
    assert code == 0, err
    text = (tmp_path / "report.md").read_text()
    for line in (
        "Samples of 1 of the 10 classes are compared with real images of all of them.",
        "Each subset of KID holds all 25 samples: its standard deviation does not show how these vary.",
    ):
        assert line in out.splitlines() and line in text.splitlines()
    settings = json.loads((tmp_path / "report.json").read_text())["settings"]
    expected = {
        "labels": "3: repeated in order", "classes drawn": 1, "num_classes": 10, "real images": "test images of digits",
        "number of real images": 360, "transform": "resized by the bicubic filter, 16x16 pixels",
        "training images": "of digits", "number of training images": 1437, "kid subsets": 100, "kid subset size": 25,
        "prdc": "5 nearest neighbours", "distance": "compared with training images",
    }  # fmt: skip
    assert expected == {name: settings.get(name) for name in expected}
    of_inception = {"half precision", "inception weights"}
    for figure in (figure for figures in PUBLISHED.values() for figure in figures.values()):
        assert figure.settings.keys() - of_inception <= settings.keys()  # no setting is unknown
    assert "seconds, classes" in text and "half precision" not in settings


def test_a_sample_does_not_depend_on_the_batch(trained):
    path, _ = trained
    loaded = checkpoint.load_file_or_run(path)
    p = Parameters(**loaded.parameters)
    G = acgan_models.build_generator(p)
    checkpoint.load_network(G, loaded.parts["G_ema"], path)
    G.eval()
    frozen, labels = sampler.snapshot(G, p), np.arange(20) % 10
    whole = sampler.generate(frozen, p, range(20), labels)
    for size in (1, 7, 16):
        drawn = [sampler.generate(frozen, p, range(20)[i : i + size], labels[i : i + size]) for i in range(0, 20, size)]
        assert (np.concatenate(drawn) == whole).all()


@pytest.mark.parametrize("stop", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_stopped_run_saves_and_resume_goes_on(tmp_path, stop):
    command = [*SMALL, "--name", "mine", "--log_step", "1", "--model_save_step", "1000"]
    process = start(tmp_path, ROOT / "train.py", *command, "--total_step", "100000")
    run_folder = tmp_path / "sagan_models" / "mine"
    wait_for_step(process, run_folder, 3)
    process.send_signal(stop)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + stop
    assert "Traceback" not in err
    step = int(re.search(r"stopped at step (\d+)", err)[1])
    assert step >= 3
    loaded = checkpoint.load_file_or_run(run_folder)
    assert loaded.step == step
    code, out, err = run(tmp_path, ROOT / "train.py", "--resume", "auto", "--name", "mine", "--total_step", step + 2)
    assert code == 0, err
    assert out.splitlines()[0].startswith("recipe acgan-digits")
    assert checkpoint.load_file_or_run(run_folder).step == step + 2
    lines = re.findall(r"step (\d+) d_real", (run_folder / "log.txt").read_text())
    assert lines == [str(n) for n in range(1, step + 3)]


@pytest.mark.slow
def test_a_run_started_with_equals_signs_goes_on(tmp_path):
    """There is also a run of another recipe, which other option names would mean. The number of classes comes from the
    data.
    """
    for label in range(10):
        (tmp_path / "data" / str(label)).mkdir(parents=True)
        Image.new("RGB", (128, 128), (20 * label, 0, 0)).save(tmp_path / "data" / str(label) / "a.png")
    small = ["--batchSize=2", "--ngf=8", "--ndf=8", "--disable_cuda", "--dataset=imagenet", "--classes=none"]
    code, _, err = run(
        tmp_path, ROOT / "train.py", *small, "--data_path=data", "--imsize=32", "--total_step=1", "--netG="
    )
    assert code == 0, err
    command = [*small, "--dataroot=data", "--resume", "auto", "--total_step"]
    for step in (1, 2):
        code, out, err = run(tmp_path, ROOT / "train.py", *command, step)
        assert code == 0, err
    assert out.startswith("recipe acgan-imagenet-torch (continues sagan_models/acgan-imagenet-torch-1)")
    runs = tmp_path / "sagan_models"
    assert sorted(path.name for path in runs.iterdir()) == ["acgan-imagenet-torch-1", "sagan-imagenet-1"]
    assert [checkpoint.load_file_or_run(run_folder).step for run_folder in sorted(runs.iterdir())] == [2, 1]


@pytest.mark.slow
def test_a_run_beside_its_classes_is_kept_and_goes_on(tmp_path):
    """An earlier version could start a run there. It is not a class, and no new run starts beside it."""
    flowers = tmp_path / "flowers"
    for name in ("daisy", "rose"):
        (flowers / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (32, 32), (60 * number, 0, 0)).save(flowers / name / f"{number}.png")
    small = ["--dataset", "folder", "--imsize", 32, "--batch_size", 2, "--g_conv_dim", 8, "--d_conv_dim", 8]
    command = [ROOT / "train.py", "--data_path", ".", *small, "--device", "cpu", "--total_step"]
    code, _, err = run(flowers, *command, 1)
    assert code == 2 and err.count("\n") == 1
    assert "--save_path sagan_models lies inside --data_path ." in err and str(tmp_path / "sagan_models") in err
    assert sorted(path.name for path in flowers.iterdir()) == ["daisy", "rose"]
    code, out, err = run(flowers, *command, 1, "--save_path", "../sagan_models")
    assert code == 0 and "trained 1 step; " in out, err
    shutil.move(tmp_path / "sagan_models", flowers)
    code, out, err = run(flowers, *command, 2, "--resume", "auto")
    assert code == 0 and "8 images of 2 classes: daisy, rose" in out, err
    assert err.count("sagan_models") == 1 and "not used as classes" in err
    assert checkpoint.load_file_or_run(flowers / "sagan_models" / "sagan-imagenet-1").step == 2


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["train.py", "--data_path", "nowhere"], "--data_path nowhere"),
        (["train.py", "--adv_loss", "wgan"], "--adv_loss"),
        (["test.py", "--pretrained_model", "nowhere.safetensors"], "nowhere.safetensors"),
        (["test.py", "--pretrained_model", "."], RUN_FILE),
        (["train.py", "--device", "gpu"], "--device gpu"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(tmp_path, command, says):
    code, _, err = run(tmp_path, ROOT / command[0], *command[1:])
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1 and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--test_path", "file", "--test_path file cannot be used (File exists)"),
        ("--test_path", "tested", "--test_path tested already holds a report"),
        ("--samples_dir", "file", "--samples_dir file cannot be created (Not a directory)"),
        ("--samples_dir", "full", "--samples_dir full is not empty"),
        ("--samples_npz", "file", "--samples_npz file exists already"),
        ("--samples_npz", "nowhere/samples.npz", "--samples_npz nowhere/samples.npz cannot be written"),
    ],
)
def test_an_unusable_output_path_is_refused_in_one_sentence(trained, tmp_path, option, value, says):
    path, _ = trained
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "tested").mkdir()
    (tmp_path / "tested" / "report.json").write_text("{}")
    command = ["--pretrained_model", path, "--num_samples", 2, "--metrics", "none"]
    code, _, err = run(tmp_path, ROOT / "test.py", *command, option, value)
    assert code == 2 and len(err.strip().splitlines()) == 1 and says in err
    assert (tmp_path / "file").read_text() == (tmp_path / "full" / "file").read_text() == "mine"


def test_a_full_disk_is_one_sentence_and_loses_nothing(trained, tmp_path):
    """A limit on the file size ends the write of step 8's checkpoint, as a full disk does."""
    path, _ = trained
    shutil.copytree(path, tmp_path / "run")
    train = shlex.join([sys.executable, str(ROOT / "train.py"), "--resume", "run", "--total_step", "8"])
    done = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; ulimit -f 100; {train}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert checkpoint.load_file_or_run(tmp_path / "run").step == 6
    assert not [file for file in (tmp_path / "run").rglob("*") if ".tmp" in file.name]


@pytest.mark.slow
def test_an_interrupted_test_goes_on_where_it_was(trained, tmp_path):
    """After Ctrl-C no file looks whole. The same command then gives the same samples as an uninterrupted test."""
    path, _ = trained
    command = [ROOT / "test.py", "--pretrained_model", path, "--num_samples", 60_000, "--metrics", "none"]
    process = start(tmp_path, *command, "--test_path", "t", "--samples_npz", "samples.npz")
    wait_for(process, lambda: any(file.stat().st_size > 10**6 for file in tmp_path.glob(".samples*")))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130 and "Traceback" not in err
    assert not (tmp_path / "samples.npz").exists() and not (tmp_path / "t" / "report.json").exists()
    code, out, err = run(tmp_path, *command, "--test_path", "t", "--samples_npz", "samples.npz")
    assert code == 0 and re.search(r"^resuming: [1-9]\d*% is done$", out, re.MULTILINE), err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["samples.npz", "t"]
    assert sorted(file.name for file in (tmp_path / "t").iterdir()) == ["class_grid.png", "report.json", "report.md"]
    code, _, err = run(tmp_path, *command, "--test_path", "whole", "--samples_npz", "whole.npz")
    assert code == 0, err
    with zipfile.ZipFile(tmp_path / "samples.npz") as again, zipfile.ZipFile(tmp_path / "whole.npz") as whole:
        assert again.namelist() == whole.namelist() == ["arr_0.npy", "arr_1.npy"]
        assert all(again.getinfo(name).CRC == whole.getinfo(name).CRC for name in whole.namelist())


def test_a_run_is_not_overwritten(trained):
    path, _ = trained
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    code, _, err = run(path.parents[1], ROOT / "train.py", *SMALL, *SHORT, "--name", path.name)
    assert code == 2 and "exists already" in err
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == before


def test_a_checkpoint_converts_to_paddle_and_back(trained, tmp_path):
    path, _ = trained
    paddle_file, ours = tmp_path / "digits.pdparams", tmp_path / "digits.safetensors"
    for source, target in ((path, paddle_file), (paddle_file, ours)):
        code, _, err = run(tmp_path, ROOT / "convert.py", source, target)
        assert code == 0, err
    first, last = checkpoint.load_file_or_run(path), checkpoint.load(ours)
    assert (last.step, last.parameters) == (first.step, first.parameters)
    state = paddle.load(str(paddle_file))
    for part in ("G", "D", "G_ema"):
        assert first.parts[part].keys() == last.parts[part].keys() == state[part].keys()
        for name, array in first.parts[part].items():
            assert (last.parts[part][name] == array).all() and (state[part][name].numpy() == array).all()


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    """A folder with a run on cats and dogs, and with other folders of test images."""
    folder, rng = tmp_path_factory.mktemp("animals"), np.random.default_rng(0)
    for data, names in (("data", ("cat", "dog")), ("same", ("cat", "dog")), ("other", ("cow", "dog"))):
        for name in names:
            (folder / data / name).mkdir(parents=True)
            for number in range(10):
                pixels = rng.integers(256, size=(20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / data / name / f"{number}.png")
    command = [*SMALL[2:], "--recipe", "acgan-mlp", "--dataset", "folder", "--data_path", "data", "--imsize", 16]
    code, _, err = run(folder, ROOT / "train.py", *command, "--batch_size", 4, "--total_step", 1, "--name", "mine")
    assert code == 0, err
    return folder


@pytest.mark.parametrize(
    ("data", "options", "refused"),
    [
        ("same", [], False),
        ("same", ["--metrics", "distance"], False),
        ("other", [], True),
        ("other", ["--labels", "uniform"], False),
        ("other", ["--labels", "uniform", "--metrics", "distance"], True),
    ],
)
def test_test_images_of_other_classes_are_refused_where_classes_matter(animals, tmp_path, data, options, refused):
    """Classes matter for a metric by class, and for the classes that are drawn."""
    command = [ROOT / "test.py", "--pretrained_model", "sagan_models/mine", "--metrics", "none", "--num_samples", 20]
    command += ["--test_data_path", data, "--test_path", tmp_path / "out", "--device", "cpu"]
    code, out, err = run(animals, *command, *options)
    if refused:
        model = "sagan_models/mine/weights/step-00000001.safetensors"
        said = f"--test_data_path other does not have the classes that {model} has (gone: cat; new: cow):"
        assert code == 2 and err.startswith(f"test.py: {said}") and err.count("\n") == 1
        assert not (tmp_path / "out").exists()
    else:
        assert code == 0, err
    assert "not compared" not in out


@pytest.mark.parametrize("suffix", [".safetensors", ".pdparams"])
def test_a_converted_checkpoint_keeps_its_classes(animals, tmp_path, suffix):
    target = tmp_path / f"animals{suffix}"
    code, _, err = run(animals, ROOT / "convert.py", "sagan_models/mine", target)
    assert code == 0, err
    assert checkpoint.load(target).class_names == ("cat", "dog")


def test_a_checkpoint_without_class_names_can_be_tested(animals, tmp_path):
    loaded = checkpoint.load_file_or_run(animals / "sagan_models" / "mine")
    checkpoint.save(tmp_path / "old.safetensors", 1, loaded.parameters, loaded.parts)
    command = [ROOT / "test.py", "--pretrained_model", "old.safetensors", "--metrics", "none", "--device", "cpu"]
    code, out, err = run(tmp_path, *command, "--num_samples", 20, "--test_data_path", animals / "other")
    assert code == 0, err
    assert "old.safetensors holds no class names, so class names are not compared\n" in out


def test_eval_step_on_test_images_of_other_classes_is_refused(animals, tmp_path):
    command = ["--resume", "sagan_models/mine", "--total_step", 2, "--eval_step", 1, "--eval_samples", 10]
    command += ["--metrics", "distance", "--test_data_path", "other"]
    code, _, err = run(animals, ROOT / "train.py", *command)
    assert code == 2 and err.startswith("train.py: --test_data_path other does not have the classes that --data_path")


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.slow
@pytest.mark.parametrize("locale", [{}, C_LOCALE], ids=["UTF-8", "C"])
def test_names_that_are_not_utf_8(tmp_path, locale):
    """Such as in an archive from a Chinese Windows: names of class folders, data folders and runs."""
    odd = os.fsdecode("你好".encode("gbk"))
    rng = np.random.default_rng(0)
    for name in (odd, "狗"):
        (tmp_path / odd / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(rng.integers(256, size=(20, 20, 3), dtype=np.uint8)).save(
                tmp_path / odd / name / f"{number}.png"
            )
    how, model = {"env": os.environ | locale}, tmp_path / f"runs{odd}" / "mine"
    command = [*SMALL[2:], "--recipe", "acgan-mlp", "--dataset", "folder", "--data_path", odd, "--imsize", 16]
    command += ["--batch_size", 4, "--save_path", f"runs{odd}", "--name", "mine", "--resume", "auto"]
    for steps in (1, 2):
        code, out, err = run(tmp_path, ROOT / "train.py", *command, "--total_step", steps, **how)
        assert (code, err) == (0, ""), err
    measure = r"python test.py --pretrained_model $'runs\xc4\xe3\xba\xc3/mine' --test_data_path DIR"
    assert out.endswith(f"trained 2 steps; {measure} measures it\n")
    assert sorted(checkpoint.load_file_or_run(model).class_names) == sorted([odd, "狗"])
    options = ["--metrics", "none", "--num_samples", 20, "--test_data_path", odd, "--device", "cpu"]
    code, out, err = run(tmp_path, ROOT / "test.py", "--pretrained_model", model, *options, **how)
    assert (code, err) == (0, ""), err
    assert "not compared" not in out
    for target in ("ours.safetensors", "paddle.pdparams"):
        code, _, err = run(tmp_path, ROOT / "convert.py", model, tmp_path / odd / target, **how)
        assert code == 0, err
        assert checkpoint.load(tmp_path / odd / target).class_names == checkpoint.load_file_or_run(model).class_names


@pytest.mark.slow
@pytest.mark.parametrize("watched", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_training_says_where_it_writes_and_how_to_watch_it(tmp_path, watched):
    """On a terminal it shows a bar, elsewhere a line from time to time."""
    command = [*train_with_progress(1, 2), *SMALL, "--log_step", 1, "--total_step", 100_000, "--name", "my run"]
    terminal, other_end = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 25, 200, 0, 0))
    process = start(tmp_path, *command, stderr=other_end if watched else subprocess.PIPE)
    os.close(other_end)
    said = [process.stdout.readline() for _ in range(3)]
    assert said[2] == "writes to sagan_models/my run; to watch: visualdl --logdir 'sagan_models/my run'\n"
    assert not list(tmp_path.rglob("*.safetensors"))
    wait_for_step(process, tmp_path / "sagan_models" / "my run", 3)
    time.sleep(6)
    process.terminate()
    if watched:
        err = ""
        with contextlib.suppress(OSError):  # at the end of a terminal
            while data := os.read(terminal, 4096):
                err += data.decode()
        assert err.count("\r") > 20 and "/100000 [" in err
    process.wait(timeout=LIMIT)
    if not watched:
        err = process.stderr.read()
        lines = re.findall(r"^step \d+ of 100000, [\d:]+ left: d_real \S+ .*$", err, re.MULTILINE)
        assert 2 <= len(lines) <= 5 and "\r" not in err and len(err) < 3000, err
    process.communicate()
    os.close(terminal)


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("nowhere", "ours.safetensors", "SOURCE nowhere: there is no such file"),
        (".", "ours.safetensors", "SOURCE . is a folder but not a run: it has no parameters.yaml"),
        (
            "nowhere",
            "no folder/ours.safetensors",
            "TARGET no folder/ours.safetensors: there is no folder no folder; make it, or give another name",
        ),
        (
            "nowhere",
            "ours.pth",
            "TARGET ours.pth ends neither in .safetensors nor in .pdparams: give a name that ends in one of them",
        ),
        ("nowhere", "there.pdparams", "TARGET there.pdparams exists already: give another name"),
    ],
)
def test_convert_names_the_path_that_it_cannot_use(tmp_path, source, target, says):
    (tmp_path / "there.pdparams").touch()
    assert run(tmp_path, ROOT / "convert.py", source, target) == (2, "", f"convert.py: {says}\n")


def test_a_refusal_of_a_package_begins_with_its_name(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "alignment", tmp_path / "nope.json"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith(f"alignment: {tmp_path}/nope.json ")


@pytest.mark.parametrize(
    ("options", "named"),
    [([], False), pytest.param(["--dataset", "imagenet"], True, marks=pytest.mark.slow)],
)
def test_a_folder_unlike_imagenet_is_reported_only_if_imagenet_was_asked_for(tmp_path, options, named):
    for name in ("daisy", "tulip"):
        (tmp_path / "flowers" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "flowers" / name / "1.png")
    code, out, err = run(tmp_path, ROOT / "train.py", "--data_path", "flowers", *options, "--device", "cpu")
    line = "--data_path flowers does not look like ImageNet, but is used\n"
    counted = "2 images of 2 classes: daisy, tulip\n"
    assert code == 2 and out == f"recipe sagan-imagenet (--data_path)\n{line * named}{counted}"
    assert err.startswith("train.py: --batch_size 64 (from the recipe sagan-imagenet) in each of 1 processes is more")


def test_a_start_that_broken_images_stop_can_be_repeated(tmp_path):
    """It leaves nothing that the same command would take for a run."""
    for name in ("cats", "dogs"):
        (tmp_path / "animals" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (16, 16), (60 * number, 0, 0)).save(tmp_path / "animals" / name / f"{number}.png")
    broken = tmp_path / "animals" / "dogs" / "2.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"")
    data = ["--dataset", "folder", "--data_path", "animals", "--model", "acgan-digits", "--imsize", 16]
    command = [ROOT / "train.py", *SMALL, *data, "--batch_size", 4, "--total_step", 1, "--name", "my run"]
    code, _, err = run(tmp_path, *command)
    assert code == 2 and "1 of the 8 files in animals cannot be read as images" in err
    broken.write_bytes(whole)
    code, out, err = run(tmp_path, *command)
    assert code == 0, err
    measure = "python test.py --pretrained_model 'sagan_models/my run' --test_data_path DIR"
    assert out.endswith(f"trained 1 step; {measure} measures it\n")
