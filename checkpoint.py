"""Save and load checkpoints. A checkpoint is one safetensors file of tensors and plain values. It holds no code.

A tensor is named PART/NAME; PART is one of PARTS. The metadata in the header hold the format, the step, the parameters,
notes, and a checksum of each part. One more tensor holds the names of the classes. They are not in the header, because
it has no room for many names and has to be UTF-8. Names of folders need not be UTF-8.
"""

import errno
import fnmatch
import hashlib
import json
import math
import os
import sys
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from formats import published_weights
from formats.safe_pickle import load_state
from layers import set_values
from networks import models_of
from parameters import Parameters, count_classes, from_values, read_parameters, read_recipe
from utils import RUN_FILE, UserError, atomic_path, plural, printable

FORMAT = "conditional GAN checkpoint 1"
HEADER_LIMIT = 2**20  # bytes; the largest network here needs a tenth of it
BEST = "best.safetensors"
PARTS = ("G", "D", "G_ema", "g_optimizer", "d_optimizer", "grad_scaler")
CLASSES, NAMES = "classes", "names"  # PART and NAME of the tensor with the names of the classes
SHOWN = 5  # the most names of classes in a message


class Checkpoint(NamedTuple):
    """The content of the checkpoint file `path`."""

    path: Path
    step: int  # steps done
    parameters: dict  # plain values by field name
    parts: dict  # NumPy arrays by part and name
    notes: dict = {}  # noqa: RUF012, plain values that the run keeps for its resume; never changed
    class_names: tuple = ()  # of the training images, by label; empty if the file does not hold them

    def fingerprint(self):
        """A text: the number of steps, and a digest of all arrays and of the names of the classes."""
        digest = hashlib.blake2b(repr(self.class_names).encode(), digest_size=8)
        for part, arrays in sorted(self.parts.items()):
            for name, array in sorted(arrays.items()):
                digest.update(f"{part}/{name} {array.shape} {array.dtype}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return f"step {self.step} {digest.hexdigest()}"


class NotReadable(UserError):
    """This process may not read a file. Its content may be whole."""


class HeaderTooLong(UserError):
    """The options and notes of a checkpoint are too long to be read back."""


def save(path, step, parameters, parts, notes=None, class_names=()):
    """Write a checkpoint atomically. The arguments are those of `Checkpoint`, and `load` returns them.

    Raises UserError if the file cannot be written, for example because the disk is full. Raises HeaderTooLong if `load`
    would refuse it.
    """
    if class_names:
        parts = parts | {CLASSES: {NAMES: _encoded(class_names)}}
    tensors = {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
    metadata = {
        "format": FORMAT,
        "step": str(step),
        "parameters": json.dumps(parameters),
        "notes": json.dumps(notes or {}),
    }
    metadata["checksums"] = json.dumps({part: _checksum(metadata, arrays) for part, arrays in parts.items()})
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata)
            if (size := _header_size(temporary)) > HEADER_LIMIT:
                raise HeaderTooLong(
                    f"{path} cannot be written: its header has {size} bytes, more than {HEADER_LIMIT}; give shorter "
                    "options"
                )
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} cannot be written: {getattr(error, 'strerror', None) or printable(str(error))}"
        ) from None


def _encoded(names):
    """Names of folders as bytes, uint8 [n]. Zero bytes separate them, because no name contains one."""
    return np.frombuffer(os.fsencode("\0".join(names)), np.uint8)


def _decoded(array):
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError(f"it holds the names of its classes as {array.dtype} {list(array.shape)}")
    return tuple(os.fsdecode(array.tobytes()).split("\0"))


def _checksum(metadata, arrays):
    """CRC-32 of a part and of the metadata's values. safetensors does not detect flipped bits."""
    total = zlib.crc32("".join(metadata.get(key, "") for key in ("step", "parameters", "notes")).encode())
    for name, array in sorted(arrays.items()):
        total = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), total)
        total = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8), total)
    return total


def load(path, wanted=PARTS):
    """Read a checkpoint of ours, with the parts `wanted`, or a published one. The content shows the kind.

    Raises UserError if the file is missing, cut short, no checkpoint, or if its arrays do not have the sizes that its
    parameters claim. Raises NotReadable if this process may not read the file.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(9)
        if head[8:] == b"{":  # the header of a safetensors file begins at byte 8
            loaded = _load_ours(path, wanted)
        elif (state := load_state(path)).get("format") == FORMAT:  # one of ours that `convert.py` wrote
            parts = {part: state[part] for part in PARTS if part in state}
            names = state.get("class_names", ())
            names = tuple(os.fsdecode(name.encode(errors="surrogateescape")) for name in names)
            loaded = Checkpoint(Path(path), state["step"], state["parameters"], parts, class_names=names)
        else:
            step, sizes, parts = published_weights.load(path, state)
            recipe = "sagan-imagenet" if sizes["model"] == "sagan" else sizes["model"]
            values = read_recipe(recipe) | sizes
            if values.get("classes") and count_classes(values["classes"]) != values["num_classes"]:
                values["classes"] = None  # these weights were trained on other classes than the recipe chooses
            loaded = Checkpoint(Path(path), step, values, parts)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        _check_access(error, path)
        raise UserError(f"{path} cannot be read as a checkpoint: {printable(str(error))}") from None
    _check_content(loaded, path)
    return loaded


def _check_access(error, path):
    """Raise NotReadable for an error of the system, because it does not mean that the content is damaged."""
    if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):  # a missing file is not unreadable
        raise NotReadable(f"{error.filename or path} cannot be read: {error.strerror}") from None


def _load_ours(path, wanted):
    with _open_ours(path) as (file, metadata):
        parts = {}
        for key in file.keys():  # noqa: SIM118, `file` is not a dictionary
            part, _, name = key.partition("/")
            if part in (*wanted, CLASSES):
                parts.setdefault(part, {})[name] = file.get_tensor(key)
        checksums = json.loads(metadata.get("checksums", "{}"))  # earlier versions wrote none
        for part, arrays in parts.items():
            if part in checksums and checksums[part] != _checksum(metadata, arrays):
                raise ValueError(f"{part} is damaged: its checksum differs")
        notes = json.loads(metadata.get("notes", "{}"))
        classes = parts.pop(CLASSES, {})
        names = _decoded(classes[NAMES]) if NAMES in classes else ()
        return Checkpoint(Path(path), int(metadata["step"]), json.loads(metadata["parameters"]), parts, notes, names)


@contextmanager
def _open_ours(path):
    """Yield an open checkpoint of ours and the metadata in its header."""
    if _header_size(path) > HEADER_LIMIT:
        raise ValueError("its header is too long")
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise UserError(f"{path} is a safetensors file but not one of this project's checkpoints")
        yield file, metadata


def _header_size(path):
    """The bytes of the header of a safetensors file."""
    with open(path, "rb") as file:
        return int.from_bytes(file.read(8), "little")


def best_score(path):
    """(score, score key) in the header of the checkpoint `path`; (-inf, None) if there is none.

    Raises NotReadable if this process may not read the file. Such a file must not be replaced.
    """
    try:
        with _open_ours(path) as (_, metadata):
            notes = json.loads(metadata["notes"])
            return float(notes["score"]), str(notes["score_key"])
    except (
        SafetensorError,
        UserError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
        OverflowError,
    ) as error:
        _check_access(error, path)
        return -math.inf, None


def _check_content(loaded, path):
    """Raise UserError for content of wrong types, and for arrays that do not fit the networks of the parameters.

    A file may claim networks of any size. So the networks made here have shapes but take no memory.
    """
    right_types = all(isinstance(part, dict) for part in (loaded.parameters, loaded.notes, *loaded.parts.values()))
    if type(loaded.step) is not int or loaded.step < 0 or not right_types:
        raise UserError(
            f"{path} cannot be read as a checkpoint: the step, the parameters or the weights have the wrong type"
        )
    for part, arrays in loaded.parts.items():
        for name, array in arrays.items():
            if type(name) is not str or not isinstance(array, np.ndarray):
                found = f"{part} holds {name!r:.80} as a {type(array).__name__}"
                raise UserError(f"{path} cannot be read as a checkpoint: {found}, not arrays by names")
    p = from_values(loaded.parameters, path)
    if p.num_classes is None or not loaded.parts:
        raise UserError(
            f"{path} cannot be read as a checkpoint: it has no weights, or does not tell the number of classes"
        )
    names = loaded.class_names
    if names and not (all(type(name) is str for name in names) and len(set(names)) == len(names) == p.num_classes):
        raise UserError(
            f"{path} cannot be read as a checkpoint: its {len(names)} class names do not fit {p.num_classes} classes"
        )
    models = models_of(p)
    with paddle.LazyGuard():
        shapes = {"G": _shapes(models.make_generator(p)), "D": _shapes(models.make_discriminator(p))}
    shapes["G_ema"] = shapes["G"]
    for part in shapes.keys() & loaded.parts.keys():
        check_shapes(shapes[part], loaded.parts[part], path)


def _shapes(network):
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}


def check_shapes(shapes, arrays, source):
    """Raise UserError unless `arrays`, read from `source`, have the names and shapes of `shapes` and finite values."""
    if missing := sorted(shapes.keys() - arrays.keys()):
        raise UserError(f"{source} lacks {missing[0]}{_and_others(missing)} of this network")
    if extra := sorted(arrays.keys() - shapes.keys()):
        raise UserError(f"{source} holds {extra[0]:.80}{_and_others(extra)}, which this network does not have")
    for name, shape in shapes.items():
        array = arrays[name]
        if list(array.shape) != shape:
            raise UserError(f"{source} holds {name} as {list(array.shape)}, but this network has {shape}")
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise UserError(f"{source} holds {name} with values that are not finite numbers")


def compare_classes(before, now):
    """The difference between the class names `before` and `now` in words; "" if they are equal."""
    if (before := tuple(before)) == (now := tuple(now)):
        return ""
    parts = [
        f"{change} {_listed(sorted(names))}"
        for change, names in (("gone:", set(before) - set(now)), ("new:", set(now) - set(before)))
        if names
    ]
    if parts:
        return "; ".join(parts)
    label = next(label for label, name in enumerate(now) if name != before[label])
    return f"the same in another order: {label} is {printable(now[label])}, was {printable(before[label])}"


def _listed(names):
    """The first SHOWN of `names`, made printable because a stranger may have written them, and how many follow."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(printable, names[:SHOWN])) + more


def _and_others(names):
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def load_newest(folder, wanted=PARTS):
    """The newest complete checkpoint in `folder`, with the parts `wanted`; None if there is no checkpoint.

    Prints a line for each damaged checkpoint and tries the one before it. The best by score is tried last.

    Raises UserError if all are damaged: a run that started again would overwrite them. Raises NotReadable if this
    process may not read one: the run would train its steps again.
    """
    paths = [*reversed(step_files(folder)), *_files(folder, BEST)]
    for path in paths:
        try:
            return load(path, wanted)
        except NotReadable:
            raise
        except UserError as error:
            print(f"{path} is damaged and is skipped: {error}", file=sys.stderr)
    if paths:
        raise UserError(
            f"the {plural(len(paths), 'checkpoint')} in {folder} cannot be read: restore one from a backup, or start a "
            "new run with another --name"
        )
    return None


def step_files(folder):
    """The paths of the checkpoints of single steps in `folder`, sorted by step."""
    return _files(folder, "step-*.safetensors")


def _files(folder, pattern):
    """The paths in `folder` that match `pattern`, sorted. Raises NotReadable; `Path.glob` would hide such an error."""
    try:
        return [Path(folder, name) for name in sorted(fnmatch.filter(os.listdir(folder), pattern))]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise NotReadable(f"{folder} cannot be read: {error.strerror}") from None


def load_file_or_run(path, option="--pretrained_model", wanted=PARTS):
    """The checkpoint in the file `path`, or the newest one of the run in the folder `path`, with the parts `wanted`.

    Raises UserError if there is none. The message names `option`, which gave `path`.
    """
    path = Path(path)
    if not path.exists():
        run = Path(Parameters.save_path, path)
        hint = f"; did you mean {run}?" if run.is_dir() else ""
        raise UserError(f"{option} {path}: there is no such file{hint}")
    if not path.is_dir():
        try:
            return load(path, wanted)
        except UserError as error:
            error.args = (f"{option} {'' if str(error).startswith(str(path)) else f'{path}: '}{error}",)
            raise
    if not (path / RUN_FILE).is_file():
        exported = path / "model.safetensors"  # if export.py has written the folder
        hint = f"; did you mean {exported}?" if exported.is_file() else ""
        raise UserError(f"{option} {path} is a folder but not a run: it has no {RUN_FILE}{hint}")
    weights = path / read_parameters(path / RUN_FILE).get("model_weights_dir", Parameters.model_weights_dir)
    newest = load_newest(weights, wanted)
    if newest is None:
        raise UserError(f"{option} {path}: there is no checkpoint in {weights} yet")
    return newest


def run_of(path):
    """The folder of the run that wrote the checkpoint file `path`; without a run, the folder that holds the file."""
    folder = Path(path).absolute().parent
    return folder.parent if (folder.parent / RUN_FILE).is_file() else folder


def load_network(network, arrays, source):
    """Copy `arrays`, NumPy by name, into `network`. Raises UserError as `check_shapes` does."""
    check_shapes(_shapes(network), arrays, source)
    for name, tensor in network.state_dict().items():
        set_values(tensor, arrays[name])
