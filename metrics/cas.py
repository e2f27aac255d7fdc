"""Classification accuracy score: a classifier is trained on samples and tested on real images, and the reverse.

Ravuri and Vinyals, *Classification Accuracy Score for Conditional Generative Models*, NeurIPS 2019. The score is low if
samples show another class than the requested one, or if they lack variety. The reverse, trained on real images and
tested on samples, is not lowered by a lack of variety (Shmelkov et al., *How good is my GAN?*, ECCV 2018, call the two
GAN-train and GAN-test). The paper trains a ResNet-50 for 90 epochs. Here gray images get the small classifier of
`metrics/classifier.py`, others a ResNet-18.
"""

import contextlib
import tempfile
from functools import partial

import numpy as np

import randomness
from metrics.record import SAMPLES, TEST, TRAINING, Figure, Metric
from utils import UserError

UPDATES, BATCH, LEARNING_RATE = 5000, 128, 1e-3  # of a ResNet-18
CHUNK = 256  # images that are read at once


def classification_scores(samples, training, test, num_classes, seed, progress):
    """{"cas", "cas_real", "cas_reverse"}: the shares of images that a classifier reads as their class.

    `samples`, `training`, `test`: images as `evaluation.sources` describes them. They have `labels` int64 [N], and
    `images(indices)` uint8 [n, C, S, S]. `progress`: as in `metrics.record.Sets`.

    On a CPU the small classifier uses one thread, so that its figures depend neither on the number of threads nor on
    that of processes. Another number of threads changes the rounding of a ResNet-18.
    """
    with _kept(samples, progress) as kept:
        by_samples = _trained(kept, num_classes, seed, progress, "samples")
        cas = _accuracy(by_samples, test, progress, "real images")
        by_real = _trained(training, num_classes, seed, progress, "real images")
        real = _accuracy(by_real, test, progress, "real images")
        return {"cas": cas, "cas_real": real, "cas_reverse": _accuracy(by_real, kept, progress, "samples")}


class _Kept:
    """Images in an array, and their labels."""

    def __init__(self, array, labels):
        self._array, self.labels = array, labels

    def images(self, indices):
        return self._array[indices]


@contextlib.contextmanager
def _kept(source, progress):
    """The images of `source` in a temporary file, because drawing each sample again would take too long."""
    count = len(source.labels)
    with tempfile.TemporaryFile() as file, progress("samples, for cas", "img") as show:
        for start in range(0, count, CHUNK):
            images = source.images(np.arange(start, min(start + CHUNK, count)))
            _write(file, images)
            show(min(start + CHUNK, count), count)
        yield _Kept(np.memmap(file, np.uint8, "r", shape=(count, *images.shape[1:])), source.labels)


def _write(file, images):
    try:
        file.write(np.ascontiguousarray(images))
        file.flush()
    except OSError as error:
        raise UserError(
            f"--metrics cas needs room for all samples in {tempfile.gettempdir()}: {error.strerror}; set TMPDIR to "
            "another folder"
        ) from None


def _trained(source, num_classes, seed, progress, title):
    """A classifier trained on the images of `source`: a function from uint8 [N, C, S, S] to classes int64 [N]."""
    import paddle  # here, because `--help` does not need it

    import runtime
    from metrics import classifier

    channels, size = source.images(np.arange(1)).shape[1:3]
    if channels == 1 and size % 4:
        raise UserError(f"--metrics cas needs images of a multiple of 4 pixels a side if they are gray, not {size}")
    paddle.seed(int(randomness.rng(seed, "cas").integers(2**31)))
    if channels == 1:
        network, threads = classifier.Classifier(channels, size, num_classes), 1
        how = classifier.UPDATES, classifier.BATCH, classifier.LEARNING_RATE
    else:
        network, threads = paddle.vision.models.resnet18(num_classes=num_classes), runtime.threads()
        how = UPDATES, BATCH, LEARNING_RATE
    shown = partial(_shown, progress, f"classifier of {title}")
    classifier.train(network, source.images, source.labels, seed, *how, threads, shown)
    return partial(classifier.read_classes, network, threads)


def _shown(progress, title, numbers):
    """The range `numbers`, with a progress bar."""
    with progress(title, "update") as show:
        for number in numbers:
            yield number
            show(number + 1, len(numbers))


def _accuracy(read, source, progress, title):
    """The share of the images of `source` that the classifier `read` reads as their class."""
    right, count = 0, len(source.labels)
    with progress(f"{title} read for cas", "img") as show:
        for start in range(0, count, CHUNK):
            indices = np.arange(start, min(start + CHUNK, count))
            right += int((read(source.images(indices)) == source.labels[indices]).sum())
            show(int(indices[-1]) + 1, count)
    return right / count


def _compute(sets):
    images = (sets.images[name] for name in (SAMPLES, TRAINING, TEST))
    return classification_scores(*images, sets.num_classes, sets.seed, sets.progress)


METRICS = (
    Metric(
        "cas",
        (
            Figure("cas", "real test images read by a classifier trained on samples (CAS)", ".2%"),
            Figure("cas_real", "real test images read by a classifier trained on real images", ".2%"),
            Figure("cas_reverse", "samples read by a classifier trained on real images", ".2%"),
        ),
        _compute,
        order=65,
        sets=(SAMPLES, TRAINING, TEST),
        needs_classes=True,
        higher_is_better=True,
        settings=lambda samples, real: {
            "classifier of cas": f"ResNet-18, {UPDATES} updates of {BATCH} images; for gray images the small classifier"
        },
    ),
)
