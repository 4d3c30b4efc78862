"""A grid of runs: settings x seeds, each one processes of `anigan train` that resume each other."""

from __future__ import annotations

import fcntl
import itertools
import math
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anigan_jax import config as configs
from anigan_jax import config_file
from anigan_jax.config import Config
from anigan_jax.errors import UserError
from anigan_jax.report import collect

POLL = 0.2
# Steps of a dispatch, where the overrides do not say: with one length for all legs, and
# intervals that are whole dispatches, a step is compiled once.
DISPATCH = 5
# What a sweep decides itself.
INTERVALS = ("run.evaluate-every", "run.checkpoint-every", "run.sample-every", "run.log-every")


class Trial(NamedTuple):
    """One run of the grid.

    Attributes:
      variant: its settings, 'g.name=adam, d.name=rmsprop'; without 'method' and 'optimizers'.
      flags: of `anigan train`, without its length.
    """

    variant: str
    seed: int
    folder: Path
    config: Config
    flags: tuple[str, ...]


class Goal(NamedTuple):
    """How far each run goes, and how often it is judged on the way.

    Attributes:
      updates: of G and D together; 0: as many steps as the config says.
      points: evaluations, about; 0: none.
    """

    updates: int
    points: int


class Pace(NamedTuple):
    """How many updates a step has.

    Attributes:
      most: at most.
      constant: the number, where it is the same in all steps; else None.
      count: (step, its metrics line) -> the number.
    """

    most: int
    constant: int | None
    count: Callable[[int, dict], int]


class Leg(NamedTuple):
    """A stretch of a run: up to step `steps`, judged every `interval` steps."""

    steps: int
    interval: int


def axis(text: str) -> tuple[str, list[str]]:
    """'optimizers.g.name=adam,lion' -> ('optimizers.g.name', ['adam', 'lion']).

    Raises:
      UserError: no such form, a value given twice, or a path that a sweep decides itself.
    """
    path, equals, values = text.removeprefix("--").partition("=")
    path = path.replace("_", "-")
    if not equals or not re.fullmatch(r"[A-Za-z][\w.-]*", path):
        raise UserError(
            f"--vary {text!r} is not PATH=VALUE,VALUE, such as optimizers.g.name=adam,rmsprop"
        )
    if path in ("seed", "name") or path.startswith("run."):
        raise UserError(
            f"--vary {path}: a sweep compares what changes a run's numbers; seeds are counted "
            "by --seeds, and the length is the same for all"
        )
    found = [value.strip() for value in values.split(",")]
    if len(set(found)) < len(found):
        raise UserError(f"--vary {text!r} gives a value twice")
    return path, found


def option(path: str, value: str) -> list[str]:
    """Words of `anigan train`: ('flip', 'false') -> ['--no-flip']."""
    if value.lower() not in ("true", "false"):
        return [f"--{path}", *value.split()]
    group, dot, last = path.rpartition(".")
    return [f"--{group}{dot}{'' if value.lower() == 'true' else 'no-'}{last}"]


def grid(name: str, overrides: list[str], varied: list[str], seeds: int, workdir: Path):
    """All runs of a sweep, those of a seed beside each other.

    Args:
      name: of the config; `overrides` are for all runs.
      varied: texts as `axis` reads them; words of one value are parted by spaces.

    Raises:
      UserError: a path or a value that the config cannot have, or two runs of one name.
    """
    base = config_file.load(name)
    axes = [axis(text) for text in varied]
    paths = [path for path, _ in axes]
    if len(set(paths)) < len(paths):
        raise UserError(f"--vary names one path twice: {', '.join(paths)}")
    # '--flip' and '--no-flip' are both about `flip`.
    decided = [option(path, value)[0][2:] for path in paths for value in ("true", "false")]
    prog, trials = f"anigan sweep {name}", []
    first = config_file.override(base, overrides, prog).seed
    for seed in range(first, first + seeds):
        for values in itertools.product(*(values for _, values in axes)):
            chosen = list(zip(paths, values, strict=True))
            words = [word for path, value in chosen for word in option(path, value)]
            flags = (*without(overrides, "seed", *decided), *words, "--seed", str(seed))
            config = config_file.override(base, list(flags), prog)
            configs.check(config)
            told = [(re.sub(r"^(method|optimizers)\.", "", p), v or "none") for p, v in chosen]
            place = "_".join(re.sub(r"[^\w.-]+", "-", f"{p}-{v}") for p, v in told)
            folder = workdir / f"{place}_seed-{seed}"
            label = ", ".join(f"{path}={value}" for path, value in told)
            trials.append(Trial(label, seed, folder, config, flags))
    # Not by their identity, which leaves out where data and weights lie.
    for what in (lambda trial: trial.folder, lambda trial: str(configs.to_json(trial.config))):
        seen: dict[Any, Trial] = {}
        for trial in trials:
            other = seen.setdefault(what(trial), trial)
            if other is not trial:
                raise UserError(
                    f"{other.variant!r} and {trial.variant!r} are one and the same run, or have "
                    "one name; vary other values"
                )
    return trials


def without(words: Iterable[str], *names: str) -> list[str]:
    """The words without some flags and their values."""
    kept, left_out = [], False
    for word in words:
        if word.startswith("--"):
            left_out = word[2:].partition("=")[0].replace("_", "-") in names
        if not left_out:
            kept.append(word)
    return kept


def refuse_others(trials: list[Trial]) -> None:
    """Raises UserError where a folder holds another run than its name says."""
    for trial in trials:
        path = trial.folder / "run.json"
        if path.exists():
            recorded = collect.recorded(trial.folder)
            changed = configs.differences(recorded["identity"], configs.identity(trial.config))
            if changed:
                told = "; ".join(changed[:8])
                raise UserError(f"{trial.folder} holds another run: {told}. Take another --workdir")


def pace(config: Config, method: Any, images: int) -> Pace:
    """The updates of G and D together in each step of a method; a repeat is an update."""
    from anigan_jax.training import program

    over = program.phase_ends(method.phases, sys.maxsize, images // config.batch_size)

    def total(phase, of: Callable) -> int:
        return sum(u.repeats if isinstance(u.repeats, int) else of(u) for u in phase.updates)

    def count(step: int, line: dict) -> int:
        phase = method.phases[next(i for i, end in enumerate(over) if step <= end)]
        return total(phase, lambda update: int(line[f"repeats/{update.player}"]))

    most = [total(phase, lambda update: update.max_repeats) for phase in method.phases]
    fixed = all(isinstance(u.repeats, int) for phase in method.phases for u in phase.updates)
    return Pace(max(most), most[0] if fixed and len(set(most)) == 1 else None, count)


def newest(folder: Path) -> int:
    """Step of a run's newest checkpoint; 0 where there is none."""
    names = (path.name[5:] for path in (folder / "checkpoints").glob("step_*"))
    return max((int(name) for name in names if name.isdigit()), default=0)


def updates_done(trial: Trial, pace: Pace) -> np.ndarray:
    """(S + 1,) updates of G and D together after 0, 1, ... S steps; S: newest checkpoint.

    Raises:
      UserError: metrics.jsonl lacks a step.
    """
    done = newest(trial.folder)
    path = trial.folder / "metrics.jsonl"
    lines = {line["step"]: line for line in (collect.lines_of(path) if done else [])}
    each = np.zeros(done + 1, np.int64)
    for step in range(1, done + 1):
        if step not in lines:
            raise UserError(f"{path} lacks step {step}; a sweep counts updates from all its lines")
        each[step] = pace.count(step, lines[step])
    return np.cumsum(each)


def next_leg(trial: Trial, goal: Goal, pace: Pace, images: int) -> Leg | None:
    """What is left to train of a run; None where it is complete.

    Where repeats follow the training, a first short leg tells how many updates a step has,
    so that all variants are judged about as often in as many updates.
    """
    done, points = newest(trial.folder), goal.points or 10
    if not goal.updates:
        total = configs.resolve(trial.config, images).run.steps
        return Leg(total, whole(total / points)) if done < total else None
    share = goal.updates / points
    first, counts = whole(share / pace.most), updates_done(trial, pace)
    if pace.constant is None and done < first:
        return Leg(first, first)
    if counts[done] >= goal.updates:
        return None
    # The interval by the first leg alone: it must not change when the sweep is resumed.
    begun, now = (pace.constant or counts[n] / max(n, 1) for n in (first, done))
    if not begun or not now:
        raise UserError(f"{trial.folder} makes no updates; it will never have {goal.updates}")
    interval = whole(share / begun)
    wanted = done + (goal.updates - counts[done]) / now
    return Leg(interval * math.ceil(wanted / interval), interval)


def whole(steps: float) -> int:
    """A number of steps, rounded down; longer ones to whole dispatches."""
    found = max(1, int(steps))
    return found - found % DISPATCH if found >= 2 * DISPATCH else found


def command(name: str, trial: Trial, leg: Leg, judged: bool) -> list[str]:
    """Arguments of `anigan` that train a run to the end of a leg."""
    every = (leg.interval if judged else 0, leg.interval, leg.interval, 1)
    intervals = [
        word for flag, n in zip(INTERVALS, every, strict=True) for word in (f"--{flag}", str(n))
    ]
    start = ["train", name, "--workdir", str(trial.folder)]
    given = {word.partition("=")[0].replace("_", "-") for word in trial.flags}
    if "--run.steps-per-dispatch" not in given:
        start += ["--run.steps-per-dispatch", str(DISPATCH)]
    flags = without(trial.flags, "run.steps", "run.epochs")
    return [*start, *flags, "--run.steps", str(leg.steps), *intervals]


def train(
    trials: list[Trial], legs: Callable[[Trial], Leg | None], arguments: Callable, jobs: int
) -> tuple[int, str]:
    """Trains every run to its end, `jobs` at a time.

    Args:
      legs: trial -> its next leg, or None.
      arguments: (trial, leg) -> arguments of `anigan`.

    Returns:
      (0, ''), or the exit code and the message of a signal, or of the first run that failed.
    """
    waiting, children, signals = deque(trials), {}, []
    failed: tuple[int, str] = (0, "")

    def stop(number: int, _) -> None:
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
                    children[trial] = start(arguments(trial, leg), log_of(trial))
                if signals and trial in children:
                    children[trial].send_signal(signals[-1])
            for trial, process in list(children.items()):
                code = process.poll()
                if code is None:
                    continue
                del children[trial]
                if code == 0:
                    waiting.appendleft(trial)
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
        return 128 + signals[0], "stopped; the same command resumes"
    return failed


def start(words: list[str], log: Path) -> subprocess.Popen:
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
        except FileNotFoundError:
            return True
        except OSError:
            if not told:
                print(f"waiting: another process trains in {folder}", flush=True)
            told = True
            time.sleep(POLL)
    return False


def log_of(trial: Trial) -> Path:
    """Where a run's output goes: beside its folder, whose content is the run's."""
    return trial.folder.with_name(f"{trial.folder.name}.log")


def last_words(log: Path) -> str:
    """The error in a run's output, or its last line."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return f"{(errors or lines or ['it said nothing'])[-1]} (all of it: {log})"
