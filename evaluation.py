"""The metrics of a set of images against real ones, by name: what `test.py` prints and `train.py --eval_step` logs."""

import contextlib
import functools
import hashlib
import math
import os
import re
import time

import numpy as np

import runtime
from checkpoint import compare_classes
from dataset import load_dataset
from extractors import ClassifierExtractor, InceptionExtractor
from image_files import fit_in_words
from measurement import SPLITS, Needs, measure
from metrics.class_accuracy import RESOLUTIONS
from metrics.diversity import class_distance, class_ms_ssim, varied_classes
from metrics.fid import fid
from metrics.intra_fid import intra_fid
from metrics.kid import kid
from metrics.ms_ssim import SMALLEST
from metrics.prdc import prdc
from options import did_you_mean
from parameters import CLASSIFIED
from reference import content_digest, given_summary, real_summary, summary
from sources import Drawn, Real
from utils import UserError, file_digest, progress

# Of a metric that is not one figure of its name: the figure that tells the best of several.
MAIN = {"is": "inception_score", "prdc": "density", "distance": "class_distance_ratio"}
HIGHER_IS_BETTER = {"is", "prdc", "accuracy", "distance"}
FEWEST = {"fid": 2, "is": SPLITS, "kid": 2, "prdc": 6, "intra_fid": 2}  # samples
OF_FEATURES = {"kid", "prdc", "intra_fid"}
OF_CLASSES = {"accuracy", "intra_fid", "ms_ssim", "distance"}
KID_SUBSETS, KID_SUBSET_SIZE, NEAREST = 100, 1000, 5
PER_CLASS = 1000  # images of each class that the distance compares


class Evaluation:
    """The metrics that `parameters.metrics` chooses, ready to be taken of any source of images of the right size.

    `class_names`: of the generator's classes, if they are known. `seconds` gathers how long each stage took, with what
    interrupted sessions did of it. Raises UserError where weights, statistics or data do not fit.
    """

    def __init__(self, parameters, class_names=None):
        p = self.parameters = parameters
        self._class_names = class_names
        self.seconds = {}
        self.metrics = chosen = p.chosen_metrics
        wants_test = not p.reference and set(chosen) - {"is"}
        wants_train = chosen and (p.dataset in CLASSIFIED or "floor" in chosen)
        self.test_set = load_dataset(p, "test") if wants_test else None
        self.train_set = load_dataset(p, "train") if wants_train else None
        self.needs = self._needs(chosen)
        self.extractor = self._real = self._floor = None
        self._real_by_class = {}  # by metric: of the real images, [num_classes]
        if p.reference:
            self._real = given_summary(p.reference, self.needs.taps)

    @property
    def num_classes(self):
        """How many classes the real images have; None where that is not known."""
        return self.test_set.num_classes if self.test_set else self.parameters.num_classes

    @property
    def needs_classes(self):
        """Whether a metric is of the samples' classes."""
        return bool(OF_CLASSES & set(self.metrics))

    def settings(self, count):
        """What the figures of `count` samples depend on besides these: plain values by name."""
        p = self.parameters
        found = {"metrics": ",".join(self.metrics) or "none", "real images": p.reference or "none"}
        if self.test_set:
            path = p.test_data_path or p.data_path
            found["real images"] = f"test images of {p.dataset}" + (f" in {path}" if path else "")
            found |= {"number of real images": len(self.test_set), "transform": fit_in_words(p)}
        if self.train_set:
            found["training images"] = f"of {p.dataset}" + (f" in {p.data_path}" if p.data_path else "")
            found["number of training images"] = len(self.train_set)
        if p.dataset in CLASSIFIED:  # whose test images are few of a class
            found |= {name: "beside training images" for name in ("ms_ssim", "distance") if name in self.metrics}
        if "kid" in self.metrics:
            found |= {"kid subsets": KID_SUBSETS, "kid subset size": min(KID_SUBSET_SIZE, count, len(self.test_set))}
        if "prdc" in self.metrics:
            found["prdc"] = f"{NEAREST} nearest neighbours"
        if self.metrics and p.dataset not in CLASSIFIED:
            found["half precision"] = p.half_precision
        return found

    def _needs(self, chosen):
        """What the metrics `chosen` need of a pass."""
        p = self.parameters
        tap = "features" if p.dataset in CLASSIFIED else "2048"
        layers = {"fid": tap, "floor": tap, "fid_64": "64", "fid_192": "192", "fid_768": "768"}
        taps = [layers[name] for name in chosen if name in layers]
        resolutions = ()
        if "accuracy" in chosen:
            lower = () if p.dataset in CLASSIFIED else tuple(size for size in RESOLUTIONS if size < p.imsize)
            resolutions = (*lower, p.imsize)
        return Needs(tuple(dict.fromkeys(taps)), bool(OF_FEATURES & set(chosen)), "is" in chosen, resolutions)

    @contextlib.contextmanager
    def stage(self, name):
        """Add to `seconds` how long the block takes that runs under it."""
        start = time.monotonic()
        yield
        self._add_seconds(name, time.monotonic() - start)

    def _add_seconds(self, name, seconds):
        self.seconds[name] = round(self.seconds.get(name, 0) + seconds, 3)

    @functools.cached_property
    def _classified(self):
        """The test images, for their classes alone where no metric needs them; None where none are given."""
        p = self.parameters
        return self.test_set or (load_dataset(p, "test") if p.test_data_path else None)

    @functools.cached_property
    def class_names(self):
        """The names of the classes that are drawn: those given, or else the test images', or else their numbers."""
        if self._class_names:
            return self._class_names
        if self._classified:
            return self._classified.class_names
        return tuple(map(str, range(self.parameters.num_classes)))

    @functools.cached_property
    def chosen_classes(self):
        """The numbers of the classes that are drawn, in the order of `labels`."""
        return choose_labels(self.parameters.labels, self.class_names)

    @functools.cached_property
    def _test_labels(self):
        """The classes of the test images, shuffled: a part of them has all classes too."""
        return runtime.generator(self.parameters.manual_seed, "test labels").permutation(self._classified.labels)

    def drawn(self, generator, count):
        """Samples of `generator` as a source, of the classes that `labels` chooses."""
        p = self.parameters
        by_test_images = p.labels == "auto" and p.test_data_path
        classes = self._test_labels if by_test_images else np.array(self.chosen_classes)
        return Drawn(generator, p, classes[np.arange(count) % len(classes)])

    def score(self, figures):
        """What tells the best of several `figures`, higher for better: the first of the metrics."""
        metric = self.metrics[0]
        name = MAIN.get(metric, metric)
        value = figures[name] if name in figures else figures[_of_classifier(name)]
        return value if metric in HIGHER_IS_BETTER else -value

    @functools.cached_property
    def key(self):
        """What tells `score`s that compare from others, a text, after `prepare`.

        It is of the metric, how the samples are drawn, the real images and the extractor.
        """
        p = self.parameters
        real = file_digest(p.reference) if p.reference else self.test_set and content_digest(self.test_set)
        standing = p.standing_batches and (p.standing_batches, p.batch_size)
        drawn = (p.eval_samples, p.labels, p.use_ema, standing, p.truncation)
        extractor = self.extractor and self.extractor.key
        return hashlib.sha256(repr((self.metrics[0], drawn, real, extractor)).encode()).hexdigest()[:16]

    def check(self, source):
        """Raise UserError unless the metrics can be taken of `source`."""
        p, chosen = self.parameters, set(self.metrics)
        of_folders = p.dataset in ("folder", "imagenet")
        if "floor" in chosen and of_folders and os.path.samefile(p.data_path, p.test_data_path):
            raise UserError(
                f"--metrics floor compares test images with training images, but --test_data_path {p.test_data_path} "
                f"and --data_path {p.data_path} are one folder: give another --test_data_path, or leave floor out"
            )
        for name in sorted(chosen & FEWEST.keys()):
            if len(source) < FEWEST[name]:
                found = f"{FEWEST[name]} samples or more, not {len(source)}"
                raise UserError(f"{name!r} needs {found}: give more, or leave it out of --metrics")
            if name != "is" and self.test_set and len(self.test_set) < FEWEST[name]:
                found = f"{FEWEST[name]} real images or more, not {len(self.test_set)}"
                raise UserError(f"{name!r} needs {found}: give more, or leave it out of --metrics")
        if "ms_ssim" in chosen and source.size < SMALLEST:
            raise UserError(f"--metrics ms_ssim needs images of {SMALLEST} pixels or more a side, not {source.size}")
        classes, labels = self.num_classes, source.labels
        if classes and labels is not None and len(wrong := labels[(labels < 0) | (labels >= classes)]):
            raise UserError(f"--samples have the class {wrong[0]}, which is none: there are {classes}, from 0")
        if not self.needs_classes:
            return
        if labels is None:
            name = min(chosen & OF_CLASSES)
            raise UserError(f"--metrics {name} needs the samples' classes: arr_1 in the .npz, or class folders")
        for whose, labels in (("samples", source.labels), ("real images", self.test_set.labels)):
            few = np.flatnonzero(np.bincount(labels, minlength=classes) < 2)
            if len(few) and (names := chosen & {"intra_fid", "ms_ssim"}):
                raise UserError(f"--metrics {min(names)} needs two {whose} of each class; class {few[0]} has fewer")

    def check_names(self, class_names, source):
        """Raise UserError where the test images' classes have other names than those that `source` draws.

        They matter where a metric is of classes, or where the samples' classes are those of the test images.
        """
        p = self.parameters
        if not (self.needs_classes or (p.labels == "auto" and p.test_data_path)):
            return
        if not class_names:
            runtime.say(f"{source} does not tell the names of its classes, so they are not compared")
        elif difference := compare_classes(class_names, self._classified.class_names):
            where = f"--test_data_path {p.test_data_path}" if p.test_data_path else f"--dataset {p.dataset}"
            raise UserError(
                f"{where} does not have the classes that {source} has ({difference}): give test images of "
                "the same classes, or --labels uniform and --metrics without classes, such as fid"
            )

    def prepare(self):
        """Load Inception, or train the classifier, if the metrics need them and it is not done."""
        p = self.parameters
        if self.extractor or not any(self.needs):
            return
        with self.stage("extractor"):
            if p.dataset in CLASSIFIED:
                self.extractor = ClassifierExtractor(p, self.train_set)
            else:
                names = self.test_set.class_names if self.test_set else ()
                self.extractor = InceptionExtractor(p, self.needs, names)

    def figures(self, source, stop, writers=(), parts_folder=None, key=None):
        """The metrics of `source`, a dictionary by name, on rank 0 (elsewhere {}); None when `stop` was asked.

        The rest is as in `measurement.measure`; parts that another extractor has measured are not taken over.
        """
        self.prepare()
        with self.stage("real images"):
            if not self._real_is_known(stop):
                return None
        needs = self._needs([name for name in self.metrics if name != "floor"])
        key = f"{key} {self.extractor.key if self.extractor else ''}"
        with self.stage("samples"):
            seed = self.parameters.manual_seed
            seen = measure(source, self.extractor, needs, seed, "samples", stop, writers, parts_folder, key)
            if seen is None:
                return None
        self._add_seconds("samples", seen.earlier)
        with self.stage("classes"):
            by_class = self._by_class(source, stop)
            if by_class is None:
                return None
        if runtime.rank():
            return {}
        try:
            with self.stage("figures"):
                return self._compare(summary(seen, len(source)), source.labels, by_class, stop)
        except _Stopped:
            return None

    @property
    def real_place(self):
        """Where on disk the statistics of the real images are, after `figures`; None where none were needed."""
        return self._real and self._real.place

    def _real_is_known(self, stop):
        """Summarise the real images, once; False when `stop` was asked."""
        needs = self.needs._replace(score=False)
        if self._real is None and self.test_set and any(needs):
            self._real = real_summary(self.test_set, self.extractor, needs, "real images", stop)
            if self._real is None:
                return False
            self._add_seconds("real images", self._real.earlier)
        if self._floor is None and "floor" in self.metrics:
            self._floor = real_summary(
                self.train_set, self.extractor, Needs((self.extractor.tap,)), "training images", stop
            )
            if self._floor is None:
                return False
            self._add_seconds("real images", self._floor.earlier)
        return True

    def _by_class(self, source, stop):
        """What compares images within a class, of real and of generated ones: arrays [num_classes] by name.

        None when `stop` was asked.
        """
        result = {}
        for name in (name for name in ("ms_ssim", "distance") if name in self.metrics):
            if name not in self._real_by_class:
                real = Real(self.train_set if self.parameters.dataset in CLASSIFIED else self.test_set)
                if (values := self._of_classes(name, real, "real", stop)) is None:
                    return None
                self._real_by_class[name] = values
            if (values := self._of_classes(name, source, "generated", stop)) is None:
                return None
            result[name] = self._real_by_class[name], values
        return result

    def _of_classes(self, name, source, whose, stop):
        """The metric `name` within each class of `source`, [num_classes]; None when `stop` was asked."""
        measure_class = {"ms_ssim": self._ms_ssim, "distance": self._distance}[name]
        rank, world_size, classes = runtime.rank(), runtime.world_size(), self.test_set.num_classes
        values = np.zeros(classes)
        rounds = range(0, classes, world_size)
        for first in progress(rounds, title=f"{name}, {whose}", unit="class", shown=rank == 0):
            if stop.requested():  # on all processes or on none
                return None
            if (label := first + rank) < classes:
                values[label] = measure_class(source, label)
        return sum(runtime.gather(values))

    def _ms_ssim(self, images, label):
        return class_ms_ssim(_OfClass(images, label), self.parameters.manual_seed, label)

    def _distance(self, images, label):
        chosen = _OfClass(images, label)
        some = np.arange(min(len(chosen), PER_CLASS))
        if len(some) < 2:
            return np.nan
        return class_distance(chosen[some], np.full(len(some), label))["class_distance"]

    def _compare(self, found, labels, by_class, stop):
        """The figures of `found`, on rank 0; raises _Stopped soon after it has been signalled."""
        real, chosen, prefix, figures = self._real, self.metrics, self.extractor and self.extractor.prefix, {}
        for resolution, right in found.right.items():
            name = f"{prefix}accuracy" + ("" if resolution == self.parameters.imsize else f"_{resolution}")
            figures |= {name: right / found.count, f"{name}_real": real.right[resolution] / real.count}
        for tap, gaussian in found.gaussians.items():
            _go_on(stop)
            name = "fid" if tap == self.extractor.tap else f"fid_{tap}"
            figures[prefix + name] = fid(real.gaussians[tap], gaussian)["fid"]
        if "floor" in chosen:
            _go_on(stop)
            tap = self.extractor.tap
            figures[f"{prefix}fid_floor"] = fid(self._floor.gaussians[tap], real.gaussians[tap])["fid"]
        figures |= {name if not prefix else _of_classifier(name): value for name, value in found.score.items()}
        if "kid" in chosen:
            size, seed = min(KID_SUBSET_SIZE, found.count, real.count), self.parameters.manual_seed
            with _progress("KID", "subset", stop) as show:
                values = kid(real.features, found.features, KID_SUBSETS, size, seed, show)
            figures |= {prefix + name: value for name, value in values.items()}
        if "prdc" in chosen:
            with _progress("precision, recall", "block", stop) as show:
                values = prdc(real.features, found.features, NEAREST, progress=show)
            figures |= {prefix + name: value for name, value in values.items()}
        if "intra_fid" in chosen:
            classes = self.test_set.num_classes
            with _progress("intra-FID", "class", stop) as show:
                values = intra_fid(real.features, self.test_set.labels, found.features, labels, classes, show)
            figures[f"{prefix}intra_fid"] = values["intra_fid"]
        if "ms_ssim" in chosen:
            figures |= varied_classes(*by_class["ms_ssim"])
        if "distance" in chosen:
            real_distance, distance = by_class["distance"]
            both = np.isfinite(real_distance) & np.isfinite(distance)  # classes with two images or more
            known = real_distance[both].any()
            ratio = distance[both].mean() / real_distance[both].mean() if known else math.nan
            figures["class_distance_ratio"] = float(ratio)
        return figures


def choose_labels(labels, class_names):
    """The numbers of the classes that the option `labels` chooses, in its order; all for auto and uniform.

    A word is the name of a class, or else its number: where a class is called 3, 3 means that one. A name with commas
    can be given alone. Raises UserError, with the names that there are, for other words and for a class given twice.
    """
    if labels in ("auto", "uniform"):
        return list(range(len(class_names)))
    words = [labels] if labels in class_names else [word.strip() for word in labels.split(",")]
    chosen = [_class_of(word, class_names) for word in words]
    for place, label in enumerate(chosen):
        if label in chosen[:place]:
            first = words[chosen.index(label)]
            raise UserError(f"--labels {labels}: {first!r} and {words[place]!r} are one class; give it once")
    return chosen


def _class_of(word, class_names):
    if word in class_names:
        return class_names.index(word)
    if re.fullmatch("[0-9]{1,5}", word) and int(word) < len(class_names):
        return int(word)
    listed = ", ".join(class_names[:5]) + ", …" * (len(class_names) > 5)
    hint = did_you_mean(word, class_names)
    raise UserError(f"--labels {word:.80} is no class: there are {len(class_names)}, from 0: {listed}{hint}")


class _Stopped(Exception):
    """A signal has asked this process to stop."""


def _go_on(stop):
    if stop.asked is not None:  # of this process alone: the others have nothing to do any more
        raise _Stopped


@contextlib.contextmanager
def _progress(title, unit, stop):
    """A bar, as the function that a metric calls with how much of how much is done; it raises _Stopped."""
    with progress(title=title, unit=unit) as bar:

        def show(done, total):
            _go_on(stop)
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _of_classifier(name):
    return "classifier_" + name.removeprefix("inception_")


class _OfClass:
    """The images of one class of a source, by their numbers among them."""

    def __init__(self, source, label):
        self.source, self.indices = source, np.flatnonzero(source.labels == label)

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, numbers):
        return self.source.images(self.indices[numbers])
