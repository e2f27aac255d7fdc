"""The images of demo.py, and its refusals."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from drawn import opened
from PIL import Image
from published_files import published

import checkpoint
from command.line import CommandLine
from drawing.generator import OpenGenerator
from pages import attention, demo_images
from utils import UserError


@pytest.fixture
def demo(make_parameters, tmp_path):
    """`demo(model)`: a `Demo` of a small generator of five classes."""

    def make(model="acgan-digits", **changes):
        return demo_images.Demo(opened(make_parameters(model, **changes)), tmp_path)

    return make


def pixels(path):
    with Image.open(path) as image:
        return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


def test_an_image_is_that_of_its_class_and_seed(demo):
    demo = demo()
    shown, path = demo.image(3, 7, 0)
    assert Path(path).name == "0003-d-seed7.png" and (pixels(path) == demo.generator.draw([3], [7])[0]).all()
    assert shown.shape == (352, 352, 3) and (shown[::22, ::22, 0] == pixels(path)[0]).all()
    _, path = demo.image(3, 7, 0.5)
    assert Path(path).name == "0003-d-seed7-truncation0.5.png"
    assert (pixels(path) == demo.generator.draw([3], [7], 0.5)[0]).all()


@pytest.mark.parametrize("kind", ["seed", "class"])
def test_a_walk_goes_from_one_image_to_the_other(demo, kind):
    demo = demo()
    ends = {"seed": ([3, 3], [7, 9]), "class": ([3, 1], [7, 7])}[kind]
    for share, image in zip((0, 1), demo.generator.draw(*ends), strict=True):
        _, path = demo.walk(kind, 3, 7, 1, 9, 0, share)
        assert np.abs(pixels(path).astype(int) - image).max() <= 1
    assert Path(path).name == f"0003-d-seed7-to-{'seed9' if kind == 'seed' else '0001-b'}-16of16.png"
    _, middle = demo.walk(kind, 3, 7, 1, 9, 0, 0.5)
    assert not (pixels(middle) == pixels(path)).all()
    _, truncated = demo.walk(kind, 3, 7, 1, 9, 0.5, 1)
    assert truncated == path.replace("-16of16", "-truncation0.5-16of16")
    assert not (pixels(truncated) == pixels(path)).all()


def test_no_two_truncations_share_a_file(demo):
    demo = demo()
    paths = {demo.image(0, 0, truncation)[1] for truncation in (0, 1, 0.5, 0.5000001)}
    assert {Path(path).stem.partition("-truncation")[2] for path in paths} == {"", "1", "0.5", "0.5000001"}


def test_attention_is_that_of_the_point(demo):
    demo = demo("sagan", imsize=32, attention_size=16)
    shown = demo.attention(2, 5, 0, (0.2, 0.7))
    assert shown.shape == (352, 352, 3)
    _, maps = attention.attention_maps(demo.generator.network, demo.generator.noise([5]), [2])
    assert tuple(shown[int(0.2 * 352), int(0.7 * 352)]) == attention.COLOURS[0]
    other = demo.attention(2, 5, 0, (0.9, 0.1))
    assert not (shown == other).all() and maps.shape == (1, 16, 16, 8, 8)


@pytest.mark.parametrize(("limit", "kept"), [(2**28, 16), (3 * 2**16, 3), (2**15, 1)])
def test_the_maps_in_memory_are_limited_by_their_bytes(demo, monkeypatch, limit, kept):
    """An image's maps are 2**16 bytes with --attention_size 16, and 268 MB with 128."""
    monkeypatch.setattr(demo_images, "MAP_BYTES", limit)
    demo = demo("sagan", imsize=32, attention_size=16)
    _, maps = demo._attended(0, 0, 0)
    assert maps.nbytes == 2**16 and demo._attended.cache_info().maxsize == kept


@pytest.mark.parametrize("kind", ["paddle-sagan", "paddle-acgan", "sagan.pth", "imagenet_netG_epoch_0.pth"])
def test_published_checkpoints_draw(tmp_path, kind):
    path = published(tmp_path)[kind]
    command, loaded = CommandLine([str(path)], "demo"), checkpoint.load_file_or_run(path, wanted=("G", "G_ema"))
    (tmp_path / "images").mkdir()
    demo = demo_images.Demo(OpenGenerator(command.parameters_to_draw(loaded.parameters), loaded), tmp_path / "images")
    shown, path = demo.image(1, 5, 0)
    assert (pixels(path) == demo.generator.draw([1], [5])[0]).all() and pixels(path).std() > 1
    assert demo.has_attention == ("sagan" in kind)
    if demo.has_attention:
        assert demo.attention(1, 5, 0, (0.5, 0.5)).shape == shown.shape


BAD = (-1, 5, 0.5, "0", "../../etc/passwd", None, True, [0], {"path": "/etc/passwd"}, math.nan, math.inf, 2**70)


def test_other_values_are_refused(demo, tmp_path):
    demo = demo("sagan", imsize=32, attention_size=16)
    for value in BAD:
        calls = [lambda v=value: demo.image(v, 0, 0), lambda v=value: demo.walk("seed", v, 0, 0, 0, 0, 0)]
        calls += [lambda v=value: demo.walk("class", 0, 0, v, 0, 0, 0), lambda v=value: demo.attention(v, 0, 0, (0, 0))]
        if value not in (5, 0.5):
            calls += [lambda v=value: demo.image(0, 0, v), lambda v=value: demo.walk("seed", 0, 0, 0, 0, 0, v)]
            calls += [lambda v=value: demo.attention(0, 0, 0, (0, v)), lambda v=value: demo.walk(v, 0, 0, 0, 0, 0, 0)]
        if value != 5:
            calls += [lambda v=value: demo.image(0, v, 0), lambda v=value: demo.walk("seed", 0, 0, 0, v, 0, 0)]
        for call in calls:
            with pytest.raises(UserError):
                call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("language", "said"),
    [("en", "seed: give a whole number from 0 to 2147483647"), ("cn", "种子：请输入 0 至 2147483647 之间的整数")],
)
def test_a_refusal_is_in_the_language_of_the_page(demo, language, said):
    demo = demo()
    demo = demo_images.Demo(demo.generator, demo.folder, language)
    for seed in (None, -1, 2**31):  # an empty field, and numbers that the field accepts
        with pytest.raises(UserError) as refusal:
            demo.image(0, seed, 0)
        assert str(refusal.value) == said


def test_many_threads_get_their_images_and_old_files_go(demo, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_images, "KEPT", 10)
    demo = demo()
    with ThreadPoolExecutor(50) as pool:
        shown = [picture for picture, _ in pool.map(lambda seed: demo.image(seed % 5, seed, 0), range(50))]
    images = demo.generator.draw(np.arange(50) % 5, np.arange(50))
    assert all((picture[::22, ::22, 0] == image[0]).all() for picture, image in zip(shown, images, strict=True))
    assert len(list(tmp_path.glob("*.png"))) == 10


def test_names_of_classes_choose_no_folder(demo, tmp_path):
    demo = demo()
    demo.generator.class_names = ("../../x", "/etc", "a\0b", "..", "c")
    for label in range(5):
        _, path = demo.image(label, 0, 0)
        assert Path(path).parent == tmp_path and Path(path).is_file()
