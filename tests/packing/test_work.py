"""Packed images equal those of their source; an interrupted packing goes on; the report names what matters."""

import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from commands import LIMIT, ROOT, SMALL, launch, run, start, wait_for, worker_pids
from PIL import Image
from test_faults import fill, mounted
from test_resume import train

import checkpoint
from dataset import batches, load_dataset
from formats.packed_data import About, open_packed
from loading.image_sets import ImageSet
from packing.files import NPZ, ZIP, Growing
from packing.work import report
from parameters import Parameters
from utils import UserError

CLASSES = ("cat", "dog", "eel")
BROKEN = "cat/049.jpg"  # the last one of its class, so an image of the next class replaces it


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with photos/: 50 images of each class, of different formats and sizes; one is broken."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in CLASSES:
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(50):
            pixels = rng.integers(256, size=(20 + number, 30, 3), dtype=np.uint8)
            ending = "jpg" if number % 3 == 1 else "png"
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number:03}.{ending}")
    (folder / "photos" / BROKEN).write_bytes(b"no image")
    return folder


def pack(folder, *options):
    """Run pack.py in `folder`. Returns its output."""
    code, out, err = run(folder, ROOT / "pack.py", *options)
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def packed(photos):
    """The folder of `photos` with packs of it: {ending: output of pack.py}."""
    options = ["--dataset", "folder", "--data_path", "photos", "--imsize", 16, "--centercrop"]
    outputs = {
        ending: pack(photos, *options, "--num_workers", workers, "--out", f"photos.{ending}")
        for ending, workers in (("npz", 0), ("zip", 2))
    }
    return photos, outputs


def folder_set(path, **options):
    values = {"dataset": "folder", "imsize": 16, "centercrop": True, "centercrop_size": 16, "batch_size": 16}
    return load_dataset(Parameters(data_path=str(path), **values | options))


@pytest.mark.parametrize("ending", ["npz", "zip"])
@pytest.mark.parametrize("options", [{}, {"classes": "eel,cat"}, {"classes": "random:2:3"}, {"num_workers": 0}])
def test_batches_equal_the_folders_in_one_and_two_processes(packed, ending, options):
    folder, _ = packed
    one, two = (folder_set(folder / name, **options) for name in ("photos", f"photos.{ending}"))
    assert one.class_names == two.class_names
    np.testing.assert_array_equal(one.labels, two.labels)
    if "classes" not in options:
        assert one.fingerprint() == two.fingerprint()
    for rank, processes in ((0, 1), (0, 2), (1, 2)):
        found, expected = (batches(images, images.parameters, 1, rank, processes) for images in (two, one))
        for _ in range(15):  # beyond the end of an epoch
            for a, b in zip(next(found), next(expected), strict=True):
                np.testing.assert_array_equal(a, b)
        found.close()
        expected.close()


OPTIONS = [*SMALL[2:], "--recipe", "acgan-digits", "--dataset", "folder", "--imsize", 16, "--centercrop"]
OPTIONS += ["--global_batch_size", 64, "--total_step", 4, "--log_step", 1, "--model_save_step", 2]  # 2 steps an epoch


def weights(path):
    return {step: checkpoint.load(path / "weights" / f"step-{step:08d}.safetensors").fingerprint() for step in (2, 4)}


def test_a_run_has_the_same_bits_from_a_folder_and_its_packs_and_may_change_between_them(packed, monkeypatch):
    folder, _ = packed
    monkeypatch.chdir(folder)
    options = [*map(str, OPTIONS), "--data_path"]
    runs = [train(*options, data, "--name", f"one-{data}") for data in ("photos", "photos.npz", "photos.zip")]
    assert weights(runs[0]) == weights(runs[1]) == weights(runs[2])
    train(*options, "photos", "--name", "both", "--total_step", "2")
    both = train("--resume", "sagan_models/both", "--data_path", "photos.npz", "--total_step", "4")
    assert weights(both) == weights(runs[0])
    assert "data have changed" not in (both / "log.txt").read_text()


@pytest.mark.slow
def test_two_processes_have_the_same_bits_from_a_folder_and_its_packs(packed, tmp_path):
    folder, _ = packed
    for data in ("photos", "photos.npz", "photos.zip"):
        options = ["--data_path", folder / data, "--save_path", tmp_path, "--name", data]
        process = launch(tmp_path, 2, ROOT / "train.py", *OPTIONS, *options)
        _, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, err
    assert weights(tmp_path / "photos") == weights(tmp_path / "photos.npz") == weights(tmp_path / "photos.zip")


def test_the_report_names_what_was_left_out_and_unequal_classes(packed):
    for ending, out in packed[1].items():
        lines = out.splitlines()
        assert lines[2] == (
            f"wrote photos.{ending}: 150 images of 3 classes, shorter side resized by the bilinear filter, middle cut "
            "out, 16x16 pixels"
        )
        assert lines[3:] == [
            "images in a class: 50 on average; fewest: cat 49, eel 50, dog 51; most: dog 51, eel 50, cat 49",
            "left out: 1 file; the next image in order takes the place of each",
            f"  'photos/{BROKEN}': it is not an image, or Pillow cannot read its kind",
        ]


def test_the_report_lists_twenty_files_and_the_command_that_lists_all():
    source = ImageSet(Parameters(imsize=8, dataset="folder"), ["a"], np.zeros(100, int))
    source.left_out = {place: (f"photos/{place}.jpg", "it is empty") for place in range(50)}
    lines = report("my photos.npz", source, source.labels)[-21:]
    assert lines[:2] + lines[19:] == [
        "  'photos/0.jpg': it is empty",
        "  'photos/1.jpg': it is empty",
        "  'photos/19.jpg': it is empty",
        "  and 30 more, which unzip -p 'my photos.npz' pack.json lists",
    ]


def test_numpy_and_other_evaluators_open_the_npz(packed):
    folder, _ = packed
    with np.load(folder / "photos.npz", allow_pickle=False) as arrays:
        images, labels, names = arrays["arr_0"], arrays["arr_1"], arrays["class_names"]
        about = json.loads(arrays["pack.json"])
    assert images.shape == (150, 16, 16, 3) and images.dtype == np.uint8
    assert labels.dtype == np.int64 and list(names) == list(CLASSES)
    np.testing.assert_array_equal(np.bincount(labels), [49, 51, 50])  # the class of the image that replaces one
    np.testing.assert_array_equal(images[49], images[50])
    assert about["pixels"] == {
        "imsize": 16, "centercrop": True, "dont_resize": False, "resize_filter": "bilinear", "exif": False,
    }  # fmt: skip
    (left_out,) = about["left_out"]
    assert left_out[:3] == [49, 0, f"photos/{BROKEN}"]
    assert zipfile.ZipFile(folder / "photos.npz").testzip() is None


def read_as_stylegan(path):
    """(images uint8 [N, C, H, W], labels) of a data set in StyleGAN's format, as its published reader finds them.

    That is: the files with the ending of an image, sorted by name; `dataset.json` maps each name to its class.
    """
    with zipfile.ZipFile(path) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        names = sorted(name for name in archive.namelist() if os.path.splitext(name)[1].lower() in (".png", ".jpg"))
        images = [np.array(Image.open(archive.open(name))) for name in names]
        of_name = dict(json.loads(archive.read("dataset.json"))["labels"])
    images = [image[..., None] if image.ndim == 2 else image for image in images]
    return np.stack(images).transpose(0, 3, 1, 2), np.array([of_name[name] for name in names])


def test_stylegans_reader_opens_the_zip(packed):
    folder, _ = packed
    images, labels = read_as_stylegan(folder / "photos.zip")
    with np.load(folder / "photos.npz") as arrays:
        np.testing.assert_array_equal(images, arrays["arr_0"].transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(labels, arrays["arr_1"])
    assert zipfile.ZipFile(folder / "photos.zip").testzip() is None


def test_a_pack_can_be_packed_in_the_other_format(packed, tmp_path):
    folder, _ = packed
    options = ["--dataset", "folder", "--imsize", 16, "--centercrop", "--num_workers", 1]
    for source, target in (("npz", "zip"), ("zip", "npz")):
        pack(folder, *options, "--data_path", f"photos.{source}", "--out", tmp_path / f"again.{target}")
        one, two = (open_packed("", str(path)) for path in (folder / "photos.npz", tmp_path / f"again.{target}"))
        assert all((one.images[i] == two.images[i]).all() for i in range(150))
        np.testing.assert_array_equal(one.labels, two.labels)
        assert one.about.fingerprint == two.about.fingerprint and one.about.left_out == two.about.left_out


def test_a_run_that_asks_for_other_pixels_is_refused_with_the_command_that_packs_them(packed, tmp_path):
    folder, _ = packed
    train_py = [ROOT / "train.py", *SMALL[2:], "--recipe", "acgan-mlp", "--dataset", "folder", "--total_step", 1]
    train_py += ["--batch_size", 8, "--save_path", tmp_path]
    code, _, err = run(folder, *train_py, "--imsize", 32, "--data_path", "photos.npz")
    made = "python pack.py --dataset folder --data_path photos --imsize 32 --resize_filter bilinear --out FILE"
    assert (code, err) == (
        2,
        "train.py: --data_path photos.npz was packed with --imsize 16 --centercrop True, but this command asks for "
        f"--imsize 32 --centercrop False: give the same, or make another file: {made}; run it in the folder where the "
        "file was packed\n",
    )
    pack(folder, *made.split()[2:-1], tmp_path / "right.npz")
    code, _, err = run(folder, *train_py, "--imsize", 32, "--data_path", tmp_path / "right.npz")
    assert code == 0, err
    whole = made.replace("photos", str(folder / "photos"))  # a path that works from every folder
    pack(folder, *whole.split()[2:-1], tmp_path / "whole.npz")
    code, _, err = run(tmp_path, *train_py, "--imsize", 16, "--data_path", "whole.npz")
    assert code == 2 and err.endswith(f"make another file: {whole.replace('--imsize 32', '--imsize 16')}\n")


def test_more_than_one_percent_of_broken_files_stop_the_packing(photos, tmp_path):
    for number in range(100):
        (tmp_path / "few" / CLASSES[number % 2]).mkdir(parents=True, exist_ok=True)
        os.link(photos / "photos" / "eel" / "000.png", tmp_path / "few" / CLASSES[number % 2] / f"{number:03}.png")
    for number in (20, 51):
        path = tmp_path / "few" / CLASSES[number % 2] / f"{number:03}.png"
        path.unlink()
        path.write_bytes(b"no image")
    options = ["--dataset", "folder", "--data_path", "few", "--imsize", 8, "--out", "few.npz", "--num_workers", 1]
    code, _, err = run(tmp_path, ROOT / "pack.py", *options)
    assert code == 2
    assert [line.split(": ")[0] for line in err.splitlines()] == [
        "'few/cat/020.png' is left out (1 of 100 files so far)",
        "'few/dog/051.png' is left out (2 of 100 files so far)",
        "pack.py",
    ]
    assert "2 of the 100 files in few cannot be read as images: 'few/cat/020.png', 'few/dog/051.png'; " in err


def test_names_that_are_not_utf_8(photos, tmp_path):
    """As from a Chinese Windows archive: in the folder's name, in those of its classes and of a file."""
    folder = os.fsdecode(tmp_path / os.fsdecode("花".encode("gbk")))
    for name in ("cat", os.fsdecode("狗".encode("gbk"))):
        os.makedirs(os.path.join(folder, name))
        for number in range(50):
            file = os.path.join(folder, name, os.fsdecode("图".encode("gbk")) + f"{number:02}.png")
            os.link(photos / "photos" / "eel" / "000.png", file)
    os.unlink(file)
    Path(file).write_bytes(b"no image")
    for ending in ("npz", "zip"):
        out = os.path.join(folder, f"out.{ending}")
        options = ["--dataset", "folder", "--imsize", 8, "--num_workers", 1, "--data_path", folder, "--out", out]
        said = pack(tmp_path, *options)
        assert "left out: 1 file" in said
        one, two = (load_dataset(Parameters(dataset="folder", imsize=8, data_path=path)) for path in (folder, out))
        assert one.class_names == two.class_names and one.fingerprint() == two.fingerprint()


# Interrupted packings


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder with many/: 3,000 images of two classes, links to a few files, among them a broken one."""
    folder, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(1)
    for number in range(10):
        Image.fromarray(rng.integers(256, size=(48, 48, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    for name in ("a", "b"):
        (folder / "many" / name).mkdir(parents=True)
        for number in range(1500):
            os.link(folder / f"{number % 10}.png", folder / "many" / name / f"{number:04}.png")
    broken = folder / "many" / "a" / "0700.png"
    broken.unlink()
    broken.write_bytes(b"no image")
    return folder


def pack_many(many, out, *options):
    options = ["--dataset", "folder", "--data_path", many / "many", "--imsize", 32, "--num_workers", 1, *options]
    return [ROOT / "pack.py", *options, "--out", out]


@pytest.mark.parametrize(
    ("kills", "ending"),
    [(1, "npz"), *(pytest.param(10, ending, marks=pytest.mark.slow) for ending in ("npz", "zip"))],
)
def test_a_packing_killed_at_random_moments_goes_on_to_the_same_file(many, tmp_path, ending, kills):
    rng, out, notes = np.random.default_rng(kills), tmp_path / f"many.{ending}", []
    command = pack_many(many, out)
    for _ in range(kills):
        process = start(tmp_path, *command, start_new_session=True)
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.8))
        process.send_signal(signal.SIGKILL)  # not to the processes that it has started: these end by themselves
        process.communicate(timeout=LIMIT)
        if out.exists():
            out.unlink()
        assert {path.suffix for path in tmp_path.iterdir()} <= {".part", ".journal"}
    said = run(tmp_path, *command)
    assert said[0] == 0, said[2]
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    notes += re.findall(r"goes on after (\d+) images", said[1])
    straight = tmp_path / f"straight.{ending}"
    assert run(tmp_path, *pack_many(many, straight))[0] == 0
    assert out.read_bytes() == straight.read_bytes()


@pytest.mark.parametrize("ending", ["npz", "zip"])
def test_an_interrupted_packing_goes_on_where_it_stopped(many, tmp_path, ending):
    """It names the broken file again only in its report."""
    out = tmp_path / f"many.{ending}"
    process = start(tmp_path, *pack_many(many, out))
    journal = wait_for_journal(process, tmp_path, 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err.splitlines()[-1]) == (130, "pack.py: stopped by SIGINT")
    (unfinished,) = tmp_path.glob("*.part")
    with open(journal, "a") as file:
        file.write('{"done": 99')  # a line that was not written to its end
    with open(unfinished, "ab") as file:
        file.write(b"more")
    code, said, err = run(tmp_path, *pack_many(many, out))
    assert code == 0 and "goes on after 2000 images\n" in said and "left out" not in err
    assert f"  '{many}/many/a/0700.png': it is not an image" in said
    assert zipfile.ZipFile(out).testzip() is None
    assert len(load_dataset(Parameters(dataset="folder", data_path=str(out), imsize=32))) == 3000


def wait_for_journal(process, folder, lines):
    def journals():
        return [path for path in folder.glob(".*.journal") if path.read_text().count("\n") >= lines]

    wait_for(process, journals)
    return journals()[0]


def test_a_file_that_cannot_be_written_is_named_and_no_room_is_asked_for():
    with pytest.raises(UserError) as caught:
        Growing("/proc/x.npz", "key", None)
    assert str(caught.value) == "--out /proc/x.npz cannot be written: No such file or directory; give another --out"


def test_a_full_disk_leaves_no_half_file_and_the_same_command_goes_on(many, tmp_path):
    with mounted(tmp_path / "disk", 2**24) as disk:
        out = disk / "many.npz"
        process = start(tmp_path, *pack_many(many, out))
        wait_for_journal(process, disk, 1)
        process.send_signal(signal.SIGSTOP)
        fill(disk, 2**20)
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 2 and err.splitlines()[-1] == (
            f"pack.py: --out {out} cannot be written: No space left on device; make room there and run the same "
            "command again to go on, or give another file"
        )
        code, _, err = run(tmp_path, *pack_many(many, out))
        assert code == 2 and re.search(rf"--out {out} needs \d+ MB, but its disk has \d MB free: make room", err)
        (disk / "ballast").unlink()
        code, said, err = run(tmp_path, *pack_many(many, out))
        assert code == 0 and "goes on after" in said, err
        assert [path.name for path in disk.iterdir()] == ["many.npz"]


def test_the_reading_processes_end_with_pack_and_a_dead_one_is_reported(many, tmp_path):
    def readers():
        found = subprocess.run(["ps", "--ppid", str(process.pid), "-o", "pid="], capture_output=True, text=True)
        return list(map(int, found.stdout.split()))

    process = start(tmp_path, *pack_many(many, tmp_path / "many.npz"))
    wait_for_journal(process, tmp_path, 1)
    (reader,) = readers()
    process.kill()
    process.communicate(timeout=LIMIT)
    deadline = time.monotonic() + LIMIT
    while os.path.exists(f"/proc/{reader}"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process = start(tmp_path, *pack_many(many, tmp_path / "many.npz"))
    process.stdout.readline()
    wait_for(process, readers)
    os.kill(readers()[0], signal.SIGKILL)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 2 and re.fullmatch(
        rf"pack\.py: the process that read images \d+ to \d+, {many}/many/./\d+.png to {many}/many/./\d+.png, has "
        "died, perhaps for lack of memory: lower "
        "--num_workers and run the same command again to go on",
        err.splitlines()[-1],
    )


def test_two_packings_of_one_file_at_the_same_time_are_refused(many, tmp_path):
    process = start(tmp_path, *pack_many(many, tmp_path / "many.npz"))
    wait_for_journal(process, tmp_path, 1)
    process.send_signal(signal.SIGSTOP)
    try:
        code, _, err = run(tmp_path, *pack_many(many, tmp_path / "many.npz"))
        assert code == 2 and "is being written by another pack.py: give another file" in err
    finally:
        process.kill()
        process.communicate(timeout=LIMIT)


def test_packings_of_one_file_with_other_options_are_refused_at_the_same_time_and_named_later(tmp_path, capsys):
    out, content = tmp_path / "a.npz", NPZ(1, (1, 2, 2))
    first = Growing(out, "key", content)
    with pytest.raises(UserError, match=r"is being written by another pack\.py: give another file"):
        Growing(out, "other", content)
    assert [path.name for path in tmp_path.iterdir()] == [".a.npz.key.part"] and capsys.readouterr().err == ""
    first.close()
    Growing(out, "other", content).close()
    assert ".a.npz.key.part is left by an interrupted packing with other options" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["header", "size", "journal"])
def test_a_damaged_file_of_an_interrupted_packing_starts_anew(tmp_path, capsys, damage):
    out, content = tmp_path / "a.zip", ZIP(3, (1, 2, 2))
    growing = Growing(out, "key", content)
    growing.append(b"one")
    growing.append(b"two")
    growing.note({0: ("file", "reason")})
    growing.close()
    unfinished, journal = tmp_path / ".a.zip.key.part", tmp_path / ".a.zip.key.journal"
    if damage == "journal":
        journal.write_text('{"length": 1, "done": 2}\n')
    else:
        damaged = bytearray(unfinished.read_bytes())
        place = {"header": 0, "size": len(damaged) - 32}[damage]  # the size of "two" in its header
        damaged[place : place + 4] = bytes(4)
        unfinished.write_bytes(damaged)
    growing = Growing(out, "key", content)
    assert (growing.done, growing.left_out, journal.read_bytes(), unfinished.read_bytes()) == (0, {}, b"", b"")
    assert ("is damaged: the packing starts anew" in capsys.readouterr().err) == (damage != "journal")
    growing.append(b"one")
    growing.note({})
    growing.close()
    assert Growing(out, "key", content).done == 1


def test_a_file_made_while_packing_is_not_replaced(tmp_path):
    out = tmp_path / "a.npz"
    growing = Growing(out, "key", NPZ(1, (1, 2, 2)))
    growing.append(bytes(4))
    out.write_bytes(b"mine")
    about = About("folder", "train", "photos", None, ["a"], True, {}, {})
    with pytest.raises(UserError, match="exists now: move it away and run the same command again"):
        growing.finish(np.zeros(1, np.int64), about)
    growing.close()
    assert out.read_bytes() == b"mine"
    with pytest.raises(UserError, match="exists now"):
        Growing(out, "other key", NPZ(1, (1, 2, 2)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.npz.key.part", "a.npz"]


MANY = 200_000  # files


def most_memory(process):
    """The most memory, in MB, that a running process or one of its children has used; 0 in its last moment."""
    found = []
    with contextlib.suppress(OSError):  # a process that has just ended
        for pid in (process.pid, *worker_pids(process)):
            found += re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return max(map(int, found), default=0) / 1000


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_damaged_files_among_200000_are_each_named_once(photos, tmp_path):
    """Cut short, zero bytes, text, and a bomb of 50,000 x 50,000 pixels. By packing, and by an epoch of training.

    Memory does not grow with the files.
    """
    good = (photos / "photos" / "eel" / "000.png").read_bytes()
    header = b"IHDR" + struct.pack(">2I5B", 50_000, 50_000, 8, 2, 0, 0, 0)
    kinds = {
        "good": good,
        "cut": good[:-200],
        "empty": b"",
        "text": b"no image",
        "bomb": good[:12] + header + struct.pack(">I", zlib.crc32(header)) + good[33:],
    }
    damaged = dict(zip(range(100, MANY, 200), ("cut", "empty", "text", "bomb") * MANY, strict=False))
    for number in range(MANY):
        if number % (MANY // 100) == 0:
            folder = tmp_path / "many" / f"{number // (MANY // 100):03}"
            folder.mkdir(parents=True)
        (folder / f"{number:06}.png").write_bytes(kinds[damaged.get(number, "good")])

    def finish(name, *command):
        """Run a command to its end. Returns its output and, from time to time, its most memory in MB."""
        with open(tmp_path / name, "w") as said:
            process = start(tmp_path, *command, stdout=said, stderr=said)
        memory = []
        while process.poll() is None:
            memory.append(most_memory(process) or memory[-1])
            time.sleep(0.1)
        said = (tmp_path / name).read_text()
        assert process.returncode == 0, said
        named = re.findall(r"^'many/\d+/(\d+).png' is left out", said, re.MULTILINE)
        assert sorted(map(int, named)) == sorted(damaged) and len(damaged) == MANY // 200
        return said, memory

    data = ["--dataset", "folder", "--data_path", "many", "--num_workers", 2]
    said, memory = finish("packing", ROOT / "pack.py", *data, "--imsize", 8, "--out", "many.npz")
    assert 0 < memory[-1] < 200
    assert "left out: 1000 files" in said and "and 980 more, which unzip -p many.npz pack.json lists" in said
    with zipfile.ZipFile(tmp_path / "many.npz") as archive:
        assert len(json.loads(archive.read("pack.json"))["left_out"]) == 1000
    steps = ["--batch_size", MANY // 100, "--total_step", 103, "--log_step", 1, "--sample_step", 1000]
    size = ["--imsize", 16, "--z_dim", 128]
    _, memory = finish("training", ROOT / "train.py", *SMALL, *data, *size, *steps, "--name", "run")
    assert "step 103 " in (tmp_path / "sagan_models" / "run" / "log.txt").read_text()
    assert memory[-1] < memory[len(memory) // 2] + 100
