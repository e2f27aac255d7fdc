"""Recipes and parameters as YAML files, from strangers too."""

import dataclasses
import random
import re
from pathlib import Path

import pytest
import yaml
from parsing import parse, refusal

import parameters
from command.line import CommandLine
from parameters import Parameters, read_parameters
from utils import RUN_FILE, UserError

pytestmark = pytest.mark.usefixtures("files")

ROOT = Path(parameters.__file__).parent
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
OF_FOLDERS = [recipe for recipe in RECIPES if "imagenet" in recipe or recipe == "sagan-photos"]  # need --data_path
FIELDS = {field.name: field for field in dataclasses.fields(Parameters)}


TEXTS = ["10,20", "yes", "null", "~", "1e-4", "0x10", "2024-01-01", "1:30", "on", " a ", "a: b", "# c", "日本/é",
         "t\tb", "two\nlines", "'\"", "-", "*a", "&a", "!b", "x" * 300, "💥", "\udcff"]  # fmt: skip
NUMBERS = {int: (1, 7, 64, 4096), float: (1e-5, 0.25, 0.1 + 0.2, 5e-324), bool: (True, False)}


def _random_value(field, draw):
    kind = {"int": int, "float": float, "bool": bool, "str": str}[re.match(r"(<class ')?(\w+)", str(field.type))[2]]
    valid = field.metadata["valid"]
    choices = [value for value in NUMBERS.get(kind, TEXTS) if not valid or valid.accepts(value)]
    if "None" in str(field.type):
        choices.append(None)
    return draw.choice(choices or [field.default])


@pytest.mark.parametrize("seed", range(30))
def test_yaml_reads_back_what_was_written(seed, files):
    draw = random.Random(seed)
    values = {name: _random_value(field, draw) for name, field in FIELDS.items()}
    p = Parameters(**values | {"recipe": draw.choice(["mine", "日本 é", "a: b", "#c", "1e-4"])})
    (files / "p.yaml").write_text(p.to_yaml(), "utf-8")
    of_one_command = {"resume": None, "name": None, "dry_run": False}
    assert Parameters(**read_parameters(files / "p.yaml")) == dataclasses.replace(p, **of_one_command)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_written_run_is_a_recipe(recipe, files):
    p = parse(f"--recipe {recipe} --manual_seed 5" + " --data_path train" * (recipe in OF_FOLDERS))
    (files / "p.yaml").write_text(p.to_yaml(), "utf-8")
    assert parse("--recipe p.yaml") == p


BOMB = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "code": b"imsize: !!python/object/apply:os.system ['touch pwned']",
    "new": b"!!python/object/new:type {}",
    "tag": b"imsize: !!int '32'",
    "bomb": BOMB.encode(),
    "merge": b"a: &a {imsize: 32}\n<<: *a",
    "merge of nothing": b"<<: imsize",
    "deep": b"[" * 60_000,
    "deep keys": b"? " * 30_000,
    "deep block": b"".join(b" " * k + b"a:\n" for k in range(300)),
    "nested": b"imsize:\n  value: 32",
    "list": b"imsize: [32]",
    "not a mapping": b"imsize",
    "empty": b"",
    "two documents": b"imsize: 32\n---\nimsize: 64",
    "twice": b"imsize: 32\nimsize: 64",
    "binary": bytes(range(256)),
    "zeros": bytes(5000),
    "utf-16": "imsize: 32".encode("utf-16"),
    "huge": b"#" * 70_000,
    "bad date": b"name: 2024-13-45",
    "date": b"name: 2024-01-01",
    "long hexadecimal": b"imsize: 0x" + b"f" * 60_000,
    "long decimal": b"imsize: " + b"9" * 60_000,
    "long key": b"0x" + b"f" * 60_000 + b": 1",
    "long sexagesimal": b"imsize: 1" + b":1" * 20_000,
    "endless float": b"g_lr: 1" + b":1" * 20_000 + b".5",
    "infinity": b"g_lr: .inf",
    "not a number": b"g_lr: .nan",
    "boolean number": b"imsize: true",
    "number for text": b"save_path: 7",
    "zero byte": b'save_path: "a\\0b"',
    "unknown": b"imsise: 32",
    "alias": b"batchSize: 32",
    "null": b"imsize: null",
    "anchor": b"imsize: &a 32",
    "unclosed": b"name: 'abc",
    "tab": b"\timsize: 32",
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_refused(name, files):
    (files / "hostile.yaml").write_bytes(HOSTILE[name])
    assert "hostile.yaml" in refusal("--recipe hostile.yaml")
    assert not (files / "pwned").exists()


def test_unsafe_loading_runs_the_code_that_we_refuse(files):
    """This shows that the refused file is a real attack."""
    yaml.unsafe_load(HOSTILE["code"])
    assert (files / "pwned").exists()


def test_an_endless_file_is_refused(files):
    (files / "endless.yaml").symlink_to("/dev/zero")
    refusal("--recipe endless.yaml")
    with pytest.raises(UserError, match="64 KB"):
        read_parameters("/dev/zero")


def test_an_unknown_key_is_named_with_a_similar_one(files):
    (files / "near.yaml").write_text("imsise: 32\n")
    assert "'imsise' is not an option; did you mean imsize?" in refusal("--recipe near.yaml")


UGLY_NAMES = {
    "up": "../../etc",
    "absolute": "/etc",
    "slash": "a/b",
    "backslash": "a\\b",
    "dots": "..",
    "dot": ".",
    "line break": "a\nb",
    "line separator": "a\u2028b",
    "control": "a\x1b[2Jb",
    "reversed": "a\u202eb",
    "empty": "",
    "blank": " ",
    "long": "x" * 201,
    "long in bytes": "图" * 80,
}


@pytest.mark.parametrize("kind", UGLY_NAMES)
def test_a_recipe_name_that_cannot_name_a_folder_is_refused(kind, files):
    """The name would choose the folder of a run. It may come from a YAML file, a resumed run or a checkpoint."""
    name = UGLY_NAMES[kind]
    content = yaml.safe_dump({"recipe": name, "dataset": "fake"}, allow_unicode=kind != "line separator")
    (files / "runs" / "one").mkdir(parents=True)
    for path in ("mine.yaml", f"runs/one/{RUN_FILE}"):
        (files / path).write_text(content)
    for command, file in (("--recipe mine.yaml", "mine.yaml"), ("--resume runs/one", f"runs/one/{RUN_FILE}")):
        message = refusal(command)
        assert file in message and "recipe" in message and "plain name" in message and message.isprintable()
    message = refusal("--pretrained_model w.pdparams", base={"recipe": name})
    assert "the checkpoint" in message and "plain name" in message and message.isprintable()
    with pytest.raises(UserError, match=r"^w\.safetensors: .*plain name"):
        parameters.from_values({"recipe": name}, "w.safetensors")


@pytest.mark.parametrize("name", ["a\nb.yaml", "a\\b.yaml", "\udcff.yaml", "图" * 70 + ".yaml"])
def test_a_recipe_file_whose_name_cannot_name_a_folder_is_refused(name, files):
    (files / name).write_text("dataset: fake\n")
    with pytest.raises(UserError, match="plain name") as caught:
        CommandLine(["--recipe", name]).parameters()
    assert str(caught.value).isprintable() and "mine" not in str(caught.value)
    (files / name).write_text("dataset: fake\nrecipe: mine\n")
    assert CommandLine(["--recipe", name]).parameters().recipe == "mine"
