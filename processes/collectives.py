"""Several processes that compute together: who they are, and what they exchange."""

import errno
import hashlib
import os

from processes.watch import Watch
from utils import UserError

_watch = None  # over the other processes, if there are any


def join():
    """Meet the other processes, if there are any; each then notices when another ends before its time."""
    global _watch
    if world_size() > 1:
        _watch = Watch(rank(), world_size(), *_meeting_point())


def is_watched():
    """Whether another process's end would end this one too."""
    return _watch is not None


def leave(reason, code):
    """Tell the other processes, if there are any, that this one ends: `reason` (None if all is well) and exit code."""
    if _watch:
        _watch.leave(reason, code)


def _meeting_point():
    """Rank 0's address for the watch, among those that the launcher has chosen, and what tells this run from others."""
    endpoints, store = os.environ.get("PADDLE_TRAINER_ENDPOINTS"), os.environ.get("PADDLE_MASTER")
    if not endpoints:
        raise UserError(
            f"PADDLE_TRAINERS_NUM is {world_size()}, but PADDLE_TRAINER_ENDPOINTS is not set: start the processes with "
            "python -m paddle.distributed.launch"
        )
    first = endpoints.split(",")[0]
    host, port = first.rsplit(":", 1)
    # With --ips Paddle's own store listens on the first one; the numbers after it are the other processes'.
    port = int(port) + (world_size() if store in (None, first) else 0)
    return (host, port), hashlib.blake2b(f"{endpoints} {store}".encode(), digest_size=16).hexdigest()


def rank():
    """This process's number among all; 0 when there is one."""
    return int(os.environ.get("PADDLE_TRAINER_ID", "0"))


def world_size():
    """How many processes take part."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


def say(line):
    """Print a line, on the first process."""
    if rank() == 0:
        try:
            print(line, flush=True)
        except OSError as error:
            if error.errno != errno.EIO:  # the terminal is gone: its SIGHUP stops the run, or is ignored
                raise


def meet(value=0):
    """Wait for the other processes, however long they take; over gloo a collective gives up after 30 seconds.

    Returns the largest `value`, a whole number, that any of them came with. No device is waited for.
    """
    return _watch.meet(value) if _watch else value


def together(items):
    """`items`, each as soon as every process has its own."""
    for item in items:
        meet()
        yield item


def agree(value):
    """Rank 0's `value` (any picklable object) on every process."""
    if world_size() == 1:
        return value
    import paddle.distributed

    meet()
    values = [value]
    paddle.distributed.broadcast_object_list(values, src=0)
    return values[0]


def from_first(function, *arguments):
    """What `function` returns on rank 0, on every process; a UserError that it raises is raised on every process."""
    result = problem = None
    if rank() == 0:
        try:
            result = function(*arguments)
        except UserError as error:
            problem = str(error)
    result, problem = agree((result, problem))
    if problem:
        raise UserError(problem)
    return result


def gather(value):
    """The `value` (any picklable object) of every process, by rank, on every process."""
    if world_size() == 1:
        return [value]
    import paddle.distributed

    meet()
    values = []
    paddle.distributed.all_gather_object(values, value)
    return values


def require_same(values, advice):
    """Raise UserError on every process where `values`, texts or numbers by name, are not the same on all of them.

    `advice` ends the message. All processes must ask about the same names.
    """
    found = gather(values)
    for number, other in enumerate(found):
        for name, value in found[0].items():
            if other[name] != value:
                raise UserError(f"rank {number} has {name} {other[name]}, rank 0 has {value}: {advice}")


def add_up(tensors):
    """Replace each of `tensors`, all of one dtype, by its sum over all processes; one all-reduce for all of them."""
    if world_size() == 1:
        return
    import paddle
    import paddle.distributed

    flat = paddle.concat([tensor.reshape([-1]) for tensor in tensors])
    paddle.distributed.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([tensor.size for tensor in tensors]), strict=True):
        paddle.assign(part.reshape(tensor.shape), tensor)
