"""Summaries of real images: computed once for each content, transform and extractor, then read from the cache."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import LIMIT
from PIL import Image
from test_measurement import CLASSES, Projection

from dataset import load_dataset
from evaluation import reference
from evaluation.measurement import Needs
from evaluation.reference import cache_folder, content_digest, given_summary, real_summary
from metrics.fid import Gaussian, fid, save_statistics
from runtime import StopRequest
from utils import UserError

ROOT = Path(__file__).parents[2]
COUNT = 24
NEEDS = Needs(("a",), features=True, resolutions=(4,))


class Extractor(Projection):
    key = "projection 0"


class NeverRead(Projection):
    """An extractor that fails if it has to read images."""

    key = Extractor.key

    def read(self, *arguments):
        raise AssertionError("it was computed again")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def images(tmp_path, make_parameters):
    """`images(**options)`: a folder of 24 test images of 3 classes, 9 x 12 pixels each."""
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        path = tmp_path / "real" / f"class {index % 3}" / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).save(path)

    def load(**options):
        sizes = {"imsize": 8, "centercrop_size": 8, "num_classes": None}
        p = make_parameters(dataset="folder", test_data_path=str(tmp_path / "real"), **sizes | options)
        return load_dataset(p, "test")

    return load


class Gray(Extractor):
    """Reads colours as gray, since the projection takes 64 pixels."""

    def read(self, images, labels, needs):
        return super().read(images.mean(axis=1, keepdims=True).astype(np.uint8), labels, needs)


def summary_of(image_set, extractor=None, needs=NEEDS):
    return real_summary(image_set, extractor or Gray(), needs, "real images", StopRequest())


def assert_equal(found, expected):
    assert found.count == expected.count and found.right == expected.right
    assert (found.features == expected.features).all()
    for layer in expected.gaussians:
        assert (found.gaussians[layer].mean == expected.gaussians[layer].mean).all()
        np.testing.assert_allclose(found.gaussians[layer].covariance, expected.gaussians[layer].covariance, rtol=1e-15)


def test_a_summary_is_computed_once(images):
    expected = summary_of(images())
    real = images()
    gray = np.stack([real[i][0] for i in range(COUNT)]).mean(axis=1).astype(np.uint8)
    features = Projection().read(gray, real.labels, NEEDS)
    np.testing.assert_allclose(expected.gaussians["a"].covariance, np.cov(features["a"].T.astype(float)), rtol=1e-9)
    assert (expected.features == features["a"]).all()
    assert expected.right == {4: features["right", 4].sum()} and expected.count == COUNT
    assert_equal(summary_of(images(), NeverRead()), expected)


def test_only_missing_values_of_a_summary_are_computed(images):
    """The values that were in the cache stay there."""

    class Counts(Gray):
        def read(self, images, labels, needs):
            asked.append(needs)
            return super().read(images, labels, needs)

    asked = []
    steps = [
        (Needs(("a",), resolutions=(4,)), Needs(("a",), resolutions=(4,))),
        (Needs(("a", "b"), resolutions=(4, 8)), Needs(("b",), resolutions=(8,))),
        (Needs(("b",), features=True, resolutions=(4,)), Needs(features=True)),
    ]
    for needs, missing in steps:
        summary_of(images(), Counts(), needs)
        assert asked.pop() == missing and not asked
    found = summary_of(images(), NeverRead(), Needs(("a", "b"), True, False, (4, 8)))
    assert found.gaussians.keys() == {"a", "b"} and {4, 8} <= found.right.keys() and len(found.features) == COUNT


def test_other_content_transform_or_extractor_makes_a_new_entry(images, tmp_path, cache):
    """A changed pixel, other classes, another transform, another extractor. Other workers, batches and seeds use the
    old entry.
    """
    seen = set()

    def is_new(extractor=None, **options):
        summary_of(images(**options), extractor)
        entries = {path.name for path in cache.iterdir()}
        new = entries - seen
        seen.update(entries)
        return len(new) == 1

    other = Gray()
    other.key = "projection 1"
    assert is_new() and not is_new()
    assert not is_new(num_workers=0, batch_size=2, manual_seed=3)
    assert is_new(centercrop=True)
    assert is_new(other)
    assert is_new(classes="class 0,class 1")
    file = tmp_path / "real" / "class 0" / "00.png"
    pixels = np.array(Image.open(file))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(file)
    assert is_new()


@pytest.mark.parametrize("name", ["a.npz", "features.npy", "right.json"])
@pytest.mark.parametrize("content", [b"", b"x" * 100, b"{}", b"[1]", b'{"4": null}', None])
def test_a_damaged_entry_is_computed_again(images, cache, capsys, name, content):
    expected = summary_of(images())
    (entry,) = cache.iterdir()
    data = (entry / name).read_bytes()
    (entry / name).write_bytes(data[: len(data) // 2] if content is None else content)
    assert_equal(summary_of(images()), expected)
    err = capsys.readouterr().err
    assert [line for line in err.splitlines() if "ignored" in line and name in line] or content == b"{}"
    assert_equal(summary_of(images(), NeverRead()), expected)


def test_cached_features_of_a_wrong_shape_or_type_are_computed_again(images, cache, capsys):
    expected = summary_of(images())
    (entry,) = cache.iterdir()
    for other in (expected.features[:5], expected.features.astype(np.float64), np.array(3.0)):
        np.save(entry / "features.npy", other)
        assert_equal(summary_of(images()), expected)
        assert "features.npy is ignored" in capsys.readouterr().err


def test_an_interrupted_summary_is_computed_by_the_next_call(images, cache):
    stop = StopRequest()
    stop.signal = 2
    assert real_summary(images(), Gray(), NEEDS, "", stop) is None
    expected = summary_of(images())
    assert sorted(path.name for path in next(cache.iterdir()).iterdir()) == ["a.npz", "features.npy", "right.json"]
    assert_equal(summary_of(images(), NeverRead()), expected)


def test_a_cache_that_cannot_be_written_is_reported_once(images, cache, capsys, monkeypatch):
    """A file is in the place of its folder. One line says so, and the computation goes on."""
    cache.write_text("mine")
    expected = summary_of(images())
    summary_of(images(centercrop=True))
    cache_folder("classifiers")
    lines = [line for line in capsys.readouterr().err.splitlines() if "not cached" in line]
    assert len(lines) == 1 and str(cache) in lines[0]
    assert expected.count == COUNT and cache.read_text() == "mine"


def test_a_temporary_cache_is_removed_with_its_process(tmp_path):
    (tmp_path / ".cache" / "paddle").mkdir(parents=True)
    (tmp_path / ".cache" / "paddle" / "real-images").write_text("no folder")
    program = "from evaluation.reference import cache_folder; print(cache_folder('x'), cache_folder('y'))"
    command = [sys.executable, "-c", program]
    environment = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0 and done.stderr.count("not cached") == 1
    folders = done.stdout.split()
    assert len({Path(folder).parent for folder in folders}) == 1
    assert not any(Path(folder).exists() for folder in folders)


def gaussian(width, seed=0):
    rows = np.random.default_rng(seed).standard_normal((3 * width, width))
    return Gaussian(rows.mean(0), np.cov(rows.T))


def test_a_file_of_the_cache_works_as_reference(images, tmp_path, cache):
    """Given as --reference, it gives the FID of the images themselves."""
    real = summary_of(images(), needs=Needs(("64",)), extractor=Wide())
    (entry,) = cache.iterdir()
    given = given_summary(entry / "64.npz", ("64",))
    samples = gaussian(64)
    assert fid(given.gaussians["64"], samples) == fid(real.gaussians["64"], samples)


class Wide(Gray):
    key = "wide"

    def read(self, images, labels, needs):
        features = super().read(images, labels, needs)["a"]
        return {"64": np.concatenate([features, features**2, features**3, features**4], axis=1)}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_published_layouts_of_statistics_are_read(tmp_path, save, dtype):
    """pytorch-fid and TTUR: mu and sigma. guided-diffusion: also spatial statistics and samples in the same file."""
    expected = gaussian(64)
    mu, sigma = (array.astype(dtype) for array in expected)
    save(tmp_path / "a.npz", mu=mu, sigma=sigma)
    rng = np.random.default_rng(0)
    more = {"mu_s": rng.random(2023), "sigma_s": rng.random((2023, 2023)), "arr_0": rng.integers(0, 9, (4, 8, 8, 3))}
    save(tmp_path / "b.npz", mu=mu, sigma=sigma, **more)
    for name in ("a", "b"):
        found = given_summary(tmp_path / f"{name}.npz", ("64",)).gaussians["64"]
        np.testing.assert_allclose(found.mean, expected.mean, rtol=0, atol=np.finfo(dtype).eps * 8)
        np.testing.assert_allclose(found.covariance, expected.covariance, rtol=0, atol=np.finfo(dtype).eps * 8)


def test_statistics_of_another_layer_are_refused(tmp_path):
    save_statistics(tmp_path / "64.npz", gaussian(64))
    with pytest.raises(UserError, match="width 64; --metrics needs 2048"):
        given_summary(tmp_path / "64.npz", ("2048",))
    with pytest.raises(UserError, match="width 64; --metrics needs 192"):
        given_summary(tmp_path / "64.npz", ("64", "192"))


def test_the_content_digest_depends_on_the_images_and_not_on_the_batch_size(images, make_parameters):
    digits = [load_dataset(make_parameters(dataset="digits", num_classes=None), split) for split in ("train", "test")]
    again = load_dataset(make_parameters(dataset="digits", num_classes=None, batch_size=9), "test")
    assert content_digest(digits[0]) != content_digest(digits[1]) == content_digest(again)
    assert digits[0].num_classes == CLASSES


def test_exif_changes_the_content_digest(tmp_path, make_parameters):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    sets = [
        load_dataset(make_parameters(dataset="folder", data_path=str(tmp_path), num_classes=None, exif=exif))
        for exif in (False, True)
    ]
    assert content_digest(sets[0]) != content_digest(sets[1])
