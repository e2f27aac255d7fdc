"""Images per second with one and two processes, and the share of communication in a SAGAN-128 step.

    python benchmarks/scaling.py

It starts itself on this machine's CPU by `python -m paddle.distributed.launch`. First it times steps of ACGAN for
CIFAR-10. Then it times SAGAN at 128 pixels, as published: steps with a small batch, and the all-reduces of the
gradients. From the bytes of the gradients it computes the time of a ring all-reduce over faster links. It uses no GPU.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import runtime  # before paddle
from processes import collectives

STEPS, SAGAN_STEPS, ALL_REDUCES = 12, 2, 5  # timed; one more before them is not
CIFAR10 = ["--recipe", "acgan-cifar10", "--dataset", "fake", "--num_classes", "10", "--batch_size", "25"]
SAGAN = ["--recipe", "sagan-imagenet", "--dataset", "fake", "--num_classes", "1000", "--batch_size", "4"]
GPUS, GPU_BATCH = 4, 64
LINKS = {"NVLink, 100 GB/s": 100e9, "PCIe 3.0 x16, 10 GB/s": 10e9, "10 Gb Ethernet, 1.1 GB/s": 1.1e9}
GPU_STEPS = (0.2, 0.7)  # seconds, assumed: 64 images take 6.8 TFLOP, at 40 and at 10 TFLOP/s


def launch(processes, threads, *work):
    """The measurements of `work` in `processes` processes of `threads` threads each. Rank 0 writes them as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"MKL_NUM_THREADS": str(threads), "FLAGS_paddle_num_threads": str(threads)}
        environment.pop("OMP_NUM_THREADS", None)
        command = ["-m", "paddle.distributed.launch", "--nproc_per_node", processes, "--log_dir", folder, __file__]
        command = [sys.executable, *map(str, [*command, Path(folder, "result.json"), *work])]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            sys.exit(done.stdout)
        return json.loads(Path(folder, "result.json").read_text())


def work():
    """Runs in a launched process: times steps or all-reduces of one training."""
    target, what, *options = sys.argv[1:]
    from command.line import CommandLine

    p = CommandLine([*options, "--device", "cpu"]).parameters()
    runtime.start(p)
    import paddle

    from dataset import batches, load_dataset
    from trainer import Trainer, resolve

    images = load_dataset(p)
    trainer = Trainer(resolve(p, images))
    if what == "steps":
        data = batches(images, p, 0, collectives.rank(), collectives.world_size())
        seconds = timed(lambda: trainer.train_step(data), SAGAN_STEPS if p.model == "sagan" else STEPS)
        result = {"seconds": seconds, "images": p.batch_size * collectives.world_size()}
    else:
        result = {}
        for name, network in (("D", trainer.D), ("G", trainer.G)):
            gradients = [paddle.ones_like(weight) for weight in network.parameters()]
            seconds = timed(lambda gradients=gradients: collectives.add_up(gradients), ALL_REDUCES)
            result[name] = {"bytes": 4 * sum(gradient.size for gradient in gradients), "seconds": seconds}
    if collectives.rank() == 0:
        Path(target).write_text(json.dumps(result))
    return 0


def timed(function, count):
    """The median seconds of `count` calls, after one call that is not counted."""
    times = []
    for _ in range(1 + count):
        collectives.meet()
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main():
    # ACGAN for CIFAR-10: one and two processes.
    print("ACGAN, 32 pixels, 25 images in each process: processes x threads, seconds a step, images per second")
    speeds = {}
    for processes, threads in ((1, 1), (1, 2), (2, 1)):
        found = launch(processes, threads, "steps", *CIFAR10)
        speeds[processes, threads] = found["images"] / found["seconds"]
        print(f"  {processes} x {threads}  {found['seconds']:.3f} s  {speeds[processes, threads]:.1f}", flush=True)
    print(f"  two processes are {speeds[2, 1] / speeds[1, 1]:.2f} times as fast as one process with one thread;")
    print(f"  one process with two threads is {speeds[1, 2] / speeds[1, 1]:.2f} times as fast")

    # SAGAN at 128 pixels: the share of communication here.
    step = launch(1, 1, "steps", *SAGAN)
    sums = launch(2, 1, "sums", *SAGAN)
    size = sum(each["bytes"] for each in sums.values())
    seconds = sum(each["seconds"] for each in sums.values())
    print(f"SAGAN-128: a step of {step['images']} images on one thread {step['seconds']:.1f} s")
    for name, each in sums.items():
        found = f"{each['bytes'] / 1e6:.1f} MB, {each['seconds']:.2f} s"
        print(f"  all-reduce of {name}'s gradients by two processes over gloo: {found}")
    whole = step["seconds"] * GPU_BATCH / step["images"]
    print(f"  {seconds / (step['seconds'] + seconds):.1%} of a step of {step['images']} images in each process,")
    print(f"  {seconds / (whole + seconds):.1%} of a step of {GPU_BATCH} images ({whole:.0f} s)")
    # The same over faster links, computed.
    moved = 2 * (GPUS - 1) / GPUS * size
    print(f"{GPUS} GPUs, {GPU_BATCH} images each: {moved / 1e6:.0f} MB sent and received by each in a step; share if")
    print(f"  the rest takes {' or '.join(f'{seconds} s' for seconds in GPU_STEPS)} (assumed; without overlap)")
    for name, bandwidth in LINKS.items():
        spent = moved / bandwidth
        shares = "  ".join(f"{spent / (spent + seconds):6.1%}" for seconds in GPU_STEPS)
        print(f"  {name:26} {1000 * spent:6.1f} ms  {shares}")


if __name__ == "__main__":
    if "PADDLE_TRAINER_ID" in os.environ:
        runtime.run(work)
    main()
