"""A grid of runs: settings x seeds, and what is left to train of each."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from anigan_jax import config as configs
from anigan_jax import config_file
from anigan_jax.config import Config
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import UserError
from anigan_jax.report import collect
from anigan_jax.runtime import environment

# Steps of a dispatch, where the overrides do not say: with one length for all legs, and
# intervals that are whole dispatches, a step is compiled once.
DISPATCH = 5
# Steps of the leg that tells how long a step takes.
FIRST = 20
# What a sweep decides itself.
INTERVALS = ("run.evaluate-every", "run.checkpoint-every", "run.sample-every", "run.log-every")


class Trial(NamedTuple):
    """One run of the grid.

    Attributes:
      variant: its settings, 'g.name=adam, d.name=rmsprop'; without 'method' and 'optimizers'.
      flags: of `anigan train`, without its length.
      source: its config's name, where the variant has one of its own.
    """

    variant: str
    seed: int
    folder: Path
    config: Config
    flags: tuple[str, ...]
    source: str = ""


class Goal(NamedTuple):
    """How far each run goes, and how often it is judged on the way.

    Attributes:
      updates: of G and D together; 0: as many steps as the config says.
      points: evaluations, about; 0: none.
      seconds: of training steps, in place of updates; 0: not by time.
    """

    updates: int
    points: int
    seconds: int = 0

    @property
    def unit(self) -> str:
        """What the runs have equally much of."""
        return "seconds" if self.seconds else "updates"

    @property
    def amount(self) -> int:
        """How much of it; 0: as many steps as the config says."""
        return self.seconds or self.updates


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


def assignment(text: str) -> tuple[str, str]:
    """'--data.flip_all=true' -> ('data.flip-all', 'true'); ('', '') where it has no such form."""
    path, equals, value = text.removeprefix("--").partition("=")
    path = path.replace("_", "-")
    return (path, value) if equals and re.fullmatch(r"[A-Za-z][\w.-]*", path) else ("", "")


def axis(text: str) -> tuple[str, list[str]]:
    """'optimizers.g.name=adam,lion' -> ('optimizers.g.name', ['adam', 'lion']).

    Raises:
      UserError: no such form, a value given twice, or a path that a sweep decides itself.
    """
    path, values = assignment(text)
    if not path:
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


def variants(path: Path) -> dict[str, list[str]]:
    """A study file: 'NAME: FLAGS' or 'NAME: CONFIG FLAGS' in each line; '#' begins a comment.

    Returns:
      name -> words.

    Raises:
      UserError: it cannot be read, a line has no such form, or a name comes twice.
    """
    shipped = environment.config_folder() / "studies" / f"{path}.txt"
    try:
        text = (path if path.exists() else shipped).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a study file: {error}") from None
    found: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        if not words:
            continue
        name = words[0].removesuffix(":")
        if not words[0].endswith(":") or not re.fullmatch(r"[\w.-]+", name):
            raise UserError(f"{path}, line {number} is not 'NAME: FLAGS', such as 'wide: --flip'")
        if name in found:
            raise UserError(f"{path}, line {number} names {name!r} a second time")
        found[name] = words[1:]
    if not found:
        raise UserError(f"{path} names no variant")
    return found


def grid(
    name: str,
    overrides: list[str],
    varied: list[str],
    seeds: int,
    workdir: Path,
    named: Mapping[str, list[str]] = MappingProxyType({}),
):
    """All runs of a sweep, those of a seed beside each other.

    Args:
      name: of the config; `overrides` are for all runs.
      varied: texts as `axis` reads them; words of one value are parted by spaces.
      named: variants as a study file has them, each with every value that varies.

    Raises:
      UserError: a path or a value that the config cannot have, or two runs of one name.
    """
    axes = [axis(text) for text in varied]
    paths = [path for path, _ in axes]
    if len(set(paths)) < len(paths):
        raise UserError(f"--vary names one path twice: {', '.join(paths)}")
    trials, prog = [], f"anigan sweep {name}"
    first = config_file.override(config_file.load(name), overrides, prog).seed
    cells = [*itertools.product((named or {"": []}).items(), *(values for _, values in axes))]
    for seed, ((label, words), *values) in itertools.product(range(first, first + seeds), cells):
        chosen = list(zip(paths, values, strict=True))
        source, own = (name, words) if not words or words[0][:2] == "--" else (words[0], words[1:])
        more = [*config_file.without(own, *paths), *(w for pair in chosen for w in option(*pair))]
        flags = (
            *config_file.without(overrides, "seed", *paths, *config_file.flags_of(own)),
            *more,
            "--seed",
            str(seed),
        )
        config = config_file.override(config_file.load(source), list(flags), prog)
        configs.check(config)
        told = [(re.sub(r"^(method|optimizers)\.", "", p), v or "none") for p, v in chosen]
        folders = [re.sub(r"[^\w.-]+", "-", f"{path}-{value}") for path, value in told]
        place = "_".join(filter(None, (label, *folders)))
        title = ", ".join(filter(None, (label, *(f"{path}={value}" for path, value in told))))
        folder = workdir / f"{place}_seed-{seed}"
        trials.append(Trial(title, seed, folder, config, flags, source))
    _refuse_equal(trials)
    return trials


def _refuse_equal(trials: list[Trial]) -> None:
    # Not by their identity, which leaves out where data and weights lie.
    for what in (lambda trial: trial.folder, lambda trial: str(configs.to_json(_read(trial)))):
        seen: dict[Any, Trial] = {}
        for trial in trials:
            other = seen.setdefault(what(trial), trial)
            if other is not trial:
                unread = {*other.config.method.unread, *trial.config.method.unread}
                why = "".join(f"; method.{name} changes nothing here" for name in sorted(unread))
                raise UserError(
                    f"{other.variant!r} and {trial.variant!r} are the same run, or have the same "
                    f"name{why}; vary other values"
                )


def _read(trial: Trial) -> Config:
    """The config of a run with what changes nothing at its default."""
    method = trial.config.method
    plain = {name: getattr(type(method), name) for name in method.unread}
    return dataclasses.replace(trial.config, method=dataclasses.replace(method, **plain))


def refuse_other_data(folder: Path, pack: Pack) -> None:
    """Raises UserError where a run was trained on other data than are given now."""
    recorded = collect.recorded(folder) if (folder / "run.json").exists() else {}
    if recorded.get("data_sha256", pack.manifest["sha256"]) != pack.manifest["sha256"]:
        raise UserError(f"{folder} was trained on other data; give that, or another --workdir")


def refuse_others(trials: list[Trial]) -> None:
    """Raises UserError where a folder holds another run than its name says."""
    for trial in trials:
        path = trial.folder / "run.json"
        if path.exists():
            recorded = collect.recorded(trial.folder)
            changed = configs.differences(recorded["identity"], configs.identity(trial.config))
            if changed:
                told = "; ".join(changed[:8])
                raise UserError(f"{trial.folder} holds another run: {told}. Use another --workdir")


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
    lines = _steps_done(trial)
    return np.cumsum([0, *(pace.count(line["step"], line) for line in lines)])


def seconds_done(trial: Trial) -> np.ndarray:
    """(S + 1,) seconds of training after 0, 1, ... S steps; S: newest checkpoint.

    Of steps alone: what compiles, judges, draws and saves is not in a line's speed. A step whose
    speed is not known (the process was suspended) counts as the next one whose is.

    Raises:
      UserError: metrics.jsonl lacks a step, or all speeds.
    """
    lines = _steps_done(trial)
    rates = np.array([line.get("images_per_sec") or np.nan for line in lines], float)
    known = np.flatnonzero(np.isfinite(rates))
    if len(lines) and not len(known):
        raise UserError(f"{trial.folder} recorded no speed; its seconds are not known")
    nearest = np.searchsorted(known, np.arange(len(lines))).clip(max=len(known) - 1)
    each = trial.config.batch_size / rates[known[nearest]] if len(lines) else []
    return np.cumsum([0.0, *each])


def _steps_done(trial: Trial) -> list[dict]:
    """The lines of metrics.jsonl of all steps up to the newest checkpoint."""
    done, path = newest(trial.folder), trial.folder / "metrics.jsonl"
    lines = {line["step"]: line for line in (collect.lines_of(path) if done else [])}
    absent = next((step for step in range(1, done + 1) if step not in lines), None)
    if absent is not None:
        raise UserError(f"{path} lacks step {absent}; a sweep counts from all its lines")
    return [lines[step] for step in range(1, done + 1)]


def amount_done(trial: Trial, goal: Goal, pace: Pace) -> np.ndarray:
    """(S + 1,) of what the goal counts, after 0, 1, ... S steps; S: newest checkpoint."""
    return seconds_done(trial) if goal.seconds else updates_done(trial, pace)


def next_leg(trial: Trial, goal: Goal, pace: Pace, images: int) -> Leg | None:
    """What is left to train of a run; None where it is complete.

    Where repeats follow the training, or time counts, a first short leg tells how much a step
    has, so that all variants are judged about as often in equal amounts.
    """
    done, points = newest(trial.folder), goal.points or 10
    if not goal.amount:
        total = configs.resolve(trial.config, images).run.steps
        return Leg(total, whole(total / points)) if done < total else None
    share, constant = goal.amount / points, None if goal.seconds else pace.constant
    first = FIRST if goal.seconds else whole(share / pace.most)
    counts = amount_done(trial, goal, pace)
    if constant is None and done < first:
        return Leg(first, first)
    if counts[done] >= goal.amount:
        return None
    # The interval by the first leg alone: it must not change when the sweep is resumed.
    begun, now = (constant or counts[n] / max(n, 1) for n in (first, done))
    if not begun or not now:
        raise UserError(f"{trial.folder} makes no updates; it will never have {goal.amount}")
    interval = whole(share / begun)
    wanted = done + (goal.amount - counts[done]) / now
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
    start = ["train", trial.source or name, "--workdir", str(trial.folder)]
    if "run.steps-per-dispatch" not in config_file.flags_of(trial.flags):
        start += ["--run.steps-per-dispatch", str(DISPATCH)]
    flags = config_file.without(trial.flags, "run.steps", "run.epochs")
    return [*start, *flags, "--run.steps", str(leg.steps), *intervals]
