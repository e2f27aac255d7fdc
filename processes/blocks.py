"""How a batch is cut into rounds, and each round into a block for each process."""

from typing import NamedTuple


class Block(NamedTuple):
    """What one process takes of a step's whole batch in one accumulation round."""

    rows: range  # of the whole batch; never empty
    share: float  # of the whole batch that these rows are; 0 where there are too few and one of another block stands in
    in_round: int  # rows of the round over all processes, or 1 where none of them counts
    whole: int  # rows of the whole batch


def blocks(count, rounds, rank, world_size):
    """The `Block` of each round that process `rank` takes of a batch of `count` rows.

    The batch is cut into `rounds` and each of them among the processes, in order and as evenly as can be. So a round
    holds the same rows with any number of processes, and the blocks are the same for any `rounds` and `world_size` of
    one product.
    """
    cuts = [count * block // (rounds * world_size) for block in range(rounds * world_size + 1)]
    taken = []
    for first in range(0, rounds * world_size, world_size):
        start, stop = cuts[first + rank : first + rank + 2]
        in_round = max(cuts[first + world_size] - cuts[first], 1)
        taken.append(Block(range(start, max(stop, start + 1)), (stop - start) / count, in_round, count))
    return taken
