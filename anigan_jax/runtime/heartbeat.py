"""Heartbeats between the processes of a run: one that is lost or stuck is named, and all end.

Each process sends its state to process 0 every second, over TCP; process 0 sends its own back,
judges, and ends all with exit code 4. Standard library only.

JAX's own heartbeat stays underneath, as a safety net. It cannot take this file's place: on jax
0.10.2 and 0.12.0.1 (three processes on CPUs, `heartbeat_timeout_seconds=5`) all survivors end
within 6 s, but by SIGABRT under a C++ stack trace that does not always name the lost one
("Deadline Exceeded" where process 0 is stopped); one that hangs but still beats is never found.
The callback that would change this is private. With `jax_enable_recoverability` a lost process
0 aborts the others all the same, and the loss of another one goes unnoticed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import hmac
import json
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

INTERVAL = 1.0
LINGER = 1.5
WAITING = ("step", "wait", "failed")
LOST = 4
LONGEST = 65536


@dataclass
class Rank:
    """What is known of one process; times are those of time.monotonic()."""

    rank: int
    step: int = 0
    phase: str = "start"
    barriers: int = 0
    left: bool = False
    last_beat: float = field(default_factory=time.monotonic)
    last_progress: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        return f"process {self.rank}, step {self.step} ({self.phase})"


@dataclass
class Line:
    """A connection; `peer` is None until it has shown the key."""

    socket: socket.socket
    peer: Rank | None = None
    received: bytes = b""


class Heartbeat:
    """One process's end of it; `at` says where the process is.

    Args:
      timeout: seconds without a beat after which a process counts as lost.
      stall_timeout: seconds without progress after which the one furthest behind does.
      end: called with (message, exit code) instead of ending the process.
    """

    def __init__(
        self,
        rank: int,
        world: int,
        timeout: float,
        stall_timeout: float,
        end: Callable | None = None,
    ):
        self.timeout, self.stall_timeout = timeout, stall_timeout
        self.end = end or functools.partial(_report_and_end, rank)
        self.ranks = [Rank(r) for r in range(world)]
        self.own = self.ranks[rank]
        # Those it hears from: process 0 from all, the others from process 0.
        self.peers = self.ranks[:1] if rank else self.ranks[1:]
        self.connections: dict[int, socket.socket] = {}
        self.selector = selectors.DefaultSelector()
        self.sending = threading.Lock()
        self.closed = threading.Event()
        self.arrived = threading.Condition()

    def at(self, step: int, phase: str) -> None:
        """Progress: this process begins a phase of a step."""
        self.own.step, self.own.phase = step, phase
        self.own.last_progress = time.monotonic()

    def serve(self, host: str | None = None) -> dict:
        """Process 0: opens the server; returns what the others need to `join`, as JSON.

        Args:
          host: this machine's name, where it is known.
        """
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        self.server = socket.create_server(
            ("", 0), family=family, backlog=len(self.ranks), dualstack_ipv6=both
        )
        self.selector.register(self.server, selectors.EVENT_READ)
        self.key = secrets.token_hex(16)
        self._start()
        hosts = dict.fromkeys((host, _address(), socket.gethostname()))
        port = self.server.getsockname()[1]
        return {"hosts": [h for h in hosts if h], "port": port, "key": self.key}

    def join(self, server: dict) -> None:
        """Another process: connects to process 0, by the first of its names that answers.

        Raises:
          OSError: none does.
        """
        self.key, failures = server["key"], []
        for host in server["hosts"]:
            try:
                connection = socket.create_connection((host, server["port"]), timeout=5)
            except OSError as error:
                failures.append(f"{host}: {error}")
                continue
            connection.settimeout(None)
            self.connections[0] = connection
            line = Line(connection, self.peers[0])
            self.selector.register(connection, selectors.EVENT_READ, line)
            self._start()
            return
        raise OSError("; ".join(failures))

    def leave(self, message: str = "", code: int = 0) -> None:
        """Ends this process's part; a message says why it does not go on, and ends the others."""
        self.closed.set()
        self.own.left = True
        self._send([message, code, []] if message else None)

    def barrier(self) -> None:
        """Waits until all processes have come here, for as long as none is lost.

        Collectives give up after half a minute; a compilation or an evaluation takes longer.
        """
        self.at(self.own.step, "wait")
        number = self.own.barriers + 1
        if self.own.rank:
            self.own.barriers = number
            self._send()
        with self.arrived:
            self.arrived.wait_for(lambda: all(peer.barriers >= number for peer in self.peers))
        if self.own.rank == 0:
            self.own.barriers = number
            self._send()

    def diagnose(self) -> None:
        """After a failed exchange: waits until the lost process is found, which ends all.

        Where none is lost, process 0 names the ones that the others waited for.
        """
        self.at(self.own.step, "failed")
        time.sleep(self.timeout + 3 * INTERVAL)
        if self.own.rank == 0:
            self._abort(self.stragglers(), "the other processes could not exchange data with it")
        time.sleep(5 * INTERVAL)

    def stragglers(self) -> list[Rank]:
        """The processes that the others may be waiting for."""
        here = [rank for rank in self.ranks if not rank.left]
        busy = [rank for rank in here if rank.phase not in WAITING] or here
        return [rank for rank in busy if rank.step == min(other.step for other in busy)]

    def _start(self) -> None:
        self._send()
        threading.Thread(target=self._monitor, daemon=True).start()

    def _send(self, end: list | None = None) -> None:
        """Sends this process's whole state; `end`: (message, exit code, ranks to blame)."""
        own = self.own
        # Within the lock: an older state must not follow a newer one.
        with self.sending:
            state = {"key": self.key, "rank": own.rank, "step": own.step, "phase": own.phase}
            state |= {"idle": time.monotonic() - own.last_progress, "barriers": own.barriers}
            line = json.dumps({**state, "left": own.left, "end": end}).encode() + b"\n"
            for connection in list(self.connections.values()):
                # That it is broken, `_receive` sees too.
                with contextlib.suppress(OSError):
                    connection.sendall(line)

    def _monitor(self) -> None:
        """Hears the others; every second sends this process's state, and judges theirs."""
        last = time.monotonic()
        while not self.closed.is_set():
            for ready, _ in self.selector.select(max(last + INTERVAL - time.monotonic(), 0)):
                if ready.data:
                    self._receive(ready.data)
                else:
                    try:
                        line = Line(self.server.accept()[0])
                    except OSError:
                        # Closed meanwhile: all have come.
                        continue
                    self.selector.register(line.socket, selectors.EVENT_READ, line)
            now = time.monotonic()
            if now - last < INTERVAL or self.closed.is_set():
                continue
            self._send()
            if now - last > 5 * INTERVAL:
                # This process was stopped, so all others seem silent: they get another chance.
                for rank in self.ranks:
                    rank.last_beat = rank.last_progress = now
            last = now
            self._judge(now)

    def _judge(self, now: float) -> None:
        # Process 0 judges all, those too that never came; the others judge process 0.
        for peer in self.peers:
            if not peer.left and now - peer.last_beat > self.timeout:
                self._abort([peer], f"no heartbeat for {self.timeout:g} s")
        late = [] if self.own.rank else self.stragglers()
        if late and all(now - rank.last_progress > self.stall_timeout for rank in late):
            self._abort(late, f"no progress for {self.stall_timeout:g} s")

    def _receive(self, line: Line) -> None:
        """Reads what has come; it never waits, so a silent stranger blocks nobody."""
        try:
            data = line.socket.recv(LONGEST)
            *complete, line.received = (line.received + data).split(b"\n")
            for message in complete:
                self._hear(line, json.loads(message))
            if data and len(line.received) < LONGEST:
                return
        except (OSError, ValueError, LookupError, TypeError):
            pass
        self.selector.unregister(line.socket)
        line.socket.close()
        if line.peer and not line.peer.left:
            self._abort([line.peer], "it has ended")

    def _hear(self, line: Line, message: dict) -> None:
        """Takes over what a process says of itself.

        Raises:
          ValueError, LookupError, TypeError: it is a stranger.
        """
        if not hmac.compare_digest(message["key"], self.key):
            raise ValueError("wrong key")
        peer = line.peer
        if peer is None:
            peer = {peer.rank: peer for peer in self.peers}[message["rank"]]
            if peer.rank in self.connections:
                raise ValueError("this process is already connected")
            line.peer, self.connections[peer.rank] = peer, line.socket
            if len(self.connections) == len(self.peers):
                self.selector.unregister(self.server)
                self.server.close()
        peer.step, peer.phase, peer.left = message["step"], message["phase"], message["left"]
        peer.last_beat = time.monotonic()
        peer.last_progress = peer.last_beat - message["idle"]
        with self.arrived:
            peer.barriers = message["barriers"]
            self.arrived.notify_all()
        if message["end"]:
            self._close(*message["end"])

    def _abort(self, ranks: list[Rank], reason: str) -> None:
        names = "; ".join(map(str, ranks[:4]))
        self._close(f"{names}: {reason}", LOST, [rank.rank for rank in ranks])

    def _close(self, message: str, code: int, blamed: list[int]) -> None:
        """Ends this process; process 0 ends all."""
        if self.closed.is_set():
            return
        self.closed.set()
        if self.own.rank == 0:
            self._send([message, code, blamed])
        if self.own.rank in blamed:
            # Only the process that hangs can say where.
            with contextlib.suppress(OSError, ValueError):
                faulthandler.dump_traceback()
        self.end(message, code)


def _address() -> str | None:
    """This machine's address towards others, without a name server or a packet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("10.255.255.255", 1))
            return probe.getsockname()[0]
        except OSError:
            return None


def _report_and_end(rank: int, message: str, code: int) -> NoReturn:
    resume = "; the same command resumes" if code == LOST else ""
    end(rank, code, f"error: {message}{resume}")


def end(rank: int, code: int, message: str = "") -> NoReturn:
    """Ends the process whatever its threads wait for, process 0 last.

    Process 0 serves JAX's coordination: without it the others would be aborted, with another
    exit code, before they can end by themselves.
    """
    # A full disk under the log must not keep the process.
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        if message:
            print(message, file=sys.stderr, flush=True)
    if rank == 0:
        time.sleep(LINGER)
    os._exit(code)
