"""Time and memory of a training step, beside PyTorch's on the same networks.

    python -m venv /tmp/torch && /tmp/torch/bin/pip install torch numpy
    python benchmarks/train_step.py --torch_python /tmp/torch/bin/python
    python benchmarks/train_step.py --torch_python /tmp/torch/bin/python acgan-mnist --load 2

Ours is `Trainer.train_step`, PyTorch's is `torch_networks.Training.step`: one update of D and one of G in float32, on
random uint8 images. The processes take turns (`turns.py`). "Memory kept" is PyTorch with a setting of the C library's
allocator: it keeps freed memory.
"""

import dataclasses
import json
import sys

import turns


def sagan(imsize, width, classes, batch):
    """Values of the options of train.py for SAGAN."""
    sizes = {"imsize": imsize, "attention_size": min(32, imsize // 2), "g_conv_dim": width, "d_conv_dim": width}
    return {"recipe": "sagan-imagenet", **sizes, "num_classes": classes, "batch_size": batch}


WORKS = {  # {name: values of the options of train.py}
    "sagan-128-w64": sagan(128, 64, 1000, 8),
    "sagan-128-w32": sagan(128, 32, 1000, 16),
    "sagan-32": sagan(32, 64, 10, 64),
    "acgan-imagenet": {"recipe": "acgan-imagenet", "batch_size": 16},
    "acgan-mnist": {"recipe": "acgan-mnist", "num_classes": 10, "batch_size": 64},
    "acgan-cifar10": {"recipe": "acgan-cifar10", "batch_size": 100},
    "acgan-digits": {"recipe": "acgan-digits", "num_classes": 10, "batch_size": 64},  # `make demo`
}


def main():
    parser = turns.arguments(__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, help="images in a step, instead of the work's")
    parser.add_argument("--imsize", type=int, help="side of SAGAN's images in pixels: 32, 64, 128 or 256")
    parser.add_argument("--width", type=int, help="base number of channels of both networks")
    parser.add_argument("--classes", type=int, help="number of classes of SAGAN")
    parser.add_argument("--recompute", action="store_true", help="ours computes SAGAN's blocks again, to save memory")
    options = parser.parse_args()
    changes = {
        "batch_size": options.batch,
        "imsize": options.imsize,
        "attention_size": options.imsize and min(32, options.imsize // 2),
        "g_conv_dim": options.width,
        "d_conv_dim": options.width,
        "num_classes": options.classes,
        "recompute": options.recompute,
    }
    changes = {name: value for name, value in changes.items() if value}
    table = turns.Table(options.markdown, options.ours_before)
    for name in turns.chosen(parser, options, WORKS):
        values = WORKS[name] | changes
        sides = turns.sides_of(__file__, options, values, settings(values))
        table.add(name, sides, turns.measure(sides, options.turns, options.seconds, options.load))


def settings(values):
    """All options of a work as `torch_networks` takes them."""
    p = parameters(turns.ROOT, values)
    return dataclasses.asdict(p) | {"channels": p.channels}


def parameters(root, values):
    """The `Parameters` of the project in the folder `root`: its recipe, changed by `values`."""
    sys.path.insert(0, str(root))
    from parameters import from_values, read_recipe

    return from_values(read_recipe(values["recipe"]) | values, "the benchmark")


def our_steps(root, values):
    """Runs in our process. `root`: the folder of the project to import."""
    p = parameters(root, {**values, "device": "cpu"})
    import runtime  # before paddle

    runtime.start(p)
    from trainer import Trainer

    yield
    trainer = Trainer(p)
    data = random_batches(p.batch_size, p.channels, p.imsize, p.num_classes)
    data = ((images, labels, len(labels)) for images, labels in data)
    while True:
        trainer.train_step(data)
        yield


def torch_steps(p, threads):
    """Runs in PyTorch's process."""
    import torch
    from torch_networks import Training, networks

    torch.set_num_threads(threads)
    yield
    training = Training(p, *networks(p))
    training.G.train()
    training.D.train()
    for images, labels in random_batches(p["batch_size"], p["channels"], p["imsize"], p["num_classes"]):
        training.step(torch.from_numpy(images), torch.from_numpy(labels))
        yield


def random_batches(batch, channels, size, classes):
    """Endless (uint8 images [N, C, H, W], int64 labels [N])."""
    import numpy as np

    numbers = np.random.default_rng(0)
    while True:
        images = numbers.integers(256, size=(batch, channels, size, size), dtype=np.uint8)
        yield images, numbers.integers(classes, size=batch)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        turns.serve(our_steps(sys.argv[2], json.loads(sys.argv[3])))
    elif sys.argv[1:2] == ["--serve_torch"]:
        turns.serve(torch_steps(json.loads(sys.argv[2]), int(sys.argv[3])))
    else:
        main()
