"""One pass over a set of images through a feature extractor.

Processes share the work. An interrupted pass resumes. Memory does not grow with the number of images, unless a metric
needs the features of every image.
"""

import contextlib
import copy
import sys
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

import randomness
from metrics.fid import FeatureStatistics
from metrics.inception_score import SPLITS, ScoreSums, split_of
from processes import collectives
from utils import UserError, atomic_path, progress

CHUNK = 256  # images; processes share out whole chunks, and an interrupted pass keeps whole chunks
READ = 64  # images that the extractor reads at once; fixed, because features depend slightly on the batch size
SAVE_EVERY = 60  # seconds
# Reading a damaged file of a process raises one of these errors.
DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, UserError)


class Needs(NamedTuple):
    """The values that a pass has to gather."""

    layers: tuple = ()  # keep the mean and covariance of these layers
    features: bool = False  # keep the features of the last layer
    score: bool = False  # keep the sums of the Inception Score
    resolutions: tuple = ()  # count, at each, the images that are read as their class


class Gathered:
    """The values gathered so far in a pass over `count` images. Those of several processes can be merged."""

    def __init__(self, count, needs):
        self.needs = needs
        self.done = np.zeros(-(-count // CHUNK), dtype=bool)  # by chunk: whether it is gathered
        self.statistics = {}  # by layer
        self.score = None
        self.rows = {}  # by chunk: features float32 [n, width]
        self.right = {}  # by resolution: the number of images that are read as their class
        self.earlier = 0.0  # seconds that interrupted sessions took

    def update(self, chunk, split, found):
        """Add a chunk.

        `found`: the result of an extractor's `read`. `split`: the split of each image in the Inception Score.
        """
        for layer in self.needs.layers:
            features = found[layer]
            self.statistics.setdefault(layer, FeatureStatistics(features.shape[1])).update(features)
        if self.needs.score:
            self.score = self.score or ScoreSums(found["score"].shape[1], SPLITS)
            self.score.update(found["score"], split)
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
        """All values as NumPy arrays by name. `from_state` reads them back."""
        state = {"done": self.done}
        for layer, statistics in self.statistics.items():
            state |= {f"statistics/{layer}/{name}": array for name, array in statistics.state().items()}
        if self.score:
            state |= {f"score/{name}": array for name, array in self.score.state().items()}
        state |= {f"rows/{chunk}": rows for chunk, rows in self.rows.items()}
        return state | {f"right/{resolution}": np.array(count) for resolution, count in self.right.items()}

    @classmethod
    def from_state(cls, count, needs, state):
        """The `Gathered` of a pass over `count` images from its `state()`. Raises one of DAMAGED for other arrays."""
        gathered = cls(count, needs)
        if state["done"].shape != gathered.done.shape or state["done"].dtype != bool:
            raise UserError(f"it belongs to a pass over other images: its chunks are {state['done'].shape}")
        gathered.done = state["done"]
        if gathered.done.any():
            for layer in needs.layers:
                gathered.statistics[layer] = FeatureStatistics.from_state(_entries_under(state, f"statistics/{layer}/"))
            gathered.score = ScoreSums.from_state(_entries_under(state, "score/")) if needs.score else None
            gathered.rows = {chunk: state[f"rows/{chunk}"] for chunk in np.flatnonzero(gathered.done) if needs.features}
            gathered.right = {resolution: int(state[f"right/{resolution}"]) for resolution in needs.resolutions}
        return gathered

    def merge(self, other):
        """Add the values of `other`, which has gathered other chunks of the same images.

        Raises UserError, and changes nothing, if both have gathered a chunk or if the values do not fit.
        """
        if (self.done & other.done).any():
            raise UserError("the file of another process holds some of its chunks too")
        statistics, score = copy.deepcopy((self.statistics, self.score))
        for layer, more in other.statistics.items():
            statistics.setdefault(layer, FeatureStatistics(len(more.mean))).merge(more)
        if other.score:
            score = score or ScoreSums(*other.score.probabilities.shape[::-1])
            score.merge(other.score)
        self.statistics, self.score, self.done = statistics, score, self.done | other.done
        self.rows |= other.rows
        for resolution, count in other.right.items():
            self.right[resolution] = self.right.get(resolution, 0) + count


def _entries_under(state, prefix):
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def measure(source, extractor, needs, seed, title, stop, writers=(), folder=None, key=None):
    """Gather `needs` over the images of `source`. Returns a complete `Gathered` on every process.

    After a stop signal it returns None.

    `extractor` may be None if `needs` is empty. `writers` are called with every chunk, by `write(indices, images)`.
    Without needs and writers no image is read.

    With `folder`, each process saves its finished chunks there, in a file of its own with `key`. If the pass is
    interrupted, the same call resumes it. `remove_process_files` removes the files.
    """
    gathered, count, start = Gathered(len(source), needs), len(source), time.monotonic()
    if not any(needs) and not writers:
        gathered.done[:] = True
        return gathered
    # Take over the chunks of an interrupted pass.
    done, earlier = gathered.done.copy(), 0.0
    if folder:
        done, earlier = collectives.on_rank_0(_take_over, gathered, count, Path(folder), key)
        _save(gathered, folder, key, earlier)
    # The samples may be ordered by class. So cut them into the splits of the Inception Score in random order.
    order = randomness.rng(seed, "splits").permutation(count) if needs.score else None
    # Share out the other chunks, one to each process in a round.
    todo, world_size = np.flatnonzero(~done), collectives.world_size()
    mine, rounds = todo[collectives.rank() :: world_size], -(-len(todo) // world_size)
    chunks, saved, stopped = _read_chunks(source, mine), start, False
    before = min(int(done.sum()) * CHUNK, count)
    with progress(total=count, done=before, title=title, unit="img", shown=collectives.rank() == 0) as bar:
        for number in range(rounds):
            stopped = stop.requested()  # the same on all processes
            if stopped or number == len(mine):
                break
            chunk, indices, images = next(chunks)
            for writer in writers:
                writer.write(indices, images)
            found = _read(extractor, images, source.labels, indices, needs) if extractor else {}
            gathered.update(chunk, split_of(order[indices], count, SPLITS) if needs.score else None, found)
            bar.update(min(len(images) * world_size, count - bar.n))  # the other processes do the same number
            if folder and time.monotonic() - saved > SAVE_EVERY:
                saved = time.monotonic()
                _save(gathered, folder, key, earlier + saved - start)
    if folder:
        _save(gathered, folder, key, earlier + time.monotonic() - start)
    if stopped:
        collectives.meet()  # wait for all to save: when one process ends, a launcher may kill the others
        return None
    # Every process merges the chunks of all.
    whole = Gathered(count, needs)
    for state in collectives.gather(gathered.state()):
        whole.merge(Gathered.from_state(count, needs, state))
    whole.earlier = earlier
    return whole


def _read_chunks(source, chunks):
    """Yield (chunk, indices, images) for each of `chunks`. The images of `source.chunks_at_once` are read at once."""
    at_once = getattr(source, "chunks_at_once", 1)
    for start in range(0, len(chunks), at_once):
        group = chunks[start : start + at_once]
        indices = [np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, len(source))) for chunk in group]
        images = source.images(np.concatenate(indices))
        yield from zip(group, indices, np.split(images, np.cumsum(list(map(len, indices)))[:-1]), strict=True)


def _read(extractor, images, labels, indices, needs):
    batches = []
    for start in range(0, len(images), READ):
        rows = slice(start, start + READ)
        batches.append(extractor.read(images[rows], None if labels is None else labels[indices[rows]], needs))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def remove_process_files(folder):
    """Remove the files of a pass that `measure` saved in `folder`."""
    for path in _process_files(folder):
        path.unlink(missing_ok=True)


def _save(gathered, folder, key, seconds):
    """Write the chunks of this process to `folder`, and the `seconds` that the pass has taken so far."""
    with atomic_path(Path(folder) / f"process-{collectives.rank()}.npz") as temporary:
        np.savez(temporary, key=np.array(key), seconds=np.array(seconds), **gathered.state())


def _take_over(gathered, count, folder, key):
    """Merge the files of an interrupted pass in `folder` into `gathered`, and into one file.

    Returns (bool [chunks]: whether each chunk is done, the seconds that they took).
    """
    paths, earlier = _process_files(folder), 0.0
    for path in paths:
        try:
            if (state := _load(path)).pop("key") == key:
                seconds = float(state.pop("seconds"))
                gathered.merge(Gathered.from_state(count, gathered.needs, state))
                earlier = max(earlier, seconds)  # processes worked at the same time
        except DAMAGED as error:
            print(f"{path} is ignored: {error}", file=sys.stderr)
    _save(gathered, folder, key, earlier)
    for path in paths:
        if path.name != "process-0.npz":
            path.unlink(missing_ok=True)
    if gathered.done.any():
        print(f"resuming: {gathered.done.mean():.0%} is done", flush=True)
    return gathered.done.copy(), earlier


def unfinished_keys(folder):
    """The keys of the unfinished passes with files in `folder`."""
    found = set()
    for path in _process_files(folder):
        with contextlib.suppress(*DAMAGED):
            found.add(_load(path, ("key",))["key"])
    return found


def _process_files(folder):
    return sorted(Path(folder).glob("process-*.npz"))


def _load(path, names=None):
    """The arrays in the file of a process, by name; "key" is a text. Reads all of them: a damaged file fails here."""
    with np.load(path, allow_pickle=False) as arrays:
        state = {name: arrays[name] for name in names or arrays.files}
    return state | {"key": str(state["key"])}
