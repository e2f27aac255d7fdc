"""All options, with type, default, help, rule and the names they have in the replications; and reading recipes.

The defaults are those of the published SAGAN replication. A recipe (`recipes/NAME.yaml`, or a file) replaces some of
them. The options on the command line replace those of the recipe (`command/line.py`).
"""

import math
import os
import re
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import yaml

from metrics import all_metrics
from metrics.record import ANY_DATA, BOTH_SPLITS, CLASSIFIED_DATA
from options import (
    COUNT,
    COUNT_OR_0,
    PLAIN_NAME,
    POSITIVE,
    SEED,
    SHARE,
    SIZE,
    WEIGHT,
    Rule,
    are_unique,
    did_you_mean,
    one_of,
    option,
    read_yaml,
    typed,
    whole_number,
)
from published_data import all_data_sets
from utils import UserError

RECIPES = Path(__file__).with_name("recipes")
IMAGE_SIZES = {  # model: the image sizes, in pixels, that its networks can be built for
    "sagan": (16, 32, 64, 128, 256),
    "sagan-cifar10": (32,),
    "acgan-imagenet": (128,),
    "acgan-imagenet-torch": (128,),
    "acgan-cifar10": (32,),
    "acgan-mnist": range(4, 4097, 4),
    "acgan-mlp": range(1, 4097),
    "acgan-digits": (16,),
}
SAGANS = ("sagan", "sagan-cifar10")
DATA_SETS = all_data_sets()
METRICS = all_metrics()
# The processes of a run may differ in these: each host has its own devices and its own paths to the same files. All
# processes use rank 0's --save_path.
MAY_DIFFER_BY_PROCESS = (
    "device",
    "threads",
    "num_workers",
    "data_in_memory",
    "data_path",
    "test_data_path",
    "pretrained_model",
    "save_path",
)


def paths_in(text):
    """The paths in `text`, with commas between them. A file or folder with a comma in its name is one path."""
    return [text] if os.path.exists(text) else text.split(",")


def count_classes(text):
    """The number of classes that `text` chooses, in the syntax of `--classes`; None if the syntax is wrong."""
    if text.startswith("random:"):
        match = re.fullmatch("random:([1-9][0-9]{0,8}):[0-9]{1,18}", text)
        return int(match[1]) if match else None
    names = [name.strip() for name in text.split(",")]
    if len(names) == 2 and all(re.fullmatch("[0-9]{1,9}", name) for name in names):
        return max(int(names[1]) - int(names[0]), 0) or None
    return len(names) if all(names) and are_unique(names) else None


MODEL = one_of(*IMAGE_SIZES)
DATASET = one_of(*DATA_SETS, "folder", "imagenet", "fake")
AMP = one_of("bf16", "fp16")
REAL_SPLIT = one_of("test", "train", "both")
RESIZE_FILTER = one_of("box", "bilinear", "hamming", "bicubic", "lanczos")
USUAL_FILTERS = ", ".join(
    ["bilinear", *(f"for {data.name} {data.filter}" for data in DATA_SETS.values() if data.filter != "bilinear")]
)
ADV_LOSS = one_of("hinge", "dcgan", "wgan_gp", "gan")
CLASS_LOSS = one_of("cross_entropy", "d2d_ce")
DIFFAUG = Rule(
    "some of color, translation, cutout, each once, such as color,cutout",
    lambda text: set(kinds := text.split(",")) <= {"color", "translation", "cutout"} and are_unique(kinds),
)
CLASSES = Rule(
    "a range such as 10,20 (10 to 19), a list of names, a list of 3 or more numbers (give two classes by name), or "
    "random:HOW_MANY:SEED",
    lambda text: count_classes(text) is not None,
)
METRIC_LIST = Rule(
    f"auto, none, or some of {','.join(METRICS)}, each once",
    lambda text: text in ("auto", "none") or (set(names := text.split(",")) <= set(METRICS) and are_unique(names)),
)
LABELS = Rule(
    "auto, uniform, or some classes by name or number such as daisy,3, each once (a class named 3 comes first)",
    lambda text: all(names := [name.strip() for name in text.split(",")]) and are_unique(names),
)
UP_TO_65536 = whole_number(1, 65536)
UP_TO_256 = whole_number(0, 256)
THREADS = whole_number(1, 256)
DEVICE = Rule("cpu, gpu or gpu:NUMBER, from 0 to 999", re.compile("cpu|gpu(:[0-9]{1,3})?").fullmatch)
STATE_DICT = Rule(
    "state_dict (a pickled model contains code, and this project runs no code from files)", "state_dict".__eq__
)

_recipe = partial(option, group="Recipe")
_data = partial(option, group="Data")
_network = partial(option, group="Networks")
_loss = partial(option, group="Losses")
_training = partial(option, group="Training")
_output = partial(option, group="Output of a run")
_weights = partial(option, group="Weights to start from")
_testing = partial(option, group="Testing")
_measures = partial(option, group="Measures")
_runtime = partial(option, group="Runtime")
_published = partial(option, group="Accepted as published")
# Groups that `--help` leaves out.
HIDDEN = {"train": {"Testing"}, "test": {"Losses", "Training", "Output of a run"}}


@dataclass(frozen=True)
class Parameters:
    """The options of one run. `CommandLine.parameters` makes them once, and nothing changes them afterwards."""

    recipe: str = _recipe(
        "sagan-imagenet", "a name listed below, or a YAML file such as a run's", metavar="NAME|FILE", inferred=True
    )
    model: str = _recipe("sagan", f"the two networks: {MODEL.phrase}", MODEL)

    dataset: str = _data("imagenet", DATASET.phrase, DATASET)
    data_path: str | None = _data(
        None, "images to train on: a folder for each class, or a file of pack.py", metavar="DIR|FILE", also="dataroot"
    )
    test_data_path: str | None = _data(
        None, "real images to compare with, in the same form as --data_path", metavar="DIR|FILE"
    )
    classes: str | None = _data(None, f"use only these: {CLASSES.phrase}", CLASSES, "CLASSES", also="classes_idx")
    num_classes: int | None = _data(None, "number of classes; left out: as many as the data have", UP_TO_65536)
    imsize: int = _data(128, "side of the images the networks see, in pixels", SIZE, also="imageSize")
    centercrop: bool = _data(False, "resize the shorter side and cut out the middle, instead of squeezing the image")
    centercrop_size: int = _data(
        128, "side of the square that --centercrop cuts out, in pixels; left out: --imsize", SIZE
    )
    dont_resize: bool = _data(False, "use images at the size they have")
    resize_filter: str | None = _data(
        None, f"filter for resizing: {RESIZE_FILTER.phrase}; left out: {USUAL_FILTERS}", RESIZE_FILTER
    )
    fast_decode: bool = _data(
        False, "decode large JPEGs at 1/2, 1/4 or 1/8 of their size for training; the pixels change a little"
    )
    mirror: bool = _data(False, "in each epoch, mirror each training image, left to right, with probability 1/2")
    exif: bool = _data(False, "turn images of folders upright by their EXIF orientation, which phones store")
    dont_normalize: bool = _data(False, "scale pixels to 0..1 instead of -1..1")
    dont_shuffle: bool = _data(False, "keep the data's order in every epoch")
    dont_drop_last: bool = _data(False, "train on an epoch's last batch even if it is not full")
    num_workers: int = _data(4, "threads that read images; in pack.py processes", UP_TO_256, also="workers")
    data_in_memory: bool = _data(False, "read all training images once and keep them in memory, in each process")

    z_dim: int = _network(128, "width of the noise vector", SIZE, also="nz")
    g_conv_dim: int = _network(64, "base number of channels of the generator", SIZE, also="ngf")
    d_conv_dim: int = _network(64, "base number of channels of the discriminator", SIZE, also="ndf")
    relu_shortcut: bool = _network(
        False,
        "SAGAN: the discriminator's shortcuts carry relu(x), as in the PyTorch replication; its checkpoints set this",
    )
    attention_size: int = _network(32, "SAGAN: resolution of the self-attention, in pixels", SIZE)
    dropout: float = _network(0.5, "ACGAN: share of activations that the discriminator drops", SHARE)

    adv_loss: str = _loss("hinge", "hinge, dcgan (cross-entropy), wgan_gp or gan (minimax cross-entropy)", ADV_LOSS)
    lambda_gp: float = _loss(10.0, "weight of wgan_gp's gradient penalty", WEIGHT)
    class_loss: str = _loss(
        "cross_entropy",
        "cross_entropy (of ACGAN's class head; SAGAN has a projection and no class loss) or d2d_ce (ReACGAN, in place "
        "of class head or projection)",
        CLASS_LOSS,
    )
    class_loss_weight: float = _loss(1.0, "weight of the class loss", WEIGHT)
    d2d_embed_dim: int = _loss(512, "d2d_ce: width of the embeddings of images and classes", SIZE)
    d2d_temperature: float = _loss(0.5, "d2d_ce: temperature, which divides similarities", POSITIVE)
    d2d_margin: float = _loss(
        0.98,
        "d2d_ce: cosine from which an image counts as close to its class; below 1 minus this value it counts as far "
        "from images of other classes",
        SHARE,
    )
    inst_noise_sigma: float = _loss(0.0, "standard deviation of noise added to the discriminator's images", WEIGHT)
    inst_noise_sigma_iters: int = _loss(2000, "steps until --inst_noise_sigma has fallen to 0", COUNT)

    diffaug: str | None = _loss(
        None,
        f"DiffAugment, for small data sets: change the images that D sees at random: {DIFFAUG.phrase}",
        DIFFAUG,
        "LIST",
    )

    total_step: int = _training(3_000_000, "steps to train for", COUNT)
    niter: int | None = _training(None, "epochs to train for, instead of --total_step", COUNT)
    batch_size: int = _training(64, "images in a step, in each process", UP_TO_65536, also="batchSize")
    global_batch_size: int | None = _training(
        None, "images in a step over all processes, split evenly among them, instead of --batch_size", UP_TO_65536
    )
    batch_size_in_gpu: int | None = _training(None, "images in memory at once; left out: --batch_size", UP_TO_65536)
    sync_bn: bool = _training(
        False, "compute batch norm's statistics over the images of all processes, not of each one"
    )
    recompute: bool = _training(
        False, "SAGAN: compute each block again in the backward pass: less memory, but a slower step"
    )
    amp: str | None = _training(None, "mixed precision, bf16 or fp16, on a GPU; left out: float32", AMP)
    d_steps_per_iter: int = _training(1, "discriminator updates in a step", COUNT)
    g_steps_per_iter: int = _training(1, "generator updates in a step", COUNT)
    d_lr: float = _training(0.0004, "learning rate of the discriminator", POSITIVE)
    g_lr: float = _training(0.0001, "learning rate of the generator", POSITIVE)
    beta1: float = _training(0.0, "Adam's beta1", SHARE)
    beta2: float = _training(0.9, "Adam's beta2", SHARE)
    ema_decay: float = _training(0.0, "decay per step of the generator's moving average; 0: no average", SHARE)
    ema_start: int = _training(
        0,
        "until this step the average is a plain copy of G; 0: average from step 1, with a smaller decay at first",
        COUNT_OR_0,
    )

    dry_run: bool = _output(False, "train 20 steps, print time, memory and disk of the whole run, and write no run")
    save_path: str = _output("sagan_models", "folder that holds the folders of runs", metavar="DIR", also="outf")
    name: str | None = _output(None, "name of the run's folder; left out: RECIPE-NUMBER", PLAIN_NAME)
    resume: str | None = _output(
        None,
        "continue the run in this folder; auto: the run of --name or else the newest; a new run if there is none",
        metavar="auto|DIR",
    )
    log_step: int = _output(10, "steps between lines of the log", COUNT)
    tipc_log: bool = _output(False, "also print each line of the log in the form that Paddle's TIPC reads")
    sample_step: int = _output(100, "steps between pictures of samples", COUNT)
    model_save_step: int = _output(100, "steps between checkpoints", COUNT)
    save_freq: int | None = _output(None, "epochs between checkpoints, instead of --model_save_step", COUNT)
    keep_checkpoints: int = _output(
        10, "number of newest checkpoints to keep; the best by score is kept too; 0: keep all", COUNT_OR_0
    )
    model_weights_dir: str = _output("weights", "folder of the checkpoints in the run's folder", PLAIN_NAME)
    sample_images_dir: str = _output("samples", "folder of the pictures in the run's folder", PLAIN_NAME)
    max_frames_per_gif: int = _output(5000, "pictures in one animation", COUNT)

    pretrained_model: str | None = _weights(
        None,
        "a checkpoint, of this project or published, or a run's folder; in test.py also several: PATH,PATH,…",
        metavar="PATH",
        also="netG",
    )
    state_dict_or_model: str = _weights("state_dict", "content of the --pretrained_model file", STATE_DICT)

    metrics: str = _measures(
        "auto",
        "what to measure: auto (metrics that fit the data; for folders not floor, which reads all training images), "
        f"none, or some of {', '.join(METRICS)}",
        METRIC_LIST,
        "LIST",
    )
    real_split: str = _measures("test", f"real images to compare with: {REAL_SPLIT.phrase}", REAL_SPLIT)
    reference: str | None = _measures(
        None, "statistics of real images (.npz with mu, sigma), instead of --test_data_path", metavar="FILE"
    )
    inception_weights: str | None = _measures(
        None, "weights of the Inception of 2015; left out: downloaded once, when first needed", metavar="FILE"
    )
    half_precision: bool = _measures(False, "run Inception in float16, on a GPU; the figures change a little")
    eval_step: int = _measures(0, "train.py: steps between measurements; 0: none", COUNT_OR_0)
    eval_samples: int = _measures(5000, "train.py: samples in a measurement of --eval_step", COUNT)

    num_samples: int = _testing(50_000, "samples to draw", COUNT)
    samples: str | None = _testing(
        None, "measure these instead: .npz with arr_0, or a folder of images or of class folders", metavar="PATH"
    )
    samples_dir: str | None = _testing(None, "write each sample there as a PNG", metavar="DIR")
    samples_npz: str | None = _testing(
        None, "write all samples there: arr_0 uint8 [N,H,W,C], arr_1 labels", metavar="FILE"
    )
    labels: str = _testing(
        "auto",
        "classes to draw, one after the other: uniform (all), or a list of names or numbers; auto: those of "
        "--test_data_path, or all without it",
        LABELS,
        "LIST",
    )
    use_ema: bool = _testing(True, "draw from the moving average of the weights if there is one")
    standing_batches: int = _testing(
        0, "number of batches to compute G's batch statistics from; 0: use those of the training", COUNT_OR_0
    )
    truncation: float | None = _testing(None, "redraw noise values beyond ± this; left out: keep all", POSITIVE)
    batch_size_test: int = _testing(64, "no effect: the generator always draws 16 samples at once", UP_TO_65536)
    check_path: str | None = _testing(None, "folder of G_EPOCH.pdparams (Paddle ACGAN replication)", metavar="DIR")
    which_epoch: int = _testing(499, "EPOCH in --check_path", COUNT_OR_0)
    test_path: str | None = _testing(
        None, "folder of the report; left out: a folder in the run's folder", metavar="DIR"
    )

    manual_seed: int = _runtime(29, "seed of all random numbers", SEED, also="manualSeed")
    threads: int | None = _runtime(
        None, "threads that compute on the CPU; left out: its physical cores; another number changes rounding", THREADS
    )
    device: str | None = _runtime(None, "cpu, gpu or gpu:NUMBER; left out: a GPU if there is one", DEVICE)
    parallel: bool = _runtime(True, "no effect: python -m paddle.distributed.launch makes a run parallel")

    @property
    def pretrained_models(self):
        """The paths that `pretrained_model` names for test.py."""
        return paths_in(self.pretrained_model) if self.pretrained_model else []

    @property
    def chosen_metrics(self):
        """The names out of METRICS that `metrics` chooses."""
        if self.metrics == "none":
            return ()
        if self.metrics != "auto":
            return tuple(self.metrics.split(","))
        data = ()
        reads_training = self.real_split == "train" and self.data_path
        if self.by_classifier:
            data = (ANY_DATA, BOTH_SPLITS, CLASSIFIED_DATA)
        elif self.published_data and not self.reference and (self.data_path or not self.test_data_path):
            data = (ANY_DATA, BOTH_SPLITS)
        elif self.test_data_path or self.reference or self.published_data or reads_training:
            data = (ANY_DATA,)
        return tuple(metric.name for metric in METRICS.values() if metric.auto in data)

    @property
    def is_sagan(self):
        """Whether the networks are SAGAN's."""
        return self.model in SAGANS

    @property
    def embed_dim(self):
        """The width of the embeddings that the class loss d2d_ce reads; None with another class loss."""
        return self.d2d_embed_dim if self.class_loss == "d2d_ce" else None

    @property
    def published_data(self):
        """The `DataSet` that `dataset` names; None for folders, ImageNet and `fake`."""
        return DATA_SETS.get(self.dataset)

    @property
    def reads_folders(self):
        """Whether the images are files in class folders, or packed from them."""
        return self.dataset in ("folder", "imagenet")

    @property
    def is_built_in(self):
        """Whether the images need no files: a package holds them, or the program makes them."""
        return self.dataset == "fake" or bool(self.published_data and self.published_data.built_in)

    @property
    def channels(self):
        """Channels of the data set's images: 1 (gray) or 3 (RGB)."""
        return 1 if self.published_data and self.published_data.gray else 3

    @property
    def by_classifier(self):
        """Whether a classifier that this project trains measures the images. Inception was not trained on gray ones."""
        return self.channels == 1

    @property
    def usual_filter(self):
        """The filter without `resize_filter`: the replications' bilinear one, or that of the published data set."""
        return self.published_data.filter if self.published_data else "bilinear"

    @property
    def filter(self):
        """The name of the filter that resizes images."""
        return self.resize_filter or self.usual_filter

    @property
    def data_source(self):
        """The option that says where the training images come from, with its value."""
        return f"--data_path {self.data_path}" if self.data_path else f"--dataset {self.dataset}"

    def shared(self):
        """{option: value} that all processes of a run must agree on: all except MAY_DIFFER_BY_PROCESS."""
        values = asdict(self)
        first = ("resume", "name")  # compared first: they explain best that two processes have different runs
        return {f"--{name}": values[name] for name in (*first, *values) if name not in MAY_DIFFER_BY_PROCESS}

    @property
    def rounds(self):
        """Rounds of gradient accumulation in which a process computes its share of a batch."""
        return self.batch_size // (self.batch_size_in_gpu or self.batch_size)

    def to_yaml(self):
        """YAML text that `--recipe FILE` reads back. It leaves out the options that belong to one command."""
        once = ("resume", "name", "dry_run")
        values = {name: value for name, value in asdict(self).items() if name not in once}
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=math.inf)


@dataclass(frozen=True)
class _Published:
    """Published options that are not fields of `Parameters`. `command/line.py` translates them into fields."""

    lr: float = _published(None, "both learning rates; --d_lr and --g_lr override it", POSITIVE)
    cuda: bool = _published(False, "use a GPU if there is one (this is the default)")
    disable_cuda: bool = _published(False, "the same as --device cpu")
    gpu_id: int = _published(None, "the same as --device gpu:N", UP_TO_256, also="gpu")
    ngpu: int = _published(None, "0: the same as --device cpu; other numbers have no effect", COUNT_OR_0)
    netD: str | None = _published(None, "D's file beside --netG: the same name, with D instead of G", metavar="FILE")
    result_path: str | None = _published(None, "no effect: pictures are in the run's folder", metavar="DIR")
    class_result_path: str | None = _published(
        None, "no effect: the class grid is in the folder of the report", metavar="DIR"
    )
    log_path: str | None = _published(None, "no effect: the log is in the run's folder", metavar="DIR")


OPTIONS = {option.name: option for option in fields(Parameters)}
PUBLISHED = {option.name: option for option in fields(_Published)}
# Published names that mean another option in one of the two programs, as they do in the Paddle ACGAN replication.
BY_PROGRAM = {
    "train": {"check_path": "save_path"},
    "test": {"batchSize": "num_samples", "result_path": "test_path"},
}


def read_recipe(recipe):
    """{field name: value} of `recipe`, which is a name in recipes/ or a YAML file."""
    names = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    if recipe in names:
        return {**read_parameters(RECIPES / f"{recipe}.yaml"), "recipe": recipe}
    if not os.path.isfile(recipe):
        hint = did_you_mean(recipe, names)
        raise UserError(f"--recipe {recipe} is neither a file nor one of {', '.join(names)}{hint}")
    values = read_parameters(recipe)
    if "recipe" not in values:
        values["recipe"] = Path(recipe).stem
        _check_recipe_name(values["recipe"], recipe)
    return values


def read_parameters(path):
    """{field name: typed value} of a YAML file of `option: value` lines."""
    return typed_options(read_yaml(path), path)


def typed_options(values, where):
    """`values` by field name, read from the file `where`, converted to the types of their options."""
    values = typed(OPTIONS, values, where)
    if "recipe" in values:
        _check_recipe_name(values["recipe"], where)
    return values


def _check_recipe_name(name, where):
    """Refuse the recipe's `name`, read from the file `where`, if no run's folder can have that name."""
    if not PLAIN_NAME.accepts(name):
        where = str(where) if str(where).isprintable() else repr(str(where))
        raise UserError(
            f"{where}: the recipe's name {name!r:.80} is not {PLAIN_NAME.phrase}. The folders of runs "
            "get this name: write another one as its `recipe`"
        )


def from_values(values, where):
    """The `Parameters` with `values` by field name, read from the file `where`. Raises UserError for wrong values."""
    p = Parameters(**typed_options(values, where))
    check_fit(p)
    check_classes(p, {}, where)
    return p


def check_fit(p):
    """Raise UserError if two values contradict each other."""
    sizes = IMAGE_SIZES[p.model]
    if p.imsize not in sizes:
        sizes_in_words = f"a multiple of {sizes.step}" if isinstance(sizes, range) else one_of_numbers(sizes)
        raise UserError(f"--imsize {p.imsize} does not fit --model {p.model}: give {sizes_in_words}")
    attention_sizes = [2**k for k in range(3, 8) if 2**k < p.imsize]
    if p.is_sagan and p.attention_size not in attention_sizes:
        raise UserError(
            f"--attention_size {p.attention_size} is not a power of 2 from 8 to half of --imsize {p.imsize}: give "
            f"{one_of_numbers(attention_sizes)}"
        )
    check_crop(p)
    if p.batch_size_in_gpu and p.batch_size % p.batch_size_in_gpu:
        origin = f", a process's share of --global_batch_size {p.global_batch_size}" if p.global_batch_size else ""
        raise UserError(
            f"--batch_size_in_gpu {p.batch_size_in_gpu} does not divide --batch_size {p.batch_size}{origin}: "
            "give a divisor of it"
        )


def one_of_numbers(numbers):
    """`numbers` in words: 8, 16 or 32."""
    *first, last = map(str, numbers)
    return f"{', '.join(first)} or {last}" if first else last


def check_crop(p):
    """Raise UserError if --centercrop cuts out another size than the networks read."""
    if p.centercrop and p.centercrop_size != p.imsize:
        raise UserError(f"--centercrop_size {p.centercrop_size} differs from --imsize {p.imsize}: leave it out")


def check_classes(p, given, where):
    """Raise UserError if `num_classes` differs from the number of classes that `classes` chooses.

    The message depends on the origin of the number: the options `given`, a generator's weights, or the file `where`.
    """
    if not p.classes or p.num_classes in (None, count := count_classes(p.classes)):
        return
    if "num_classes" in given:
        raise UserError(
            f"--num_classes {p.num_classes} disagrees with --classes {p.classes}, which chooses {count}: leave "
            "--num_classes out; --classes none takes all"
        )
    if "classes" in given:
        raise UserError(
            f"--classes {p.classes} chooses {count} classes, but the generator has {p.num_classes} classes: choose "
            "as many, or leave it out; --labels chooses the classes to draw"
        )
    raise UserError(f"{where}: num_classes {p.num_classes} disagrees with classes {p.classes}, which chooses {count}")


def changed_options(before, after):
    """{option: (old, new)} of the values, by field name, that differ. Options that only locate the run are left out."""
    before = asdict(Parameters()) | before
    names = [name for name in OPTIONS if name not in ("save_path", "name", "resume")]
    return {name: (before[name], after[name]) for name in names if before[name] != after[name]}
