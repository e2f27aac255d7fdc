"""Options of single commands: their own, and those that they share with train.py and test.py."""

import copy
from dataclasses import dataclass, fields
from functools import partial
from typing import NamedTuple

from options import NUMBERS, Rule, numbers, one_of, option, whole_number
from parameters import LABELS, OPTIONS

ENDINGS = {"film": (".gif", ".webp"), "grid": (".png",)}  # of the file that generate.py writes
OUT = Rule("a file name that ends in .npz or .zip", lambda path: path.lower().endswith((".npz", ".zip")))
WALK = Rule(f"`classes`, or {NUMBERS.phrase}", lambda text: text == "classes" or NUMBERS.accepts(text))
FRAMES = whole_number(2, 1000)
HTML = Rule("a file name that ends in .html", lambda path: path.lower().endswith(".html"))
LANGUAGE = one_of("en", "cn")
PORT = whole_number(1, 65535)

_packing = partial(option, group="Packing")
_drawing = partial(option, group="Drawing")
_exporting = partial(option, group="Export")
_page = partial(option, group="Page")


@dataclass(frozen=True)
class Packing:
    """The options of pack.py that are not fields of `Parameters`."""

    out: str | None = _packing(None, "the file to write: .npz, or .zip in StyleGAN's format", OUT, "FILE")
    label_list: str | None = _packing(
        None,
        "for images without class folders, such as ImageNet's validation set: a text file with FILE CLASS on each line,"
        " or CLASS alone for each file in order",
        metavar="FILE",
    )


@dataclass(frozen=True)
class Drawing:
    """The options of generate.py that are not fields of `Parameters`."""

    labels: str = _drawing(
        "auto", "classes to draw: names or numbers, uniform (all), or auto (the first ten)", LABELS, "LIST"
    )
    seeds: str = _drawing(
        "0-9", "seeds of each class, as 0-15 or 0,7,12; seed k is sample k of test.py", NUMBERS, "LIST"
    )
    grid: bool = _drawing(False, "write one picture, with a row for each class, instead of one file for each image")
    interpolate: str | None = _drawing(
        None,
        "write a film that walks between these seeds, as 0,7,12; or `classes`: between the classes of --labels",
        WALK,
        "LIST|classes",
    )
    frames: int = _drawing(60, "frames of the film", FRAMES)
    out: str | None = _drawing(
        None,
        "place to write to: a folder; with --grid a .png file; with --interpolate a .gif or .webp file; left out: a "
        "new folder in sagan_models",
        metavar="PATH",
    )

    @property
    def seed_list(self):
        """The numbers of `seeds`, in their order."""
        return numbers(self.seeds)

    @property
    def kind(self):
        """The kind of output: "film", "grid" or "images"."""
        return "film" if self.interpolate else "grid" if self.grid else "images"


@dataclass(frozen=True)
class Exporting:
    """The options of export.py that are not fields of `Parameters`."""

    out: str | None = _exporting(None, "the folder to write; left out: a new folder in sagan_models", metavar="DIR")


@dataclass(frozen=True)
class Page:
    """The options of gallery.py that are not fields of `Parameters`."""

    lang: str = _page("en", "language: en or cn", LANGUAGE, "en|cn")
    labels: str = _page("auto", "classes to show: names or numbers; of more than ten, ten are shown", LABELS, "LIST")
    out: str | None = _page(
        None, "the .html file to write; left out: gallery.html in a new folder in sagan_models", HTML, "FILE"
    )


@dataclass(frozen=True)
class Serving:
    """The options of demo.py that are not fields of `Parameters`."""

    lang: str = _page("en", "language: en or cn", LANGUAGE, "en|cn")
    host: str = _page(
        "127.0.0.1",
        "address to serve the page at: by default to this machine alone; 0.0.0.0: to all",
        metavar="ADDRESS",
    )
    port: int | None = _page(None, "port to serve the page at; left out: the first free one from 7860 on", PORT)


class Command(NamedTuple):
    """A command with options of its own. `own`: their dataclass. `shared`: names of its fields of `Parameters`.

    `argument`: the option that needs no name if its value comes first. `texts`: {name: (group, help)} of
    fields whose texts in `Parameters` describe a training or a test.
    """

    own: type
    shared: tuple
    description: str
    argument: str = ""
    texts: dict = {}  # noqa: RUF012, never changed

    @property
    def options(self):
        """{name: option} of its own options."""
        return {option.name: option for option in fields(self.own)}

    @property
    def shared_options(self):
        """Its options that are fields of `Parameters`, with the command's texts."""
        return [self._described(option) for name, option in OPTIONS.items() if name in {*self.shared} - {*self.options}]

    def _described(self, option):
        if option.name not in self.texts:
            return option
        group, text = self.texts[option.name]
        option = copy.copy(option)
        option.metadata = {**option.metadata, "group": group, "help": text}
        return option


# The text of `--help` above the options.
OF_RECIPES = (
    "In brackets: the defaults, which are those of sagan-imagenet. Other recipes change some of\n"
    "them (recipes/NAME.yaml); options on the command line override the recipe."
)
OF_GENERATORS = (
    "pretrained_model", "num_classes", "use_ema", "standing_batches", "batch_size", "manual_seed", "device", "threads",
)  # fmt: skip
GENERATOR_TEXTS = {
    name: ("Generator", text)
    for name, text in {
        "pretrained_model": "a checkpoint, of this project or published, or a run's folder",
        "num_classes": "number of classes of the generator; left out: as its weights say",
        "use_ema": "use the moving average of the weights if there is one",
        "standing_batches": "number of batches to compute G's batch statistics from; 0: use those of the training",
        "batch_size": "images in each batch of --standing_batches",
        "truncation": "redraw noise values beyond ± this; left out: keep all",
    }.items()
}
GALLERY_TEXTS = GENERATOR_TEXTS | {
    name: ("Images to compare with", text)
    for name, text in {
        "data_path": "the training images: a folder for each class, or a file of pack.py; left out: as in the run",
        "test_data_path": "real test images, in the same form as --data_path",
        "num_workers": "threads that read images",
        "inception_weights": "weights of the Inception of 2015; left out: downloaded once, when first needed",
    }.items()
}
COMMANDS = {
    "pack": Command(
        Packing,
        (
            "recipe", "model", "dataset", "data_path", "test_data_path", "classes", "num_classes", "imsize",
            "centercrop", "centercrop_size", "dont_resize", "resize_filter", "exif", "num_workers",
        ),  # those that decide which images are read, and how
        OF_RECIPES,
    ),
    "generate": Command(
        Drawing,
        (*OF_GENERATORS, "truncation"),
        "Without any option it draws a grid from each of the generators in weights/. Without --pretrained_model it\n"
        "draws from weights/acgan-digits.safetensors. In brackets: the defaults; the settings in the weights override\n"
        "them.",
        texts=GENERATOR_TEXTS,
    ),
    "export": Command(
        Exporting,
        tuple(name for name in OF_GENERATORS if name not in ("device", "threads")),
        "Writes a folder with the generator for other programs: a Paddle inference model, ONNX, safetensors with the\n"
        "names of this project and of PyTorch, config.json, a model card, and examples. In brackets: the defaults;\n"
        "the settings in the weights override them.",
        texts=GENERATOR_TEXTS,
    ),
    "gallery": Command(
        Page,
        (*OF_GENERATORS, "data_path", "test_data_path", "inception_weights", "num_workers"),
        "RUN is a run's folder, or a checkpoint of this project or published. In brackets: the defaults; the settings\n"
        "in the weights override them.",
        argument="pretrained_model",
        texts=GALLERY_TEXTS,
    ),
    "demo": Command(
        Serving,
        OF_GENERATORS,
        "Serves a page to play with a generator, until Ctrl-C. It needs Gradio: pip install -r requirements/demo.txt.\n"
        "In brackets: the defaults; the settings in the weights override them.",
        argument="pretrained_model",
        texts=GENERATOR_TEXTS,
    ),
}  # fmt: skip
