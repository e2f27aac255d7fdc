"""The sources of pack.py: ImageNet as distributed, StyleGAN's data sets, published files; and hostile archives."""

import gzip
import io
import json
import os
import pickle
import shlex
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from commands import ROOT, run
from PIL import Image

from command.line import CommandLine
from dataset import load_dataset
from formats.packed_data import open_packed
from packing.work import pack
from parameters import Parameters
from utils import UserError

SYNSETS = ("n01440764", "n01443537", "n01484850")


def picture(seed, ending="jpg"):
    """The bytes of a small picture."""
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(256, size=(20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, {"jpg": "JPEG", "png": "PNG"}[ending])
    return content.getvalue()


def tarred(files, path=None):
    """A tar of `files`, {name: content or TarInfo}, as bytes, or written to `path`."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in files.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    if path:
        path.write_bytes(content.getvalue())
    return content.getvalue()


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def packed(tmp_path, *options, out="out.npz"):
    """Pack with these options. Returns the file that `open_packed` opens."""
    command = CommandLine(
        ["--imsize", "8", "--num_workers", "0", *map(str, options), "--out", str(tmp_path / out)], "pack"
    )
    pack(*command.parameters_of_pack())
    return open_packed("--data_path", str(tmp_path / out))


def assert_same(one, two):
    """The pixels, classes and what is known of the source are the same."""
    assert one.images.shape == two.images.shape and one.class_names == two.class_names
    assert all((one.images[i] == two.images[i]).all() for i in range(len(one.labels)))
    np.testing.assert_array_equal(one.labels, two.labels)
    assert one.about.fingerprint == two.about.fingerprint


@pytest.fixture
def imagenet(tmp_path):
    """{class: {file: content}}, also as class folders in train/ below `tmp_path`."""
    files = {
        name: {f"{name}_{number}.JPEG": picture(100 * label + number) for number in (7, 30, 4)}
        for label, name in enumerate(SYNSETS)
    }
    write(tmp_path / "train", {f"{name}/{file}": data for name in files for file, data in files[name].items()})
    return files


# ImageNet


def test_imagenets_training_tar_equals_its_folders(imagenet, tmp_path):
    """Its tars, and the images in them, are in any order."""
    tarred({f"{name}.tar": tarred(imagenet[name]) for name in reversed(SYNSETS)}, tmp_path / "ILSVRC2012_img_train.tar")
    before = sorted(os.listdir(tmp_path))
    tar = packed(tmp_path, "--data_path", tmp_path / "ILSVRC2012_img_train.tar", out="tar.npz")
    assert sorted([*before, "tar.npz"]) == sorted(os.listdir(tmp_path))  # nothing was unpacked
    assert_same(tar, packed(tmp_path, "--data_path", tmp_path / "train"))
    some = ["--classes", f"{SYNSETS[2]},{SYNSETS[0]}"]
    tar = packed(tmp_path, "--data_path", tmp_path / "ILSVRC2012_img_train.tar", *some, out="some.npz")
    assert_same(tar, packed(tmp_path, "--data_path", tmp_path / "train", *some, out="same.npz"))
    assert tar.class_names == (SYNSETS[2], SYNSETS[0])


@pytest.fixture
def validation(imagenet, tmp_path):
    """ImageNet's validation images: val/, val.tar and, in class folders, val-folders/; {file: class} in file order."""
    order = [(name, data) for name in SYNSETS for data in imagenet[name].values()]
    order = [order[place] for place in np.random.default_rng(0).permutation(len(order))]
    files = {f"ILSVRC2012_val_{number + 1:08}.JPEG": data for number, (_, data) in enumerate(order)}
    classes = dict(zip(files, (name for name, _ in order), strict=True))
    write(tmp_path / "val", files)
    tarred(dict(reversed(files.items())), tmp_path / "val.tar")
    write(tmp_path / "val-folders", {f"{classes[file]}/{file}": data for file, data in files.items()})
    return classes


@pytest.mark.parametrize("source", ["val", "val.tar"])
@pytest.mark.parametrize("form", ["one a line", "with files", "Kaggle", "without ending"])
def test_imagenets_flat_validation_images_equal_their_class_folders(validation, tmp_path, source, form):
    lines = {
        "one a line": list(validation.values()),
        "with files": [f"{file} {name}" for file, name in reversed(validation.items())],
        "Kaggle": ["ImageId,PredictionString"]
        + [f"{file[:-5]},{name} 1 2 3 4 {name} 1 2 3 4" for file, name in validation.items()],
        "without ending": [f"{file[:-5]}\t{name}" for file, name in validation.items()],
    }[form]
    (tmp_path / "labels.txt").write_text("\n".join([*lines, "", ""]))
    options = ["--label_list", tmp_path / "labels.txt"]
    flat = packed(tmp_path, "--data_path", tmp_path / source, *options, out="flat.npz")
    assert_same(flat, packed(tmp_path, "--data_path", tmp_path / "val-folders"))
    assert flat.class_names == SYNSETS


def test_the_command_that_packs_other_pixels_has_the_label_list_and_the_whole_path(validation, tmp_path):
    labels = tmp_path / "my labels.txt"
    labels.write_text("\n".join(validation.values()))
    source = tmp_path / ("long" * 60)
    (tmp_path / "val").rename(source)
    packed(tmp_path, "--dataset", "folder", "--test_data_path", source, "--label_list", labels)
    with pytest.raises(UserError, match="but this command asks for --imsize 16") as refused:
        load_dataset(Parameters(dataset="folder", test_data_path=str(tmp_path / "out.npz"), imsize=16), "test")
    command = str(refused.value).split("python pack.py ")[1]
    assert f"--test_data_path {source} --label_list '{labels}' --imsize 16 " in command
    again = packed(tmp_path, *shlex.split(command.removesuffix(" --out FILE")), out="again.npz")
    assert again.images.shape == (9, 16, 16, 3) and again.class_names == SYNSETS


def test_numbers_in_a_label_list_are_ordered_as_numbers(validation, tmp_path):
    numbers = [str(2 + 4 * SYNSETS.index(name)) for name in validation.values()]  # 2, 6, 10
    (tmp_path / "labels.txt").write_text("\n".join(numbers))
    found = packed(tmp_path, "--data_path", tmp_path / "val", "--label_list", tmp_path / "labels.txt")
    assert found.class_names == ("2", "6", "10")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a\nb\n", "has 2 class names for 9 images: give one for each image, or lines with FILE CLASS"),
        (b"ILSVRC2012_val_00000001.JPEG n1\n", "has no class for 'ILSVRC2012_val_00000002.JPEG': give a list with"),
        (b"\xff\xfe\x00", "cannot be read as text: "),
        (b"", "has 0 class names for 9 images"),
    ],
)
def test_a_wrong_label_list_is_refused(validation, tmp_path, content, says):
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(UserError, match=f"^--label_list {tmp_path}/labels.txt {says}"):
        packed(tmp_path, "--data_path", tmp_path / "val", "--label_list", tmp_path / "labels.txt")


def test_images_without_classes_are_refused(validation, tmp_path):
    with pytest.raises(UserError, match="holds images without their classes: give these by --label_list FILE"):
        packed(tmp_path, "--data_path", tmp_path / "val.tar")


@pytest.mark.parametrize("more", [[], ["--label_list", "labels.txt"]])
def test_one_image_instead_of_a_folder_is_refused(tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"a.JPEG": picture(0), "labels.txt": b"a\n"})
    says = r"^--data_path a\.JPEG is one image: give the folder that holds one folder of images for each class$"
    with pytest.raises(UserError, match=says):
        packed(tmp_path, "--data_path", "a.JPEG", *more)


def test_broken_images_in_a_tar_are_named_and_replaced_as_in_a_folder(tmp_path, capsys):
    files = {name: {f"{number:03}.JPEG": picture(number) for number in range(50)} for name in SYNSETS[:2]}
    files[SYNSETS[0]]["049.JPEG"] = b"no image"
    tarred({f"{name}.tar": tarred(files[name]) for name in files}, tmp_path / "train.tar")
    write(tmp_path / "train", {f"{name}/{file}": data for name in files for file, data in files[name].items()})
    tar = packed(tmp_path, "--data_path", tmp_path / "train.tar", out="tar.npz")
    said = capsys.readouterr().err
    assert f"'{tmp_path}/train.tar/{SYNSETS[0]}.tar/049.JPEG' is left out (1 of 100 files so far)" in said
    assert_same(tar, packed(tmp_path, "--data_path", tmp_path / "train"))


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_photos_that_are_stored_sideways_are_counted_in_archives(tmp_path, capsys, kind):
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(content, "JPEG", exif=exif)
    files = {f"{number}.JPEG": content.getvalue() if number < 2 else picture(number) for number in range(3)}
    if kind == "tar":
        tarred({f"{name}.tar": tarred(files) for name in SYNSETS[:2]}, tmp_path / "data.tar")
    else:
        files = {f"{name}/{file}": data for name in "ab" for file, data in files.items()}
        labels = json.dumps({"labels": [[name, int(name[0] == "b")] for name in files]})
        zipped(tmp_path / "data.zip", files | {"dataset.json": labels})
    packed(tmp_path, "--dataset", "folder", "--data_path", tmp_path / f"data.{kind}")
    said = f"stored sideways or mirrored: 4 of the first 6 images in --data_path {tmp_path}/data.{kind}, by their EXIF"
    assert said in capsys.readouterr().err


# StyleGAN's data sets


@pytest.fixture
def stylegan():
    """The files of a StyleGAN data set, {name: content}."""
    names = [f"{number // 4:05}/img{number:08}.png" for number in range(10)]
    labels = [[name, (number * 7) % 3] for number, name in enumerate(names)]
    files = {name: picture(number, "png") for number, name in enumerate(names)}
    return files | {"dataset.json": json.dumps({"labels": labels[::-1]}).encode()}


def test_a_stylegan_zip_and_folder_keep_their_order_and_classes(stylegan, tmp_path):
    zipped(tmp_path / "data.zip", dict(reversed(stylegan.items())))
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in stylegan.items():
            archive.writestr(name, data)
    write(tmp_path / "data", stylegan)
    options = ["--dataset", "folder", "--data_path"]
    one, two, three = (
        packed(tmp_path, *options, tmp_path / source, out=f"{source}.npz")
        for source in ("data.zip", "data", "packed.zip")
    )
    assert_same(one, two)
    assert_same(one, three)
    assert one.labels.tolist() == [(number * 7) % 3 for number in range(10)] and one.class_names == ("0", "1", "2")
    with Image.open(io.BytesIO(stylegan["00000/img00000003.png"])) as image:
        np.testing.assert_array_equal(one.images[3], np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR)))


def test_a_pipe_in_a_stylegan_folder_is_not_read(stylegan, tmp_path, capsys):
    names = [name for name in stylegan if name != "dataset.json"]
    labels = [[name, number % 3] for number, name in enumerate(["00000/pipe.png", *names])]
    write(tmp_path / "data", stylegan | {"dataset.json": json.dumps({"labels": labels}).encode(), ".hidden.png": b""})
    os.mkfifo(tmp_path / "data" / "00000" / "pipe.png")
    found = packed(tmp_path, "--dataset", "folder", "--data_path", tmp_path / "data")
    assert len(found.labels) == 10
    assert f"skipped in --data_path {tmp_path}/data: 1 other file\n" in capsys.readouterr().err


def test_a_stylegan_zip_of_the_right_size_trains_without_packing(stylegan, tmp_path):
    for name in stylegan:
        if name.endswith("png"):
            content = io.BytesIO()
            Image.open(io.BytesIO(stylegan[name])).resize((8, 8)).save(content, "PNG")
            stylegan[name] = content.getvalue()
    zipped(tmp_path / "data.zip", stylegan)
    values = {"dataset": "folder", "data_path": str(tmp_path / "data.zip")}
    found = load_dataset(Parameters(**values, imsize=8))
    assert len(found) == 10 and found.class_names == ("0", "1", "2") and found[1][1] == 1
    with pytest.raises(
        UserError, match="has images of 8x8 pixels, but --imsize is 16: give --imsize 8, or make"
    ) as error:
        load_dataset(Parameters(**values, imsize=16))
    assert_advice_makes_a_file_that_trains(str(error.value), tmp_path, imsize=16)


def assert_advice_makes_a_file_that_trains(message, tmp_path, imsize):
    """The command of pack.py at the end of `message` runs, and training reads its file."""
    _, _, command = message.partition("python pack.py ")
    options = shlex.split(command.removesuffix(" --out FILE"))
    packed(tmp_path, *options)
    assert load_dataset(Parameters(dataset="folder", data_path=str(tmp_path / "out.npz"), imsize=imsize))[1]


def test_a_stylegan_zip_of_several_sizes_is_refused_with_the_command_that_makes_them_alike(stylegan, tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG")
    stylegan["00000/img00000000.png"] = content.getvalue()  # the others are larger
    zipped(tmp_path / "my data.zip", stylegan)
    found = load_dataset(Parameters(dataset="folder", data_path=str(tmp_path / "my data.zip"), imsize=8))
    with pytest.raises(UserError, match="has images of different kinds: '00000/img00000001") as error:
        [found[index] for index in range(len(found))]
    assert_advice_makes_a_file_that_trains(str(error.value), tmp_path, imsize=8)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"labels": null}', "dataset.json has no classes: its `labels` must be a list of"),
        (b"[]", "dataset.json has no classes"),
        (b'{"labels": [["00000/img00000000.png", [0.5, 1]]]}', "gives '00000/img00000000.png' the class .0.5, 1., not"),
        (b'{"labels": [["00000/img00000000.png", -1]]}', "gives '00000/img00000000.png' the class -1, not"),
        (b'{"labels": [["00000/img00000000.png", 1e99]]}', "gives '00000/img00000000.png' the class 1e.99, not"),
        (b'{"labels": [["../img", 1]]}', "has no class for '00000/img00000000.png'"),
        (b"[" * 50_000, "dataset.json is nested too deeply"),
        (b'{"labels": "' + b"x" * 10**6 + b'"}', "dataset.json has [0-9]+ bytes, too many for 10 images"),
        (b"\xff", "dataset.json is no JSON"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_wrong_classes_of_a_stylegan_data_set_are_refused(stylegan, tmp_path, content, says, kind):
    stylegan["dataset.json"] = content
    (zipped if kind == "zip" else write)(tmp_path / "data.zip", stylegan)
    with pytest.raises(UserError, match=rf"^--data_path {tmp_path}/data.zip cannot be read as StyleGAN's .*: .*{says}"):
        packed(tmp_path, "--dataset", "folder", "--data_path", tmp_path / "data.zip")


# Published sets


@pytest.fixture
def published(tmp_path):
    """Small files of the real formats: mnist/ and cifar/."""
    for prefix, count in (("train", 30), ("t10k", 20)):
        images = np.random.default_rng(count).integers(256, size=(count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) * 3 % 10).astype(np.uint8)
        for name, array in ((f"{prefix}-images-idx3-ubyte.gz", images), (f"{prefix}-labels-idx1-ubyte.gz", labels)):
            header = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
            write(tmp_path / "mnist", {name: gzip.compress(header + array.tobytes())})
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        data = np.random.default_rng(len(name)).integers(256, size=(10, 3072), dtype=np.uint8)
        batch = pickle.dumps({"data": data, "labels": list(range(10))}, 2)
        write(tmp_path / "cifar" / "cifar-10-batches-py", {name: batch})
    return tmp_path


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("ending", ["npz", "zip"])
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_published_sets_are_packed_in_their_own_order(published, name, ending, split):
    path = published / ("mnist" if name == "mnist" else "cifar")
    option = {"train": "data_path", "test": "test_data_path"}[split]
    packed(published, "--dataset", name, f"--{option}", path, out=f"out.{ending}")
    values = {"dataset": name, "imsize": 8, "num_classes": None}
    source = load_dataset(Parameters(**values | {option: str(path)}), split)
    values[option] = str(published / f"out.{ending}")
    for classes in (None, "4,0,7"):
        source = load_dataset(Parameters(**values | {option: str(path), "classes": classes}), split)
        found = load_dataset(Parameters(**values | {"classes": classes}), split)
        assert found.class_names == source.class_names and found.image_shape == source.image_shape
        np.testing.assert_array_equal(found.labels, source.labels)
        np.testing.assert_array_equal(found.stacked(), source.stacked())
        assert classes or found.fingerprint() == source.fingerprint()


def test_a_packed_published_set_is_not_used_for_another_one(published):
    packed(published, "--dataset", "mnist", "--data_path", published / "mnist")
    values = {"data_path": str(published / "out.npz"), "imsize": 8}
    for dataset, split, says in (
        ("fashion-mnist", "train", "holds mnist, not fashion-mnist: give another file or another --dataset"),
        ("mnist", "test", "holds the training images, not the test images of mnist: give these by --test_data_path"),
        ("folder", "train", "has gray images, but --dataset folder has RGB images: give another file"),
    ):
        with pytest.raises(UserError, match=f"^--data_path {published}/out.npz {says}"):
            load_dataset(Parameters(dataset=dataset, **values), split)


# Hostile archives


def link(name, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def sparse(path):
    """A tar whose only file claims 2^50 bytes that it does not hold."""
    info = tarfile.TarInfo("a.tar")
    info.size = 2**50
    path.write_bytes(info.tobuf() + bytes(1024))


def long_header(path):
    """A tar whose header claims a name of 2^40 bytes; the file is sparse, so it has them."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**40
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    os.truncate(path, 2**41)


INNER = {"a.tar": tarred({"a.jpg": b"x"}), "b.tar": tarred({"b.jpg": b"x"})}
TARS = {
    "absolute": ({"/a.tar": INNER["a.tar"]}, "the name '/a.tar' in it leads out of it"),
    "parent": ({"x/../../a.tar": INNER["a.tar"]}, "the name 'x/../../a.tar' in it leads out of it"),
    "inner parent": (INNER | {"c.tar": tarred({"../c.jpg": b"x"})}, "'c.tar' in it: the name '../c.jpg' in it leads"),
    "link": (INNER | {"l": link("l.tar")}, "'l.tar' in it is a link, a device or a sparse file"),
    "hard link": (INNER | {"l": link("l.tar", tarfile.LNKTYPE)}, "'l.tar' in it is a link, a device"),
    "pipe": (INNER | {"l": link("l.tar", tarfile.FIFOTYPE)}, "'l.tar' in it is a link, a device"),
    "one class": ({"a.tar": INNER["a.tar"]}, "it holds 1 tar"),
    "no tar inside": (INNER | {"c.tar": b"x" * 2000}, "'c.tar' in it: "),
    "twice": (INNER | {"c.tar": tarred({"x/c.jpg": b"x", "y/c.jpg": b"x"})}, "'c.tar' in it: it holds 'c.jpg' twice"),
    "claims too much": (sparse, "it is cut short at 'a.tar'"),
    "long header": (long_header, "a header in it is too large"),
    "no tar": (lambda path: path.write_bytes(b"no tar" * 1000), ""),
    "compressed": (lambda path: path.write_bytes(gzip.compress(tarred(INNER))), ""),
    "empty": (lambda path: path.write_bytes(b""), ""),
}


@pytest.mark.parametrize("name", TARS)
def test_a_hostile_tar_is_refused_in_one_sentence(tmp_path, name):
    files, says = TARS[name]
    files(tmp_path / "data.tar") if callable(files) else tarred(files, tmp_path / "data.tar")
    code, _, err = run(tmp_path, ROOT / "pack.py", "--data_path", "data.tar", "--imsize", 8, "--out", "out.npz")
    said = "pack.py: --data_path data.tar cannot be read as a tar with a tar of images for each class: "
    assert code == 2 and err.startswith(said + says) and err.count("\n") == 1 and len(err) < 400
    assert os.listdir(tmp_path) == ["data.tar"]


def test_a_tar_that_is_cut_short_is_refused(imagenet, tmp_path):
    content = tarred({f"{name}.tar": tarred(imagenet[name]) for name in SYNSETS})
    (tmp_path / "data.tar").write_bytes(content[: len(content) * 2 // 3 // 512 * 512 + 100])
    with pytest.raises(UserError, match="it is cut short at"):
        packed(tmp_path, "--data_path", tmp_path / "data.tar")


def hostile_zip(path, kind, stylegan):
    if kind in ("absolute", "parent", "backslash", "drive"):
        name = {"absolute": "/a.png", "parent": "a/../../b.png", "backslash": "..\\a.png", "drive": "C:/a.png"}[kind]
        zipped(path, stylegan | {name: b"x"})
    elif kind == "link":
        info = zipfile.ZipInfo("link.png")
        info.external_attr = 0o120777 << 16
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(info, "/etc/passwd")
    elif kind == "twice":
        with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", b"x")
            archive.writestr("a.png", b"y")
    elif kind == "bzip2":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
            archive.writestr("a.png", b"x" * 1000)
    elif kind == "encrypted":
        zipped(path, {"a.png": b"x"})
        content = bytearray(path.read_bytes())
        content[content.index(b"PK\1\2") + 8] |= 1
        path.write_bytes(content)
    elif kind == "no zip":
        path.write_bytes(b"PK" * 5000)
    elif kind == "cut":
        zipped(path, stylegan)
        os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("absolute", "the name '/a.png' in it leads out of it"),
        ("parent", "the name 'a/../../b.png' in it leads out of it"),
        ("backslash", "in it leads out of it"),
        ("drive", "the name 'C:/a.png' in it leads out of it"),
        ("link", "'link.png' in it is a link"),
        ("twice", "it holds 'a.png' twice"),
        ("bzip2", "'a.png' in it has an unknown compression"),
        ("encrypted", "'a.png' in it is encrypted"),
        ("no zip", "it is not a ZIP, or it is cut short"),
        ("cut", "it is not a ZIP, or it is cut short"),
    ],
)
def test_a_hostile_zip_is_refused_by_packing_and_by_training(stylegan, tmp_path, kind, says):
    path = tmp_path / "data.zip"
    hostile_zip(path, kind, stylegan)
    with pytest.raises(UserError, match=f"^--data_path {path} cannot be read as StyleGAN's .zip .*{says}"):
        packed(tmp_path, "--dataset", "folder", "--data_path", path)
    with pytest.raises(UserError, match=f"^--data_path {path} cannot be read as a .zip of PNG files .*{says}"):
        load_dataset(Parameters(dataset="folder", data_path=str(path), imsize=8))


BOMB = 123_456_789  # bytes


def test_bombs_in_a_zip_are_left_out(tmp_path, capsys):
    """An image of 50,000 x 50,000 pixels, and one that unpacks to far more bytes than its header claims."""
    files = {f"{number:03}.png": picture(number, "png") for number in range(200)}
    header = struct.pack(">2I5B", 50_000, 50_000, 8, 2, 0, 0, 0)
    content, rest = files["050.png"], files["050.png"][33:]
    files["050.png"] = content[:12] + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + rest
    labels = json.dumps({"labels": [[name, int(name[:3]) % 2] for name in files]})
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, bytes(BOMB) if name == "070.png" else data)
        archive.writestr("dataset.json", labels)
    content = (tmp_path / "data.zip").read_bytes()
    (tmp_path / "data.zip").write_bytes(content.replace(struct.pack("<I", BOMB), struct.pack("<I", 2000)))
    found = packed(tmp_path, "--dataset", "folder", "--data_path", tmp_path / "data.zip")
    said = capsys.readouterr().err.splitlines()
    assert [line.split("'")[1].split("/")[-1] for line in said] == ["050.png", "070.png"]
    assert "Image size (2500000000 pixels) exceeds limit" in said[0]
    assert said[1].endswith(": it does not have the 2000 bytes that the ZIP claims")
    assert [entry[0] for entry in found.about.left_out] == [50, 70]
