"""Threads, devices, processes, seeds. Import this module before paddle: it sets what paddle reads when it loads."""

import contextlib
import errno
import hashlib
import os
import signal
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from processes.watch import GRACE_SECONDS, Watch
from utils import UserError, program

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# SIGHUP comes when a terminal or an SSH session ends. Under `nohup` it is ignored, and stays so.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
    STOP_SIGNALS += (signal.SIGHUP,)
BURST_SECONDS = 5


def _set_environment():
    """Give the maths library every physical core and its fast path; leave alone what the user has set.

    Paddle computes on one thread unless told. The Intel MKL in its CPU wheel takes a slow path on AMD processors.
    """
    info = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    threads = str(max(1, _physical_cores(info) // int(os.environ.get("PADDLE_LOCAL_SIZE", "1"))))
    if "OMP_NUM_THREADS" not in os.environ:  # which paddle, when set, warns about
        os.environ.setdefault("MKL_NUM_THREADS", threads)
        os.environ.setdefault("FLAGS_paddle_num_threads", threads)
    if "AuthenticAMD" in info:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    os.environ.setdefault("GLOG_minloglevel", "2")  # paddle's C++ warnings; errors still show
    warnings.filterwarnings("ignore", message="No ccache found")
    warnings.filterwarnings("ignore", message="You are using GPU version Paddle")  # where there is none: the CPU serves


def _physical_cores(cpuinfo):
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    cores = set()
    for block in cpuinfo.strip().split("\n\n"):
        fields = dict(line.replace("\t", "").split(":", 1) for line in block.splitlines() if ":" in line)
        if int(fields.get("processor", -1)) in usable:
            cores.add((fields.get("physical id"), fields.get("core id", fields.get("processor"))))
    return len(cores) or len(usable)


_set_environment()


def threads():
    """How many threads a call of the maths library runs on."""
    # Paddle sets OMP_NUM_THREADS to 1 when it loads; MKL's own variable goes before it.
    return int(os.environ.get("MKL_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or 1)


@contextlib.contextmanager
def math_threads(count):
    """Inside, a call of the maths library on the CPU runs on `count` threads."""
    set_threads(count)
    try:
        yield
    finally:
        set_threads(threads())


def set_threads(count):
    """Let each later call of the maths library on the CPU run on `count` threads."""
    from paddle.base import core

    core.set_num_threads(count)


def parallel(function, items):
    """`function` of each of `items`, a list in their order.

    On a CPU several threads work on items, and each computes on one thread of the maths library: how many threads a
    matrix product runs on changes how it rounds. So the bits depend neither on the number of threads nor on that of
    processes, and other work on the machine slows the items down gently.
    """
    import paddle

    if paddle.get_device() != "cpu":
        return list(map(function, items))
    with math_threads(1), ThreadPoolExecutor(threads()) as pool:
        return list(pool.map(function, items))


_watch = None  # over the other processes, where there are any


def run(main):
    """Run an entry point as a command: a UserError is one line on stderr and exit code 2.

    Of several processes each learns why another ends before its time, and ends too.
    """
    global _watch
    code, reason = 1, None
    sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no text
    try:
        if world_size() > 1:
            _watch = Watch(rank(), world_size(), *_meeting_point())
        code = main()
        if code == 0:
            sys.stdout.flush()
    except UserError as error:
        code, reason = 2, str(error)
        _say(reason)
    except KeyboardInterrupt:
        code, reason = 128 + signal.SIGINT, "interrupted"
    except BrokenPipeError:
        # Who read the output, such as `head`, has gone: end without a word, as SIGPIPE ends other programs. The signal
        # itself stays ignored, as Python has it: a socket to another process must not end this one.
        code, reason = 128 + signal.SIGPIPE, "nobody reads its output any more"
    except Exception as error:
        if _watch:  # another's death shows as an error in a collective: give the watch time to end this process
            time.sleep(2 * GRACE_SECONDS)
        if not isinstance(error, OSError):
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"
            raise
        # a full disk, a folder that cannot be written
        code, reason = 2, f"{error.filename or 'a file'}: {error.strerror or error}"
        _say(reason)
    finally:
        if _watch:
            _watch.leave(reason, code)
        _close_output()
    sys.exit(code)


def _say(reason):
    warn(f"{program()}: {reason}")


def say(line):
    """Print a line, on the first process."""
    if rank() == 0:
        try:
            print(line, flush=True)
        except OSError as error:
            if error.errno != errno.EIO:  # the terminal is gone: its SIGHUP stops the run, or is ignored
                raise


def warn(line):
    """Print a line on stderr, if that is still there: an SSH session that has ended takes it along."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _close_output():
    """Drop what cannot be written any more: Python would try again at its exit, and change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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


def start(parameters):
    """Choose the device and, in a process that `paddle.distributed.launch` started beside others, join them.

    `parameters.device` is "cpu", "gpu" or "gpu:N"; None takes a GPU where there is one. Raises UserError for a device
    that is not there.
    """
    import paddle

    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    device = parameters.device or ("gpu" if gpus else "cpu")
    if device != "cpu":
        number = device.partition(":")[2]
        if not gpus:
            build = "no GPU is visible" if paddle.is_compiled_with_cuda() else "this paddlepaddle is the CPU build"
            raise UserError(f"--device {device} cannot be used: {build}; give --device cpu or install paddlepaddle-gpu")
        if number and int(number) >= gpus:
            raise UserError(f"--device {device} is not there: {gpus} GPU(s) are visible, gpu:0 to gpu:{gpus - 1}")
        device = device if number else f"gpu:{os.environ.get('FLAGS_selected_gpus', '0').split(',')[0]}"
    paddle.set_device(device)
    if world_size() > 1:
        import paddle.distributed

        meet()  # before Paddle's own rendezvous, which would wait 15 minutes for a process that has failed
        # It waits outside Python, where Python's handlers do not run.
        handlers = {number: signal.signal(number, signal.SIG_DFL) for number in STOP_SIGNALS}
        paddle.distributed.init_parallel_env()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def rank():
    """This process's number among all; 0 when there is one."""
    return int(os.environ.get("PADDLE_TRAINER_ID", "0"))


def world_size():
    """How many processes take part."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


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


def quit_on_signals(cleanly=False):
    """Have STOP_SIGNALS, which may have been held so far, end the process with one line and code 128 + signal.

    For the time before `stop_signals`, in which there is nothing to save. With `cleanly` they do so by SystemExit, so
    that a file half written is removed; no module may be imported meanwhile.
    """
    import paddle  # noqa: F401, it takes SIGTERM for itself when it loads

    for number in STOP_SIGNALS:
        signal.signal(number, _leave if cleanly else _quit)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def _leave(number, _frame):
    _say(f"stopped by {signal.Signals(number).name}")
    raise SystemExit(128 + number)


def _quit(number, _frame):
    with contextlib.suppress(OSError):  # the terminal may be gone
        os.write(2, f"{program()}: stopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


class StopRequest:
    """Whether a signal has asked the run to stop.

    `asked`: the signal that this process was sent; `signal`: the one that all processes stop by. Numbers, or None.
    """

    def __init__(self):
        self.asked = self.signal = None

    def requested(self):
        """True on every process, at the same call, once any of them has been signalled."""
        if self.signal is None:
            self.signal = meet(self.asked or 0) or None
        return self.signal is not None


@contextlib.contextmanager
def stop_signals():
    """Turn STOP_SIGNALS into a `StopRequest` that the loop reads between steps; a second one quits at once.

    Those within BURST_SECONDS are one, but for SIGINT: Paddle's launcher sends three SIGTERMs to end a process, and a
    shell and the terminal a SIGHUP each.
    """
    stop, first, before = StopRequest(), None, {}

    def ask(number, _frame):
        nonlocal first
        now = time.monotonic()
        if first is None:  # though another process's may have stopped the run already
            first, stop.asked = now, number
            warn("\nstopping; once more to quit at once")
        elif number == signal.SIGINT or now - first > BURST_SECONDS:
            os._exit(128 + number)

    for number in STOP_SIGNALS:
        before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def generator(seed, purpose, *index):
    """A NumPy generator that is a pure function of its address, whatever was drawn before or elsewhere.

    Philox is counter-based (Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011): `seed` and
    `purpose` (a word such as "noise") make its key, up to three integers of `index` its counter; each address has
    2^64 blocks of numbers of its own.
    """
    if len(index) > 3:
        raise ValueError(f"an address has at most three integers, not {len(index)}")
    key = int.from_bytes(hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=16).digest(), "little")
    counter = sum(int(value) << (64 * place) for place, value in enumerate(index, start=1))
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
