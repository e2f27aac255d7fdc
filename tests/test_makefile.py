"""`make` chooses a Python, or says what to do if none fits. Stand-in scripts replace the Pythons on its PATH."""

import re
import shutil
import subprocess
import sys

import pytest
from commands import LIMIT, ROOT

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
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text('#!/bin/sh\\necho {name}, "$@" >>made; {pip}')
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
        for name in ("awk", "ls", "rm", "sed", "sh", "test", "touch", "tr"):
            (self.commands / name).symlink_to(shutil.which(name))

    def add_python(self, name, version, without_venv=False, pip=""):
        """A stand-in for Python. `pip`: shell commands that run when it installs packages."""
        values = {"version": version.replace(".", ", "), "without_venv": without_venv, "pip": pip}
        self.add(name, STAND_IN.format(executable=sys.executable, name=name, **values))

    def add(self, name, script):
        (self.commands / name).write_text(script)
        (self.commands / name).chmod(0o755)

    def add_gpus(self, *gpus, driver="550.54.14", cuda=()):
        """An `nvidia-smi` that lists GPUs, (compute capability, name) each, and the files of CUDA and cuDNN."""
        lines = "\n".join(f"{driver}, {capability}, {name}" for capability, name in gpus)
        refusal = 'case "$1" in *compute_cap*) echo compute_cap is not a valid field to query.; exit 2 ;; esac'
        old = int(driver.split(".")[0]) < 510  # such drivers do not know compute_cap
        self.add("nvidia-smi", f"#!/bin/sh\n{refusal if old else ''}\necho '{lines}'\n")
        (self.folder / "cuda").mkdir()
        for file in cuda:
            (self.folder / "cuda" / file).touch()

    def make(self, *arguments):
        environment = {"PATH": str(self.commands), "CUDA_FOLDERS": str(self.folder / "cuda")}
        command = [shutil.which("make"), *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, text=True, capture_output=True, timeout=LIMIT)

    def installed(self, *arguments):
        """The name of the Python that makes the environment, and what `make setup` installs into it.

        That is a list of packages, then the package indexes beside PyPI.
        """
        result = self.make("setup", *arguments)
        assert result.returncode == 0, result.stderr
        python, installed = (self.folder / "made").read_text().rstrip().split(", ")
        files = re.findall(r"-r (\S+)", installed)
        packages = re.findall(r"\S+==\S+", installed) + [line for file in files for line in self.lines(file)]
        return python, packages + re.findall(r"https?://\S+", installed)

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
    """Paddle 2 fits this GPU, and it does not run with Python 3.13. Paddle 3 would run."""
    machine.add_python("python3", "3.13")
    machine.add_gpus(("7.5", "Tesla T4"), cuda=CUDA_11_8)
    sentence = machine.refusal()
    assert "Paddle 2.6.2 needs Python 3.10 to 3.12" in sentence and "GPU=0" in sentence and "PADDLE_INDEX" in sentence
    assert machine.installed("GPU=0")[0] == "python3"


INDEX = "https://www.paddlepaddle.org.cn/packages/stable/"
CUDA_11_8 = ("libcudart.so.11.8.89", "libcudnn.so.8.6.0")


@pytest.mark.parametrize(
    "gpus, driver, build",
    [
        ([("6.0", "Tesla P100-PCIE-16GB")], "550.54.14", "cu118"),
        ([("6.1", "NVIDIA GeForce GTX 1080")], "550.54.14", "cu118"),
        ([("7.0", "Tesla V100-SXM2-16GB")] * 4, "550.54.14", "cu126"),
        ([("7.0", "Tesla V100-SXM2-16GB")], "535.183.01", "cu118"),
        ([("7.5", "Tesla T4")], "470.223.02", "cu118"),
        ([("8.9", "NVIDIA GeForce RTX 4090")], "560.35.03", "cu126"),
        ([("9.0", "NVIDIA H100 80GB HBM3")] * 8, "550.54.14", "cu126"),
        ([("8.6", "NVIDIA RTX A6000"), ("9.0", "NVIDIA H100 PCIe")], "550.54.14", "cu126"),
        ([("10.0", "NVIDIA B200")], "570.86.15", "cu129"),
        ([("12.0", "NVIDIA GeForce RTX 5090")], "575.51.03", "cu129"),
        ([("8.9", "NVIDIA GeForce RTX 4090"), ("12.0", "NVIDIA GeForce RTX 5090")], "575.51.03", "cu129"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value[0][1]}, {len(value)}",
)
def test_the_gpu_build_can_run_on_the_gpus(machine, gpus, driver, build):
    machine.add_python("python3", "3.13" if len(gpus) == 1 else "3.10")
    machine.add_gpus(*gpus, driver=driver)
    _, installed = machine.installed()
    assert "paddlepaddle-gpu==3.3.1" in installed and f"{INDEX}{build}/" in installed


@pytest.mark.parametrize(
    "capability, cuda, paddle",
    [
        ("6.1", CUDA_11_8, "2.6.2"),
        ("8.6", ("libcudart.so.11.8.89", "libcudnn.so.8.9.7"), "2.6.2"),
        ("8.9", CUDA_11_8, "2.6.2"),
        ("9.0", CUDA_11_8, "3.3.1"),
        ("8.6", ("libcudart.so.11.8.89",), "3.3.1"),
        ("8.6", ("libcudart.so.11.2.152", "libcudnn.so.8.6.0"), "3.3.1"),
        ("8.6", ("libcudart.so.11.8.89", "libcudnn.so.8.2.1"), "3.3.1"),
    ],
)
def test_the_build_of_pypi_is_used_where_cuda_11_8_and_cudnn_8_6_are_installed(machine, capability, cuda, paddle):
    machine.add_python("python3.12", "3.12")
    machine.add_gpus((capability, "NVIDIA GPU"), cuda=cuda)
    _, installed = machine.installed()
    assert f"paddlepaddle-gpu=={paddle}" in installed
    assert any(INDEX in line for line in installed) == (paddle == "3.3.1")


@pytest.mark.parametrize(
    "gpus, driver, found",
    [
        ([("3.7", "Tesla K80")], "550.54.14", "Tesla K80 (compute capability 3.7) is too old: Paddle needs 6.0"),
        ([("7.5", "Tesla T4")], "418.87.00", "driver 418.87.00 is too old: Paddle needs 450.80 or later"),
        ([("9.0", "NVIDIA H100 PCIe")], "535.183.01", "driver 535.183.01 is too old for NVIDIA H100 PCIe (compute"),
        ([("6.1", "Tesla P4"), ("9.0", "NVIDIA H100 PCIe")], "550.54.14", "no build of Paddle runs on both Tesla P4"),
    ],
    ids=["GPU", "driver", "driver for this GPU", "two GPUs"],
)
def test_a_gpu_or_a_driver_that_is_too_old_is_refused_by_name(machine, gpus, driver, found):
    machine.add_python("python3.12", "3.12")
    machine.add_gpus(*gpus, driver=driver)
    sentence = machine.refusal()
    assert found in sentence and "GPU=0" in sentence
    assert "paddlepaddle==3.3.1" in machine.installed("GPU=0")[1]


def test_a_broken_nvidia_smi_gives_the_cpu_build(machine):
    machine.add_python("python3.12", "3.12")
    machine.add("nvidia-smi", "#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not reach the driver'; exit 9\n")
    assert "paddlepaddle==3.3.1" in machine.installed()[1]


def test_pip_prints_one_line_for_each_package(machine):
    lines = ["Looking in indexes: …", "Collecting numpy>=1.26.0 (from -r base.txt (line 3))", "  Downloading …"]
    machine.add_python("python3.12", "3.12", pip="; ".join(f'echo "{line}"' for line in lines))
    result = machine.make("setup")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[1:] == ["Collecting numpy>=1.26.0"]


def test_a_failed_installation_is_repeated(machine):
    machine.add_python("python3.12", "3.12", pip="exit 1")
    assert machine.make("setup").returncode == 2
    machine.add_python("python3.12", "3.12")
    assert machine.make("setup").returncode == 0


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
        (["GPU=1"], "paddlepaddle-gpu==3.3.1", False),
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
