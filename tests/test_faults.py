"""A fault ends a training or a test with one sentence. Its saved files stay whole."""

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from commands import LIMIT, ROOT, SMALL, launch, run, start, train_with_progress, wait_for, wait_for_step, worker_pids
from PIL import Image

import checkpoint
from dataset import batches, load_dataset
from trainer import Trainer
from training.collapse import ADVICE
from training.run_folder import RunFolder
from training.run_start import Start
from utils import UserError

FOLDER = [*SMALL[2:], "--recipe", "acgan-mlp", "--dataset", "folder", "--imsize", "16", "--num_workers", "2"]


@contextlib.contextmanager
def mounted(path, size):
    """Mount a file system of `size` bytes at `path`."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a file system")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.fixture
def pictures(tmp_path):
    """A folder of two classes with 50 images each."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(50):
            image = Image.fromarray(rng.integers(256, size=(20, 20, 3), dtype=np.uint8))
            image.save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


def run_of(parameters):
    (folder,) = Path(parameters.save_path).iterdir()
    return folder


def last_line(err):
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


def whole_steps(run_folder):
    """The steps of a run's checkpoints. Checks that each is whole and that no half-written file exists."""
    assert not [path for path in run_folder.rglob("*") if ".tmp" in path.name]
    files = checkpoint.step_files(run_folder / "weights")
    steps = [checkpoint.load(path).step for path in files]
    if steps:
        assert (run_folder / "weights" / "latest").resolve() == files[-1].resolve()
    return steps


def test_a_full_disk_ends_a_training_and_keeps_its_checkpoints(tmp_path):
    with mounted(tmp_path / "disk", 2**20) as disk:
        command = [*SMALL, "--save_path", disk, "--name", "mine", "--model_save_step", "2", "--total_step", "1000"]
        code, _, err = run(tmp_path, ROOT / "train.py", *command)
        assert code == 2 and last_line(err).startswith("train.py: ") and "No space left" in last_line(err)
        steps = whole_steps(disk / "mine")
        assert steps == list(range(2, 2 * len(steps) + 1, 2)) and steps


def test_a_read_only_folder_is_refused_in_one_sentence(tmp_path, make_parameters):
    p = make_parameters(name="mine", total_step=2, save_path=str(tmp_path / "disk"))
    with mounted(tmp_path / "disk", 2**24) as disk:
        Trainer(p).train(load_dataset(p))
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        command = ["--resume", disk / "mine", "--total_step", "4"]
        code, _, err = run(tmp_path, ROOT / "train.py", *command)
        assert (code, err) == (2, f"train.py: {disk}/mine/.lock: Read-only file system\n")
        with pytest.raises(UserError, match="cannot be made: Read-only file system"):
            RunFolder(make_parameters(name="other", save_path=str(disk)))
        assert whole_steps(disk / "mine") == [2]


def test_removing_the_data_folder_ends_a_training_in_one_sentence(pictures, tmp_path):
    command = [*FOLDER, "--data_path", pictures, "--name", "mine", "--log_step", "1", "--model_save_step", "2"]
    process = start(tmp_path, ROOT / "train.py", *command, "--total_step", "1000000")
    wait_for_step(process, tmp_path / "sagan_models" / "mine", 5)
    pictures.rename(tmp_path / "elsewhere")
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 2
    assert last_line(err) == f"train.py: {pictures} is gone: put it back, then continue with --resume"
    assert len(whole_steps(tmp_path / "sagan_models" / "mine")) >= 2


def test_a_removed_class_folder_is_named(pictures, make_parameters):
    p = make_parameters(dataset="folder", data_path=str(pictures), num_classes=2)
    data = batches(load_dataset(p), p, first=0)
    next(data)
    shutil.rmtree(pictures / "cat")
    with pytest.raises(UserError, match="data/cat is gone"):
        for _ in range(20):
            next(data)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_thread_that_reads_images_ends_the_run(pictures, make_parameters, monkeypatch, workers):
    p = make_parameters(dataset="folder", data_path=str(pictures), num_classes=2, num_workers=workers)
    data = batches(load_dataset(p), p, first=0)
    next(data)

    def take_all_memory(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image, "open", take_all_memory)
    with pytest.raises(UserError, match=r"\.png takes more memory than is left: lower --num_workers"):
        for _ in range(20):
            next(data)


@pytest.mark.parametrize(
    ("part", "name", "value"), [("G", "linear.weight", float("nan")), ("D", "heads.classes.weight", float("inf"))]
)
def test_a_gradient_that_is_not_finite_stops_the_training(make_parameters, part, name, value):
    """From step 5 on, in one weight. The loss of that step is finite."""
    p = make_parameters(total_step=9, log_step=1, model_save_step=2)
    trainer = Trainer(p)
    weight = dict(getattr(trainer, part).named_parameters())[name]
    weight.register_hook(lambda gradient: gradient + value if trainer.step == 4 else gradient)
    with pytest.raises(UserError, match=f"the gradient of {part}/{name} is not finite at step 5: .*--d_lr .*{ADVICE}$"):
        trainer.train(load_dataset(p))
    assert whole_steps(run_of(p)) == [2, 4]


@pytest.mark.parametrize("log_step", [1, 1000])
def test_a_loss_that_is_not_finite_stops_the_training(make_parameters, log_step):
    p = make_parameters(total_step=50, log_step=log_step, model_save_step=1, d_lr=1e30)
    with pytest.raises(UserError, match=r"(nan|inf|not finite) at step \d+: training has diverged; --resume"):
        Trainer(p).train(load_dataset(p))
    whole_steps(run_of(p))


def test_weights_that_are_not_finite_are_not_saved(make_parameters):
    """No gradient shows them, as with the row of a class that is not in the batch."""
    p = make_parameters()
    trainer = Trainer(p)
    with pytest.raises(UserError, match="G_ema/embedding is not finite at step 2"), RunFolder(p) as folder:
        folder.begin(Start(), load_dataset(p))
        folder.save(1, trainer.state)
        parts = trainer.state()
        parts["G_ema"] = {"embedding": np.array([1.0, np.nan])}
        folder.save(2, lambda: parts)
    assert whole_steps(folder.path) == [1]


def test_the_saved_state_is_a_copy(make_parameters):
    """It is written while the training changes the weights."""
    p = make_parameters()
    trainer, data = Trainer(p), batches(load_dataset(p), p, first=0)
    trainer.train_step(data)
    saved = trainer.state()
    before = {f"{part}/{name}": array.copy() for part, arrays in saved.items() for name, array in arrays.items()}
    trainer.train_step(data)
    for part, arrays in saved.items():
        for name, array in arrays.items():
            assert (array == before[f"{part}/{name}"]).all()


def test_leftovers_of_a_killed_writer_are_removed(make_parameters):
    p = make_parameters(name="mine")
    Trainer(p).train(load_dataset(p))
    folder = run_of(p)
    mine = folder / "weights" / ".my-document.txt"
    half = (folder / ".tmp-parameters-abcd_123.yaml", folder / "weights" / ".tmpAbCdEf")
    for path in (mine, *half):
        path.write_text("half")
    RunFolder(make_parameters(name="mine", resume="auto")).__exit__()
    assert whole_steps(folder) == [2, 4] and mine.exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A checkpoint of a run of digits after one step."""
    folder = tmp_path_factory.mktemp("model")
    code, _, err = run(folder, ROOT / "train.py", *SMALL, "--total_step", 1, "--name", "mine")
    assert code == 0, err
    return folder / "sagan_models" / "mine" / "weights" / "step-00000001.safetensors"


def fill(disk, left):
    """Fill the file system `disk` until `left` bytes are free."""
    with open(disk / "ballast", "wb") as file:
        file.write(bytes(shutil.disk_usage(disk).free - left))


@pytest.mark.parametrize("target", ["small.safetensors", "small.pdparams"])
def test_converting_on_a_full_disk_leaves_no_file(model, tmp_path, target):
    with mounted(tmp_path / "disk", 2**20) as disk:
        fill(disk, 2**14)
        code, out, err = run(disk, ROOT / "convert.py", model, target)
        said = rf"convert\.py: TARGET {target} cannot be written: .*No space left on device.*; make room there, .*\n"
        assert (code, out) == (2, "") and re.fullmatch(said, err)
        assert [path.name for path in disk.iterdir()] == ["ballast"]


def draw(model, *options):
    return [ROOT / "test.py", "--pretrained_model", model, "--metrics", "none", "--device", "cpu", *options]


def test_samples_that_do_not_fit_on_the_disk_are_refused(model, tmp_path):
    """They are refused before any sample is drawn, and no file is left."""
    with mounted(tmp_path / "disk", 2**20) as disk:
        command = draw(model, "--num_samples", 3000, "--samples_npz", disk / "all.npz", "--test_path", tmp_path / "out")
        code, _, err = run(tmp_path, *command)
        said = f"test.py: --samples_npz {disk}/all.npz needs 2 MB while it is written, but its disk has 1 MB free:"
        assert code == 2 and err.startswith(said) and err.count("\n") == 1
        assert list(disk.iterdir()) == []


@pytest.mark.slow
def test_a_test_resumes_after_its_disk_was_full(model, tmp_path):
    """The message names each file with its option. The same command resumes when there is room."""
    with mounted(tmp_path / "disk", 2**25) as disk:
        places = ["--samples_npz", disk / "all.npz", "--test_path", tmp_path / "out"]
        command = draw(model, "--num_samples", 60_000, *places)
        process = start(tmp_path, *command)
        measured = tmp_path / "out" / "process-0.npz"
        wait_for(process, lambda: measured.exists() and list(disk.glob(".all*")))
        fill(disk, 2**20)
        _, err = process.communicate(timeout=LIMIT)
        said = f"test.py: --samples_npz {disk}/all.npz cannot be written: No space left on device; make room there "
        assert process.returncode == 2 and err.startswith(said) and err.count("\n") == 1
        (unfinished,) = disk.glob(".all*")
        assert str(unfinished) in err
        (disk / "ballast").unlink()
        code, _, err = run(tmp_path, *command)
        assert code == 0, err
        assert [path.name for path in disk.iterdir()] == ["all.npz"]


def test_sample_pictures_on_a_full_disk_end_in_one_sentence(model, tmp_path):
    with mounted(tmp_path / "disk", 2**19) as disk:
        command = draw(model, "--num_samples", 3000, "--samples_dir", disk / "all", "--test_path", tmp_path / "out")
        code, _, err = run(tmp_path, *command)
        said = f"test.py: --samples_dir {disk}/all cannot be written: No space left on device; make room there "
        assert code == 2 and err.startswith(said) and err.count("\n") == 1
        assert not [path for path in disk.rglob("*") if ".tmp" in path.name]


def test_a_report_on_a_full_disk_ends_in_one_sentence(model, tmp_path):
    with mounted(tmp_path / "disk", 2**19) as disk:
        fill(disk, 2**13)
        code, _, err = run(tmp_path, *draw(model, "--num_samples", 20, "--test_path", disk / "out"))
        assert code == 2 and re.fullmatch(
            rf"test\.py: {disk}/out/(process-0\.npz|class_grid\.png|report\.json): No space left on device\n", err
        )
        assert not [path for path in disk.rglob("*") if ".tmp" in path.name]


@pytest.mark.slow
def test_the_hidden_file_of_a_killed_test_is_removed(model, tmp_path):
    """While that test still runs, another test of the same file is refused."""
    command = draw(model, "--samples_npz", "all.npz", "--num_samples")
    process = start(tmp_path, *command, 500_000, "--test_path", "first")
    wait_for(process, lambda: any(path.stat().st_size > 10**5 for path in tmp_path.glob(".all*")))
    other = [*command, 20, "--test_path", "other", "--truncation", 1]
    code, _, err = run(tmp_path, *other)
    assert (code, err) == (2, "test.py: --samples_npz all.npz is being written by another test: give another file\n")
    process.kill()
    process.communicate(timeout=LIMIT)
    assert list(tmp_path.glob(".all*"))
    code, _, err = run(tmp_path, *other)
    assert code == 0, err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.npz", "first", "other"]


def test_training_with_a_closed_output_saves_and_ends_silently(tmp_path):
    """`train.py 2>&1 | head -1`: it ends as other programs do, without a message, and its last step is saved."""
    command = [*train_with_progress(0.1), *SMALL, "--log_step", 1, "--total_step", 10**6, "--name", "mine"]
    process = start(tmp_path, *command, stderr=subprocess.STDOUT)
    while "writes to" not in process.stdout.readline():
        pass
    process.stdout.close()
    assert process.wait(timeout=LIMIT) == 128 + signal.SIGPIPE
    (step,) = whole_steps(tmp_path / "sagan_models" / "mine")
    assert f"step {step} " in (tmp_path / "sagan_models" / "mine" / "log.txt").read_text().splitlines()[-1]


@pytest.mark.parametrize("command", [["train.py", *SMALL, "--total_step", 2], ["test.py"], ["convert.py"]])
def test_programs_with_a_closed_output_end_silently(model, tmp_path, command):
    program, *options = command
    options = {"train.py": options, "test.py": draw(model)[1:], "convert.py": [model, "new.safetensors"]}[program]
    process = start(tmp_path, ROOT / program, *options)
    process.stdout.close()
    err = process.stderr.read()
    assert (process.wait(timeout=LIMIT), err) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_the_start_ends_with_one_line_and_no_folder(tmp_path, number):
    process = start(tmp_path, ROOT / "train.py", *SMALL)
    assert process.stdout.readline().startswith("recipe")  # before Paddle is imported
    process.send_signal(number)
    _, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err) == (128 + number, f"train.py: stopped by {number.name}\n")
    assert list(tmp_path.iterdir()) == []


def blocks_signal(process, number):
    """Whether a process blocks a signal; None when the process has ended."""
    with contextlib.suppress(OSError, AttributeError):
        held = re.search(r"^SigBlk:\s*(\w+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
        return bool(int(held[1], 16) >> (number - 1) & 1)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["new.safetensors", pytest.param("new.pdparams", marks=pytest.mark.slow)])
def test_ctrl_c_at_any_moment_of_converting(model, tmp_path, target):
    for moment in np.linspace(0.02, 1, 4):
        process = start(tmp_path, ROOT / "convert.py", model, target)
        # Before the program blocks signals, Python itself is starting.
        while process.poll() is None and not blocks_signal(process, signal.SIGINT):
            time.sleep(0.001)
        time.sleep(moment)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT)
        assert "Traceback" not in err
        assert (process.returncode, err) in ((130, "convert.py: stopped by SIGINT\n"), (0, ""))
        assert not [path for path in tmp_path.iterdir() if path.name != target]
        (tmp_path / target).unlink(missing_ok=True)


def ignore_hangup():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_the_end_of_an_ssh_session_stops_and_saves_a_run(tmp_path):
    """The terminal closes: SIGHUP arrives, and output can no longer be written."""
    terminal, other_end = pty.openpty()
    command = [*SMALL, "--name", "mine", "--log_step", "1", "--model_save_step", "1000", "--total_step", "100000"]
    how = {"stdin": other_end, "stdout": other_end, "stderr": other_end, "start_new_session": True}
    take_terminal = [sys.executable, "-c", TAKE_TERMINAL, sys.executable, ROOT / "train.py", *command]
    process = subprocess.Popen([*map(str, take_terminal)], cwd=tmp_path, **how)
    os.close(other_end)
    threading.Thread(target=drain, args=(terminal, ended := threading.Event()), daemon=True).start()
    mine = tmp_path / "sagan_models" / "mine"
    log = mine / "log.txt"
    wait_for(process, lambda: log.exists() and " step 3 " in log.read_text())
    ended.set()
    assert process.wait(timeout=LIMIT) == 128 + signal.SIGHUP
    (step,) = whole_steps(mine)
    assert step >= 3 and f"step {step} " in log.read_text().splitlines()[-1]


TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


def drain(terminal, ended):
    """Read what comes on a terminal until `ended`, then close it."""
    while not ended.is_set():
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 65536)
    os.close(terminal)


@pytest.mark.slow
def test_a_training_with_ignored_sighup_runs_to_its_end(tmp_path):
    """As under `nohup`, while it starts and while it trains."""
    command = [*SMALL, "--name", "mine", "--log_step", "1", "--total_step", "60"]
    process = start(tmp_path, ROOT / "train.py", *command, preexec_fn=ignore_hangup)
    assert process.stdout.readline().startswith("recipe")
    process.send_signal(signal.SIGHUP)
    wait_for_step(process, tmp_path / "sagan_models" / "mine", 3)
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0 and "trained 60 steps" in out and "stop" not in err


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [False, True])
def test_sighup_stops_a_test_unless_it_is_ignored(model, tmp_path, ignored):
    command = draw(model, "--num_samples", 60_000, "--test_path", "out", "--samples_npz", "all.npz")
    process = start(tmp_path, *command, preexec_fn=ignore_hangup if ignored else None)
    wait_for(process, lambda: any(path.stat().st_size > 10**5 for path in tmp_path.glob(".all*")))
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=LIMIT)
    if ignored:
        assert process.returncode == 0 and (tmp_path / "all.npz").exists(), err
    else:
        assert process.returncode == 128 + signal.SIGHUP and "the same command again to resume" in out, err
        code, out, err = run(tmp_path, *command)
        assert code == 0 and "resuming" in out, err


def start_slow_run_and_terminate(tmp_path):
    """Start a run whose step takes minutes, send it SIGTERM, and wait for its answer."""
    process = start(tmp_path, ROOT / "train.py", *SMALL, "--d_steps_per_iter", "100000", "--name", "mine")
    log = tmp_path / "sagan_models" / "mine" / "log.txt"
    wait_for(process, lambda: log.exists() and "started" in log.read_text())
    process.terminate()
    said = next(line for line in process.stderr if line == "\n" or line.startswith("stopping"))
    assert said == "stopping; send the signal once more to quit at once\n"
    return process


def test_a_second_signal_quits_at_once(tmp_path):
    process = start_slow_run_and_terminate(tmp_path)
    process.terminate()  # does not count: the launcher sends SIGTERM three times
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=LIMIT) == 128 + signal.SIGINT
    assert whole_steps(tmp_path / "sagan_models" / "mine") == []
    process.communicate()


@pytest.mark.slow
def test_a_late_second_sigterm_quits_at_once(tmp_path):
    process = start_slow_run_and_terminate(tmp_path)
    time.sleep(6)
    process.terminate()
    assert process.wait(timeout=LIMIT) == 128 + signal.SIGTERM
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["the launcher", "each process", "one process"])
def test_several_processes_save_and_stop_together(tmp_path, whom):
    """Writing the checkpoint of 120 MB takes longer than the rest of the other process's work."""
    wide = ["--g_conv_dim", "192", "--d_conv_dim", "192", "--batch_size", "4", "--model_save_step", "1000"]
    command = [ROOT / "train.py", *SMALL, *wide, "--log_step", "1", "--name", "mine", "--total_step", "100000"]
    launcher = launch(tmp_path, 2, *command)
    mine = tmp_path / "sagan_models" / "mine"
    wait_for_step(launcher, mine, 2)
    workers = worker_pids(launcher)
    for pid in {"the launcher": [launcher.pid], "each process": workers, "one process": workers[1:]}[whom]:
        os.kill(pid, signal.SIGTERM)
    launcher.communicate(timeout=LIMIT)
    (step,) = whole_steps(mine)
    assert f"step {step} " in (mine / "log.txt").read_text().splitlines()[-1]
    assert f"stopped at step {step}" in (tmp_path / "logs" / "workerlog.0").read_text()
