"""The page of a reproduction: one file that opens from disk and makes no network request."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anigan_jax.errors import UserError
from anigan_jax.report import page
from anigan_jax.report.table import Table, environment, percent
from anigan_jax.reproduce import plan
from anigan_jax.reproduce.plan import Experiment, Picture, Work
from anigan_jax.storage import atomic

PAGE = "report.html"


def table(work: Work, chosen: Sequence[Experiment]) -> Table:
    """The plan: experiments with their runs, and what those take that are not finished."""
    rows, seen, seconds = [], {}, 0.0
    for experiment in chosen:
        runs = plan.needed(experiment, work.runs)
        above = "runs above" if any(p.training.name in seen for p in runs) else ""
        rows.append([f"{experiment.name} ({experiment.place})", above, "", "", "", ""])
        for planned in runs:
            name, why = planned.training.name, plan.reason(planned, work.runs)
            if name in seen:
                continue
            seen[name], took = why, page.duration(planned.seconds)
            if why:
                took = "cannot be trained"
            elif work.finished(name):
                took = "done"
            else:
                seconds += planned.seconds
            own = planned.training.whose == "the report's"
            share = percent(planned.images / planned.training.images) if own else ""
            rows.append(["", name, planned.training.config, planned.images, share, took])
    columns = ["experiment", "run", "config", "images", "of the report's", "on 2 cores"]
    total = f"Together about {page.duration(seconds)} on 2 CPU cores."
    departs = [f"Departs from the report: {', '.join(work.departs)}."] if work.departs else []
    notes = [
        total,
        *departs,
        *(f"Cannot be trained yet: {why}." for why in sorted(set(seen.values()) - {""})),
    ]
    title = f"{work.report.name} at budget {work.budget.name}"
    return Table(title, columns, rows, notes)


def write(work: Work, found: Mapping[str, Any]) -> Path:
    """Writes the page of all experiments of a report, done or not, in the report's order.

    Args:
      found: name -> `runner.Found` of the experiments that were done.
    """
    text = (
        environment()
        .get_template("reproduce.html")
        .render(
            report=work.report,
            budget=work.budget.name,
            departs=", ".join(work.departs),
            made=time.strftime("%Y-%m-%d %H:%M"),
            experiments=[_view(work, e, found.get(e.name)) for e in work.report.experiments],
            style=(page.ASSETS / "report.css").read_text(encoding="utf-8"),
            command=shlex.join(command(work)),
        )
    )
    path = work.place.workdir / PAGE
    atomic.save_text(text.encode("utf-8", "backslashreplace").decode(), path)
    return path


def command(work: Work) -> list[str]:
    """What makes this page, and goes on with it."""
    words = ["anigan", "reproduce", work.report.name, "--data", work.place.data]
    words += ["--photos", work.place.photos] if work.place.photos else []
    words += [word for one in work.departs for word in ("--depart", one)]
    return [*words, "--workdir", str(work.place.workdir), "--budget", work.budget.name]


def _view(work: Work, experiment: Experiment, found: Any) -> dict:
    shown, notes = [], list(found.notes) if found else ["It has not been run yet."]
    for one in found.shown if found else ():
        if isinstance(one, Picture):
            try:
                picture = page.embedded(work.place.workdir / one.path)
            except (OSError, UserError) as error:
                notes.append(f"{one.path} cannot be read: {error}")
                continue
            shown.append({"caption": one.caption, **picture})
        else:
            shown.append({"table": one})
    return {"about": experiment, "shown": shown, "notes": notes, "runs": _runs(work, experiment)}


def _runs(work: Work, experiment: Experiment) -> Table | None:
    """The runs of an experiment with the commands that train them alone."""
    runs = plan.needed(experiment, work.runs)
    if not runs:
        return None
    rows = [
        [p.training.name, p.budget(), "yes" if work.finished(p.training.name) else "no"]
        for p in runs
    ]
    notes = [shlex.join(planned.command) for planned in runs]
    return Table("Runs, and the command of each", ["run", "budget", "trained"], rows, notes, True)
