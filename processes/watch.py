"""The processes of a run watch each other. If one fails or dies, the others print which one and why, and end too.

Without this they would wait for the lost process in a collective: for minutes over gloo, for ever over NCCL.
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
JOIN_SECONDS = 120  # time until all processes must have connected
LEAVE_SECONDS = 10  # a process that fails early waits this long for the others to connect and get the reason
BEAT_SECONDS = 5  # time between two beats
# After this many missed beats (25 seconds) a process counts as hung. Beats are counted, not seconds, so that a run
# continues after all its processes were suspended together.
SILENT_BEATS = 5
GRACE_SECONDS = 1  # time for a process that fails of the same cause to print its own message
LONGEST_LINE = 10_000  # bytes
GOES_ON = ": the run stops; --resume auto goes on from its last checkpoint"


class Watch:
    """The connections of this process. Rank 0 has one to each other process; each other process has one to rank 0.

    The messages are lines of JSON. The first line gives run, rank and name. The next lines are beats, arrivals at a
    meeting, and the end of the process. Rank 0 forwards the result of a meeting, and a failure, to all. If a connection
    closes without an end message, its process has died. If SILENT_BEATS are missed, the process or its host hangs.

    `address`: (host, port) on which rank 0 listens. `run`: a text that only processes of this run have. Raises
    UserError if rank 0 cannot listen there.
    """

    def __init__(self, rank, world_size, address, run):
        self.rank, self.world_size, self.address = rank, world_size, address
        self.hello = {"run": run, "rank": rank, "name": f"rank {rank} ({socket.gethostname()}, pid {os.getpid()})"}
        self.links = {}  # rank: socket
        self.joined = threading.Event()  # set when all links exist
        self.met = threading.Event()  # set when all processes have arrived at the current meeting
        self.present, self.lock = {}, threading.Lock()  # {rank: value} at the current meeting; only rank 0 has all
        self.largest = 0  # largest value at the last meeting
        self.stopping = threading.Lock()  # taken by the first reason to end and never released
        self.started = False  # whether the first meeting is over
        self.left = False  # whether this process has told its end
        server = None
        if rank == 0:
            try:
                server = socket.create_server(address, backlog=world_size)
            except OSError as error:
                raise UserError(f"rank 0 cannot listen on {address[0]}:{address[1]}: {error.strerror}") from None
        for work, *arguments in ((self._accept, server) if server else (self._connect,), (self._beat,)):
            threading.Thread(target=work, args=arguments, daemon=True).start()

    def meet(self, value=0):
        """Wait until all processes have called this, without a time limit. Returns the largest `value`, a whole number.

        Raises UserError if a process has not connected within JOIN_SECONDS.
        """
        if not self.joined.wait(JOIN_SECONDS):
            missing = ", ".join(str(rank) for rank in sorted(self._others() - set(self.links)))
            raise UserError(f"rank {missing} did not connect within {JOIN_SECONDS} seconds: read the reason in its log")
        self.met.clear()
        if self.rank == 0:
            self._arrived(0, value)
        else:
            self._send_to_all({"here": value})
        self.met.wait()
        self.started = True
        return self.largest

    def leave(self, reason=None, code=0):
        """Tell the others that this process ends. With a `reason`, all of them end too, with exit code `code`."""
        if reason is not None:
            self.joined.wait(LEAVE_SECONDS)
        self.left = True
        self._send_to_all({"end": reason and f"{self.hello['name']} has stopped: {reason}", "code": code})

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
            self._send_to_all({})

    def _send_to_all(self, message):
        for link in list(self.links.values()):
            self._send(link, message)

    def _send(self, link, message):
        with contextlib.suppress(OSError):  # the thread that reads this link notices it too
            link.sendall(json.dumps(message).encode() + b"\n")

    def _read(self, link):
        """Read the messages of another process until it ends. Runs in a thread for each link."""
        # Exchange the first lines.
        link.settimeout(BEAT_SECONDS)
        self._send(link, self.hello)
        messages = self._messages(link)
        # Wait for the first message as long as links are missing: a slow import in the other process may delay it.
        hello = next((message for message in messages if message is not None or self.joined.is_set()), None) or {}
        # Refuse another program, or this process itself.
        if hello.get("run") != self.hello["run"] or hello["rank"] not in self._others():
            link.close()
            return
        self.links[hello["rank"]] = link
        if len(self.links) == len(self._others()):
            self.joined.set()
        # Handle the messages that follow, and count missed beats.
        silent = 0
        for message in messages:
            if message is None:
                # Before the first meeting beats are not counted: a slow import may block the other process.
                silent += self.started
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
        # The connection has closed without an end message.
        self._stop(f"{hello['name']} has died{GOES_ON}", DIED)

    @staticmethod
    def _messages(link):
        """Yield the messages from `link` until it closes. Yield None after each BEAT_SECONDS without a message."""
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
        """Handle an arrival at the current meeting.

        On rank 0, process `rank` has arrived with `value`; the meeting ends when all have arrived. On other processes,
        the message from rank 0 ends the meeting, and `value` is the largest of all.
        """
        with self.lock:
            self.present[rank] = value
            if self.rank == 0 and len(self.present) < self.world_size:
                return
            self.largest = max(self.present.values())
            self.present.clear()
        if self.rank == 0:
            self._send_to_all({"here": self.largest})
        self.met.set()

    def _stop(self, reason, code):
        """End this process for the first `reason`; ignore later ones. Rank 0 also tells all others to end."""
        if not self.stopping.acquire(blocking=False):
            return
        if self.rank == 0:
            self._send_to_all({"end": reason, "code": code})
        if code != DIED:
            time.sleep(GRACE_SECONDS)
        if not self.left:
            print(f"\n{program()}: {reason}", file=sys.stderr, flush=True)
            os._exit(code)
