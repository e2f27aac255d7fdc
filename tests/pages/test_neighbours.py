"""The nearest real images in feature space."""

import numpy as np
import pytest

from dataset import load_dataset
from metrics import classifier
from pages import neighbours
from utils import UserError


def test_nearest_equals_all_differences():
    rng = np.random.default_rng(0)
    features, others = rng.normal(size=(5, 7)).astype("float32"), rng.normal(size=(40, 7)).astype("float32")
    distances = np.linalg.norm(features[:, None] - others, axis=2)
    places, found = neighbours.nearest(features, others, 3)
    assert (places == distances.argsort(axis=1)[:, :3]).all()
    assert np.abs(found - np.sort(distances, axis=1)[:, :3]).max() < 1e-6


def test_a_learnt_image_is_found(make_parameters, monkeypatch):
    monkeypatch.setattr(classifier, "UPDATES", 3)
    p = make_parameters("acgan-digits", dataset="digits", num_classes=10)
    train_set, test_set = load_dataset(p), load_dataset(p, "test")
    samples = np.stack([train_set[place][0] for place in (5, 300)])
    drawn = []

    def draw(labels):  # a generator that copies training images
        drawn.append(labels)
        return np.stack([train_set[place][0] for place in range(len(labels))])

    found = neighbours.find_neighbours(p, samples, train_set.labels[[5, 300]], draw, train_set, test_set)
    assert (found.places[:, 0] == (5, 300)).all() and found.distances[:, 0].max() < 1e-2
    assert found.places.shape == (2, neighbours.SHOWN) and (np.diff(found.distances, axis=1) >= 0).all()
    assert (found.searched, found.total) == (1437, 1437)
    (labels,) = drawn
    assert len(labels) == 200 and found.medians[0] < 1e-2 < found.medians[1]


def test_of_a_large_set_only_the_classes_shown_are_searched(make_parameters):
    train_set = load_dataset(make_parameters("acgan-digits", dataset="digits", num_classes=10))
    places = neighbours._searched(train_set, [3, 7], 100)
    assert len(places) == 100 and set(train_set.labels[places]) == {3, 7} and (np.diff(places) > 0).all()


def test_without_inception_it_says_so(make_parameters, tmp_path):
    p = make_parameters("acgan-digits", inception_weights=str(tmp_path / "none.pth"))
    with pytest.raises(UserError, match=r"none\.pth"):
        neighbours.find_neighbours(p, np.zeros((1, 3, 16, 16), np.uint8), [0], None, load_dataset(p), None)
