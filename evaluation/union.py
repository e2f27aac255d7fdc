"""Samples of several generators, each for its own classes. A hundred models of ten classes are measured together."""

import dataclasses
import hashlib
import math
from pathlib import Path

import numpy as np

import pictures
import sampler
from checkpoint import load_file_or_run
from evaluation.sources import ChosenClasses, GeneratorSamples, write_class_grid
from parameters import DATA_SETS, from_values
from utils import UserError

# Options of the test that decide how each generator draws. The checkpoints decide the others.
OF_DRAWING = ("manual_seed", "truncation", "standing_batches", "batch_size", "use_ema")


class Union(ChosenClasses):
    """`num_samples` samples of the generators of `parameters.pretrained_models`. Classes are matched by name.

    If several generators have a class, they draw its samples in turn. Sample i depends only on the seed, i, its class
    and its generator. `first`: the `Checkpoint` of the first one. Raises UserError if the checkpoints do not tell their
    classes, or if their images differ in kind.
    """

    # In a chunk of 256 images each of a hundred generators has two or three, but each call of G computes 16.
    chunks_at_once = 8

    def __init__(self, parameters, first):
        p, paths = parameters, parameters.pretrained_models
        # Read one checkpoint after the other, because only its generator is kept.
        self.members = [_member(p, first)]
        for path in paths[1:]:
            self.members.append(_member(p, load_file_or_run(path, wanted=("G", "G_ema"))))
            _check_images(self.members[0], self.members[-1])
        self.checkpoint_names = _names(p.dataset, self.members)
        self.parameters = dataclasses.replace(p, num_classes=len(self.checkpoint_names))
        self.size, self.labels, self.class_names = p.imsize, None, None
        # For each class: the generators that have it, with its number there.
        self._owners = [
            [(own, own.checkpoint_names.index(name)) for own in self.members if name in own.checkpoint_names]
            for name in self.checkpoint_names
        ]
        self.file = Path(p.pretrained_model)
        self.default_folder = Path(p.save_path) / f"test-{len(paths)}-models"
        self.description = f"{len(paths)} models, such as {self.members[0].description}"
        self.opened = f"{self.description}: {len(self.checkpoint_names)} classes"
        self.settings = _settings(self.members)
        self.settings_if_unread = self.members[0].settings_if_unread

    def __len__(self):
        return len(self.labels)

    def choose_classes(self, evaluation):
        super().choose_classes(evaluation)
        self._turns = _places_in_class(self.labels)

    def check(self, evaluation):
        evaluation.check(self)
        evaluation.check_names(self.checkpoint_names, "the union of the models")

    def digest(self):
        """The SHA-256 of the lines with the SHA-256 of each file, in their order."""
        digest = hashlib.sha256()
        for member in self.members:
            digest.update(f"{member.digest()}\n".encode())
        return digest.hexdigest()

    def prepare(self, evaluation):
        for member in self.members:
            member.prepare(evaluation)

    def images(self, indices):
        return self._draw(indices, self.labels[indices], self._turns[indices], "sample")

    def _draw(self, indices, labels, turns, purpose):
        """Samples `indices` of classes `labels`, uint8 [N, C, H, W]. `turns`: the place of each in the samples of its
        class.
        """
        owners = [self._owner(label, turn) for label, turn in zip(labels, turns, strict=True)]
        images = np.empty((len(labels), self.parameters.channels, self.size, self.size), np.uint8)
        for member in dict.fromkeys(member for member, _ in owners):
            rows = [row for row, (owner, _) in enumerate(owners) if owner is member]
            own_labels = [owners[row][1] for row in rows]
            images[rows] = sampler.generate(
                member.snapshot, member.parameters, np.asarray(indices)[rows], own_labels, purpose
            )
        return images

    def _owner(self, label, turn):
        """(the generator that draws a sample of the class `label`, the number of the class there)."""
        owners = self._owners[label]
        return owners[turn % len(owners)]

    def write_pictures(self, folder):
        """Write class_grid.png, as `GeneratorSamples` does. Generators that share a class draw its row in turn."""

        def draw(_, parameters, indices, labels, purpose):
            return self._draw(indices, labels, _places_in_class(labels), purpose)

        classes = self._chosen_classes[: pictures.ROWS]
        images = sampler.grid_samples(None, self.parameters, classes, draw)
        write_class_grid(folder, images, self.class_names, classes)


def _member(parameters, loaded):
    """The `GeneratorSamples` of the generator in the `Checkpoint` `loaded`."""
    if not loaded.class_names:
        raise UserError(
            f"--pretrained_model names several models, but {loaded.path} holds no class names: measure it alone"
        )
    own = from_values(loaded.parameters, loaded.path)
    return GeneratorSamples(
        dataclasses.replace(own, **{name: getattr(parameters, name) for name in OF_DRAWING}), loaded
    )


def _check_images(first, other):
    """Refuse a generator that draws images of another size, or gray ones among images in colour."""
    one, two = first.parameters, other.parameters
    if (one.imsize, one.channels, one.dataset) != (two.imsize, two.channels, two.dataset):
        raise UserError(
            f"--pretrained_model: {first.file} draws images of {one.dataset} with {one.imsize} pixels, and "
            f"{other.file} of {two.dataset} with {two.imsize}: measure them apart"
        )


def _names(dataset, members):
    """The names of all classes, in the order of the data set."""
    found = {name for member in members for name in member.checkpoint_names}
    known = DATA_SETS[dataset].class_names if dataset in DATA_SETS else ()
    return tuple(name for name in known if name in found) if found <= set(known) else tuple(sorted(found))


def _settings(members):
    """Settings for the report: those of the generator with the fewest steps, and the number of generators."""
    least = min(members, key=lambda member: member.settings.get("steps", math.inf))
    settings = least.settings | {"models": len(members)}
    kinds = {member.settings["weights"] for member in members}
    return settings | {"weights": kinds.pop() if len(kinds) == 1 else "of both kinds"}


def _places_in_class(labels):
    """For each of `labels`, int [N], the number of equal ones before it."""
    labels = np.asarray(labels)
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    places = np.empty(len(labels), np.int64)
    places[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    return places
