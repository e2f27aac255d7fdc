"""The metrics that `--metrics` chooses, measured on images, for `test.py` and `train.py --eval_step`."""

import contextlib
import functools
import hashlib
import os
import time

import numpy as np

import randomness
from checkpoint import compare_classes
from dataset import load_dataset, path_option
from drawing.classes import choose_labels
from evaluation.extractors import ClassifierExtractor, InceptionExtractor
from evaluation.measurement import Needs, measure
from evaluation.reference import SPLITS, content_digest, given_summary, load_splits, real_summary, summary
from evaluation.sources import Drawn, RealImages
from formats.image_files import fit_in_words
from metrics import all_metrics
from metrics.class_accuracy import RESOLUTIONS
from metrics.record import LAST_LAYER, REAL, SAMPLES, TEST, TRAINING, Sets, Summary
from processes import collectives
from utils import UserError, file_digest, progress

GIVEN = "given"  # the real images are statistics from a file
IN_WORDS = {"train": "training images", "test": "test images", "both": "training and test images"}  # by --real_split


class Evaluation:
    """The metrics that `parameters.metrics` chooses, ready to measure any source of images of the right size.

    `class_names`: names of the generator's classes, if they are known. `metrics`: the records of the chosen metrics.
    `seconds`: the time of each stage, including the time of interrupted sessions. Raises UserError if weights,
    statistics or data do not fit.
    """

    def __init__(self, parameters, class_names=None):
        p = self.parameters = parameters
        self._class_names = class_names
        self.seconds = {}
        self.metrics = [all_metrics()[name] for name in p.chosen_metrics]
        self._by_classifier = p.by_classifier
        # The images of each set that a metric may read: samples, statistics from a file, or a split of the real images.
        self._origin = {SAMPLES: SAMPLES, REAL: GIVEN if p.reference else p.real_split, TRAINING: "train", TEST: "test"}
        wanted = {self._origin[name] for metric in self.metrics for name in metric.sets}
        if self.metrics and self._by_classifier:
            wanted.add("train")
        self.image_sets = load_splits(p, wanted - {SAMPLES, GIVEN}, class_names or ())  # {split: its `ImageSet`}
        self._extractor_class = ClassifierExtractor if self._by_classifier else InceptionExtractor
        self.extractor = None
        self._known = {}  # {split or GIVEN: the Summary of these images}
        self._real_within_classes = {}  # {name of a metric: its values of the real images, by class}
        if p.reference:
            self._known[GIVEN] = given_summary(p.reference, self._needs().layers)

    def images_of(self, name):
        """The real images of the set `name` (REAL, TRAINING or TEST); None if no metric reads them."""
        return self.image_sets.get(self._origin[name])

    @property
    def real_set(self):
        """The real images to compare with. If no metric reads these, the test images; None if none reads those."""
        return self.images_of(REAL) or self.images_of(TEST)

    @property
    def num_classes(self):
        """The number of classes of the real images; None if it is not known."""
        return self.real_set.num_classes if self.real_set else self.parameters.num_classes

    @property
    def needs_classes(self):
        """Whether a metric needs the classes of the samples."""
        return any(metric.needs_classes for metric in self.metrics)

    def settings(self, count):
        """The settings that decide the figures of `count` samples: plain values by name, for the report."""
        p = self.parameters
        names = ",".join(metric.name for metric in self.metrics)
        found = {"metrics": names or "none", "real images": p.reference or "none"}
        real, training = self.real_set, self.images_of(TRAINING)
        if real:
            split = p.real_split if self.images_of(REAL) else "test"
            paths = dict.fromkeys(path_option(p, name)[1] for name in SPLITS[split])
            paths = " and ".join(path for path in paths if path)
            found["real images"] = f"{IN_WORDS[split]} of {p.dataset}" + (f" in {paths}" if paths else "")
            found |= {"real split": split, "number of real images": len(real), "transform": fit_in_words(p)}
        if training:
            found["training images"] = f"of {p.dataset}" + (f" in {p.data_path}" if p.data_path else "")
            found["number of training images"] = len(training)
        metrics = sorted(self.metrics, key=lambda metric: metric.order)
        if self._by_classifier:
            found |= {metric.name: "compared with training images" for metric in metrics if metric.within_class}
        for metric in metrics:
            found |= metric.settings(count, len(real) if real else 0)
        if self.metrics and not self._by_classifier:
            found["half precision"] = p.half_precision
        return found

    def _needs(self, origin=None):
        """The values that a pass over the images `origin` has to gather: SAMPLES, or a split. None: over any images."""
        p = self.parameters
        origins = [{self._origin[name] for name in metric.sets} for metric in self.metrics]
        metrics = [metric for metric, own in zip(self.metrics, origins, strict=True) if origin is None or origin in own]
        layers = dict.fromkeys(self._layer(metric) for metric in metrics if metric.layer)
        resolutions = ()
        if any(metric.reads_classes for metric in metrics):
            lower = () if self._by_classifier else tuple(size for size in RESOLUTIONS if size < p.imsize)
            resolutions = (*lower, p.imsize)
        features, logits = (any(getattr(metric, name) for metric in metrics) for name in ("features", "logits"))
        return Needs(tuple(layers), features, logits, resolutions)

    def _layer(self, metric):
        """The extractor's name of the layer that `metric` compares."""
        return self._extractor_class.last_layer if metric.layer == LAST_LAYER else metric.layer

    @contextlib.contextmanager
    def stage(self, name):
        """Add the time that the block takes to `seconds`."""
        start = time.monotonic()
        yield
        self._add_seconds(name, time.monotonic() - start)

    def _add_seconds(self, name, seconds):
        self.seconds[name] = round(self.seconds.get(name, 0) + seconds, 3)

    @functools.cached_property
    def _real_classes(self):
        """The real images. If no metric reads any, the test images, for their classes. None if none are given."""
        p = self.parameters
        return self.real_set or (load_dataset(p, "test", self._class_names or ()) if p.test_data_path else None)

    @property
    def draws_real_classes(self):
        """Whether samples get the classes of the real images, in proportion."""
        p = self.parameters
        of_folders = p.reads_folders and self.real_set
        return p.labels == "auto" and bool(p.test_data_path or of_folders)

    @functools.cached_property
    def class_names(self):
        """The names of the generator's classes: the given ones, else those of the test images, else numbers."""
        if self._class_names:
            return self._class_names
        if self._real_classes:
            return self._real_classes.class_names
        return tuple(map(str, range(self.parameters.num_classes)))

    @functools.cached_property
    def chosen_classes(self):
        """The numbers of the classes to draw, in the order of `labels`."""
        return choose_labels(self.parameters.labels, self.class_names)

    @functools.cached_property
    def _real_labels(self):
        """The classes of the real images, shuffled, so that the first few hold all classes too."""
        return randomness.rng(self.parameters.manual_seed, "test labels").permutation(self._real_classes.labels)

    def labels_to_draw(self, count):
        """The classes of `count` samples: the choice of `labels`, repeated in order, or those of the real images."""
        classes = self._real_labels if self.draws_real_classes else np.array(self.chosen_classes)
        return classes[np.arange(count) % len(classes)]

    def drawn(self, generator, count):
        """`count` samples of `generator` as a source."""
        return Drawn(generator, self.parameters, self.labels_to_draw(count))

    def score(self, figures):
        """The number that ranks `figures`: higher is better. It comes from the first metric."""
        metric = self.metrics[0]
        value = figures[metric.shown(self._by_classifier)[metric.best or metric.figures[0].name].name]
        return value if metric.higher_is_better else -value

    @functools.cached_property
    def key(self):
        """A text. Two `score`s are comparable if their keys are equal. Call `prepare` first.

        It depends on the metric, the options for drawing samples, the real images and the extractor.
        """
        p = self.parameters
        real = file_digest(p.reference) if p.reference else self.real_set and content_digest(self.real_set)
        standing = p.standing_batches and (p.standing_batches, p.batch_size)
        drawn = (p.eval_samples, p.labels, p.use_ema, standing, p.truncation)
        extractor = self.extractor and self.extractor.key
        return hashlib.sha256(repr((self.metrics[0].name, drawn, real, extractor)).encode()).hexdigest()[:16]

    def check(self, source):
        """Raise UserError unless the metrics can measure `source`."""
        for metric in sorted(self.metrics, key=lambda metric: metric.name):
            self._check_training_images(metric)
            self._check_counts(metric, source)
        self._check_labels(source)

    def _check_training_images(self, metric):
        p = self.parameters
        of_folders = p.reads_folders
        if {TEST, TRAINING} <= set(metric.sets) and of_folders and os.path.samefile(p.data_path, p.test_data_path):
            raise UserError(
                f"--metrics {metric.name} compares test images with training images, but --test_data_path "
                f"{p.test_data_path} and --data_path {p.data_path} hold the same images: give another "
                f"--test_data_path, or leave {metric.name} out"
            )

    def _check_counts(self, metric, source):
        """Refuse too few or too small images."""
        counts = {"samples": len(source)} if SAMPLES in metric.sets else {}
        if {REAL, TEST} & set(metric.sets) and self.real_set:
            counts["real images"] = len(self.real_set)
        for images, count in counts.items():
            if count < metric.fewest:
                raise UserError(
                    f"{metric.name!r} needs {metric.fewest} {images} or more, not {count}: give more, or leave it out "
                    "of --metrics"
                )
        if source.size < metric.smallest:
            raise UserError(
                f"--metrics {metric.name} needs images of {metric.smallest} pixels or more a side, not {source.size}"
            )

    def _check_labels(self, source):
        """Refuse classes that do not exist, and missing ones that a metric needs."""
        classes, labels = self.num_classes, source.labels
        if classes and labels is not None and len(wrong := labels[(labels < 0) | (labels >= classes)]):
            raise UserError(f"--samples contains class {wrong[0]}; valid classes are 0 to {classes - 1}")
        if not self.needs_classes:
            return
        if labels is None:
            name = min(metric.name for metric in self.metrics if metric.needs_classes)
            raise UserError(f"--metrics {name} needs the samples' classes: arr_1 in the .npz, or class folders")
        for images, labels in (("samples", source.labels), ("real images", self.real_set.labels)):
            counts = np.bincount(labels, minlength=classes)
            for metric in sorted(self.metrics, key=lambda metric: metric.name):
                few = np.flatnonzero(counts < metric.fewest_of_class)
                if len(few):
                    raise UserError(
                        f"--metrics {metric.name} needs {metric.fewest_of_class} {images} of each class, but class "
                        f"{few[0]} has {counts[few[0]]}"
                    )

    def check_names(self, class_names, source):
        """Raise UserError if `class_names`, the classes of `source`, differ from the names of the real images' classes.

        The names matter if a metric needs classes, or if the samples take their classes from the real images.
        """
        p = self.parameters
        if not (self.needs_classes or self.draws_real_classes):
            return
        if not class_names:
            collectives.say(f"{source} holds no class names, so class names are not compared")
        elif difference := compare_classes(class_names, self._real_classes.class_names):
            option, path = path_option(p, SPLITS[p.real_split][-1])
            where = f"{option} {path}" if path else f"--dataset {p.dataset}"
            raise UserError(
                f"{where} does not have the classes that {source} has ({difference}): give test images of the same "
                "classes, or give --labels uniform and --metrics that need no classes, such as fid"
            )

    def prepare(self):
        """Load Inception, or train the classifier, if the metrics need it and it is not loaded yet."""
        p, needs = self.parameters, self._needs()
        if self.extractor or not any(needs):
            return
        with self.stage("extractor"):
            if self._by_classifier:
                self.extractor = ClassifierExtractor(p, self.image_sets["train"])
            else:
                names = self.real_set.class_names if self.real_set else ()
                self.extractor = InceptionExtractor(p, needs, names)

    def figures(self, source, stop, writers=(), folder=None, key=None):
        """The figures of `source` by name on rank 0, {} on other ranks; None after a stop signal.

        `writers`, `folder` and `key` are those of `measurement.measure`. Files of another extractor are not reused.
        """
        self.prepare()
        with self.stage("real images"):
            if not self._measure_real_images(stop):
                return None
        key = f"{key} {self.extractor.key if self.extractor else ''}"
        with self.stage("samples"):
            seed, needs = self.parameters.manual_seed, self._needs(SAMPLES)
            gathered = measure(source, self.extractor, needs, seed, "samples", stop, writers, folder, key)
            if gathered is None:
                return None
        self._add_seconds("samples", gathered.earlier)
        with self.stage("classes"):
            within_classes = self._within_classes(source, stop)
            if within_classes is None:
                return None
        if collectives.rank():
            return {}
        try:
            with self.stage("figures"):
                samples = summary(gathered, len(source))._replace(labels=source.labels, within_classes=within_classes)
                return self._compute(samples, source, stop)
        except _Stopped:
            return None

    @property
    def real_place(self):
        """The file or folder with the statistics of the real images. None before `figures`, or if none were needed."""
        known = self._known.get(self._origin[REAL]) or self._known.get(self._origin[TEST])
        return known.place if known else None

    def _measure_real_images(self, stop):
        """Measure the real images that metrics read. Measures each split only once.

        Returns False after a stop signal.
        """
        for split, image_set in self.image_sets.items():
            needs = self._needs(split)._replace(score=False)
            if split in self._known or not any(needs):
                continue
            title = "training images" if split == "train" else "real images"
            found = real_summary(image_set, self.extractor, needs, title, stop)
            if found is None:
                return False
            self._known[split] = found
            self._add_seconds("real images", found.earlier)
        return True

    def _within_classes(self, source, stop):
        """The `within_class` of every class of `source`, float [num_classes] by metric; None after a stop signal.

        The values of the real images are kept in `_real_within_classes`.
        """
        found = {}
        for metric in self.metrics:
            if metric.within_class is None:
                continue
            if metric.name not in self._real_within_classes:
                # The data sets measured by a classifier have few test images of each class. So use training images.
                real = RealImages(self.image_sets["train"] if self._by_classifier else self.real_set)
                if (values := self._values_of_classes(metric, real, "real", stop)) is None:
                    return None
                self._real_within_classes[metric.name] = values
            if (values := self._values_of_classes(metric, source, "generated", stop)) is None:
                return None
            found[metric.name] = values
        return found

    def _values_of_classes(self, metric, source, title, stop):
        """`metric.within_class` of every class of `source`, float [num_classes]; None after a stop signal."""
        rank, world_size, classes = collectives.rank(), collectives.world_size(), self.num_classes
        values = np.zeros(classes)
        rounds = range(0, classes, world_size)  # each process takes one class in a round
        for first in progress(rounds, title=f"{metric.name}, {title}", unit="class", shown=rank == 0):
            if stop.requested():  # the same on all processes
                return None
            if (label := first + rank) < classes:
                values[label] = metric.within_class(_ImagesOfClass(source, label), self.parameters.manual_seed, label)
        return sum(collectives.gather(values))

    def _compute(self, samples, source, stop):
        """The figures by name, from the `Summary` of the samples of `source`, on rank 0.

        Raises _Stopped soon after a signal.
        """
        real, training, test = map(self._known_set, (REAL, TRAINING, TEST))
        real = real._replace(within_classes=self._real_within_classes)
        read = map(self._with_last_layer, (samples, real, training, test))
        images = {name: RealImages(self.images_of(name)) for name in (REAL, TRAINING, TEST) if self.images_of(name)}
        images[SAMPLES] = source
        sets = Sets(*read, self.num_classes, self.parameters.manual_seed, images, _progress_until(stop))
        figures = {}
        for metric in self.metrics:
            _raise_if_stopped(stop)
            shown = metric.shown(self._by_classifier)
            figures |= {shown[name].name: value for name, value in metric.compute(sets).items()}
        return figures

    def _known_set(self, name):
        """The `Summary` of the set `name` of real images, with their classes."""
        image_set = self.images_of(name)
        labels = image_set.labels if image_set else ()
        known = self._known.get(self._origin[name]) or Summary(len(labels), {}, None, {}, {})
        return known._replace(labels=labels)

    def _with_last_layer(self, known):
        """`known`, in which LAST_LAYER, the metrics' name of the extractor's last layer, gives its Gaussian."""
        last = known.gaussians.get(self._extractor_class.last_layer)
        return known._replace(gaussians=known.gaussians | {LAST_LAYER: last})


class _Stopped(Exception):
    """A signal has asked this process to stop."""


def _raise_if_stopped(stop):
    if stop.asked is not None:  # ask this process only: the other processes have finished their work
        raise _Stopped


def _progress_until(stop):
    """`Sets.progress`: a bar that raises _Stopped after a signal."""

    @contextlib.contextmanager
    def bar_of(title, unit):
        with progress(title=title, unit=unit) as bar:

            def show(done, total):
                _raise_if_stopped(stop)
                bar.total = total
                bar.update(done - bar.n)

            yield show

    return bar_of


class _ImagesOfClass:
    """The images of one class of a source, by their index within the class."""

    def __init__(self, source, label):
        self.source, self.indices = source, np.flatnonzero(source.labels == label)

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, indices):
        return self.source.images(self.indices[indices])
