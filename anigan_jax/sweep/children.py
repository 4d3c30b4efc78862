"""Trains the runs of a grid, each in processes of `anigan train` that resume each other."""

from __future__ import annotations

import fcntl
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from anigan_jax.errors import DivergedError
from anigan_jax.runtime.signals import DOUBLED
from anigan_jax.sweep.grid import Leg, Trial, newest

POLL = 0.2
DEVICES, GPUS = Path("/dev"), "CUDA_VISIBLE_DEVICES"


def train(
    trials: list[Trial], legs: Callable[[Trial], Leg | None], arguments: Callable, jobs: int
) -> tuple[int, str, dict[Trial, str]]:
    """Trains every run to its end, `jobs` at a time; one that diverges is a result, too.

    Args:
      legs: trial -> its next leg, or None.
      arguments: (trial, leg) -> arguments of `anigan`.

    Returns:
      (0, ''), or the exit code and the message of a signal, or of the first run that failed; and
      what each run said that diverged.
    """
    waiting, children, signals = deque(trials), {}, []
    places: dict[Trial, int] = {}
    failed: tuple[int, str] = (0, "")
    diverged: dict[Trial, str] = {}

    heard = {"at": -math.inf}

    def stop(number: int, _) -> None:
        before, heard["at"] = heard["at"], time.monotonic()
        if signals and signals[-1] == number and heard["at"] - before < DOUBLED:
            return
        signals.append(number)
        for process in children.values():
            process.send_signal(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while children or (waiting and not signals and not failed[0]):
            while waiting and len(children) < jobs and not signals and not failed[0]:
                trial = waiting.popleft()
                leg = legs(trial)
                place = f"[{trials.index(trial) + 1}/{len(trials)}] {trial.folder.name}"
                if leg is None:
                    print(f"{place}: complete at step {newest(trial.folder)}", flush=True)
                    continue
                print(f"{place}: step {newest(trial.folder)} to {leg.steps}", flush=True)
                if await_lock(trial.folder, signals):
                    free = next(i for i in range(jobs) if i not in places.values())
                    places[trial] = free
                    own = environment_of(free, jobs)
                    children[trial] = start(arguments(trial, leg), log_of(trial), own)
                if signals and trial in children:
                    children[trial].send_signal(signals[-1])
            for trial, process in list(children.items()):
                code = process.poll()
                if code is None:
                    continue
                del children[trial], places[trial]
                if code == 0:
                    waiting.appendleft(trial)
                elif code == DivergedError.code:
                    diverged[trial] = last_words(log_of(trial))
                    print(f"{trial.folder.name}: {diverged[trial]}", flush=True)
                elif not signals and not failed[0]:
                    told = f"{trial.folder.name} failed: {last_words(log_of(trial))}"
                    failed = (code if code > 0 else 128 - code, told)
                    for other in children.values():
                        other.terminate()
            time.sleep(POLL)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signals:
        return 128 + signals[0], "stopped; the same command resumes", diverged
    return *failed, diverged


def environment_of(place: int, jobs: int) -> dict[str, str]:
    """The environment of the run at a place among `jobs`: each sees its share of the GPUs."""
    environ = dict(os.environ)
    gpus = [gpu for gpu in environ.get(GPUS, "").split(",") if gpu]
    if GPUS not in environ:
        found = [p for p in DEVICES.glob("nvidia*") if re.fullmatch(r"nvidia\d+", p.name)]
        # CUDA counts those it sees from 0, whatever the names of their devices.
        gpus = [str(i) for i in range(len(found))]
    if jobs > 1 and gpus:
        share = max(1, len(gpus) // jobs)
        first = place * share % len(gpus)
        environ[GPUS] = ",".join(gpus[first : first + share])
    return environ


def start(words: list[str], log: Path, environ: dict[str, str]) -> subprocess.Popen:
    """`anigan` in a process of its own, its output in a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        # A session of its own: a terminal's Ctrl-C would reach it twice, and the second one
        # ends it without a checkpoint.
        return subprocess.Popen(
            [sys.executable, "-m", "anigan_jax", *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environ,
            start_new_session=True,
        )


def await_lock(folder: Path, signals: list) -> bool:
    """Waits for a run that a killed sweep has left behind; False where a signal comes."""
    told = False
    while not signals:
        try:
            with (folder / "lock").open("a") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        except BlockingIOError:
            if not told:
                print(f"waiting: another process is training in {folder}", flush=True)
            told = True
            time.sleep(POLL)
        except OSError:
            # No such run; or a disk without locks, of which the run itself tells more.
            return True
    return False


def log_of(trial: Trial) -> Path:
    """Where a run's output goes: beside its folder, whose content is the run's."""
    return trial.folder.with_name(f"{trial.folder.name}.log")


def last_words(log: Path) -> str:
    """The error in a run's output, or its last line."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return f"{(errors or lines or ['it said nothing'])[-1]} (full log: {log})"
