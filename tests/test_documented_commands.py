"""Every command in the READMEs and in docs/ runs, or is named here with the test that stands for it or what it needs.

The commands run in a folder with small stand-ins for the data that they name. Options that make them short are added.
"""

import io
import itertools
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from commands import LIMIT, ROOT
from PIL import Image
from safetensors.numpy import save_file

from metrics.imagenet_classes import WORDNET_IDS
from metrics.inception import Network
from metrics.inception_weights import published_name

PAGES = [*ROOT.glob("README*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("test_tipc/**/*.md")]
PAGES += [ROOT / "sagan_models" / "README.md", *(ROOT / "weights").glob("*.md")]
# Commands that do not run here, by their beginning: the test that runs them or their steps, or what they need.
ELSEWHERE = {
    "make demo": "tests/test_commands.py, and make itself in tests/test_makefile.py",
    "make test": "it runs this test",
    "make lint": ".ci/run",
    "make format": "it changes files",
    "make setup": "tests/test_makefile.py",
    "make check-gpu": "needs a GPU; tests/test_benchmarks.py runs it on the CPU",
    "make export-env": "needs a network",
    "pip install": "needs a network",
    "python demo.py": "a server; tests/pages/test_demo_page.py",
    "python benchmarks/check_gpu.py --device cpu --processes 2": "tests/test_benchmarks.py runs this command",
    "python benchmarks/recipes.py glyphs": "it takes hours; tests/test_benchmarks.py measures such a run",
    ".ci/run": "it runs this test",
    "source .venv/bin/activate": "make's environment",
    "python -m pytest": "it runs some of these tests",
    "python -m alignment": "tests/alignment/test_alignment.py",
    "python test.py --pretrained_model sagan_models/acgan-imagenet-1,": "tests/evaluation/test_union.py",
    "python train.py --recipe acgan-cifar10 --class_loss": "needs a network: Paddle downloads CIFAR-10",
    "python -m paddle.distributed.launch --nnodes": "tests/processes/test_hosts.py",
    "sbatch": "tests/test_cluster.py, on a machine with Slurm",
    "srun": "needs a Slurm cluster",
    "PIP_INDEX_URL=": "needs a network",
    "kubectl": "needs a Kubernetes cluster",
    "python -m paddle.distributed.launch train.py": "tests/processes",
    "python train.py --data_path '…/train'": "published; tests/test_parameters.py reads it",
    "python train.py --dataroot …": "published; tests/test_parameters.py reads it",
    "python train.py --dataset=cifar10": "published; tests/test_parameters.py reads it",
    "python test.py --test_data_path '…/val'": "published; tests/test_parameters.py reads it",
    "python test.py --check_path": "published; tests/test_parameters.py reads it",
    "python test.py --pretrained_model RUN --metrics brightness": "tests/metrics/test_record.py",
    "python train.py --dataset mnist": "needs MNIST",
    "python test.py --pretrained_model sagan_models/acgan-mnist-1": "needs MNIST",
    "python train.py --recipe FILE": "tests/test_parameters.py",
    "python train.py --resume RUN --data_path imagenet-128.npz": "tests/packing/test_work.py",
    "visualdl": "a server; tests/test_commands.py reads its records",
    "bash test_tipc": "tests/test_tipc.py",
    "cp ": "copies files that other commands have made",
    "git clone": "needs a network",
    "grep": "the log of TIPC's scripts",
    "py -3.12": "Windows",
    r".venv\Scripts": "Windows; tests/test_system.py",
    "python -m pip": "needs a network",
    "python3.12 -m venv": "tests/test_makefile.py",
    ".venv/bin/python -m pip": "needs packages from another machine",
    "uv venv": "needs uv",
    "cd ": "AI Studio's folders; tests/test_notebooks.py",
    "unzip": "AI Studio's folders",
    "export PYTHONPATH": "AI Studio's folders",
}
SHORT = {  # options that make a command short; the last value of an option counts
    "train.py": "--total_step 1 --niter none --device cpu --batch_size 4 --batch_size_in_gpu 4 --g_conv_dim 4 "
    "--d_conv_dim 4 --num_workers 0",
    "test.py": "--num_samples 40 --device cpu",
    "pack.py": "--num_workers 1",
    "gallery.py": "--device cpu --inception_weights inception.safetensors",
    "recipes.py": "--seeds 29",
}
MEASURED = ("digits-ACGAN-29", "sagan-digits-sagan-digits-29")  # runs of benchmarks/recipes.py that are there already
# In a sentence: settings of the environment, and a program with options. `python train.py` alone names a program.
IN_A_SENTENCE = re.compile(r"`((?:[A-Z_]+=\S+ )*(?:python [^`]*? --|(?:make|pip|sbatch|srun|visualdl) )[^`]*)`")


def commands_of(page):
    """The commands of a page, each on one line: those in blocks, without comments, and those in sentences and tables.

    In a block of Python, lines that begin with `!` are commands.
    """
    text = page.read_text(encoding="utf-8")
    sentences = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for command in IN_A_SENTENCE.findall(sentences):
        yield " ".join(command.split())
    for kind, block in re.findall(r"^```(bash|bat|python)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            command = " ".join(re.sub(r"(^|\s)#.*", "", line).split())
            if kind == "python":
                command = command[1:] if command.startswith("!") else ""
            if command:
                yield command


def runs_here(command):
    return not any(command.startswith(beginning) for beginning in ELSEWHERE)


COMMANDS = sorted({command for page in PAGES for command in commands_of(page) if runs_here(command)})


def pictures(folder, names, count):
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.random.default_rng((number, index)).integers(256, size=(48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


def cifar10(path):
    """An archive like that of CIFAR-10, with 20 images in each batch."""
    batch = {"data": np.zeros((20, 3072), np.uint8), "labels": [i % 10 for i in range(20)]}
    content = pickle.dumps(batch, protocol=2)
    with tarfile.open(path, "w:gz") as tar:
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with stand-ins for everything that the commands name, and links to the project's files."""
    place = tmp_path_factory.mktemp("place")
    for entry in ROOT.iterdir():
        if not entry.name.startswith(".") and entry.name not in ("sagan_models", "log"):
            (place / entry.name).symlink_to(entry)
    for name in ("flowers", "flowers-test", "photos", "home/aistudio/data/flowers"):
        pictures(place / name, ("daisy", "iris", "rose", "tulip"), 3)
    for name in ("ImageNet/train", "ImageNet/val"):
        pictures(place / name, sorted(WORDNET_IDS)[:20], 2)
    np.savez(place / "samples.npz", np.zeros((20, 32, 32, 3), np.uint8), np.arange(20))
    rng = np.random.default_rng(0)
    weights = {published_name(name): 0.05 * rng.standard_normal(tensor.shape).astype(np.float32) + ("var" in name)
               for name, tensor in Network(["2048"]).state_dict().items()}  # fmt: skip
    weights |= {
        "fc.weight": rng.standard_normal((1008, 2048)).astype(np.float32),
        "fc.bias": np.zeros(1008, np.float32),
    }
    save_file(weights, place / "inception.safetensors")
    mu, sigma = np.zeros(2048), np.eye(2048)
    np.savez(place / "VIRTUAL_imagenet128.npz", mu=mu, sigma=sigma)
    cifar10(place / "cifar-10-python.tar.gz")
    for name, data in (("flowers", "flowers"), ("imagenet", "ImageNet/train")):
        execute(place, f"python train.py --data_path {data} --save_path runs --name {name} --imsize 32")
    execute(place, "python train.py")
    execute(place, "python train.py --data_path flowers --name flowers --imsize 32")
    for name in ("acgan-digits", "sagan-digits"):
        execute(place, f"python train.py --recipe {name} --name {name}")
    for name in MEASURED:
        recipe = "sagan-digits" if name.startswith("sagan") else "acgan-digits"
        execute(place, f"python train.py --recipe {recipe} --save_path tmp/recipes --name {name}")
        execute(place, f"python test.py --pretrained_model tmp/recipes/{name} --test_path tmp/recipes/{name}/test")
    execute(place, "python pack.py --data_path ImageNet/train --imsize 128 --centercrop --out packed.npz")
    return place


def execute(place, command):
    """Run a command of a page in `place`, made short. Other paths than those below `place` are put there."""
    for outside in ("/tmp/recipes", "/home/aistudio", "/content"):
        command = command.replace(outside, f"{place}{outside}")
    words = [word for word in shlex.split(command)[1:] if word != "…"]
    values = dict(itertools.pairwise(words))  # {option: its value}
    new = f"new-{len(list(place.glob('new-*')))}"
    (place / new).mkdir()
    places = {"DIR": "flowers" if values.get("--data_path") == "DIR" else f"{new}/folder", "FILE": f"{new}/samples.npz"}
    places |= {"WEIGHTS": "runs/flowers", "N": "2"}
    places |= {"RUN": "runs/imagenet" if {"ImageNet/val", "--interpolate"} & set(words) else "runs/flowers"}
    places |= {"FOLDER": "runs/flowers", "NAME": "acgan-digits", "cat,3": "daisy,3"}
    if "pack.py" not in words:
        places["imagenet-128.npz"] = "packed.npz"
    run = place / values.get("--save_path", "sagan_models") / values.get("--name", "")
    if "--name" in words and "--resume" not in words:
        shutil.rmtree(run, ignore_errors=True)  # of a command of another page
    program = next(word for word in words if word.endswith(".py"))
    short = SHORT.get(program.rpartition("/")[2], "")
    more = "--total_step 4 --device cpu" if "--resume" in words and run.exists() else short
    more = "--device cpu" if "--samples" in words else more
    if program == "train.py" and "--pretrained_model" in words:
        more += " --total_step 2"  # the weights have one step
    if {"--test_data_path", "--reference", "--eval_step"} & set(words):
        more += " --inception_weights inception.safetensors"
    if words[:2] == ["benchmarks/recipes.py", "digits"]:
        more += " --rows ACGAN"
    if "--eval_step" in words:
        more += " --eval_step 1 --eval_samples 20"
    words = [sys.executable, *(places.get(word, word) for word in words), *more.split()]
    environment = os.environ | {"HOME": str(place)}
    done = subprocess.run(words, cwd=place, env=environment, text=True, capture_output=True, timeout=LIMIT)
    assert done.returncode == 0, f"{shlex.join(words[1:])}\n{done.stdout}\n{done.stderr}"


def test_every_command_is_one_that_runs_or_is_named():
    assert all(command.split()[0] in ("python", "make") for command in COMMANDS), COMMANDS
    known = {command for page in PAGES for command in commands_of(page)}
    unused = [text for text in ELSEWHERE if not any(command.startswith(text) for command in known)]
    assert unused == []


def test_commands_in_sentences_and_cells_are_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Write `PIP_INDEX_URL=https://a.b/simple make demo`, `sbatch --signal B:USR1@600 a.sh …`, or `make` or\n"
        "`python train.py`.\n```python\nimport os\n%cd a\n!python train.py --name b \\\n    --imsize 32  # c\n```\n"
    )
    seen = ["PIP_INDEX_URL=https://a.b/simple make demo", "sbatch --signal B:USR1@600 a.sh …"]
    assert list(commands_of(page)) == [*seen, "python train.py --name b --imsize 32"]


def test_no_cell_sets_a_shell_that_ends_with_its_line():
    """`!cd` and `!export` have no effect on the next lines; `%cd` and `%env` have."""
    for page in PAGES:
        assert not re.findall(r"(?m)^! ?(?:cd|export) .*", page.read_text(encoding="utf-8")), page


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_a_page_runs(place, command):
    execute(place, command)
