"""Draw images by class and seed from a checkpoint's generator, and walk between seeds or between classes."""

import dataclasses
import math
import sys

import numpy as np

import checkpoint
import sampler
from layers import forwards_to_settle
from networks import models_of
from sampler import CHUNK
from utils import UserError, plural


class OpenGenerator:
    """A checkpoint's generator, ready to draw.

    `network`: G in evaluation mode. `part`: the part of the checkpoint with its weights, "G_ema" or "G". `step`: the
    steps of its training; 0 if they are unknown. `class_names`: the names of its classes by number; numbers as text if
    the checkpoint does not tell them. `description`: the model, its steps and its weights in words. `caution`: a
    sentence if its images may look grey, or "".
    """

    def __init__(self, parameters, loaded):
        """The generator in the `Checkpoint` `loaded`. Raises UserError if there is none.

        It uses the moving average of the weights if `parameters.use_ema` is set and there is one, and standing
        statistics if `parameters.standing_batches` is set.
        """
        self.parameters, self.file, self.step = parameters, loaded.path, loaded.step
        self.network, self.part = load_generator(parameters, loaded)
        self.description = describe(parameters, loaded, self.part)
        self.caution = caution(loaded.step, steps_to_settle(self.network, parameters, loaded.step))
        self.class_names = loaded.class_names or tuple(map(str, range(parameters.num_classes)))
        if parameters.standing_batches:
            sampler.use_standing_statistics(self.network, parameters)
        self._frozen = sampler.snapshot(self.network, parameters)

    def say_caution(self):
        """Print the caution, if there is one, on stderr."""
        if self.caution:
            print(self.caution, file=sys.stderr)

    def draw(self, labels, seeds, truncation=None):
        """Images of classes `labels` and `seeds`, both int [N]: uint8 [N, C, H, W].

        Seed k gives sample k of test.py with the same `manual_seed`, and its bits do not depend on the other images.
        `truncation` replaces that of the parameters.
        """
        return sampler.generate(self._frozen, self._parameters(truncation), seeds, labels)

    def grid(self, labels, seeds):
        """Images of each of `labels` with each of `seeds`, class by class: uint8 [labels · seeds, C, H, W]."""
        return self.draw(np.repeat(labels, len(seeds)), np.tile(seeds, len(labels)))

    def walk_between_seeds(self, seeds, labels, frames, closed=False, truncation=None):
        """Frames of a walk from seed to seed. Yields one uint8 [labels, C, H, W] for each of `frames`, in order.

        The noise moves along great circles. All classes `labels` have the same noise in a frame. The first frame is the
        first seed. The last frame is the last seed, or with `closed` the frame before the first one again. `truncation`
        is as in `draw`.
        """
        noise = self.noise(seeds, truncation)
        noise = np.stack([_on_path(noise, place) for place in places(len(seeds), frames, closed)])
        for group in _groups(frames):
            rows = group % CHUNK
            images = [self._draw_noise(self._frozen, noise[group], np.full(len(group), c), rows) for c in labels]
            yield from np.stack(images, axis=1)

    def walk_between_classes(self, labels, seeds, frames, closed=False, truncation=None):
        """Frames of a walk from class to class. Yields one uint8 [seeds, C, H, W] for each of `frames`, in order.

        The embeddings of the classes are interpolated linearly. The noise of each of `seeds` stays. The ends and
        `truncation` are as in `walk_between_seeds`.
        """
        mixtures = np.zeros([frames, self.parameters.num_classes])
        for frame, place in enumerate(places(len(labels), frames, closed)):
            start, end, share = between(len(labels), place)
            mixtures[frame, labels[start]] += 1 - share
            mixtures[frame, labels[end]] += share
        frozen = sampler.snapshot(self.network, self.parameters, mixtures)
        noise = self.noise(seeds, truncation)
        for group in _groups(frames):
            images = [self._draw_noise(frozen, np.tile(z, [len(group), 1]), group, group % CHUNK) for z in noise]
            yield from np.stack(images, axis=1)

    def noise(self, seeds, truncation=None):
        """The noise of `seeds`, float [seeds, z_dim]. `truncation` is as in `draw`."""
        return sampler.noises(self._parameters(truncation), seeds)

    def _parameters(self, truncation):
        return dataclasses.replace(self.parameters, truncation=truncation) if truncation else self.parameters

    def _draw_noise(self, frozen, noise, labels, rows):
        return sampler.draw_noise(frozen, self.parameters, noise, labels, rows)


def load_generator(parameters, loaded):
    """(G in evaluation mode with the weights of the `Checkpoint` `loaded`, the name of the part that holds them)."""
    p = parameters
    part = "G_ema" if p.use_ema and "G_ema" in loaded.parts else "G"
    if part not in loaded.parts:
        raise UserError(f"{loaded.path} holds no generator")
    generator = models_of(p).make_generator(p)
    checkpoint.load_network(generator, loaded.parts[part], loaded.path)
    generator.eval()
    return generator, part


def describe(parameters, loaded, part):
    """The generator in words: its model, its steps, and whether its weights are a moving average."""
    steps = f" after {plural(loaded.step, 'step')}" if loaded.step else ""  # 0: published weights without a step
    average = ", moving average of its weights" if part == "G_ema" else ""
    return f"{parameters.model}{steps}{average}"


def steps_to_settle(network, parameters, steps):
    """The number of steps that the running statistics of the generator `network` need.

    None if `steps`, those of its training, are 0, which means unknown, or if the running statistics are not used.
    """
    p = parameters
    if not steps or p.standing_batches:
        return None
    forwards = p.d_steps_per_iter + p.g_steps_per_iter  # of G in a step
    return int(float(f"{math.ceil(forwards_to_settle(network) / forwards):.2g}"))


def caution(steps, needed):
    """A sentence if a training of `steps` steps is too short for its running statistics, which need `needed`, or ""."""
    if not needed or steps >= needed:
        return ""
    return (
        f"The running batch statistics need about {needed:,} steps to settle, but these weights have {steps:,}: images "
        "may look grey and score badly. --standing_batches 50 computes the statistics again."
    )


def places(points, frames, closed):
    """Where each of `frames` is on a path through `points`: float [frames]. Point i is at i."""
    return np.arange(frames) * points / frames if closed else np.linspace(0, points - 1, frames)


def between(points, place):
    """(the point before `place`, the point after it, the share of the way from one to the other).

    The first point follows the last.
    """
    start = int(place)
    return start % points, (start + 1) % points, place - start


def _on_path(noise, place):
    """The noise at `place` on the path through the rows of `noise`, along the great circle between two rows.

    A straight line would pass near the origin, where G was not trained (White, *Sampling Generative Networks*, 2016,
    arXiv 1609.04468).
    """
    start, end, share = between(len(noise), place)
    a, b = noise[start], noise[end]
    cosine = np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1)
    angle = np.arccos(cosine)
    if share == 0 or angle < 1e-6:
        return a
    return (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)


def _groups(frames):
    """The numbers of the frames, CHUNK at a time."""
    return [np.arange(first, min(first + CHUNK, frames)) for first in range(0, frames, CHUNK)]
