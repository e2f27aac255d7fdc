"""What metrics compare with: statistics of real images, computed once for each data set and extractor, then cached."""

import atexit
import functools
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

import runtime
from dataset import FolderSet
from measurement import Needs, finish, measure
from metrics.fid import load_statistics, save_statistics
from sources import Real
from utils import UserError, atomic_path, progress

CACHE = "~/.cache/paddle/real-images"  # beside what Paddle itself downloads


def cache_folder(name):
    """The folder `name` in the cache, made if need be."""
    folder = Path(_cache(Path(CACHE).expanduser()), name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@functools.cache
def _cache(folder):
    """`folder`, or, said once, a temporary one as long as this process lives where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            return folder
    except OSError as error:
        print(f"what is computed of real images is not kept: {folder}: {error.strerror}", file=sys.stderr)
        temporary = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        return temporary


class Summary(NamedTuple):
    """What is known of a set of `count` images; each part is there where it was needed."""

    count: int
    gaussians: dict  # by tap: `metrics.fid.Gaussian`
    features: np.ndarray | None  # float32 [count, width]
    right: dict  # by resolution: how many images are read as their class
    score: dict  # the Inception Score
    place: str | None = None  # where on disk it is
    earlier: float = 0.0  # seconds that interrupted sessions took for it


def summary(seen, count):
    """The `Summary` of a whole `measurement.Seen`."""
    return Summary(
        count,
        {tap: statistics.gaussian() for tap, statistics in seen.statistics.items()},
        seen.features if seen.needs.features else None,
        seen.right,
        seen.score.result() if seen.score else {},
        earlier=seen.earlier,
    )


def real_summary(image_set, extractor, needs, title, stop):
    """The `Summary` of an `ImageSet`, of which what `needs` says is read from the cache or computed and put there.

    It is on every process; None when `stop` was asked.
    """
    folder = runtime.from_first(lambda: str(_folder(image_set, extractor)))
    known, missing = runtime.from_first(_read, Path(folder), needs, len(image_set))
    if any(missing):
        key = f"{extractor.key} {missing}"
        seen = measure(Real(image_set), extractor, missing, 0, title, stop, parts_folder=folder, key=key)
        if seen is None:
            return None
        fresh = summary(seen, len(image_set))
        fresh = fresh._replace(right=known.right | fresh.right)  # which are in one file
        if runtime.rank() == 0:
            _write(Path(folder), fresh)
        known = fresh._replace(
            gaussians=known.gaussians | fresh.gaussians,
            features=fresh.features if missing.features else known.features,
        )
    return known._replace(place=folder)


def given_summary(path, taps):
    """The `Summary` that the statistics in the file `path` are; raises UserError unless they fit the layers `taps`."""
    gaussian = load_statistics(path)
    for tap in taps:
        if len(gaussian.mean) != int(tap):
            raise UserError(f"--reference {path} has statistics of width {len(gaussian.mean)}, --metrics needs {tap}")
    return Summary(0, dict.fromkeys(taps, gaussian), None, {}, {}, str(path))


def _folder(image_set, extractor):
    """The cache's folder for these images as the networks see them, read by this extractor."""
    digest = hashlib.blake2b(f"{extractor.key}\n{content_digest(image_set)}".encode(), digest_size=16).hexdigest()
    return cache_folder(digest)


@functools.cache
def content_digest(image_set):
    """What tells these images, as the networks see them, from any others: a text."""
    p, digest = image_set.parameters, hashlib.blake2b(digest_size=16)
    digest.update(repr((p.imsize, p.centercrop, p.centercrop_size, p.dont_resize, image_set.class_names)).encode())
    if p.exif:  # left out where it is false: what is cached without it stays valid
        digest.update(b"exif")
    digest.update(image_set.labels.tobytes())
    for index in progress(range(len(image_set)), title="digest of real images", unit="img"):
        if isinstance(image_set, FolderSet):
            digest.update(image_set.path(index).read_bytes())
        else:
            digest.update(image_set[index][0].tobytes())
    return digest.hexdigest()


def _read(folder, needs, count):
    """(the `Summary` of what is cached, the `Needs` that are not)."""
    gaussians = {tap: _cached(folder / f"{tap}.npz", load_statistics) for tap in needs.taps}
    gaussians = {tap: gaussian for tap, gaussian in gaussians.items() if gaussian}
    features = _cached(folder / "features.npy", functools.partial(_load_features, count)) if needs.features else None
    right = _cached(folder / "right.json", _load_right) or {}
    missing = Needs(
        tuple(tap for tap in needs.taps if tap not in gaussians),
        needs.features and features is None,
        False,
        tuple(resolution for resolution in needs.resolutions if resolution not in right),
    )
    return Summary(count, gaussians, features, right, {}), missing


def _cached(path, load):
    """What `load` reads of `path`; None where there is nothing, or, aloud, where it cannot be read."""
    try:
        return load(path) if path.exists() else None
    except (OSError, EOFError, ValueError, TypeError, AttributeError, UserError) as error:
        reason = str(error).removeprefix(f"--reference {path}: ")
        print(f"{path} is passed over, and computed anew: {reason}", file=sys.stderr)


def _load_features(count, path):
    features = np.load(path, mmap_mode="r", allow_pickle=False)
    if features.ndim != 2 or len(features) != count or features.dtype != np.float32:
        raise ValueError(f"it is {features.dtype} {list(features.shape)}")
    return features


def _load_right(path):
    return {int(resolution): int(count) for resolution, count in json.loads(path.read_text()).items()}


def _write(folder, known):
    """Keep what is `known` in the cache's `folder`; a full disk costs the next run time, not this one its figures."""
    try:
        for tap, gaussian in known.gaussians.items():
            save_statistics(folder / f"{tap}.npz", gaussian)
        if known.features is not None:
            with atomic_path(folder / "features.npy") as temporary:
                np.save(temporary, known.features)
        if known.right:
            with atomic_path(folder / "right.json") as temporary:
                temporary.write_text(json.dumps(known.right))
        finish(folder)
    except OSError as error:
        print(f"what was computed of real images is not kept: {folder}: {error.strerror}", file=sys.stderr)
