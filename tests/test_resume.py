"""A run that is killed and resumed equals an unbroken one: weights, optimizers, log, records and pictures."""

import dataclasses
import os
import re
import shutil
import socket

import numpy as np
import pytest
from commands import LIMIT, ROOT, SMALL, kill_launched, launch, run, start, wait_for_step
from PIL import Image
from visualdl.proto.record_pb2 import Record
from visualdl.reader.record_reader import RecordReader

import checkpoint
import runtime
from command.line import CommandLine
from dataset import load_dataset
from trainer import Trainer, resolve
from training.run_folder import RunFolder
from training.run_start import Start, find_start
from training.visual_records import RECORDS
from utils import UserError

MODELS = {
    "sagan": "--recipe sagan-imagenet --dataset fake --num_classes 5 --imsize 32 --batch_size 2 --ema_decay 0.9",
    "acgan": "--recipe acgan-digits --batch_size 16",
}
STEPS = "--total_step 40 --model_save_step 17 --log_step 1 --sample_step 10 --g_conv_dim 8 --d_conv_dim 8 --device cpu"


def train(*arguments):
    """Do train.py's work with these arguments in this process; returns the run's folder."""
    p = CommandLine(list(arguments)).parameters()
    image_set = load_dataset(p)
    path, signal = Trainer(resolve(p, image_set)).train(image_set)
    assert signal is None
    return path


def logged(run_folder):
    """The log's lines on steps, without times and speeds."""
    pattern = r"^\S+ \S+ (step .+) images_per_second \S+ data_wait \S+$"
    lines = re.findall(pattern, (run_folder / "log.txt").read_text(), re.MULTILINE)
    assert len(lines) == len(set(lines)) > 0
    return lines


def recorded(run_folder):
    """VisualDL's records as (tag, step, value, image), without metadata, speeds and options."""
    values = []
    for data in RecordReader(str(run_folder / RECORDS)).get_all():
        record = Record()
        record.ParseFromString(data)
        for value in record.values:
            if value.tag != "meta_data_tag" and "speed/" not in value.tag and not value.HasField("hparam"):
                values.append((value.tag, value.id, value.value, value.image.encoded_image_string))
    return values


def pictures(run_folder):
    return {path.name: path.read_bytes() for path in (run_folder / "samples").iterdir()}


def assert_same_run(found, expected):
    assert logged(found) == logged(expected)
    assert recorded(found) == recorded(expected)
    assert pictures(found) == pictures(expected)
    names = [sorted(path.name for path in (folder / "weights").iterdir()) for folder in (found, expected)]
    assert names[0] == names[1]
    for name in names[0]:
        loaded, right = (checkpoint.load(folder / "weights" / name) for folder in (found, expected))
        assert loaded.step == right.step and loaded.parts.keys() == right.parts.keys()
        for part, arrays in right.parts.items():
            for tensor, array in arrays.items():
                assert (loaded.parts[part][tensor] == array).all(), f"{name}: {part}/{tensor}"


@pytest.mark.parametrize("model", ["acgan", pytest.param("sagan", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_bit_for_bit(model, tmp_path, monkeypatch):
    options = [*MODELS[model].split(), *STEPS.split()]
    monkeypatch.chdir(tmp_path)
    straight = train(*options, "--name", "straight")
    killed = straight.parent / "killed"
    process = start(tmp_path, ROOT / "train.py", *options, "--name", "killed")
    wait_for_step(process, killed, 21)
    with pytest.raises(UserError, match=f"in use by process {process.pid} on {socket.gethostname()}"):
        train("--resume", str(killed))
    process.kill()
    process.communicate(timeout=LIMIT)
    assert checkpoint.load_newest(killed / "weights").path.name == "step-00000017.safetensors"
    assert "step 21 " in (killed / "log.txt").read_text()
    train("--resume", str(killed))
    assert_same_run(killed, tmp_path / straight)


@pytest.fixture(scope="module")
def whole_batches(tmp_path_factory):
    """{model: run folders (40 steps in one process, 40 steps in two, two processes killed after their checkpoint of
    step 17)}.
    """
    folders = {}
    for model, options in MODELS.items():
        folder = tmp_path_factory.mktemp(model)
        command = [*options.split(), *STEPS.split(), "--sync_bn", "--save_path", folder]
        command[command.index("--batch_size")] = "--global_batch_size"
        one = train(*map(str, command), "--name", "one")
        two, killed = folder / "two", folder / "killed"
        process = launch(folder, 2, ROOT / "train.py", *command, "--name", "two")
        assert process.communicate(timeout=LIMIT) and process.returncode == 0
        process = launch(folder, 2, ROOT / "train.py", *command, "--name", "killed")
        wait_for_step(process, killed, 21)
        kill_launched(process)
        folders[model] = one, two, killed
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_two_killed_processes_go_on_bit_for_bit(model, whole_batches, tmp_path):
    _, two, killed = whole_batches[model]
    shutil.copytree(killed, tmp_path / "run")
    process = launch(tmp_path, 2, ROOT / "train.py", "--resume", "run")
    out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, out
    assert "step-00000017.safetensors, step 17" in (tmp_path / "logs" / "workerlog.0").read_text()
    assert_same_run(tmp_path / "run", two)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
@pytest.mark.parametrize("model", MODELS)
def test_a_run_goes_on_with_another_number_of_processes(model, before, after, whole_batches, tmp_path, capsys):
    """`before` processes train the first 17 steps, `after` processes the other 23. The result equals one process."""
    one, two, _ = whole_batches[model]
    path = tmp_path / "run"
    shutil.copytree(one if before == 1 else two, path)
    for file in checkpoint.step_files(path / "weights")[1:]:
        file.unlink()
    if after == 1:
        train("--resume", str(path))
    else:
        process = launch(tmp_path, 2, ROOT / "train.py", "--resume", "run")
        out, _ = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, out
    found, straight = (checkpoint.load_file_or_run(folder).parts for folder in (path, one))
    apart = {part: difference(found[part], straight[part]) for part in ("G", "D", "G_ema")}
    losses = [[float(re.search(r"g_adv (\S+)", line)[1]) for line in logged(folder)] for folder in (path, one)]
    with capsys.disabled():
        print(f"\n{model}, {before} to {after}: {apart}, g_adv {np.abs(np.subtract(*losses)).max():.1g}")
    assert max(apart.values()) < 1e-3


def difference(found, expected):
    """The relative difference of the weights of two networks, all taken together."""
    apart = [np.linalg.norm(found[name] - array) for name, array in expected.items()]
    return np.linalg.norm(apart) / np.linalg.norm([np.linalg.norm(array) for array in expected.values()])


@pytest.mark.slow
def test_a_run_in_use_is_refused_by_every_process(trained, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(trained, path)
    with RunFolder(dataclasses.replace(CommandLine(["--resume", str(path)]).parameters(), name="run")):
        process = launch(tmp_path, 2, ROOT / "train.py", "--resume", "run")
        process.communicate(timeout=LIMIT)
    assert process.returncode != 0
    for rank in (0, 1):
        said = (tmp_path / "logs" / f"workerlog.{rank}").read_text().strip().splitlines()[-1]
        assert f"is in use by process {os.getpid()} on {socket.gethostname()}" in said


def test_changed_parameters_are_taken_and_logged(tmp_path, monkeypatch):
    """They change neither the networks nor the order of the data, and they take effect."""
    monkeypatch.chdir(tmp_path)
    steps = ["--total_step", "2", "--model_save_step", "2", "--log_step", "1"]
    path = train(*SMALL, *steps, "--name", "mine")
    before = checkpoint.load_file_or_run(path).parts
    # Adam moves a weight by at most about its learning rate: the new one, not the one saved with the optimizer.
    train("--resume", str(path), "--total_step", "3", "--d_lr", "1e-12", "--keep_checkpoints", "1")
    after = checkpoint.load_file_or_run(path).parts
    moved = {
        part: max(abs(after[part][n] - array).max() for n, array in before[part].items() if n.endswith("weight"))
        for part in "GD"
    }
    assert moved["G"] > 1e-5 and moved["D"] < 1e-9
    text = (path / "log.txt").read_text()
    lines = re.findall("changed .+", text)
    assert lines == [
        "changed --total_step from 2 to 3",
        "changed --d_lr from 0.0005 to 1e-12",
        "changed --keep_checkpoints from 10 to 1",
    ]
    assert text.index("resumed at step 2 of 3") < text.index(lines[0]) < text.index(" step 3 ")
    assert [file.name for file in checkpoint.step_files(path / "weights")] == ["step-00000003.safetensors"]
    train("--resume", str(path), "--total_step", "4")
    assert checkpoint.load_file_or_run(path).parameters["d_lr"] == 1e-12


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return train(*SMALL, "--total_step", "1", "--log_step", "1", "--save_path", str(folder))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("model", "acgan-mlp"), ("imsize", 32), ("z_dim", 99), ("g_conv_dim", 16), ("dropout", 0.1), ("manual_seed", 1),
        ("classes", "0,5"), ("dataset", "fake"), ("dont_shuffle", "true"), ("d_steps_per_iter", 2), ("ema_decay", 0.5),
        ("adv_loss", "hinge"), ("model_weights_dir", "elsewhere"), ("beta1", 0.9),
    ],
)  # fmt: skip
def test_parameters_that_change_what_is_trained_are_refused_by_name(trained, option, value):
    with pytest.raises(UserError, match=f"--{option} "):
        CommandLine(["--resume", str(trained), f"--{option}", str(value)]).parameters()


def test_another_global_batch_size_is_refused(trained):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"--batch_size 32 .+ was trained with 64: give --global_batch_size 64"):
        train("--resume", str(trained), "--total_step", "2", "--batch_size", "32")
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_a_run_goes_on_from_the_best_when_no_other_is_whole(trained, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(trained, path)
    (step,) = checkpoint.step_files(path / "weights")
    shutil.copy(step, path / "weights" / "best.safetensors")
    step.write_bytes(step.read_bytes()[:-1])
    train("--resume", str(path), "--total_step", "2", "--model_save_step", "100")
    assert "resumed at step 1 of 2" in (path / "log.txt").read_text()


def test_a_run_without_a_whole_checkpoint_is_not_started_again(trained, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(trained, path)
    (step,) = checkpoint.step_files(path / "weights")
    step.write_bytes(step.read_bytes()[:-1])
    before = (path / "log.txt").read_text()
    with pytest.raises(UserError, match="weights cannot be read: restore one from a backup"):
        train("--resume", str(path), "--total_step", "2")
    assert (path / "log.txt").read_text() == before


@pytest.mark.slow
def test_a_resumed_run_does_not_need_the_file_that_it_started_from(trained, tmp_path):
    first = tmp_path / "first.safetensors"
    shutil.copy(checkpoint.load_file_or_run(trained).path, first)
    command = [ROOT / "train.py", "--pretrained_model", first, "--device", "cpu", "--resume", "auto", "--name", "mine"]
    mine = tmp_path / "sagan_models" / "mine"
    for steps in (2, 3):
        code, _, err = run(tmp_path, *command, "--total_step", steps)
        assert code == 0, err
        assert checkpoint.load_file_or_run(mine).step == steps
        first.unlink(missing_ok=True)
    shutil.rmtree(mine / "weights")  # now the first file is needed
    code, _, err = run(tmp_path, *command, "--total_step", 4)
    assert (code, err) == (2, f"train.py: --pretrained_model {first}: there is no such file\n")


def test_a_checkpoint_without_the_length_of_the_log_leaves_the_log(trained, tmp_path):
    """Such as a checkpoint of an earlier version."""
    path = tmp_path / "run"
    shutil.copytree(trained, path)
    (step,) = checkpoint.step_files(path / "weights")
    checkpoint.save(*checkpoint.load(step)[:4])
    before = (path / "log.txt").read_text() + "1970-01-01 00:00:00 mine\n"
    (path / "log.txt").write_text(before)
    train("--resume", str(path), "--total_step", "2")
    assert (path / "log.txt").read_text().startswith(before)


def test_latest_is_corrected_when_the_newest_is_damaged(trained, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(trained, path, symlinks=True)
    train("--resume", str(path), "--total_step", "2")
    newest = checkpoint.step_files(path / "weights")[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    p = CommandLine(["--resume", str(path)]).parameters()
    with RunFolder(p) as folder:
        image_set = load_dataset(p)
        folder.begin(find_start(p, folder.weights, Start(), image_set), image_set)
    assert (path / "weights" / "latest").resolve().name == "step-00000001.safetensors"


LETTERS = "abcdefgh"


@pytest.fixture(scope="module")
def run_on_folders(tmp_path_factory):
    """A folder with a data set of eight classes and a run of one step on it."""
    folder = tmp_path_factory.mktemp("folders")
    rng = np.random.default_rng(0)
    for name in LETTERS:
        (folder / "data" / name).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(256, size=(20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "data" / name / f"{number}.png")
    data = ["--dataset", "folder", "--data_path", str(folder / "data"), "--imsize", "16", "--recipe", "acgan-mlp"]
    train(*SMALL[2:], *data, "--batch_size", "4", "--total_step", "1", "--save_path", str(folder), "--name", "run")
    return folder


def rename(data, *names):
    for name in names:
        (data / name).rename(data / f"x{name}")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: rename(data, "b", "c"), "gone: b, c; new: xb, xc"),
        (lambda data: rename(data, *LETTERS), "gone: a, b, c, d, e and 3 more; new: xa, xb, xc, xd, xe and 3 more"),
        (lambda data: shutil.rmtree(data / "h"), "gone: h"),
        (lambda data: shutil.copytree(data / "a", data / "i"), "new: i"),
    ],
    ids=["two renamed", "all renamed", "one removed", "one more"],
)
def test_other_classes_are_refused(run_on_folders, tmp_path, change, says):
    shutil.copytree(run_on_folders / "run", tmp_path / "run")
    shutil.copytree(run_on_folders / "data", tmp_path / "data")
    change(tmp_path / "data")
    command = ["--resume", str(tmp_path / "run"), "--data_path", str(tmp_path / "data"), "--total_step", "2"]
    before = (tmp_path / "run" / "log.txt").read_text()
    with pytest.raises(UserError) as caught:
        train(*command)
    newest = checkpoint.step_files(tmp_path / "run" / "weights")[-1]
    assert f"--data_path {tmp_path}/data does not have the classes that {newest} was trained on ({says}):" in str(
        caught.value
    )
    assert (tmp_path / "run" / "log.txt").read_text() == before


@pytest.mark.slow
def test_other_classes_are_refused_by_every_process(run_on_folders, tmp_path):
    shutil.copytree(run_on_folders / "run", tmp_path / "run")
    shutil.copytree(run_on_folders / "data", tmp_path / "data")
    rename(tmp_path / "data", "b")
    command = ["--resume", "run", "--data_path", "data", "--global_batch_size", "4", "--total_step", "2"]
    process = launch(tmp_path, 2, ROOT / "train.py", *command)
    process.communicate(timeout=LIMIT)
    assert process.returncode != 0
    for rank in (0, 1):
        said = (tmp_path / "logs" / f"workerlog.{rank}").read_text()
        assert "was trained on (gone: b; new: xb): give data with those classes" in said and "Traceback" not in said


def rewrite(run_folder, **change):
    """Write the only checkpoint of a run again, with `change` in it."""
    (path,) = checkpoint.step_files(run_folder / "weights")
    loaded = checkpoint.load(path)._replace(**change)
    checkpoint.save(*loaded)


def test_classes_in_another_order_are_refused(run_on_folders, tmp_path):
    shutil.copytree(run_on_folders / "run", tmp_path / "run")
    rewrite(tmp_path / "run", class_names=tuple("abcdefhg"))
    with pytest.raises(UserError, match=r"was trained on \(the same in another order: 6 is g, was h\):"):
        train("--resume", str(tmp_path / "run"), "--total_step", "2")


def test_a_run_whose_checkpoint_has_no_class_names_goes_on(run_on_folders, tmp_path, capsys):
    """Such as a checkpoint of an earlier version."""
    shutil.copytree(run_on_folders / "run", tmp_path / "run")
    rewrite(tmp_path / "run", class_names=())
    train("--resume", str(tmp_path / "run"), "--total_step", "2")
    assert "safetensors holds no class names, so class names are not compared\n" in capsys.readouterr().out
    assert checkpoint.load_file_or_run(tmp_path / "run").class_names == tuple(LETTERS)


def test_changed_images_are_reported(run_on_folders, tmp_path, capsys):
    shutil.copytree(run_on_folders / "run", tmp_path / "run")
    shutil.copytree(run_on_folders / "data", tmp_path / "data")
    (tmp_path / "data" / "c" / "1.png").unlink()
    train("--resume", str(tmp_path / "run"), "--data_path", str(tmp_path / "data"), "--total_step", "2")
    line = "the data have changed: number of images from 24 to 23, labels, file names, file sizes\n"
    assert line in capsys.readouterr().out and line in (tmp_path / "run" / "log.txt").read_text()
    train("--resume", str(tmp_path / "run"), "--total_step", "3")
    assert (tmp_path / "run" / "log.txt").read_text().count("the data have changed") == 1


def test_another_number_of_threads_is_reported(run_on_folders, tmp_path, capsys, monkeypatch):
    shutil.copytree(run_on_folders / "run", tmp_path / "run")
    threads = runtime.threads()
    monkeypatch.setenv("MKL_NUM_THREADS", str(threads + 1))
    train("--resume", str(tmp_path / "run"), "--total_step", "2")
    line = f"{threads} threads before, {threads + 1} now: the last digits may differ\n"
    assert line in capsys.readouterr().out and line in (tmp_path / "run" / "log.txt").read_text()
    train("--resume", str(tmp_path / "run"), "--total_step", "3")
    assert "threads before" not in capsys.readouterr().out
    log = (tmp_path / "run" / "log.txt").read_text()
    found = re.findall(r"(started|resumed) at step .*, (\d+) threads?\n", log)
    assert found == [("started", f"{threads}"), *[("resumed", f"{threads + 1}")] * 2]


def test_weights_of_other_classes_can_start_a_run(run_on_folders, tmp_path, capsys):
    shutil.copytree(run_on_folders / "data", tmp_path / "data")
    rename(tmp_path / "data", *LETTERS)
    shutil.rmtree(tmp_path / "data" / "xh")
    code, out, err = run(
        tmp_path, ROOT / "train.py", "--pretrained_model", run_on_folders / "run", "--data_path", "data",
        "--total_step", 2, "--name", "mine",
    )  # fmt: skip
    assert code == 0, err
    line = "was trained on other classes (gone: a, b, c, d, e and 3 more; new: xa, xb, xc, xd, xe and 2 more): class "
    assert f"{line}embeddings and class heads start anew, and all other weights are kept\n" in out
    loaded = checkpoint.load_file_or_run(tmp_path / "sagan_models" / "mine")
    assert loaded.class_names == tuple(f"x{name}" for name in LETTERS[:-1])
    code, out, err = run(tmp_path, ROOT / "train.py", "--resume", "sagan_models/mine", "--total_step", 3)
    assert code == 0, err
    assert "step-00000002.safetensors, step 2\n" in out and "other classes" not in out


def test_a_run_killed_before_its_first_checkpoint_starts_again(trained, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(trained, path, symlinks=True)
    shutil.rmtree(path / "weights")
    train("--resume", str(path))
    assert_same_run(path, trained)
    assert (path / "log.txt").read_text().count("started at step 0") == 1
