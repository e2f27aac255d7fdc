"""Tester: load a generator or samples, draw, write them, measure them, write the report."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

import checkpoint
import report
import runtime
import sampler
from evaluation import Evaluation
from measurement import finish, goes_on
from sample_files import NPZWriter, PNGWriter
from sources import open_samples
from utils import UserError, file_digest, save_image

OF_THE_MACHINE = ("device", "num_workers", "batch_size_test", "parallel")  # a test on another one goes on with this one


class Tester:
    """Measures what the generator of a `checkpoint.Checkpoint` draws, which was read from the file `source`.

    Without them it measures the images that `parameters.samples` names. The samples' classes are those of the test
    images, shuffled, and again from the first when they are through, where `test_data_path` names some; else the
    classes take turns.
    """

    def __init__(self, parameters, loaded=None, source=None):
        p = parameters
        if p.samples:
            size = open_samples(p.samples, p.channels).size
            p = dataclasses.replace(p, imsize=size, centercrop_size=size)
            self.what, self.weights, default = p.samples, {}, Path(p.save_path) / f"test-{Path(p.samples).stem}"
        else:
            part = "G_ema" if p.use_ema and "G_ema" in loaded.parts else "G"
            if part not in loaded.parts:
                raise UserError(f"{source} holds no generator")
            self.G = checkpoint.models_of(p).make_generator(p)
            checkpoint.load_network(self.G, loaded.parts[part], source)
            self.G.eval()
            steps = f" after {loaded.step} steps" if loaded.step else ""  # which a bare state dictionary does not tell
            average = ", moving average of its weights" if part == "G_ema" else ""
            self.what = f"{p.model}{steps}{average}"
            self.weights = {
                "weights": "moving average" if part == "G_ema" else "as trained",
                "batch statistics": f"standing, over {p.standing_batches} batches" if p.standing_batches else "running",
                "truncation": p.truncation,
            }
            default = checkpoint.run_of(source) / f"test-{Path(source).stem}"
        self.parameters, self.file, self.default_folder = p, Path(p.samples or source), default
        _say(f"samples: {self.file}" if p.samples else f"{self.file}: {self.what}")

    def test(self):
        """Measure `num_samples` samples, write what was asked for and the report, print the figures.

        A test that is interrupted goes on when it is run again. Raises SystemExit when a signal asks to stop.
        """
        p = self.parameters
        evaluation = Evaluation(p)
        source = self._source(evaluation)
        evaluation.check(source)
        evaluation.prepare()
        settings = self._settings(evaluation, source)
        key = _key(settings, p)
        folder = Path(runtime.from_first(lambda: str(self._folder())))
        if p.standing_batches and not p.samples:
            sampler.use_standing_statistics(self.G, p)
        writers = self._writers(folder, source.labels, goes_on(folder, key))
        figures = {}
        if evaluation.metrics or writers:
            with runtime.stop_signals() as stop:
                figures = evaluation.figures(source, stop, writers, folder, key)
            if figures is None:
                _say("stopped; the same command goes on where it was")
                raise SystemExit(128 + stop.signal)
        if runtime.rank():
            return
        if not evaluation.metrics:
            print("nothing was measured: --test_data_path, --reference or --metrics choose what is")
        lines = [*report.table(figures), *report.cautions(figures, settings)]
        for line in [*lines, *(writer.finish() for writer in writers)]:
            print(line)
        if not p.samples:
            save_image(folder / "class_grid.png", sampler.class_grid(self.G, p))
            print(f"class grid: {folder / 'class_grid.png'}")
        settings["real statistics"] = evaluation.real_place or "none"
        report.write(folder, figures, settings, p, evaluation.seconds)
        finish(folder)
        print(f"report: {folder / 'report.md'}")

    def _source(self, evaluation):
        p = self.parameters
        if p.samples:
            names = evaluation.test_set and evaluation.test_set.class_names
            return open_samples(p.samples, p.channels, names, evaluation.needs_classes)
        return evaluation.drawn(self.G, p.num_samples)

    def _folder(self):
        """Where the report goes: a new folder, or one whose test was interrupted."""
        p = self.parameters
        folder, number = Path(p.test_path or self.default_folder), 1
        if p.test_path and (folder / "report.json").exists():
            raise UserError(f"--test_path {folder} has a report already: give another folder")
        while (folder / "report.json").exists():
            number += 1
            folder = self.default_folder.with_name(f"{self.default_folder.name}-{number}")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _writers(self, folder, labels, again):
        p, writers = self.parameters, []
        if p.samples_dir:
            writers.append(PNGWriter("--samples_dir", p.samples_dir, labels, p.num_classes, again))
        elif p.check_path:  # where samples are all that its published command makes
            writers.append(PNGWriter("--test_path", folder / "samples", labels, p.num_classes, again))
        if p.samples_npz:
            shape = (p.channels, p.imsize, p.imsize)
            writers.append(NPZWriter(p.samples_npz, labels, shape, again))
        return writers

    def _settings(self, evaluation, source):
        """What the figures are of, plain values by name."""
        p = self.parameters
        return {
            "samples": self.what,
            "file": str(self.file),
            "sha256": file_digest(self.file) if self.file.is_file() else "a folder",
            "dataset": p.dataset,
            "num_samples": len(source),
            "num_classes": evaluation.num_classes or "unknown",
            "labels": self._labels(source),
            "classes drawn": "unknown" if source.labels is None else len(np.unique(source.labels)),
            "imsize": p.imsize,
            "manual_seed": p.manual_seed,
            **self.weights,
            **evaluation.settings(len(source)),
            "extractor": evaluation.extractor.key if evaluation.extractor else "none",
            **({"inception weights": weights} if (weights := getattr(evaluation.extractor, "weights", None)) else {}),
        }

    def _labels(self, source):
        p = self.parameters
        if p.samples:
            return "unknown" if source.labels is None else "the samples' own"
        if p.labels == "auto" and p.test_data_path:
            return "auto: shuffled, as the test images have them"
        return f"{p.labels}: in turns"


def _key(settings, parameters):
    """What an interrupted test and the one that goes on with it have in common."""
    values = {k: v for k, v in dataclasses.asdict(parameters).items() if k not in OF_THE_MACHINE}
    return hashlib.sha256(repr((settings, values)).encode()).hexdigest()


def _say(line):
    if runtime.rank() == 0:
        print(line, flush=True)
