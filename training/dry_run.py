"""`train.py --dry_run`: time some steps, and report the needs of the whole run."""

import io
import math
import time
from typing import NamedTuple

import numpy as np
import paddle
from PIL import Image

import runtime
from pictures import ROWS, grid
from processes import collectives
from training.health import layer_figures
from utils import plural, progress

WARM_UP, TIMED = 3, 20  # steps at most: the first ones are slower, so they are not timed
PATIENCE = 60  # seconds for the timed steps, or one step if it takes longer
MORE_PROCESSES = (2, 4, 8)  # times as many
FIGURE = 64  # bytes of one figure in VisualDL's records and log.txt
NETWORK = 1.25e9  # bytes in a second: 10 Gbit/s


class Measured(NamedTuple):
    """The measured needs of one process."""

    warm_up: int  # steps before the timed ones
    timed: int  # steps
    step: float  # seconds of a step
    wait: float  # seconds of it that the step waits for data
    picture: float  # seconds to draw the samples of a picture
    picture_size: int  # bytes of the picture in all files of the run
    checkpoint_size: int  # bytes
    exchanged: int  # bytes of the gradients that a step would exchange with other processes
    figures: int  # number of figures that VisualDL gets for a line of the log
    layer_figures: int  # the same for a picture
    memory: int | None  # the most bytes that a process used: of its GPU, or of main memory


def measure(trainer, image_set):
    """Train at most WARM_UP + TIMED steps on `image_set`, and draw a picture. Returns `Measured`; writes no run."""
    p, data = trainer.parameters, trainer.data(image_set)

    def seconds_of(steps):
        """Train `steps` steps. Returns the seconds that they take."""
        begun = time.monotonic()
        for _ in range(steps):
            metrics.update(trainer.train_step(data))
            bar.update(1)
        _finish_device_work()
        return time.monotonic() - begun

    metrics = {}
    with progress(total=WARM_UP + TIMED, title="dry run", unit="step", shown=collectives.rank() == 0) as bar:
        # The first step shows how many steps there is time for. All processes take the same number.
        first = seconds_of(1)
        timed = collectives.on_rank_0(lambda: min(TIMED, max(1, int(PATIENCE / first))))
        warm_up = min(WARM_UP, timed)
        bar.total = warm_up + timed
        seconds_of(warm_up - 1)
        data.waited()
        step, wait = seconds_of(timed) / timed, data.waited() / timed
    begun = time.monotonic()
    for generator in filter(None, (trainer.G_ema, trainer.G)):  # training draws both: one to show, one to check
        samples = trainer.sample_grid(generator)
    picture = grid(samples, [""] * min(p.num_classes, ROWS))
    picture_seconds = time.monotonic() - begun
    sizes = [sum(weight.size for weight in network.parameters()) for network in (trainer.D, trainer.G)]
    return Measured(
        warm_up,
        timed,
        step,
        wait,
        picture_seconds,
        _picture_size(picture),
        sum(array.nbytes for arrays in trainer.state().values() for array in arrays.values()),
        4 * int(np.dot(sizes, [p.d_steps_per_iter, p.g_steps_per_iter])),
        len(metrics) + 9,
        len(layer_figures({"G": trainer.G, "D": trainer.D})) + 1,
        max(collectives.gather(runtime.peak_memory() or 0)) or None,
    )


def report(p, measured, processes):
    """The lines about a run with the `Parameters` `p` in `processes` processes, of which one was `measured`."""
    m, steps = measured, p.total_step
    pictures, logs = math.ceil(steps / p.sample_step), steps // p.log_step
    saved = math.ceil(steps / p.model_save_step)
    checkpoints = min(saved, p.keep_checkpoints or saved) + bool(p.eval_step)
    disk = checkpoints * m.checkpoint_size + pictures * m.picture_size
    disk += FIGURE * (logs * m.figures + pictures * m.layer_figures)
    seconds = steps * m.step + pictures * m.picture
    images = p.batch_size * p.d_steps_per_iter * processes  # in a step

    rows = {
        "seconds per step": f"{m.step:.3g}, of which {m.wait:.2g} wait for data",
        "images per second": f"{images / m.step:.4g}",
        "peak memory": f"{_size(m.memory)} of {_place()}{' in each process' * (processes > 1)}"
        if m.memory
        else "unknown",
        "time": f"{_duration(seconds)} for {plural(steps, 'step')} and {plural(pictures, 'picture')}"
        + ", without the measurements of --eval_step" * bool(p.eval_step),
        "disk": f"{_size(disk)}, with {plural(checkpoints, 'checkpoint')} of {_size(m.checkpoint_size)}",
    }
    yield f"timed {plural(m.timed, 'step')} after {plural(m.warm_up, 'other')}; no run was written"
    yield from (f"{name:19} {value}" for name, value in rows.items())
    yield "with more processes, each on a device of its own, by arithmetic:"
    columns = ("processes", "images in a step", "images per second", "all steps", "as many images")
    table = [
        (factor * processes, factor * images, f"{factor * images / m.step:.4g}", _duration(seconds),
         _duration(seconds / factor))
        for factor in MORE_PROCESSES
    ]  # fmt: skip
    yield from ("".join(f"{cell:>19}" for cell in row) for row in (columns, *table))
    exchange = f"{_size(m.exchanged)} of gradients, at 10 Gbit/s in up to {2 * m.exchanged / NETWORK:.2g} s"
    yield f"not counted: each step exchanges {exchange}"


def _finish_device_work():
    if paddle.get_device() != "cpu":
        paddle.device.synchronize()


def _picture_size(picture):
    """Bytes of a picture, uint8 [H, W, 1 or 3], as PNG, in VisualDL's records and in the animation."""
    import cv2  # as VisualDL does; its PNGs are larger than Pillow's

    file = io.BytesIO()
    Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(file, "PNG")
    record = cv2.imencode(".png", np.broadcast_to(picture, (*picture.shape[:2], 3)))[1]
    return len(record) + 2 * file.tell()  # a frame of the animation is about as large as the PNG


def _place():
    return "main memory" if paddle.get_device() == "cpu" else "the GPU"


def _size(count):
    """A number of bytes in words, such as 4.8 MiB."""
    power = 1 if count < 1000 * 2**10 else 2 if count < 1000 * 2**20 else 3
    return f"{count / 1024**power:.3g} {('KiB', 'MiB', 'GiB')[power - 1]}"


def _duration(seconds):
    """A time in words: 12 s, 3 min 20 s, 5 h 12 min, 40 days."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.2g} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 72 * 60 else f"{minutes / 1440:.0f} days"
