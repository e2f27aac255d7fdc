"""The folder of a run: checkpoints, log.txt, VisualDL records, sample grids; and the progress bar."""

import contextlib
import dataclasses
import itertools
import math
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

import checkpoint
import pictures
import runtime
import system
from metrics.diversity import class_distance
from parameters import changed_options
from processes import collectives
from training.collapse import ADVICE
from training.visual_records import RECORDS, TAGS, VisualRecords
from utils import (
    LOCK_FILE,
    RUN_FILE,
    Pace,
    UserError,
    atomic_path,
    lock,
    naming,
    plural,
    printable,
    remove_leftovers,
    run_numbers,
    shell_word,
    so_far,
)

LOG = "log.txt"


class RunFolder:
    """The folder of one run and the records in it. Only rank 0 writes.

    A new run creates `save_path/name`, or `save_path/RECIPE-NUMBER` with the next free number. Only a resumed run uses
    an existing folder, and only one run at a time uses a folder. Raises UserError for a folder that cannot be used.
    """

    def __init__(self, parameters):
        self.parameters = p = parameters
        self.writes = collectives.rank() == 0
        self._lock = self._records = self._bar = self._writing = self._measured = None
        self._shown, self._lines = "", []  # the metrics and other lines of this step, printed by `advance`
        self.notes = {}  # plain values by name that each checkpoint keeps for the run's resume
        self.real_distance = math.nan  # mean distance of two real images of a class, from `begin` on, on rank 0
        self.path = Path(collectives.on_rank_0(self._claim))
        self.weights = self.path / p.model_weights_dir
        self.images = self.path / p.sample_images_dir
        self._thread = ThreadPoolExecutor(1)

    def _claim(self):
        path = _choose_folder(self.parameters)
        self._lock = _lock(path)
        for folder in (path, path / self.parameters.model_weights_dir, path / self.parameters.sample_images_dir):
            remove_leftovers(folder)
        return str(path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._wait()
        finally:
            self._thread.shutdown()
            if self._bar is not None:
                self._bar.close()
            if self._records:
                self._records.close()
            if self._lock:
                self._lock.close()

    def begin(self, start, image_set):
        """Write the parameters and a grid of real images; open the records for the steps after the `Start` `start`.

        A resumed run trains the steps after its checkpoint again, so the records are truncated to that step. Changed
        parameters are logged.
        """
        if not self.writes:
            return
        p, step = self.parameters, start.step
        notes = start.checkpoint.notes if start.is_own else dict.fromkeys((LOG, RECORDS), 0)
        self._class_names, self._data = image_set.class_names, image_set.fingerprint()
        self._images = len(image_set)
        real_grid = self._real_grid(image_set)  # before anything is written: too many broken images are refused here
        with atomic_path(self.path / RUN_FILE) as temporary:  # first, because this file marks a run's folder
            temporary.write_text(p.to_yaml(), encoding="utf-8")
        self.weights.mkdir(exist_ok=True)
        self.images.mkdir(exist_ok=True)
        for name in (LOG, RECORDS):
            _truncate(self.path / name, notes.get(name))
        pictures.save_image(self.images / "real.png", real_grid)
        self._records = VisualRecords(self.path, p, real_grid)
        processes = collectives.world_size()
        whole = f" in each of {processes} processes, {p.batch_size * processes} in all" if processes > 1 else ""
        begun = "resumed" if start.is_own else "started"
        if start.checkpoint and not start.is_own:
            begun += f" from {printable(str(start.checkpoint.path), None)}"
        size = f"{len(image_set)} images, {p.batch_size} a step{whole}"
        self._write_line(f"{begun} at step {step} of {p.total_step}: {size}, {plural(runtime.threads(), 'thread')}")
        if start.is_own:
            self._point_latest_to(start.checkpoint.path)
            for name, (old, new) in changed_options(start.checkpoint.parameters, dataclasses.asdict(p)).items():
                self._write_line(f"changed --{name} from {old} to {new}")
            if notes.get("threads") not in (None, runtime.threads()):
                line = f"{notes['threads']} threads before, {runtime.threads()} now: the last digits may differ"
                self._write_line(line)
                collectives.say(line)
            if changed := _changed_data(notes.get("data"), self._data):
                self._write_line(f"the data have changed: {changed}")
                collectives.say(f"the data have changed: {changed}")
        collectives.say(f"writes to {self.path}; to watch: visualdl --logdir {shell_word(self.path)}")
        if sys.stderr.isatty():
            self._bar = tqdm(total=p.total_step, initial=step, unit="step", dynamic_ncols=True)
        self._pace, self._begun = Pace(), (step, time.monotonic())
        self._logged = self._begun

    def _real_grid(self, image_set):
        """A picture of real images, uint8 [H, W, C], with one row for each of the first classes."""
        shown = range(min(image_set.num_classes, pictures.ROWS))
        self._row_names = pictures.row_names(image_set.class_names, shown)
        if numbered := pictures.numbered_names(image_set.class_names, shown):
            collectives.say(f"pictures show these class names as numbers: {numbered}")
        images, missing = _real_images(image_set, shown)
        rows = np.arange(len(images)) // pictures.COLUMNS
        self.real_distance = class_distance(images[~missing], rows[~missing])["class_distance"]
        return pictures.grid(images, self._row_names)

    def advance(self, step):
        """Show that `step` is done. All output of a step is printed here, after its records are complete.

        Without a terminal it prints a line from time to time. Raises the error if writing a checkpoint has failed.
        Raises BrokenPipeError if the reader of the output has gone.
        """
        if not self.writes:
            return
        if self._writing and self._writing.done():
            self._wait()
        lines, shown = self._lines, self._shown
        self._lines, self._shown = [], ""
        for line in lines:
            tqdm.write(line)
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        elif self._pace.is_due():
            line = f"step {so_far(step, self.parameters.total_step, *self._begun)}"
            print(f"{line}: {shown}" if shown else line, file=sys.stderr, flush=True)

    def log(self, step, metrics, waited):
        """Show `metrics`, floats by name, on the bar, and record them in log.txt and in VisualDL.

        `waited`: the seconds that the steps since the last line have waited for data.
        """
        if not self.writes:
            return
        p, (last_step, last_time), now = self.parameters, self._logged, time.monotonic()
        batch = p.batch_size * p.d_steps_per_iter * collectives.world_size()
        metrics = metrics | {"images_per_second": (step - last_step) * batch / (now - last_time)}
        metrics |= {"data_wait": waited / (step - last_step)}
        self._logged = (step, now)
        shown = {name: f"{value:.4g}" for name, value in metrics.items()}
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
        if p.tipc_log:
            self._lines.append(_tipc_line(step, step * batch // self._images, metrics, batch))
        self._shown = " ".join(f"{name} {value}" for name, value in shown.items())
        self._write_line(f"step {step} {self._shown}")
        self.chart(step, {TAGS[name]: metrics[name] for name in sorted(metrics, key=list(TAGS).index)})

    def chart(self, step, figures):
        """Record `figures`, {tag: float}, in VisualDL. Values that are not finite are left out."""
        if self.writes:
            self._records.add_figures(step, figures)

    def log_health(self, step, figures):
        """Write `figures`, {VisualDL's tag: float}, to log.txt. Only rank 0 may call this."""
        names = (tag.removeprefix("health/").removeprefix("speed/").replace(" ", "_") for tag in figures)
        pairs = zip(names, figures.values(), strict=True)
        self._write_line(f"health at step {step}: {' '.join(f'{name} {value:.4g}' for name, value in pairs)}")

    def log_figures(self, step, figures, seconds):
        """Record the `figures`, floats by name, of a measurement that took `seconds`, in log.txt and in VisualDL."""
        if not self.writes:
            return
        self._logged = (self._logged[0], self._logged[1] + seconds)  # the training speed does not include this time
        shown = " ".join(f"{name} {value:.6g}" for name, value in figures.items())
        self.tell(f"measured at step {step}: {shown}")
        self._records.add_figures(step, {f"scores/{name}": value for name, value in figures.items()})
        self._measured = step

    def tell(self, line):
        """Write a line to log.txt, and print it when the step is complete. Only rank 0 may call this."""
        self._write_line(line)
        self._lines.append(line)

    def write_samples(self, step, samples):
        """Write a grid of `samples`, as `sampler.grid_samples` returns, as PNG and in VisualDL. Only rank 0 may."""
        grid = pictures.grid(samples, self._row_names)
        pictures.save_image(self.images / f"step-{step:08d}.png", grid)
        self._records.add_picture(step, "samples/generated", grid)

    def save(self, step, state):
        """Write a checkpoint of `state()`, which returns {part: {name: NumPy array}}. A thread writes the file.

        The thread then points `weights/latest` to it, and removes the oldest checkpoints beyond `keep_checkpoints`. It
        fails if the disk is full or a value is not finite. Then the next call of `advance`, `save` or `save_best`, or
        the end of the run, raises UserError.
        """
        if self.writes:
            self._start_writing(self.weights / f"step-{step:08d}.safetensors", step, state, {})

    def save_best(self, step, score, key, state):
        """Write `weights/best.safetensors`, as `save` does, if `score` is higher than all earlier scores.

        Only scores with the same `key`, a text, are comparable. If the key has changed, earlier scores are ignored.
        """
        if not self.writes:
            return
        self._wait()  # the thread may still be writing the last best
        path = self.weights / checkpoint.BEST
        best, best_key = checkpoint.best_score(path)
        if best_key not in (None, key):
            self._write_line(f"{path.name} was measured in another way: the best is chosen anew")
            best = -math.inf
        if score > best:
            self._start_writing(path, step, state, {"score": score, "score_key": key})

    def _start_writing(self, path, step, state, notes):
        self._wait()
        self._records.flush()
        records = [self.path / name for name in (LOG, RECORDS)]
        notes |= {path.name: path.stat().st_size for path in records if path.exists()}
        notes |= {"whole_batch": self.parameters.batch_size * collectives.world_size(), "measured": self._measured}
        notes |= {"data": self._data, "threads": runtime.threads()} | self.notes
        self._writing = self._thread.submit(self._write, path, step, state(), notes)

    def _write(self, path, step, parts, notes):
        for part, arrays in parts.items():
            for name, array in arrays.items():
                if not np.isfinite(array).all():
                    raise diverged(f"{part}/{name}", "not finite", step)
        try:
            checkpoint.save(path, step, dataclasses.asdict(self.parameters), parts, notes, self._class_names)
        except checkpoint.HeaderTooLong:
            raise
        except UserError as error:
            raise UserError(f"{error}; make room there, then --resume goes on from the checkpoint before") from None
        if path.name != checkpoint.BEST:
            self._point_latest_to(path)
            self._remove_old(path)

    def _remove_old(self, newest):
        if keep := self.parameters.keep_checkpoints:
            files = [file for file in checkpoint.step_files(self.weights) if file <= newest]
            for old in files[:-keep]:
                old.unlink(missing_ok=True)

    def _point_latest_to(self, path):
        """Make the symbolic link `weights/latest` point to `path`, a checkpoint that is already on the disk."""
        temporary = self.weights / ".tmp-latest"  # a killed program may have left it
        temporary.unlink(missing_ok=True)
        if system.link(path.name, temporary):
            system.replace(temporary, self.weights / "latest")

    def finish(self):
        """Wait, on every process, until all is on the disk. A launcher ends all processes when the first one exits."""
        self._wait()
        collectives.meet()

    def _wait(self):
        """Wait until the checkpoint that is being written is on the disk. Raises the error if writing failed."""
        if self._writing:
            writing, self._writing = self._writing, None
            writing.result()

    def _write_line(self, line):
        path = self.path / LOG
        with naming(path), open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def write_animation(self):
        """Write all sample grids as samples-1.gif, samples-2.gif, …, each with up to `max_frames_per_gif` pictures."""
        if not self.writes:
            return
        grids, most = sorted(self.images.glob("step-*.png")), self.parameters.max_frames_per_gif
        for number, start in enumerate(range(0, len(grids), most), start=1):
            path = self.images / f"samples-{number}.gif"
            pictures.save_animation(path, grids[start : start + most], self._row_names, self.parameters.imsize)


def _choose_folder(parameters):
    """The folder of the run to resume, or else a new folder."""
    p = parameters
    try:
        os.makedirs(p.save_path, exist_ok=True)
        return _make_named_folder(p) if p.name else _make_numbered_folder(p)
    except OSError as error:
        raise UserError(f"--save_path {p.save_path}: {error.filename} cannot be made: {error.strerror}") from None


def _make_named_folder(p):
    path = Path(p.save_path, p.name)
    if p.resume and (path / RUN_FILE).is_file():
        return path
    path.mkdir(exist_ok=True)
    # A run that ended before `begin` has left only its lock file and temporary files: its folder may be used.
    if any(name != LOCK_FILE and not name.startswith(".tmp") for name in os.listdir(path)):
        if p.resume:
            raise UserError(f"--name {p.name}: {path} is not a run's folder: it has no {RUN_FILE}; give another name")
        raise UserError(
            f"--name {p.name}: {path} exists already; give another name, or --resume auto to continue that run"
        )
    return path


def _make_numbered_folder(p):
    for number in itertools.count(max(run_numbers(p.save_path, p.recipe), default=0) + 1):
        path = Path(p.save_path, f"{p.recipe}-{number}")
        with contextlib.suppress(FileExistsError):  # another run has just created it: try the next number
            path.mkdir()
            return path


def _lock(path):
    """Lock the run folder `path`. Returns the open file that holds the lock."""
    try:
        return lock(path)
    except BlockingIOError as owner:
        raise UserError(f"{path} is in use by {owner}: stop that first, or give another --name") from None


def _truncate(path, size):
    """Truncate the file `path` to `size` bytes if it is longer. If `size` is not an int, do nothing."""
    if type(size) is int and path.exists() and 0 <= size < path.stat().st_size:
        os.truncate(path, size)


def _changed_data(before, now):
    """The differences between a data set's fingerprints `before` and `now`, in words; "" if there are none."""
    if not isinstance(before, dict):
        return ""  # a checkpoint of an earlier version has no fingerprint
    changed = {name: (before[name], new) for name, new in now.items() if name in before and before[name] != new}
    return ", ".join(
        f"{name} from {old} to {new}" if type(old) is int else name for name, (old, new) in changed.items()
    )


def diverged(name, value, step):
    """The UserError for the tensor `name`, which is not finite after `step` steps."""
    return UserError(
        f"{name} is {value} at step {step}: training has diverged; --resume goes on from the last good checkpoint: "
        f"give it a lower --d_lr and --g_lr, or start a new run with another --manual_seed; {ADVICE}"
    )


def _tipc_line(step, epoch, metrics, batch):
    """A line of the log in the form that TIPC, Paddle's test of models, reads. `batch`: images in a step.

    The reader's cost is the time that a step waits for data. The loss is D's, without its class loss.
    """
    pace, wait, loss = metrics["images_per_second"], metrics["data_wait"], metrics["d_real"] + metrics["d_fake"]
    return (
        f"[epoch {epoch}, iter {step}][TRAIN]avg_samples: {batch:.1f} , avg_reader_cost: {wait:.5f} sec, "
        f"avg_batch_cost: {batch / pace:.5f} sec, loss: {loss:.5f} , avg_ips: {pace:.5f} images/sec"
    )


def _real_images(image_set, classes):
    """The first COLUMNS real images of each of `classes`, as `sampler.grid_samples` returns, and which are missing.

    Missing ones are white; `missing` is bool [N].
    """
    images = np.full((len(classes), pictures.COLUMNS, *image_set.image_shape), 255, np.uint8)
    missing = np.ones(images.shape[:2], bool)
    for row, label in enumerate(classes):
        for column, index in enumerate(np.flatnonzero(image_set.labels == label)[: pictures.COLUMNS]):
            images[row, column], missing[row, column] = image_set[int(index)][0], False
    return images.reshape(-1, *image_set.image_shape), missing.flatten()
