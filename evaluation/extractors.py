"""The networks that read images for the metrics: Inception, or a classifier that is trained here."""

import hashlib
import sys

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from checkpoint import check_shapes
from evaluation.reference import cache_folder, content_digest
from metrics.class_accuracy import at_resolution, class_is_read
from metrics.classifier import classifier_of, train_classifier
from metrics.imagenet_classes import inception_classes
from metrics.inception import Inception
from metrics.inception_weights import SHA256, find_weights, load_weights
from processes import collectives
from utils import UserError, atomic_path


class InceptionExtractor:
    """The Inception-v3 of 2015. `weights` names the file of its weights, for the report."""

    last_layer = "2048"

    def __init__(self, parameters, needs, class_names):
        layers = {*needs.layers}
        if needs.features:
            layers.add("2048")
        if needs.score:
            layers.add("logits_unbiased")
        if needs.resolutions:
            layers.add("logits")
            self._logits_of_classes = inception_classes(class_names)
        found = collectives.on_rank_0(find_weights, parameters.inception_weights)  # rank 0 downloads them
        path, digest = found if collectives.rank() == 0 else find_weights(parameters.inception_weights)
        weights = load_weights(path)
        self.weights = f"{'published' if digest == SHA256 else 'own'} file {path}, SHA-256 {digest}"
        self.key = "inception " + _digest(weights) + (" half" if parameters.half_precision else "")
        self._inception = Inception(weights, tuple(sorted(layers)), half=parameters.half_precision)

    def read(self, images, labels, needs):
        """The values in `needs` for images uint8 [n, 1 or 3, S, S] and labels int64 [n]: arrays [n, ...] by name."""
        images = np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images
        found = self._inception.features(images)
        read = {layer: found[layer] for layer in needs.layers}
        if needs.features:
            read["features"] = found["2048"]
        if needs.score:
            read["score"] = found["logits_unbiased"]
        for resolution in needs.resolutions:
            logits = found["logits"]
            if resolution < images.shape[-1]:
                logits = self._inception.features(at_resolution(images, resolution))["logits"]
            read["right", resolution] = class_is_read(logits, labels, self._logits_of_classes)
        return read


class ClassifierExtractor:
    """A classifier trained on the training images of the data set."""

    last_layer = "features"

    def __init__(self, parameters, train_set):
        # Only rank 0 trains it: the same training on another machine may give other weights.
        weights = collectives.on_rank_0(_trained_weights, train_set, parameters.manual_seed)
        self._classifier = classifier_of(train_set)
        self._classifier.set_state_dict(weights)
        self.key = "classifier " + _digest(weights)

    def read(self, images, labels, needs):
        """As `InceptionExtractor.read`, for images of the size of the data set."""
        features, logits = self._classifier.read(images)
        read = {"features": features} if needs.layers or needs.features else {}
        if needs.score:
            read["score"] = logits
        for resolution in needs.resolutions:
            read["right", resolution] = class_is_read(logits, labels, np.arange(logits.shape[1]))
        return read


def _trained_weights(train_set, seed):
    """The weights by name of a classifier trained on `train_set` with `seed`. Read from the cache, or trained now."""
    file = cache_folder("classifiers") / f"{content_digest(train_set)}-{seed}.safetensors"
    expected = {name: list(tensor.shape) for name, tensor in classifier_of(train_set).state_dict().items()}
    if file.exists():
        try:
            weights = load_file(file)
            check_shapes(expected, weights, file)
            return weights
        except (SafetensorError, OSError, UserError) as error:
            print(f"{file} is ignored: {error}; the classifier is trained again", file=sys.stderr)
    weights = {name: tensor.numpy() for name, tensor in train_classifier(train_set, seed).state_dict().items()}
    with atomic_path(file) as temporary:
        save_file(weights, temporary)
    return weights


def _digest(weights):
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(weights):
        digest.update(name.encode() + np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()
