"""What metrics compare with: statistics of real images, computed once for each data set and extractor, then cached."""

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import runtime
from dataset import FolderSet
from measurement import Needs, finish, measure
from metrics.fid import Gaussian, load_statistics, save_statistics
from sources import Real
from utils import UserError, atomic_path

CACHE = "~/.cache/paddle/real-images"  # beside what Paddle itself downloads


def cache_folder(name):
    """The folder `name` in the cache, made if need be; a temporary one, aloud, where the cache cannot be written."""
    folder = Path(CACHE).expanduser() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            return folder
    except OSError as error:
        print(f"what is computed of real images is not kept: {folder}: {error.strerror}", file=sys.stderr)
        return Path(tempfile.mkdtemp())


class Summary(NamedTuple):
    """What is known of a set of `count` images; each part is there where it was needed."""

    count: int
    gaussians: dict  # by tap: `metrics.fid.Gaussian`
    features: np.ndarray | None  # float32 [count, width]
    right: dict  # by resolution: how many images are read as their class
    score: dict  # the Inception Score
    place: str | None = None  # where on disk it is


def summary(seen, count):
    """The `Summary` of a whole `measurement.Seen`."""
    return Summary(
        count,
        {tap: statistics.gaussian() for tap, statistics in seen.statistics.items()},
        seen.features if seen.needs.features else None,
        seen.right,
        seen.score.result() if seen.score else {},
    )


def real_summary(image_set, extractor, needs, title, stop):
    """The `Summary` of an `ImageSet`, of which what `needs` says is read from the cache or computed and put there.

    It is on every process; None when `stop` was asked.
    """
    folder = runtime.from_first(lambda: str(_folder(image_set, extractor)))
    known, missing = runtime.from_first(_read, Path(folder), needs, len(image_set))
    if any(missing):
        seen = measure(Real(image_set), extractor, missing, 0, title, stop, parts_folder=folder, key=extractor.key)
        if seen is None:
            return None
        fresh = summary(seen, len(image_set))
        if runtime.rank() == 0:
            _write(Path(folder), fresh)
        known = Summary(
            known.count,
            known.gaussians | fresh.gaussians,
            fresh.features if missing.features else known.features,
            known.right | fresh.right,
            {},
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


def content_digest(image_set):
    """What tells these images, as the networks see them, from any others: a text."""
    p, digest = image_set.parameters, hashlib.blake2b(digest_size=16)
    digest.update(repr((p.imsize, p.centercrop, p.centercrop_size, p.dont_resize, image_set.class_names)).encode())
    digest.update(image_set.labels.tobytes())
    for index in tqdm(range(len(image_set)), desc="digest of real images", leave=False, unit="img"):
        if isinstance(image_set, FolderSet):
            digest.update(image_set.path(index).read_bytes())
        else:
            digest.update(image_set[index][0].tobytes())
    return digest.hexdigest()


def _read(folder, needs, count):
    """(the `Summary` of what is cached of `needs`, the `Needs` that are not)."""
    gaussians, features, right = {}, None, {}
    for tap in needs.taps:
        if (path := folder / f"{tap}.npz").exists():
            try:
                gaussians[tap] = load_statistics(path)
            except UserError as error:
                print(f"{error}; it is computed anew", file=sys.stderr)
    try:
        features = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False) if needs.features else None
        right = {int(k): int(v) for k, v in json.loads((folder / "right.json").read_text()).items()}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, AttributeError) as error:
        print(f"{folder} is passed over: {error}; it is computed anew", file=sys.stderr)
    missing = Needs(
        tuple(tap for tap in needs.taps if tap not in gaussians),
        needs.features and (features is None or len(features) != count),
        False,
        tuple(resolution for resolution in needs.resolutions if resolution not in right),
    )
    return Summary(count, gaussians, features, right, {}), missing


def _write(folder, known):
    for tap, gaussian in known.gaussians.items():
        save_statistics(folder / f"{tap}.npz", Gaussian(*gaussian))
    if known.features is not None:
        with atomic_path(folder / "features.npy") as temporary:
            np.save(temporary, known.features)
    if known.right:
        with atomic_path(folder / "right.json") as temporary:
            temporary.write_text(json.dumps(known.right))
    finish(folder)
