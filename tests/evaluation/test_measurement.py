"""One pass over images: interruptions do not change its result, and its memory does not grow with their number."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import LIMIT

import randomness
from evaluation import measurement
from evaluation.measurement import CHUNK, Gathered, Needs, measure, remove_process_files, unfinished_keys
from evaluation.reference import summary
from metrics.fid import fid
from metrics.inception_score import inception_score
from runtime import StopRequest

ROOT = Path(__file__).parents[2]
COUNT, WIDTH, CLASSES = 5 * CHUNK + 77, 16, 10
NEEDS = Needs(("a", "b"), features=True, score=True, resolutions=(4, 8))


class Projection:
    """An extractor: random projections of the pixels and of their squares. The seed fixes them."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.a, self.b, self.classes = (rng.standard_normal((64, width)) / 64 for width in (WIDTH, 2 * WIDTH, CLASSES))
        self.batches = []

    def read(self, images, labels, needs):
        self.batches.append(len(images))
        flat = images.reshape(len(images), -1).astype(np.float64) / 16
        found = {"a": (flat @ self.a).astype(np.float32), "b": (flat**2 @ self.b).astype(np.float32)}
        found["features"] = found["a"]
        found["score"] = (flat @ self.classes).astype(np.float32)
        for resolution in needs.resolutions:
            found["right", resolution] = found["score"].argmax(1) == (labels + resolution) % CLASSES
        return found


class Source:
    """Images that depend on their index alone. A signal comes while the source draws its chunk number `stop_at`."""

    size = 8

    def __init__(self, count=COUNT, stop=None, stop_at=None):
        self.labels = np.arange(count) % CLASSES
        self.stop, self.stop_at, self.asked = stop, stop_at, []

    def __len__(self):
        return len(self.labels)

    def images(self, indices):
        if len(self.asked) == self.stop_at:
            self.stop.asked = 2
        self.asked.append(indices[0] // CHUNK)
        noise = [np.random.default_rng(index).integers(0, 256, (1, 8, 8), np.uint8) for index in indices]
        return np.stack(noise) >> (self.labels[indices] % 3)[:, None, None, None]


class Writer:
    def __init__(self):
        self.written = []

    def write(self, indices, images):
        assert len(images) == len(indices)
        self.written += indices.tolist()


def one_pass(source=None, stop=None, needs=NEEDS, **options):
    return measure(source or Source(), Projection(), needs, 7, "samples", stop or StopRequest(), **options)


@pytest.fixture(scope="module")
def whole():
    return one_pass()


def assert_same(found, expected):
    """Check two passes: counts and features are equal, sums are equal to rounding."""
    assert found.done.all() and found.right == expected.right
    assert (found.features == expected.features).all()
    one, other = summary(found, COUNT), summary(expected, COUNT)
    reference = summary(one_pass(Source(COUNT - 1)), COUNT - 1)
    for layer in NEEDS.layers:
        distances = [fid(each.gaussians[layer], reference.gaussians[layer])["fid"] for each in (one, other)]
        assert distances[0] == pytest.approx(distances[1], rel=1e-12)
    assert list(one.score.values()) == pytest.approx(list(other.score.values()), rel=1e-12)


def test_a_source_can_be_asked_for_several_chunks_at_once(whole):
    """The extractor and the writers get the same chunks in the same order."""
    source, writer, sizes = Source(), Writer(), []
    source.chunks_at_once, images = 4, source.images
    source.images = lambda indices: sizes.append(len(indices)) or images(indices)
    assert_same(one_pass(source, writers=[writer]), whole)
    assert sizes == [4 * CHUNK, CHUNK + 77] and writer.written == list(range(COUNT))


def test_a_pass_equals_numpy_on_all_images_at_once(whole):
    source, extractor = Source(), Projection()
    images = source.images(np.arange(COUNT))
    found = extractor.read(images, source.labels, NEEDS)
    assert (whole.features == found["features"]).all()
    kept = summary(whole, COUNT)
    for layer in NEEDS.layers:
        features = found[layer].astype(np.float64)
        np.testing.assert_allclose(kept.gaussians[layer].mean, features.mean(0), rtol=1e-12)
        np.testing.assert_allclose(kept.gaussians[layer].covariance, np.cov(features.T), rtol=1e-9, atol=1e-14)
    for resolution in NEEDS.resolutions:
        assert whole.right[resolution] == found["right", resolution].sum()
    shuffled = np.argsort(randomness.rng(7, "splits").permutation(COUNT))  # the samples in the order of the splits
    expected = inception_score(found["score"][shuffled])
    assert list(kept.score.values()) == pytest.approx(list(expected.values()), rel=1e-12)


def test_the_extractor_reads_batches_of_a_fixed_size():
    extractor = Projection()
    measure(Source(), extractor, NEEDS, 7, "samples", StopRequest())
    assert max(extractor.batches) == measurement.READ and sum(extractor.batches) == COUNT


@pytest.mark.parametrize("cuts", [(0,), (4,), (1, 1), (0, 2), (1, 0, 0)])
def test_an_interrupted_pass_goes_on(whole, tmp_path, cuts):
    """`cuts`: the number of chunks that a session has drawn when its signal comes. No chunk is drawn twice or lost, and
    the sums are equal.
    """
    asked, writer = [], Writer()
    for cut in cuts:
        stop = StopRequest()
        source = Source(stop=stop, stop_at=cut)
        assert one_pass(source, stop, writers=[writer], folder=tmp_path, key="k") is None
        assert unfinished_keys(tmp_path) == {"k"}
        asked += source.asked
    source = Source()
    found = one_pass(source, writers=[writer], folder=tmp_path, key="k")
    assert sorted(asked + source.asked) == list(range(6))
    assert sorted(writer.written) == list(range(COUNT))
    assert_same(found, whole)
    again = Source()
    assert_same(one_pass(again, folder=tmp_path, key="k"), whole)
    assert again.asked == []
    remove_process_files(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_after_a_signal_before_the_start_nothing_is_drawn(tmp_path):
    stop = StopRequest()
    stop.signal = 15
    source = Source()
    assert one_pass(source, stop) is None and source.asked == []


def test_a_signal_during_the_last_chunk_lets_the_pass_finish(whole):
    stop = StopRequest()
    assert_same(one_pass(Source(stop=stop, stop_at=5), stop), whole)


def write_file(folder, chunks, rank, key="k", needs=NEEDS):
    """Write the file of process `rank`, with `chunks` done."""
    gathered, source, extractor = Gathered(COUNT, needs), Source(), Projection()
    order = randomness.rng(7, "splits").permutation(COUNT)
    for chunk in chunks:
        indices = np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, COUNT))
        found = extractor.read(source.images(indices), source.labels[indices], needs)
        gathered.update(chunk, measurement.split_of(order[indices], COUNT, measurement.SPLITS), found)
    np.savez(folder / f"process-{rank}.npz", key=np.array(key), seconds=np.array(100.0 + rank), **gathered.state())
    return folder / f"process-{rank}.npz"


def test_the_files_of_several_processes_are_joined(whole, tmp_path, capsys):
    for rank, chunks in enumerate(([0, 3], [1, 4], [5])):
        write_file(tmp_path, chunks, rank)
    source = Source()
    assert_same(one_pass(source, folder=tmp_path, key="k"), whole)
    assert source.asked == [2]
    assert "resuming: 83% is done" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["process-0.npz"]


def test_seconds_of_earlier_sessions_are_added(tmp_path):
    """Processes work at the same time, so the longest counts. A killed session counts up to the file that it saved."""
    for rank, chunks in enumerate(([0, 3], [1, 4])):
        write_file(tmp_path, chunks, rank)  # after 100 and 101 seconds
    stop = StopRequest()
    assert one_pass(Source(stop=stop, stop_at=0), stop, folder=tmp_path, key="k") is None
    with np.load(tmp_path / "process-0.npz") as held:
        seconds = held["seconds"]
    assert 101 < seconds < 111
    assert one_pass(folder=tmp_path, key="k").earlier == seconds
    assert one_pass().earlier == 0


def test_a_refused_merge_changes_nothing():
    """The first of two statistics fits, the second does not."""
    gathered, other = Gathered(COUNT, NEEDS), Gathered(COUNT, NEEDS)
    source, rng = Source(), np.random.default_rng(0)
    for chunk, sums, width in ((0, gathered, WIDTH), (1, other, WIDTH + 1)):
        found = Projection().read(source.images(np.arange(CHUNK)), source.labels[:CHUNK], NEEDS)
        sums.update(chunk, np.zeros(CHUNK, int), found | {"b": rng.standard_normal((CHUNK, width))})
    before = {name: array.copy() for name, array in gathered.state().items()}
    with pytest.raises(measurement.UserError, match="cannot be merged"):
        gathered.merge(other)
    after = gathered.state()
    assert after.keys() == before.keys() and all((after[name] == array).all() for name, array in before.items())


def flip_bit(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def replace_arrays(path, **arrays):
    with np.load(path) as held:
        np.savez(path, **{**held, **arrays})


def remove_array(path, name):
    with np.load(path) as held:
        np.savez(path, **{key: array for key, array in held.items() if key != name})


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_bytes(b""), True),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), True),
        (lambda path: flip_bit(path, 5000), True),
        (lambda path: write_file(path.parent, [1, 4], 1, key="another"), False),
        (lambda path: write_file(path.parent, [3, 4], 1), True),  # process 0 has chunk 3 too
        (lambda path: replace_arrays(path, done=np.array([True])), True),
        (lambda path: replace_arrays(path, done=np.zeros(6)), True),
        (lambda path: remove_array(path, "statistics/b/mean"), True),
        (lambda path: remove_array(path, "rows/4"), True),
        (lambda path: remove_array(path, "right/8"), True),
        (lambda path: remove_array(path, "key"), True),
        (lambda path: np.save(path.open("wb"), np.zeros(3)), True),
    ],
    ids=["empty", "cut", "flipped", "another key", "overlap", "other images", "other done", "no mean", "no rows",
         "no count", "no key", "npy"],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_ignored(whole, tmp_path, capsys, spoil, says):
    """A damaged file is reported. Nothing of an ignored file is left in the sums."""
    write_file(tmp_path, [0, 3], 0)
    spoil(write_file(tmp_path, [1, 4], 1))
    source = Source()
    assert_same(one_pass(source, folder=tmp_path, key="k"), whole)
    assert source.asked == [1, 2, 4, 5]
    err = [line for line in capsys.readouterr().err.splitlines() if "ignored" in line]
    assert len(err) == says and all("process-1.npz" in line for line in err)


def test_a_pass_without_metrics_writes_all_samples(tmp_path):
    writer = Writer()
    gathered = measure(Source(), None, Needs(), 0, "samples", StopRequest(), [writer])
    assert writer.written == list(range(COUNT)) and gathered.done.all()


def test_a_pass_without_metrics_and_writers_draws_nothing():
    source = Source()
    assert measure(source, None, Needs(), 0, "samples", StopRequest()).done.all() and source.asked == []


def test_a_nan_feature_is_refused_in_one_sentence():
    extractor = SimpleNamespace(read=lambda images, labels, needs: {"a": np.full((len(images), 3), np.nan)})
    with pytest.raises(measurement.UserError, match="the features hold a NaN"):
        measure(Source(), extractor, Needs(("a",)), 0, "samples", StopRequest())


def test_memory_does_not_grow_with_the_number_of_images():
    """5,000 and 50,000 images, all statistics, no features. The limit is 8 MiB more; an image takes 64 bytes, and a KiB
    as float64 with its squares.
    """
    program = """
import resource, sys
import numpy as np
sys.path[:0] = ["tests", "tests/evaluation"]
from test_measurement import NEEDS, Projection
from evaluation.measurement import measure
from runtime import StopRequest
class Source:
    size = 8
    def __init__(self, count):
        self.labels = np.zeros(count, np.int64)
    def __len__(self):
        return len(self.labels)
    def images(self, indices):
        return np.random.default_rng(indices[0]).integers(0, 256, (len(indices), 1, 8, 8), np.uint8)
for count in (5000, 5000, 50_000):
    measure(Source(count), Projection(), NEEDS._replace(features=False), 0, "", StopRequest())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    _, few, many = map(int, done.stdout.split())
    assert many - few < 8 * 1024  # KiB; features of 45,000 images would take 2.8 MiB for each layer of 16 columns
