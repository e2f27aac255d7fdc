"""Images of every format and mode, cut short or with false claims; class folders, right and wrong."""

import io
import os
import socket
import struct
import tracemalloc
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from formats.image_files import class_folders, count_turned, fit, fit_in_words, image_names, read_image, say_skipped
from parameters import DATA_SETS, Parameters
from utils import RUN_FILE, UserError

# Pillow warns about files that it cannot read.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def photo(height=60, width=80):
    """A smooth coloured picture, uint8 [height, width, 3]. Lossy formats keep it."""
    y, x = np.mgrid[:height, :width] / [[[height]], [[width]]]
    return (255 * np.stack([x, y, (x + y) / 2], 2)).astype(np.uint8)


FORMATS = {"jpg": 6, "jpeg": 6, "jfif": 6, "png": 0, "bmp": 0, "webp": 12, "gif": 40, "ppm": 0, "tif": 0, "tiff": 0}


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


def png(depth, color, row, *chunks):
    """A PNG of 1 x 1 pixel. `row`: the pixel's bytes before compression. `chunks`: come before the pixel."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">2I5B", 1, 1, depth, color, 0, 0, 0)
    chunks = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*content) for content in chunks)


def tiff(pixels, bits=None, kind=1, photometric=1, width=None):
    """A TIFF of `pixels` [height, width, channels]; `kind`: 1 unsigned, 2 signed, 3 float, 6 complex."""
    pixels = np.atleast_3d(pixels)
    height, given, channels = pixels.shape
    order = ">" if pixels.dtype.byteorder == ">" else "<"
    many = [bits or pixels.itemsize * 8] * channels
    entries = [
        (256, [width or given]), (257, [height]), (258, many), (259, [1]), (262, [photometric]), (273, None),
        (277, [channels]), (278, [height]), (279, [pixels.nbytes]), (339, [kind] * channels),
    ]  # fmt: skip
    after, extra, directory = 8 + 2 + 12 * len(entries) + 4, b"", struct.pack(f"{order}H", len(entries))
    sizes = [2 * len(values) for _, values in entries if values and len(values) > 2]
    for tag, values in entries:
        values = values or [after + sum(sizes)]  # the offset of the pixels
        content = struct.pack(f"{order}{len(values)}H", *values)
        if len(content) > 4:
            content, extra = struct.pack(f"{order}I", after + len(extra)), extra + content
        directory += struct.pack(f"{order}HHI", tag, 3, len(values)) + content.ljust(4, b"\0")
    magic = struct.pack(f"{order}2sHI", b"MM" if order == ">" else b"II", 42, 8)
    return magic + directory + bytes(4) + extra + pixels.tobytes()


def full(value, dtype):
    return np.full((2, 4, np.size(value)), value).astype(dtype)


@pytest.mark.parametrize(
    ("content", "expected"),
    {
        "16 bits": (tiff(full(0x80FF, "<u2")), (128, 128, 128)),
        "16 bits, big-endian": (tiff(full(0x80FF, ">u2")), (128, 128, 128)),
        "16 bits, white is 0": (tiff(full(0x20FF, "<u2"), photometric=0), (223, 223, 223)),
        "12 bits": (tiff(np.tile(np.array([0x80, 0xF8, 0x0F], np.uint8), (2, 2)), 12, width=4), (128, 128, 128)),
        "8 bits, white is 0": (tiff(full(77, "u1"), photometric=0), (178, 178, 178)),
        "RGB of 16 bits": (tiff(full((0x80FF, 0x1000, 0xFFFF), "<u2"), photometric=2), (128, 16, 255)),
        "CMYK": (tiff(full((0, 255, 255, 0), "u1"), photometric=5), (255, 0, 0)),
        "LAB": (tiff(full((135, 208, 195), "u1"), photometric=8), (0, 151, 231)),
        "PNG, gray of 16 bits": (png(16, 0, b"\x80\xff"), (128, 128, 128)),
        "PNG, RGB of 16 bits": (png(16, 2, b"\x80\xff\x10\x00\xff\xff"), (128, 16, 255)),
        "PNG, gray and alpha of 16 bits": (png(16, 4, b"\x80\xff\x00\x00"), (255, 255, 255)),
        "PNG, gray of 2 bits": (png(2, 0, b"\x40"), (85, 85, 85)),
        "PNG with gamma": (png(8, 2, b"\x0a\x14\x1e", (b"gAMA", struct.pack(">I", 100_000))), (10, 20, 30)),
        "PNG, black is transparent": (png(1, 0, b"\x00", (b"tRNS", b"\0\0")), (255, 255, 255)),
        "PGM of 10 bits": (b"P5 1 1 1023\n\x02\x00", (128, 128, 128)),
        "PGM of 16 bits": (b"P5 1 1 65535\n\x80\xff", (128, 128, 128)),
    }.values(),
)
def test_depths_and_colour_spaces_become_8_bits_of_rgb(content, expected):
    np.testing.assert_allclose(pixel(io.BytesIO(content)), expected, atol=1)


def test_a_cmyk_jpeg_is_read_as_inverted_ink(tmp_path):
    """As Adobe and browsers read it, with Adobe's marker or without."""
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    assert content[2:4] == b"\xff\xee"  # Adobe's marker, 16 bytes long
    (tmp_path / "b.jpg").write_bytes(content[:2] + content[18:])
    for name in ("a.jpg", "b.jpg"):
        np.testing.assert_allclose(pixel(tmp_path / name), (255, 0, 0), atol=3)


@pytest.mark.parametrize(
    "content",
    [
        tiff(full(0.5, "<f4"), kind=3),
        tiff(full(0.5, ">f4"), kind=3),
        tiff(full(0x80FF0000, "<u4")),
        tiff(full(1000, "<i4"), kind=2),
        tiff(full(1000, ">i4"), kind=2),
        tiff(full(-300, "<i2"), kind=2),
        tiff(full(-7, "i1"), kind=2),
    ],
    ids=["float", "float, big-endian", "32 bits", "signed", "signed, big-endian", "16 signed", "8 signed"],
)
def test_pixels_without_a_known_range_are_an_error(content):
    """The range is not guessed. A wrong guess would train on black or white pictures."""
    with pytest.raises(ValueError, match=r"black and white are unknown: convert it to a PNG"):
        read_image(io.BytesIO(content))


def test_a_pfm_is_an_error():
    """It holds floats. Older versions of Pillow do not know the format."""
    with pytest.raises((ValueError, Image.UnidentifiedImageError)):
        read_image(io.BytesIO(b"Pf\n1 1\n-1.0\n" + struct.pack("<f", 0.5)))


@pytest.mark.parametrize(
    "array", [full(0.5, "<f2"), full(0.5, "<f8"), full(0.5, "<c8"), full((0.5, 0.5, 0.5), "<f4")], ids=str
)
def test_number_types_that_pillow_does_not_know_are_an_error(array):
    kind, photometric = 6 if array.dtype.kind == "c" else 3, 2 if array.shape[2] == 3 else 1
    with pytest.raises(Image.UnidentifiedImageError):
        read_image(io.BytesIO(tiff(array, kind=kind, photometric=photometric)))


@pytest.mark.parametrize(
    "content",
    [
        png(16, 0, b"\x80\xff", (b"tRNS", b"\x80\xff")),
        png(16, 2, b"\1\0\2\0\3\0", (b"tRNS", b"\0\1\0\2\0\3")),  # not transparent, but Pillow says it is
        png(2, 0, b"\x40", (b"tRNS", b"\0\1")),
    ],
    ids=["gray of 16 bits", "RGB of 16 bits", "gray of 2 bits"],
)
def test_a_transparent_colour_that_pillow_misreads_is_an_error(content):
    with pytest.raises(ValueError, match=r"transparent colour .*: convert it to a PNG with 8 bits"):
        read_image(io.BytesIO(content))


def test_the_first_frame_is_read(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert pixel(tmp_path / "a.gif") == (255, 0, 0)


# EXIF

STORED = {  # orientation: how an upright picture, [height, width, 3], is stored
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def with_orientation(path, orientation, pixels=None, **options):
    exif = Image.Exif()
    exif[0x010F] = "A phone's maker"  # an entry before the orientation
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(photo() if pixels is None else pixels)).save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("extension", ["jpg", "jfif", "png", "webp"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_is_applied_on_request(tmp_path, orientation, extension):
    stored = STORED[orientation](photo())
    path = with_orientation(tmp_path / f"a.{extension}", orientation, stored)
    assert read_image(path).size == stored.shape[1::-1]  # not turned, as in torchvision's ImageFolder
    np.testing.assert_allclose(np.asarray(read_image(path, exif=True), int), photo(), atol=12)
    assert count_turned((path,)) == (orientation != 1)


def test_a_tiff_is_turned_by_pillow(tmp_path):
    """Its orientation is not in an EXIF block, and is not counted."""
    Image.fromarray(photo()).save(tmp_path / "a.tif", tiffinfo={0x0112: 6})
    assert read_image(tmp_path / "a.tif").size == read_image(tmp_path / "a.tif", exif=True).size == (60, 80)
    assert count_turned((tmp_path / "a.tif",)) == 0


def exif_block(entries, order="<"):
    """An EXIF block with one directory of `entries` (tag, type, count, value)."""
    packed = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in entries)
    head = struct.pack(f"{order}2sHIH", b"MM" if order == ">" else b"II", 42, 8, len(entries))
    return b"Exif\0\0" + head + packed + bytes(4)


def jpeg_with(*blocks):
    """A JPEG with these EXIF blocks, one after the other."""
    file = io.BytesIO()
    Image.fromarray(photo()).save(file, "JPEG")
    content = file.getvalue()
    end = 4 + int.from_bytes(content[4:6], "big")  # drop the JFIF header: with its resolution Pillow skips the EXIF
    segments = [b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block for block in blocks]
    return content[:2] + b"".join(segments) + content[end:]


def test_a_picture_with_damaged_exif_is_read(tmp_path):
    """Each byte of a block is changed, and the block is cut at each length. The picture is read, turned or not."""
    block = exif_block([(0x010F, 2, 4, b"abc\0"), (0x0112, 3, 1, struct.pack(">HH", 6, 0))], ">")
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg_with(block))
    assert read_image(path, exif=True).size == (60, 80)
    damaged = [block[:length] for length in range(len(block))]
    for place in range(6, len(block)):
        damaged += [block[:place] + bytes([value]) + block[place + 1 :] for value in (0, 1, 0x7F, 0xFF)]
    sizes = Counter()
    for content in damaged:
        path.write_bytes(jpeg_with(content))
        sizes[read_image(path, exif=True).size] += 1
        assert read_image(path).size == (80, 60)
    assert set(sizes) == {(60, 80), (80, 60)}


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_invalid_orientation_turns_nothing(tmp_path, value):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg_with(exif_block([(0x0112, 3, 1, struct.pack("<HH", value, 0))])))
    assert read_image(path, exif=True).size == (80, 60) and count_turned((path,)) == 0


def test_huge_exif_takes_little_memory(tmp_path):
    """As many entries as fit into 64 KB; each claims the whole block, 340 MB in all. Then a block of 8 MB."""
    entries = [(tag, 7, 60_000, struct.pack("<I", 8)) for tag in range(0x1000, 0x1000 + 5400)]
    block = exif_block([(0x0112, 3, 1, struct.pack("<HH", 6, 0)), *entries])
    wide = [block] + [b"Exif\0\0" + bytes(65_000)] * 128
    for name, blocks in (("a.jpg", [block]), ("b.jpg", wide)):
        (tmp_path / name).write_bytes(jpeg_with(*blocks))
        tracemalloc.start()
        try:
            assert count_turned((tmp_path / name,)) == 1
            assert read_image(tmp_path / name, exif=True).size == (60, 80)
            assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
        finally:
            tracemalloc.stop()


def test_counting_turned_images_reads_only_headers(tmp_path):
    """A JPEG that ends after its header, and a PNG with too many pixels to decode."""
    path = with_orientation(tmp_path / "a.jpg", 8, np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8))
    os.truncate(path, 1000)
    (tmp_path / "b.png").write_bytes(png_that_claims(8000, 8000))
    (tmp_path / "c.jpg").write_text("no image")
    assert count_turned((path, tmp_path / "b.png", tmp_path / "c.jpg", tmp_path / "gone.jpg")) == 1


def test_the_transform_in_words_names_exif():
    resized = "resized by the bilinear filter, 32x32 pixels"
    assert fit_in_words(Parameters(imsize=32, exif=True)) == f"turned by EXIF, {resized}"
    assert fit_in_words(Parameters(imsize=32)) == resized


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


def test_postscript_is_not_read_as_an_image(tmp_path):
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


def test_dont_resize_leaves_pixels_unchanged():
    kept = fit(Image.fromarray(photo(60, 60)), Parameters(imsize=60, dont_resize=True))
    np.testing.assert_array_equal(kept, photo(60, 60).transpose(2, 0, 1))
    crop = Parameters(imsize=32, dont_resize=True, centercrop=True, centercrop_size=32)
    cropped = fit(Image.fromarray(photo(60, 80)), crop)
    np.testing.assert_array_equal(cropped, photo(60, 80)[14:46, 24:56].transpose(2, 0, 1))
    for options in (crop, Parameters(imsize=32, dont_resize=True)):
        with pytest.raises(UserError, match=r"--dont_resize .*80x31"):
            fit(Image.fromarray(photo(31, 80)), options)


def test_an_extremely_narrow_image_is_refused():
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


@pytest.mark.parametrize(
    ("names", "data_set"),
    [
        (["train-images-idx3-ubyte", "train-labels-idx1-ubyte"], "mnist, or fashion-mnist"),
        (["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"], "mnist, or fashion-mnist"),
        (["cifar-10-python.tar.gz"], "cifar10"),
        (["batches.meta", "data_batch_1", "test_batch"], "cifar10"),
        (["cifar-10-batches-py/test_batch"], "cifar10"),
    ],
)
def test_the_files_of_a_published_data_set_are_refused_with_its_option(tmp_path, names, data_set):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(UserError) as caught:
        class_folders(tmp_path, "--data_path")
    assert str(caught.value).endswith(f"one folder of images for each class; did you mean --dataset {data_set}?")
    assert set(data_set.split(", or ")) <= DATA_SETS.keys()


def test_a_folder_one_level_too_high_is_refused_and_the_right_one_named(folder):
    (folder / "data" / "train").mkdir(parents=True)
    (folder / "a_cats").rename(folder / "data" / "train" / "a_cats")
    with pytest.raises(UserError, match=r"one level too high: train holds folders, not images; give .*/data/train"):
        class_folders(folder / "data", "--data_path")
    (folder / "data" / "val" / "a_cats").mkdir(parents=True)
    with pytest.raises(UserError, match="too high: train, val hold folders"):
        class_folders(folder / "data", "--data_path")
    with pytest.raises(UserError, match="one class folder only, a_cats"):
        class_folders(folder / "data" / "train", "--data_path")


def test_classes_without_any_image_are_refused(folder):
    for name in ("2.JPG", "10.png"):
        (folder / "a_cats" / name).unlink()
    with pytest.raises(UserError, match="a_cats, b_dogs, c_empty and in them no images"):
        class_folders(folder, "--data_path")


def test_skipped_files_are_counted_by_kind(folder, capsys):
    """A folder named x.png, a pipe, a socket, a broken link, a link to itself. Hidden files are not counted."""
    cats = folder / "a_cats"
    for name in ("1.HEIC", "2.heic", "Thumbs.db", "README", "a.\x1b[31m", "b.long-extension", ".DS_Store", "3.jfif"):
        (cats / name).touch()
    (cats / "x.png").mkdir()
    (cats / "gone.png").symlink_to("nowhere")
    (cats / "loop.png").symlink_to("loop.png")
    (cats / "to-pipe.png").symlink_to("pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        before = os.getcwd()
        os.chdir(cats)  # the path of a socket must be short
        server.bind("socket.png")
        os.chdir(before)
    skipped = Counter()
    assert image_names(cats, "--data_path", skipped) == ["10.png", "2.JPG", "3.jfif"]
    assert skipped == {
        ".heic file": 2, ".db file": 1, ".txt file": 1, "other file": 3, "folder": 1, "broken link": 1,
        "link to itself": 1, "special file": 3,
    }  # fmt: skip
    say_skipped("--data_path", cats, skipped)
    say_skipped("--data_path", cats, skipped)
    assert capsys.readouterr().err.splitlines() == [
        f"'{cats}/loop.png' is left out: it is a link to itself",
        f"skipped in --data_path {cats}: 2 .heic files, 1 .db file, 1 .txt file, 3 other files, 3 special files, "
        "1 broken link, 1 folder, 1 link to itself",
    ]


def test_many_kinds_of_skipped_files_make_one_short_line(tmp_path, capsys):
    say_skipped("--data_path", tmp_path, Counter({f".{number:03} file": 1 for number in range(1000)}))
    assert capsys.readouterr().err.endswith(".007 file, 1 .008 file, 991 more\n")


def test_images_and_links_beside_the_class_folders_are_counted(folder):
    for name in ("a.png", "b.jpg", ".c.png"):
        (folder / name).touch()
    (folder / "d_lost").symlink_to("unmounted")
    skipped = Counter()
    assert class_folders(folder, "--data_path", skipped) == ["a_cats", "b_dogs", "c_empty"]
    assert skipped == {"image beside the classes": 2, "broken link": 1}


def test_a_class_that_is_a_link_to_itself_is_refused(folder):
    (folder / "d_loop").symlink_to("e_loop")
    (folder / "e_loop").symlink_to("d_loop")
    with pytest.raises(UserError, match=r"--data_path \S+: [de]_loop is a link to itself; remove it"):
        class_folders(folder, "--data_path")


def test_run_folders_beside_the_classes_are_not_classes(tmp_path, capsys):
    """Runs and folders of runs are skipped, and one line says so. A class folder that holds images and a run stays a
    class.
    """
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
    assert all(word in said for word in ("--data_path", "a-run", "sagan_models", "not used as classes")), said
    assert "remove" not in said


def test_a_folder_of_runs_alone_holds_no_classes(tmp_path):
    (tmp_path / "sagan_models" / "sagan-imagenet-1").mkdir(parents=True)
    (tmp_path / "sagan_models" / "sagan-imagenet-1" / RUN_FILE).touch()
    with pytest.raises(UserError, match="no class folders") as caught:
        class_folders(tmp_path, "--data_path")
    assert "remove" not in str(caught.value)
