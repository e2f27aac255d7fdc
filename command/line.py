"""Read the command line once: find its recipe and the run that it continues, and make the `Parameters`."""

import contextlib
import os
import re
import sys
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from command.options import COMMANDS, OF_RECIPES
from command.refusals import check_changes, check_packing, check_place, check_test, check_training, generator_file
from options import parse, spellings
from parameters import (
    BY_PROGRAM,
    DATA_SETS,
    HIDDEN,
    OPTIONS,
    PUBLISHED,
    RECIPES,
    SAGANS,
    Parameters,
    check_classes,
    check_crop,
    check_fit,
    count_classes,
    paths_in,
    read_parameters,
    read_recipe,
    typed_options,
)
from processes.collectives import world_size
from utils import RUN_FILE, UserError, run_numbers

# Options that are not taken from a checkpoint, because they belong to the run that wrote it.
NOT_FROM_CHECKPOINT = (
    "name", "save_path", "pretrained_model", "check_path", "test_data_path", "test_path", "samples", "samples_dir",
    "samples_npz", "metrics", "reference", "inception_weights", "half_precision", "labels", "device", "threads",
    "num_workers", "data_in_memory",
)  # fmt: skip
# Options without effect: in both programs; in train.py; in train.py without --eval_step; in test.py. In test.py the
# groups in HIDDEN have no effect either.
ALWAYS_IGNORED = {"batch_size_test": "since the generator always draws 16 samples at once"}
IGNORED_BY_TRAIN = ("samples", "samples_dir", "samples_npz", "test_path", "which_epoch")
IGNORED_WITHOUT_EVAL = (
    "metrics", "real_split", "reference", "inception_weights", "half_precision", "eval_samples", "test_data_path",
    "labels",
)  # fmt: skip
IGNORED_BY_TEST = (
    "fast_decode", "mirror", "data_in_memory", "dont_shuffle", "dont_drop_last", "d_conv_dim", "relu_shortcut",
    "dropout", "eval_step", "eval_samples", "lr",
)  # fmt: skip
# Two options that set the same thing. One on the command line overrides the other in a recipe, a run or a checkpoint.
EITHER_OR = (("total_step", "niter"), ("model_save_step", "save_freq"), ("batch_size", "global_batch_size"))


class CommandLine:
    """The command line of `program`: "train", "test", or a name in COMMANDS. No other code reads the arguments.

    `given`: {field name: typed value} of its options, without --recipe. `spelled`: the option names as the user spelled
    them. `named`: the value of --recipe, or None. `recipe`: the recipe to use. `reason`: why this recipe is used.
    Raises UserError for a mistake. `--help` prints the help and exits.
    """

    def __init__(self, argv=None, program="train"):
        self.program = program
        argv = sys.argv[1:] if argv is None else argv
        argument = COMMANDS[program].argument if program in COMMANDS else ""
        if argument and argv and not argv[0].startswith("-"):
            argv = [f"--{argument}", *argv]
        self._options, self.spelled = parse(
            argv,
            names := _options_by_spelling(program),
            HIDDEN.get(program, set()),
            _recipe_list if "recipe" in names else str,
            "data_path" if program in ("train", "pack") else "pretrained_model",
            prog=f"{program}.py",
            usage=f"python {program}.py {'RUN ' * bool(argument)}{'[--recipe NAME|FILE] ' * ('recipe' in names)}"
            "[--OPTION VALUE ...]",
            description=COMMANDS[program].description if program in COMMANDS else OF_RECIPES,
        )
        self.given = _to_fields(self._options)
        self.named = self.given.pop("recipe", None)
        inferred = _infer_recipe(self.spelled, self.given, program)
        self.recipe, self.reason = (self.named, "--recipe") if self.named else inferred
        self._origin = "", {}  # where values that are not given come from, in words; and these values

    @cached_property
    def recipe_values(self):
        """{field name: value} of the recipe. Its file is read once, at the first use."""
        return read_recipe(self.recipe)

    def run_to_resume(self, checkpoint_values=None):
        """The folder of the run that train.py continues, or None for a new run.

        `checkpoint_values`: the values of the loaded checkpoint, if there is one. With --resume auto its recipe may
        decide which run is continued. In that case the result is None until the checkpoint is loaded. Raises UserError
        for a folder that is not a run's folder.
        """
        resume = self.given.get("resume")
        if resume is None:
            return None
        if resume != "auto":
            return self._run_of_folder(resume)
        recipe_is_known = self.named or "name" in self.given or not self.given.get("pretrained_model")
        if checkpoint_values is None and not recipe_is_known:
            return None
        values = merge(self.recipe_values, self.given)
        recipe = (checkpoint_values or values).get("recipe", values["recipe"])
        newest_first = reversed(run_numbers(values["save_path"], recipe))
        names = [values["name"]] if values["name"] else [f"{recipe}-{number}" for number in newest_first]
        folders = (Path(values["save_path"], name) for name in names)
        return next((folder for folder in folders if os.path.isfile(folder / RUN_FILE)), None)

    def _run_of_folder(self, resume):
        if not os.path.isfile(Path(resume, RUN_FILE)):
            raise UserError(f"--resume {resume} is not a run's folder: it has no {RUN_FILE}")
        folder = Path(resume).resolve()  # a full path, because "." has no name
        save_path = Path(self.given.get("save_path", folder.parent)).resolve()
        if save_path != folder.parent or self.given.get("name") not in (None, folder.name):
            raise UserError(f"--resume {resume} already names the run; leave out --name and --save_path")
        return folder

    def checkpoint_to_load(self):
        """(path, option) of the checkpoint with the values that `parameters` needs, or None.

        A run that continues has its own parameters, so it needs no checkpoint's values.
        """
        if self.program == "test" and (folder := self.given.get("check_path")):
            return generator_file(folder, self.given.get("which_epoch", Parameters.which_epoch)), "--check_path"
        path = self.given.get("pretrained_model")
        if path and self.program == "test":
            path = paths_in(path)[0]  # of several models, the first one
        if not path or (self.program == "train" and self.run_to_resume()):
            return None
        return path, "--pretrained_model"

    def parameters(self, checkpoint_values=None):
        """Merge and check all values; print the recipe and the reason for it. Returns the `Parameters`.

        `checkpoint_values`: the parameters, by field name, of the checkpoint that `checkpoint_to_load` names.
        """
        self._explain_published_options()
        base, reason, folder = self._base_values(checkpoint_values)
        values = merge(base, self.given)
        if self.program == "train":
            if checkpoint_values is not None and not folder:
                self._count_classes_anew(values)
            self._fit_to_training(values, base, folder)
        else:
            self._fit_to_test(values, base if checkpoint_values is not None else None)
            if values["samples"] and not self.named:
                values["recipe"], reason = "none", "--samples"  # the recipe that drew them is unknown
        if "batch_size_in_gpu" not in self.given and values["batch_size"] < (values["batch_size_in_gpu"] or 0):
            values["batch_size_in_gpu"] = None  # the recipe's rounds are larger than this batch, so it is one round
        parameters = Parameters(**values)
        check_fit(parameters)
        check_classes(parameters, self.given, self.recipe)
        if self.program == "train":
            check_training(parameters)
            if not folder:
                check_place(parameters, "save_path", ("data_path", "test_data_path"))
        else:
            check_test(parameters, self.given)
        self._print_ignored_options(parameters)
        print(f"recipe {parameters.recipe} ({reason})", flush=True)
        if self.given.get("resume") == "auto" and not folder:
            run = f"run {parameters.name}" if parameters.name else f"run of the recipe {parameters.recipe}"
            print(f"--resume auto: {parameters.save_path} has no {run} yet, so a new run starts", flush=True)
        return parameters

    def own_options(self):
        """The options of this command alone, as the dataclass that COMMANDS names."""
        command = COMMANDS[self.program]
        return command.own(**{name: value for name, value in self._options.items() if name in command.options})

    def parameters_to_draw(self, checkpoint_values):
        """The `Parameters` for drawing from a checkpoint. `checkpoint_values`: its parameters, by field name."""
        base, _, _ = self._base_values(checkpoint_values)
        values = merge(base, self.given)
        self._fit_to_test(values, base)
        parameters = Parameters(**values)
        check_fit(parameters)
        check_classes(parameters, self.given, self.recipe)
        return parameters

    def parameters_of_pack(self):
        """(`Parameters`, `Packing`) of pack.py. Prints the recipe and the reason for it."""
        packing = self.own_options()
        self._origin = f"the recipe {self.recipe}", self.recipe_values
        parameters = Parameters(**merge(self.recipe_values, self.given))
        check_crop(parameters)
        check_classes(parameters, self.given, self.recipe)
        check_packing(parameters, packing)
        print(f"recipe {parameters.recipe} ({self.reason})", flush=True)
        return parameters, packing

    @contextlib.contextmanager
    def naming_origins(self):
        """A context that completes the messages of UserErrors: see `explained`."""
        try:
            yield
        except UserError as error:
            error.args = (self.explained(str(error)),)
            raise

    def explained(self, message):
        """`message` about options, with the names that the user wrote, such as --dataroot for --data_path.

        If it begins with an option and its value, and the user did not give that option, the origin of the value
        follows it, such as "(from the recipe acgan-imagenet)".
        """
        origin, values = self._origin
        name = message.split(" ")[0].removeprefix("--")
        if name in values and name not in self.given:
            stated = f"--{name} {values[name]}"
            message = re.sub(rf"^{re.escape(stated)}(?=[ :,])", lambda _: f"{stated} (from {origin})", message)
        options = _options_by_spelling(self.program)
        for spelled in sorted(self.spelled):
            if (name := options[spelled].name) not in self.spelled:
                message = re.sub(rf"--{name}\b", f"--{spelled}", message)
        return message

    def _base_values(self, checkpoint_values):
        """(values that the given options replace, where they come from, folder of the run to resume or None).

        They are the values of the run to resume, or else of the checkpoint, or else of the recipe.
        """
        trained = None
        if checkpoint_values is not None:
            trained, reason = typed_options(checkpoint_values, "the checkpoint"), "as the checkpoint says"
            trained = {name: value for name, value in trained.items() if name not in NOT_FROM_CHECKPOINT}
            self._origin = "the checkpoint", trained
        folder = self.run_to_resume(trained) if self.program == "train" else None
        if folder:
            trained, reason = read_parameters(folder / RUN_FILE), f"continues {folder}"
            self._origin = f"the run {folder}", trained
        if trained is None:
            self._origin = f"the recipe {self.recipe}", self.recipe_values
            return self.recipe_values, self.reason, None
        if self.named and self.recipe_values["recipe"] != trained.get("recipe"):
            raise UserError(
                f"--recipe {self.named} differs from the trained recipe, {trained.get('recipe')}; leave --recipe out"
            )
        return trained, reason, folder

    def _count_classes_anew(self, values):
        """Let the data decide the number of classes in `values`, not the checkpoint that the run starts from."""
        if not self.given.keys() & {"classes", "num_classes"} and values["dataset"] != "fake":
            values["num_classes"] = None

    def _fit_to_training(self, values, base, folder):
        """Complete `values` for train.py: set the batch size of each process and the folder of the run to resume."""
        if values["global_batch_size"]:
            values["batch_size"] = _batch_per_process(values["global_batch_size"])
        if folder:
            if values["num_classes"] is None:
                values["num_classes"] = base.get("num_classes")  # the number of classes in the run's data
            check_changes(folder, base, values)
            values |= {"save_path": str(folder.parent), "name": folder.name}

    def _fit_to_test(self, values, trained):
        """Complete `values` for test.py. `trained`: the values of the checkpoint, or None."""
        # Only the command line names the weights to test. A recipe file may come from a run; then it names the weights
        # that the run started from.
        values |= {name: self.given.get(name) for name in ("pretrained_model", "check_path")}
        if trained is not None and self.given.get("num_classes") is None:
            # The generator's number, even if the test data have another one.
            values["num_classes"] = trained.get("num_classes")
        if len(paths_in(values["pretrained_model"] or "")) > 1:  # several models, and each has other classes
            values |= {"classes": self.given.get("classes"), "num_classes": self.given.get("num_classes")}

    def _explain_published_options(self):
        for name in ("result_path", "class_result_path", "log_path"):
            if self._options.get(name):
                print(f"--{name} has {PUBLISHED[name].metadata['help']}", file=sys.stderr)
        if self._options.get("ngpu", 1) > 1:
            print("--ngpu has no effect: python -m paddle.distributed.launch train.py uses every GPU", file=sys.stderr)
        for name, means in BY_PROGRAM.get(self.program, {}).items():
            if name in self.spelled:
                print(f"--{name} means --{means} in {self.program}.py, as published", file=sys.stderr)

    def _print_ignored_options(self, parameters):
        """Print a line for each reason: the given options that have no effect in this program."""
        reasons = _reasons_without_effect(parameters, self.program)
        options, ignored = _options_by_spelling(self.program), {}
        for name in sorted(self.spelled):
            if reason := reasons.get(options[name].name):
                ignored.setdefault(reason, []).append(f"--{name}")
        for reason, names in ignored.items():
            print(f"{', '.join(names)} {'have' if len(names) > 1 else 'has'} no effect {reason}", file=sys.stderr)


def _options_by_spelling(program):
    """{option's name on the command line of `program`, without dashes: the option}."""
    if program in COMMANDS:
        command = COMMANDS[program]
        return spellings(command.options.values()) | spellings(command.shared_options)
    names = spellings(OPTIONS.values()) | spellings(PUBLISHED.values())
    return names | {name: OPTIONS[means] for name, means in BY_PROGRAM[program].items()}


def _recipe_list():
    """The text about recipes in `--help`: each recipe with the first line of its file."""
    lines = ["recipes (without --recipe the data decide the recipe; without any option it is acgan-digits):"]
    for path in sorted(RECIPES.glob("*.yaml")):
        lines.append(f"  {path.stem:21} {path.read_text('utf-8').splitlines()[0].removeprefix('# ')}")
    return "\n".join(lines)


def _to_fields(options):
    """The given `options` as fields of `Parameters`. Published options that are not fields are translated."""
    given = {name: value for name, value in options.items() if name in OPTIONS}
    if "lr" in options:
        given = {"d_lr": options["lr"], "g_lr": options["lr"], **given}
    netG, netD = given.get("pretrained_model"), options.get("netD")
    if netD and (not netG or Path(netD) != Path(netG).parent / Path(netG).name.replace("G", "D", 1)):
        raise UserError(
            f"--netD {netD} is not read: D's weights come from the file beside --netG with D instead of G in its name; "
            "give that file, or leave --netD out"
        )
    for one, other in EITHER_OR:
        if one in given and given.get(other):
            raise UserError(f"--{one} and --{other} set the same thing; give one of them")
    return given | _device_field(options)


def _device_field(options):
    """{"device": value} that results from all given device options, or {} if none is given."""
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
        devices.discard("gpu")  # "gpu" and "gpu:1" agree
    if len(devices) > 1:
        raise UserError(f"{' and '.join(asked)} contradict each other: give one of them")
    if not devices:
        return {}
    # Published commands contain --cuda even for machines without a GPU, so --cuda alone does not demand one.
    return {"device": None if set(asked) == {"--cuda"} else devices.pop()}


def _infer_recipe(spelled, given, program):
    """(recipe of a command without --recipe, reason for it). Published commands keep their published meaning."""
    model, dataset = given.get("model"), given.get("dataset")
    if model:
        return "sagan-imagenet" if model == "sagan" else model, f"--model {model}"
    if program == "test" and "check_path" in given:
        return "acgan-imagenet", "--check_path"
    if program == "test" and "samples" in given and dataset not in DATA_SETS:
        return "sagan-imagenet", "--samples"
    if program == "test" and {"pretrained_model", "test_data_path"} & set(given):
        return "sagan-imagenet", "weights without parameters"
    if dataset == "imagenet" and "dataroot" in spelled:
        return "acgan-imagenet-torch", "--dataset imagenet --dataroot"
    if dataset == "cifar10" and "data_path" in spelled:
        return "sagan-imagenet", "--dataset cifar10 --data_path"
    if dataset in DATA_SETS:
        return DATA_SETS[dataset].recipe, f"--dataset {dataset}"
    if "dataroot" in spelled:
        return "acgan-imagenet", "--dataroot"
    if "data_path" in spelled:
        return "sagan-imagenet", "--data_path"
    if dataset:
        return "sagan-imagenet", f"--dataset {dataset}"
    return "acgan-digits", "no recipe and no data named" if spelled else "no options given"


def merge(base, given):
    """The defaults, overridden by `base`, then by `given`. Sizes in neither are computed from the other values."""
    values = _overlay(_overlay(asdict(Parameters()), base), given)
    stated = {*base, *given}
    values["resume"] = given.get("resume")  # only the command line sets it, never a file
    if values["model"] in SAGANS:
        if "imsize" not in stated and values["dataset"] in DATA_SETS:
            values["imsize"] = DATA_SETS[values["dataset"]].sagan_size
        if "attention_size" not in stated:
            values["attention_size"] = min(values["attention_size"], values["imsize"] // 2)
    if "centercrop_size" not in stated:
        values["centercrop_size"] = values["imsize"]
    return values


def _overlay(below, layer):
    """`below`, overridden by `layer`. Values of `below` that depend on an overridden value are reset."""
    values = {**below, **layer}
    if values["dataset"] != below["dataset"]:
        values |= {name: layer.get(name) for name in ("data_path", "test_data_path", "classes", "num_classes")}
        values["real_split"] = layer.get("real_split", Parameters.real_split)
    if "classes" in layer and "num_classes" not in layer:
        values["num_classes"] = layer["classes"] and count_classes(layer["classes"])
    if layer.get("test_data_path") and "real_split" not in layer:
        values["real_split"] = "test"  # the user gave test images, so compare with these
    for one, other in EITHER_OR:
        if one in layer:
            values[other] = layer.get(other)
    return values


def _batch_per_process(global_batch_size):
    """The `batch_size` of each process. Raises UserError if the processes cannot share the global batch evenly."""
    share, rest = divmod(global_batch_size, world_size())
    if rest:
        raise UserError(
            f"--global_batch_size {global_batch_size} does not divide evenly among {world_size()} processes: "
            f"give a multiple of {world_size()}"
        )
    return share


def _reasons_without_effect(p, program):
    """{option without effect in `program` with the `Parameters` `p`: the reason, as the end of a message}."""
    if program == "train":
        without_eval = {} if p.eval_step else dict.fromkeys(IGNORED_WITHOUT_EVAL, "without --eval_step")
        return dict.fromkeys(IGNORED_BY_TRAIN, "in train.py") | without_eval | ALWAYS_IGNORED
    hidden = [name for name, option in OPTIONS.items() if option.metadata["group"] in HIDDEN["test"]]
    reasons = dict.fromkeys((*hidden, *IGNORED_BY_TEST), "in test.py") | ALWAYS_IGNORED
    reasons["batch_size"] = None if p.standing_batches else "without --standing_batches"
    in_save_path = (p.samples or len(p.pretrained_models) > 1) and not p.test_path
    reasons["save_path"] = None if in_save_path else "in this test; --test_path says where the report goes"
    return reasons
