"""An exported folder draws the generator's images in Paddle, onnxruntime and PyTorch, without this project."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from commands import LIMIT, ROOT, run, start, wait_for
from drawn import drawn_generator
from PIL import Image
from published_files import PTH, published
from safetensors.numpy import load_file
from test_faults import fill, mounted

import checkpoint
from command.line import CommandLine
from drawing.generator import OpenGenerator
from exporting import folder
from parameters import RECIPES, Parameters, read_recipe
from utils import UserError

TORCH = ROOT / ".venv-torch" / "bin" / "python"
WITH_ONNX = pytest.mark.skipif(folder.export_python() is None, reason="needs `make export-env`")
WITH_TORCH = pytest.mark.skipif(not TORCH.exists(), reason="needs `make torch-env`")


@pytest.fixture
def without_onnx(monkeypatch):
    """No environment for ONNX, as before `make export-env`."""
    monkeypatch.setattr(folder, "export_python", lambda: None)


def export(model, out, *options):
    """export.py in this process. Returns its generator and its lines."""
    command = CommandLine(["--pretrained_model", str(model), *options], "export")
    loaded = checkpoint.load_file_or_run(model, wanted=("G", "G_ema"))
    generator = OpenGenerator(command.parameters_to_draw(loaded.parameters), loaded)
    return generator, list(folder.export(generator, loaded, out))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small generator of ten classes and 32 pixels."""
    return shutil.copy(PTH / "cifar10_netG_epoch_0.pth", tmp_path_factory.mktemp("model") / "netG_epoch_0.pth")


def test_the_folder_has_everything_but_onnx_without_its_environment(model, tmp_path, without_onnx):
    generator, lines = export(model, tmp_path / "out")
    paddle = {"paddle/model.json", "paddle/model.pdiparams"}, {"paddle/model.pdmodel", "paddle/model.pdiparams"}
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    others = {"README.md", "config.json", "model.safetensors", "pytorch.safetensors", "example_paddle.py"}
    assert found - {"paddle/model.pdiparams.info"} in [others | files for files in paddle]
    assert "no model.onnx: `make export-env` installs the converter; then run this command again" in lines
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) & 0o500 == 0o500
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    # model.safetensors is a checkpoint of this project with the generator alone.
    assert lines[0].endswith(f"by --pretrained_model {tmp_path / 'out' / 'model.safetensors'}")
    loaded = checkpoint.load(tmp_path / "out" / "model.safetensors")
    assert list(loaded.parts) == ["G"] and loaded.parameters["standing_batches"] == 0
    again = OpenGenerator(Parameters(**loaded.parameters), loaded)
    assert (again.grid([1, 7], [3, 4]) == generator.grid([1, 7], [3, 4])).all()
    assert load_file(tmp_path / "out" / "pytorch.safetensors")["fc1.weight"].shape == (18, 13)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model"] == "acgan-cifar10" and config["image_shape"] == [3, 32, 32] and config["num_classes"] == 10
    assert not {"save_path", "data_path", "pretrained_model", "device"} & config["parameters"].keys()


@pytest.mark.parametrize("out", [".", "link", "new"])
def test_an_empty_folder_is_filled(tmp_path, monkeypatch, out):
    """It may be the current folder, or a link to a folder. A new folder has the permissions that the user gives."""
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "link").symlink_to(place)
    monkeypatch.chdir(place if out == "." else tmp_path)
    before = os.umask(0o027)
    try:
        with folder._new_folder(Path(out)) as hidden:
            (hidden / "paddle").mkdir()
            (hidden / "paddle" / "model.json").touch()
            assert not Path(out, "paddle").exists()
    finally:
        os.umask(before)
    filled = tmp_path / "new" if out == "new" else place
    assert os.listdir(filled) == os.listdir(out) == ["paddle"] and (filled / "paddle" / "model.json").is_file()
    assert (tmp_path / "link").is_symlink() and not list(tmp_path.glob(".tmp-*"))
    if out == "new":
        assert stat.S_IMODE(filled.stat().st_mode) == 0o750


def grid_of(generator, images):
    """The pixels that the example programs draw. `images(z, label)` gives floats."""
    z = np.random.default_rng(0).standard_normal([10, generator.parameters.z_dim]).astype("float32")
    rows = [np.concatenate(list(images(z, label)), axis=2) for label in range(10)]
    return ((np.concatenate(rows, axis=1) + 1) * 127.5).round().clip(0, 255)


def pixels(path):
    with Image.open(path) as image:
        return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1).astype(int)


def check_example(generator, python, program, place):
    """Run an example program in the folder `place`, and compare its grid with the generator's images."""
    subprocess.run([python, program], cwd=place, check=True, timeout=LIMIT, capture_output=True)

    def images(z, label):
        with paddle.no_grad():
            return generator.network(paddle.to_tensor(z), paddle.full([10], label, "int64")).numpy()

    assert np.abs(pixels(place / "grid.png") - grid_of(generator, images)).max() <= 1
    (place / "grid.png").unlink()


def test_the_paddle_example_draws_without_this_project(model, tmp_path, without_onnx):
    generator, _ = export(model, tmp_path / "out")
    program = (tmp_path / "out" / "example_paddle.py").read_text()
    imported = set(re.findall(r"^(?:import|from) (\w+)", program, re.MULTILINE))
    assert imported == {"json", "pathlib", "numpy", "paddle", "PIL"}
    check_example(generator, sys.executable, tmp_path / "out" / "example_paddle.py", tmp_path)


def test_the_weights_include_standing_statistics(model, tmp_path, without_onnx):
    generator, _ = export(model, tmp_path / "out", "--standing_batches", "2", "--batch_size", "8")
    plain, _ = export(model, tmp_path / "plain")
    loaded = checkpoint.load(tmp_path / "out" / "model.safetensors")
    again = OpenGenerator(Parameters(**loaded.parameters), loaded)
    images = generator.grid([1], range(8))
    assert (again.grid([1], range(8)) == images).all() and (plain.grid([1], range(8)) != images).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["paddle-sagan", "paddle-acgan", "sagan.pth", "sagan_legacy.pth", "imagenet_netG_epoch_0.pth"]
)
def test_published_checkpoints_are_exported(tmp_path, kind):
    path = published(tmp_path)[kind]
    code, out, err = run(tmp_path, ROOT / "export.py", "--pretrained_model", path)
    assert code == 0 and out.endswith("wrote sagan_models/exported-1\n"), err
    assert (tmp_path / "sagan_models" / "exported-1" / "model.safetensors").is_file()


RUNS = {path.stem: {} for path in RECIPES.glob("*.yaml")} | {
    f"sagan-imagenet, {size} pixels": {"imsize": size, "attention_size": 16} for size in (32, 64, 256)
}


@pytest.fixture
def drawn(tmp_path, make_parameters):
    """Writes a checkpoint of a recipe with narrow networks: `drawn(name)` returns its path."""

    def write(name):
        values = read_recipe(name.partition(",")[0]) | {"g_conv_dim": 8, "d_conv_dim": 8} | RUNS[name]
        values = {"num_classes": 10} | {key: value for key, value in values.items() if key != "classes"}
        values["num_classes"] = values["num_classes"] or 10
        values["centercrop_size"] = values.get("imsize", 128)
        p = Parameters(**values)
        arrays = {key: tensor.numpy() for key, tensor in drawn_generator(p).state_dict().items()}
        checkpoint.save(tmp_path / "drawn.safetensors", 1, vars(p), {"G": arrays})
        return tmp_path / "drawn.safetensors"

    return write


@pytest.mark.slow
@WITH_ONNX
@pytest.mark.parametrize("name", RUNS)
def test_every_recipe_draws_the_same_images_in_onnxruntime(drawn, tmp_path, name):
    """export.py compares batches of 1, 3 and 4; the example program draws batches of 10."""
    generator, lines = export(drawn(name), tmp_path / "out")
    (difference,) = [re.search("by ([^ ]+)$", line)[1] for line in lines if line.startswith("model.onnx")]
    assert 0 < float(difference) <= 1e-4
    check_example(generator, folder.export_python(), tmp_path / "out" / "example_onnx.py", tmp_path)


LOAD_IN_TORCH = """
import json, pathlib, sys
import numpy, torch
from safetensors.torch import load_file
place = pathlib.Path(sys.argv[1])
sys.path[:0] = sys.argv[2:]
import torch_networks, make_alignment
config = json.loads((place / "config.json").read_text())
p = config["parameters"] | {"channels": config["image_shape"][0]}
state = load_file(place / "pytorch.safetensors")
size = p["z_dim"], p["num_classes"]
if p["model"] == "sagan-cifar10":
    network = make_alignment.CifarGenerator(p["z_dim"], p["g_conv_dim"], p["num_classes"])
elif p["model"] == "sagan":
    network = torch_networks.Generator(*size, p["g_conv_dim"], p["imsize"], p["attention_size"], p["channels"])
elif p["model"] == "acgan-mnist":
    widths = [len(state["conv_blocks.0.weight"]), *(len(state[f"conv_blocks.{n}.weight"]) for n in (2, 6, 9))]
    network = torch_networks.TutorialGenerator(*size, widths, p["imsize"])
elif p["model"] == "acgan-mlp":
    widths = [len(state[f"model.{n}.weight"]) for n in (0, 2, 5, 8)]
    network = make_alignment.DenseGenerator(*size, state["label_emb.weight"].shape[1], widths, config["image_shape"])
else:
    stages = {"acgan-digits": ((4, 1, 0), (4, 2, 1), (4, 2, 1))}
    up = stages.get(p["model"]) or torch_networks.STACKS[p["model"]].up
    widths = [len(state["fc1.weight"]), *(state[f"tconv{n + 2}.0.weight"].shape[1] for n in range(len(up) - 1))]
    network = torch_networks.StackGenerator(*size, widths, up, "tconv2.0.bias" in state, p["channels"])
network.double()
print(network.load_state_dict(state))
samples = numpy.load(place / "samples.npz")
with torch.no_grad():
    images = network.eval()(torch.from_numpy(samples["z"]).double(), torch.from_numpy(samples["labels"])).numpy()
print(numpy.abs(images - samples["images"]).max())
"""


@pytest.mark.slow
@WITH_TORCH
@pytest.mark.parametrize("name", RUNS)
def test_a_plain_pytorch_network_draws_the_same_images(drawn, tmp_path, name, without_onnx):
    generator, _ = export(drawn(name), tmp_path / "out")
    np.savez(tmp_path / "out" / "samples.npz", **folder._samples(generator))
    places = [ROOT / "benchmarks", ROOT / "tests" / "fixtures", ROOT / "alignment"]
    command = [TORCH, "-c", LOAD_IN_TORCH, tmp_path / "out", *places]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    told, difference = done.stdout.split("\n")[:2]
    assert told == "<All keys matched successfully>" and float(difference) <= 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give the generator to export by --pretrained_model: a checkpoint or a run's folder"),
        (("--pretrained_model", "missing"), "--pretrained_model missing: there is no such file"),
        (("--pretrained_model", "file"), "--pretrained_model file is a text file; known are "),
        (("--pretrained_model", "file", "--out", "."), "--out . is not empty: give another folder"),
    ],
)
def test_wrong_commands_are_refused(tmp_path, options, message):
    (tmp_path / "file").write_bytes(b"no weights")
    code, out, err = run(tmp_path, ROOT / "export.py", *options)
    assert (code, out) == (2, "") and err.startswith(f"export.py: {message}") and err.count("\n") == 1, err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_made_is_named_with_its_option(model):
    with pytest.raises(UserError, match=r"^--out /proc/x/out cannot be written: No such file or directory"):
        export(model, "/proc/x/out")


def test_a_full_disk_is_refused_before_anything_is_written(model, tmp_path):
    with mounted(tmp_path / "disk", 2**20) as disk:
        fill(disk, 2**16)
        code, _, err = run(tmp_path, ROOT / "export.py", "--pretrained_model", model, "--out", disk / "out")
        said = f"export.py: --out {disk / 'out'} needs about 1 MB, but its disk has 0 MB free: make room there, or give"
        assert code == 2 and err == f"{said} another folder\n"
        assert [path.name for path in disk.iterdir()] == ["ballast"]


def test_ctrl_c_leaves_no_folder(model, tmp_path):
    process = start(tmp_path, ROOT / "export.py", "--pretrained_model", model)
    wait_for(process, lambda: list(tmp_path.glob("sagan_models/exported-1/.tmp-*")))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130 and err == "export.py: stopped by SIGINT\n"
    assert list((tmp_path / "sagan_models").iterdir()) == []
