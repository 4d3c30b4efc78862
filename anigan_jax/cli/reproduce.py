"""The verb that reproduces a report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from anigan_jax.errors import UserError
from anigan_jax.report.table import as_text
from anigan_jax.runtime import environment

Name = Literal["sjtu", "tsinghua", "csc412", "aiub", "ucsd"]


def reproduce(
    report: Annotated[Name, Positional, arg(metavar="REPORT", help="|".join(Name.__args__))],
    *,
    data: Annotated[str, arg(metavar="FACES")] = "",
    photos: Annotated[str, arg(metavar="PHOTOS")] = "",
    workdir: Annotated[Path | None, arg(metavar="DIR")] = None,
    budget: Literal["small", "half", "full"] = "small",
    only: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME")] = (),
    depart: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="PATH=VALUE")] = (),
    dry_run: bool = False,
) -> int:
    """All experiments of one of the five reports as one page; the same command continues.

    Exit code 1: some experiment could not be done; the page says why.

    Args:
      data: anime faces: a folder, .zip, .tar or pack; with hair and eye colors for sjtu.
      photos: photographs of faces, which tsinghua translates.
      workdir: where runs, figures and the page (report.html) go.
      budget: small: within 30 minutes on 2 cores; full: as many images as the report saw;
        half: as many, with networks of half the width.
      only: an experiment; may be given several times. --dry-run lists them.
      depart: a setting that should differ from the report's in every run that has it, such as
        batch-size=32 or "method.augment=color translation"; the page says so. May be given
        several times.
      dry_run: print experiments, runs, images and estimated times, and write nothing.
    """
    if not data:
        raise UserError("say which faces to train on: --data FACES (a folder, .zip or .tar)")
    if workdir is None:
        raise UserError("say where runs and the page go: --workdir DIR")
    if photos and report != "tsinghua":
        raise UserError(f"--photos is for tsinghua; {report} translates no photos")
    environment.prepare()
    from anigan_jax.reproduce import page, plan, runner
    from anigan_jax.reproduce.reports import REPORTS

    found = REPORTS[report]
    chosen = plan.chosen(found, only)
    place = plan.Place(workdir, data, photos)
    work = runner.opened(found, plan.BUDGETS[budget], place, depart)
    if dry_run:
        print(as_text([page.table(work, chosen)]))
        return 0
    return runner.reproduce(work, only, lambda text: print(text, file=sys.stdout, flush=True))
