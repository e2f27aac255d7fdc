"""Classification accuracy score, on digits and on colours, and what lowers each of its figures."""

import contextlib
import errno
import tempfile

import numpy as np
import pytest

from dataset import load_dataset
from evaluation.sources import RealImages
from metrics import cas, classifier
from metrics.cas import classification_scores
from utils import UserError


class Images:
    """Images as `evaluation.sources` describes them. `read` counts those that were asked for."""

    def __init__(self, images, labels):
        self._images, self.labels, self.read = images, np.asarray(labels), 0

    def images(self, indices):
        self.read += len(indices)
        return self._images[indices]


@contextlib.contextmanager
def progress(title, unit):
    yield lambda done, total: None


@pytest.fixture
def digits(make_parameters, monkeypatch):
    """Training images and test images of digits; fewer updates, to save time."""
    monkeypatch.setattr(classifier, "UPDATES", 100)
    p = make_parameters(dataset="digits", num_classes=10)
    return [RealImages(load_dataset(p, split)) for split in ("train", "test")]


def scores(samples, training, test, classes=10):
    return classification_scores(samples, training, test, classes, 29, progress)


@pytest.mark.slow
def test_real_images_as_samples_score_as_real_images(digits):
    """Samples are drawn once, although the classifier reads many of them several times."""
    training, test = digits
    samples = Images(training.image_set.stacked(), training.labels)
    found = scores(samples, training, test)
    assert found["cas"] == found["cas_real"] > 0.95 and found["cas_reverse"] > 0.95
    assert samples.read == len(samples.labels)


@pytest.mark.slow
def test_wrong_classes_lower_both_scores_and_lack_of_variety_only_cas(digits):
    training, test = digits
    images = training.image_set.stacked()
    wrong = scores(Images(images, (training.labels + 1) % 10), training, test)
    assert wrong["cas"] < 0.1 and wrong["cas_reverse"] < 0.1 and wrong["cas_real"] > 0.95
    firsts = np.array([np.flatnonzero(training.labels == digit)[0] for digit in range(10)])
    alike = scores(Images(np.repeat(images[firsts], 20, 0), np.repeat(np.arange(10), 20)), training, test)
    assert alike["cas"] < 0.8 < 0.95 < alike["cas_reverse"]


def test_images_in_colour_are_read_by_a_resnet(monkeypatch):
    """The class is the colour. The same images and seed give the same classifier."""
    monkeypatch.setattr(cas, "UPDATES", 10)
    monkeypatch.setattr(cas, "BATCH", 8)
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    images = (np.eye(3)[labels] * 200)[:, :, None, None] + rng.integers(0, 40, (24, 3, 16, 16))
    sets = [Images(images.astype(np.uint8), labels) for _ in range(3)]
    found = scores(*sets, classes=3)
    assert found["cas"] == found["cas_reverse"] == found["cas_real"] > 0.6


def test_gray_images_of_an_unfit_size_are_refused():
    images = Images(np.zeros((4, 1, 10, 10), np.uint8), [0, 1, 0, 1])
    with pytest.raises(UserError, match="--metrics cas needs images of a multiple of 4 pixels"):
        scores(images, images, images, 2)


def test_a_full_disk_is_named(monkeypatch):
    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    images = Images(np.zeros((4, 1, 8, 8), np.uint8), [0, 1, 0, 1])
    with pytest.raises(UserError, match=r"--metrics cas needs room for all samples in .*: No space left on device"):
        scores(images, images, images, 2)


def test_samples_that_cannot_be_read_are_no_full_disk():
    class Gone(Images):
        def images(self, indices):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", "samples/0000/1.png")

    images = Gone(np.zeros((4, 1, 8, 8), np.uint8), [0, 1, 0, 1])
    with pytest.raises(FileNotFoundError, match=r"samples/0000/1\.png"):
        scores(images, images, images, 2)
