"""Time and memory of drawing 32 images, beside PyTorch's on the same generator.

    python benchmarks/sample.py --torch_python /tmp/torch/bin/python

Ours is `sampler.generate`: two batches of 16 with their noise, in evaluation mode, to uint8. PyTorch does the same
under `no_grad`. The processes take turns (`turns.py`), as in `train_step.py`.
"""

import json
import sys

import turns
from train_step import parameters, sagan, settings

BATCH, BATCHES = 16, 2
WORKS = {
    "sagan-128-w32": sagan(128, 32, 1000, BATCH),
    "acgan-imagenet": {"recipe": "acgan-imagenet", "batch_size": BATCH},
}


def main():
    parser = turns.arguments(__doc__.split("\n")[0])
    options = parser.parse_args()
    table = turns.Table(options.markdown, options.ours_before)
    for name in turns.chosen(parser, options, WORKS):
        sides = turns.sides_of(__file__, options, WORKS[name], settings(WORKS[name]))
        table.add(name, sides, turns.measure(sides, options.turns, options.seconds, options.load))


def our_samples(root, values):
    """Runs in our process. `root`: the folder of the project to import."""
    p = parameters(root, {**values, "device": "cpu"})
    import runtime  # before paddle

    runtime.start(p)
    import numpy as np

    import sampler
    from networks import models_of

    yield
    generator = models_of(p).build_generator(p)
    generator.eval()
    indices = np.arange(BATCH * BATCHES)
    if hasattr(sampler, "snapshot"):  # an older checkout has none
        generator = sampler.snapshot(generator, p)
    while True:
        sampler.generate(generator, p, indices, indices % p.num_classes)
        yield
        indices += BATCH * BATCHES


def torch_samples(p, threads):
    """Runs in PyTorch's process."""
    import torch
    from torch_networks import networks

    torch.set_num_threads(threads)
    yield
    generator, _ = networks(p)
    generator.eval()
    while True:
        with torch.no_grad():
            for _ in range(BATCHES):
                images = generator(torch.randn(BATCH, p["z_dim"]), torch.randint(p["num_classes"], (BATCH,)))
                ((images + 1) * 127.5).round().clip(0, 255).to(torch.uint8).numpy()
        yield


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        turns.serve(our_samples(sys.argv[2], json.loads(sys.argv[3])))
    elif sys.argv[1:2] == ["--serve_torch"]:
        turns.serve(torch_samples(json.loads(sys.argv[2]), int(sys.argv[3])))
    else:
        main()
