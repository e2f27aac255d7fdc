"""The gradients of a loss over a batch: cut into rounds, processes and threads, and added up again."""

from functools import cached_property

import paddle

import operations
import runtime
from layers import running_statistics, singular_vectors, training_on_block
from processes import collectives
from processes.blocks import Block, cut_block
from processes.groups import Alone, Member, Processes, Team
from training.step_batches import blocks_of, cut_batch
from training.twins import Twins

# Each thread computes at least this number of images, and of pixels. With less, Python's own work for the operations
# takes longer than the threads save.
ROWS_PER_THREAD, PIXELS_PER_THREAD = 2, 1 << 14


class Gradients:
    """Computes gradients of `networks`, the pair (G, D), in the given `Precision`."""

    def __init__(self, parameters, precision, networks):
        self.parameters, self.precision, self.networks = parameters, precision, networks

    def compute(self, network, batch, losses_of):
        """Leave the gradients of the mean loss over the whole batch in `network`.

        Returns this process's share of the loss's terms, as {name: tensor}.
        `losses_of(G, D, rows, group, counts)` yields (loss, {name: term}), scalar means over some rows of `batch`, a
        `DBatch` or `GBatch`. The losses are added up. Each is freed before the next one is asked for. `group`: the rows
        that are computed together, an object of `processes.groups`. `counts` is False for padding rows.

        The batch is cut into accumulation rounds, and each round into one block for each process. All rounds start from
        the same buffers and the same dropout stream, as a single round would. The new running statistics are the mean
        over the blocks, weighted by their shares of the batch. So the result does not depend on how a batch is cut.
        Batch norm is the exception: it sees one block at a time, or one round with `sync_bn`. The update needs only one
        all-reduce.
        """
        whole = batch.whole or len(batch.z)
        if self.parameters.rounds == collectives.world_size() == 1:
            return self._add_block(batch, Block(range(whole), 1.0, whole, whole), losses_of)
        statistics, buffers = self._running_statistics, self._buffers
        first_buffers, dropout = [buffer.clone() for buffer in buffers], paddle.get_rng_state()
        sums = [paddle.zeros_like(buffer) for buffer in statistics]
        metrics, first = {}, 0
        for block in blocks_of(self.parameters, whole):
            # Restore the buffers and the dropout stream that the first round started from.
            if first:
                _assign(buffers, first_buffers)
                paddle.set_rng_state(dropout)
            # Add the gradients of this block, and its share of the metrics and the running statistics.
            rows = cut_batch(batch, first, len(block.rows))
            first += len(block.rows)
            _add_terms(metrics, self._add_block(rows, block, losses_of))
            sums = [total + block.share * buffer for total, buffer in zip(sums, statistics, strict=True)]
        # Sum the gradients and the statistics over all processes.
        gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
        collectives.add_up(gradients + sums)
        _assign(statistics, sums)
        return metrics

    def _add_block(self, batch, block, losses_of):
        """Add the gradients of the rows of one block, `batch`. Returns the block's share of the terms.

        On a CPU several threads compute some of the rows each, on one thread of the maths library. Then all
        operations run side by side, not only matrix products. Threads wait for each other only in batch norms, so other
        work on the machine slows them down less than the threads of one matrix product.
        """
        synchronized = self.parameters.sync_bn and collectives.world_size() > 1

        def backward(networks, own, group):
            rows = cut_batch(batch, own.rows.start - block.rows.start, len(own.rows))
            sources = batch.sources and batch.sources(own.rows)
            metrics = {}
            with training_on_block(networks, own, group, sources):
                for loss, terms in losses_of(*networks, rows, group, counts=own.share > 0):
                    self.precision.backward(own.share * loss)
                    metrics |= {name: own.share * value.detach() for name, value in terms.items()}
                    del loss, terms  # frees the graph
            return metrics

        # One thread at a time can compute the gradient of the penalty (`paddle.grad`), use synchronised batch norm, or
        # compute a block again (`recompute`).
        p = self.parameters
        alone = synchronized or p.adv_loss == "wgan_gp" or p.recompute or not operations.is_fast(batch.z)
        rows = max(ROWS_PER_THREAD, -(-PIXELS_PER_THREAD // p.imsize**2))
        size = 1 if alone else max(1, min(runtime.threads(), len(batch.z) // rows))
        if size == 1:
            return backward(self.networks, block, Processes(block) if synchronized else Alone())
        team, twins, taken = Team(size, len(batch.z)), self._twins.take(size), cut_block(block, size)
        with runtime.math_threads(runtime.threads() // size):
            found = team.run(lambda member: backward(twins[member], taken[member], Member(team, member)))
        self._twins.add_gradients(size)
        metrics = {}
        for terms in found:
            _add_terms(metrics, terms)
        return metrics

    @cached_property
    def _twins(self):
        return Twins(self.networks)

    @cached_property
    def _running_statistics(self):
        return running_statistics(*self.networks)

    @cached_property
    def _buffers(self):
        """The buffers that a forward pass in training changes."""
        return [*self._running_statistics, *singular_vectors(*self.networks)]


def _add_terms(metrics, terms):
    for name, value in terms.items():
        metrics[name] = metrics[name] + value if name in metrics else value


def _assign(tensors, values):
    with paddle.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            paddle.assign(value, tensor)
