"""The processes of a run watch each other: when one fails or dies, the others say which and why, and end too.

Without this they would wait in a collective for the one that is gone: for minutes over gloo, for ever over NCCL.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time

from utils import UserError, program

DIED = 75  # exit code when another process has died: EX_TEMPFAIL of sysexits.h, "try again"
JOIN_SECONDS = 120  # for all processes to come
LEAVE_SECONDS = 10  # for the others to come and hear why one fails at its start
BEAT_SECONDS = 5
SILENT_BEATS = 5  # that may be missed, 25 seconds; counted, so that a run that was suspended as a whole goes on
GRACE_SECONDS = 1  # for a process that fails of the same cause to say so itself
LONGEST_LINE = 10_000
GOES_ON = ": the run stops; --resume auto goes on from its last checkpoint"


class Watch:
    """This process's connections: rank 0 has one to each of the others, each of the others has one to rank 0.

    Over them go lines of JSON: who this is, then beats, arrivals at a meeting, how it ended; rank 0 passes on what
    concerns all. A connection that closes without a word is a process that has died; one that misses SILENT_BEATS is a
    process or host that hangs. `address`: (host, port) on which rank 0 listens. `run`: a text that only processes of
    this run have. Raises UserError when rank 0 cannot listen there.
    """

    def __init__(self, rank, world_size, address, run):
        self.rank, self.world_size, self.address = rank, world_size, address
        self.hello = {"run": run, "rank": rank, "name": f"rank {rank} ({socket.gethostname()}, pid {os.getpid()})"}
        self.links = {}  # rank: socket
        self.joined = threading.Event()  # all links are there
        self.met = threading.Event()  # all are at the meeting that this process waits at
        self.present, self.lock = {}, threading.Lock()  # who is at it, with what value; rank 0 knows all
        self.largest = 0  # value at the last meeting
        self.stopping = threading.Lock()  # taken for the first reason to end, for good
        self.started = self.left = False
        server = None
        if rank == 0:
            try:
                server = socket.create_server(address, backlog=world_size)
            except OSError as error:
                raise UserError(f"rank 0 cannot listen on {address[0]}:{address[1]}: {error.strerror}") from None
        for work, *arguments in ((self._accept, server) if server else (self._connect,), (self._beat,)):
            threading.Thread(target=work, args=arguments, daemon=True).start()

    def meet(self, value=0):
        """The largest `value`, a whole number, of all processes, when every one has come here, however long it takes.

        Raises UserError when one has not even started, at the first meeting.
        """
        if not self.joined.wait(JOIN_SECONDS):
            missing = ", ".join(str(rank) for rank in sorted(self._others() - set(self.links)))
            raise UserError(f"rank {missing} did not come within {JOIN_SECONDS} seconds: its log says why")
        self.met.clear()
        if self.rank == 0:
            self._arrived(0, value)
        else:
            self._tell({"here": value})
        self.met.wait()
        self.started = True
        return self.largest

    def leave(self, reason=None, code=0):
        """Say that this process ends, well or for a `reason` that ends all of them with exit code `code`."""
        if reason is not None:
            self.joined.wait(LEAVE_SECONDS)
        self.left = True
        self._tell({"end": reason and f"{self.hello['name']} has stopped: {reason}", "code": code})

    def _others(self):
        return set(range(1, self.world_size)) if self.rank == 0 else {0}

    def _accept(self, server):
        server.settimeout(1)
        with server:
            while not self.joined.is_set():
                try:
                    link, _ = server.accept()
                except TimeoutError:
                    continue
                threading.Thread(target=self._read, args=(link,), daemon=True).start()

    def _connect(self):
        while not self.joined.is_set():
            with contextlib.suppress(OSError):  # rank 0 has not started yet
                self._read(socket.create_connection(self.address, timeout=BEAT_SECONDS))
            time.sleep(0.2)

    def _beat(self):
        while True:
            time.sleep(BEAT_SECONDS)
            self._tell({})

    def _tell(self, message):
        for link in list(self.links.values()):
            self._send(link, message)

    def _send(self, link, message):
        with contextlib.suppress(OSError):  # which its reader sees too
            link.sendall(json.dumps(message).encode() + b"\n")

    def _read(self, link):
        """Follow what another process says until it ends."""
        link.settimeout(BEAT_SECONDS)
        self._send(link, self.hello)
        messages = self._messages(link)
        # Others may take long to say who they are, while an import holds their interpreter.
        hello = next((message for message in messages if message is not None or self.joined.is_set()), None) or {}
        if hello.get("run") != self.hello["run"] or hello["rank"] not in self._others():  # a stranger, or an echo
            link.close()
            return
        self.links[hello["rank"]] = link
        if len(self.links) == len(self._others()):
            self.joined.set()
        silent = 0
        for message in messages:
            if message is None:
                silent += self.started  # before, an import may hold the interpreter for long
                if silent == SILENT_BEATS:
                    self._stop(f"{hello['name']} has not answered for {silent * BEAT_SECONDS} seconds{GOES_ON}", DIED)
                continue
            silent = 0
            if "here" in message:
                self._arrived(hello["rank"], message["here"])
            if "end" in message:
                if message["end"]:
                    self._stop(message["end"], message["code"])
                return
        self._stop(f"{hello['name']} has died{GOES_ON}", DIED)

    @staticmethod
    def _messages(link):
        """The messages that come over `link` until it closes, and None for BEAT_SECONDS without one."""
        rest = b""
        while len(rest) < LONGEST_LINE:
            try:
                received = link.recv(4096)
            except TimeoutError:
                yield None
                continue
            except OSError:
                return
            if not received:
                return
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                try:
                    yield dict(json.loads(line))
                except (ValueError, TypeError):
                    return

    def _arrived(self, rank, value):
        """At rank 0: `rank` is at the meeting, and when all are, it is over. Elsewhere: rank 0 says that it is.

        `value`: what `rank` comes with, or from rank 0 the largest of all.
        """
        with self.lock:
            self.present[rank] = value
            if self.rank == 0 and len(self.present) < self.world_size:
                return
            self.largest = max(self.present.values())
            self.present.clear()
        if self.rank == 0:
            self._tell({"here": self.largest})
        self.met.set()

    def _stop(self, reason, code):
        """End this process; rank 0 has all others end too, whose end is then no reason of its own."""
        if not self.stopping.acquire(blocking=False):
            return
        if self.rank == 0:
            self._tell({"end": reason, "code": code})
        if code != DIED:
            time.sleep(GRACE_SECONDS)
        if not self.left:
            print(f"\n{program()}: {reason}", file=sys.stderr, flush=True)
            os._exit(code)
