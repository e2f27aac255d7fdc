"""Every option once: type, default, help, what is refused, and the name it has in the replications.

`get_parameters` lays three layers over each other: the defaults below, which are the published SAGAN replication's; a
recipe (`recipes/NAME.yaml`, a file, or what a run or checkpoint brings along); the command line.
"""

import math
import os
import re
import sys
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import yaml

from metrics import all_metrics
from metrics.record import ANY_DATA, BOTH_SPLITS, CLASSIFIED_DATA, LAST_LAYER, REAL, SAMPLES, TRAINING
from options import Rule, did_you_mean, one_of, option, parse, read_yaml, spellings, typed
from runtime import world_size
from utils import RUN_FILE, UserError

RECIPES = Path(__file__).with_name("recipes")
IMAGE_SIZES = {  # in pixels, that each pair of networks is made for
    "sagan": (32, 64, 128, 256),
    "acgan-imagenet": (128,),
    "acgan-imagenet-torch": (128,),
    "acgan-cifar10": (32,),
    "acgan-mnist": range(4, 4097, 4),
    "acgan-mlp": range(1, 4097),
    "acgan-digits": (16,),
}
SMALL_IMAGES = {  # data set: the recipe made for it
    "digits": "acgan-digits",
    "mnist": "acgan-mnist",
    "fashion-mnist": "acgan-mnist",
    "cifar10": "acgan-cifar10",
}
OF_ONE_RUN = (
    "name", "save_path", "pretrained_model", "check_path", "test_data_path", "test_path", "samples", "samples_dir",
    "samples_npz", "metrics", "reference", "inception_weights", "half_precision", "labels", "device", "num_workers",
)  # fmt: skip
OF_DRAWING = {
    "num_samples", "labels", "truncation", "standing_batches", "use_ema", "samples_dir", "samples_npz",
}  # fmt: skip
# Options without effect in train.py, in train.py without --eval_step, and in test.py (there with the groups of HIDDEN).
ALWAYS_IGNORED = {"batch_size_test": "since the generator always draws 16 samples at once"}
IGNORED_BY_TRAIN = ("samples", "samples_dir", "samples_npz", "test_path", "which_epoch")
IGNORED_WITHOUT_EVAL = (
    "metrics", "reference", "inception_weights", "half_precision", "eval_samples", "test_data_path", "labels",
)  # fmt: skip
IGNORED_BY_TEST = (
    "dont_shuffle", "dont_drop_last", "d_conv_dim", "relu_shortcut", "dropout", "eval_step", "eval_samples", "lr",
)  # fmt: skip
CLASSIFIED = ("digits", "mnist", "fashion-mnist")  # which Inception has not seen: a classifier trained here reads them
METRICS = all_metrics()
# What a run that goes on may change: neither what is trained, nor on which images in which order. The images of a step,
# --batch_size in each process, are compared when the number of processes is known.
CHANGEABLE = frozenset({
    "total_step", "niter", "d_lr", "g_lr", "batch_size", "global_batch_size", "batch_size_in_gpu", "log_step",
    "sample_step", "model_save_step", "save_freq", "keep_checkpoints", "max_frames_per_gif", "data_path",
    "test_data_path", "num_workers", "device", "parallel", "amp",
})  # fmt: skip
# Hosts may differ in these: devices, and where the same files are; of --save_path rank 0's counts.
OF_ONE_HOST = ("device", "num_workers", "data_path", "test_data_path", "pretrained_model", "save_path")
EITHER_OR = (("total_step", "niter"), ("model_save_step", "save_freq"), ("batch_size", "global_batch_size"))


def count_classes(text):
    """How many classes the syntax of `--classes` names; None where `text` is not of that syntax."""
    if text.startswith("random:"):
        match = re.fullmatch("random:([1-9][0-9]{0,8}):[0-9]{1,18}", text)
        return int(match[1]) if match else None
    names = [name.strip() for name in text.split(",")]
    if len(names) == 2 and all(re.fullmatch("[0-9]{1,9}", name) for name in names):
        return max(int(names[1]) - int(names[0]), 0) or None
    return len(names) if all(names) and len(set(names)) == len(names) else None


def unique(names):
    return len(set(names)) == len(names)


MODEL = one_of(*IMAGE_SIZES)
DATASET = one_of(*SMALL_IMAGES, "folder", "imagenet", "fake")
AMP = one_of("bf16", "fp16")
ADV_LOSS = one_of("hinge", "dcgan", "wgan_gp", "gan")
CLASSES = Rule(
    "a range such as 10,20 (10 to 19), a list of names or of 3 numbers or more (two classes apart: by name), or "
    "random:HOW_MANY:SEED",
    lambda text: count_classes(text) is not None,
)
METRIC_LIST = Rule(
    f"auto, none, or some of {','.join(METRICS)}, each once",
    lambda text: text in ("auto", "none") or (set(names := text.split(",")) <= set(METRICS) and unique(names)),
)
LABELS = Rule(
    "auto, uniform, or some classes by name or number such as daisy,3, each once (of a class called 3, 3 is the name)",
    lambda text: all(names := [name.strip() for name in text.split(",")]) and unique(names),
)
SIZE = Rule("a whole number from 1 to 4096", lambda n: 1 <= n <= 4096)
MANY = Rule("a whole number from 1 to 65536", lambda n: 1 <= n <= 65536)
COUNT = Rule(f"a whole number from 1 to {2**31 - 1}", lambda n: 1 <= n < 2**31)
COUNT_OR_0 = Rule(f"a whole number from 0 to {2**31 - 1}", lambda n: 0 <= n < 2**31)
FEW = Rule("a whole number from 0 to 256", lambda n: 0 <= n <= 256)
SEED = Rule("a whole number from 0 to 2^63 - 1", lambda n: 0 <= n < 2**63)
POSITIVE = Rule("a finite number above 0", lambda x: 0 < x < math.inf)
WEIGHT = Rule("a finite number from 0", lambda x: 0 <= x < math.inf)
SHARE = Rule("a number from 0 up to, but not including, 1", lambda x: 0 <= x < 1)
PLAIN_NAME = Rule(
    "a plain name without slashes, of at most 200 bytes",
    lambda s: s.isprintable() and not {"/", "\\"} & set(s) and s.strip(". ") and len(s.encode()) <= 200,
)
DEVICE = Rule("cpu, gpu or gpu:NUMBER, from 0 to 999", re.compile("cpu|gpu(:[0-9]{1,3})?").fullmatch)
STATE_DICT = Rule("state_dict (a pickled model is code, and code from files is not run)", "state_dict".__eq__)

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
HIDDEN = {"train": {"Testing"}, "test": {"Losses", "Training", "Output of a run"}}  # groups `--help` leaves out


@dataclass(frozen=True)
class Parameters:
    """The options of one run, made once by `get_parameters`, passed on and never changed."""

    recipe: str = _recipe(
        "sagan-imagenet", "a name listed below, or a YAML file such as a run's", metavar="NAME|FILE", inferred=True
    )
    model: str = _recipe("sagan", f"the two networks: {MODEL.phrase}", MODEL)

    dataset: str = _data("imagenet", DATASET.phrase, DATASET)
    data_path: str | None = _data(None, "images to train on, a folder for each class", metavar="DIR", also="dataroot")
    test_data_path: str | None = _data(None, "images to test against, as --data_path", metavar="DIR")
    classes: str | None = _data(None, f"use these only: {CLASSES.phrase}", CLASSES, "CLASSES", also="classes_idx")
    num_classes: int | None = _data(None, "number of classes; left out: as many as the data have", MANY)
    imsize: int = _data(128, "side of the images the networks see, in pixels", SIZE, also="imageSize")
    centercrop: bool = _data(False, "resize the shorter side and cut the middle out, instead of squeezing")
    centercrop_size: int = _data(128, "side of what is cut out, in pixels; left out: --imsize", SIZE)
    dont_resize: bool = _data(False, "take images at the size they have")
    exif: bool = _data(False, "turn images of folders upright as their EXIF orientation says, as phones store it")
    dont_normalize: bool = _data(False, "scale pixels to 0..1 instead of -1..1")
    dont_shuffle: bool = _data(False, "keep the data's order in every epoch")
    dont_drop_last: bool = _data(False, "train on an epoch's last batch even if it is not full")
    num_workers: int = _data(4, "threads that read images", FEW, also="workers")

    z_dim: int = _network(128, "width of the noise vector", SIZE, also="nz")
    g_conv_dim: int = _network(64, "base number of channels of the generator", SIZE, also="ngf")
    d_conv_dim: int = _network(64, "base number of channels of the discriminator", SIZE, also="ndf")
    relu_shortcut: bool = _network(
        False,
        "SAGAN: the discriminator's shortcuts carry relu(x), as the PyTorch replication's; its checkpoints set it",
    )
    attention_size: int = _network(32, "SAGAN: resolution of the self-attention, in pixels", SIZE)
    dropout: float = _network(0.5, "ACGAN: share of activations that the discriminator drops", SHARE)

    adv_loss: str = _loss("hinge", "hinge, dcgan (cross-entropy), wgan_gp or gan (minimax cross-entropy)", ADV_LOSS)
    lambda_gp: float = _loss(10.0, "weight of wgan_gp's gradient penalty", WEIGHT)
    class_loss_weight: float = _loss(1.0, "ACGAN: weight of the class loss", WEIGHT)
    inst_noise_sigma: float = _loss(0.0, "standard deviation of noise added to the discriminator's images", WEIGHT)
    inst_noise_sigma_iters: int = _loss(2000, "steps in which that noise falls to 0", COUNT)

    total_step: int = _training(3_000_000, "steps to train for", COUNT)
    niter: int | None = _training(None, "epochs to train for, instead of --total_step", COUNT)
    batch_size: int = _training(64, "images in a step, in each process", MANY, also="batchSize")
    global_batch_size: int | None = _training(
        None, "images in a step over all processes, which share them out, instead of --batch_size", MANY
    )
    batch_size_in_gpu: int | None = _training(None, "images in memory at once; left out: --batch_size", MANY)
    sync_bn: bool = _training(False, "batch norm's statistics are those of all processes' images, not of each one's")
    amp: str | None = _training(None, "mixed precision, bf16 or fp16, on a GPU; left out: float32", AMP)
    d_steps_per_iter: int = _training(1, "discriminator updates in a step", COUNT)
    g_steps_per_iter: int = _training(1, "generator updates in a step", COUNT)
    d_lr: float = _training(0.0004, "learning rate of the discriminator", POSITIVE)
    g_lr: float = _training(0.0001, "learning rate of the generator", POSITIVE)
    beta1: float = _training(0.0, "Adam's beta1", SHARE)
    beta2: float = _training(0.9, "Adam's beta2", SHARE)
    ema_decay: float = _training(0.0, "decay in a step of the generator's moving average; 0: no average", SHARE)

    save_path: str = _output("sagan_models", "folder of the runs' folders", metavar="DIR", also="outf")
    name: str | None = _output(None, "name of the run's folder; left out: RECIPE-NUMBER", PLAIN_NAME)
    resume: str | None = _output(
        None, "go on with the run in this folder; auto: that of --name or the newest, or a new one", metavar="auto|DIR"
    )
    log_step: int = _output(10, "steps between lines of the log", COUNT)
    sample_step: int = _output(100, "steps between pictures of samples", COUNT)
    model_save_step: int = _output(100, "steps between checkpoints", COUNT)
    save_freq: int | None = _output(None, "epochs between checkpoints, instead of --model_save_step", COUNT)
    keep_checkpoints: int = _output(10, "newest checkpoints to keep, besides the best by score; 0: all", COUNT_OR_0)
    model_weights_dir: str = _output("weights", "folder of the checkpoints in the run's folder", PLAIN_NAME)
    sample_images_dir: str = _output("samples", "folder of the pictures in the run's folder", PLAIN_NAME)
    max_frames_per_gif: int = _output(5000, "pictures in one animation of them", COUNT)

    pretrained_model: str | None = _weights(None, "checkpoint, ours or published, or run", metavar="PATH", also="netG")
    state_dict_or_model: str = _weights("state_dict", "what that file holds", STATE_DICT)

    metrics: str = _measures(
        "auto",
        "what to measure: auto (what fits the data; for folders no floor, which reads all training images), none, or "
        f"some of {', '.join(METRICS)}",
        METRIC_LIST,
        "LIST",
    )
    reference: str | None = _measures(
        None, "statistics of real images (.npz with mu, sigma), instead of --test_data_path", metavar="FILE"
    )
    inception_weights: str | None = _measures(
        None, "Inception of 2015; left out: downloaded once, where it is needed", metavar="FILE"
    )
    half_precision: bool = _measures(False, "Inception in float16, on a GPU; the figures change a little")
    eval_step: int = _measures(0, "train.py: steps between measurements; 0: none", COUNT_OR_0)
    eval_samples: int = _measures(5000, "train.py: samples in such a measurement", COUNT)

    num_samples: int = _testing(50_000, "samples to draw", COUNT)
    samples: str | None = _testing(
        None, "measure these instead: .npz with arr_0, or a folder of images or of class folders", metavar="PATH"
    )
    samples_dir: str | None = _testing(None, "write each sample there as a PNG", metavar="DIR")
    samples_npz: str | None = _testing(None, "write all there: arr_0 uint8 [N,H,W,C], arr_1 labels", metavar="FILE")
    labels: str = _testing(
        "auto",
        "classes to draw, in turns: uniform (all), a list of names or numbers; auto: as in --test_data_path, else all",
        LABELS,
        "LIST",
    )
    use_ema: bool = _testing(True, "draw from the moving average of the weights where there is one")
    standing_batches: int = _testing(
        0, "batches over which to take G's batch statistics anew; 0: those of the training", COUNT_OR_0
    )
    truncation: float | None = _testing(None, "draw the noise anew where it is beyond this; left out: all", POSITIVE)
    batch_size_test: int = _testing(64, "no effect: the generator always draws 16 samples at once", MANY)
    check_path: str | None = _testing(None, "folder of G_EPOCH.pdparams (Paddle ACGAN replication)", metavar="DIR")
    which_epoch: int = _testing(499, "EPOCH in --check_path", COUNT_OR_0)
    test_path: str | None = _testing(None, "folder of the report; left out: in the run's", metavar="DIR")

    manual_seed: int = _runtime(29, "seed of all random numbers", SEED, also="manualSeed")
    device: str | None = _runtime(None, "cpu, gpu or gpu:NUMBER; left out: a GPU if there is one", DEVICE)
    parallel: bool = _runtime(True, "no effect: python -m paddle.distributed.launch makes a run parallel")

    @property
    def chosen_metrics(self):
        """The names out of METRICS that `metrics` chooses."""
        if self.metrics == "none":
            return ()
        if self.metrics != "auto":
            return tuple(self.metrics.split(","))
        data = ()
        if self.dataset in CLASSIFIED:
            data = (ANY_DATA, BOTH_SPLITS, CLASSIFIED_DATA)
        elif self.dataset == "cifar10" and not self.reference and (self.data_path or not self.test_data_path):
            data = (ANY_DATA, BOTH_SPLITS)
        elif self.test_data_path or self.reference or self.dataset == "cifar10":
            data = (ANY_DATA,)
        return tuple(metric.name for metric in METRICS.values() if metric.auto in data)

    @property
    def channels(self):
        """Channels of the data set's images: 1 (gray) or 3 (RGB)."""
        return 1 if self.dataset in CLASSIFIED else 3

    def shared(self):
        """What all processes of a run must agree on: values by option, without those of OF_ONE_HOST."""
        values = asdict(self)
        first = ("resume", "name")  # other runs would differ in much that their commands do not say
        return {f"--{name}": values[name] for name in (*first, *values) if name not in OF_ONE_HOST}

    @property
    def rounds(self):
        """Rounds in which a process gathers the gradients of its share of a batch."""
        return self.batch_size // (self.batch_size_in_gpu or self.batch_size)

    def to_yaml(self):
        """YAML text that `--recipe FILE` reads back; without `resume`, a command's, and `name`, one run's alone."""
        values = {name: value for name, value in asdict(self).items() if name not in ("resume", "name")}
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=math.inf)


@dataclass(frozen=True)
class _Published:
    """Published options that are not a field under another name; `_translate` makes fields of them."""

    lr: float = _published(None, "both learning rates; --d_lr and --g_lr go before it", POSITIVE)
    cuda: bool = _published(False, "use a GPU if there is one, as without it")
    disable_cuda: bool = _published(False, "--device cpu")
    gpu_id: int = _published(None, "--device gpu:N", FEW, also="gpu")
    ngpu: int = _published(None, "0: --device cpu; more have no effect", COUNT_OR_0)
    netD: str | None = _published(None, "the file beside --netG that has D for its G", metavar="FILE")
    result_path: str | None = _published(None, "no effect: pictures are in the run's folder", metavar="DIR")
    class_result_path: str | None = _published(None, "no effect: the class grid is with the report", metavar="DIR")
    log_path: str | None = _published(None, "no effect: the log is in the run's folder", metavar="DIR")


OPTIONS = {option.name: option for option in fields(Parameters)}
PUBLISHED = {option.name: option for option in fields(_Published)}
# Names that mean another option in one of the two programs, as in the Paddle ACGAN replication's.
BY_PROGRAM = {"train": {"check_path": "save_path"}, "test": {"batchSize": "num_samples", "result_path": "test_path"}}


def get_parameters(argv=None, program="train", base=None):
    """The `CommandLine.parameters` of the arguments `argv` (this process's by default) of `program`."""
    return CommandLine(argv, program).parameters(base)


class CommandLine:
    """A command line, read once: what is given, which recipe it means and why, which run it goes on with.

    `program`: "train" or "test". `given`: the options on it, but for --recipe, as typed values by field name.
    `spelled`: their names on it. `named`: the value of --recipe, or None. `recipe`, `reason`: the recipe that is named,
    or that the rest means, and why. Raises UserError for whatever is wrong; `--help` prints and exits.
    """

    def __init__(self, argv=None, program="train"):
        self.program = program
        self._options, self.spelled = _parse(argv, program)
        self.given = _translate(self._options)
        self.named = self.given.pop("recipe", None)
        inferred = _infer_recipe(self.spelled, self.given, program)
        self.recipe, self.reason = (self.named, "--recipe") if self.named else inferred

    def parameters(self, base=None):
        """The merged and checked `Parameters`; prints which recipe they run, and why.

        `base`: values by field name, such as a checkpoint's own, in the recipe's place.
        """
        given, program, reason = self.given, self.program, self.reason
        _say_what_has_no_effect(self._options)
        for name, means in BY_PROGRAM[program].items():
            if name in self.spelled:
                print(f"--{name} is --{means} in {program}.py, as published", file=sys.stderr)
        layer = read_recipe(self.recipe)
        if base is not None:
            base, reason = _from_file(base, "the checkpoint"), "as the checkpoint says"
            base = {name: value for name, value in base.items() if name not in OF_ONE_RUN}
        folder = self.run_to_resume(base) if program == "train" else None
        if folder:
            base, reason = read_parameters(folder / RUN_FILE), f"continues {folder}"
        if base is not None:
            if self.named and layer["recipe"] != base.get("recipe"):
                raise UserError(
                    f"--recipe {self.named} is not what was trained, {base.get('recipe')}; leave --recipe out"
                )
            layer = base
        values = _merge(layer, given)
        if values["global_batch_size"] and program == "train":
            values["batch_size"] = _share(values["global_batch_size"])
        if folder:
            if values["num_classes"] is None:
                values["num_classes"] = base.get("num_classes")  # as many as the run's data had
            _check_changes(folder, base, values)
            values |= {"save_path": str(folder.parent), "name": folder.name}
        if base is not None and program == "test" and given.get("num_classes") is None:
            values["num_classes"] = base.get("num_classes")  # the weights', whatever data they are compared with
        if values["samples"] and program == "test" and not self.named:
            values["recipe"], reason = "none", "--samples"  # nobody knows what drew them
        parameters = Parameters(**values)
        _check_fit(parameters)
        _check_classes(parameters, given, self.recipe)
        if program == "train":
            _check_training(parameters)
            if not folder:
                _check_places(parameters, "save_path", ("data_path", "test_data_path"))
        else:
            _check_testing(parameters, given)
        self._say_what_has_no_effect_on(parameters)
        print(f"recipe {parameters.recipe} ({reason})", flush=True)
        return parameters

    def _say_what_has_no_effect_on(self, parameters):
        """Print a line for the options of the other program that are given, one for each reason."""
        reasons, options, found = _without_effect(parameters, self.program), _names(self.program), {}
        for name in sorted(self.spelled):
            if reason := reasons.get(options[name].name):
                found.setdefault(reason, []).append(f"--{name}")
        for reason, names in found.items():
            print(f"{', '.join(names)} {'have' if len(names) > 1 else 'has'} no effect {reason}", file=sys.stderr)

    def run_to_resume(self, base=None):
        """The folder of the run that `train.py` goes on with; None where it starts a new one.

        `base` is as in `parameters`; without it, None too where a checkpoint's recipe says which run is meant. Raises
        UserError for a folder that is no run's.
        """
        given = self.given
        resume = given.get("resume")
        if resume is None:
            return None
        if resume != "auto":
            if not os.path.isfile(Path(resume, RUN_FILE)):
                raise UserError(f"--resume {resume} is no run's folder: it has no {RUN_FILE}")
            folder = Path(resume).resolve()  # even "." has a name then
            save_path = Path(given.get("save_path", folder.parent)).resolve()
            if save_path != folder.parent or given.get("name") not in (None, folder.name):
                raise UserError(f"--resume {resume} says which run it is; leave out --name and --save_path")
            return folder
        if base is None and given.get("pretrained_model") and not self.named and "name" not in given:
            return None
        values = _merge(read_recipe(self.recipe), given)
        recipe = (base or values).get("recipe", values["recipe"])
        newest_first = reversed(run_numbers(values["save_path"], recipe))
        names = [values["name"]] if values["name"] else [f"{recipe}-{number}" for number in newest_first]
        folders = (Path(values["save_path"], name) for name in names)
        return next((folder for folder in folders if os.path.isfile(folder / RUN_FILE)), None)


def _names(program):
    """Every name that an option has in `program`, without dashes -> the option."""
    names = spellings(OPTIONS.values()) | spellings(PUBLISHED.values())
    return names | {name: OPTIONS[means] for name, means in BY_PROGRAM[program].items()}


def _parse(argv, program):
    return parse(
        sys.argv[1:] if argv is None else argv,
        _names(program),
        HIDDEN[program],
        prog=f"{program}.py",
        usage=f"python {program}.py [--recipe NAME|FILE] [--OPTION VALUE ...]",
        description="In brackets: the values of sagan-imagenet. Other recipes change some (recipes/NAME.yaml);\n"
        "the command line goes before any recipe.",
        epilog=_recipe_list(),
    )


def read_parameters(path):
    """The options in a YAML file of `option: value` lines: typed values by field name."""
    return _from_file(read_yaml(path), path)


def _from_file(values, where):
    """`values` by field name, as the file `where` has them, typed."""
    values = typed(OPTIONS, values, where)
    if "recipe" in values:
        _check_recipe_name(values["recipe"], where)
    return values


def _check_recipe_name(name, where):
    """Refuse a recipe's `name`, which the file `where` brings, unless it can name a run's folder."""
    if not PLAIN_NAME.accepts(name):
        where = str(where) if str(where).isprintable() else repr(str(where))
        raise UserError(
            f"{where}: the recipe's name {name!r:.80} is not {PLAIN_NAME.phrase}, as the folders of its runs need it: "
            "write another as its `recipe`"
        )


def run_numbers(save_path, recipe):
    """The numbers, ascending, of what is named RECIPE-NUMBER in the folder `save_path`."""
    try:
        names = os.listdir(save_path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"--save_path {save_path} cannot be read: {error.strerror}") from None
    matches = [re.fullmatch(re.escape(recipe) + "-([0-9]{1,9})", name) for name in names]
    return sorted(int(match[1]) for match in matches if match)


def _infer_recipe(spelled, given, program):
    """The recipe that a command without --recipe means, and why: published commands keep their meaning."""
    model, dataset = given.get("model"), given.get("dataset")
    if model:
        return "sagan-imagenet" if model == "sagan" else model, f"--model {model}"
    if program == "test" and "check_path" in given:
        return "acgan-imagenet", "--check_path"
    if program == "test" and "samples" in given and dataset not in SMALL_IMAGES:
        return "sagan-imagenet", "--samples"
    if program == "test" and {"pretrained_model", "test_data_path"} & set(given):
        return "sagan-imagenet", "weights without parameters"
    if dataset == "imagenet" and "dataroot" in spelled:
        return "acgan-imagenet-torch", "--dataset imagenet --dataroot"
    if dataset == "cifar10" and "data_path" in spelled:
        return "sagan-imagenet", "--dataset cifar10 --data_path"
    if dataset in SMALL_IMAGES:
        return SMALL_IMAGES[dataset], f"--dataset {dataset}"
    if "dataroot" in spelled:
        return "acgan-imagenet", "--dataroot"
    if "data_path" in spelled:
        return "sagan-imagenet", "--data_path"
    if dataset:
        return "sagan-imagenet", f"--dataset {dataset}"
    return "acgan-digits", "no recipe and no data named" if spelled else "no options given"


def read_recipe(recipe):
    """The layer that `--recipe` names: a recipe in recipes/, or a YAML file."""
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


def changes(before, after):
    """{option: (old, new)} of two runs' values by field name, but for what says which folder is whose."""
    before = asdict(Parameters()) | before
    names = [name for name in OPTIONS if name not in ("save_path", "name", "resume")]
    return {name: (before[name], after[name]) for name in names if before[name] != after[name]}


def _check_changes(folder, before, after):
    for name, (old, new) in changes(before, after).items():
        if name not in CHANGEABLE and OPTIONS[name].metadata["group"] not in ("Testing", "Measures"):
            raise UserError(
                f"--{name} {new} is not what {folder} is trained with, {old}: leave it out, or start another run"
            )


def _merge(layer, given):
    """The defaults, `layer` over them and `given` on top; what none of the two states fits itself to the rest."""
    values = _overlay(_overlay(asdict(Parameters()), layer), given)
    stated = {*layer, *given}
    values["resume"] = given.get("resume")  # the command's alone
    if values["model"] == "sagan":
        if "imsize" not in stated and values["dataset"] in SMALL_IMAGES:
            values["imsize"] = 32
        if "attention_size" not in stated:
            values["attention_size"] = min(values["attention_size"], values["imsize"] // 2)
    if "centercrop_size" not in stated:
        values["centercrop_size"] = values["imsize"]
    return values


def _share(global_batch_size):
    """A process's `batch_size`."""
    share, rest = divmod(global_batch_size, world_size())
    if rest:
        raise UserError(
            f"--global_batch_size {global_batch_size} cannot be shared out evenly among {world_size()} processes: "
            f"give a multiple of {world_size()}"
        )
    return share


def _overlay(below, layer):
    """`layer` over `below`; what belongs to a value that the layer replaces goes with it."""
    values = {**below, **layer}
    if values["dataset"] != below["dataset"]:
        values |= {name: layer.get(name) for name in ("data_path", "test_data_path", "classes", "num_classes")}
    if "classes" in layer and "num_classes" not in layer:
        values["num_classes"] = layer["classes"] and count_classes(layer["classes"])
    for one, other in EITHER_OR:
        if one in layer:
            values[other] = layer.get(other)
    return values


def from_values(values, where):
    """`Parameters` of `values` by field name, as the file `where` has them; raises UserError for wrong ones."""
    p = Parameters(**_from_file(values, where))
    _check_fit(p)
    _check_classes(p, {}, where)
    return p


def _check_fit(p):
    """Refuse values that do not fit each other."""
    sizes = IMAGE_SIZES[p.model]
    if p.imsize not in sizes:
        what = f"a multiple of {sizes.step}" if isinstance(sizes, range) else " or ".join(map(str, sizes))
        raise UserError(f"--imsize {p.imsize} does not fit --model {p.model}: give {what}")
    if p.model == "sagan" and p.attention_size not in [2**k for k in range(3, 8) if 2**k < p.imsize]:
        raise UserError(f"--attention_size {p.attention_size} is no power of 2 from 8 to half of --imsize {p.imsize}")
    if p.centercrop and p.centercrop_size != p.imsize:
        raise UserError(f"--centercrop_size {p.centercrop_size} is not --imsize {p.imsize}, which the networks read")
    if p.batch_size_in_gpu and p.batch_size % p.batch_size_in_gpu:
        origin = f", a process's share of --global_batch_size {p.global_batch_size}" if p.global_batch_size else ""
        raise UserError(
            f"--batch_size_in_gpu {p.batch_size_in_gpu} does not divide --batch_size {p.batch_size}{origin}"
        )


def _check_classes(p, given, where):
    """Refuse a number of classes other than `classes` has: of options `given`, of weights, or in the file `where`."""
    if not p.classes or p.num_classes in (None, count := count_classes(p.classes)):
        return
    if "num_classes" in given:
        raise UserError(
            f"--num_classes {p.num_classes} disagrees with --classes {p.classes}, which is {count} of them: leave "
            "--num_classes out; --classes none takes all"
        )
    if "classes" in given:
        raise UserError(
            f"--classes {p.classes} chooses {count} classes, but the generator has {p.num_classes} classes: choose "
            "as many, or leave it out; --labels chooses the classes to draw"
        )
    raise UserError(
        f"{where}: num_classes {p.num_classes} disagrees with classes {p.classes}, which is {count} of them"
    )


def _check_training(p):
    if p.dataset in ("folder", "imagenet") and p.data_path is None:
        raise UserError(f"--dataset {p.dataset} needs --data_path: a folder with one folder of images a class")
    if p.dataset in ("digits", "fake") and p.data_path is not None:
        raise UserError(f"--data_path {p.data_path} would not be read: --dataset {p.dataset} brings its own images")
    if p.exif and p.dataset not in ("folder", "imagenet"):
        raise UserError(f"--exif has no effect on --dataset {p.dataset}, which has no EXIF: leave it out")
    _must_exist("data_path", p.data_path)
    if not p.resume:
        _must_exist("pretrained_model", p.pretrained_model)
    if p.eval_step:
        _check_measures(p)
        if not p.chosen_metrics:
            raise UserError("--eval_step has nothing to measure: give --test_data_path, --reference or --metrics")
        if SAMPLES not in METRICS[first := p.chosen_metrics[0]].sets:
            raise UserError(
                f"--metrics {p.metrics}: with --eval_step the first chooses the best weights, and {first} does not "
                "depend on them; put another first"
            )


def _check_testing(p, given):
    if sum(map(bool, (p.pretrained_model, p.check_path, p.samples))) != 1:
        raise UserError(
            "give one thing to test: --pretrained_model PATH (a checkpoint or run), or --check_path DIR, or "
            "--samples PATH to measure images that are there"
        )
    for name in ("pretrained_model", "check_path", "samples", "test_data_path"):
        _must_exist(name, getattr(p, name))
    if p.samples and (without_effect := OF_DRAWING & given.keys()):
        raise UserError(f"--samples draws none, so --{min(without_effect)} has no effect: leave it out")
    _check_measures(p)
    for name in ("samples_dir", "save_path" if p.samples and not p.test_path else "test_path"):
        _check_places(p, name, ("test_data_path",))
    if p.check_path and not os.path.isfile(Path(p.check_path, f"G_{p.which_epoch}.pdparams")):
        raise UserError(f"--check_path {p.check_path} has no G_{p.which_epoch}.pdparams; give another --which_epoch")


def _check_measures(p):
    for name in ("test_data_path", "reference", "inception_weights"):
        _must_exist(name, getattr(p, name))
    chosen = [METRICS[name] for name in sorted(p.chosen_metrics)]
    if p.reference and p.test_data_path:
        raise UserError("--reference and --test_data_path are both real images to measure against; give one of them")
    if p.dataset in ("digits", "fake") and p.test_data_path:
        raise UserError(
            f"--test_data_path {p.test_data_path} would not be read: --dataset {p.dataset} brings its own images"
        )
    if p.dataset in CLASSIFIED:
        for name in ("reference", "inception_weights", "half_precision"):
            if getattr(p, name):
                raise UserError(f"--{name} is of Inception, which does not read --dataset {p.dataset}; leave it out")
    if p.reference and (images := [metric.name for metric in chosen if not metric.takes_statistics]):
        raise UserError(
            f"--metrics {images[0]} needs real images, not statistics: give --test_data_path for --reference"
        )
    of_inception = [metric.name for metric in chosen if metric.layer not in ("", LAST_LAYER)]
    if p.dataset in CLASSIFIED and of_inception:
        raise UserError(
            f"--metrics {of_inception[0]} is of Inception, which does not read --dataset {p.dataset}; give fid"
        )
    if p.dataset in ("folder", "imagenet"):
        read = {name: metric.name for metric in chosen for name in metric.sets}
        if REAL in read and not (p.test_data_path or p.reference):
            raise UserError(
                f"--metrics {p.metrics} needs real images: give --test_data_path DIR, or --reference FILE for FID"
            )
        if TRAINING in read and not p.data_path:
            raise UserError(
                f"--metrics {read[TRAINING]} compares --test_data_path with the training images: give --data_path DIR"
            )


def _check_places(p, written, read):
    """Refuse a folder that is written, by option, inside one whose folders are classes: it would become one of them."""
    if p.dataset not in ("folder", "imagenet") or getattr(p, written) is None:
        return
    for name in read:
        if getattr(p, name) is None:
            continue
        for full in (os.path.abspath, os.path.realpath):  # a link in the data is one of its folders
            place, data = Path(full(getattr(p, written))), Path(full(getattr(p, name)))
            if place.is_relative_to(data):
                outside = data.parent / (place.relative_to(data).name or "sagan_models")
                raise UserError(
                    f"--{written} {getattr(p, written)} lies inside --{name} {getattr(p, name)}, whose folders are "
                    f"classes: give a folder outside of it, such as {outside}"
                )


def _must_exist(name, path):
    if path is not None and not os.path.exists(path):
        raise UserError(f"--{name} {path} does not exist")


def _translate(options):
    """`options` with fields in place of those of `_Published`."""
    given = {name: value for name, value in options.items() if name in OPTIONS}
    if "lr" in options:
        given = {"d_lr": options["lr"], "g_lr": options["lr"], **given}
    netG, netD = given.get("pretrained_model"), options.get("netD")
    if netD and (not netG or Path(netD) != Path(netG).parent / Path(netG).name.replace("G", "D", 1)):
        raise UserError(f"--netD {netD} is not the file beside --netG that has D for its G, where it is looked for")
    for one, other in EITHER_OR:
        if one in given and given.get(other):
            raise UserError(f"--{one} and --{other} say the same thing twice; give one of them")
    return given | _device(options)


def _say_what_has_no_effect(options):
    for name in ("result_path", "class_result_path", "log_path"):
        if options.get(name):
            print(f"--{name} has {PUBLISHED[name].metadata['help']}", file=sys.stderr)
    if options.get("ngpu", 1) > 1:
        print("--ngpu has no effect: python -m paddle.distributed.launch train.py takes every GPU", file=sys.stderr)


def _without_effect(p, program):
    """Options of the other program that have no effect on `p` in `program`: by name, the end of a sentence on why."""
    if program == "train":
        later = {} if p.eval_step else dict.fromkeys(IGNORED_WITHOUT_EVAL, "without --eval_step")
        return dict.fromkeys(IGNORED_BY_TRAIN, "in train.py") | later | ALWAYS_IGNORED
    hidden = [name for name, option in OPTIONS.items() if option.metadata["group"] in HIDDEN["test"]]
    reasons = dict.fromkeys((*hidden, *IGNORED_BY_TEST), "in test.py") | ALWAYS_IGNORED
    reasons["batch_size"] = None if p.standing_batches else "without --standing_batches"
    of_samples = p.samples and not p.test_path
    reasons["save_path"] = None if of_samples else "in this test; --test_path says where the report goes"
    return reasons


def _device(options):
    """The field `device` that the options on devices ask for together; nothing where there are none."""
    asked = {
        "--device": options.get("device"),
        "--cuda": "gpu" if options.get("cuda") else None,
        "--disable_cuda": "cpu" if options.get("disable_cuda") else None,
        "--gpu_id": f"gpu:{options['gpu_id']}" if "gpu_id" in options else None,
        "--ngpu": "cpu" if options.get("ngpu") == 0 else None,
    }
    asked = {name: device for name, device in asked.items() if device}
    devices = set(asked.values())
    if "cpu" not in devices and len(devices) > 1:
        devices.discard("gpu")  # says no more than gpu:1
    if len(devices) > 1:
        raise UserError(f"{' and '.join(asked)} contradict each other: give one of them")
    if not devices:
        return {}
    # Published commands say --cuda on machines without a GPU too.
    return {"device": None if set(asked) == {"--cuda"} else devices.pop()}


def _recipe_list():
    """The recipes, with what the first line of each says, for `--help`."""
    lines = ["recipes (without --recipe the data decide which; without any option it is acgan-digits):"]
    for path in sorted(RECIPES.glob("*.yaml")):
        lines.append(f"  {path.stem:21} {path.read_text('utf-8').splitlines()[0].removeprefix('# ')}")
    return "\n".join(lines)
