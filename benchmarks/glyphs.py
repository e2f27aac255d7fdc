"""Makes a small data set of many classes: each class is a character, drawn with random fonts, sizes and places.

    python benchmarks/glyphs.py glyphs.npz glyphs-test.npz
    python train.py --model acgan-digits --z_dim 192 --dataset folder --data_path glyphs.npz

The first file holds the training images, the second one the test images. `--data_path` reads both: `arr_0` uint8
[N, 16, 16, 3], `arr_1` int64 [N], `class_names`. The fonts are DejaVu. Matplotlib brings them, and VisualDL requires
Matplotlib.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.append(str(Path(__file__).parents[1]))

import randomness

# Two of these do not look the same at any size in any of the fonts, as O and o do.
CHARACTERS = (
    "0123456789ABCDEGHJKLMNPQRTUVWXYZabdefgikmnopqrstyΔΞΣΦΨΩαβδεζηιλμνπςυφχωДЖЙЛЦЧШЩЪЭЮЯыԲԳԴԵԶԸԹԺԻԽԾԿՀՁՃՆՇՉՊՌՎՐՔՖէթիխծ"
    "კლნჟრსტუფქყცჭჯჰ"
)
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono")
SIZE = 16  # pixels a side
SIZES = (11, 15)  # of a font, in pixels of the image
DETAIL = 4  # a character is drawn this many times larger, then reduced
REACH = 1.5  # largest shift from the middle, in pixels of the image


def glyph(character, rng):
    """An image uint8 [SIZE, SIZE] of `character`, white on black. `rng` chooses the font, the size and the shift."""
    font = FONTS[rng.integers(len(FONTS))]
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf")
    font = ImageFont.truetype(str(file), round(rng.uniform(*SIZES) * DETAIL))
    image = Image.new("L", (SIZE * DETAIL, SIZE * DETAIL))
    left, top, right, bottom = font.getbbox(character)
    shift = rng.uniform(-REACH, REACH, size=2) * DETAIL
    place = (image.width - left - right) / 2 + shift[0], (image.height - top - bottom) / 2 + shift[1]
    ImageDraw.Draw(image).text(place, character, 255, font)
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX))


def glyphs(classes, per_class, purpose, seed=29):
    """(images uint8 [N, SIZE, SIZE, 3], labels int64 [N]) of the first `classes` characters, `per_class` of each.

    `purpose` ("training", "test"): images with another purpose are other images.
    """
    labels = np.repeat(np.arange(classes), per_class)
    sources = (randomness.rng(seed, f"glyphs {purpose}", int(index)) for index in range(len(labels)))
    images = np.stack([glyph(CHARACTERS[label], rng) for label, rng in zip(labels, sources, strict=True)])
    return np.repeat(images[..., None], 3, axis=-1), labels


def write(path, classes, per_class, purpose):
    """Write `glyphs` to the file `path`."""
    images, labels = glyphs(classes, per_class, purpose)
    np.savez(path, arr_0=images, arr_1=labels, class_names=np.array(list(CHARACTERS[:classes])))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("training", type=Path, help=".npz of the training images to write")
    parser.add_argument("test", type=Path, help=".npz of the test images to write")
    parser.add_argument("--classes", type=int, default=len(CHARACTERS), help="2 to %(default)s")
    parser.add_argument("--per_class", type=int, default=100, help="training images of a class; default %(default)s")
    options = parser.parse_args()
    write(options.training, options.classes, options.per_class, "training")
    write(options.test, options.classes, max(1, options.per_class // 4), "test")


if __name__ == "__main__":
    main()
