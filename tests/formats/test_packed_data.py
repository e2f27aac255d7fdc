"""Packed files from strangers: right ones, and damaged or hostile ones, which are refused in one sentence."""

import io
import json
import os
import tracemalloc
import zipfile

import numpy as np
import pytest
from commands import ROOT, SMALL, run
from PIL import Image

from dataset import batches, load_dataset
from formats.packed_data import About
from packing.files import NPZ
from parameters import Parameters
from utils import UserError

IMAGES = np.random.default_rng(0).integers(256, size=(12, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3
ABOUT = About("folder", "train", "photos", None, ["a", "b", "c"], False, {"imsize": 8}, {"labels": "x"})


def loaded(path, **options):
    return load_dataset(Parameters(**{"dataset": "folder", "data_path": str(path), "imsize": 8} | options))


def test_a_strangers_npz_trains_with_numbers_for_class_names(tmp_path):
    for save, name in ((np.savez, "a"), (np.savez_compressed, "b")):
        save(tmp_path / name, IMAGES, LABELS.astype(np.int32))
        found = loaded(tmp_path / f"{name}.npz")
        assert found.class_names == ("0", "1", "2") and found.labels.dtype == np.int64
        np.testing.assert_array_equal(found.stacked(), IMAGES.transpose(0, 3, 1, 2))
    np.savez(tmp_path / "named", IMAGES, LABELS, class_names=np.array(["cat", "dog", "eel"]))
    assert loaded(tmp_path / "named.npz", classes="dog,eel").class_names == ("dog", "eel")


def members(**changed):
    """The members of a right .npz, with some of them changed; None removes one."""
    files = {}
    for name, array in (("arr_0", IMAGES), ("arr_1", LABELS), ("class_names", np.array(["a", "b", "c"]))):
        content = io.BytesIO()
        np.save(content, array)
        files[f"{name}.npy"] = content.getvalue()
    files["pack.json"] = ABOUT.to_json()
    changed = {name.replace("__", "."): content for name, content in changed.items()}
    return {name: content for name, content in (files | changed).items() if content is not None}


def npy(array=None, header=None, content=b"", pickled=False):
    file = io.BytesIO()
    if array is not None:
        np.save(file, array, allow_pickle=pickled)
    else:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(content)
    return file.getvalue()


class Evil:
    def __reduce__(self):
        return os.system, ("touch RAN",)


def about(**changed):
    return json.dumps(json.loads(ABOUT.to_json()) | changed).encode()


def header(shape, kind="|u1", fortran=False):
    return {"descr": kind, "fortran_order": fortran, "shape": shape}


HOSTILE = {
    "pickled images": ({"arr_0__npy": npy(np.array([Evil()]), pickled=True)}, "arr_0 is object"),
    "pickled labels": ({"arr_1__npy": npy(np.array([Evil()] * 12), pickled=True)}, "arr_1 is object"),
    "pickled names": (
        {"class_names__npy": npy(np.array([Evil()]), pickled=True), "pack__json": None},
        "class_names is",
    ),
    "float images": ({"arr_0__npy": npy(np.zeros((12, 8, 8, 3)))}, "arr_0 is float64 "),
    "flat images": ({"arr_0__npy": npy(IMAGES[0])}, r"arr_0 is uint8 \[8, 8, 3\]"),
    "no images": ({"arr_0__npy": npy(IMAGES[:0])}, r"arr_0 is uint8 \[0, 8, 8, 3\]"),
    "false header": (
        {"arr_0__npy": npy(header=header((2**50, 8, 8, 3)), content=bytes(99))},
        "[0-9]+ images are too",
    ),
    "too few bytes": ({"arr_0__npy": npy(header=header((10**6, 8, 8, 3)), content=bytes(99))}, "it is cut short"),
    "negative size": ({"arr_0__npy": npy(header=header((-12, 8, 8, 3)), content=bytes(99))}, ""),
    "Fortran order": (
        {"arr_0__npy": npy(header=header((12, 8, 8, 3), "|u1", True), content=bytes(2304))},
        "arr_0 is uint8",
    ),
    "no header": ({"arr_0__npy": b"junk"}, ""),
    "header of code": ({"arr_0__npy": b"\x93NUMPY\x01\x00\x1e\x00{'descr': __import__('os')}   \n"}, ""),
    "no labels": ({"arr_1__npy": None}, "it has no arr_1"),
    "other labels": ({"arr_1__npy": npy(LABELS[:5])}, r"arr_1 is int64 \[5\], not one whole number for each of 12"),
    "negative label": ({"arr_1__npy": npy(LABELS - 1)}, "an image has the class -1, but there are 3 classes"),
    "large label": (
        {"arr_1__npy": npy(LABELS + 2**60), "pack__json": None, "class_names__npy": None},
        "a class is [0-9]+, which is too many",
    ),
    "label beyond": ({"arr_1__npy": npy(LABELS * 5)}, "an image has the class 10, but there are 3 classes, from 0"),
    "names beyond": (
        {"class_names__npy": npy(header=header((10**9,), "<U9"), content=b""), "pack__json": None},
        "class_names is <U9",
    ),
    "about: no JSON": ({"pack__json": b"\xff"}, "pack.json: "),
    "about: nested": ({"pack__json": b"[" * 10**5}, "pack.json: "),
    "about: other": ({"pack__json": b"{}"}, "pack.json: it has another format"),
    "about: more": ({"pack__json": about(more=1)}, "pack.json has other entries than this version"),
    "about: types": ({"pack__json": about(class_names=["a", 2, "c"])}, "pack.json has values of wrong types"),
    **{
        f"about: fingerprint, {kind}": ({"pack__json": about(fingerprint=value)}, "pack.json has values of wrong")
        for kind, value in {
            "a long text": {"images": "x" * 81},
            "a long name": {"x" * 81: 1},
            "a line": {"images\n2026-01-01 measured": 1},
            "a list": {"images": [1]},
            "a large number": {"images": 2**63},
            "many": {str(number): 1 for number in range(51)},
        }.items()
    },
    "about: place": ({"pack__json": about(left_out=[[12, 0, "f", "r"]])}, "pack.json names images or classes that do"),
    "about: negative": ({"pack__json": about(left_out=[[0, -1, "f", "r"]])}, "pack.json names images or classes that"),
    "about: left out": ({"pack__json": about(left_out=[[True, 0, "f", "r"]])}, "pack.json has values of wrong types"),
}


def zipped(path, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_npz_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    changed, says = HOSTILE[name]
    zipped("data.npz", members(**changed))
    said = "--data_path data.npz cannot be read as a .npz with arr_0, uint8 .N, H, W, 1 or 3., and arr_1, the classes: "
    tracemalloc.start()
    with pytest.raises(UserError, match=f"^{said}{says}") as error:
        loaded("data.npz")
    assert tracemalloc.get_traced_memory()[1] < 2**26 and "\n" not in str(error.value)
    tracemalloc.stop()
    assert os.listdir() == ["data.npz"]


def test_a_pack_whose_images_are_all_left_out_is_refused(tmp_path):
    left_out = [[place, 0, "f", "r"] for place in range(12)]
    zipped(tmp_path / "a.npz", members(pack__json=about(left_out=left_out, pixels=PIXELS)))
    with pytest.raises(UserError, match="holds no"):
        loaded(tmp_path / "a.npz")


PIXELS = {"imsize": 8, "centercrop": False, "dont_resize": False, "resize_filter": "bilinear", "exif": False}


@pytest.mark.parametrize("damage", ["cut", "no zip", "empty", "folder"])
def test_a_damaged_npz_is_refused(tmp_path, damage):
    path = tmp_path / "data.npz"
    zipped(path, members())
    content = {"cut": path.read_bytes()[:2000], "no zip": b"junk" * 999, "empty": b""}.get(damage)
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=f"^--data_path {path} ") as error:
        loaded(path)
    assert "\n" not in str(error.value)


def png(size=(8, 8), mode="RGB", kind="PNG"):
    content = io.BytesIO()
    Image.new(mode, size).save(content, kind)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            png((8, 9)),
            "has images of different kinds: 'b.png' has 8x9 pixels, mode RGB, the first has 8x8 pixels in RGB; ",
        ),
        (png(mode="L"), "has images of different kinds: 'b.png' has 8x8 pixels, mode L, the first has 8x8 pixels in"),
        (png(mode="P"), "has images of different kinds: 'b.png' has 8x8 pixels, mode P, the first has"),
        (png(kind="GIF"), "is damaged: 'b.png': cannot identify image file"),
        (png()[:45], "is damaged: 'b.png': "),
        (b"", "is damaged: 'b.png': cannot identify image file"),
    ],
)
def test_another_image_in_a_zip_is_refused_when_it_is_read(tmp_path, content, says):
    labels = json.dumps({"labels": [["a.png", 0], ["b.png", 1], ["c.png", 1]]})
    zipped(tmp_path / "data.zip", {"a.png": png(), "b.png": content, "c.png": png(), "dataset.json": labels})
    found = loaded(tmp_path / "data.zip")
    assert found[0][0].shape == found[2][0].shape == (3, 8, 8)
    with pytest.raises(UserError, match=f"^--data_path {tmp_path}/data.zip {says}"):
        found[1]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            {"a.png": png((9000, 1)), "dataset.json": b""},
            "'a.png': it is 9000x1 pixels, mode RGB, not gray or RGB of at most 4096x4096",
        ),
        ({"a.png": png(mode="RGBA"), "dataset.json": b""}, "'a.png': it is 8x8 pixels, mode RGBA, not gray or RGB"),
        ({"a.txt": b"", "dataset.json": b""}, "it holds no images"),
        ({"a.png": png()}, "it has no dataset.json"),
        ({"a.png": png(), "dataset.json": b'{"labels": [["a.png", 99999]]}'}, "dataset.json gives 'a.png' the class 9"),
    ],
)
def test_a_zip_of_other_images_is_refused(tmp_path, files, says):
    zipped(tmp_path / "data.zip", files)
    with pytest.raises(UserError, match=f"cannot be read as a .zip of PNG files with their classes in .*: {says}"):
        loaded(tmp_path / "data.zip")


def test_a_damaged_header_in_a_zip_is_refused_when_its_file_is_read(tmp_path):
    labels = json.dumps({"labels": [["a.png", 0], ["b.png", 1]]})
    zipped(tmp_path / "data.zip", {"a.png": png(), "b.png": png(), "dataset.json": labels})
    content = (tmp_path / "data.zip").read_bytes()
    second = content.index(b"PK\3\4", 10)
    for damage, says in ((b"JUNK", "its header in the ZIP is damaged"), (b"PK\3\4" + b"\xff" * 26, "it is cut short")):
        (tmp_path / "data.zip").write_bytes(content[:second] + damage + content[second + len(damage) :])
        found = loaded(tmp_path / "data.zip")
        with pytest.raises(UserError, match=f"is damaged: 'b.png': {says}"):
            found[1]


def test_an_npz_of_more_than_4_gb_trains_at_its_far_end(tmp_path):
    """The file is sparse: all but its last images are zeros that take no place on the disk."""
    count, last = 90_000, np.random.default_rng(1).integers(256, size=(60, 3, 128, 128), dtype=np.uint8)
    labels = np.zeros(count, np.int64)
    labels[-60:] = 1 + np.arange(60) // 30
    pixels = PIXELS | {"imsize": 128}
    with open(tmp_path / "large.npz", "w+b") as file:
        content = NPZ(count, (3, 128, 128))
        content.begin(file, count - 60, 0)
        for image in last:
            content.append(content.encode(image))
        content.finish(labels, About("folder", "train", "photos", None, ["a", "b", "c"], True, pixels, {}))
    size = os.stat(tmp_path / "large.npz")
    assert size.st_size > 2**32 and size.st_blocks * 512 < 2**26
    found = loaded(tmp_path / "large.npz", imsize=128)
    np.testing.assert_array_equal(found[count - 1][0], last[-1])
    with np.load(tmp_path / "large.npz") as arrays:  # another reader finds what follows the images
        np.testing.assert_array_equal(arrays["arr_1"], labels)
    few = loaded(tmp_path / "large.npz", imsize=128, classes="b,c", batch_size=60, dont_shuffle=True)
    np.testing.assert_array_equal(next(batches(few, few.parameters, 0))[0], last)
    options = [*SMALL[2:], "--recipe", "acgan-mlp", "--dataset", "folder", "--imsize", 128, "--classes", "b,c"]
    options += ["--batch_size", 30, "--total_step", 2, "--data_path", "large.npz"]
    code, out, err = run(tmp_path, ROOT / "train.py", *options)
    assert code == 0 and "60 images of 2 classes: b, c" in out, err
