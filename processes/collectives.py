"""Ranks of the processes that compute together, and the exchange of values between them."""

import errno
import hashlib
import os

from processes.watch import Watch
from utils import UserError

_watch = None  # the Watch over the other processes, if there are any


def join():
    """Connect to the other processes, if there are any. Then each process notices when another one ends early."""
    global _watch
    if world_size() > 1:
        _watch = Watch(rank(), world_size(), *_meeting_point())


def is_watched():
    """Whether this process ends when another one ends early."""
    return _watch is not None


def leave(reason, code):
    """Tell the other processes that this one ends. `reason`: the failure, or None if all is well. `code`: exit code."""
    if _watch:
        _watch.leave(reason, code)


def _meeting_point():
    """(rank 0's address for the watch, a text that identifies this run). Both come from the launcher's variables."""
    endpoints, store = os.environ.get("PADDLE_TRAINER_ENDPOINTS"), os.environ.get("PADDLE_MASTER")
    if not endpoints:
        raise UserError(
            f"PADDLE_TRAINERS_NUM is {world_size()}, but PADDLE_TRAINER_ENDPOINTS is not set: start the processes with "
            "python -m paddle.distributed.launch"
        )
    first = endpoints.split(",")[0]
    host, port = first.rsplit(":", 1)
    # With --ips Paddle's own store listens on rank 0's port, and the next ports belong to the other processes. So skip
    # one port for each process.
    port = int(port) + (world_size() if store in (None, first) else 0)
    return (host, port), hashlib.blake2b(f"{endpoints} {store}".encode(), digest_size=16).hexdigest()


def rank():
    """This process's number, from 0; a single process has 0."""
    return int(os.environ.get("PADDLE_TRAINER_ID", "0"))


def world_size():
    """The number of processes."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


def processes_on_host():
    """The number of processes on this host."""
    return int(os.environ.get("PADDLE_LOCAL_SIZE", "1"))


def say(line):
    """Print a line, on rank 0 only."""
    if rank() == 0:
        try:
            print(line, flush=True)
        except OSError as error:
            # EIO means that the terminal is gone. Its SIGHUP stops the run, unless SIGHUP is ignored.
            if error.errno != errno.EIO:
                raise


def meet(value=0):
    """Wait until all processes have called this, without a time limit. Returns the largest `value`, a whole number.

    Call it before a collective, because over gloo a collective fails after 30 seconds. It does not wait for the device.
    """
    return _watch.meet(value) if _watch else value


def synchronized(items):
    """Yield each of `items` when every process has its own item."""
    for item in items:
        meet()
        yield item


def agree(value):
    """Returns rank 0's `value` (any picklable object) on every process."""
    if world_size() == 1:
        return value
    import paddle.distributed

    meet()
    values = [value]
    paddle.distributed.broadcast_object_list(values, src=0)
    return values[0]


def on_rank_0(function, *arguments):
    """Call `function` on rank 0 and return its result on every process. Its UserError is raised on every process."""
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
    """Returns the list of all processes' `value` (any picklable object), by rank, on every process."""
    if world_size() == 1:
        return [value]
    import paddle.distributed

    meet()
    values = []
    paddle.distributed.all_gather_object(values, value)
    return values


def require_same(values, advice):
    """Raise UserError on every process if `values`, texts or numbers by name, differ between processes.

    `advice` ends the message. All processes must give the same names.
    """
    found = gather(values)
    for number, other in enumerate(found):
        for name, value in found[0].items():
            if other[name] != value:
                raise UserError(f"rank {number} has {name} {other[name]}, rank 0 has {value}: {advice}")


def add_up(tensors):
    """Replace each of `tensors`, all of one dtype, by its sum over all processes, with one all-reduce for all."""
    if world_size() == 1:
        return
    import paddle
    import paddle.distributed

    flat = paddle.concat([tensor.reshape([-1]) for tensor in tensors])
    paddle.distributed.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.size for tensor in tensors]), strict=True):
        paddle.assign(total.reshape(tensor.shape), tensor)
