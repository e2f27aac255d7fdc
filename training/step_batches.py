"""Inputs of one update on this process: real images and random numbers.

Each random number is a pure function of the seed, its purpose, the step, the index of the update in the step, and the
row. Every process draws the numbers of the whole batch, over all processes, and keeps those of its own rows.
"""

from typing import NamedTuple

import numpy as np
import paddle

import augment
import operations
import randomness
import sampler
from processes import collectives
from processes.blocks import blocks


class DBatch(NamedTuple):
    """Inputs of one D update: tensors with one row per sample. Images and noise on images are [N, C, H, W]."""

    images: paddle.Tensor
    labels: paddle.Tensor  # of the real images, int64 [N]
    z: paddle.Tensor  # [N, z_dim]
    fake_labels: paddle.Tensor  # int64 [N]
    alpha: paddle.Tensor = None  # for the gradient penalty, [N, 1, 1, 1] in [0, 1]
    real_noise: paddle.Tensor = None  # instance noise
    fake_noise: paddle.Tensor = None
    whole: int = None  # number of rows in the batch of all processes; None: the same as here
    sources: object = None  # dropout's sources of random numbers for a range of rows; None: Paddle's
    real_changes: paddle.Tensor = None  # `augment.random_values` for --diffaug, [N, augment.WIDTH]
    fake_changes: paddle.Tensor = None


class GBatch(NamedTuple):
    """Inputs of one G update: tensors with one row per sample."""

    z: paddle.Tensor  # [N, z_dim]
    labels: paddle.Tensor  # int64 [N]
    fake_noise: paddle.Tensor = None  # instance noise, [N, C, H, W]
    whole: int = None  # number of rows in the batch of all processes
    sources: object = None  # as in `DBatch`
    fake_changes: paddle.Tensor = None  # as in `DBatch`


def d_batch(parameters, step, update, images, labels, whole=None):
    """The `DBatch` of a D update with these real uint8 `images` and their `labels`. `whole` is as in `DBatch`."""
    p, whole = parameters, whole or len(labels)
    draws = _Draws(p, step, update, whole)
    # SAGAN's discriminator compares real and generated images of the same classes. ACGAN's gets generated images of
    # random classes, as in G's update.
    fake_labels = labels if p.is_sagan else draws.labels("d")
    alpha = draws.rows("alpha", lambda rng, rows: rng.random((rows, 1, 1, 1))) if p.adv_loss == "wgan_gp" else None
    noises = draws.instance_noise("d/real"), draws.instance_noise("d/fake")
    changes = draws.changes("d/real"), draws.changes("d/fake")
    real = sampler.to_range(images, p)
    return DBatch(real, labels, draws.noise("d"), fake_labels, alpha, *noises, whole, draws.dropout("d"), *changes)


def g_batch(parameters, step, update):
    """The `GBatch` of a G update."""
    whole = parameters.batch_size * collectives.world_size()
    draws = _Draws(parameters, step, update, whole)
    noise, changes = draws.instance_noise("g/fake"), draws.changes("g/fake")
    return GBatch(draws.noise("g"), draws.labels("g"), noise, whole, draws.dropout("g"), changes)


def blocks_of(parameters, whole):
    """This process's blocks in a batch of `whole` rows: one `Block` for each round."""
    return blocks(whole, parameters.rounds, collectives.rank(), collectives.world_size())


def cut_batch(batch, first, count):
    """The `count` rows of `batch`, a `DBatch` or `GBatch`, from row `first` on."""
    cut = (value[first : first + count] if isinstance(value, paddle.Tensor) else value for value in batch)
    return type(batch)(*cut)


class _Draws:
    """The random numbers of one update, for this process's rows."""

    def __init__(self, parameters, step, update, whole):
        self.parameters, self.step, self.update, self.whole = parameters, step, update, whole

    def noise(self, role):
        width = self.parameters.z_dim
        return self.rows(f"noise/{role}", lambda rng, rows: rng.standard_normal((rows, width)))

    def labels(self, role):
        classes = self.parameters.num_classes
        return self.rows(f"labels/{role}", lambda rng, rows: rng.integers(classes, size=rows))

    def instance_noise(self, role):
        p = self.parameters
        if not p.inst_noise_sigma or self.step >= p.inst_noise_sigma_iters:
            return None
        sigma = p.inst_noise_sigma * (1 - self.step / p.inst_noise_sigma_iters)
        shape = (p.channels, p.imsize, p.imsize)
        return sigma * self.rows(f"instance noise/{role}", lambda rng, rows: rng.standard_normal((rows, *shape)))

    def changes(self, role):
        """The random values of --diffaug; None without it."""
        p = self.parameters
        if not p.diffaug:
            return None
        return self.rows(f"diffaug/{role}", lambda rng, rows: augment.random_values(rng, rows, p.imsize))

    def dropout(self, role):
        """As `DBatch.sources`. For the plain forms it seeds Paddle's random numbers instead, alike in all processes."""
        address = self.parameters.manual_seed, f"dropout/{role}", self.step, self.update
        if not self.parameters.dropout:
            return None
        if not operations.is_fast(paddle.empty([0])):
            paddle.seed(int(randomness.rng(*address).integers(2**31)))
            return None
        return lambda rows: [randomness.rng(*address, row) for row in rows]

    def rows(self, purpose, draw):
        """This process's rows, as a tensor, of the array for the whole batch that `draw(rng, rows)` returns."""
        whole = draw(randomness.rng(self.parameters.manual_seed, purpose, self.step, self.update), self.whole)
        taken = np.concatenate([whole[block.rows] for block in blocks_of(self.parameters, self.whole)])
        rows = paddle.to_tensor(taken)
        return rows.astype(paddle.get_default_dtype()) if rows.is_floating_point() else rows
