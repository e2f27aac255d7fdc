"""The real images that metrics compare with. They are measured once for each data set and extractor, then cached."""

import atexit
import functools
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from checkpoint import compare_classes
from dataset import load_dataset
from evaluation.measurement import Needs, measure, remove_process_files
from evaluation.sources import RealImages
from loading.image_sets import FolderSet, ImageSet
from metrics.fid import load_statistics, save_statistics
from metrics.record import Summary
from processes import collectives
from utils import UserError, atomic_path, progress

SPLITS = {"train": ("train",), "test": ("test",), "both": ("train", "test")}  # by --real_split
CACHE = "~/.cache/paddle/real-images"  # beside Paddle's own downloads


def cache_folder(name):
    """The folder `name` in the cache. It is created if it is missing."""
    folder = Path(_cache(Path(CACHE).expanduser()), name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@functools.cache
def _cache(folder):
    """`folder`. If it cannot be written: prints a line; returns a folder that is removed when this process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            return folder
    except OSError as error:
        print(f"statistics of real images are not cached: {folder}: {error.strerror}", file=sys.stderr)
        temporary = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        return temporary


class BothSplits(ImageSet):
    """The training images, then the test images, of one data set. Raises UserError if their classes differ."""

    def __init__(self, train, test):
        if difference := compare_classes(train.class_names, test.class_names):
            raise UserError(
                f"--real_split both: the training images and the test images have other classes ({difference}): give "
                "folders of the same classes, or --real_split test"
            )
        super().__init__(train.parameters, train.class_names, np.concatenate([train.labels, test.labels]))
        self.train, self.test = train, test

    def __getitem__(self, index):
        return self.train[index] if index < len(self.train) else self.test[index - len(self.train)]


def load_splits(parameters, splits, generator_classes=()):
    """{split: its `ImageSet`} for `splits`, which are keys of SPLITS. `generator_classes`: as for `load_dataset`."""
    names = dict.fromkeys(name for split in splits for name in SPLITS[split])
    sets = {name: load_dataset(parameters, name, generator_classes) for name in sorted(names)}
    if "both" in splits:
        sets["both"] = BothSplits(sets["train"], sets["test"])
    return {split: sets[split] for split in sorted(splits)}


def summary(gathered, count):
    """The `Summary` of a complete `measurement.Gathered`."""
    return Summary(
        count,
        {layer: statistics.gaussian() for layer, statistics in gathered.statistics.items()},
        gathered.features if gathered.needs.features else None,
        gathered.right,
        gathered.score.result() if gathered.score else {},
        earlier=gathered.earlier,
    )


def real_summary(image_set, extractor, needs, title, stop):
    """The `Summary` of an `ImageSet` with the values in `needs`, on every process; None after a stop signal.

    Values come from the cache. Missing ones are computed and saved there.
    """
    folder = collectives.on_rank_0(lambda: str(_folder(image_set, extractor)))
    known, missing = collectives.on_rank_0(_read_cache, Path(folder), needs, len(image_set))
    if any(missing):
        key = f"{extractor.key} {missing}"
        gathered = measure(RealImages(image_set), extractor, missing, 0, title, stop, folder=folder, key=key)
        if gathered is None:
            return None
        fresh = summary(gathered, len(image_set))
        fresh = fresh._replace(right=known.right | fresh.right)  # one file holds the counts of all resolutions
        if collectives.rank() == 0:
            _write_cache(Path(folder), fresh)
        known = fresh._replace(
            gaussians=known.gaussians | fresh.gaussians,
            features=fresh.features if missing.features else known.features,
        )
    return known._replace(place=folder)


def given_summary(path, layers):
    """The `Summary` of the statistics in the file `path`. Raises UserError unless their width fits all `layers`."""
    gaussian = load_statistics(path)
    for layer in layers:
        if len(gaussian.mean) != int(layer):
            raise UserError(f"--reference {path} has statistics of width {len(gaussian.mean)}; --metrics needs {layer}")
    return Summary(0, dict.fromkeys(layers, gaussian), None, {}, {}, place=str(path))


def _folder(image_set, extractor):
    """The folder in the cache for this extractor and these images, after they are resized and cropped."""
    digest = hashlib.blake2b(f"{extractor.key}\n{content_digest(image_set)}".encode(), digest_size=16).hexdigest()
    return cache_folder(digest)


@functools.cache
def content_digest(image_set):
    """A text that identifies these images after they are resized and cropped."""
    if isinstance(image_set, BothSplits):
        return f"{content_digest(image_set.train)} {content_digest(image_set.test)}"
    p, digest = image_set.parameters, hashlib.blake2b(digest_size=16)
    digest.update(repr((p.imsize, p.centercrop, p.centercrop_size, p.dont_resize, image_set.class_names)).encode())
    if p.exif:  # only if true, so that older entries of the cache stay valid
        digest.update(b"exif")
    if p.filter != p.usual_filter:
        digest.update(p.filter.encode())
    digest.update(image_set.labels.tobytes())
    for index in progress(range(len(image_set)), title="digest of real images", unit="img"):
        if isinstance(image_set, FolderSet):
            digest.update(image_set.path(index).read_bytes())
        else:
            digest.update(image_set[index][0].tobytes())
    return digest.hexdigest()


def _read_cache(folder, needs, count):
    """(the `Summary` of the cached values, the `Needs` that are not cached)."""
    gaussians = {layer: _cached(folder / f"{layer}.npz", load_statistics) for layer in needs.layers}
    gaussians = {layer: gaussian for layer, gaussian in gaussians.items() if gaussian}
    features = _cached(folder / "features.npy", functools.partial(_load_features, count)) if needs.features else None
    right = _cached(folder / "right.json", _load_right) or {}
    missing = Needs(
        tuple(layer for layer in needs.layers if layer not in gaussians),
        needs.features and features is None,
        False,
        tuple(resolution for resolution in needs.resolutions if resolution not in right),
    )
    return Summary(count, gaussians, features, right, {}), missing


def _cached(path, load):
    """`load(path)`; None if there is no such file. If it cannot be read, prints a line and returns None."""
    try:
        return load(path) if path.exists() else None
    except (OSError, EOFError, ValueError, TypeError, AttributeError, UserError) as error:
        reason = str(error).removeprefix(f"--reference {path}: ")
        print(f"{path} is ignored and computed again: {reason}", file=sys.stderr)


def _load_features(count, path):
    features = np.load(path, mmap_mode="r", allow_pickle=False)
    if features.ndim != 2 or len(features) != count or features.dtype != np.float32:
        raise ValueError(f"it is {features.dtype} {list(features.shape)}")
    return features


def _load_right(path):
    return {int(resolution): int(count) for resolution, count in json.loads(path.read_text()).items()}


def _write_cache(folder, known):
    """Write `known` to `folder` of the cache. If that fails, prints a line, and this run still gets its figures."""
    try:
        for layer, gaussian in known.gaussians.items():
            save_statistics(folder / f"{layer}.npz", gaussian)
        if known.features is not None:
            with atomic_path(folder / "features.npy") as temporary:
                np.save(temporary, known.features)
        if known.right:
            with atomic_path(folder / "right.json") as temporary:
                temporary.write_text(json.dumps(known.right))
        remove_process_files(folder)
    except OSError as error:
        print(f"statistics of real images are not cached: {folder}: {error.strerror}", file=sys.stderr)
