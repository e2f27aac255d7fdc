"""Threads, devices, processes, seeds. Import this module before paddle: it sets what paddle reads when it loads."""

import contextlib
import os
import signal
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from processes import collectives
from processes.watch import GRACE_SECONDS
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


def run(main):
    """Run an entry point as a command: a UserError is one line on stderr and exit code 2.

    Of several processes each learns why another ends before its time, and ends too.
    """
    code, reason = 1, None
    sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no text
    try:
        collectives.join()
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
        if collectives.is_watched():
            # Another's death shows as an error in a collective. Give the watch time to end this process.
            time.sleep(2 * GRACE_SECONDS)
        if not isinstance(error, OSError):
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"
            raise
        # a full disk, a folder that cannot be written
        code, reason = 2, f"{error.filename or 'a file'}: {error.strerror or error}"
        _say(reason)
    finally:
        collectives.leave(reason, code)
        _close_output()
    sys.exit(code)


def _say(reason):
    warn(f"{program()}: {reason}")


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
    if collectives.world_size() > 1:
        import paddle.distributed

        collectives.meet()  # before Paddle's own rendezvous, which would wait 15 minutes for a process that has failed
        # It waits outside Python, where Python's handlers do not run.
        handlers = {number: signal.signal(number, signal.SIG_DFL) for number in STOP_SIGNALS}
        paddle.distributed.init_parallel_env()
        for number, handler in handlers.items():
            signal.signal(number, handler)


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
            self.signal = collectives.meet(self.asked or 0) or None
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
