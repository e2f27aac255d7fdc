"""One pass over a set of images through a feature extractor: shared out over processes, resumable, in flat memory."""

import contextlib
import sys
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import runtime
from metrics.fid import FeatureStatistics
from metrics.inception_score import ScoreSums, part_of
from utils import UserError, atomic_path

CHUNK = 256  # images: what processes share out, and what an interrupted pass has done or not
READ = 64  # images at once through the extractor, whatever the batch they were drawn in: so their features are the same
SPLITS = 10  # of the Inception Score, as published
SAVE_EVERY = 60  # seconds


class Needs(NamedTuple):
    """What the metrics need of a pass."""

    taps: tuple = ()  # the extractor's outputs whose mean and covariance are kept
    features: bool = False  # whether the features themselves are
    score: bool = False  # the sums of the Inception Score
    resolutions: tuple = ()  # at which it is counted how many images are read as their class


class Seen:
    """What a pass over `count` images keeps: plain sums and rows that any number of processes can join."""

    def __init__(self, count, needs):
        self.needs = needs
        self.done = np.zeros(-(-count // CHUNK), dtype=bool)
        self.statistics = {}  # by tap
        self.score = None
        self.rows = {}  # by chunk: features float32 [n, width]
        self.right = {}  # by resolution: how many were read as their class

    def update(self, chunk, parts, found):
        """Add a chunk: `found` is what an extractor's `read` gave, `parts` the part of the score each image is in."""
        for tap in self.needs.taps:
            features = found[tap]
            self.statistics.setdefault(tap, FeatureStatistics(features.shape[1])).update(features)
        if self.needs.score:
            self.score = self.score or ScoreSums(found["score"].shape[1], SPLITS)
            self.score.update(found["score"], parts)
        if self.needs.features:
            self.rows[chunk] = found["features"]
        for resolution in self.needs.resolutions:
            self.right[resolution] = self.right.get(resolution, 0) + int(found["right", resolution].sum())
        self.done[chunk] = True

    @property
    def features(self):
        """The features of all images in order, float32 [N, width]."""
        return np.concatenate([self.rows[chunk] for chunk in sorted(self.rows)])

    def state(self):
        """All of it as NumPy arrays by name; `merge` is the way back."""
        state = {"done": self.done}
        for tap, statistics in self.statistics.items():
            state |= {f"statistics/{tap}/{name}": array for name, array in statistics.state().items()}
        if self.score:
            state |= {f"score/{name}": array for name, array in self.score.state().items()}
        state |= {f"rows/{chunk}": rows for chunk, rows in self.rows.items()}
        return state | {f"right/{resolution}": np.array(count) for resolution, count in self.right.items()}

    def merge(self, state):
        """Add what another pass over other chunks of the same images has seen, by its `state()`."""
        if state["done"].shape != self.done.shape or (state["done"] & self.done).any():
            raise UserError("these parts of a pass are not of one pass")
        self.done |= state["done"]
        for tap in self.needs.taps:
            if f"statistics/{tap}/count" in state:
                other = FeatureStatistics.from_state(_under(state, f"statistics/{tap}/"))
                self.statistics.setdefault(tap, FeatureStatistics(len(other.mean))).merge(other)
        if "score/counts" in state:
            other = ScoreSums.from_state(_under(state, "score/"))
            self.score = self.score or ScoreSums(*other.probabilities.shape[::-1])
            self.score.merge(other)
        self.rows |= {int(chunk): rows for chunk, rows in _under(state, "rows/").items()}
        for resolution, count in _under(state, "right/").items():
            self.right[int(resolution)] = self.right.get(int(resolution), 0) + int(count)


def _under(state, prefix):
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def measure(source, extractor, needs, seed, title, stop, writers=(), parts_folder=None, key=None):
    """What `needs` says of the images of `source`, as a whole `Seen` on every process; None when `stop` was asked.

    `extractor` may be None where nothing is needed. `writers` get every chunk: `write(indices, images)`. With
    `parts_folder`, what is done is kept there under `key`, so that the same call goes on where one was interrupted;
    `finish` removes it.
    """
    seen, count = Seen(len(source), needs), len(source)
    done = seen.done.copy()
    if parts_folder:
        done = runtime.from_first(_take_over, seen, Path(parts_folder), key)
        _save_part(seen, parts_folder, key)
    order = runtime.generator(seed, "splits").permutation(count) if needs.score else None
    todo = np.flatnonzero(~done)[runtime.rank() :: runtime.world_size()]
    saved = time.monotonic()
    before = min(int(done.sum()) * CHUNK, count)
    with tqdm(total=count, initial=before, desc=title, unit="img", leave=False, disable=runtime.rank() > 0) as bar:
        for chunk in todo:
            if stop.signal:
                break
            indices = np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, count))
            images = source.images(indices)
            for writer in writers:
                writer.write(indices, images)
            found = _read(extractor, images, source.labels, indices, needs) if extractor else {}
            seen.update(chunk, part_of(order[indices], count, SPLITS) if needs.score else None, found)
            bar.update(min(len(images) * runtime.world_size(), count - bar.n))  # the others are as far
            if parts_folder and time.monotonic() - saved > SAVE_EVERY:
                _save_part(seen, parts_folder, key)
                saved = time.monotonic()
    if parts_folder:
        _save_part(seen, parts_folder, key)
        if stop.signal:
            raise SystemExit(128 + stop.signal)
    whole = Seen(count, needs)
    for state in runtime.gather(seen.state()):
        whole.merge(state)
    return whole if whole.done.all() else None


def _read(extractor, images, labels, indices, needs):
    parts = []
    for start in range(0, len(images), READ):
        rows = slice(start, start + READ)
        parts.append(extractor.read(images[rows], None if labels is None else labels[indices[rows]], needs))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def finish(folder):
    """Remove what `measure` keeps in `folder` of an unfinished pass."""
    for path in _parts(folder):
        path.unlink()


def _save_part(seen, folder, key):
    with atomic_path(Path(folder) / f"part-{runtime.rank()}.npz") as temporary:
        np.savez(temporary, key=np.array(key), **seen.state())


def _take_over(seen, folder, key):
    """Join into `seen`, and into its file, what an interrupted pass left in `folder`; returns which chunks are done."""
    paths = _parts(folder)
    for path in paths:
        try:
            if (state := _load_part(path)).pop("key", None) == key:
                seen.merge(state)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, UserError) as error:
            print(f"{path} is passed over: {error}", file=sys.stderr)
    _save_part(seen, folder, key)
    for path in paths:
        if path.name != "part-0.npz":
            path.unlink()
    if seen.done.any():
        print(f"goes on where it was: {seen.done.mean():.0%} is done", flush=True)
    return seen.done.copy()


def goes_on(folder, key):
    """Whether `folder` holds what `measure` keeps of an unfinished pass under `key`."""
    for path in _parts(folder):
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            if _load_part(path, ("key",))["key"] == key:
                return True
    return False


def _parts(folder):
    return sorted(Path(folder).glob("part-*.npz"))


def _load_part(path, names=None):
    """The arrays in a part's file, all read before any is used, with its key as text."""
    with np.load(path, allow_pickle=False) as arrays:
        state = {name: arrays[name] for name in names or arrays.files}
    return state | {"key": str(state["key"])}
