"""One pass over a set of images through a feature extractor: shared out over processes, resumable, in flat memory."""

import contextlib
import copy
import sys
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

import runtime
from metrics.fid import FeatureStatistics
from metrics.inception_score import ScoreSums, part_of
from utils import UserError, atomic_path, progress

CHUNK = 256  # images: what processes share out, and what an interrupted pass has done or not
READ = 64  # images at once through the extractor, whatever the batch they were drawn in: so their features are the same
SPLITS = 10  # of the Inception Score, as published
SAVE_EVERY = 60  # seconds
# What reading a part that is none may raise.
DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, UserError)


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
        self.earlier = 0.0  # seconds that interrupted sessions took for what they have done of it

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
        """All of it as NumPy arrays by name; `from_state` is the way back."""
        state = {"done": self.done}
        for tap, statistics in self.statistics.items():
            state |= {f"statistics/{tap}/{name}": array for name, array in statistics.state().items()}
        if self.score:
            state |= {f"score/{name}": array for name, array in self.score.state().items()}
        state |= {f"rows/{chunk}": rows for chunk, rows in self.rows.items()}
        return state | {f"right/{resolution}": np.array(count) for resolution, count in self.right.items()}

    @classmethod
    def from_state(cls, count, needs, state):
        """What `state()` gave of a pass over `count` images; raises one of DAMAGED for other arrays."""
        seen = cls(count, needs)
        if state["done"].shape != seen.done.shape or state["done"].dtype != bool:
            raise UserError(f"it is of a pass over other images: {state['done'].shape} chunks")
        seen.done = state["done"]
        if seen.done.any():
            for tap in needs.taps:
                seen.statistics[tap] = FeatureStatistics.from_state(_under(state, f"statistics/{tap}/"))
            seen.score = ScoreSums.from_state(_under(state, "score/")) if needs.score else None
            seen.rows = {chunk: state[f"rows/{chunk}"] for chunk in np.flatnonzero(seen.done) if needs.features}
            seen.right = {resolution: int(state[f"right/{resolution}"]) for resolution in needs.resolutions}
        return seen

    def merge(self, other):
        """Add what another pass has seen of the same images, in other chunks of them.

        Raises UserError, and changes nothing, for the same chunks and for parts that do not fit.
        """
        if (self.done & other.done).any():
            raise UserError("it has chunks that another part has too")
        statistics, score = copy.deepcopy((self.statistics, self.score))
        for tap, more in other.statistics.items():
            statistics.setdefault(tap, FeatureStatistics(len(more.mean))).merge(more)
        if other.score:
            score = score or ScoreSums(*other.score.probabilities.shape[::-1])
            score.merge(other.score)
        self.statistics, self.score, self.done = statistics, score, self.done | other.done
        self.rows |= other.rows
        for resolution, count in other.right.items():
            self.right[resolution] = self.right.get(resolution, 0) + count


def _under(state, prefix):
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def measure(source, extractor, needs, seed, title, stop, writers=(), parts_folder=None, key=None):
    """What `needs` says of the images of `source`, as a whole `Seen` on every process; None when `stop` was asked.

    `extractor` may be None where nothing is needed. `writers` get every chunk: `write(indices, images)`. With
    `parts_folder`, what is done is kept there under `key`, so that the same call goes on where one was interrupted;
    `finish` removes it. Where nobody wants the images, none is made.
    """
    seen, count, start = Seen(len(source), needs), len(source), time.monotonic()
    if not any(needs) and not writers:
        seen.done[:] = True
        return seen
    done, earlier = seen.done.copy(), 0.0
    if parts_folder:
        done, earlier = runtime.from_first(_take_over, seen, count, Path(parts_folder), key)
        _save_part(seen, parts_folder, key, earlier)
    order = runtime.generator(seed, "splits").permutation(count) if needs.score else None
    todo, world_size = np.flatnonzero(~done), runtime.world_size()
    mine, rounds = todo[runtime.rank() :: world_size], -(-len(todo) // world_size)
    saved, stopped = start, False
    before = min(int(done.sum()) * CHUNK, count)
    with progress(total=count, done=before, title=title, unit="img", shown=runtime.rank() == 0) as bar:
        for number in range(rounds):
            stopped = stop.requested()  # on all processes or on none
            if stopped or number == len(mine):
                break
            chunk = mine[number]
            indices = np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, count))
            images = source.images(indices)
            for writer in writers:
                writer.write(indices, images)
            found = _read(extractor, images, source.labels, indices, needs) if extractor else {}
            seen.update(chunk, part_of(order[indices], count, SPLITS) if needs.score else None, found)
            bar.update(min(len(images) * world_size, count - bar.n))  # the others are as far
            if parts_folder and time.monotonic() - saved > SAVE_EVERY:
                saved = time.monotonic()
                _save_part(seen, parts_folder, key, earlier + saved - start)
    if parts_folder:
        _save_part(seen, parts_folder, key, earlier + time.monotonic() - start)
    if stopped:
        runtime.meet()  # who ends first may have a launcher end the others
        return None
    whole = Seen(count, needs)
    for state in runtime.gather(seen.state()):
        whole.merge(Seen.from_state(count, needs, state))
    whole.earlier = earlier
    return whole


def _read(extractor, images, labels, indices, needs):
    parts = []
    for start in range(0, len(images), READ):
        rows = slice(start, start + READ)
        parts.append(extractor.read(images[rows], None if labels is None else labels[indices[rows]], needs))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def finish(folder):
    """Remove what `measure` keeps in `folder` of an unfinished pass."""
    for path in _parts(folder):
        path.unlink(missing_ok=True)


def _save_part(seen, folder, key, seconds):
    """Keep in `folder` what this process has seen, for which the pass took `seconds` so far."""
    with atomic_path(Path(folder) / f"part-{runtime.rank()}.npz") as temporary:
        np.savez(temporary, key=np.array(key), seconds=np.array(seconds), **seen.state())


def _take_over(seen, count, folder, key):
    """Join into `seen`, and into its file, what an interrupted pass left in `folder`.

    Returns which chunks are done and how many seconds that took.
    """
    paths, earlier = _parts(folder), 0.0
    for path in paths:
        try:
            if (state := _load_part(path)).pop("key") == key:
                seconds = float(state.pop("seconds"))
                seen.merge(Seen.from_state(count, seen.needs, state))
                earlier = max(earlier, seconds)  # processes worked at the same time
        except DAMAGED as error:
            print(f"{path} is passed over: {error}", file=sys.stderr)
    _save_part(seen, folder, key, earlier)
    for path in paths:
        if path.name != "part-0.npz":
            path.unlink(missing_ok=True)
    if seen.done.any():
        print(f"goes on where it was: {seen.done.mean():.0%} is done", flush=True)
    return seen.done.copy(), earlier


def keys(folder):
    """The keys under which `folder` holds what `measure` keeps of unfinished passes."""
    found = set()
    for path in _parts(folder):
        with contextlib.suppress(*DAMAGED):
            found.add(_load_part(path, ("key",))["key"])
    return found


def _parts(folder):
    return sorted(Path(folder).glob("part-*.npz"))


def _load_part(path, names=None):
    """The arrays in a part's file, all read before any is used, with its key as text."""
    with np.load(path, allow_pickle=False) as arrays:
        state = {name: arrays[name] for name in names or arrays.files}
    return state | {"key": str(state["key"])}
