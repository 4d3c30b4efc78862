"""Sides in processes of their own: started, asked for windows of steps, and missed when they die.

No JAX.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from anigan_jax.bench import memory
from anigan_jax.errors import UserError
from anigan_jax.runtime import environment

# A window lasts at least so long, in seconds.
WINDOW = 2.0
# Seconds for a process whose answers have ended to end too.
LAST_WORDS = 10
# Whoever refuses a config among these, the bench refuses it; a peer is left out.
ESSENTIAL = ("matrix product", "ours", "ours, no data", "a whole run", "ours, found compiled")
PROGRAM = (sys.executable, "-m", "anigan_jax.bench.worker")


class SideError(UserError):
    """A side cannot be measured.

    Attributes:
      died: its process was killed or crashed, or ran out of memory; otherwise it refused.
    """

    def __init__(self, label: str, reason: str, died: bool):
        super().__init__(f"the side {label!r} could not be measured: {reason}")
        self.died = died


class Worker:
    """A side's process: what it learned while it was built in `facts`, speeds in `speeds`."""

    def __init__(
        self, spec: dict, cache: str = "", flags: str = "", program: Sequence[str] = PROGRAM
    ):
        """Starts it; `build` has it built."""
        env = dict(os.environ)
        if cache:
            env["JAX_COMPILATION_CACHE_DIR"] = cache
        if spec.pop("retains_memory", True):
            env = {name: str(value) for name, (_, value) in environment.RETAINING.items()} | env
        if flags:
            env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} {flags}".strip()
        # Several processes share one accelerator.
        env.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        self.spec, self.speeds = spec, []
        where = (spec.pop("platform"), str(spec.pop("devices")))
        # A file: a pipe that nobody empties would stop a side that has much to say.
        self.words = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*program, *where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.words,
            text=True,
            env=env,
        )

    @property
    def label(self) -> str:
        return self.spec["label"]

    @property
    def held(self) -> memory.Held:
        return memory.held(self.process.pid)

    def build(self) -> None:
        """Lets it build its side."""
        self.write(json.dumps(self.spec))

    def built(self) -> None:
        """Waits for that."""
        self.facts = self.read()

    def write(self, line: str) -> None:
        # A worker that has died says why when it is read.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def read(self) -> dict:
        """Its next answer; raises SideError where there is none, or an error."""
        line = self.process.stdout.readline()
        # A line may have been cut off by the end.
        answer = json.loads(line) if line.endswith("\n") else {"error": self._end(), "died": True}
        if "error" in answer:
            self.process.kill()
            raise SideError(self.label, answer["error"], answer.get("died", False))
        return answer

    def _end(self) -> str:
        """How the process ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(LAST_WORDS)
        code = self.process.poll()
        if code is None:
            return "it closed its output but did not exit"
        if code == -signal.SIGKILL:
            return "it was killed (SIGKILL), as the kernel does when memory runs out"
        self.words.seek(0)
        last = self.words.read().strip().splitlines()[-1:]
        about = f" ({last[0]})" if last else ""
        if code < 0:
            return f"it crashed ({signal.Signals(-code).name}){about}"
        return f"it ended with exit code {code}{about}"

    def window(self) -> None:
        """Lets it run one window; `measured` waits for it."""
        self.write(str(max(1, round(WINDOW / self.facts["seconds"]))))

    def measured(self) -> None:
        """Keeps the window's images per second."""
        answer = self.read()
        self.speeds.append(answer["images"] / answer["seconds"])
        self.facts |= {k: v for k, v in answer.items() if k not in ("seconds", "images")}

    def close(self) -> None:
        """Lets it end; `closed` waits for it."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def closed(self) -> None:
        """Its peak memory joins the facts."""
        self.facts |= self.read()
        self.process.wait()

    def kill(self) -> None:
        """Ends it, whatever it does."""
        self.process.kill()
        self.words.close()


class Company:
    """Sides that are alive together; one that dies is reported at once, and the others go on.

    Attributes:
      alive: those that are built; finished: those with all their windows; failed: label -> why.
    """

    def __init__(self, start: Callable[[dict], Worker], report: Callable[[str], None]):
        self.start, self.report = start, report
        self.alive: list[Worker] = []
        self.finished: list[Worker] = []
        self.failed: dict[str, str] = {}

    def add(self, specs: list[dict]) -> None:
        """Builds sides: at the same time where there are several."""
        added = [self.start(dict(spec)) for spec in specs]
        for worker in added:
            self.report(f"building {worker.label}")
            worker.build()
        self.alive += added
        for worker in added:
            self._await(worker, worker.built)

    def measure(self, windows: int) -> None:
        """Alternating windows of all that are alive, and their end."""
        for number in range(windows):
            self.report(f"window {number + 1}")
            # There and back: what a side leaves behind is felt by another one each time.
            for worker in self.alive[:: -1 if number % 2 else 1]:
                if worker in self.alive:
                    worker.window()
                    self._await(worker, worker.measured)
        for worker in list(self.alive):
            if worker in self.alive:
                worker.close()
                self._await(worker, worker.closed)
                if worker in self.alive:
                    self.alive.remove(worker)
                    self.finished.append(worker)

    def _await(self, worker: Worker, answer: Callable[[], None]) -> None:
        """Takes a side's answer; others, which were not asked, can only have died."""
        while worker in self.alive:
            asked = [each for each in self.alive if hasattr(each, "facts") or each is worker]
            pipes: dict[Any, Worker] = {each.process.stdout: each for each in asked}
            ready, _, _ = select.select(list(pipes), [], [])
            for each in (pipes[pipe] for pipe in ready):
                try:
                    (answer if each is worker else each.read)()
                except SideError as error:
                    self._lose(each, error)
            if worker.process.stdout in ready:
                return

    def _lose(self, worker: Worker, error: SideError) -> None:
        if worker.label in ESSENTIAL and not error.died:
            raise error
        self.report(str(error))
        self.failed[worker.label] = str(error)
        self.alive.remove(worker)


def measure(
    specs: list[dict],
    start: Callable[[dict], Worker],
    windows: int,
    report: Callable[[str], None],
    free: Callable[[], float] = memory.available,
    at_once: Callable[[dict], bool] = lambda spec: False,
) -> tuple[list[Worker], dict[str, str]]:
    """Measures sides alternately, as many at a time as fit in memory together.

    Args:
      specs: of the sides, in the order in which they are built.
      start: starts the process of a spec.
      free: bytes of memory that are left.
      at_once: whether a side may be built beside the like ones that follow it.

    Returns:
      Workers that have ended, with `facts['turn']`: those of one turn alternated; and label ->
      reason of each side that could not be measured.
    """
    company, waiting, turn, most = Company(start, report), list(specs), 0, 0

    def finish() -> None:
        before = len(company.finished)
        company.measure(windows)
        for worker in company.finished[before:]:
            worker.facts["turn"] = turn

    while waiting:
        held = [worker.held for worker in company.alive]
        left, most = free(), max([most, *(each.peak for each in held)])
        need = memory.MARGIN * most
        if company.alive and not memory.fits(held, left, need):
            taken = sum(each.peak for each in held)
            report(
                f"{waiting[0]['label']} might need {need / 1e9:.1f} GB beside sides that hold "
                f"{taken / 1e9:.1f} GB, and {left / 1e9:.1f} GB are left: they run one after "
                "another"
            )
            finish()
            turn += 1
            continue
        count = 1
        while count < len(waiting) and all(map(at_once, waiting[: count + 1])):
            count += 1
        if not memory.fits(held, left, count * need):
            count = 1
        company.add(waiting[:count])
        del waiting[:count]
    finish()
    return company.finished, company.failed
