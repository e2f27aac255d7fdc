"""Processes that stay up and take turns at the same work, so that all see the same machine.

A side is a process. A line to its standard input starts one turn, a line of JSON on its standard output ends it. So a
waiting side sleeps. Each round gives every side one turn: A B C, A B C. Only ratios of turns of one round count,
because a machine's speed changes from minute to minute.

A benchmark script starts itself for each side (`--serve`), calls `serve` there, and `measure` in the parent.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
WARM_UP = 2  # rounds; the first turn of a side also builds the networks
SLOW = 15  # seconds; if the first round takes longer, it is the only one that warms up
LEAST = 2  # measured rounds, however long they take
# OpenMP's threads spin for 0.2 s after their last work. They must not take time from the next side.
PAUSE = 0.25
# glibc then keeps the memory that a program frees, instead of returning it to the system.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
LOAD = """
import os, numpy
matrix = numpy.ones((500, 500), numpy.float32)
parent = os.getppid()
while os.getppid() == parent:
    matrix @ matrix
"""


def serve(work):
    """Runs in a side: one step of the generator `work` for each line of input.

    `work` yields once after its imports, then after each turn.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the frameworks print must not look like an answer
    next(work)
    base = _memory("VmRSS")
    for _ in sys.stdin:
        start = time.perf_counter()
        next(work)
        print(json.dumps([time.perf_counter() - start, base, _memory("VmHWM")]), file=answers, flush=True)


def _memory(name):
    """MiB of resident memory of this process: now (VmRSS) or at its peak (VmHWM)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields[name].split()[0]) / 1024


class Side:
    """A process that does a turn when it is told to. `base`, `peak`: its memory after imports and at most, in MiB."""

    def __init__(self, name, command, threads, **variables):
        numbers = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "FLAGS_paddle_num_threads")
        environment = {k: v for k, v in os.environ.items() if k not in (*numbers, *KEEP_MEMORY, "KMP_BLOCKTIME")}
        # Paddle warns about OMP_NUM_THREADS, and sets it itself. PyTorch's side calls set_num_threads.
        environment |= {"MKL_NUM_THREADS": str(threads), "FLAGS_paddle_num_threads": str(threads), **variables}
        self.name, self.base, self.peak = name, 0, 0
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([*map(str, command)], env=environment, text=True, **pipes)

    def turn(self):
        """The seconds of one turn."""
        try:
            print(file=self.process.stdin, flush=True)
            seconds, self.base, self.peak = json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            sys.exit(f"the process of {self.name} has ended early; its own message is above")
        return seconds

    def close(self):
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):  # the rest of the input has no reader any more
            self.process.stdin.close()


def measure(sides, turns, seconds, load=0):
    """{name of a side: seconds of each turn}. `load`: processes that compute all the time beside them.

    After the rounds that warm up come `turns` rounds, or fewer once they take more than `seconds`, but at least LEAST.
    """
    with contextlib.ExitStack() as stack:
        for side in sides:
            stack.callback(side.close)
        one_thread = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        for _ in range(load):
            stack.callback(subprocess.Popen([sys.executable, "-c", LOAD], env=one_thread).kill)
        taken = {side.name: [] for side in sides}
        start = time.monotonic()
        for turn in range(-WARM_UP, turns):
            if turn == -1 and time.monotonic() - start > SLOW:
                continue
            if turn == 0:
                start = time.monotonic()
            if turn >= LEAST and time.monotonic() - start > seconds:
                break
            for side in sides:
                time.sleep(PAUSE)
                spent = side.turn()
                if turn >= 0:
                    taken[side.name].append(spent)
        return taken


def arguments(description):
    """The parser with the options of all benchmarks that take turns with PyTorch."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("work", nargs="*", help="names of works; left out: all")
    parser.add_argument("--torch_python", required=True, help="the Python of an environment with PyTorch")
    parser.add_argument("--ours_before", metavar="DIR", help="another checkout of this project, as a further column")
    parser.add_argument("--turns", type=int, default=7, help="rounds to measure")
    parser.add_argument("--seconds", type=float, default=60, help="stop after this time of one work")
    parser.add_argument("--threads", type=int, help="of each side; left out: the physical cores")
    parser.add_argument("--load", type=int, default=0, help="processes that compute all the time beside the sides")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    return parser


def chosen(parser, options, works):
    """The names in `works` that the command line chooses."""
    if unknown := [name for name in options.work if name not in works]:
        parser.error(f"unknown work {unknown[0]}; known are {', '.join(works)}")
    return options.work or list(works)


def sides_of(script, options, ours, theirs):
    """The sides of one work. `ours`: values of options of train.py. `theirs`: all settings, for PyTorch.

    The script is called as `script --serve ROOT OURS` by our Python, as `script --serve_torch THEIRS THREADS` by
    PyTorch's.
    """
    threads = options.threads or physical_cores()
    sides = [our_side(script, threads, ours), torch_side(script, threads, theirs, options.torch_python)]
    sides.append(torch_side(script, threads, theirs, options.torch_python, "PyTorch, memory kept", **KEEP_MEMORY))
    if options.ours_before:
        sides.append(our_side(script, threads, ours, "before", Path(options.ours_before).resolve()))
    return sides


def our_side(script, threads, values, name="ours", root=ROOT):
    """The side of this project, or of another checkout of it in the folder `root`."""
    return Side(name, [sys.executable, script, "--serve", root, json.dumps(values)], threads)


def torch_side(script, threads, settings, python, name="PyTorch", **variables):
    return Side(name, [python, script, "--serve_torch", json.dumps(settings), threads], threads, **variables)


def physical_cores():
    """The number of threads that training uses."""
    sys.path.insert(0, str(ROOT))
    import runtime

    return runtime.threads()


class Table:
    """Prints a row for each work: milliseconds, ratios to ours, memory."""

    def __init__(self, markdown, before=False):
        self.names = ["ours", "PyTorch", "PyTorch, memory kept", *(["before"] if before else [])]
        self.markdown = markdown
        titles = ["work", *(f"{name}, ms" for name in self.names), *(f"{name} / ours" for name in self.names[1:])]
        titles += ["peak memory, MiB", "ours / PyTorch", "after imports, MiB", "turns"]
        self.widths = [max(25, len(title)) if "MiB" in title else max(14, len(title)) for title in titles]
        self._print(titles)
        if markdown:
            print("|" + "---|" * len(titles), flush=True)

    def add(self, work, sides, taken):
        """Print the row of `work`. Times and ratios are medians over the rounds, memory is the peak of each side."""
        cells = [work, *(f"{1000 * statistics.median(taken[name]):.0f}" for name in self.names)]
        cells += [f"{median_ratio(taken[name], taken['ours']):.2f}" for name in self.names[1:]]
        peaks, bases = ([getattr(side, size) for side in sides] for size in ("peak", "base"))
        peak, base = (" / ".join(f"{size:.0f}" for size in sizes) for sizes in (peaks, bases))
        self._print([*cells, peak, f"{peaks[0] / peaks[1]:.2f}", base, str(len(taken["ours"]))])

    def _print(self, cells):
        line = " | ".join(cells if self.markdown else map(str.ljust, cells, self.widths))
        print(f"| {line} |" if self.markdown else line.replace(" | ", "  "), flush=True)


def median_ratio(theirs, ours):
    """The median over the rounds of their seconds divided by ours."""
    return statistics.median(t / o for t, o in zip(theirs, ours, strict=True))
