"""Processes that read images: each works on its own share of the blocks and sends them through its own pipe.

A pool with one pipe for all, such as Python's, would wait for ever for a process that is killed while it sends. Windows
cannot fork processes, so there threads read the images. From class folders
they are nearly as fast (see `loading/pipeline.py`).
"""

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

import system
from utils import UserError

CHECK_SECONDS = 0.5  # between two calls of `check`
BLOCKS_AHEAD = 4  # that wait in the memory of this process, for each reader


class Died(Exception):
    """A reader has ended early, such as for lack of memory."""


@contextmanager
def reading(work, items, readers, check):
    """A context that gives an iterator over `work(item)` for each of `items`, in order, done by `readers` processes.

    They are forked, so `work` is not copied. Each calls `check()` every CHECK_SECONDS, in a thread. A UserError in one
    is raised here. Raises Died if one ends early.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        yield _read_in_threads(work, items, readers, check)
        return
    context = multiprocessing.get_context("fork")
    started = []
    for number in range(readers):
        receiver, sender = context.Pipe(duplex=False)
        mine = items[number::readers]
        process = context.Process(target=_run, args=(work, mine, sender, check, os.getpid()), daemon=True)
        process.start()
        sender.close()  # so that the pipe ends when the reader ends
        started.append((process, receiver))
    # Threads only now: a fork copies locks that other threads hold.
    waiting = [queue.Queue(BLOCKS_AHEAD) for _ in started]
    for blocks, (_, receiver) in zip(waiting, started, strict=True):
        threading.Thread(target=_receive, args=(receiver, blocks), daemon=True).start()
    try:
        yield _in_order(waiting, len(items))
    finally:
        for process, _ in started:
            process.kill()
        for process, _ in started:
            process.join()


def _read_in_threads(work, items, readers, check):
    pool, ahead = ThreadPoolExecutor(readers), deque()
    try:
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) > BLOCKS_AHEAD * readers:
                yield _result(ahead.popleft(), check)
        for future in ahead:
            yield _result(future, check)
    finally:
        pool.shutdown(cancel_futures=True)


def _result(future, check):
    while wait([future], CHECK_SECONDS).not_done:
        check()
    return future.result()


def _in_order(waiting, count):
    for number in range(count):
        found = waiting[number % len(waiting)].get()
        if found is None:
            raise Died
        if isinstance(found, UserError):
            raise found
        yield found


def _receive(receiver, blocks):
    """Move the blocks of a reader to the queue `blocks`; at the end of the reader, put None there."""
    found = receiver
    while found is not None:
        try:
            found = receiver.recv()
        except (EOFError, OSError):
            found = None
        blocks.put(found)


def _run(work, items, sender, check, parent):
    """The work of a reader."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the main one ends the others
    for number in system.STOPPING:
        if number != signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
    threading.Thread(target=_stay, args=(check, parent), daemon=True).start()
    for item in items:
        try:
            found = work(item)
        except UserError as error:
            found = error
        sender.send(found)


def _stay(check, parent):
    """Call `check` as long as the process `parent` lives. Then end this process, however that one ended."""
    while os.getppid() == parent:
        time.sleep(CHECK_SECONDS)
        check()
    os._exit(1)
