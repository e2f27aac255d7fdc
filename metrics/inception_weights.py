"""Finds, downloads and checks the weights of the Inception-v3 that FID is defined with."""

import hashlib
import sys
import urllib.request
from http.client import HTTPException
from pathlib import Path

import numpy as np

from formats.safe_pickle import load_state
from metrics import all_metrics
from metrics.record import REAL, SAMPLES
from utils import UserError, atomic_path, file_digest

FILE = "weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIZE = 95_628_359
# torch-fidelity and pytorch-fid publish the same file.
ADDRESSES = (
    f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
)
CACHE = "~/.cache/paddle/hapi/weights"  # Paddle's folder of downloads


def load_weights(path):
    """The network's weights by PyTorch's names, from the file `path`: `.pth`, or PaddleGAN's `.pdparams`.

    Nothing in the file is run. Raises UserError if there is no such file or it has no arrays.
    """
    try:
        state = load_state(path)
    except UserError as error:
        raise UserError(f"--inception_weights {error}") from None
    return {published_name(name): value for name, value in state.items() if isinstance(value, np.ndarray)}


def find_weights(file=None):
    """(path, SHA-256) of the weights. The path is `file` (--inception_weights). If `file` is None, it is the published
    file in Paddle's cache, downloaded if it is missing.

    The digest is None if there is no such file. Raises UserError if the download fails, or if a file with the published
    name or size has another SHA-256. Any other file, such as PaddleGAN's, is used after a warning.
    """
    path = Path(CACHE).expanduser() / FILE if file is None else Path(file)
    if file is None and not path.exists():
        _download(path)
    digest = file_digest(path) if path.is_file() else None
    if digest not in (None, SHA256):
        if path.name.endswith(f"-{SHA256[:8]}.pth") or path.stat().st_size == SIZE:
            raise UserError(
                f"--inception_weights {path} is damaged: its SHA-256 is {digest[:8]}…, not {SHA256[:8]}…; delete it "
                f"and get it again from {ADDRESSES[0]}"
            )
        print(
            f"--inception_weights {path} is not the published file (its SHA-256 is {digest[:8]}…, not {SHA256[:8]}…): "
            "compare its figures only with each other",
            file=sys.stderr,
        )
    return path, digest


def _download(path):
    reasons = []
    for address in ADDRESSES:
        print(f"downloading {address} to {path.parent}", file=sys.stderr)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with urllib.request.urlopen(address, timeout=30) as source:
                content = source.read(SIZE + 1)
            if hashlib.sha256(content).hexdigest() == SHA256:
                with atomic_path(path) as temporary:
                    temporary.write_bytes(content)
                return
            reasons.append("the address gave another file")
        except (OSError, HTTPException) as error:
            reasons.append(str(getattr(error, "reason", error)))
    chosen = (metric for metric in all_metrics().values() if not metric.uses_network)
    without = sorted(metric.name for metric in chosen if metric.sets == (SAMPLES, REAL))
    raise UserError(
        f"--inception_weights: {FILE} is not in {path.parent} and cannot be downloaded ({reasons[0]}); get it from "
        f"{ADDRESSES[0]} and put it there, or give its path; test.py measures without it by "
        f"--metrics {','.join(without)}"
    )


def published_name(name):
    """PyTorch's name of a weight that Paddle may name differently."""
    return name.replace("._mean", ".running_mean").replace("._variance", ".running_var")
