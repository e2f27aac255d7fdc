"""`make` chooses a Python, or says what to do if none fits. Stand-in scripts replace the Pythons on its PATH."""

import re
import shutil
import subprocess
import sys

import pytest
from commands import ROOT

# A Python that reports another version, perhaps without ensurepip. It runs `-c CODE`. Its `-m venv --clear FOLDER`
# makes an environment whose `python` writes its arguments to a file.
STAND_IN = """#!{executable}
import sys
from pathlib import Path

sys.version_info = ({version}, 0, "final", 0)
if {without_venv}:
    sys.modules["ensurepip"] = None
if sys.argv[1] == "-c":
    exec(sys.argv[2])
else:
    python = Path(sys.argv[-1], "bin", "python")
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\\necho {name}, "$@" >>made')
    python.chmod(0o755)
"""
BROKEN_SHIM = "#!/bin/sh\necho 'python: command not found' >&2\nexit 127\n"


class Machine:
    """A folder with the Makefile, and the only commands on its PATH."""

    def __init__(self, folder):
        self.folder, self.commands = folder, folder / "commands"
        self.commands.mkdir()
        shutil.copy(ROOT / "Makefile", folder)
        shutil.copytree(ROOT / "requirements", folder / "requirements")
        for name in ("rm", "sed", "touch"):
            (self.commands / name).symlink_to(shutil.which(name))

    def add_python(self, name, version, without_venv=False):
        version = version.replace(".", ", ")
        self.add(
            name, STAND_IN.format(executable=sys.executable, name=name, version=version, without_venv=without_venv)
        )

    def add(self, name, script):
        (self.commands / name).write_text(script)
        (self.commands / name).chmod(0o755)

    def make(self, *arguments):
        return subprocess.run(
            [shutil.which("make"), *arguments],
            cwd=self.folder, env={"PATH": str(self.commands)}, text=True, capture_output=True, timeout=60,
        )  # fmt: skip

    def installed(self, *arguments):
        """The name of the Python that makes the environment, and the packages that `make setup` installs into it."""
        result = self.make("setup", *arguments)
        assert result.returncode == 0, result.stderr
        python, installed = (self.folder / "made").read_text().rstrip().split(", ")
        files = re.findall(r"-r (\S+)", installed)
        return python, re.findall(r"\S+==\S+", installed) + [line for file in files for line in self.lines(file)]

    def lines(self, file):
        """The lines of a requirements file and of those that it includes."""
        for line in (self.folder / file).read_text().splitlines():
            yield from self.lines(f"requirements/{line.split()[1]}") if line.startswith("-r ") else [line]

    def refusal(self, *arguments):
        """The sentence that ends `make setup`."""
        result = self.make("setup", *arguments)
        sentence, after = result.stderr.split("\n", 1)
        assert result.returncode == 2 and after.startswith("make: ") and not (self.folder / "made").exists()
        return sentence


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize("name", ["python3.10", "python3.11", "python3.12", "python3.13", "python3", "python"])
def test_the_only_python_that_fits_is_used(machine, name):
    version = name.removeprefix("python")
    machine.add_python(name, version if "." in version else "3.13")
    assert machine.installed()[0] == name


@pytest.mark.parametrize("name", ["python3.10", "python3.11", "python3.12"])
def test_paddle_2_skips_python_3_13(machine, name):
    machine.add_python("python3.13", "3.13")
    machine.add_python("python3", "3.13")
    machine.add_python(name, name.removeprefix("python"))
    assert machine.installed("PADDLE=2.6.2")[0] == name


def test_paddle_2_needs_an_older_python_than_3_13(machine):
    machine.add_python("python3", "3.13")
    sentence = machine.refusal("PADDLE=2.6.2")
    assert sentence.startswith("Paddle 2.6.2 needs Python 3.10 to 3.12; found: python3 is 3.13; ")
    assert "GPU=0" not in sentence


def test_a_gpu_with_only_python_3_13_is_refused_with_the_ways_that_work(machine):
    """With a GPU, Paddle 2 is installed by default, and it does not run there. Paddle 3 would run."""
    machine.add_python("python3", "3.13")
    machine.add("nvidia-smi", "#!/bin/sh\n")
    sentence = machine.refusal()
    assert "Paddle 2.6.2 needs Python 3.10 to 3.12" in sentence and "GPU=0" in sentence and "PADDLE_INDEX" in sentence
    assert machine.installed("GPU=0")[0] == "python3"


def test_a_too_new_python_is_refused_with_the_ways_that_work(machine):
    machine.add_python("python3.14", "3.14")
    machine.add_python("python3", "3.14")
    sentence = machine.refusal()
    assert sentence.startswith("Paddle 3.3.1 needs Python 3.10 to 3.13; found: python3 is 3.14; ")
    assert "`uv venv --python 3.12 .venv-python`" in sentence
    assert "`conda create -p .venv-python python=3.12`" in sentence
    assert "PYTHON=.venv-python/bin/python" in sentence and "PYTHON=/path/to/python" in sentence
    assert "apt install" not in sentence


def test_no_python_is_refused_with_a_way_to_install_one(machine):
    sentence = machine.refusal()
    assert "none of python3.12 python3.13 python3.11 python3.10 python3 python runs" in sentence
    assert "uv venv" in sentence


def test_a_python_without_venv_is_refused_with_the_package_to_install(machine):
    machine.add_python("python3.13", "3.13", without_venv=True)
    machine.add_python("python3", "3.13", without_venv=True)
    sentence = machine.refusal()
    assert "python3.13 is 3.13 without venv or ensurepip" in sentence and "apt install python3.13-venv" in sentence


def test_a_python_without_venv_is_skipped(machine):
    machine.add_python("python3.12", "3.12", without_venv=True)
    machine.add_python("python3", "3.11")
    assert machine.installed()[0] == "python3"


def test_a_broken_shim_is_skipped(machine):
    machine.add("python3.12", BROKEN_SHIM)
    machine.add_python("python3.13", "3.13")
    assert machine.installed()[0] == "python3.13"


def test_the_given_python_is_used(machine):
    machine.add_python("python3.12", "3.12")
    machine.add_python("mine", "3.13")
    assert machine.installed(f"PYTHON={machine.commands}/mine")[0] == "mine"


@pytest.mark.parametrize(
    "arguments, found",
    [
        (["PYTHON=mine"], "found: mine is 3.9;"),
        (["PYTHON=/nowhere/python"], "found: none of /nowhere/python runs;"),
        (["PYTHON=python3.13", "PADDLE=2.6.2"], "found: python3.13 is 3.13;"),
    ],
    ids=["too old", "missing", "too new for Paddle 2"],
)
def test_a_given_python_that_does_not_fit_is_refused(machine, arguments, found):
    """No other Python is used instead."""
    machine.add_python("mine", "3.9")
    machine.add_python("python3.12", "3.12")
    machine.add_python("python3.13", "3.13")
    assert found in machine.refusal(*arguments)


@pytest.mark.parametrize(
    "arguments, package, older_numpy",
    [
        ([], "paddlepaddle==3.3.1", False),
        (["PADDLE=2.6.2"], "paddlepaddle-gpu==2.6.2", True),
        (["GPU=1"], "paddlepaddle-gpu==2.6.2", True),
        (["GPU=1", "PADDLE_INDEX=https://example.com/cu126/"], "paddlepaddle-gpu==3.3.1", False),
    ],
    ids=["CPU", "Paddle 2", "GPU", "GPU, Paddle's index"],
)
def test_only_paddle_2_gets_an_older_numpy(machine, arguments, package, older_numpy):
    machine.add_python("python3.12", "3.12")
    _, installed = machine.installed(*arguments)
    assert package in installed and ("numpy<2" in installed) == older_numpy


def test_help_names_the_python_versions(machine):
    assert "3.10 to 3.13" in machine.make("help").stdout


def test_the_converter_to_onnx_gets_a_python_that_it_supports(machine):
    machine.add_python("python3", "3.13")
    result = machine.make("export-env")
    assert result.returncode == 2 and result.stderr.startswith("The converter to ONNX needs Python 3.10 to 3.12 with")
    machine.add_python("python3.11", "3.11")
    assert machine.make("export-env").returncode == 0
    assert (machine.folder / "made").read_text().startswith("python3.11, -m pip install")
