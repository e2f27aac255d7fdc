"""Files written by Pillow in every format and mode, cut short, or lying; class folders right and wrong."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from image_files import class_folders, fit, image_names, read_image
from parameters import RUN_FILE, Parameters
from utils import UserError

# Pillow remarks on what it cannot read.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def photo(height=60, width=80):
    """A smooth coloured picture, uint8 [height, width, 3]: what lossy formats keep."""
    y, x = np.mgrid[:height, :width] / [[[height]], [[width]]]
    return (255 * np.stack([x, y, (x + y) / 2], 2)).astype(np.uint8)


FORMATS = {"jpg": 6, "jpeg": 6, "png": 0, "bmp": 0, "webp": 12, "gif": 40, "ppm": 0, "tif": 0, "tiff": 0}


@pytest.mark.parametrize(("extension", "tolerance"), FORMATS.items())
def test_reads_every_format(tmp_path, extension, tolerance):
    path = tmp_path / f"a.{extension}"
    Image.fromarray(photo()).save(path)
    image = read_image(path)
    assert image.mode == "RGB"
    np.testing.assert_allclose(np.asarray(image, int), photo(), atol=tolerance)


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("kept", [0, 20, 0.5, 0.97])
def test_a_file_that_is_cut_short_is_an_error(tmp_path, extension, kept):
    path = tmp_path / f"a.{extension}"
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(noise).save(path)
    size = path.stat().st_size
    os.truncate(path, kept if kept in (0, 20) else int(kept * size))
    with pytest.raises(Exception):  # noqa: B017 (Pillow raises many)
        read_image(path)


def test_a_progressive_jpeg_that_is_cut_short_is_an_error(tmp_path):
    Image.fromarray(photo()).save(tmp_path / "a.jpg", progressive=True)
    os.truncate(tmp_path / "a.jpg", (tmp_path / "a.jpg").stat().st_size * 9 // 10)
    with pytest.raises(OSError):
        read_image(tmp_path / "a.jpg")


def pixel(path):
    return read_image(path).getpixel((0, 0))


def test_modes_become_rgb(tmp_path):
    def written(image, name="a.png", **options):
        image.save(tmp_path / name, **options)
        return pixel(tmp_path / name)

    assert written(Image.new("L", (4, 4), 77)) == (77, 77, 77)
    assert written(Image.new("1", (4, 4), 1)) == (255, 255, 255)
    assert written(Image.new("RGBA", (4, 4), (200, 0, 0, 0))) == (255, 255, 255)
    assert written(Image.new("RGBA", (4, 4), (200, 0, 0, 255))) == (200, 0, 0)
    assert written(Image.new("RGBA", (4, 4), (200, 0, 0, 51))) == (244, 204, 204)
    assert written(Image.new("LA", (4, 4), (0, 51))) == (204, 204, 204)
    assert written(Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3)) == (255, 255, 255)
    assert written(Image.new("RGB", (4, 4), (1, 2, 4)), transparency=(1, 2, 3)) == (1, 2, 4)
    assert written(Image.fromarray(np.full((4, 4), 0x80FF, np.uint16))) == (128, 128, 128)
    assert written(Image.fromarray(np.full((4, 4), 0x80FF, np.uint16)), "a.tif") == (128, 128, 128)
    np.testing.assert_allclose(written(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "a.jpg"), (255, 0, 0), atol=3)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    assert written(palette) == (10, 200, 30)
    assert written(palette, transparency=1) == (255, 255, 255)
    assert written(palette, transparency=b"\x00\x33") == (206, 244, 210)  # 0.8 of white and 0.2 of the colour


def test_the_first_frame_is_read_and_exif_is_not(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert pixel(tmp_path / "a.gif") == (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(photo()).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == (80, 60)


def png_that_claims(width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(9000, 9000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_an_error_before_it_is_decoded(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png_that_claims(*size))
    with pytest.raises(Exception, match=r"too many|exceeds limit"):
        read_image(tmp_path / "a.png")


def test_a_file_that_would_run_a_program_is_no_image(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(Image.UnidentifiedImageError):
        read_image(tmp_path / "a.png")


# Resizing


def test_an_image_of_any_shape_becomes_a_square():
    image = fit(Image.fromarray(photo(60, 80)), Parameters(imsize=40))
    assert image.shape == (3, 40, 40) and image.dtype == np.uint8
    expected = photo(400, 400).reshape(40, 10, 40, 10, 3).mean((1, 3)).transpose(2, 0, 1)
    np.testing.assert_allclose(image, expected, atol=3)


def test_shrinking_is_antialiased():
    board = np.indices((128, 128)).sum(0) % 2 * 255
    image = fit(Image.fromarray(board.astype(np.uint8)), Parameters(imsize=16))
    np.testing.assert_allclose(image, 127.5, atol=4)


def test_enlarging_is_bilinear():
    values = np.random.default_rng(0).integers(0, 256, (28, 28))
    places = np.clip((np.arange(32) + 0.5) * 28 / 32 - 0.5, 0, 27)
    rows = np.array([np.interp(places, np.arange(28), row) for row in values])
    expected = np.array([np.interp(places, np.arange(28), column) for column in rows.T]).T
    image = fit(Image.fromarray(values.astype(np.uint8)), Parameters(imsize=32))
    np.testing.assert_allclose(image[0], expected, atol=1.01)  # Pillow rounds between the two axes


def test_centercrop_keeps_the_middle_and_its_proportions():
    wide = np.zeros((50, 200), np.uint8)
    wide[:, 75:125] = 255  # the middle square
    image = fit(Image.fromarray(wide), Parameters(imsize=20, centercrop=True, centercrop_size=20))
    assert image.shape == (1, 20, 20) and (image[:, :, 1:-1] == 255).all()
    tall = fit(Image.fromarray(wide.T), Parameters(imsize=20, centercrop=True, centercrop_size=20))
    np.testing.assert_array_equal(tall[0], image[0].T)


def test_dont_resize_takes_pixels_as_they_are():
    kept = fit(Image.fromarray(photo(60, 60)), Parameters(imsize=60, dont_resize=True))
    np.testing.assert_array_equal(kept, photo(60, 60).transpose(2, 0, 1))
    crop = Parameters(imsize=32, dont_resize=True, centercrop=True, centercrop_size=32)
    cropped = fit(Image.fromarray(photo(60, 80)), crop)
    np.testing.assert_array_equal(cropped, photo(60, 80)[14:46, 24:56].transpose(2, 0, 1))
    for options in (crop, Parameters(imsize=32, dont_resize=True)):
        with pytest.raises(UserError, match=r"--dont_resize .*80x31"):
            fit(Image.fromarray(photo(31, 80)), options)


def test_a_thread_of_an_image_is_not_blown_up():
    with pytest.raises(ValueError, match="too many"):
        fit(Image.new("L", (1_000_000, 2)), Parameters(imsize=128, centercrop=True, centercrop_size=128))


# Class folders


@pytest.fixture
def folder(tmp_path):
    for name in ("b_dogs", "a_cats", ".hidden", "c_empty"):
        (tmp_path / name).mkdir()
    for name in ("2.JPG", "10.png", ".3.png", "notes.txt"):
        (tmp_path / "a_cats" / name).touch()
    os.mkfifo(tmp_path / "a_cats" / "pipe.png")
    (tmp_path / "list.csv").touch()
    return tmp_path


def test_lists_classes_and_images_in_order(folder):
    assert class_folders(folder, "--data_path") == ["a_cats", "b_dogs", "c_empty"]
    assert image_names(folder / "a_cats", "--data_path") == ["10.png", "2.JPG"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (None, "--data_path is missing"),
        ("nowhere", "nowhere cannot be read: No such file"),
        ("list.csv", "list.csv cannot be read: Not a directory"),
        ("a_cats", "a_cats holds no class folders but 3 files"),
        ("b_dogs", "b_dogs holds no class folders but 0 files"),
    ],
)
def test_folders_without_classes_are_refused(folder, path, found):
    with pytest.raises(UserError, match=found):
        class_folders(path and folder / path, "--data_path")


def test_a_folder_too_high_is_refused_and_the_right_one_named(folder):
    (folder / "data" / "train").mkdir(parents=True)
    (folder / "a_cats").rename(folder / "data" / "train" / "a_cats")
    with pytest.raises(UserError, match=r"too high: train .* give .*/data/train"):
        class_folders(folder / "data", "--data_path")
    (folder / "data" / "val" / "a_cats").mkdir(parents=True)
    with pytest.raises(UserError, match="too high: train, val "):
        class_folders(folder / "data", "--data_path")
    with pytest.raises(UserError, match="one class folder only, a_cats"):
        class_folders(folder / "data" / "train", "--data_path")


def test_classes_without_any_image_are_refused(folder):
    for name in ("2.JPG", "10.png"):
        (folder / "a_cats" / name).unlink()
    with pytest.raises(UserError, match="a_cats, b_dogs, c_empty and in them no images"):
        class_folders(folder, "--data_path")


def test_runs_beside_the_classes_are_no_class(tmp_path, capsys):
    """Folders of runs, and runs, are passed over, which is said once; a class that has images stays one."""
    for name in ("daisy", "rose", "tulip"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "a.png")
    for run in ("sagan_models/sagan-imagenet-1", "a-run", "rose/mine"):
        (tmp_path / run / "samples").mkdir(parents=True)
        (tmp_path / run / RUN_FILE).write_text("dataset: folder\n")
        Image.new("RGB", (4, 4)).save(tmp_path / run / "samples" / "real.png")
    (tmp_path / "sagan_models" / "README.md").touch()
    for _ in range(2):
        assert class_folders(tmp_path, "--data_path") == ["daisy", "rose", "tulip"]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(word in said for word in ("--data_path", "a-run", "sagan_models", "no classes")), said
    assert "remove" not in said


def test_a_folder_of_runs_alone_holds_no_classes(tmp_path):
    (tmp_path / "sagan_models" / "sagan-imagenet-1").mkdir(parents=True)
    (tmp_path / "sagan_models" / "sagan-imagenet-1" / RUN_FILE).touch()
    with pytest.raises(UserError, match="no class folders") as caught:
        class_folders(tmp_path, "--data_path")
    assert "remove" not in str(caught.value)
