"""The real images nearest to samples in feature space, to see whether a generator has learnt images by heart."""

from typing import NamedTuple

import numpy as np

from evaluation.extractors import ClassifierExtractor, InceptionExtractor
from evaluation.measurement import READ, Needs
from utils import progress

SHOWN = 4  # nearest images of each sample
FEATURES = Needs(features=True)
# The most images that each network reads. Inception is slow on a CPU.
SEARCHED = {ClassifierExtractor: 20_000, InceptionExtractor: 1000}
COMPARED = {ClassifierExtractor: 200, InceptionExtractor: 50}


class Neighbours(NamedTuple):
    """The nearest of `searched` training images, out of `total`.

    `places`: int [samples, SHOWN], their places in the training set, nearest first. `distances`: float, the same shape.
    `medians`: (that of samples, that of real test images) of the distance to the nearest; None without test images.
    """

    searched: int
    total: int
    places: np.ndarray
    distances: np.ndarray
    medians: tuple | None


def nearest(features, others, count):
    """(int [N, count], float [N, count]): the rows of `others` nearest to each row of `features`, and the distances."""
    features, others = features.astype(np.float64), others.astype(np.float64)
    squares = (features**2).sum(1)[:, None] + (others**2).sum(1) - 2 * features @ others.T
    order = np.argsort(squares, axis=1, kind="stable")[:, :count]
    return order, np.sqrt(np.maximum(np.take_along_axis(squares, order, 1), 0))


def find_neighbours(parameters, samples, labels, draw, train_set, test_set):
    """The `Neighbours` of `samples`, uint8 [N, C, S, S], of classes `labels`.

    The evaluation's classifier or Inception reads the images. If there are too many training images, only some images
    of the classes `labels` are searched. `draw(labels)` draws other samples. `test_set` may be None. Raises UserError
    if the network's weights are missing.
    """
    classified = parameters.by_classifier
    kind = ClassifierExtractor if classified else InceptionExtractor
    extractor = kind(parameters, train_set) if classified else kind(parameters, FEATURES, ())

    def features_of(images, title):
        groups = [images[start : start + READ] for start in range(0, len(images), READ)]
        read = (extractor.read(group, None, FEATURES) for group in progress(groups, title=title, unit="batch"))
        return np.concatenate([found["features"] for found in read])

    places = _searched(train_set, labels, SEARCHED[kind])
    real = features_of(_images(train_set, places), "training images")
    found, distances = nearest(features_of(samples, "samples"), real, SHOWN)
    medians = None
    if test_set:
        chosen = _evenly(np.arange(len(test_set)), COMPARED[kind])
        tested = features_of(_images(test_set, chosen), "test images")
        drawn = features_of(draw(test_set.labels[chosen]), "samples to compare")
        medians = tuple(float(np.median(nearest(read, real, 1)[1])) for read in (drawn, tested))
    return Neighbours(len(places), len(train_set), places[found], distances, medians)


def _searched(train_set, labels, most):
    """The places of all images if they are at most `most`, else of `most` images of the classes `labels`, evenly."""
    if len(train_set) <= most:
        return np.arange(len(train_set))
    return _evenly(np.flatnonzero(np.isin(train_set.labels, labels)), most)


def _evenly(places, most):
    """At most `most` of `places`, evenly spaced."""
    return places[np.linspace(0, len(places) - 1, min(most, len(places))).astype(int)]


def _images(image_set, places):
    return np.stack([image_set[int(place)][0] for place in places])
