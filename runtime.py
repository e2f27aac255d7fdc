"""Threads, devices, processes, signals. Import this before paddle: it sets environment variables that paddle reads."""

import contextlib
import ctypes
import os
import signal
import sys
import time
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import system
from processes import collectives
from processes.watch import GRACE_SECONDS
from utils import UserError, program

# Under `nohup` SIGHUP is ignored; it stays ignored here.
STOP_SIGNALS = tuple(number for number in system.STOPPING if signal.getsignal(number) != signal.SIG_IGN)
BROKEN_PIPE = 128 + 13  # exit code when nobody reads the output any more: 13 is SIGPIPE
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # from malloc.h
BURST_SECONDS = 5  # see `stop_signals`
COPIES = 4  # to a GPU; their pinned memory is kept

_copying = deque()


def _set_environment():
    """Let the maths library use every physical core and its fast path. Variables that the user has set stay.

    By default Paddle computes on one thread. The Intel MKL in its CPU wheel uses slow code on AMD processors.
    """
    info = system.processor()
    threads = str(max(1, _physical_cores(info) // collectives.processes_on_host()))
    if "OMP_NUM_THREADS" not in os.environ:  # not set here, because paddle warns if it is set
        os.environ.setdefault("MKL_NUM_THREADS", threads)
        os.environ.setdefault("FLAGS_paddle_num_threads", threads)
    if "AuthenticAMD" in info:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    os.environ.setdefault("GLOG_minloglevel", "2")  # hide paddle's C++ warnings; show errors
    warnings.filterwarnings("ignore", message="No ccache found")
    warnings.filterwarnings("ignore", message="You are using GPU version Paddle")  # on a machine without one


def _physical_cores(cpuinfo):
    """The number of physical cores that this process may use. `cpuinfo`: the text of /proc/cpuinfo."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    cores = set()
    for block in cpuinfo.strip().split("\n\n"):
        fields = dict(line.replace("\t", "").split(":", 1) for line in block.splitlines() if ":" in line)
        if int(fields.get("processor", -1)) in usable:
            cores.add((fields.get("physical id"), fields.get("core id", fields.get("processor"))))
    return len(cores) or len(usable)


def _keep_freed_memory():
    """Let the C library keep the memory of freed tensors for the next ones, where it has glibc's `mallopt`.

    By default glibc returns large blocks to the system. Then each new tensor has to get its pages anew. All threads use
    one heap, because memory that a thread frees in a heap of its own is of no use to the others.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        for parameter, value in ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, (1 << 31) - 1), (M_ARENA_MAX, 1)):
            library.mallopt(parameter, value)


_set_environment()
_keep_freed_memory()


def threads():
    """The number of threads that a call of the maths library uses."""
    # Paddle sets OMP_NUM_THREADS to 1 when it loads. MKL_NUM_THREADS has priority.
    value = os.environ.get("MKL_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or "1"
    return int(value.split(",")[0])  # OpenMP allows a list, one number for each level of nesting


@contextlib.contextmanager
def math_threads(count):
    """A context in which calls of the maths library on the CPU use `count` threads."""
    set_threads(count)
    try:
        yield
    finally:
        set_threads(threads())


def to_device(array):
    """A NumPy array as a tensor on this process's device.

    To a GPU it is copied from pinned memory, and the host does not wait for the copy.
    """
    import paddle

    if paddle.get_device() == "cpu":
        return paddle.to_tensor(array)
    pinned = paddle.to_tensor(array, place=paddle.CUDAPinnedPlace())
    copy = pinned.cuda(blocking=False)
    event = paddle.device.cuda.Event()
    event.record()
    # The pinned memory must not be freed before the copy is complete.
    _copying.append((pinned, event))
    if len(_copying) > COPIES:
        _copying.popleft()[1].synchronize()
    return copy


def set_threads(count):
    """Let all later calls of the maths library on the CPU use `count` threads."""
    from paddle.base import core

    core.set_num_threads(count)


def peak_memory():
    """The largest number of bytes that this process has used so far: of its GPU, or on the CPU of main memory.

    None if the system does not tell.
    """
    import paddle

    if paddle.get_device() != "cpu":
        return paddle.device.cuda.max_memory_allocated()
    return system.peak_memory()


def parallel(function, items):
    """A list of `function(item)` for each of `items`, in their order.

    On a CPU several threads work on different items, and each uses one thread of the maths library. The reason: a
    matrix product rounds differently with another number of threads. So the bits depend neither on the number of
    threads nor on the number of processes. Other work on the machine also slows this down less.
    """
    import paddle

    if paddle.get_device() != "cpu":
        return list(map(function, items))
    with math_threads(1), ThreadPoolExecutor(threads()) as pool:
        return list(pool.map(function, items))


def run(main):
    """Run the function `main` of a command and exit. A UserError becomes one line on stderr and exit code 2.

    If one of several processes ends early, the others learn the reason and end too.
    """
    code, reason = 1, None
    sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may not be valid text
    try:
        collectives.join()
        code = main()
        if code == 0:
            sys.stdout.flush()
    except UserError as error:
        code, reason = 2, str(error)
        _print_reason(reason)
    except KeyboardInterrupt:
        code, reason = 128 + signal.SIGINT, "interrupted"
    except BrokenPipeError:
        # The reader of the output, such as `head`, has ended. End silently, as SIGPIPE ends other programs. Python
        # ignores SIGPIPE itself; this stays so, because a closed socket to another process must not end this one.
        code, reason = BROKEN_PIPE, "nobody reads its output any more"
    except Exception as error:
        if collectives.is_watched():
            # If another process has died, a collective raises an error here. Give the watch time to end this process.
            time.sleep(2 * GRACE_SECONDS)
        if not isinstance(error, OSError):
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"
            raise
        # An OSError is the user's to solve: a full disk, or a folder that cannot be written.
        code, reason = 2, f"{error.filename or 'a file'}: {error.strerror or error}"
        _print_reason(reason)
    finally:
        collectives.leave(reason, code)
        _close_output()
        # Python's own clean-up follows. A signal there would become a traceback, or change the exit code.
        _on_signals(signal.SIG_IGN)
    sys.exit(code)


def _print_reason(reason):
    warn(f"{program()}: {reason}")


def warn(line):
    """Print a line on stderr. If stderr is gone, as after the end of an SSH session, do nothing."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _warn_in_handler(line):
    """`warn` for the handler of a signal.

    The signal may come during a write to sys.stderr, which then refuses another write.
    """
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


def _close_output():
    """Drop output that cannot be written. Otherwise Python tries again at its exit and changes the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def start(parameters):
    """Choose the device and the number of threads. Set up Paddle's collectives if there are several processes.

    `parameters.device` is "cpu", "gpu" or "gpu:N". None means a GPU if there is one, else the CPU. Raises UserError for
    a device that does not exist. `parameters.threads` is None for the default.
    """
    import paddle

    if parameters.threads:
        os.environ["MKL_NUM_THREADS"] = str(parameters.threads)  # `threads` reads it
        set_threads(parameters.threads)

    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    device = parameters.device or ("gpu" if gpus else "cpu")
    if device != "cpu":
        number = device.partition(":")[2]
        if not gpus:
            build = "no GPU is visible" if paddle.is_compiled_with_cuda() else "this paddlepaddle is the CPU build"
            raise UserError(f"--device {device} cannot be used: {build}; give --device cpu or install paddlepaddle-gpu")
        if number and int(number) >= gpus:
            raise UserError(f"--device {device} does not exist: {gpus} GPU(s) are visible, gpu:0 to gpu:{gpus - 1}")
        device = device if number else f"gpu:{os.environ.get('FLAGS_selected_gpus', '0').split(',')[0]}"
    paddle.set_device(device)
    if collectives.world_size() > 1:
        import paddle.distributed

        # Meet before Paddle's own rendezvous, because that waits 15 minutes for a process that has failed.
        collectives.meet()
        # Paddle's rendezvous waits in C++, where Python's signal handlers do not run: use the default ones meanwhile.
        handlers = {number: signal.signal(number, signal.SIG_DFL) for number in STOP_SIGNALS}
        paddle.distributed.init_parallel_env()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def quit_on_signals(cleanly=False, with_paddle=True):
    """Let STOP_SIGNALS end the process with one line and exit code 128 + signal. Unblock them if they were blocked.

    This is for the time before `stop_signals`, when there is nothing to save. With `cleanly` a signal raises
    SystemExit, so that a half-written file is removed. Afterwards no module may be imported, because a signal must not
    interrupt an import. `with_paddle`: whether this process uses paddle.
    """
    if with_paddle:
        import paddle  # noqa: F401, imported first: when it loads, it sets its own handler for SIGTERM

    _on_signals(_exit_cleanly if cleanly else _exit_at_once)
    system.release_signals()


def _on_signals(handler):
    for number in STOP_SIGNALS:
        signal.signal(number, handler)


def _exit_cleanly(number, _frame):
    _warn_in_handler(f"{program()}: stopped by {signal.Signals(number).name}")
    raise SystemExit(128 + number)


def _exit_at_once(number, _frame):
    _warn_in_handler(f"{program()}: stopped by {signal.Signals(number).name}")
    os._exit(128 + number)


class StopRequest:
    """Whether a signal has asked the run to stop.

    `asked`: the signal that this process received. `signal`: the signal that all processes agree to stop for. Both are
    numbers, or None.
    """

    def __init__(self):
        self.asked = self.signal = None

    def requested(self):
        """True after any process has received a signal. All processes get True in the same call."""
        if self.signal is None:
            self.signal = collectives.meet(self.asked or 0) or None
        return self.signal is not None


@contextlib.contextmanager
def stop_signals():
    """Turn STOP_SIGNALS into a `StopRequest` that the loop reads between steps. A second signal quits at once.

    Signals other than SIGINT within BURST_SECONDS of the first count as one with it: Paddle's launcher sends three
    SIGTERMs to end a process, and the shell and the terminal send one SIGHUP each.
    """
    stop, first, before = StopRequest(), None, {}

    def ask(number, _frame):
        nonlocal first
        now = time.monotonic()
        if first is None:  # also when another process's signal has stopped the run already
            first, stop.asked = now, number
            new_line = "\n" * os.isatty(2)  # a terminal shows ^C or a progress bar in this line
            _warn_in_handler(f"{new_line}stopping; send the signal once more to quit at once")
        elif number == signal.SIGINT or now - first > BURST_SECONDS:
            os._exit(128 + number)

    for number in STOP_SIGNALS:
        before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
