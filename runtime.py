"""Threads, devices, processes, seeds. Import this module before paddle: it sets what paddle reads when it loads."""

import contextlib
import hashlib
import os
import signal
import sys
import warnings
from pathlib import Path

import numpy as np

from utils import UserError


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


def run(main):
    """Run an entry point as a command: a UserError is one line on stderr and exit code 2."""
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(_fail(error))
    except OSError as error:  # a full disk, a folder that cannot be written
        sys.exit(_fail(f"{error.filename or 'a file'}: {error.strerror or error}"))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _fail(error):
    print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
    return 2


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

        paddle.distributed.init_parallel_env()


def rank():
    """This process's number among all; 0 when there is one."""
    return int(os.environ.get("PADDLE_TRAINER_ID", "0"))


def world_size():
    """How many processes take part."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


def agree(value):
    """Rank 0's `value` (any picklable object) on every process."""
    if world_size() == 1:
        return value
    import paddle.distributed

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

    values = []
    paddle.distributed.all_gather_object(values, value)
    return values


def average_gradients(network):
    """Replace each gradient of `network` by its mean over all processes; one all-reduce for all of them."""
    if world_size() == 1:
        return
    import paddle
    import paddle.distributed

    weights = [weight for weight in network.parameters() if weight.grad is not None]
    flat = paddle.concat([weight.grad.reshape([-1]) for weight in weights])
    paddle.distributed.all_reduce(flat)
    parts = (flat / world_size()).split([weight.size for weight in weights])
    for weight, part in zip(weights, parts, strict=True):
        paddle.assign(part.reshape(weight.shape), weight.grad)


class StopRequest:
    """Whether a signal has asked the run to stop, and which: its number, or None."""

    def __init__(self):
        self.signal = None

    def requested(self):
        """True on every process once any of them has been signalled."""
        if world_size() > 1:
            import paddle
            import paddle.distributed

            number = paddle.to_tensor([self.signal or 0])
            paddle.distributed.all_reduce(number, paddle.distributed.ReduceOp.MAX)
            self.signal = number.item() or None
        return self.signal is not None


@contextlib.contextmanager
def stop_signals():
    """Turn SIGINT and SIGTERM into a `StopRequest` that the loop reads between steps; a second one quits at once."""
    stop, before = StopRequest(), {}

    def ask(number, _frame):
        if stop.signal is not None:
            os._exit(128 + number)
        stop.signal = number
        print("\nstopping after this step; once more to quit at once", file=sys.stderr, flush=True)

    for number in (signal.SIGINT, signal.SIGTERM):
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
