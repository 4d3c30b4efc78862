"""Trains what a report trained, makes its figures, and writes the page after each experiment."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from anigan_jax import api
from anigan_jax.data.attributes import PARTS
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import DivergedError, MachineError, UserError
from anigan_jax.report.page import duration
from anigan_jax.report.table import Table
from anigan_jax.reproduce import page, plan
from anigan_jax.reproduce.plan import Budget, Experiment, Picture, Place, Planned, Report, Work
from anigan_jax.runtime import environment, signals
from anigan_jax.storage import atomic, lock, metrics_file, run_dir
from anigan_jax.sweep import grid

PLAN = "plan.json"
OLD = "Made by another version of this package, or before its runs went on; --only makes it anew."
Tell = Callable[[str], None]


class Found(NamedTuple):
    """What became of an experiment.

    Attributes:
      shown: its tables and pictures, in order.
      notes: what of it could not be done, and why.
    """

    shown: list[Table | Picture]
    notes: list[str]


def opened(
    report: Report, budget: Budget, place: Place, departs: Sequence[str] | None = None
) -> Work:
    """The plan of a working directory: that of its first start, where it has been started.

    Args:
      departs: settings that differ from the report's; None: those of the first start.

    Raises:
      UserError: the folder holds something else, or another reproduction.
    """
    here, path = plan.networks(), place.workdir / PLAN
    if path.exists():
        try:
            begun = json.loads(path.read_text(encoding="utf-8"))
            old = {name: begun[name] for name in ("report", "budget", "judge", "features")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged: {error!r}") from None
        if (old["report"], old["budget"]) != (report.name, budget.name):
            raise UserError(
                f"{place.workdir} holds a reproduction of {old['report']} at budget "
                f"{old['budget']}; use another --workdir"
            )
        kept = begun.get("departs", [])
        if departs and list(departs) != kept:
            raise UserError(
                f"{place.workdir} was started with {_told(kept)}; leave out --depart to continue, "
                "or use another --workdir"
            )
        departs = kept
        # Scores of two judges do not compare; a network that was missing may have come.
        here = {"judge": old["judge"], "features": old["features"] or here["features"]}
    elif place.workdir.exists() and any(p.name != lock.FILE for p in place.workdir.iterdir()):
        raise UserError(f"{place.workdir} is not empty and holds no reproduction; use another")
    return plan.plan(report, budget, place._replace(**here), departs or ())


def _told(departs: Sequence[str]) -> str:
    return " ".join(f"--depart {one!r}" for one in departs) or "no --depart"


def reproduce(work: Work, only: Sequence[str] = (), tell: Tell = print) -> int:
    """Does the experiments of a report, all or some; what is there already is not done again.

    Args:
      only: names of experiments; none: all.
      tell: is given a line about each experiment.

    Returns:
      0; 1: some experiment could not be done, in whole or in part; 128 + the signal that
      stopped it: the same call goes on.

    Raises:
      UserError: there is no such experiment, or the data cannot be used.
      MachineError: disk or memory failed; the same call goes on.
    """
    chosen = plan.chosen(work.report, only)
    api.refuse_name(work.place.workdir)
    with contextlib.closing(lock.hold(work.place.workdir, "another process is reproducing in")):
        _usable(work, chosen)
        about = {"report": work.report.name, "budget": work.budget.name}
        about |= {"judge": work.place.judge, "features": work.place.features}
        about |= {"departs": list(work.departs)} if work.departs else {}
        atomic.save_text(json.dumps(about, indent=1) + "\n", work.place.workdir / PLAN)
        failed: dict[str, str] = {}
        found = {e.name: there for e in work.report.experiments if (there := _stored(work, e))}
        for number, experiment in enumerate(chosen, start=1):
            tell(f"[{number}/{len(chosen)}] {experiment.name}: {experiment.title}")
            for planned in plan.needed(experiment, work.runs):
                if code := _trained(work, planned, failed, tell):
                    tell("stopped; the same command continues")
                    return code
            found[experiment.name] = _made(work, experiment, failed)
            for note in found[experiment.name].notes:
                tell(f"  {note}")
            path = page.write(work, found)
        tell(f"{path}  ({path.stat().st_size / 1e6:.1f} MB)")
    return int(any(found[experiment.name].notes for experiment in chosen))


def _usable(work: Work, chosen: Sequence[Experiment]) -> None:
    """Packs the data of the experiments, so that faults are refused before the first run.

    Raises:
      UserError: they cannot be used, or are others than those of a run that is there.
    """
    packs: dict[Any, Pack] = {}
    named = {p.training.name for e in chosen for p in plan.needed(e, work.runs)}
    for planned in work.runs.values():
        begun = (planned.folder / run_dir.RUN).exists()
        if planned.missing or not (begun or planned.training.name in named):
            continue
        data = planned.config.data
        packs[data] = packs.get(data) or api.data_of(planned.config)
        grid.refuse_other_data(planned.folder, packs[data])
        if "colors" in planned.training.needs:
            classes = packs[data].manifest["classes"]
            if not {*PARTS} <= classes.keys():
                there = f"have {', '.join(classes)}" if classes else "have no labels"
                raise UserError(
                    f"{work.report.name} needs images labeled by {' and '.join(PARTS)}, and those "
                    f"of {work.place.data} {there}"
                )


def _trained(work: Work, planned: Planned, failed: dict[str, str], tell: Tell) -> int:
    """Trains a run, or takes it up where it stopped; gives the signal's exit code, or 0.

    Why a run cannot be trained goes into `failed`; the others are trained nevertheless.
    """
    name = planned.training.name
    if work.finished(name) or name in failed:
        return 0
    if why := plan.reason(planned, work.runs):
        failed[name] = why
        return 0
    if encoder := failed.get(planned.training.encoder):
        failed[name] = f"its text encoder cannot be trained: {encoder}"
        return 0
    tell(f"  {name}: {planned.steps:,} steps, about {duration(planned.seconds)} on 2 cores")
    try:
        with signals.caught() as stop:
            return api.start(planned.config, planned.folder, planned.command, stop)
    except MachineError:
        raise
    except (DivergedError, UserError) as error:
        failed[name] = str(error)
        return 0
    finally:
        # What one run has compiled is of no use to the next, and takes memory.
        jax.clear_caches()
        gc.collect()


def _made(work: Work, experiment: Experiment, failed: dict[str, str]) -> Found:
    """The tables and figures of an experiment whose runs are trained as far as they can be."""
    notes = [
        f"{planned.training.name} is missing: {failed[planned.training.name]}"
        for planned in plan.needed(experiment, work.runs)
        if planned.training.name in failed
    ]
    path = _result(work, experiment)
    there = _stored(work, experiment)
    if there and not (notes or there.notes):
        return there
    found = Found([], notes)
    environment.prepare()
    for show in experiment.shows:
        try:
            found.shown.extend(show(work))
        except MachineError:
            raise
        except UserError as error:
            # Why a run is missing has been said already.
            if not (isinstance(error, plan.Untrained) and failed):
                found.notes.append(f"left out: {error}")
    told = {"made_from": _made_from(work, experiment), "notes": found.notes}
    told["shown"] = [_as_json(one) for one in found.shown]
    atomic.save_text(json.dumps(told, indent=1) + "\n", path)
    return found


def _result(work: Work, experiment: Experiment) -> Path:
    return work.place.workdir / "results" / f"{experiment.name}.json"


def _made_from(work: Work, experiment: Experiment) -> str:
    """A hash of what a result rests on: this package, and the last states of the runs."""
    told = [environment.sources(), experiment.name]
    for planned in plan.needed(experiment, work.runs):
        path = planned.folder / "metrics.jsonl"
        lines = metrics_file.read_metrics(path) if path.exists() else []
        last = lines[-1] if lines else {}
        told.append(f"{planned.training.name} {last.get('step')} {last.get('fingerprint')}")
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def _stored(work: Work, experiment: Experiment) -> Found | None:
    """A result that is there, with a note where it is an older one; None where there is none."""
    try:
        told = json.loads(_result(work, experiment).read_text(encoding="utf-8"))
        shown = [_from_json(one) for one in told["shown"]]
        if any(isinstance(x, Picture) and not _there(work, x) for x in shown):
            return None
        notes = list(told["notes"])
        old = told["made_from"] != _made_from(work, experiment)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Found(shown, [*notes, OLD] if old else notes)


def _there(work: Work, picture: Picture) -> bool:
    return (work.place.workdir / picture.path).is_file()


def _as_json(one: Table | Picture) -> dict:
    return one._asdict() if isinstance(one, Picture) else dataclasses.asdict(one)


def _from_json(told: dict) -> Table | Picture:
    return Picture(**told) if "path" in told else Table(**told)
