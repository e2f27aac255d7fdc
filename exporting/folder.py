"""The folder that export.py writes: one generator in the formats of other programs, with examples and a model card."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import paddle
from paddle.static import InputSpec
from safetensors.numpy import save_file

import checkpoint
from exporting.card import model_card
from formats.pytorch_names import to_pytorch
from inference.folding import fold
from sampler import noises
from utils import UserError, atomic_path, shell_word, temporary_name, writing

HERE = Path(__file__).parent
COPIES = 6  # of the weights that the folder may take: kernels of folded generators are larger
TOLERANCE = 1e-4  # of the exported models' images
MODEL = "paddle/model"  # the prefix of the Paddle inference model
# Options that tell where files were on the machine of the training, or that belong to one run. They are not exported.
LEFT_OUT = (
    "name", "save_path", "resume", "pretrained_model", "check_path", "data_path", "test_data_path", "test_path",
    "samples", "samples_dir", "samples_npz", "reference", "inception_weights", "device", "threads",
)  # fmt: skip


def export(generator, loaded, out):
    """Write the folder `out` of an `OpenGenerator` of the `Checkpoint` `loaded`. Yields a line for each kind of file.

    The folder appears, or an empty one is filled, when everything is written. Raises UserError if a file cannot be
    written.
    """
    out = Path(out)
    with writing("--out", out):
        out.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: tensor.numpy() for name, tensor in generator.network.state_dict().items()}
    _check_space(out, COPIES * sum(array.nbytes for array in arrays.values()) + 2**20)
    with _new_folder(out) as folder:
        samples = _samples(generator)
        values = _parameters(generator, loaded)
        checkpoint.save(
            folder / "model.safetensors", loaded.step, values, {generator.part: arrays}, class_names=loaded.class_names
        )
        given = shell_word(out / "model.safetensors")
        yield f"model.safetensors: the weights; commands of this project read them by --pretrained_model {given}"
        named = to_pytorch(arrays, generator.parameters.model)
        with atomic_path(folder / "pytorch.safetensors") as temporary:
            save_file(named, temporary, {"format": "pt"})
        yield "pytorch.safetensors: the weights with PyTorch's names and shapes"
        _write(
            folder / "config.json", json.dumps(config(generator, loaded, values), indent=2, ensure_ascii=False) + "\n"
        )
        difference = _write_paddle(generator, folder, samples)
        yield f"{MODEL}.*: a Paddle inference model; its images differ from the generator's by {difference:.0e}"
        if python := export_python():
            difference = _write_onnx(python, folder, samples)
            yield f"model.onnx: its images, by onnxruntime, differ from the generator's by {difference:.0e}"
            shutil.copy(HERE / "examples" / "example_onnx.py", folder)
        else:
            yield "no model.onnx: `make export-env` installs the converter; then run this command again"
        shutil.copy(HERE / "examples" / "example_paddle.py", folder)
        _write(folder / "README.md", model_card(generator, loaded, has_onnx=bool(python)))
        yield "README.md: a model card; complete its sections on data and licence before you publish it"


def config(generator, loaded, values):
    """The content of config.json: what a program needs to draw, and `values`, all parameters of the training."""
    p = generator.parameters
    return {
        "model": p.model,
        "recipe": p.recipe,
        "z_dim": p.z_dim,
        "num_classes": p.num_classes,
        "class_names": [name.encode(errors="replace").decode() for name in generator.class_names],
        "image_shape": [p.channels, p.imsize, p.imsize],
        "image_range": [0, 1] if p.dont_normalize else [-1, 1],
        "inputs": {"z": ["float32", ["N", p.z_dim]], "labels": ["int64", ["N"]]},
        "outputs": {"images": ["float32", ["N", p.channels, p.imsize, p.imsize]]},
        "step": loaded.step,
        "weights": "moving average" if generator.part == "G_ema" else "as trained",
        "parameters": values,
    }


def export_python():
    """The Python of the environment that `make export-env` makes, or None without it."""
    for place in ("bin/python", "Scripts/python.exe"):
        if (python := HERE.parent / ".venv-export" / place).exists():
            return python
    return None


def _check_space(out, needed):
    """Refuse a disk with less than `needed` bytes free. Paddle's own messages about a full disk are not clear."""
    free = shutil.disk_usage(out if out.is_dir() else out.parent).free
    if free < needed:
        raise UserError(
            f"--out {out} needs about {needed / 1e6:,.0f} MB, but its disk has {free / 1e6:,.0f} MB free: make room "
            "there, or give another folder"
        )


@contextlib.contextmanager
def _new_folder(out):
    """Yield a hidden folder. It becomes `out` after the block, and is removed after an error.

    If `out` exists it is empty. It stays, because it may be the current folder, a link or a disk: the hidden folder is
    inside it, and its content is moved up.
    """
    exists = out.is_dir()
    folder = temporary_name(out / "export" if exists else out)
    try:
        with writing("--out", out):
            folder.mkdir()
        yield folder
        if exists:
            for path in folder.iterdir():
                os.replace(path, out / path.name)
        else:
            os.replace(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _samples(generator):
    """Noise, classes and images of a batch, to compare the exported models with: NumPy by name."""
    p = generator.parameters
    z = noises(p, range(4)).astype("float32")
    labels = np.arange(4) % p.num_classes
    with paddle.no_grad():
        images = generator.network(paddle.to_tensor(z), paddle.to_tensor(labels)).numpy()
    return {"z": z, "labels": labels, "images": images}


def _parameters(generator, loaded):
    """The parameters for model.safetensors: those in the checkpoint, without LEFT_OUT.

    The weights include the standing statistics now.
    """
    known = {name: value for name, value in loaded.parameters.items() if name not in LEFT_OUT}
    return known | {"num_classes": generator.parameters.num_classes, "standing_batches": 0}


def _write_paddle(generator, folder, samples):
    """Save the folded generator for paddle.inference and paddle.jit.load. Returns the largest difference of images."""
    prefix = str(folder / MODEL)
    specs = [InputSpec([None, generator.parameters.z_dim], "float32", "z"), InputSpec([None], "int64", "labels")]
    paddle.jit.save(fold(generator.network), prefix, input_spec=specs)
    layer = paddle.jit.load(prefix)
    layer.eval()
    differences = []
    for count in (1, 3, 4):
        z, labels, images = (samples[name][:count] for name in ("z", "labels", "images"))
        with paddle.no_grad():
            found = layer(paddle.to_tensor(z), paddle.to_tensor(labels)).numpy()
        differences.append(np.abs(found - images).max())
    return _checked(max(differences), "the Paddle inference model")


def _write_onnx(python, folder, samples):
    """Convert the Paddle inference model by `to_onnx.py`, in its own environment. Returns the largest difference."""
    with tempfile.TemporaryDirectory() as place:
        np.savez(Path(place, "samples.npz"), **samples)
        command = [python, HERE / "to_onnx.py", folder / MODEL, Path(place, "samples.npz"), folder / "model.onnx"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["no output"]
    if done.returncode:
        raise UserError(f"model.onnx cannot be made ({lines[-1]:.200}): `make export-env` repairs its environment")
    return _checked(float(lines[-1]), "model.onnx")


def _checked(difference, what):
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the images of {what} differ from the generator's by {difference}")
    return difference


def _write(path, text):
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
