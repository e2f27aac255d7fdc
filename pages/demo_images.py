"""The images of demo.py: by class and seed, walks, SAGAN's attention. Strangers choose the numbers."""

import functools
import threading
from collections import deque
from pathlib import Path

import numpy as np

import sampler
from drawing.classes import class_folder
from pages import attention
from pages.words import words
from pictures import enlarged, save_image
from utils import UserError

FRAMES = 16  # of a walk: as many as G draws at once
LAST_SEED = 2**31 - 1
WIDEST = 4.0  # truncation; beyond it hardly any noise value changes
KEPT = 300  # image files
MAPS_KEPT, MAP_BYTES = 16, 2**28  # images whose maps of attention stay in memory, and the most bytes of them all
SIDE = 360  # pixels of a picture on the page


class Demo:
    """Draws what the page asks for. `folder` gets the image files, the newest KEPT of them.

    Wrong values raise UserError in `language`, one of `words.LANGUAGES`.
    """

    def __init__(self, generator, folder, language="en"):
        self.generator, self.folder, self.words = generator, Path(folder), words(language)
        self.has_attention = attention.has_attention(generator.network)
        self._lock, self._files = threading.Lock(), deque()
        one = generator.parameters.attention_size**4  # bytes of an image's maps, float32 [R, R, R/2, R/2]
        self._attended = functools.lru_cache(max(1, min(MAPS_KEPT, MAP_BYTES // one)))(self._attend)

    def image(self, label, seed, truncation):
        """An image: the picture to show, uint8 [side, side, C], and the file of the image at its own size."""
        label, seed, truncation = self._checked(label, seed, truncation)
        with self._lock:
            image = self.generator.draw([label], [seed], truncation or None)[0]
            return self._saved(image, f"{self._name(label)}-seed{seed}{_limit(truncation)}")

    def walk(self, kind, label, seed, other_label, other_seed, truncation, share):
        """The image at `share`, from 0 to 1, of the walk to another seed or class, as `kind` says.

        The result is that of `image`.
        """
        label, seed, truncation = self._checked(label, seed, truncation)
        other_label, other_seed, _ = self._checked(other_label, other_seed, truncation)
        if kind not in ("seed", "class"):
            raise UserError(
                f"{self.words['choose']} {self.words['walk_to']}: {self.words['to_seed']}, {self.words['to_class']}"
            )
        frame = round(self._number(share, 0, 1, "share") * (FRAMES - 1))
        with self._lock:
            if kind == "seed":
                frames, end = self._walk(kind, label, seed, label, other_seed, truncation), f"seed{other_seed}"
            else:
                frames, end = self._walk(kind, label, seed, other_label, seed, truncation), self._name(other_label)
            name = f"{self._name(label)}-seed{seed}-to-{end}{_limit(truncation)}"
            return self._saved(frames[frame], f"{name}-{frame + 1}of{FRAMES}")

    @functools.lru_cache(maxsize=32)  # noqa: B019, there is one demo in a process
    def _walk(self, kind, label, seed, other_label, other_seed, truncation):
        how = {"frames": FRAMES, "truncation": truncation or None}
        if kind == "seed":
            walk = self.generator.walk_between_seeds([seed, other_seed], [label], **how)
        else:
            walk = self.generator.walk_between_classes([label, other_label], [seed], **how)
        return [frame[0] for frame in walk]

    def attention(self, label, seed, truncation, point):
        """The map of an image's attention for the query `point`, (y, x) as shares, to show: uint8 [side, side, 3]."""
        label, seed, truncation = self._checked(label, seed, truncation)
        y, x = (self._number(share, 0, 1, "point") for share in point)
        with self._lock:
            image, maps = self._attended(label, seed, truncation)
        shown = _to_show(image).transpose(2, 0, 1)
        return attention.overlay(shown, attention.map_of(maps, (y, x)), (y, x), attention.COLOURS[0]).transpose(1, 2, 0)

    def _attend(self, label, seed, truncation):
        noise = self.generator.noise([seed], truncation or None)
        images, maps = attention.attention_maps(self.generator.network, noise, [label])
        return sampler.to_pixels(images, self.generator.parameters)[0], maps[0]

    def _checked(self, label, seed, truncation):
        """The label and the seed as int, the truncation as float. Raises UserError for other values."""
        classes = len(self.generator.class_names)
        label = self._number(label, 0, classes - 1, "class", whole=True)
        seed = self._number(seed, 0, LAST_SEED, "a_seed", whole=True)
        return int(label), int(seed), float(self._number(truncation, 0, WIDEST, "truncation"))

    def _number(self, value, low, high, name, whole=False):
        """`value` if it is a number from `low` to `high`. Raises UserError otherwise. `name`: its name in WORDS."""
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not low <= value <= high or (whole and value != int(value)):
            wanted = self.words["whole_number_wanted" if whole else "number_wanted"]
            raise UserError(wanted.format(name=self.words[name], low=low, high=high))
        return value

    def _name(self, label):
        return class_folder(label, self.generator.class_names[label])

    def _saved(self, image, name):
        """Write an image, uint8 [C, H, W], as NAME.png. Removes the oldest file beyond KEPT.

        Returns (the picture to show, the path).
        """
        path = self.folder / f"{name}.png"
        if path in self._files:
            self._files.remove(path)
        self._files.append(path)
        save_image(path, image.transpose(1, 2, 0))
        if len(self._files) > KEPT:
            self._files.popleft().unlink(missing_ok=True)
        return _to_show(image), str(path)


def _limit(truncation):
    """The truncation, for a file's name, with all digits, so that no two images share a name."""
    return f"-truncation{truncation}".removesuffix(".0") if truncation else ""


def _to_show(image):
    """An image, uint8 [C, H, W], as RGB [side, side, 3], enlarged by a whole factor to the size of a picture."""
    picture = enlarged(image[None], SIDE)[0]
    return np.broadcast_to(picture, (3, *picture.shape[1:])).transpose(1, 2, 0)
