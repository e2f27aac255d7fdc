"""How a batch is cut into rounds, and each round into a block for each process."""

from itertools import pairwise
from typing import NamedTuple


class Block(NamedTuple):
    """The rows of a step's whole batch that one process computes in one accumulation round."""

    rows: range  # indices in the whole batch; never empty
    share: float  # fraction of the whole batch that these rows are; 0 for a padding row, taken from another block
    in_round: int  # number of rows of the round over all processes; 1 if the round has only padding rows
    whole: int  # number of rows of the whole batch
    before: int = 0  # number of rows of the round in the blocks of lower ranks; 0 for a padding row


def blocks(count, rounds, rank, world_size):
    """The blocks of process `rank` in a batch of `count` rows: one `Block` for each round.

    The batch is cut into `rounds` rounds, and each round into one block for each process, in order and as evenly as
    possible. So a round has the same rows with any number of processes. The cuts depend only on the product of `rounds`
    and `world_size`.

    If there are more blocks than rows, a block without rows of its own gets one padding row: a row of another block,
    with share 0.
    """
    cuts = [count * block // (rounds * world_size) for block in range(rounds * world_size + 1)]
    taken = []
    for first in range(0, rounds * world_size, world_size):
        start, stop = cuts[first + rank : first + rank + 2]
        in_round = max(cuts[first + world_size] - cuts[first], 1)
        before = start - cuts[first] if stop > start else 0
        taken.append(Block(range(start, max(stop, start + 1)), (stop - start) / count, in_round, count, before))
    return taken


def cut_block(block, count):
    """`block` cut into `count` blocks, in order and as evenly as possible. It has at least `count` rows."""
    start, rows = block.rows.start, len(block.rows)
    cuts = [start + rows * number // count for number in range(count + 1)]
    return [
        block._replace(rows=range(first, last), share=block.share * (last - first) / rows)
        for first, last in pairwise(cuts)
    ]
