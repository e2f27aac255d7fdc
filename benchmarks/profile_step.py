"""Where the time of a training step goes: a table of Paddle's profiler.

    python benchmarks/profile_step.py sagan-32
    python benchmarks/profile_step.py sagan-32 --root DIR

The works are those of `train_step.py`. DIR is another checkout of this project. Times are added over all threads, so
their sum can be longer than the step.
"""

import argparse
import json
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

from train_step import WORKS, parameters, random_batches
from turns import ROOT


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", choices=WORKS, help="name of a work")
    parser.add_argument("--root", default=ROOT, metavar="DIR", help="another checkout of this project")
    parser.add_argument("--rows", type=int, default=14, help="rows of the table")
    options = parser.parse_args()
    p = parameters(options.root, WORKS[options.work] | {"device": "cpu"})
    import runtime  # before paddle

    runtime.start(p)
    import paddle.profiler

    from trainer import Trainer

    # Warm up, time a step, and profile the next one.
    trainer = Trainer(p)
    data = random_batches(p.batch_size, p.channels, p.imsize, p.num_classes)
    data = ((images, labels, len(labels)) for images, labels in data)
    for _ in range(3):
        started = time.perf_counter()
        trainer.train_step(data)
        seconds = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        profiler = paddle.profiler.Profiler(
            targets=[paddle.profiler.ProfilerTarget.CPU],
            on_trace_ready=paddle.profiler.export_chrome_tracing(folder),
        )
        profiler.start()
        trainer.train_step(data)
        profiler.stop()
        events = [event for path in Path(folder).iterdir() for event in json.loads(path.read_text())["traceEvents"]]

    # Add up the operations. Print them in the order of their time.
    milliseconds, calls = Counter(), Counter()
    for event in events:
        if event.get("cat") == "Operator":
            row = name_of(event["name"])
            milliseconds[row] += float(event["dur"]) / 1000
            calls[row] += 1
    total = sum(milliseconds.values())
    print(f"{options.work}: a step of {1000 * seconds:.0f} ms; {total:.0f} ms of operations on all threads\n")
    print("| operation | ms | share | calls |\n|---|---|---|---|")
    for row, time_taken in milliseconds.most_common(options.rows):
        print(f"| {row} | {time_taken:.0f} | {time_taken / total:.0%} | {calls[row]} |")


def name_of(event):
    """The operation of an event: "conv2d", or "conv2d, backward"."""
    name = event.split("[")[0].strip().removesuffix(" dygraph")
    if found := re.fullmatch(r"(?:Global_)?(?:GradNodePyLayer_+(\w+)|(\w+?)GradNode(?:Final)?)", name):
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", (found[1] or found[2]).replace("PyLayer", "")).lower()
        return f"{words.strip('_')}, backward"
    return name.rstrip("_")


if __name__ == "__main__":
    main()
