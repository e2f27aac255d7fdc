"""Read images ahead of the training, in threads, and measure how long the training waits for them.

Two threads are nearly as fast as two processes, except for a packed .zip (benchmarks/data.py): Pillow releases the
interpreter's lock while it decodes and resizes. An error in a thread reaches the training, and threads share the data
set.
"""

import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

BATCHES_AHEAD = 2
TOGETHER = 8  # items that a thread reads without asking for the next
HANGING = 60  # seconds; a file that takes longer is named


class Reading:
    """The files that threads read at the moment."""

    def __init__(self):
        self._files = {}  # {thread: (path, time when it began)}
        self._named = set()

    @contextmanager
    def of(self, path):
        """A context in which this thread reads the file `path`."""
        self._files[threading.get_ident()] = path, time.monotonic()
        try:
            yield
        finally:
            del self._files[threading.get_ident()]

    def name_hanging(self):
        """Print, once for each file, the files that have been read for longer than HANGING seconds."""
        now = time.monotonic()
        for path, begun in tuple(self._files.values()):
            if now - begun >= HANGING and path not in self._named:
                self._named.add(path)
                seconds = f"{now - begun:.0f} s"
                line = f"{str(path)!r} has been read for {seconds}: its disk or network may hang; the run waits"
                print(line, file=sys.stderr, flush=True)


def read_ahead(batches, read, threads, reading):
    """Yield the list `[read(item) for item in batch]` of each of `batches`, in order.

    `threads` threads read up to BATCHES_AHEAD batches ahead. Files that hang are named by `reading`, a `Reading`.
    """
    pool, ahead = ThreadPoolExecutor(threads), deque()
    try:
        for batch in batches:
            groups = (batch[start : start + TOGETHER] for start in range(0, len(batch), TOGETHER))
            ahead.append([pool.submit(_read_all, read, group) for group in groups])
            if len(ahead) > BATCHES_AHEAD:
                yield _results(ahead.popleft(), reading)
        for batch in ahead:
            yield _results(batch, reading)
    finally:
        pool.shutdown(cancel_futures=True)


def _read_all(read, items):
    return [read(item) for item in items]


def _results(futures, reading):
    while wait(futures, HANGING / 4).not_done:
        reading.name_hanging()
    return [image for future in futures for image in future.result()]


class Timed:
    """Yields `items`. Measures the time that the caller waits for them."""

    def __init__(self, items):
        self._items, self._seconds = iter(items), 0.0

    def __iter__(self):
        return self

    def __next__(self):
        begun = time.monotonic()
        try:
            return next(self._items)
        finally:
            self._seconds += time.monotonic() - begun

    def waited(self):
        """The seconds that the caller has waited since the last call of `waited`."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds
