"""Training steps of one or more processes, for tests.

Run it as `python -m paddle.distributed.launch tests/processes/training_steps.py FOLDER`.
FOLDER/cases.json holds cases by name; each process writes its results as FOLDER/NAME-RANK.npz.
"""

import runtime  # noqa: I001, before paddle: it sets the threads
from processes import collectives
from processes.blocks import blocks
from processes.groups import Alone, Processes

import dataclasses
import json
import sys
import types
from pathlib import Path

import numpy as np
import paddle
import paddle.distributed

from alignment.networks import precision
from dataset import batches, load_dataset
from layers import BatchNorm, training_on_block
from parameters import Parameters
from trainer import Trainer, resolve
from utils import UserError

SMALL = {
    "sagan": {"dataset": "fake", "num_classes": 5, "imsize": 32, "attention_size": 16, "beta1": 0.0, "beta2": 0.9},
    "acgan-digits": {"dataset": "digits", "imsize": 16, "adv_loss": "dcgan", "beta1": 0.5, "beta2": 0.999},
}


def run(case):
    """Train as `case` says; returns arrays by name: "metric/NAME" [steps], and "PART/NAME" after the last step.

    `case`: option values by name (`global_batch_size` is shared out between the processes); `steps`; `dtype`; `rounds`
    of gradient accumulation; `trainer`: Trainer, or a class of this module; `first`: the batch to start from.
    """
    options = {"model": "sagan", "z_dim": 20, "g_conv_dim": 4, "d_conv_dim": 4, "device": "cpu", "ema_decay": 0.9}
    options |= SMALL[case.get("model", "sagan")] | case
    steps, rounds, first = options.pop("steps"), options.pop("rounds", 1), options.pop("first", 0)
    dtype, trainer = options.pop("dtype", "float64"), globals()[options.pop("trainer", "Trainer")]
    share = options["global_batch_size"] // collectives.world_size()
    p = dataclasses.replace(Parameters(), **options, batch_size=share, batch_size_in_gpu=share // rounds)
    with precision(dtype):
        images = load_dataset(p)
        trainer = trainer(resolve(p, images))
        data = batches(images, p, first, collectives.rank(), collectives.world_size())
        log = [trainer._read_metrics(trainer.train_step(data)) for _ in range(steps)]
    results = {f"metric/{name}": np.array([metrics[name] for metrics in log]) for name in log[0]}
    return results | {
        f"{part}/{name}": array for part, arrays in trainer.state().items() for name, array in arrays.items()
    }


class Permuted(Trainer):
    """The same training with the rows of every batch in another order. Only rounding differs."""

    def update_discriminator(self, batch):
        return super().update_discriminator(_permuted(batch))

    def update_generator(self, batch):
        return super().update_generator(_permuted(batch))


class Poisoned(Trainer):
    """The losses of the last process, and only of it, are NaN."""

    def update_generator(self, batch):
        metrics = super().update_generator(batch)
        wrong = float("nan") if collectives.rank() == collectives.world_size() - 1 else 1
        return {name: value * wrong for name, value in metrics.items()}


def _permuted(batch):
    order = paddle.to_tensor(np.random.default_rng(0).permutation(len(batch.z)))
    return type(batch)(*(value[order] if isinstance(value, paddle.Tensor) else value for value in batch))


def batch_norm_results(images, dtype):
    """Batch norm on this process's rows of `images` images: output, gradients, running statistics."""
    rng = np.random.default_rng(0)
    x, direction = rng.normal(3, 0.5, (images, 4, 64, 64)), rng.standard_normal((images, 4, 64, 64))
    (block,) = blocks(images, 1, collectives.rank(), collectives.world_size())
    with precision(dtype):
        norm = BatchNorm(4)
        x, direction = (paddle.to_tensor(array[block.rows].astype(dtype)) for array in (x, direction))
        x.stop_gradient = False
        group = Processes(block) if collectives.world_size() > 1 else Alone()
        with training_on_block([paddle.nn.Sequential(norm)], block, group):
            out = norm(x)
        (out * direction).sum().backward()
        collectives.add_up([norm.weight.grad, norm.bias.grad])
    results = {"out": out, "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    return {name: tensor.numpy() for name, tensor in (results | norm.state_dict()).items()}


def main(folder):
    runtime.start(types.SimpleNamespace(device="cpu", threads=None))
    calls, all_reduce = [], paddle.distributed.all_reduce

    def counted(tensor, *args, **options):
        calls.append(tensor)
        return all_reduce(tensor, *args, **options)

    paddle.distributed.all_reduce = counted
    for name, case in json.loads((folder / "cases.json").read_text()).items():
        calls.clear()
        try:
            results = batch_norm_results(**case) if "images" in case else run(case)
        except UserError as error:
            results = {"error": str(error)}
        np.savez(folder / f"{name}-{collectives.rank()}.npz", calls=len(calls), **results)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
