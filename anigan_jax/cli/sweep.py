"""The verb that trains a grid of settings and seeds, and compares them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import UseAppendAction, arg

from anigan_jax import api, config_file
from anigan_jax.cli import common, data
from anigan_jax.cli.common import ConfigName, Overrides, at_least
from anigan_jax.errors import DivergedError, UserError
from anigan_jax.report.table import as_text
from anigan_jax.storage import atomic, lock, run_dir
from anigan_jax.sweep import children, compare, grid


def sweep(
    config: ConfigName,
    *,
    workdir: Annotated[Path | None, arg(metavar="DIR")] = None,
    vary: Annotated[tuple[str, ...], UseAppendAction, arg(metavar="PATH=V1,V2")] = (),
    variants: Annotated[Path | None, arg(metavar="FILE")] = None,
    seeds: int = 3,
    updates: int = 0,
    seconds: int = 0,
    points: int = 10,
    jobs: int = 1,
    overrides: Overrides = (),
) -> int:
    """Train every combination of settings with every seed, and compare them.

    Each is a run in a folder of its own in DIR, as `anigan train` makes it. The same command
    resumes a sweep that was stopped. A run that diverges is left out of the comparison, which
    says so, and the exit code is then 1. Other flags are settings of all runs, such as
    --batch-size 32 --run.eval-network random. A value of several words is quoted:
    --vary "optimizers.g.boundaries=3 5,10 20".

    Args:
      workdir: the folder of all runs.
      vary: a setting and its values, such as optimizers.g.name=adam,rmsprop.
      variants: a study file, or the name of one in the package (faces); each line is 'NAME:
        FLAGS' or 'NAME: CONFIG FLAGS', and is combined with every --vary.
      seeds: runs of each variant, counting up from the config's seed.
      updates: train all for this many updates of G and D together; 0: for the config's steps.
      seconds: train all for this many seconds of steps, on an otherwise idle machine; compiling,
        judging and saving come on top. 0: not by time.
      points: about how many checkpoints of each run to judge; 0: none, losses only.
      jobs: runs at a time; several GPUs are divided among them.
    """
    if workdir is None:
        raise UserError("say where the runs go: --workdir DIR")
    if not vary and not variants:
        raise UserError(
            "say what varies: --vary PATH=V1,V2, such as --vary optimizers.g.name=adam,rmsprop; "
            "or --variants FILE"
        )
    if (workdir / run_dir.RUN).exists():
        raise UserError(f"{workdir} is a run; a sweep needs a folder for several runs")
    for flag, value, low in (
        ("--seeds", seeds, 1),
        ("--updates", updates, 0),
        ("--seconds", seconds, 0),
        ("--points", points, 0),
        ("--jobs", jobs, 1),
    ):
        at_least(flag, value, low)
    named = grid.variants(variants) if variants else {}
    for words in (overrides, *named.values()):
        _refuse(words, {"--updates": updates, "--seconds": seconds})
    with common.hinted(config_file.load(config), overrides):
        trials = grid.grid(config, list(overrides), list(vary), seeds, workdir, named)
    grid.refuse_others(trials)
    with lock.hold(workdir, "another sweep is running in"):
        return _sweep(config, workdir, vary, trials, grid.Goal(updates, points, seconds), jobs)


def _refuse(words: Sequence[str], lengths: dict[str, int]) -> None:
    """Refuses settings that a sweep decides itself, and two lengths."""
    given = config_file.flags_of(words)
    for name in grid.INTERVALS:
        if name in given:
            raise UserError(f"--{name} is set by the sweep; --points says how often it judges")
    both = [flag for flag, value in lengths.items() if value]
    both += sorted(f"--{name}" for name in given & {"run.steps", "run.epochs"})
    if any(lengths.values()) and len(both) > 1:
        raise UserError(f"{both[1]} and {both[0]} both set the length; give one")


def _sweep(
    name: str, workdir: Path, vary: Sequence[str], trials: list, goal: grid.Goal, jobs: int
) -> int:
    packs, paces = {}, {}
    for trial in trials:
        variant = trial.variant
        if variant not in packs:
            packs[variant] = api.data_of(trial.config, data.progress("packing"))
            count = len(packs[variant].images)
            paces[variant] = grid.pace(trial.config, trial.config.method.make(), count)
        grid.refuse_other_data(trial.folder, packs[variant])
    code, message, diverged = children.train(
        trials,
        lambda trial: grid.next_leg(
            trial, goal, paces[trial.variant], len(packs[trial.variant].images)
        ),
        lambda trial, leg: grid.command(name, trial, leg, judged=goal.points > 0),
        jobs,
    )
    if code:
        print(f"error: {message}" if code < 128 else message, file=sys.stderr)
        return code
    runs = [
        compare.read(trial, grid.amount_done(trial, goal, paces[trial.variant]))
        for trial in trials
        if trial not in diverged
    ]
    if not runs:
        raise DivergedError(f"all runs diverged: {next(iter(diverged.values()))}")
    asked = {"config": name, "varied": list(vary), goal.unit: goal.amount}
    if diverged:
        told = (f"Left out: {trial.folder.name}: {why}" for trial, why in diverged.items())
        asked["diverged"] = list(told)
    seeds = sorted({trial.seed for trial in trials})
    found = compare.compare(runs, goal, {**asked, "seeds": seeds})
    text = as_text(compare.tables(found))
    written = [
        atomic.save_text(json.dumps(found, indent=1) + "\n", workdir / "sweep.json"),
        atomic.save_text(text + "\n", workdir / "sweep.md"),
        compare.draw(runs, found, workdir / "sweep.png"),
        compare.samples(runs, found["compared_at"], workdir / "samples.png"),
    ]
    print(f"\n{text}\n")
    for path in filter(None, written):
        print(path)
    return int(bool(diverged))
