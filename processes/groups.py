"""Which rows of a batch are computed together: those of one call, of several processes, of several threads.

They have common batch statistics, and the class loss D2D-CE compares them with each other.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

from processes import collectives


class Alone:
    """The rows of one call. `counts`: whether they count; padding rows do not.

    `before`: the number of rows of the group before those of this call.
    """

    counts, before = True, 0

    def count(self, rows):
        """The number of rows of the group, for a call with `rows` rows."""
        return rows

    def add_up(self, tensor):
        """The sum of `tensor` over the calls of the group."""
        return tensor

    def once(self, key, compute):
        """`compute()`. If the group has a common memory, one call computes the value of a `key` for all calls."""
        return compute()


class Processes:
    """The rows of all processes in one round of a batch. `block`: this process's `blocks.Block`."""

    def __init__(self, block):
        self.block, self.counts, self.before = block, block.share > 0, block.before

    def count(self, rows):
        return self.block.in_round

    def add_up(self, tensor):
        total = tensor if self.counts else tensor * 0  # padding rows do not count
        collectives.add_up([total])
        return total

    def once(self, key, compute):
        return compute()


class Team:
    """Threads that compute the rows of a block together. Each member computes some of the rows."""

    def __init__(self, size, rows):
        self.size, self.rows = size, rows
        self._values, self._barrier = [None] * size, threading.Barrier(size)
        self._locks, self._shared = {}, {}  # for `once`

    def run(self, work):
        """`[work(member), …]` for the members 0 to size - 1, each in a thread of its own.

        If one raises an error, the others stop waiting for it, and its error is raised here.
        """

        def run(member):
            try:
                return work(member)
            except BaseException:
                self._barrier.abort()
                raise

        with ThreadPoolExecutor(self.size) as pool:
            futures = [pool.submit(run, member) for member in range(self.size)]
        errors = [future.exception() for future in futures if future.exception()]
        if errors:
            raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
        return [future.result() for future in futures]

    def add_up(self, member, tensor):
        """The sum of the members' tensors, in the order of the members. All members call this and get the same bits."""
        self._values[member] = tensor
        self._barrier.wait()
        total = sum(self._values[1:], self._values[0])
        self._barrier.wait()  # no member writes its next value before all have read this one
        return total

    def once(self, key, compute):
        """`compute()`, which the first member that asks does for all. A value is kept until all have taken it."""
        with self._locks.setdefault(key, threading.Lock()):
            value, taken = self._shared.pop(key, (None, 0))
            if not taken:
                value = compute()
            if taken + 1 < self.size:
                self._shared[key] = value, taken + 1
        return value


class Member:
    """The rows of a team, for one of its members."""

    counts = True

    def __init__(self, team, number):
        self.team, self.number = team, number
        self.before = team.rows * number // team.size  # as `blocks.cut_block` does

    def count(self, rows):
        return self.team.rows

    def add_up(self, tensor):
        return self.team.add_up(self.number, tensor)

    def once(self, key, compute):
        return self.team.once(key, compute)
