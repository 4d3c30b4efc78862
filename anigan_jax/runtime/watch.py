"""The processes of a run watch one another: who is lost, who is stuck, at which step.

A process that waits in a collective for one that died or hangs waits for long, in some
backends for ever and without a word. So each one tells process 0 every second where it is,
over a socket of its own; process 0 judges and tells all, and all end. Standard library only.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

BEAT = 1.0
LINGER = 1.5
WAITING = ("step", "wait", "failed")
HELLO = 30.0
LOST = 4


@dataclass
class Peer:
    """What is known of one process."""

    rank: int
    step: int = 0
    phase: str = "start"
    count: int = 0
    heard: float = field(default_factory=time.monotonic)
    moved: float = field(default_factory=time.monotonic)
    gone: bool = False

    @property
    def where(self) -> str:
        return f"process {self.rank}, step {self.step} ({self.phase})"


class Watch:
    """One process's part of the watch; `at` tells where it is.

    Args:
      silent: seconds without a word after which a process counts as lost.
      stuck: seconds without progress after which the one furthest behind does.
      end: called with (message, exit code) in place of ending the process.
    """

    def __init__(
        self, rank: int, world: int, silent: float, stuck: float, end: Callable | None = None
    ):
        self.rank, self.world, self.silent, self.stuck = rank, world, silent, stuck
        self.me = Peer(rank)
        self.end = end or functools.partial(_tell_and_end, rank)
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.met = threading.Condition()
        self.meetings = dict.fromkeys(range(world), 0)
        self.lines: dict[int, socket.socket] = {}
        self.peers = {r: Peer(r) for r in range(world)} | {rank: self.me}

    def at(self, step: int, phase: str) -> None:
        """Progress: this process begins a phase of a step."""
        self.me.step, self.me.phase = step, phase
        self.me.count += 1
        self.me.moved = time.monotonic()

    def listen(self, host: str | None = None) -> dict:
        """Process 0: opens the door, at `host` for one; what others need to `join`, as JSON."""
        self.door = socket.create_server(("", 0), backlog=self.world)
        self.token = secrets.token_hex(16)
        threading.Thread(target=self._welcome, daemon=True).start()
        threading.Thread(target=self._tend, daemon=True).start()
        here = host in (None, "localhost", "127.0.0.1")
        own = _address(), socket.gethostname(), "127.0.0.1" if here else None
        hosts = dict.fromkeys((host, *own))
        port = self.door.getsockname()[1]
        return {"hosts": [h for h in hosts if h], "port": port, "token": self.token}

    def join(self, door: dict) -> None:
        """Another process: connects to process 0, by the first of its names that answers.

        Raises:
          OSError: none does.
        """
        line = _reach(door, self.rank)
        self.lines[0] = line
        threading.Thread(target=self._hear, args=(0, line), daemon=True).start()
        threading.Thread(target=self._tend, daemon=True).start()

    def leave(self, message: str = "", code: int = 0) -> None:
        """Says goodbye: at the end, or why this process refuses to go on."""
        self.over.set()
        self._say({"bye": message, "code": code})

    def meet(self) -> None:
        """Waits until all processes have come here, for as long as none is lost.

        Collectives give up after half a minute; a compilation or a evaluation takes longer.
        """
        me = self.rank
        self.at(self.me.step, "wait")
        with self.met:
            self.meetings[me] += 1
            number = self.meetings[me]
        if me:
            self._say({"meet": number})
        with self.met:
            whom = [0] if me else [r for r in self.meetings if r]
            self.met.wait_for(lambda: all(self.meetings[r] >= number for r in whom))
        if not me:
            self._say({"meet": number})

    def verdict(self) -> None:
        """After a failed exchange: waits for the watch to find who is lost, and to end all.

        Where nobody is lost, process 0 tells whom the others waited for.
        """
        self.at(self.me.step, "failed")
        time.sleep(self.silent + 3 * BEAT)
        if self.rank == 0:
            who = "; ".join(peer.where for peer in self.suspects()[:4])
            self._pronounce(f"{who}: the others could not exchange data with it", LOST)
        time.sleep(5 * BEAT)

    def _say(self, words: dict) -> None:
        with self.lock:
            for rank, line in list(self.lines.items()):
                try:
                    line.sendall(json.dumps(words).encode() + b"\n")
                except OSError:
                    self.lines.pop(rank, None)

    def _tend(self) -> None:
        """Every second: says where this process is, and looks at the others."""
        last = time.monotonic()
        while not self.over.wait(BEAT):
            me, now = self.me, time.monotonic()
            self._say({"step": me.step, "phase": me.phase, "count": me.count})
            if now - last > 5 * BEAT:
                # This process slept, and all others seem silent: they get another chance.
                for peer in self.peers.values():
                    peer.heard = peer.moved = now
            last = now
            # Process 0 looks at all, those too that never came; the others at process 0.
            for rank in range(1, self.world) if self.rank == 0 else (0,):
                peer = self.peers[rank]
                if not peer.gone and now - peer.heard > self.silent:
                    self._pronounce(f"{peer.where} is silent for {self.silent:g} s", LOST)
            if self.rank == 0:
                self._look_for_the_stuck(now)

    def _look_for_the_stuck(self, now: float) -> None:
        here = [peer for peer in self.peers.values() if not peer.gone]
        if all(now - peer.moved < self.stuck for peer in here):
            return
        behind = self.suspects()
        if all(now - peer.moved > self.stuck for peer in behind):
            who = "; ".join(peer.where for peer in behind[:4])
            self._pronounce(f"{who}: no progress for {self.stuck:g} s", LOST)

    def suspects(self) -> list[Peer]:
        """Those that the others may be waiting for."""
        here = [peer for peer in self.peers.values() if not peer.gone]
        # Who waits for another is no suspect.
        busy = [peer for peer in here if peer.phase not in WAITING] or here
        step = min(peer.step for peer in busy)
        return [peer for peer in busy if peer.step == step]

    def _welcome(self) -> None:
        # Until all have come and the door is closed.
        with contextlib.suppress(OSError):
            while True:
                line, _ = self.door.accept()
                # A stranger that says nothing keeps nobody waiting.
                threading.Thread(target=self._greet, args=(line,), daemon=True).start()

    def _greet(self, line: socket.socket) -> None:
        line.settimeout(HELLO)
        try:
            hello = json.loads(line.makefile("rb").readline(4096))
            rank = hello["rank"]
            if hello["token"] != self.token or rank in self.lines or not 0 < rank < self.world:
                raise ValueError
            line.settimeout(None)
            line.sendall(b'{"token": "%s"}\n' % self.token.encode())
        except (OSError, ValueError, KeyError, TypeError):
            line.close()
            return
        peer = self.peers[rank]
        peer.heard = peer.moved = time.monotonic()
        with self.lock:
            self.lines[rank] = line
            if len(self.lines) == self.world - 1:
                self.door.shutdown(socket.SHUT_RDWR)
                self.door.close()
        self._hear(rank, line)

    def _hear(self, rank: int, line: socket.socket) -> None:
        """Reads what one process says, until it leaves or its line breaks."""
        peer = self.peers[rank]
        try:
            for text in line.makefile("rb"):
                words = json.loads(text)
                peer.heard = time.monotonic()
                if "bye" in words:
                    peer.gone = True
                    if words["bye"]:
                        self._pronounce(words["bye"], words["code"])
                    return
                if "lost" in words:
                    self._pronounce(words["lost"], words["code"])
                    return
                if "meet" in words:
                    with self.met:
                        self.meetings[rank] = words["meet"]
                        self.met.notify_all()
                    continue
                if words["count"] != peer.count:
                    peer.moved = peer.heard
                peer.step, peer.phase, peer.count = words["step"], words["phase"], words["count"]
        except (OSError, ValueError, KeyError):
            pass
        if not self.over.is_set():
            self._pronounce(f"{peer.where} has ended", LOST)

    def _pronounce(self, message: str, code: int) -> None:
        if self.over.is_set():
            return
        self.over.set()
        if self.rank == 0:
            self._say({"lost": message, "code": code})
        self.end(message, code)


def _reach(door: dict, rank: int) -> socket.socket:
    failures = []
    for host in door["hosts"]:
        try:
            line = socket.create_connection((host, door["port"]), timeout=5)
        except OSError as error:
            failures.append(f"{host}: {error}")
            continue
        try:
            hello = {"token": door["token"], "rank": rank}
            line.sendall(json.dumps(hello).encode() + b"\n")
            # Byte by byte: a buffered reader might swallow the first beat.
            answer = b""
            while not answer.endswith(b"\n") and len(answer) < 4096 and (piece := line.recv(1)):
                answer += piece
            if json.loads(answer)["token"] != door["token"]:
                raise ValueError("another token")
            line.settimeout(None)
            return line
        except (OSError, ValueError, KeyError, TypeError) as error:
            line.close()
            failures.append(f"{host}: no answer of this run ({error})")
    raise OSError("; ".join(failures))


def _address() -> str | None:
    """This machine's address towards others, without a name server or a packet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("10.255.255.255", 1))
            return probe.getsockname()[0]
        except OSError:
            return None


def _tell_and_end(rank: int, message: str, code: int) -> NoReturn:
    resume = "; the same command resumes" if code == LOST else ""
    end(rank, code, f"error: {message}{resume}")


def end(rank: int, code: int, message: str = "") -> NoReturn:
    """Ends the process whatever its threads wait for, the first one last.

    Process 0 serves JAX's coordination: without it the others would abort, with another
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
