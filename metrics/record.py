"""The record of a metric. The options, the evaluation and the report read everything about a metric from it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

# The sets of images that a metric may read. REAL are those of --real_split, or the statistics of --reference.
SAMPLES, REAL, TRAINING, TEST = "samples", "real", "training", "test"
LAST_LAYER = "last"  # the layer before the classes, of Inception or of the classifier
ANY_DATA, BOTH_SPLITS, CLASSIFIED_DATA = "any", "both splits", "classified"  # see `Metric.auto`


class Figure(NamedTuple):
    """One number that a metric gives. The last two fields replace name and title if a classifier reads the images."""

    name: str  # in report.json and in the log
    title: str  # in the table
    format: str
    classifier_name: str = ""  # if empty: "classifier_" and the name
    classifier_title: str = ""  # if empty: "classifier " and the title

    def by_classifier(self):
        """The figure to show if a classifier reads the images."""
        name = self.classifier_name or f"classifier_{self.name}"
        return Figure(name, self.classifier_title or f"classifier {self.title}", self.format)


class Summary(NamedTuple):
    """The values measured on a set of `count` images. A field that no chosen metric needs is empty."""

    count: int
    gaussians: dict  # by layer: `metrics.fid.Gaussian`
    features: Any  # of the last layer, float32 [count, width]
    right: dict  # by resolution: the number of images that are read as their class
    score: dict  # the Inception Score
    labels: Any = None  # int64 [count]
    within_classes: dict | None = None  # by metric: its `within_class` of each class, float [num_classes]
    place: str | None = None  # the file or folder that holds it
    earlier: float = 0.0  # seconds that interrupted sessions spent on it


class Sets(NamedTuple):
    """The argument of `Metric.compute`."""

    samples: Summary
    real: Summary
    training: Summary
    test: Summary
    num_classes: int | None
    seed: int
    images: dict  # the images of each set that a metric reads, by name, as `evaluation.sources` describes them
    progress: Callable  # `with progress(title, unit) as show:` shows a bar, which `show(done, total)` moves


@dataclass(frozen=True)
class Metric:
    """A metric. `name` is its name in `--metrics`. `compute(sets)` returns its figures: numbers by `Figure.name`."""

    name: str
    figures: tuple
    compute: Callable
    order: int = 1000  # in the report and in `--help`: a lower one comes first

    # The sets of images that it reads, and the values that it needs of each.
    sets: tuple = (SAMPLES, REAL)
    layer: str = ""  # the mean and covariance of this layer: LAST_LAYER, or one of Inception's
    features: bool = False  # the features of the last layer, of every image
    logits: bool = False  # the sums of the Inception Score, of the samples
    reads_classes: bool = False  # the number of images that are read as their class
    within_class: Callable | None = None  # a number of each class: within_class(images, seed, label)

    # The data that it needs. It refuses others.
    fewest: int = 1  # images in each set
    fewest_of_class: int = 0  # images of each class
    smallest: int = 1  # pixels a side
    needs_classes: bool = False  # of the samples

    # The meaning of its figures.
    higher_is_better: bool = False
    best: str = ""  # the figure that chooses the best weights; if empty: the first
    auto: str = ""  # the data for which `--metrics auto` chooses it: ANY_DATA, BOTH_SPLITS, CLASSIFIED_DATA; "": none
    settings: Callable = lambda samples, real: {}  # settings for the report, from the numbers of images
    caution: Callable = lambda figures, settings: None  # a warning for the report, or None

    @property
    def uses_network(self):
        """Whether Inception or the classifier has to read the images."""
        return bool(self.layer or self.features or self.logits or self.reads_classes)

    @property
    def takes_statistics(self):
        """Whether the real images may be given as statistics, by `--reference`."""
        if not {REAL, TEST} & set(self.sets):
            return True
        return self.sets == (SAMPLES, REAL) and bool(self.layer) and not self.features

    @property
    def compares_sets(self):
        """Whether it compares all samples with all real images, without regard to classes."""
        return {SAMPLES, REAL} <= set(self.sets) and bool(self.layer or self.features) and not self.needs_classes

    def shown(self, by_classifier):
        """The figures to show, by their names in the result of `compute`."""
        by_classifier = by_classifier and self.uses_network
        return {figure.name: figure.by_classifier() if by_classifier else figure for figure in self.figures}
