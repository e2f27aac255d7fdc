"""Save, load, resume. A checkpoint is one safetensors file: tensors and plain values, nothing that can run.

Tensors are named PART/NAME, where PART is G, D, G_ema, g_optimizer or d_optimizer; the header's metadata hold the
format, the step and the parameters.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

import published
from parameters import RUN_FILE, Parameters, read_parameters, read_recipe
from utils import UserError, atomic_path

FORMAT = "conditional GAN checkpoint 1"


class Checkpoint(NamedTuple):
    """What a file held: the steps done, the parameters as a plain dictionary, NumPy arrays by part and name."""

    step: int
    parameters: dict
    parts: dict


def save(path, step, parameters, parts):
    """Write a checkpoint atomically: `parameters` a plain dictionary, `parts` NumPy arrays by part and name."""
    tensors = {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
    metadata = {"format": FORMAT, "step": str(step), "parameters": json.dumps(parameters)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)


def load(path):
    """Read a checkpoint: one of ours or, recognised by its content, a published one, whose sizes its shapes tell.

    Raises UserError for a file that is missing, cut short, or no checkpoint.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(9)
        if head[8:] != b"{":  # where a safetensors header begins
            step, sizes, parts = published.load(path)
            recipe = "sagan-imagenet" if sizes["model"] == "sagan" else sizes["model"]
            return Checkpoint(step, read_recipe(recipe) | sizes, parts)
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise UserError(f"{path} is a safetensors file but not one of this project's checkpoints")
            parts = {}
            for key in file.keys():  # noqa: SIM118, it is no dictionary
                part, _, name = key.partition("/")
                parts.setdefault(part, {})[name] = file.get_tensor(key)
            return Checkpoint(int(metadata["step"]), json.loads(metadata["parameters"]), parts)
    except FileNotFoundError:
        raise UserError(f"--pretrained_model {path}: there is no such file") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from None


def load_given(given):
    """(checkpoint, its path) that the options `given`, by name, ask to start from; (None, None) where they ask none."""
    if "check_path" in given:
        path = Path(given["check_path"]) / f"G_{given.get('which_epoch', Parameters.which_epoch)}.pdparams"
    elif "pretrained_model" in given:
        path = find(given["pretrained_model"])
    else:
        return None, None
    return load(path), path


def newest(folder):
    """The path of the newest whole checkpoint in `folder`, or None; one that cannot be read is passed over aloud."""
    for path in sorted(Path(folder).glob("step-*.safetensors"), reverse=True):
        try:
            with safe_open(path, framework="numpy"):
                return path
        except (SafetensorError, OSError):
            print(f"{path} is not whole and is passed over", file=sys.stderr)
    return None


def find(path):
    """The checkpoint file that `path` means: itself, or the newest of a run's folder. Raises UserError for none."""
    path = Path(path)
    if not path.is_dir():
        return path
    if not (path / RUN_FILE).is_file():
        raise UserError(f"--pretrained_model {path} is a folder but no run's: it has no {RUN_FILE}")
    weights = path / read_parameters(path / RUN_FILE).get("model_weights_dir", Parameters.model_weights_dir)
    found = newest(weights)
    if found is None:
        raise UserError(f"--pretrained_model {path}: there is no checkpoint in {weights} yet")
    return found


def run_of(path):
    """The run folder that the checkpoint file `path` lies in, or else the folder it lies in."""
    folder = Path(path).absolute().parent
    return folder.parent if (folder.parent / RUN_FILE).is_file() else folder


def load_network(network, arrays, source):
    """Copy `arrays` (NumPy, by name) into `network`; raises UserError unless they are its names, shapes and finite."""
    state = network.state_dict()
    if missing := sorted(state.keys() - arrays.keys()):
        raise UserError(f"{source} lacks {missing[0]} (and {len(missing) - 1} more) that this network has")
    if extra := sorted(arrays.keys() - state.keys()):
        raise UserError(f"{source} holds {extra[0]} (and {len(extra) - 1} more) that this network has not")
    for name, tensor in state.items():
        array = arrays[name]
        if list(array.shape) != list(tensor.shape):
            raise UserError(f"{source} holds {name} as {list(array.shape)}, this network has {list(tensor.shape)}")
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise UserError(f"{source} holds {name} with values that are not finite numbers")
    for name, tensor in state.items():
        tensor.set_value(arrays[name].astype(str(tensor.dtype).rsplit(".", 1)[-1]))
