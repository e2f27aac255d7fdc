"""Data sets, subsets and batches, on scikit-learn's digits, and on image folders and IDX files made here."""

import dataclasses
import gzip
import os
import re
import resource
import shutil
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from commands import LIMIT, ROOT, launch, run
from PIL import Image
from sklearn.datasets import load_digits

import system
from dataset import batches, batches_per_epoch, load_dataset
from loading import image_sets, pipeline
from loading.image_sets import ImageSet, choose_classes
from parameters import Parameters
from processes.blocks import blocks
from utils import UserError

ANIMALS = ("cat", "dog", "eel", "fox")


def digits(**options):
    return Parameters(**{"dataset": "digits", "imsize": 16, "batch_size": 64} | options)


def folder(path, **options):
    return Parameters(**{"dataset": "folder", "data_path": str(path), "imsize": 8, "batch_size": 16} | options)


def color(label, number):
    return label * 60, number, 255 - number


@pytest.fixture
def animals(tmp_path):
    """A hundred images of each class. The colour of an image gives its class and number."""
    for label, name in enumerate(ANIMALS):
        (tmp_path / name).mkdir()
        for number in range(100):
            Image.new("RGB", (12, 9), color(label, number)).save(tmp_path / name / f"{number:03}.png")
    return tmp_path


def labels_colors(batch):
    """(label, class by colour, number by colour) of each image in a batch."""
    images, labels, _ = batch
    return [
        (int(label), int(image[0, 0, 0]) // 60, int(image[1, 0, 0]))
        for image, label in zip(images, labels, strict=True)
    ]


def take(iterator, count):
    taken = [next(iterator) for _ in range(count)]
    iterator.close()
    return taken


# The data sets


def test_digits_equal_those_of_scikit_learn():
    source = load_digits()
    train = load_dataset(digits(imsize=8, dont_resize=True))
    test = load_dataset(digits(imsize=8, dont_resize=True), "test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.name == "digits" and train.num_classes == 10 and train.class_names[7] == "7"
    assert train.image_shape == (1, 8, 8) and train.labels.dtype == np.int64
    merged = np.empty((1797, 8, 8))
    merged[np.arange(1797) % 5 != 0] = [train[i][0][0] for i in range(1437)]
    merged[::5] = [test[i][0][0] for i in range(360)]
    np.testing.assert_allclose(merged, source.images * 255 / 16, atol=0.5)
    np.testing.assert_array_equal(test.labels, source.target[::5])


@pytest.mark.parametrize("size", [16, 32, 5])
def test_resized_digits_keep_labels_and_brightness(size):
    small, resized = load_dataset(digits(imsize=8)), load_dataset(digits(imsize=size))
    for i in range(0, 1437, 100):
        image, label = resized[i]
        assert image.shape == (1, size, size) and image.dtype == np.uint8 and label == small.labels[i]
        assert abs(float(image.mean()) - float(small[i][0].mean())) < 8


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_mnist_is_read_and_resized(tmp_path, name):
    def write(file, array):
        header = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
        (tmp_path / file).write_bytes(gzip.compress(header + array.tobytes()))

    for prefix, count in (("train", 30), ("t10k", 10)):
        write(f"{prefix}-images-idx3-ubyte.gz", np.repeat(np.arange(count, dtype=np.uint8), 784).reshape(-1, 28, 28))
        write(f"{prefix}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8)[::-1] % 10)
    parameters = Parameters(dataset=name, data_path=str(tmp_path), imsize=32)
    train, test = load_dataset(parameters), load_dataset(parameters, "test")
    assert train.image_shape == (1, 32, 32) and (len(train), len(test)) == (30, 10)
    assert (train[7][0] == 7).all() and train[7][1] == 2
    assert train.class_names[9] == {"mnist": "9", "fashion-mnist": "Ankle boot"}[name]
    elsewhere = Parameters(dataset=name, data_path="nowhere", test_data_path=str(tmp_path), imsize=32)
    np.testing.assert_array_equal(load_dataset(elsewhere, "test").labels, test.labels)
    subset = load_dataset(Parameters(dataset=name, data_path=str(tmp_path), imsize=32, classes="9,0,4"))
    assert sorted(labels_and_pixels(subset)) == [
        (0, 0),
        (0, 10),
        (0, 20),
        (1, 9),
        (1, 19),
        (1, 29),
        (2, 5),
        (2, 15),
        (2, 25),
    ]


def labels_and_pixels(image_set):
    return [(int(label), int(image[0, 0, 0])) for image, label in map(image_set.__getitem__, range(len(image_set)))]


def test_fake_images_depend_only_on_split_and_index():
    parameters = Parameters(dataset="fake", num_classes=1000, imsize=32)
    train, again = load_dataset(parameters), load_dataset(parameters)
    assert train.num_classes == 1000 and set(train.labels) == set(range(1000)) and train.image_shape == (3, 32, 32)
    np.testing.assert_array_equal(train[5000][0], again[5000][0])
    assert train[5000][0].dtype == np.uint8 and 120 < train[5000][0].mean() < 135
    others = (train[5001], load_dataset(parameters, "test")[5000])
    assert all((image != train[5000][0]).mean() > 0.99 for image, _ in others)
    assert load_dataset(Parameters(dataset="fake")).num_classes == 10
    with pytest.raises(UserError, match="--num_classes 2000000000"):
        load_dataset(Parameters(dataset="fake", num_classes=2_000_000_000))


def test_a_folder_is_read_in_order(animals):
    image_set = load_dataset(folder(animals))
    assert (len(image_set), image_set.class_names, image_set.image_shape) == (400, ANIMALS, (3, 8, 8))
    assert image_set.labels.dtype == np.int64 and image_set.labels.tolist() == sorted(list(range(4)) * 100)
    for i in (0, 99, 100, 399):
        image, label = image_set[i]
        assert image.shape == (3, 8, 8) and image.dtype == np.uint8
        assert (image == np.reshape(color(label, i % 100), (3, 1, 1))).all() and label == i // 100
    with pytest.raises(IndexError):
        image_set[400]


def test_test_images_come_from_test_data_path(animals, tmp_path):
    with pytest.raises(UserError, match="--test_data_path is missing"):
        load_dataset(folder("nowhere"), "test")
    assert len(load_dataset(folder("nowhere", test_data_path=str(animals)), "test")) == 400


def test_only_a_chosen_class_without_images_is_refused(animals):
    (animals / "emu").mkdir()
    with pytest.raises(UserError, match=r"--data_path .* no images of the class emu"):
        load_dataset(folder(animals))
    assert load_dataset(folder(animals, classes="fox,cat")).class_names == ("fox", "cat")


def test_names_of_classes_show_whether_a_folder_looks_like_imagenet(animals):
    assert not load_dataset(folder(animals, dataset="imagenet")).is_like_imagenet
    for number, name in enumerate(ANIMALS):
        (animals / name).rename(animals / f"n0144076{number}")
    assert load_dataset(folder(animals, dataset="imagenet")).is_like_imagenet


# Classes


@pytest.mark.parametrize(
    ("classes", "chosen"),
    [
        (None, list(range(30))),
        ("10,20", list(range(10, 20))),
        ("28, 30", [28, 29]),
        ("7,3,29", [7, 3, 29]),
        ("c4,c2", [4, 2]),
    ],
)
def test_classes_are_chosen(classes, chosen):
    assert choose_classes([f"c{number}" for number in range(30)], classes) == chosen


def test_classes_are_drawn_by_seed():
    names = [f"c{number}" for number in range(1000)]
    drawn = choose_classes(names, "random:10:7")
    assert drawn == sorted(set(drawn)) and len(drawn) == 10 and drawn == choose_classes(names, "random:10:7")
    assert drawn != choose_classes(names, "random:10:8") and drawn[-1] > 500
    assert choose_classes(names[:10], "random:10:8") == list(range(10))


@pytest.mark.parametrize(
    ("classes", "problem"),
    [
        ("25,31", "beyond the last"),
        ("0,999999999", "beyond the last"),
        ("1,2,30", "beyond the last"),
        ("c1,c30", "names c30, which is not a class"),
        ("1,2,c3", "names 1, which is not a class"),
        ("1,2,1", "a class twice"),
        ("c2,c3,c2", "a class twice"),
        ("random:31:1", "draws 31"),
        ("5,6", "fewer than two"),
        ("20,10", "fewer than two"),
        ("c5", "fewer than two"),
    ],
)
def test_wrong_classes_are_refused_and_the_valid_ones_named(classes, problem):
    with pytest.raises(
        UserError, match=f"--classes {classes} .*{problem}.* 30 classes, 0 .c0. to 29 .c29.; .* none takes"
    ):
        choose_classes([f"c{number}" for number in range(30)], classes)


def test_a_class_range_as_wide_as_the_data_takes_all_classes(animals, capsys):
    image_set = load_dataset(folder(animals, classes="10,14", num_classes=4))
    assert image_set.class_names == ANIMALS
    assert re.fullmatch("--classes 10,14.*4 classes.*\n", capsys.readouterr().err)


def test_a_subset_renumbers_its_classes(animals):
    image_set = load_dataset(folder(animals, classes="fox,cat"))
    assert image_set.num_classes == 2 and len(image_set) == 200
    assert image_set[0][1] == 0 and image_set[0][0][0, 0, 0] == 180  # a fox
    nines = load_dataset(digits(classes="9,1,4"))
    assert nines.class_names == ("9", "1", "4")
    source = load_digits().target[np.arange(1797) % 5 != 0]
    expected = [["9", "1", "4"].index(str(t)) for t in source if t in (9, 1, 4)]
    assert nines.labels.tolist() == expected
    everything = load_dataset(digits())
    np.testing.assert_array_equal(nines[3][0], everything[np.flatnonzero(np.isin(source, (9, 1, 4)))[3]][0])


def test_another_number_of_classes_is_refused(animals):
    """A choice of classes is advised only if it can help."""
    with pytest.raises(UserError, match=r"--num_classes 10 does not fit .* 4 classes: .* data of 10 classes$"):
        load_dataset(folder(animals, num_classes=10))
    with pytest.raises(UserError, match=r"--num_classes 3 does not fit .* 4 classes: .* such as random:3:1$"):
        load_dataset(folder(animals, num_classes=3))
    assert load_dataset(folder(animals, classes="0,2", num_classes=2)).num_classes == 2


def test_test_images_of_another_number_of_classes_are_refused(animals):
    """The message does not name --num_classes, since the number came from a checkpoint. --classes adds no classes."""
    with pytest.raises(UserError, match=r"^the generator has 2 classes, --test_data_path \S+ has 4: .*--classes$"):
        load_dataset(folder(None, test_data_path=str(animals), num_classes=2), "test")
    advice = "give test images of all classes of the generator$"
    few = folder(None, test_data_path=str(animals), num_classes=6)
    with pytest.raises(UserError, match=rf"^the generator has 6 classes, --test_data_path \S+ has 4: {advice}"):
        load_dataset(few, "test")
    for more, found in (((), "it lacks ant"), (("bee",), "it lacks ant and 1 more")):
        names = ("ant", *more, *load_dataset(folder(animals)).class_names)
        few = folder(None, test_data_path=str(animals), num_classes=len(names))
        with pytest.raises(UserError, match=rf" has 4: {found}; {advice}"):
            load_dataset(few, "test", names)
    with pytest.raises(UserError, match=r"^the generator has 9 classes, --dataset digits has 10: "):
        load_dataset(digits(num_classes=9), "test")


def test_images_that_are_not_resized_must_fit(animals):
    with pytest.raises(UserError, match=r"cat/000.png: --dont_resize .*12x9"):
        load_dataset(folder(animals, dont_resize=True))


# Files that are not images


def cut_short(path):
    os.truncate(path, path.stat().st_size - 30)


@pytest.mark.parametrize("num_workers", [0, 3])
def test_broken_files_are_named_once_and_replaced_by_the_next(animals, capsys, num_workers):
    (animals / "dog" / "010.png").write_text("no image")
    cut_short(animals / "dog" / "011.png")
    cut_short(animals / "fox" / "099.png")
    image_set = load_dataset(folder(animals, dont_shuffle=True, num_workers=num_workers))
    epoch = [item for batch in take(batches(image_set, image_set.parameters, 0), 50) for item in labels_colors(batch)]
    expected = [(label, label, number) for label in range(4) for number in range(100)]
    expected[110] = expected[111] = expected[112]
    expected[399] = expected[0]
    assert epoch == expected * 2
    lines = sorted(capsys.readouterr().err.splitlines())
    assert [re.search("(dog|fox)/0..", line)[0] for line in lines] == ["dog/010", "dog/011", "fox/099"]
    assert "not an image" in lines[0]
    assert [re.search(r"left out \((\d) of 400 files so far\)", line)[1] for line in lines] == ["1", "2", "3"]


def test_a_picture_of_floats_is_left_out_with_the_reason(animals, capsys):
    """Its range is not known; read as 8 bits it would be black."""
    Image.fromarray(np.full((9, 12), 0.5, np.float32)).save(animals / "dog" / "010.tif")
    (animals / "dog" / "010.png").unlink()
    image_set = load_dataset(folder(animals))
    np.testing.assert_array_equal(image_set[110][0], image_set[111][0])
    (line,) = capsys.readouterr().err.splitlines()
    assert "dog/010.tif' is left out (1 of 400 files so far): its pixels are floating-point" in line
    assert line.endswith("convert it to a PNG with 8 or 16 bits a channel")


def test_threads_that_read_a_broken_file_together_name_it_once(animals, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8)
    Image.fromarray(noise).save(animals / "cat" / "001.jpg")  # large, so that all threads read it at once
    cut_short(animals / "cat" / "001.jpg")
    image_set = load_dataset(folder(animals))
    with ThreadPoolExecutor(4) as pool:
        labels = [int(label) for _, label in pool.map(image_set.__getitem__, [1] * 4)]
    assert labels == [0] * 4 and capsys.readouterr().err.count("cat/001.jpg") == 1


@pytest.mark.parametrize("num_workers", [0, 3])
def test_too_many_broken_files_stop_the_run(animals, num_workers):
    for number in range(5):
        (animals / "eel" / f"{number:03}.png").write_bytes(b"")
    image_set, threads = load_dataset(folder(animals, num_workers=num_workers)), threading.active_count()
    with pytest.raises(UserError, match=r"5 of the 400 files .*eel/00"):
        take(batches(image_set, image_set.parameters, 0), 25)
    assert threading.active_count() == threads


@pytest.mark.parametrize("num_workers", [0, 3])
def test_one_message_names_all_broken_files_of_a_small_folder(animals, capsys, num_workers):
    for name in ANIMALS[2:]:
        shutil.rmtree(animals / name)
    for number in range(29, 100):
        for name in ANIMALS[:2]:
            (animals / name / f"{number:03}.png").unlink()
    broken = [animals / name / f"{number:03}.png" for name, number in (("cat", 7), ("dog", 0), ("dog", 28))]
    for path in broken:
        path.write_bytes(b"no image")
    image_set = load_dataset(folder(animals, num_workers=num_workers))
    with pytest.raises(UserError) as refused:
        take(batches(image_set, image_set.parameters, 0), 9)
    names = ", ".join(repr(str(path)) for path in broken)
    assert str(refused.value) == (
        f"3 of the 58 files in {animals} cannot be read as images: {names}; replace or remove them, because at most 1% "
        "may be broken"
    )
    said = capsys.readouterr().err
    assert all(said.count(f"{str(path)!r} is left out (") == 1 for path in broken)


def test_many_broken_files_stop_the_run_with_their_number_and_some_names(animals, capsys, monkeypatch):
    for path in animals.glob("*/*.png"):
        path.write_bytes(b"no image")
    monkeypatch.setattr(image_sets, "CHECKED", 100)
    first = ", ".join(repr(str(animals / "cat" / f"{number:03}.png")) for number in range(10))
    with pytest.raises(UserError) as refused:
        load_dataset(folder(animals))
    assert f"at least 105 of the 400 files in {animals} cannot be read as images, such as {first}; " in str(
        refused.value
    )
    assert capsys.readouterr().err.count("is left out") == 10


def test_an_error_of_the_system_leaves_no_image_out(animals, capsys, monkeypatch):
    """As that of a network file system, an error may pass: here, that this process has too many open files."""
    limits, pauses = resource.getrlimit(resource.RLIMIT_NOFILE), []
    image_set = load_dataset(folder(animals))

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    monkeypatch.setattr(image_sets.time, "sleep", pause)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        assert labels_colors((image_set[110][0][None], [image_set.labels[110]], 1)) == [(1, 1, 10)] and len(pauses) == 2
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        with pytest.raises(UserError, match=r"dog/010\.png cannot be read: Too many open files; make it"):
            image_set[110]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not image_set.left_out and capsys.readouterr().err == ""


# Files that are skipped, photos that are turned


def litter(path):
    """Add to a class folder some files that are not images."""
    for name in ("a.heic", "b.HEIC", "Thumbs.db", ".DS_Store", "notes.txt"):
        (path / name).touch()
    (path / "gone.png").symlink_to("nowhere")
    (path / "loop.png").symlink_to("loop.png")
    (path / "more.png").mkdir()
    os.mkfifo(path / "pipe.png")


def test_skipped_files_are_reported_once(animals, capsys):
    """However often the set is loaded. With --classes, only files of the chosen classes count."""
    for name in ("cat", "dog"):
        litter(animals / name)
    Image.new("RGB", (8, 8)).save(animals / "beside.png")
    for _ in range(2):
        load_dataset(folder(animals))
    load_dataset(folder(animals, classes="dog,fox"))
    *loops, everything, chosen = capsys.readouterr().err.splitlines()
    assert loops == [f"'{animals}/{name}/loop.png' is left out: it is a link to itself" for name in ("cat", "dog")]
    assert everything == (
        f"skipped in --data_path {animals}: 4 .heic files, 2 .db files, 2 .txt files, 2 broken links, 2 folders, "
        "2 links to themselves, 2 special files, 1 image beside the classes"
    )
    assert chosen == (
        f"skipped in --data_path {animals}: 2 .heic files, 1 .db file, 1 .txt file, 1 broken link, 1 folder, "
        "1 image beside the classes, 1 link to itself, 1 special file"
    )


def test_skipped_files_do_not_change_the_order(animals):
    """The digests come from versions that did not count skipped files."""
    before = load_dataset(folder(animals)).fingerprint()
    for name in ANIMALS:
        litter(animals / name)
    image_set = load_dataset(folder(animals))
    assert image_set.fingerprint() == before
    assert {name: before[name] for name in before if name != "file sizes"} == {
        "number of images": 400, "classes": "5aa51ddf5c3a6840", "labels": "0d1e9bed68d373ea",
        "file names": "c2a0394e219d2ef0",
    }  # fmt: skip
    (animals / "cat" / "005.jfif").write_bytes((animals / "cat" / "005.png").read_bytes())
    image_set = load_dataset(folder(animals))
    assert [image_set.path(place).name for place in (4, 5, 6, 7)] == ["004.png", "005.jfif", "005.png", "006.png"]


def sideways(path):
    """Save a photo of 9 x 12 pixels whose upper half is white, turned by 90 degrees, as a phone stores it."""
    upright = np.zeros((12, 9, 3), np.uint8)
    upright[:6] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(upright)).save(path, exif=exif, quality=95)
    return path


def test_photos_that_are_stored_sideways_are_counted_or_turned(animals, capsys):
    sideways(animals / "cat" / "000.jpg")
    (animals / "cat" / "000.png").unlink()
    stored, again, turned = (load_dataset(folder(animals, exif=exif)) for exif in (False, False, True))
    assert capsys.readouterr().err.splitlines() == [
        f"stored sideways or mirrored: 1 of the first 400 images in --data_path {animals}, by their EXIF orientation; "
        "--exif turns them upright",
        f"turned upright by --exif: 1 of the first 400 images in --data_path {animals}",
    ]
    assert abs(turned[0][0][:, :3].astype(int) - 255).max() < 20 and turned[0][0][:, -3:].max() < 20
    assert abs(stored[0][0][:, :, :3].astype(int) - 255).max() < 20 and stored[0][0][:, :, -3:].max() < 20
    np.testing.assert_array_equal(turned[1][0], stored[1][0])
    np.testing.assert_array_equal(again[0][0], stored[0][0])
    assert turned.fingerprint() == stored.fingerprint()  # it depends on the files alone


def test_turned_photos_are_counted_in_the_first_thousand_images(tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.jpg", exif=exif)
    for name, count in (("cat", 990), ("dog", 30)):
        (tmp_path / name).mkdir()
        for number in range(count):
            (tmp_path / name / f"{number:03}.jpg").symlink_to(tmp_path / "photo.jpg")
    load_dataset(folder(tmp_path))
    assert "1000 of the first 1000 images" in capsys.readouterr().err


FLOWERS = [
    "--data_path", "flowers", "--dataset", "folder", "--imsize", 32, "--g_conv_dim", 4, "--d_conv_dim", 4,
    "--batch_size", 4, "--total_step", 2, "--device", "cpu",
]  # fmt: skip


@pytest.fixture
def flowers(tmp_path):
    """The folder of `flowers`: twenty photos of two classes, one of them stored sideways, and files that are not
    images.
    """
    for label, name in enumerate(("rose", "tulip")):
        (tmp_path / "flowers" / name).mkdir(parents=True)
        for number in range(10):
            noise = np.random.default_rng([label, number]).integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(noise).resize((80, 60)).save(tmp_path / "flowers" / name / f"{number}.jpg")
    sideways(tmp_path / "flowers" / "rose" / "3.jpg")
    (tmp_path / "flowers" / "rose" / "photo.heic").touch()
    (tmp_path / "flowers" / "rose" / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "flowers" / "tulip" / "more").mkdir()
    return tmp_path


SKIPPED = "skipped in --data_path flowers: 1 .heic file, 1 broken link, 1 folder"
SIDEWAYS = (
    "stored sideways or mirrored: 1 of the first 20 images in --data_path flowers, by their EXIF orientation; --exif "
    "turns them upright"
)


@pytest.mark.slow
def test_a_training_reports_skipped_files_and_keeps_its_exif_option(flowers):
    """`--exif` belongs to the data, so a resumed run cannot change it."""
    code, out, err = run(flowers, ROOT / "train.py", *FLOWERS, "--name", "stored")
    assert code == 0 and "trained 2 steps" in out, err
    assert [err.splitlines().count(line) for line in (SKIPPED, SIDEWAYS)] == [1, 1]
    code, out, err = run(flowers, ROOT / "train.py", *FLOWERS, "--name", "turned", "--exif")
    assert code == 0 and "trained 2 steps" in out, err
    assert "turned upright by --exif: 1 of the first 20 images in --data_path flowers" in err.splitlines()
    runs = flowers / "sagan_models"
    code, _, err = run(flowers, ROOT / "train.py", "--resume", runs / "stored", "--exif", "--total_step", 3)
    assert (
        code == 2
        and err.startswith("train.py: --exif True differs from False, its value in ")
        and len(err.splitlines()) == 1
    )
    code, _, err = run(flowers, ROOT / "train.py", "--resume", runs / "turned", "--total_step", 3)
    assert code == 0 and "turned upright by --exif" in err, err


@pytest.mark.slow
def test_only_rank_0_reports_skipped_files(flowers):
    process = launch(flowers, 2, ROOT / "train.py", *FLOWERS)
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, out + err
    logs = [(flowers / "logs" / f"workerlog.{rank}").read_text().splitlines() for rank in range(2)]
    assert [[log.count(line) for line in (SKIPPED, SIDEWAYS)] for log in logs] == [[1, 1], [0, 0]]


# How images are read


def test_the_filter_resizes_training_and_test_images(animals):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))
    noise.save(animals / "cat" / "000.png")
    for name in (None, "box", "bilinear", "hamming", "bicubic", "lanczos"):
        p = folder(animals, test_data_path=str(animals), resize_filter=name)
        expected = np.asarray(noise.resize((8, 8), Image.Resampling[(name or "bilinear").upper()])).transpose(2, 0, 1)
        for split in ("train", "test"):
            np.testing.assert_array_equal(load_dataset(p, split)[0][0], expected)
    given, usual = load_dataset(digits(resize_filter="bilinear")), load_dataset(digits())
    assert (given[0][0] != usual[0][0]).any()
    np.testing.assert_array_equal(load_dataset(digits(resize_filter="bicubic"))[0][0], usual[0][0])


@pytest.fixture
def photos(tmp_path):
    """Two classes of ten smooth JPEGs of 256 x 192 pixels."""
    for label, name in enumerate(("rose", "tulip")):
        (tmp_path / name).mkdir()
        for number in range(10):
            small = np.random.default_rng([label, number]).integers(0, 256, (6, 8, 3), np.uint8)
            Image.fromarray(small).resize((256, 192), Image.Resampling.BICUBIC).save(tmp_path / name / f"{number}.jpg")
    return tmp_path


def test_fast_decoding_changes_only_training_batches_and_only_a_little(photos):
    options = {"imsize": 32, "batch_size": 10, "dont_shuffle": True, "centercrop": True, "centercrop_size": 32}
    exact, fast = (load_dataset(folder(photos, fast_decode=fast, **options)) for fast in (False, True))
    np.testing.assert_array_equal(fast.stacked(), exact.stacked())  # as evaluation reads them
    (images, labels, _), (other, other_labels, _) = (next(batches(s, s.parameters, 0)) for s in (exact, fast))
    np.testing.assert_array_equal(images, exact.stacked()[:10])
    np.testing.assert_array_equal(labels, other_labels)
    difference = abs(images.astype(int) - other)
    assert 0 < difference.mean() < 3 and difference.max() < 30
    large = folder(photos, fast_decode=True, **options | {"imsize": 128, "centercrop_size": 128})
    image_set = load_dataset(large)  # 192 pixels are less than twice 128, so nothing is left out
    np.testing.assert_array_equal(next(batches(image_set, large, 0))[0], image_set.stacked()[:10])


def mirrored(image_set, batch, rows):
    """Whether each image of `batch`, the images `rows` of the set, is mirrored."""
    flags = []
    for image, row in zip(batch[0], rows, strict=True):
        original = image_set[row][0]
        flags.append((image == original[..., ::-1]).all())
        assert flags[-1] != (image == original).all()
    return flags


@pytest.mark.parametrize("in_memory", [False, True])
def test_half_of_the_images_are_mirrored_whatever_the_start_and_the_processes(in_memory):
    p = digits(mirror=True, batch_size=40, dont_shuffle=True, data_in_memory=in_memory)
    image_set = load_dataset(p)
    epoch = batches_per_epoch(image_set, p)
    taken = take(batches(image_set, p, 0), epoch + 1)
    flags = [mirrored(image_set, batch, range(40 * i, 40 * i + 40)) for i, batch in enumerate(taken[:epoch])]
    assert 0.45 < np.mean(flags) < 0.55
    assert mirrored(image_set, taken[epoch], range(40)) != flags[0]  # another epoch, other images
    np.testing.assert_array_equal(take(batches(image_set, p, 3), 1)[0][0], taken[3][0])
    by_rank = [take(batches(image_set, dataclasses.replace(p, batch_size=20), 3, rank, 2), 1)[0] for rank in range(2)]
    np.testing.assert_array_equal(np.concatenate([own[0] for own in by_rank]), taken[3][0])
    plain = dataclasses.replace(p, mirror=False)
    np.testing.assert_array_equal(take(batches(image_set, plain, 0), 1)[0][0], image_set.stacked()[:40])


@pytest.mark.parametrize("num_workers", [0, 3])
def test_images_in_memory_make_the_same_batches_and_are_read_once(animals, capsys, num_workers):
    cut_short(animals / "dog" / "011.png")
    options = {"num_workers": num_workers, "mirror": True}
    expected, found = (
        take(batches(load_dataset(p), p, 0), 30)
        for p in (folder(animals, **options), folder(animals, data_in_memory=True, **options))
    )
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    p = folder(animals, data_in_memory=True, **options)
    image_set = load_dataset(p)
    iterator = batches(image_set, p, 0)
    first = next(iterator)
    for path in animals.glob("*/*.png"):
        path.unlink()
    assert len(take(iterator, 60)) == 60 and first[0].shape == (16, 3, 8, 8)
    assert capsys.readouterr().err.count("dog/011.png") == 3  # once for each set


@pytest.mark.parametrize(("split", "option"), [("train", "--data_path"), ("test", "--test_data_path")])
def test_one_image_instead_of_a_folder_is_refused(animals, split, option):
    image = animals / "cat" / "000.PNG"
    (animals / "cat" / "000.png").rename(image)
    with pytest.raises(UserError) as caught:
        load_dataset(folder(image, test_data_path=str(image)), split)
    assert str(caught.value) == (
        f"{option} {image} is one image: give the folder that holds one folder of images for each class"
    )


def test_images_that_do_not_fit_into_memory_are_refused(animals, monkeypatch):
    monkeypatch.setattr(system, "free_memory", lambda: 70_000)
    p = folder(animals, data_in_memory=True)
    with pytest.raises(UserError, match=r"^--data_in_memory needs 0.0 GB for 400 images, and 0.0 GB are free: leave"):
        next(batches(load_dataset(p), p, 0))
    monkeypatch.setattr(system, "free_memory", lambda: 100_000)
    next(batches(load_dataset(p), p, 0))
    monkeypatch.setenv("PADDLE_LOCAL_SIZE", "2")  # each process on the host has its own copy
    with pytest.raises(UserError, match="for 400 images in each of 2 processes, and"):
        next(batches(load_dataset(p), p, 0))


def test_a_file_that_hangs_is_named_and_read_when_it_comes_back(animals, capsys, monkeypatch):
    """A named pipe without a writer hangs as a file of a network file system does."""
    monkeypatch.setattr(pipeline, "HANGING", 0.2)
    content = (animals / "cat" / "003.png").read_bytes()
    p = folder(animals, dont_shuffle=True, num_workers=2)
    image_set = load_dataset(p)
    (animals / "cat" / "003.png").unlink()
    os.mkfifo(animals / "cat" / "003.png")
    writer = threading.Timer(1.5, (animals / "cat" / "003.png").write_bytes, [content])
    writer.start()
    (batch,) = take(batches(image_set, p, 0), 1)
    writer.join()
    assert [number for _, _, number in labels_colors(batch)][:3] == [0, 1, 2]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "has been read for" in line]
    assert line.startswith(f"'{animals}/cat/003.png' has been read for ") and line.endswith("the run waits")


# Batches


def test_an_epoch_holds_each_image_once_in_an_order_of_its_own():
    image_set = load_dataset(digits(batch_size=100))
    assert batches_per_epoch(image_set, image_set.parameters) == 14
    image_set = Numbered(1400)
    parameters = digits(batch_size=100)
    taken = [labels.tolist() for _, labels, _ in take(batches(image_set, parameters, 0), 28)]
    first, second = np.concatenate(taken[:14]).tolist(), np.concatenate(taken[14:]).tolist()
    assert sorted(first) == sorted(second) == list(range(1400))
    assert first != second and first != sorted(first)
    other = take(batches(image_set, digits(batch_size=100, manual_seed=1), 0), 1)
    assert other[0][1].tolist() != taken[0]


class Numbered(ImageSet):
    """`count` images whose labels are their indices."""

    def __init__(self, count):
        super().__init__(digits(), [], np.arange(count))

    def __getitem__(self, index):
        return np.full((1, 2, 2), index % 256, np.uint8), self.labels[index]


def test_the_order_is_the_same_with_every_numpy():
    _, labels, _ = take(batches(Numbered(1000), digits(batch_size=500), 4), 1)[0]
    # Epoch 2 in the order of NumPy 1.26: a run may be resumed with another version of NumPy.
    assert labels[:8].tolist() == [142, 509, 61, 279, 602, 177, 311, 375]


@pytest.mark.parametrize("first", [1, 13, 14, 15, 1000])
def test_batches_can_start_at_any_step(first):
    image_set, parameters = load_dataset(digits(batch_size=100)), digits(batch_size=100)
    expected = take(batches(image_set, parameters, first - 1), 3)[1:]
    for (images, labels, _), (images_from_here, labels_from_here, _) in zip(
        expected, take(batches(image_set, parameters, first), 2), strict=True
    ):
        assert images.shape == (100, 1, 16, 16) and images.dtype == np.uint8 and labels.dtype == np.int64
        np.testing.assert_array_equal(images, images_from_here)
        np.testing.assert_array_equal(labels, labels_from_here)


def test_dont_shuffle_keeps_the_order_and_processes_share_it():
    def labels(world_size, rank, count):
        iterator = batches(Numbered(50), digits(batch_size=12 // world_size, dont_shuffle=True), 0, rank, world_size)
        return [labels.tolist() for _, labels, _ in take(iterator, count)]

    assert labels(1, 0, 5) == [list(range(start, start + 12)) for start in (0, 12, 24, 36, 0)]
    by_rank = [labels(3, rank, 5) for rank in range(3)]
    assert [np.concatenate(batch).tolist() for batch in zip(*by_rank, strict=True)] == labels(1, 0, 5)
    assert {len(batch) for own in by_rank for batch in own} == {4}


def test_shuffled_batches_are_the_same_for_any_number_of_processes():
    whole = take(batches(Numbered(100), digits(batch_size=12), 3), 9)
    by_rank = [take(batches(Numbered(100), digits(batch_size=4), 3, rank, 3), 9) for rank in range(3)]
    for number, (_, labels, _) in enumerate(whole):
        np.testing.assert_array_equal(labels, np.concatenate([own[number][1] for own in by_rank]))


def test_the_incomplete_batch_is_shared_out():
    def epoch(count, rank=0, world_size=1, **options):
        image_set, parameters = Numbered(count), digits(dont_shuffle=True, **options)
        steps = batches_per_epoch(image_set, parameters, world_size)
        return [y.tolist() for _, y, _ in take(batches(image_set, parameters, 0, rank, world_size), steps)]

    assert [len(batch) for batch in epoch(50, batch_size=16)] == [16, 16, 16]
    assert [len(batch) for batch in epoch(50, batch_size=16, dont_drop_last=True)] == [16, 16, 16, 2]
    assert epoch(10, batch_size=64, dont_drop_last=True) == [list(range(10))]
    last = [epoch(31, rank, 4, batch_size=6, dont_drop_last=True)[-1] for rank in range(4)]
    assert last == [[24], [25, 26], [27, 28], [29, 30]]


@pytest.mark.parametrize("dont_shuffle", [True, False])
@pytest.mark.parametrize("count", [48, 49, 50, 53, 71])  # a batch has 24
@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_an_epoch_holds_each_image_once_over_all_processes(world_size, rounds, count, dont_shuffle):
    """In the order of one process. Each image counts by its share of its batch, also where four processes share one
    image.
    """
    image_set = Numbered(count)
    share = 24 // world_size
    parameters = digits(
        batch_size=share, batch_size_in_gpu=share // rounds or 1, dont_drop_last=True, dont_shuffle=dont_shuffle
    )
    one = digits(batch_size=24, dont_drop_last=True, dont_shuffle=dont_shuffle)
    steps = batches_per_epoch(image_set, parameters, world_size)
    assert steps == batches_per_epoch(image_set, one)
    whole = take(batches(image_set, one, steps), steps)  # the second epoch
    by_rank = [take(batches(image_set, parameters, steps, rank, world_size), steps) for rank in range(world_size)]
    for step, (_, expected, size) in enumerate(whole):
        cut = [blocks(size, parameters.rounds, rank, world_size) for rank in range(world_size)]
        weights = dict.fromkeys(expected.tolist(), 0)
        in_order = []
        for number in range(parameters.rounds):
            for rank in range(world_size):
                block = cut[rank][number]
                first = sum(len(earlier.rows) for earlier in cut[rank][:number])
                labels = by_rank[rank][step][1][first : first + len(block.rows)]
                for label in labels:
                    weights[label] += block.share / len(block.rows)
                in_order += labels.tolist() if block.share else []
        np.testing.assert_allclose(list(weights.values()), 1 / size, rtol=1e-12)
        assert in_order == expected.tolist()
        assert {own[step][2] for own in by_rank} == {size}


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(UserError, match=r"--batch_size 64 .*50 images"):
        next(batches(Numbered(50), digits(batch_size=64), 0))
    with pytest.raises(UserError, match=r"--batch_size 32 .* 2 processes .*50 images"):
        batches_per_epoch(Numbered(50), digits(batch_size=32), 2)


def test_workers_change_nothing_and_stop_when_the_iterator_closes(animals):
    results, threads = [], threading.active_count()
    for num_workers in (0, 1, 5):
        image_set = load_dataset(folder(animals, num_workers=num_workers))
        iterator = batches(image_set, image_set.parameters, 10)
        results.append([next(iterator) for _ in range(20)])
        assert threading.active_count() == threads + num_workers
        iterator.close()
        assert threading.active_count() == threads
    for other in results[1:]:
        for (images, labels, _), (expected, expected_labels, _) in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(images, expected)
            np.testing.assert_array_equal(labels, expected_labels)
    assert all(label == by_color for batch in results[0] for label, by_color, _ in labels_colors(batch))


def test_writing_to_a_batch_changes_no_other_batch(animals):
    image_set = load_dataset(folder(animals, dont_shuffle=True))
    images, _, _ = take(batches(image_set, image_set.parameters, 0), 1)[0]
    images[:] = 0  # a batch is writable
    assert take(batches(image_set, image_set.parameters, 0), 1)[0][0].max() > 0
