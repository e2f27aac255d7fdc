"""Images by class and seed are the samples of test.py; walks pass through them."""

import numpy as np
import pytest
from drawn import SIZES, opened

import sampler
from drawing.generator import between, places
from utils import UserError


def close(one, other):
    """Whether images differ at most by rounding to grey levels."""
    return np.abs(one.astype(int) - other).max() <= 1


def test_an_image_is_the_sample_of_its_seed(make_parameters):
    p = make_parameters("acgan-digits")
    generator = opened(p)
    assert generator.description == "acgan-digits after 7 steps" and generator.class_names == tuple("abcde")
    samples = sampler.generate(sampler.snapshot(generator.network, p), p, range(40), np.arange(40) % 5)
    assert (generator.draw([3, 2, 3], [38, 7, 13]) == samples[[38, 7, 13]]).all()
    assert (generator.grid([4, 1], [14, 11])[[0, 3]] == samples[[14, 11]]).all()


def test_a_short_training_is_told(make_parameters):
    said = "need about 11 steps to settle, but these weights have 7: images may look grey"
    assert said in opened(make_parameters("acgan-digits")).caution
    assert opened(make_parameters("acgan-digits", standing_batches=1)).caution == ""


def test_without_a_generator_it_is_refused(make_parameters):
    with pytest.raises(UserError, match="file holds no generator"):
        opened(make_parameters("acgan-digits"), D={})


@pytest.mark.parametrize("name", SIZES)
def test_a_walk_between_classes_starts_and_ends_at_the_classes(make_parameters, name):
    p = make_parameters(name.partition(",")[0], **SIZES[name])
    generator = opened(p)
    frames = list(generator.walk_between_classes([1, 4, 0], [8, 2], 5))
    assert len(frames) == 5 and frames[0].shape == (2, p.channels, p.imsize, p.imsize)
    for frame, label in ((0, 1), (2, 4), (4, 0)):
        assert close(frames[frame], generator.draw([label, label], [8, 2]))
    assert not close(frames[1], frames[0]) and not close(frames[1], frames[2])


def test_a_walk_between_seeds_passes_through_the_seeds(make_parameters):
    p = make_parameters("acgan-digits")
    generator = opened(p)
    frames = list(generator.walk_between_seeds([8, 2, 9], [1, 3], 19))
    for frame, seed in ((0, 8), (9, 2), (18, 9)):
        assert close(frames[frame], generator.draw([1, 3], [seed, seed]))
    again = list(generator.walk_between_seeds([8, 2, 9], [3], 19))
    assert all((one[1] == other[0]).all() for one, other in zip(frames, again, strict=True))


def test_truncation_is_that_of_test_py(make_parameters):
    generator, truncated = (
        opened(make_parameters("acgan-digits")),
        opened(make_parameters("acgan-digits", truncation=0.5)),
    )
    expected = truncated.draw([1, 3], [8, 2])
    assert (generator.draw([1, 3], [8, 2], truncation=0.5) == expected).all()
    assert not close(generator.draw([1, 3], [8, 2]), expected)
    frames = list(generator.walk_between_seeds([8, 2], [1, 3], 3, truncation=0.5))
    assert close(frames[0][0], expected[0]) and close(frames[2][1], expected[1])
    frames = list(generator.walk_between_classes([1, 3], [8, 2], 3, truncation=0.5))
    assert close(frames[0][0], expected[0]) and close(frames[2][1], expected[1])


def test_a_closed_walk_returns_to_its_start(make_parameters):
    generator = opened(make_parameters("acgan-digits"))
    frames = list(generator.walk_between_seeds([8, 2], [1], 8, closed=True))
    assert close(frames[0], generator.draw([1], [8])) and close(frames[4], generator.draw([1], [2]))
    assert all(close(frames[4 - k], frames[4 + k]) for k in (1, 2, 3))
    assert [between(2, place) for place in places(2, 4, closed=True)] == [
        (0, 1, 0),
        (0, 1, 0.5),
        (1, 0, 0),
        (1, 0, 0.5),
    ]


def test_a_walk_keeps_the_length_of_the_noise(make_parameters):
    p = make_parameters("acgan-mlp", z_dim=1000)
    generator, lengths = opened(p), []
    generator._draw_noise = lambda frozen, z, labels, rows: lengths.extend(np.linalg.norm(z, axis=1)) or z
    list(generator.walk_between_seeds([0, 1], [0], 11))
    assert np.ptp(lengths) < 0.1 * np.mean(lengths)
