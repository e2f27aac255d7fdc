"""The files in test_tipc/: each command that a configuration produces runs. TIPC's own scripts are not needed."""

import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
from commands import LIMIT, ROOT

from training.run_folder import _tipc_line

CONFIGURATIONS = sorted((ROOT / "test_tipc" / "configs").glob("*/train_infer_python.txt"))
LINE = re.compile(
    r"\[epoch \d+, iter \d+\]\[TRAIN\]avg_samples: (\d+\.\d) , avg_reader_cost: (\d+\.\d+) sec, "
    r"avg_batch_cost: (\d+\.\d+) sec, loss: (-?\d+\.\d+) , avg_ips: (\d+\.\d+) images/sec"
)
MODE = "lite_train_lite_infer"


def read(path):
    """The lines of a configuration, as (key, value) by position."""
    return [SimpleNamespace(key=key, value=value) for key, _, value in
            (line.partition(":") for line in path.read_text().splitlines())]  # fmt: skip


def setting(key, value):
    """An option of a command, as TIPC's scripts form it; nothing for null."""
    return [] if "null" in (key, value) or not value else [f"{key}={value}"]


def by_mode(line):
    """The option of a line with a value for each mode."""
    values = dict(pair.split("=") for pair in line.value.split("|"))
    return setting(line.key, values.get(MODE, ""))


def commands(lines, output):
    """The commands that TIPC's scripts form on a CPU from a configuration: (training, test, export, inferences)."""
    log = f"{output}/norm_train_gpus_-1_autocast_null"
    device, weights = setting(lines[4].key, lines[4].value), f"{log}/{lines[10].value}"
    training = [*shlex.split(lines[15].value), *device, *setting(lines[7].key, log), *by_mode(lines[6])]
    training += [*setting(lines[9].key, lines[9].value), *by_mode(lines[8]), *setting(lines[12].key, lines[12].value)]
    test = [*shlex.split(lines[23].value), *setting(lines[9].key, weights), *device]
    export = [*shlex.split(lines[29].value), *setting(lines[28].key, weights), *setting(lines[27].key, log)]
    fixed = [*setting(lines[46].key, f"{log}/{lines[35].value}"), *setting(lines[49].key, lines[49].value)]
    inferences = [
        [lines[39].value, f"{lines[40].key}=False", f"{lines[41].key}={mkldnn}", f"{lines[42].key}={threads}",
         f"{lines[43].key}={size}", f"{lines[45].key}={precision}", *fixed]
        for mkldnn in lines[41].value.split("|") for threads in lines[42].value.split("|")
        for size in lines[43].value.split("|") for precision in lines[45].value.split("|")
    ]  # fmt: skip
    return training, test, export, inferences


def test_there_is_an_acgan_and_a_sagan():
    assert [path.parent.name for path in CONFIGURATIONS] == ["acgan-digits", "sagan-digits"]


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_a_configuration_has_tipc_s_51_lines(path):
    lines = read(path)
    assert len(lines) == 51
    assert [number for number, line in enumerate(lines) if line.key == "##"] == [13, 21, 25]
    titles = {0: "train_params", 22: "eval_params", 26: "infer_params"}
    assert {number: line.key.strip("=") for number, line in enumerate(lines) if line.key[:3] == "==="} == titles
    assert lines[1].value == lines[10].value == path.parent.name  # the model, and its run's folder


def test_the_line_that_tipc_reads():
    metrics = {"images_per_second": 320.0, "data_wait": 0.001, "d_real": 0.5, "d_fake": 0.25}
    found = LINE.fullmatch(_tipc_line(20, 3, metrics, 32))
    assert [float(value) for value in found.groups()] == [32.0, 0.001, 0.1, 0.75, 320.0]


def test_a_folder_without_a_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    command = [sys.executable, ROOT / "test_tipc" / "infer.py", f"--model_dir={tmp_path}"]
    result = subprocess.run(command, text=True, capture_output=True, timeout=LIMIT)
    said = f"infer.py: --model_dir {tmp_path} has no exported model: give the folder that export.py wrote\n"
    assert (result.returncode, result.stdout, result.stderr) == (2, "", said)


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_prepare_removes_what_an_earlier_run_of_this_model_wrote(path, tmp_path):
    model, output = path.parent.name, tmp_path / "test_tipc" / "output"
    (other,) = {one.parent.name for one in CONFIGURATIONS} - {model}
    lines = [line for line in (ROOT / "docs" / "logs" / "tipc.log").read_text().splitlines() if "Run" in line]
    lines = [line.replace("Run successfully", "Run failed") for line in lines]
    for name in (model, other):
        (output / "norm_train_gpus_-1_autocast_null" / name).mkdir(parents=True)
        (output / f"{name}-model").mkdir()

    def prepare():
        subprocess.run(["bash", ROOT / "test_tipc" / "prepare.sh", path, MODE], cwd=tmp_path, check=True)

    prepare()  # without a log
    (output / "results_python.log").write_text("".join(f"{line}\n" for line in lines))
    for _ in range(2):
        prepare()
        left = (output / "results_python.log").read_text().splitlines()
        assert left == [line for line in lines if model not in line] and len(left) == len(lines) // 2
    (output / "results_python.log").write_text(f"{lines[0]}\n".replace("acgan-digits", model))
    prepare()
    assert (output / "results_python.log").read_text() == ""
    folders = {found.name for found in output.rglob("*digits*")}
    assert folders == {other, f"{other}-model"}


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_each_command_of_a_configuration_runs(path, tmp_path):
    (tmp_path / "test_tipc").symlink_to(ROOT / "test_tipc")
    for name in ("train.py", "test.py", "export.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    lines = read(path)
    lines[29].value = lines[29].value.replace("test_tipc/output", "output")  # leave the project's folder alone

    def run(command):
        result = subprocess.run([sys.executable, *command], cwd=tmp_path, text=True, capture_output=True, timeout=LIMIT)
        assert result.returncode == 0, result.stderr
        return result.stdout

    training, test, export, inferences = commands(lines, "output")
    printed = LINE.findall(run(training))
    assert len(printed) == 4 and printed[0][0] in ("16.0", "32.0")  # one or two updates of D in a step
    assert "report:" in run(test)
    run(export)
    for command in inferences:
        size = next(argument for argument in command if "batch_size" in argument).split("=")[1]
        out = run(command)
        assert f"images [{size}, 1, " in out and "milliseconds a batch" in out
