"""Pictures to look at: enlarged images with the names of their classes beside them."""

import numpy as np
import pytest
from PIL import Image

import pictures

CHINESE = ("雏菊", "玫瑰", "rose")


def noise(count, side, channels=1):
    return np.random.default_rng(0).integers(0, 200, (count, channels, side, side), np.uint8)


def cell(grid, side, row, column):
    """The image at (row, column) of a grid of COLUMNS columns. Its images have `side` pixels a side."""
    step = side + pictures.GAP
    top, left = pictures.GAP + row * step, grid.shape[1] - (pictures.COLUMNS - column) * step
    return grid[top : top + side, left : left + side]


def left_of_row(grid, side, row):
    """The pixels of a grid to the left of a row's images."""
    width = pictures.COLUMNS * (side + pictures.GAP) + pictures.GAP
    top = pictures.GAP + row * (side + pictures.GAP)
    return grid[top : top + side, : grid.shape[1] - width]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "factor"), [(8, 8), (16, 4), (28, 2), (32, 2), (64, 1), (128, 1), (256, 1)])
def test_images_are_enlarged_by_a_whole_factor(side, factor, channels):
    images = noise(20, side, channels)
    grid = pictures.grid(images, ["cat", "dog"])
    assert grid.dtype == np.uint8 and grid.shape[0] == 2 * (side * factor + 2) + 2 and grid.shape[2] == channels
    for row, column in ((0, 0), (0, 9), (1, 4)):
        expected = images[row * 10 + column].repeat(factor, 1).repeat(factor, 2).transpose(1, 2, 0)
        assert (cell(grid, side * factor, row, column) == expected).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_each_row_shows_its_class_name(channels):
    images = noise(30, 16, channels)
    grid = pictures.grid(images, ["cat", "dog", "cat"])
    first, second, third = (left_of_row(grid, 64, row) for row in range(3))
    assert (first == third).all() and (first != second).any()
    for text in (first, second):
        dark = np.argwhere(text.min(axis=2) < 100)
        height = np.ptp(dark[:, 0]) + 1
        assert 9 <= height <= 20 and abs(dark[:, 0].mean() - 32) < 6  # legible, in the middle of its row
    assert first[:, 0].min() == 255 and first[:, -1].min() == 255  # nothing is cut off


def test_letters_grow_with_the_images():
    heights = []
    for side in (64, 128, 256):
        text = left_of_row(pictures.grid(noise(10, side), ["H"]), side, 0)
        heights.append(np.ptp(np.argwhere(text < 100)[:, 0]) + 1)
    assert heights[0] >= 9 and heights == sorted(set(heights))


def test_long_names_are_shortened():
    names = ["x" * 255, "a very long name of a class that goes on and on", "short"]
    grid = pictures.grid(noise(30, 16), names)
    width = 10 * (64 + 2) + 2
    assert width < grid.shape[1] < width + 200
    assert (left_of_row(grid, 64, 0)[:, 0] == 255).all()
    other = pictures.grid(noise(30, 16), ["x" * 254, *names[1:]])
    assert (other == grid).all()


def test_names_that_the_font_cannot_draw_become_numbers():
    assert pictures.row_names(CHINESE, [2, 0, 1]) == ["rose", "0", "1"]
    assert pictures.numbered_names(CHINESE, range(3)) == "0: 雏菊, 1: 玫瑰"
    assert pictures.numbered_names(CHINESE, [2]) == ""
    plain = ["T-shirt/top", "n01440764", "3", "animals_and_nature", "..", "a b", "~!@#$%^&*()"]
    assert pictures.row_names(plain, range(7)) == plain
    odd = ["a\nb", "", " ", "\udcff", "é", "😀", "a\u202eb"]
    assert pictures.row_names(odd, range(7)) == list("0123456")


def saved(folder, count, names, side=16, channels=1):
    """Save grids of the same images for steps 10, 20, …; returns their files."""
    images = noise(len(names) * 10, side, channels)
    paths = [folder / f"step-{10 * (number + 1):08d}.png" for number in range(count)]
    for path in paths:
        pictures.save_image(path, pictures.grid(images, names))
    return paths


def frames(path):
    """(each frame as RGB, milliseconds) of an animation."""
    found = []
    with Image.open(path) as animation:
        for number in range(animation.n_frames):
            animation.seek(number)
            found.append((np.asarray(animation.convert("RGB")).astype(int), animation.info["duration"]))
    return found


@pytest.mark.parametrize(("side", "channels"), [(16, 1), (32, 3), (128, 3)])
def test_an_animation_shows_its_steps_and_pauses_at_the_end(tmp_path, side, channels):
    names = [str(number) for number in range(9)]
    paths = saved(tmp_path, 3, names, side, channels)
    pictures.save_animation(tmp_path / "a.gif", paths, names, side)
    found = frames(tmp_path / "a.gif")
    assert [time for _, time in found] == [100, 100, 3000]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        rows = np.flatnonzero(np.abs(found[one][0] - found[other][0]).max(axis=(1, 2)) > 100)
        assert len(rows) and rows.max() < 18  # only the title differs
    height, width = found[0][0].shape[:2]
    assert height <= 340 and width <= 500  # small, since Pillow holds all frames in memory
    assert (found[0][0][18:, : width - 322].min(axis=2) < 100).sum() > 9 * 10  # the names are still legible


def test_an_animation_of_one_picture_has_one_frame(tmp_path):
    """A user put it there under another name."""
    (path,) = saved(tmp_path, 1, ["a", "b"])
    path = path.rename(tmp_path / "step-best.png")
    pictures.save_animation(tmp_path / "a.gif", [path], ["a", "b"], 16)
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames == 1


def test_pictures_without_class_names_fit_into_an_animation(tmp_path):
    """A run has them if it began before pictures had names. Every frame shows the images."""
    names, images = ["a", "b"], noise(20, 16)
    rows = [np.hstack(list(images[row * 10 : row * 10 + 10, 0])) for row in range(2)]
    (new,) = saved(tmp_path, 1, names)
    new.rename(tmp_path / "step-00000020.png")
    Image.fromarray(np.vstack(rows)).save(tmp_path / "step-00000010.png")
    paths = [tmp_path / "step-00000010.png", tmp_path / "step-00000020.png"]
    pictures.save_animation(tmp_path / "a.gif", paths, names, 16)
    old, new = (frame[20:, -320:] for frame, _ in frames(tmp_path / "a.gif"))
    assert old.shape == new.shape and np.corrcoef(old.ravel(), new.ravel())[0, 1] > 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_captions_are_below_enlarged_images(channels):
    images = noise(7, 16, channels)
    picture = pictures.captioned(images, ["cat"] * 6 + ["a very long name that does not fit below its image"], "title")
    side, gap = 128, pictures.GAP  # 5 images in a row
    assert picture.dtype == np.uint8 and picture.shape[1:] == (5 * (side + gap) + gap, channels)
    top = (picture.shape[0] - gap - 2 * (side + 21)) + gap  # letters of 14 pixels have lines of 21
    for index, (row, column) in ((0, (0, 0)), (4, (0, 4)), (6, (1, 1))):
        place = picture[top + row * (side + 21) :, gap + column * (side + gap) :][:side, :side]
        assert (place == images[index].repeat(8, 1).repeat(8, 2).transpose(1, 2, 0)).all()
        below = picture[top + row * (side + 21) + side :, gap + column * (side + gap) :][:21, :side]
        assert below.min() < 100 and below[:, 0].min() == 255
    assert picture[:top].min() < 100


@pytest.mark.parametrize("name", ["walk.gif", "walk.webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_film_has_all_frames_and_repeats(tmp_path, name, channels):
    frames = [np.full([40, 60, channels], 25 * number, np.uint8) for number in range(8)]
    pictures.save_film(tmp_path / name, iter(frames))
    with Image.open(tmp_path / name) as film:
        assert film.n_frames == 8 and film.size == (60, 40) and film.info["loop"] == 0
        for number in (0, 5):
            film.seek(number)
            assert np.abs(np.asarray(film.convert("L")).astype(int) - 25 * number).max() <= 3
