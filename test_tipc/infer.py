"""Draw images with Paddle Inference from a model that export.py wrote, as Paddle's TIPC scripts ask for it.

It needs paddle and numpy alone: `python test_tipc/infer.py --model_dir=DIR --use_gpu=False --batch_size=8`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

RUNS, WARM_UP = 10, 2
BOOL = {"True": True, "False": False}.__getitem__


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", type=Path, required=True, help="the folder that export.py wrote")
    parser.add_argument("--use_gpu", type=BOOL, default=False, metavar="True|False")
    parser.add_argument("--use_mkldnn", type=BOOL, default=True, metavar="True|False", help="oneDNN, on a CPU")
    parser.add_argument("--cpu_threads", type=int, default=1)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--use_tensorrt", type=BOOL, default=False, metavar="False", help="not supported")
    parser.add_argument("--precision", choices=["fp32"], default="fp32")
    parser.add_argument("--benchmark", type=BOOL, default=False, metavar="True|False", help="print the time of a batch")
    options = parser.parse_args()
    folder = options.model_dir
    if not (folder / "config.json").is_file() or not any(path.is_file() for path in programs(folder)):
        parser.exit(2, f"infer.py: --model_dir {folder} has no exported model: give the folder that export.py wrote\n")
    return options


def programs(folder):
    """The paths that Paddle 3 and Paddle 2 give to an exported model's program."""
    return [folder / "paddle" / name for name in ("model.json", "model.pdmodel")]


def predictor(options):
    import paddle.inference  # here, because it is slow

    program = next(path for path in programs(options.model_dir) if path.is_file())
    config = paddle.inference.Config(str(program), str(program.with_suffix(".pdiparams")))
    if options.use_gpu:
        config.enable_use_gpu(1000, 0)
    else:
        config.disable_gpu()
        config.set_cpu_math_library_num_threads(options.cpu_threads)
        if options.use_mkldnn:
            config.enable_mkldnn()
        elif hasattr(config, "disable_mkldnn"):  # Paddle 3 uses oneDNN unasked
            config.disable_mkldnn()
    return paddle.inference.create_predictor(config)


def main():
    options = arguments()
    model, config = predictor(options), json.loads((options.model_dir / "config.json").read_text(encoding="utf-8"))
    z = np.random.default_rng(0).standard_normal((options.batch_size, config["z_dim"]), np.float32)
    labels = np.arange(options.batch_size, dtype=np.int64) % config["num_classes"]
    sources = [(model.get_input_handle(name), array) for name, array in (("z", z), ("labels", labels))]
    seconds = []
    for _ in range(WARM_UP + RUNS):
        begun = time.perf_counter()
        for source, array in sources:
            source.reshape(array.shape)
            source.copy_from_cpu(array)
        model.run()
        images = model.get_output_handle(model.get_output_names()[0]).copy_to_cpu()
        seconds.append(time.perf_counter() - begun)
    if not np.isfinite(images).all():
        raise SystemExit("an image is not finite")
    print(f"images {list(images.shape)} from {images.min():.4f} to {images.max():.4f}")
    if options.benchmark:
        print(
            f"milliseconds a batch of {options.batch_size}, median of {RUNS}: {1000 * np.median(seconds[WARM_UP:]):.3f}"
        )


main()
