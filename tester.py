"""Tester: opens a source of samples, writes and measures the samples, and writes the report."""

import contextlib
import dataclasses
import glob
import hashlib
import itertools
from pathlib import Path

import numpy as np

import runtime
from evaluation import report
from evaluation.evaluation import Evaluation
from evaluation.measurement import remove_process_files, unfinished_keys
from evaluation.sample_files import NPZWriter, PNGWriter
from evaluation.sources import open_source
from evaluation.union import Union
from processes import collectives
from utils import LOCK_FILE, UserError, lock

# An interrupted test may resume with other values of these, because it may resume on another machine.
MAY_DIFFER_ON_RESUME = ("device", "threads", "num_workers", "data_in_memory", "batch_size_test", "parallel")


class Tester:
    """Measures samples of the generator in `loaded`, a `checkpoint.Checkpoint`.

    If `parameters.pretrained_model` names several models, `loaded` is the first of them, and all are measured together.
    Without a checkpoint it measures the images that `parameters.samples` names.
    """

    def __init__(self, parameters, loaded=None):
        several = len(parameters.pretrained_models) > 1
        self.source = Union(parameters, loaded) if several else open_source(parameters, loaded)
        self.parameters = self.source.parameters
        self._locks = []
        self._new_folder = None  # that this test has created
        collectives.say(self.source.opened)

    def test(self):
        """Measure the samples, write the requested files and the report, and print the figures.

        An interrupted test resumes when the same command runs again. Raises SystemExit after a stop signal.
        """
        source = self.source
        evaluation = Evaluation(self.parameters, source.checkpoint_names)
        source.choose_classes(evaluation)
        source.check(evaluation)
        settings = self._settings(evaluation)
        key = _test_key((settings, source.class_names), self.parameters)
        # Claim every folder and file that the test writes, before the long computation.
        with self._claimed(key) as (folder, resumes):
            writers = self._writers(folder, key, resumes)
            evaluation.prepare()
            source.prepare(evaluation)
            figures = {}
            if evaluation.metrics or writers:
                with runtime.stop_signals() as stop:
                    figures = evaluation.figures(source, stop, writers, folder, key)
                if figures is None:
                    collectives.say("stopped; run the same command again to resume")
                    raise SystemExit(128 + (stop.signal or stop.asked))
            if collectives.rank() == 0:
                self._report(folder, figures, settings, evaluation, writers)

    def _report(self, folder, figures, settings, evaluation, writers):
        """Print the figures, finish the sample files, write the pictures and the report. Complete `settings` first."""
        extractor = evaluation.extractor
        settings["extractor"] = extractor.key if extractor else "none"
        if weights := getattr(extractor, "weights", None):
            settings["inception weights"] = weights
        settings["real statistics"] = evaluation.real_place or "none"
        if not evaluation.metrics and self.parameters.metrics != "none":
            print("nothing was measured: give --test_data_path, --reference or --metrics")
        if not (evaluation.metrics or writers):
            settings |= self.source.settings_if_unread
        lines = [*report.table(figures), *report.cautions(figures, settings)]
        for line in [*lines, *(writer.finish() for writer in writers)]:
            print(line)
        self.source.write_pictures(folder)
        report.write(folder, figures, settings, self.parameters, evaluation.seconds)
        # The report is complete: remove the files that only an interrupted test needs.
        remove_process_files(folder)
        self._unlock()  # because Windows removes only closed files
        (folder / LOCK_FILE).unlink()
        print(f"report: {folder / 'report.md'}")

    @contextlib.contextmanager
    def _claimed(self, key):
        """Lock the folder of the report against other tests. Yield it, and whether this test was interrupted in it."""
        try:
            folder, resumes = collectives.on_rank_0(self._claim, key)
            yield Path(folder), resumes
        finally:
            self._remove_unused_folder()
            self._unlock()

    def _remove_unused_folder(self):
        """Remove the folder that this test has created if nothing was written there, such as after a refusal."""
        with contextlib.suppress(OSError):
            if self._new_folder and [path.name for path in self._new_folder.iterdir()] == [LOCK_FILE]:
                (self._new_folder / LOCK_FILE).unlink()
                self._new_folder.rmdir()

    def _unlock(self):
        for file in self._locks:
            file.close()

    def _claim(self, key):
        """Find and lock the folder of the report. Returns its path, and whether this test was interrupted in it."""
        given = self.parameters.test_path
        for folder in [Path(given)] if given else self._candidate_folders(key):
            try:
                obstacle = _obstacle(folder, key) or self._lock_folder(folder, key)
            except OSError as error:
                reason = f"cannot be used ({error.strerror})"
                raise UserError(f"--test_path {folder} {reason}: give another folder") from None
            if not obstacle:
                return str(folder), key in _interrupted_tests(folder)
            if given:
                raise UserError(f"--test_path {folder} {obstacle}: give another folder")

    def _lock_folder(self, folder, key):
        """Create `folder` if it is missing and lock it against other tests. Returns the reason if it cannot be used."""
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._locks.append(lock(folder))
        except BlockingIOError as owner:
            return f"is in use by {owner}"
        self._new_folder = folder if is_new else None
        return _obstacle(folder, key)  # check again: the last owner of the lock may have written there

    def _candidate_folders(self, key):
        """Candidates for the folder of the report: folders where this test was interrupted, then new, numbered ones."""
        first = self.source.default_folder
        for folder in sorted(first.parent.glob(f"{glob.escape(first.name)}*")):
            if key in _interrupted_tests(folder):
                yield folder
        yield first
        for number in itertools.count(2):
            yield first.with_name(f"{first.name}-{number}")

    def _writers(self, folder, key, resumes):
        p, writers = self.parameters, []
        labels, class_names = self.source.labels, self.source.class_names
        if p.samples_dir:
            writers.append(PNGWriter("--samples_dir", p.samples_dir, labels, class_names, resumes))
        elif p.check_path:  # the published command only makes samples
            writers.append(PNGWriter("--test_path", folder / "samples", labels, class_names, resumes))
        if p.samples_npz:
            shape = (p.channels, p.imsize, p.imsize)
            writers.append(NPZWriter(p.samples_npz, labels, shape, key, resumes))
            self._locks += [writers[-1].lock] if writers[-1].lock else []
        return writers

    def _settings(self, evaluation):
        """{name: plain value} of the settings that the figures depend on, for the report."""
        p, source = self.parameters, self.source
        return {
            "samples": source.description,
            "file": str(source.file),
            "sha256": collectives.on_rank_0(source.digest),
            "dataset": p.dataset,
            "num_samples": len(source),
            "num_classes": evaluation.num_classes or "unknown",
            "labels": source.labels_setting,
            "classes drawn": "unknown" if source.labels is None else len(np.unique(source.labels)),
            "imsize": p.imsize,
            "manual_seed": p.manual_seed,
            **source.settings,
            **evaluation.settings(len(source)),
        }


def _test_key(drawn, parameters):
    """A text that identifies a test. It is the same for an interrupted test and the test that resumes it."""
    values = {k: v for k, v in dataclasses.asdict(parameters).items() if k not in MAY_DIFFER_ON_RESUME}
    return hashlib.sha256(repr((drawn, values)).encode()).hexdigest()


def _interrupted_tests(folder):
    """The keys of the interrupted tests in `folder`."""
    return {key.partition(" ")[0] for key in unfinished_keys(folder)}  # after the space comes the extractor's key


def _obstacle(folder, key):
    """The reason why the test `key` cannot use `folder`, or None."""
    if (folder / "report.json").exists():
        return "already holds a report"
    if _interrupted_tests(folder) - {key}:
        return "holds the files of an interrupted test with other options or weights"
    return None
