"""Does everything work on this machine's GPUs? One page to paste into a report, in less than 10 minutes.

    python benchmarks/check_gpu.py                               # writes check-gpu.md
    python benchmarks/check_gpu.py --device cpu --processes 2    # the same checks without a GPU

Each line says pass, FAIL with a figure, or the reason why it was skipped. The exit code is 1 if a check has failed.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import runtime  # before paddle

ROOT = Path(__file__).parents[1]
LIMIT, ALL = 300, 570  # seconds for one command, and for all checks together
SAGAN = ["--recipe", "sagan-imagenet", "--dataset", "fake", "--num_classes", "10", "--log_step", "10"]
SMALL = [*SAGAN, "--imsize", "32", "--g_conv_dim", "16", "--d_conv_dim", "16"]
DIGITS = ["--recipe", "acgan-digits", "--g_conv_dim", "16", "--d_conv_dim", "16", "--log_step", "1"]
METRICS = ("d_real", "d_fake", "g_adv", "D_x", "D_G_z")
# The largest differences that count as the same. Devices round differently, and Adam makes more of it in 5 steps.
PROCESSES_APART, RESUMED_APART, SAMPLES_APART, FEATURES_APART = 1e-2, 1e-4, 1 / 255, 1e-2


class Failure(Exception):
    """A check has failed. The text has the figure."""


class Skipped(Exception):
    """A check cannot be made here. The text has the reason."""


class Checks:
    """The checks. Each is a method that returns a figure, or raises Failure or Skipped. `folder`: an empty folder."""

    def __init__(self, device, processes, folder):
        self.device, self.processes, self.folder = device, processes, folder
        self.is_gpu = device != "cpu"
        # The same bits in each run. On a GPU they cost speed.
        self.environment = os.environ | {"FLAGS_cudnn_deterministic": "1"}
        self.end = time.monotonic() + ALL

    def run(self, *command, **environment):
        """Run a Python command in the folder. Returns its output; raises Failure with the end of its error."""
        if (seconds := min(LIMIT, self.end - time.monotonic())) <= 0:
            raise Skipped(f"the checks before it took {ALL} seconds")
        done = subprocess.run(
            [sys.executable, *map(str, command)], cwd=self.folder, env=self.environment | environment, text=True,
            capture_output=True, timeout=seconds,
        )  # fmt: skip
        if done.returncode:
            lines = done.stderr.strip().splitlines()[-3:] or ["no message"]
            raise Failure(f"exit code {done.returncode}: {' '.join(' '.join(lines).split())[-300:]}")
        return done.stdout

    def train(self, name, *options, launcher=()):
        """Train a run and return the text of its log."""
        device = [] if launcher and self.is_gpu else ["--device", self.device]
        self.run(*launcher, ROOT / "train.py", *options, *device, "--name", name)
        return self.log(name)

    def log(self, name):
        path = self.folder / "sagan_models" / name / "log.txt"
        return path.read_text() if path.exists() else ""

    def alignment(self):
        """Each network against reference figures, in float64."""
        paths = sorted((ROOT / "tests" / "fixtures").glob("*.json"))
        paths = [path for path in paths if re.match(r"(re)?acgan_|sagan", path.name)]
        device = {} if self.is_gpu else {"CUDA_VISIBLE_DEVICES": ""}
        out = self.run("-m", "alignment", *paths, PYTHONPATH=str(ROOT), **device)
        worst = max(float(value) for value in re.findall(r"largest (?:difference )?([0-9.e+-]+)", out) or ["nan"])
        return f"{len(paths)} fixtures agree, largest difference {worst:.1e}"

    def precision(self, amp):
        """20 steps of SAGAN in one precision."""
        if amp and not self.is_gpu:
            raise Skipped(f"--amp {amp} needs a GPU: Paddle has no CPU kernels for it")
        size = [*SAGAN, "--imsize", "128", "--batch_size", "16"] if self.is_gpu else [*SMALL, "--batch_size", "4"]
        log = self.train(amp or "float32", *size, "--total_step", "20", *(["--amp", amp] if amp else []))
        last = values(log)[-1]
        width = "128 pixels, width 64, batch 16" if self.is_gpu else "32 pixels, width 16, batch 4"
        return f"SAGAN, {width}: d_real {last['d_real']:.3f}, {last['images_per_second']:.4g} images per second"

    def processes_agree(self):
        """All GPUs against one, with synchronised batch norm."""
        if self.processes < 2:
            raise Skipped("one GPU is visible")
        options = [*SMALL, "--sync_bn", "--total_step", "5", "--log_step", "1"]
        options += ["--global_batch_size", 4 * self.processes]
        launcher = ["-m", "paddle.distributed.launch", "--log_dir", "launcher", "--nproc_per_node", self.processes]
        one, all_of_them = values(self.train("one", *options)), values(self.train("all", *options, launcher=launcher))
        apart = max(
            abs(a[name] - b[name]) / max(abs(a[name]), 0.1)
            for a, b in zip(one, all_of_them, strict=True) for name in METRICS
        )  # fmt: skip
        return within(apart, PROCESSES_APART, f"{self.processes} processes, 5 steps: metrics differ by")

    def kill_and_resume(self):
        """A killed and resumed training against one that was never killed."""
        options = [*DIGITS, "--total_step", "60", "--model_save_step", "10"]
        self.train("whole", *options)
        command = [ROOT / "train.py", *options, "--device", self.device, "--name", "killed", "--resume", "auto"]
        process = subprocess.Popen(
            [sys.executable, *map(str, command)], cwd=self.folder, env=self.environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while " step 30 " not in self.log("killed") and process.poll() is None and time.monotonic() < self.end:
            time.sleep(0.01)
        process.kill()
        process.wait()
        self.run(*command)
        from safetensors.numpy import load_file

        ends = [
            load_file(self.folder / "sagan_models" / name / "weights" / "step-00000060.safetensors")
            for name in ("whole", "killed")
        ]
        resumed = re.findall(r"resumed at step (\d+)", self.log("killed"))
        if not resumed or resumed[-1] == "60":
            raise Failure("the training ended before it was killed")
        apart = max(
            abs(ends[1][name] - array).max() / max(abs(array).max(), 1e-6)
            for name, array in ends[0].items() if array.dtype.kind == "f" and name.startswith(("G/", "D/"))
        )  # fmt: skip
        return within(apart, RESUMED_APART, f"killed after step 30, resumed at {resumed[-1]}: weights differ by")

    def samples(self):
        """The same samples in two batch sizes."""
        return within(self._work("samples"), SAMPLES_APART, "batches of 3 and 16: pixels in [-1, 1] differ by")

    def features(self):
        """Inception's features on this device and on the CPU."""
        return within(self._work("features"), FEATURES_APART, "random weights, 8 images: features differ by")

    def _work(self, name):
        out = self.run(ROOT / "benchmarks" / "check_gpu.py", "--work", name, "--device", self.device)
        return json.loads(out.splitlines()[-1])

    def speed(self):
        """Images per second of SAGAN as published, 64 images a GPU."""
        if not self.is_gpu:
            raise Skipped("one step takes minutes on a CPU; docs/benchmarks.md has the speed of smaller ones")
        log = self.train("speed", *SAGAN, "--imsize", "128", "--batch_size", "64", "--total_step", "30")
        return f"{values(log)[-1]['images_per_second']:.4g} images per second on one GPU, 128 pixels, batch 64, float32"

    def all(self):
        """(title, check) of each check, in order."""
        return [
            ("alignment of the networks, float64", self.alignment),
            ("20 steps in float32", lambda: self.precision(None)),
            ("20 steps in bfloat16", lambda: self.precision("bf16")),
            ("20 steps in float16", lambda: self.precision("fp16")),
            ("all GPUs equal one, with --sync_bn", self.processes_agree),
            ("kill -9 and resume", self.kill_and_resume),
            ("samples at two batch sizes", self.samples),
            ("Inception features equal the CPU's", self.features),
            ("speed", self.speed),
        ]


def within(apart, most, text):
    """`text` with the difference `apart`. Raises Failure if it is more than `most`."""
    told = f"{text} {apart:.1e}" + (f", at most {most:.1e} allowed" if apart else "")
    if not apart <= most:
        raise Failure(told)
    return told


def values(log):
    """The metrics of each line of a training's log, as a list of {name: float}."""
    lines = re.findall(r" step \d+ (d_real .*)", log)
    if not lines:
        raise Failure("the training has logged nothing")
    return [{name: float(value) for name, value in re.findall(r"(\S+) (\S+)", line)} for line in lines]


def work(name, device):
    """Compare samples or features in a process of its own. Prints the largest difference."""
    import numpy as np

    from command.line import CommandLine

    p = CommandLine([*SMALL, "--device", device]).parameters()
    runtime.start(p)
    import paddle

    paddle.seed(0)
    rng = np.random.default_rng(0)
    if name == "samples":
        from networks import models_of

        generator = models_of(p).build_generator(p)
        generator.eval()
        z = paddle.to_tensor(rng.standard_normal((16, p.z_dim)).astype(np.float32))
        labels = paddle.arange(16) % p.num_classes
        with paddle.no_grad():
            whole = generator(z, labels).numpy()
            batches = [generator(z[i : i + 3], labels[i : i + 3]).numpy() for i in range(0, 16, 3)]
        apart = abs(np.concatenate(batches) - whole).max()
    else:
        from metrics.inception import Inception, Network
        from metrics.inception_weights import published_name

        weights = {published_name(key): tensor.numpy() for key, tensor in Network(["2048"]).state_dict().items()}
        images = rng.integers(256, size=(8, 3, 64, 64), dtype=np.uint8)
        here = Inception(weights).features(images)["2048"]
        paddle.set_device("cpu")
        there = Inception(weights, eager=True).features(images)["2048"]
        apart = abs(here - there).max() / abs(there).max()
    print(json.dumps(float(apart)))


def versions(device):
    """Lines on this machine: versions, processor, GPUs."""
    import numpy
    import paddle

    lines = [f"Python {platform.python_version()}, Paddle {paddle.__version__}, NumPy {numpy.__version__}"]
    lines[0] += f", {platform.platform()}, {os.cpu_count()} logical processors"
    if device != "cpu":
        cuda, cudnn = paddle.version.cuda(), paddle.version.cudnn()
        lines.append(f"CUDA {cuda}, cuDNN {cudnn}, compiled into Paddle")
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    commit = printed_by("git", "-C", ROOT, "rev-parse", "--short", "HEAD")
    return [
        *lines,
        *(printed_by(*query) or ["nvidia-smi finds no GPU"]),
        f"commit {commit[0] if commit else 'unknown'}",
    ]


def printed_by(*command):
    """The lines that a command prints; none if it is not installed or does not answer."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.split("\n")[:-1]
    except (OSError, subprocess.TimeoutExpired):
        return []


def write(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--processes", type=int, help="default: one for each visible GPU; on a CPU 1")
    parser.add_argument("--out", type=Path, default=Path("check-gpu.md"), metavar="FILE")
    parser.add_argument("--work", choices=["samples", "features"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.work, options.device)
    import paddle

    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if options.device == "gpu" and not gpus:
        sys.exit("check_gpu.py: no GPU is visible to Paddle: install a GPU build (make setup), or give --device cpu")
    begun, failed = time.monotonic(), 0
    page = ["# Check of this machine", "", *(f"- {line}" for line in versions(options.device)), ""]
    page += ["| check | result | |", "|---|---|---|"]
    print("\n".join(page), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(options.device, options.processes or max(gpus, 1), Path(folder))
        for title, check in checks.all():
            try:
                result, text = "pass", check()
            except Skipped as reason:
                result, text = "skipped", str(reason)
            except Exception as reason:  # the page says so, and the next check begins
                kind = "" if isinstance(reason, Failure) else f"{type(reason).__name__}: "
                result, text = "FAIL", kind + " ".join(str(reason).split())[-400:]
                failed += 1
            page.append(f"| {title} | {result} | {text.replace('|', '/')} |")
            print(page[-1], flush=True)
            write(options.out, page)  # after each check, so that an interrupted program leaves a page
    page += ["", f"{failed} failed, {time.monotonic() - begun:.0f} s"]
    print("\n".join(page[-2:]))
    write(options.out, page)
    print(f"written to {options.out}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
