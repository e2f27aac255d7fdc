"""Tester: load a generator or samples, draw, write them, measure them, write the report."""

import contextlib
import dataclasses
import glob
import hashlib
import itertools
import math
from pathlib import Path

import numpy as np

import checkpoint
import pictures
import report
import runtime
import sampler
from evaluation import Evaluation
from layers import forwards_to_settle
from measurement import finish, keys
from sample_files import NPZWriter, PNGWriter
from sources import open_samples
from utils import LOCK_FILE, UserError, file_digest, lock, plural, progress

OF_THE_MACHINE = ("device", "num_workers", "batch_size_test", "parallel")  # a test on another one goes on with this one


class Tester:
    """Measures what the generator of the `checkpoint.Checkpoint` `loaded` draws.

    Without one it measures the images that `parameters.samples` names. The samples' classes are those of the test
    images, shuffled, and again from the first when they are through, where `test_data_path` names some; else the
    classes take turns.
    """

    def __init__(self, parameters, loaded=None):
        p = parameters
        if p.samples:
            size = open_samples(p.samples, p.channels).size
            p = dataclasses.replace(p, imsize=size, centercrop_size=size)
            self.what, self.weights, default = p.samples, {}, Path(p.save_path) / f"test-{Path(p.samples).stem}"
            self.class_names = None
        else:
            part = "G_ema" if p.use_ema and "G_ema" in loaded.parts else "G"
            if part not in loaded.parts:
                raise UserError(f"{loaded.path} holds no generator")
            self.G = checkpoint.models_of(p).make_generator(p)
            checkpoint.load_network(self.G, loaded.parts[part], loaded.path)
            self.G.eval()
            self.class_names = loaded.class_names
            # A bare state dictionary does not tell how many steps there were.
            steps = f" after {plural(loaded.step, 'step')}" if loaded.step else ""
            average = ", moving average of its weights" if part == "G_ema" else ""
            self.what = f"{p.model}{steps}{average}"
            self.weights = {
                "weights": "moving average" if part == "G_ema" else "as trained",
                "batch statistics": f"standing, over {p.standing_batches} batches" if p.standing_batches else "running",
                "truncation": p.truncation,
                **_settling(self.G, p, loaded.step),
            }
            default = checkpoint.run_of(loaded.path) / f"test-{loaded.path.stem}"
        self.parameters, self.file, self.default_folder = p, Path(p.samples or loaded.path), default
        self._locks = []
        runtime.say(f"samples: {self.file}" if p.samples else f"{self.file}: {self.what}")

    def test(self):
        """Measure `num_samples` samples, write what was asked for and the report, print the figures.

        A test that is interrupted goes on when it is run again. Raises SystemExit when a signal asks to stop.
        """
        p = self.parameters
        evaluation = Evaluation(p, self.class_names)
        source = self._source(evaluation)
        evaluation.check(source)
        if not p.samples:
            evaluation.check_names(self.class_names, self.file)
        settings = self._settings(evaluation, source)
        key = _key((settings, not p.samples and evaluation.class_names), p)  # folders have the names of classes
        with self._claimed(key) as (folder, goes_on):  # and all else that is written, before anything is computed
            writers = self._writers(folder, source.labels, evaluation, key, goes_on)
            evaluation.prepare()
            if p.standing_batches and not p.samples:
                with evaluation.stage("standing statistics"):
                    sampler.use_standing_statistics(self.G, p)
            figures = {}
            if evaluation.metrics or writers:
                with runtime.stop_signals() as stop:
                    figures = evaluation.figures(source, stop, writers, folder, key)
                if figures is None:
                    runtime.say("stopped; the same command goes on where it was")
                    raise SystemExit(128 + (stop.signal or stop.asked))
            if runtime.rank() == 0:
                self._report(folder, figures, settings, evaluation, writers)

    def _report(self, folder, figures, settings, evaluation, writers):
        p, extractor = self.parameters, evaluation.extractor
        settings["extractor"] = extractor.key if extractor else "none"
        if weights := getattr(extractor, "weights", None):
            settings["inception weights"] = weights
        settings["real statistics"] = evaluation.real_place or "none"
        if not evaluation.metrics:
            print("nothing was measured: --test_data_path, --reference or --metrics choose what is")
        if not (evaluation.metrics or writers or p.samples):  # none is drawn but those of the picture
            settings |= {"num_samples": 0, "classes drawn": 0, "labels": "none"}
        lines = [*report.table(figures), *report.cautions(figures, settings)]
        for line in [*lines, *(writer.finish() for writer in writers)]:
            print(line)
        if not p.samples:
            self._draw_classes(folder / "class_grid.png", evaluation)
        report.write(folder, figures, settings, p, evaluation.seconds)
        finish(folder)
        (folder / LOCK_FILE).unlink()  # of no use beside a report
        print(f"report: {folder / 'report.md'}")

    def _draw_classes(self, path, evaluation):
        """Write a picture of the classes that are drawn, a row each, of the first ones where they are many."""
        classes, names = evaluation.chosen_classes[: pictures.ROWS], evaluation.class_names
        grid = pictures.grid(sampler.grid_samples(self.G, self.parameters, classes), pictures.row_names(names, classes))
        pictures.save_image(path, grid)
        print(f"class grid: {path}")
        if numbered := pictures.numbered_names(names, classes):
            print(f"the class grid shows these class names as numbers: {numbered}")

    def _source(self, evaluation):
        p = self.parameters
        if p.samples:
            names = evaluation.test_set and evaluation.test_set.class_names
            return open_samples(p.samples, p.channels, names, evaluation.needs_classes, p.exif)
        return evaluation.drawn(self.G, p.num_samples)

    @contextlib.contextmanager
    def _claimed(self, key):
        """The folder of the report, which no other test uses meanwhile, and whether this one was interrupted there."""
        try:
            folder, goes_on = runtime.from_first(self._claim, key)
            yield Path(folder), goes_on
        finally:
            for file in self._locks:
                file.close()

    def _claim(self, key):
        given = self.parameters.test_path
        for folder in [Path(given)] if given else self._folders(key):
            try:
                obstacle = _obstacle(folder, key) or self._lock_folder(folder, key)
            except OSError as error:
                reason = f"cannot be used ({error.strerror})"
                raise UserError(f"--test_path {folder} {reason}: give another folder") from None
            if not obstacle:
                return str(folder), key in _tests(folder)
            if given:
                raise UserError(f"--test_path {folder} {obstacle}: give another folder")

    def _lock_folder(self, folder, key):
        """Keep other tests out of `folder`, made if need be; returns why that cannot be, or None."""
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._locks.append(lock(folder))
        except BlockingIOError as owner:
            return f"is in use by {owner}"
        return _obstacle(folder, key)  # who had the lock may have left something

    def _folders(self, key):
        """Where the report may go: folders in which this test was interrupted, then new ones, numbered."""
        first = self.default_folder
        for folder in sorted(first.parent.glob(f"{glob.escape(first.name)}*")):
            if key in _tests(folder):
                yield folder
        yield first
        for number in itertools.count(2):
            yield first.with_name(f"{first.name}-{number}")

    def _writers(self, folder, labels, evaluation, key, goes_on):
        p, writers = self.parameters, []
        if p.samples_dir:
            writers.append(PNGWriter("--samples_dir", p.samples_dir, labels, evaluation.class_names, goes_on))
        elif p.check_path:  # where samples are all that its published command makes
            writers.append(PNGWriter("--test_path", folder / "samples", labels, evaluation.class_names, goes_on))
        if p.samples_npz:
            shape = (p.channels, p.imsize, p.imsize)
            writers.append(NPZWriter(p.samples_npz, labels, shape, key, goes_on))
            self._locks += [writers[-1].lock] if writers[-1].lock else []
        return writers

    def _settings(self, evaluation, source):
        """What the figures are of, plain values by name."""
        p = self.parameters
        return {
            "samples": self.what,
            "file": str(self.file),
            "sha256": runtime.from_first(_digest, self.file, source),
            "dataset": p.dataset,
            "num_samples": len(source),
            "num_classes": evaluation.num_classes or "unknown",
            "labels": self._labels(source),
            "classes drawn": "unknown" if source.labels is None else len(np.unique(source.labels)),
            "imsize": p.imsize,
            "manual_seed": p.manual_seed,
            **self.weights,
            **evaluation.settings(len(source)),
        }

    def _labels(self, source):
        p = self.parameters
        if p.samples:
            return "unknown" if source.labels is None else "the samples' own"
        if p.labels == "auto" and p.test_data_path:
            return "auto: shuffled, as the test images have them"
        return f"{p.labels}: in turns"


def _settling(generator, parameters, steps):
    """Settings: the steps that running statistics have followed, and the steps they need; {} where they do not matter.

    `steps` is 0 where it is not known.
    """
    p = parameters
    if not steps or p.standing_batches:
        return {}
    forwards = p.d_steps_per_iter + p.g_steps_per_iter  # of G in a step
    needed = float(f"{math.ceil(forwards_to_settle(generator) / forwards):.2g}")
    return {"steps": steps, "steps until batch statistics settle": int(needed)}


def _key(drawn, parameters):
    """What an interrupted test and the one that goes on with it have in common."""
    values = {k: v for k, v in dataclasses.asdict(parameters).items() if k not in OF_THE_MACHINE}
    return hashlib.sha256(repr((drawn, values)).encode()).hexdigest()


def _tests(folder):
    """The keys of the tests that were interrupted in `folder`."""
    return {key.partition(" ")[0] for key in keys(folder)}  # without the extractor's


def _obstacle(folder, key):
    """Why the test `key` cannot use `folder`; None where it can."""
    if (folder / "report.json").exists():
        return "has a report already"
    if _tests(folder) - {key}:
        return "has what an interrupted test of other options or weights has done"
    return None


def _digest(path, source):
    """The SHA-256 of the file `path`, or that of a folder's images: of what `sha256sum` prints of them in order."""
    if path.is_file():
        return file_digest(path)
    digest = hashlib.sha256()
    for file in progress(source.files, title="digest of the samples", unit="img"):
        name = str(file.relative_to(path))
        digest.update(f"{file_digest(file)}  {name}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
