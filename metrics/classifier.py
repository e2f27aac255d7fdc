"""A small classifier that reads the class of a generated image. It is trained on real images only."""

from functools import partial

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

import randomness
import runtime
from utils import UserError, progress

UPDATES = 1000
BATCH = 64
LEARNING_RATE = 2e-3


class Classifier(nn.Layer):
    """Images [N, C, S, S] in [-1, 1] to class logits [N, num_classes]; S a multiple of 4."""

    def __init__(self, channels, size, num_classes):
        super().__init__()
        self.conv1 = nn.Conv2D(channels, 16, 3, padding=1)
        self.conv2 = nn.Conv2D(16, 32, 3, padding=1)
        self.hidden = nn.Linear(32 * (size // 4) ** 2, 128)
        self.classes = nn.Linear(128, num_classes)

    def features(self, images):
        """Penultimate features [N, 128]."""
        out = F.max_pool2d(F.relu(self.conv1(images)), 2)
        out = F.max_pool2d(F.relu(self.conv2(out)), 2)
        return F.relu(self.hidden(out.flatten(1)))

    def forward(self, images):
        return self.classes(F.dropout(self.features(images), 0.3, training=self.training))

    def read(self, images):
        """(features float32 [N, 128], class logits float32 [N, num_classes]) of images uint8 [N, C, S, S]."""
        self.eval()
        with paddle.no_grad(), runtime.math_threads(1):
            features = self.features(_to_range(images))
            return features.numpy(), self.classes(features).numpy()


def classifier_of(image_set):
    """An untrained `Classifier` for the images and classes of `image_set`. Raises UserError for an unfit size."""
    channels, size, _ = image_set.image_shape
    if size % 4:
        raise UserError(f"the classifier that measures --dataset {image_set.name} needs --imsize a multiple of 4")
    return Classifier(channels, size, image_set.num_classes)


def train_classifier(image_set, seed):
    """A `Classifier` trained on `image_set`. Each batch is shifted at random by up to a sixteenth of the image size.

    Like `read`, it computes on one thread. So the figures do not depend on the number of threads or processes.
    """
    images = image_set.stacked()
    paddle.seed(int(randomness.rng(seed, "classifier").integers(2**31)))
    classifier = classifier_of(image_set)
    shown = partial(progress, title="classifier", unit="update")
    return train(classifier, images.__getitem__, image_set.labels, seed, UPDATES, BATCH, LEARNING_RATE, 1, shown)


def train(network, read, labels, seed, count, batch, learning_rate, threads, shown):
    """Train `network`, from images in [-1, 1] to class logits, with cross-entropy and Adam. Returns the network.

    `read(indices)`: images uint8 [n, C, S, S]. `labels`: int64 [N]. Each of `count` updates has `batch` images, shifted
    at random by up to a sixteenth of their size. The learning rate falls from `learning_rate` to 0 along a cosine.
    `threads`: of the maths library on the CPU. `shown(range)`: that range, with a progress bar.
    """
    schedule = paddle.optimizer.lr.CosineAnnealingDecay(learning_rate, count)
    optimizer = paddle.optimizer.Adam(schedule, parameters=network.parameters())
    network.train()
    with runtime.math_threads(threads):
        for update in shown(range(count)):
            rng = randomness.rng(seed, "classifier batch", update)
            chosen = rng.integers(len(labels), size=batch)
            images = read(chosen)
            reach = images.shape[-1] // 16
            shift = tuple(rng.integers(-reach, reach + 1, size=2))
            logits = network(_to_range(np.roll(images, shift, axis=(2, 3))))
            loss = F.cross_entropy(logits, paddle.to_tensor(labels[chosen]))
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            schedule.step()
    return network


def read_classes(network, threads, images):
    """The class that `network` reads in each of `images`, uint8 [N, C, S, S]: int64 [N]. `threads`: as in `train`."""
    network.eval()
    with paddle.no_grad(), runtime.math_threads(threads):
        return network(_to_range(images)).numpy().argmax(1)


def _to_range(images):
    return paddle.to_tensor(images).astype("float32") / 127.5 - 1
