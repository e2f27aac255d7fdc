"""Multiply-adds and bytes of each network and training step, and the time that this machine needs for them at least.

    python benchmarks/flops.py --torch_python /tmp/torch/bin/python

"As written" counts the layers of the papers: the networks of `torch_networks.py`, without running them. "As executed"
counts the operations that Paddle runs in one real step of ours. Both count matrix operations (convolutions and matrix
products) in multiply-adds, forward and backward. All other operations count in bytes that they read and write. In the
update of G, D's weights need no gradients on either side.

The floor is the time for the multiply-adds at the rate of a 2048³ matrix product, plus the time for the bytes at the
rate of a copy. Both rates are measured here. The last column is the floor of the executed operations, as a share of the
measured time.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import turns
from train_step import WORKS, parameters, random_batches, settings

COMPUTATIONS = ("G forward", "D forward", "step")
STEPS = 3  # timed
OPERATORS = ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "matmul", "neg", "ge", "gt", "eq")
WITHOUT_BYTES = ("reshape", "flatten", "squeeze", "unsqueeze")  # views of the same memory


class Count(NamedTuple):
    """Work of operations: multiply-adds of the matrix operations, bytes of the others."""

    multiply_adds: int
    bytes: int

    def __add__(self, other):
        return Count(self.multiply_adds + other.multiply_adds, self.bytes + other.bytes)

    def floor(self, rate, bandwidth):
        """Seconds at `rate` multiply-adds and `bandwidth` bytes a second."""
        return self.multiply_adds / rate + self.bytes / bandwidth


class PaddleCounter:
    """In this context, `count` adds up the work of Paddle's operations, and of the gradients that they will need."""

    def __enter__(self):
        import paddle
        from paddle import _C_ops

        self.count, self.tensor = Count(0, 0), paddle.Tensor
        names = [name for name in dir(_C_ops) if not name.startswith("_")]
        places = [(_C_ops, name) for name in names] + [(paddle.Tensor, f"__{name}__") for name in OPERATORS]
        self.before = [(*place, getattr(*place)) for place in places]
        for place, name, operation in self.before:
            setattr(place, name, self._counted(name.strip("_"), operation))
        return self

    def __exit__(self, *_):
        for place, name, operation in self.before:
            setattr(place, name, operation)

    def _counted(self, name, operation):
        def call(*arguments, **named):
            out = operation(*arguments, **named)
            inputs = self._tensors([*arguments, *named.values()])
            transposed = named.get("transpose_x", (*arguments, None, None, None)[2])
            self.count += work_of(name, inputs, self._tensors([out]), transposed is True)
            return out

        return call

    def _tensors(self, values):
        lists = (value if isinstance(value, (list, tuple)) else [value] for value in values)
        return [value for each in lists for value in each if isinstance(value, self.tensor)]


def work_of(name, inputs, outputs, transposed):
    """The `Count` of one of Paddle's operations, with that of the gradients of those inputs that need one.

    `transposed`: a matrix product transposes its first input.
    """
    if not outputs or name.startswith(WITHOUT_BYTES):
        return Count(0, 0)
    needed = [tensor for tensor in inputs if not tensor.stop_gradient] if not outputs[0].stop_gradient else []
    forward = matrix_work(name, inputs, outputs[0], transposed)
    if forward:
        return Count(forward * (1 + len([each for each in inputs[:2] if any(each is other for other in needed)])), 0)
    gradients = sum(size(tensor) + size(outputs[0]) for tensor in needed)  # each reads the output's, writes its own
    return Count(0, sum(map(size, inputs)) + sum(map(size, outputs)) + gradients)


def matrix_work(name, inputs, out, transposed):
    """Multiply-adds of a convolution or a matrix product; 0 for other operations and for products with a vector."""
    if "conv2d" in name:
        return (inputs[0] if "transpose" in name else out).size * math.prod(inputs[1].shape[1:])
    if name in ("linear", "matmul", "bmm") and min(len(each.shape) for each in inputs[:2]) > 1:
        return out.size * inputs[0].shape[-2 if transposed else -1]
    return 0


def size(tensor):
    return tensor.size * tensor.element_size()


def executed(values):
    """({computation: Count}, seconds of a step) of a work of ours."""
    p = parameters(turns.ROOT, {**values, "device": "cpu"})
    import runtime

    runtime.start(p)
    import paddle

    from trainer import Trainer

    trainer = Trainer(p)
    data = random_batches(p.batch_size, p.channels, p.imsize, p.num_classes)
    data = ((images, labels, len(labels)) for images, labels in data)
    counts = {}
    with PaddleCounter() as counter:
        trainer.train_step(data)
        counts["step"] = counter.count
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        trainer.train_step(data)
        seconds.append(time.perf_counter() - start)
    z, labels = paddle.randn([p.batch_size, p.z_dim]), paddle.zeros([p.batch_size], "int64")
    trainer.G.eval()
    trainer.D.eval()
    with paddle.no_grad():
        with PaddleCounter() as counter:
            images = trainer.G(z, labels)
        counts["G forward"] = counter.count
        with PaddleCounter() as counter:
            trainer.D(images, labels)
        counts["D forward"] = counter.count
    return counts, statistics.median(seconds)


def written(torch_python, values):
    """{computation: Count} of the same work in PyTorch, counted by its process."""
    command = [torch_python, __file__, "--count", json.dumps(settings(values))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"PyTorch does not run in {torch_python}; its own message is above")
    return {computation: Count(*count) for computation, count in json.loads(done.stdout).items()}


def count_in_torch(p):
    """Runs in PyTorch's process. Tensors on the device "meta" have shapes, but no numbers."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry
    from torch_networks import Training, networks

    class TorchCounter(TorchDispatchMode):
        count = Count(0, 0)

        def __torch_dispatch__(self, operation, _types, arguments=(), named=None):
            out = operation(*arguments, **(named or {}))
            packet = operation._overloadpacket
            if packet in flop_registry:
                operations = flop_registry[packet](*arguments, **(named or {}), out_val=out)
                self.count += Count(operations // 2, 0)
            elif not operation.is_view and packet.__name__ not in ("detach", "_unsafe_view", "empty", "empty_like"):
                tensors = [each for each in tree_leaves([arguments, named, out]) if isinstance(each, torch.Tensor)]
                self.count += Count(0, sum(tensor.numel() * tensor.element_size() for tensor in tensors))
            return out

    torch.set_default_device("meta")
    training = Training(p, *networks(p))
    n, z_dim, side = p["batch_size"], p["z_dim"], p["imsize"]
    images, labels = torch.zeros(n, p["channels"], side, side, dtype=torch.uint8), torch.zeros(n, dtype=torch.int64)
    with TorchCounter() as counter:
        training.update_d(images / 127.5 - 1, labels, torch.randn(n, z_dim), labels)
        training.D.requires_grad_(False)
        training.update_g(torch.randn(n, z_dim), labels)
    counts = {"step": counter.count}
    training.G.eval()
    training.D.eval()
    with torch.no_grad(), TorchCounter() as counter:
        images = training.G(torch.randn(n, z_dim), labels)
    counts["G forward"] = counter.count
    with torch.no_grad(), TorchCounter() as counter:
        training.D(images, labels)
    return counts | {"D forward": counter.count}


def machine_rates():
    """(multiply-adds a second of a matrix product, bytes a second of a copy), the best of several tries."""
    import numpy as np
    import paddle

    import runtime

    side, pages = 2048, 2**26
    matrix = paddle.randn([side, side])
    source, target = np.ones(pages, np.float32), np.empty(pages, np.float32)
    slices = [slice(start, start + pages // 8) for start in range(0, pages, pages // 8)]

    def copy(rows):
        np.copyto(target[rows], source[rows])

    def best(work):
        taken = []
        for _ in range(7):
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
        return min(taken)

    product = best(lambda: paddle.matmul(matrix, matrix).numpy())
    with ThreadPoolExecutor(runtime.threads()) as pool:
        copied = best(lambda: list(pool.map(copy, slices)))
    return side**3 / product, 2 * source.nbytes / copied  # read and written


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", nargs="*", help="names of works of train_step.py; left out: all")
    parser.add_argument("--torch_python", required=True, help="the Python of an environment with PyTorch")
    options = parser.parse_args()
    names = turns.chosen(parser, options, WORKS)
    turns.physical_cores()  # imports runtime, which sets the environment before Paddle loads
    rate, bandwidth = machine_rates()
    print(f"matrix product: {rate / 1e9:.0f} G multiply-adds/s; copy: {bandwidth / 1e9:.1f} GB/s read and written\n")
    print("| work | computation | G multiply-adds, written | executed | GB, written | executed ", end="")
    print("| floor, ms, written | executed | measured, ms | floor's share |\n|" + "---|" * 10, flush=True)
    for name in names:
        as_written = written(options.torch_python, WORKS[name])
        as_executed, seconds = executed(WORKS[name])
        for computation in COMPUTATIONS:
            counts = as_written[computation], as_executed[computation]
            floors = [count.floor(rate, bandwidth) for count in counts]
            cells = [f"{count.multiply_adds / 1e9:.2f}" for count in counts]
            cells += [f"{count.bytes / 1e9:.2f}" for count in counts] + [f"{1000 * floor:.0f}" for floor in floors]
            cells += [f"{1000 * seconds:.0f}", f"{floors[1] / seconds:.0%}"] if computation == "step" else ["", ""]
            print(f"| {name} | {computation} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--count"]:
        print(json.dumps(count_in_torch(json.loads(sys.argv[2]))))
    else:
        main()
