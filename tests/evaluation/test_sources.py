"""Samples of other programs, `--samples`: read correctly or refused in one sentence, in little memory."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from commands import LIMIT
from PIL import Image

from evaluation.sample_files import NPZWriter, PNGWriter
from evaluation.sources import open_samples
from parameters import Parameters
from utils import UserError

ROOT = Path(__file__).parents[2]
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
LABELS = np.arange(20) % 4


def npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def header(shape, descr="|u1", version=(1, 0), fortran=False):
    """The start of a .npy file that claims such an array."""
    file = io.BytesIO()
    write = np.lib.format.write_array_header_1_0 if version == (1, 0) else np.lib.format.write_array_header_2_0
    write(file, {"descr": descr, "fortran_order": fortran, "shape": shape})
    return file.getvalue()


def archive(path, method=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def opened(path, channels=3, class_names=None, needs_classes=False, exif=False):
    """Open the samples at `path`, to measure them against images of 1 or 3 `channels`."""
    dataset = "digits" if channels == 1 else "imagenet"
    source = open_samples(Parameters(samples=str(path), dataset=dataset, exif=exif))
    source.label(class_names, needs_classes)
    return source


def refused(path, class_names=None, channels=3):
    """The sentence that refuses `path`."""
    with pytest.raises(UserError) as caught:
        opened(path, channels, class_names).images(np.arange(1))
    sentence = str(caught.value)
    assert sentence.startswith("--samples") and len(sentence.splitlines()) == 1 and len(sentence) < 500
    return sentence


def pictures(folder, images, form="PNG", first=0):
    folder.mkdir(parents=True)
    for index, image in enumerate(images, first):
        Image.fromarray(image.squeeze()).save(folder / f"{index:03d}.{form.lower()}")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_is_read(tmp_path, save):
    path = tmp_path / "samples.npz"
    save(path, IMAGES, LABELS.astype(np.int32))
    source = opened(path, 3)
    assert len(source) == 20 and source.size == 8
    assert source.labels.dtype == np.int64 and (source.labels == LABELS).all()
    for indices in (np.arange(20), np.array([3, 17, 3])):
        found = source.images(indices)
        assert found.dtype == np.uint8 and (found == IMAGES[indices].transpose(0, 3, 1, 2)).all()


def test_npz_of_another_program_is_read(tmp_path):
    """Header version 2, no classes, gray images, other members before and after, an extra field in the local header."""
    path = tmp_path / "samples.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("mu.npy", npy(np.zeros(7)))
        with file.open("arr_0.npy", "w", force_zip64=True) as member:
            member.write(npy(IMAGES[..., :1], version=(2, 0)))
        file.writestr("note.txt", b"x" * 1000)
    for channels in (1, 3):
        source = opened(path, channels)
        assert source.labels is None
        assert (source.images(np.arange(20)) == IMAGES[..., :1].transpose(0, 3, 1, 2)).all()


def test_files_that_are_not_npz_are_refused(tmp_path):
    path = tmp_path / "samples.npz"
    for content in (b"", b"PK", b"\x89PNG\r\n", b"GIF89a" * 100):
        path.write_bytes(content)
        assert "cannot be read as .npz with arr_0" in refused(path)
    assert "samples" in refused(archive(path, images=npy(IMAGES)))
    np.savez(path, IMAGES, LABELS)
    whole = path.read_bytes()
    for length in (30, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path)
    assert "nowhere.npz" in refused(tmp_path / "nowhere.npz")


def test_a_refusal_keeps_the_quotes_of_its_reason(tmp_path):
    path = archive(tmp_path / "samples.npz", arr_0=npy(IMAGES), arr_1=npy(LABELS))
    data = bytearray(path.read_bytes())
    data[data.rindex(LABELS.tobytes())] ^= 1
    path.write_bytes(data)
    assert refused(path).endswith("Bad CRC-32 for file 'arr_1.npy'")
    assert refused(archive(path, images=npy(IMAGES))).endswith("There is no item named 'arr_0.npy' in the archive")


@pytest.mark.parametrize(
    "array",
    [
        IMAGES.astype(np.float32),
        IMAGES.astype(np.int8),
        IMAGES[0],
        IMAGES.transpose(0, 3, 1, 2),
        np.asfortranarray(IMAGES),
        IMAGES[:0],
        np.zeros((2, 0, 0, 3), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((), np.uint8),
    ],
    ids=["float32", "int8", "one image", "channels first", "Fortran order", "no images", "no pixels", "RGBA", "scalar"],
)
def test_npz_with_unsuitable_images_is_refused(tmp_path, array):
    path = tmp_path / "samples.npz"
    np.savez(path, array)
    assert f"{array.dtype} {list(array.shape)}" in refused(path)


def test_npz_with_unsuitable_sizes_or_colours_is_refused(tmp_path):
    path = tmp_path / "samples.npz"
    np.savez(path, IMAGES[:, :, :7])
    assert "7x8 pixels" in refused(path)
    np.savez(path, np.zeros((1, 5000, 5000, 1), np.uint8))
    assert "5000x5000 pixels" in refused(path)
    np.savez(path, IMAGES)
    assert "in colour" in refused(path, channels=1)


@pytest.mark.parametrize(
    "labels", [LABELS[:19], LABELS[None], LABELS.astype(float), LABELS.astype("U3"), np.array(3), LABELS > 1]
)
def test_npz_with_unsuitable_labels_is_refused(tmp_path, labels):
    path = tmp_path / "samples.npz"
    np.savez(path, IMAGES, labels)
    assert f"arr_1 is {labels.dtype} {list(labels.shape)}" in refused(path)


def test_npz_with_pickled_objects_is_refused_and_not_run(tmp_path):
    """An array of objects is a pickle; this pickle would create a file."""

    class Runs:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    objects = np.array([Runs()] * 20, dtype=object)
    path = tmp_path / "samples.npz"
    np.savez(path, objects)
    assert "object" in refused(path)
    np.savez(path, IMAGES, objects)
    assert "object" in refused(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_npz_that_claims_more_than_it_holds_is_refused(tmp_path, method):
    path, content = tmp_path / "samples.npz", npy(IMAGES)
    for shape in (
        (10**6, 256, 256, 3),
        (10**30, 8, 8, 3),
        (21, 8, 8, 3),
        (19, 8, 8, 3),
        (-20, 8, 8, 3),
        (20.0, 8, 8, 3),
    ):
        refused(archive(path, method, arr_0=header(shape) + content[128:]))
    assert "too many" in refused(archive(path, method, arr_0=header((10**8, 1, 1, 1))))
    # A ZIP directory that claims a larger member, and one that points beyond the end of the file.
    archive(path, method, arr_0=header((200, 8, 8, 3)) + content[128:])
    size = len(header((200, 8, 8, 3))) + 200 * 192
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    for place, value in ((24, size), (42, len(data) - 40)):
        lying = bytearray(data)
        lying[entry + place : entry + place + 4] = value.to_bytes(4, "little")
        path.write_bytes(lying)
        refused(path)


def test_npz_with_a_flipped_bit_is_refused_or_read(tmp_path):
    """At 150 places of a compressed file. It is refused, or all its images can be read."""
    path = tmp_path / "samples.npz"
    np.savez_compressed(path, IMAGES // 64, LABELS)
    data = path.read_bytes()
    for place in np.random.default_rng(1).integers(0, len(data), 150):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        try:
            source = opened(path, 3)
        except UserError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert len(source.images(np.arange(20))) == 20


def test_npz_bombs_take_little_memory(tmp_path):
    """256 MiB of zeros each: in a header, after few images, after few classes, in a wide array."""
    zeros = bytes(2**24)
    files = {}
    for name, start, member in (
        ("header", np.lib.format.magic(2, 0) + (2**28).to_bytes(4, "little"), "arr_0"),
        ("images", header((20, 8, 8, 3)), "arr_0"),
        ("labels", header((20,), "<i8"), "arr_1"),
        ("wide", header((2**28 // 4096, 4096), "|u1"), "arr_0"),
    ):
        files[name] = tmp_path / f"{name}.npz"
        with zipfile.ZipFile(files[name], "w", zipfile.ZIP_DEFLATED) as file:
            if member == "arr_1":
                file.writestr("arr_0.npy", npy(IMAGES))
            with file.open(f"{member}.npy", "w", force_zip64=True) as out:
                out.write(start)
                for _ in range(2**28 // len(zeros)):
                    out.write(zeros)
    program = (
        "import resource, sys\n"
        "from metrics.fid import load_statistics\n"
        "from parameters import Parameters\n"
        "from evaluation.sources import open_samples\n"
        "from utils import UserError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    for read in (lambda path: open_samples(Parameters(samples=path)), load_statistics):\n"
        "        try:\n"
        "            print(read(path))\n"
        "        except UserError as error:\n"
        "            print('refused', error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", program, *map(str, files.values())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    *found, grown = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in found].count("refused") >= 7, found
    assert int(grown) < 64 * 1024  # KiB


def test_a_folder_of_images_is_read(tmp_path):
    pictures(tmp_path / "flat", IMAGES)
    source = opened(tmp_path / "flat", 3)
    assert source.labels is None and source.size == 8
    assert (source.images(np.arange(20)) == IMAGES.transpose(0, 3, 1, 2)).all()


@pytest.mark.parametrize(
    ("names", "class_names", "labels"),
    [
        (["0000", "0002"], None, [0, 2]),
        (["0000", "0002"], ("cat", "dog", "owl"), [0, 2]),
        (["owl", "cat"], ("owl", "dog", "cat"), [2, 0]),
        (["2", "3"], ("1", "2", "3"), [1, 2]),  # class names that look like numbers
        (["0001", "0002"], ("1", "2", "3"), [1, 2]),
        (["0000-cat", "0002-owl"], None, [0, 2]),
        (["0000-cat", "0002-owl"], ("cat", "dog", "owl"), [0, 2]),
        (["0000-cat", "0002-owl"], ("ape", "bee", "cat", "dog", "owl"), [2, 4]),  # the name goes before the number
        (["0000-9", "0001"], ("9", "1", "4"), [0, 1]),
        (["0000", "0001-dog"], ("雏菊", "dog"), [0, 1]),
    ],
)
def test_class_folders_are_matched_by_number_or_name(tmp_path, names, class_names, labels):
    for place, name in enumerate(names):
        pictures(tmp_path / "samples" / name, IMAGES[place * 3 : place * 3 + 3])
    (tmp_path / "samples" / ".hidden").mkdir()
    source = opened(tmp_path / "samples", 3, class_names, needs_classes=True)
    order = [i for place in np.argsort(names) for i in range(place * 3, place * 3 + 3)]
    assert (source.images(np.arange(6)) == IMAGES[order].transpose(0, 3, 1, 2)).all()
    assert source.labels.tolist() == np.repeat(labels, 3).tolist()


HOSTILE = (
    "T-shirt/top", "..", ".", "", "a/../../b", "A", "a", "CON", "x" * 255, "x" * 255 + "y", "雏" * 85, "end. ", "-",
    "13", "a\\b", "a/b", 'q"?*<>|:', "a\nb\0", "0003-daisy", "\udcff", "~", "$HOME",
)  # fmt: skip


def test_hostile_class_names_make_safe_folders(tmp_path):
    """Folders are in their place and differ on any file system. They are read back as the same classes."""
    labels = np.arange(len(HOSTILE))
    writer = PNGWriter("--samples_dir", tmp_path / "in" / "pngs", labels, HOSTILE, False)
    images = np.tile(IMAGES[..., :1], (2, 1, 1, 1))[: len(HOSTILE)].transpose(0, 3, 1, 2)
    writer.write(labels, images)
    folders = sorted(path.name for path in (tmp_path / "in" / "pngs").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["in"] and len(list((tmp_path / "in").iterdir())) == 1
    assert [int(name[:4]) for name in folders] == labels.tolist()
    assert len({name.lower() for name in folders}) == len(HOSTILE)
    assert all(len(name.encode()) <= 255 and name.isprintable() and name.strip(" .") == name for name in folders)
    assert folders[0] == "0000-T-shirt_top" and folders[5:7] == ["0005-A", "0006-a"] and folders[1] == "0001"
    for class_names in (HOSTILE, None):
        source = opened(tmp_path / "in" / "pngs", 1, class_names, needs_classes=True)
        assert (source.labels == labels).all() and (source.images(labels) == images).all()


def test_unknown_class_folders_are_refused_only_where_classes_are_needed(tmp_path):
    """Elsewhere they are images without classes."""
    for name in ("owl", "unicorn"):
        pictures(tmp_path / "named" / name, IMAGES[:2])
    pictures(tmp_path / "numbered" / "0001-unicorn", IMAGES[:2])
    with pytest.raises(UserError, match="'0001-unicorn' is neither a number nor a class"):
        opened(tmp_path / "numbered", 3, ("owl", "dog"), needs_classes=True)
    with pytest.raises(UserError, match="'unicorn' is neither a number nor a class"):
        opened(tmp_path / "named", 3, ("owl", "dog"), needs_classes=True)
    for class_names in (("owl", "dog"), None):
        source = opened(tmp_path / "named", 3, class_names)
        assert source.labels is None and len(source) == 4


def test_images_beside_class_folders_are_refused(tmp_path):
    """The program does not guess which of both is meant. Folders without images do not count."""
    pictures(tmp_path / "both", IMAGES[:12])
    (tmp_path / "both" / "notes").mkdir()
    assert len(opened(tmp_path / "both", 3)) == 12
    for name in ("0", "1"):
        pictures(tmp_path / "both" / name, IMAGES[:9])
    sentence = refused(tmp_path / "both")
    assert "holds 12 images beside its class folders, which hold 18" in sentence


def test_folders_of_unsuitable_images_or_no_images_are_refused(tmp_path):
    pictures(tmp_path / "mixed" / "0", IMAGES[:2])
    pictures(tmp_path / "mixed" / "1", IMAGES[:2, :5, :6])
    sentence = refused(tmp_path / "mixed")
    assert "mixes sizes" in sentence and "8x8" in sentence and "6x5" in sentence
    pictures(tmp_path / "oblong", IMAGES[:2, :, :6])
    assert "6x8 pixels" in refused(tmp_path / "oblong")
    (tmp_path / "empty" / "0").mkdir(parents=True)
    (tmp_path / "empty" / "notes.txt").write_text("none here")
    assert "holds no images" in refused(tmp_path / "empty")
    assert "holds no images" in refused(tmp_path / "empty" / "0")


@pytest.mark.parametrize("where", ["header", "middle"])
def test_a_folder_with_a_broken_image_is_refused(tmp_path, where):
    pictures(tmp_path / "broken", np.tile(IMAGES, (1, 8, 8, 1))[:3])
    file = tmp_path / "broken" / "000.png"
    file.write_bytes(b"no picture\n at all" if where == "header" else file.read_bytes()[:200])
    assert "000.png" in refused(tmp_path / "broken")


def test_samples_that_cannot_be_written_are_named_and_no_room_is_asked_for(tmp_path):
    images = IMAGES.transpose(0, 3, 1, 2)
    npz = NPZWriter(tmp_path / "samples.npz", LABELS, images.shape[1:], "a test", False)
    png = PNGWriter("--samples_dir", tmp_path / "pngs", LABELS, "abcdef", False)
    next(tmp_path.glob(".samples.npz.*")).unlink()
    (tmp_path / "pngs").rename(tmp_path / "elsewhere")
    for writer, option, path in ((npz, "--samples_npz", "samples.npz"), (png, "--samples_dir", "pngs")):
        with pytest.raises(UserError) as caught:
            writer.write(np.arange(8), images[:8])
        said = f"{option} {tmp_path / path} cannot be written: No such file or directory; give another {option}"
        assert str(caught.value) == said
    with pytest.raises(UserError, match=r"x\.npz cannot be written: No such file or directory; give another --samples"):
        NPZWriter(tmp_path / "none" / "x.npz", LABELS, images.shape[1:], "a test", False)


@pytest.mark.parametrize("channels", [1, 3])
def test_written_samples_are_read_back(tmp_path, channels):
    """From `--samples_npz` and `--samples_dir`, written in chunks out of order: the same images and classes."""
    images = IMAGES[..., :channels].transpose(0, 3, 1, 2)
    npz = NPZWriter(tmp_path / "samples.npz", LABELS, images.shape[1:], "a test", False)
    png = PNGWriter("--samples_dir", tmp_path / "pngs", LABELS, "abcdef", False)
    for start in (16, 0, 8):
        indices = np.arange(start, min(start + 8, 20))
        for writer in (npz, png):
            writer.write(indices, images[indices])
    for writer in (npz, png):
        writer.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pngs", "samples.npz"]
    names = tuple("abcdef")
    source = opened(tmp_path / "samples.npz", channels, names)
    assert (source.images(np.arange(20)) == images).all() and (source.labels == LABELS).all()
    source = opened(tmp_path / "pngs", channels, names)
    order = np.argsort(LABELS, kind="stable")  # by class, then by number
    assert (source.images(np.arange(20)) == images[order]).all() and (source.labels == LABELS[order]).all()


def test_a_gray_folder_is_read_in_colour(tmp_path):
    pictures(tmp_path / "gray", IMAGES[..., :1])
    found = opened(tmp_path / "gray", 3).images(np.arange(20))
    assert (found == IMAGES[..., :1].transpose(0, 3, 1, 2)).all() and found.shape[1] == 3


def test_skipped_files_are_reported_once(tmp_path, capsys):
    for name in ("0", "1"):
        pictures(tmp_path / "samples" / name, IMAGES[:2])
        (tmp_path / "samples" / name / "a.heic").touch()
        (tmp_path / "samples" / name / "more").mkdir()
    (tmp_path / "samples" / "notes.txt").touch()
    for _ in range(2):
        assert len(opened(tmp_path / "samples", 3)) == 4
    line = f"skipped in --samples {tmp_path}/samples: 2 .heic files, 1 .txt file, 2 folders"
    assert capsys.readouterr().err.splitlines().count(line) == 1


def test_exif_turns_images_of_a_folder_on_request(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees clockwise
    (tmp_path / "samples").mkdir()
    Image.fromarray(IMAGES[0]).save(tmp_path / "samples" / "a.png", exif=exif)
    stored, turned = (opened(tmp_path / "samples", 3, exif=exif).images([0])[0] for exif in (False, True))
    assert (stored == IMAGES[0].transpose(2, 0, 1)).all()
    assert (turned == np.rot90(IMAGES[0], -1).transpose(2, 0, 1)).all()


def test_samples_of_floats_are_refused_with_the_reason(tmp_path):
    (tmp_path / "samples").mkdir()
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "samples" / "a.tif")
    assert "a.tif' cannot be read as an image: its pixels are floating-point" in refused(tmp_path / "samples")
