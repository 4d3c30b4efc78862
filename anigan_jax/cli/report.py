"""The verb that makes a page of runs."""

from __future__ import annotations

import json as jsons
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from anigan_jax.cli import common
from anigan_jax.cli.common import AsJson, RunDir, Trust
from anigan_jax.errors import UserError, printable
from anigan_jax.report import by_epoch, collect, page
from anigan_jax.report.table import as_text
from anigan_jax.runtime import environment


def report(
    run: Annotated[tuple[Path, ...], Positional, arg(metavar="RUN", help="run directories")],
    *,
    out: Annotated[Path | None, arg(metavar="PAGE.html")] = None,
    tensorboard: Annotated[str, arg(metavar="DIR")] = "",
    no_draw: bool = False,
    trust: Trust = False,
) -> int:
    """One HTML page of a run, or of several side by side.

    Args:
      out: the page; if omitted: RUN/report.html, or ./report.html for several runs.
      tensorboard: replaced by `anigan log RUN --to tensorboard --out DIR`.
      no_draw: show only what is there: read no checkpoints and draw nothing.
    """
    if not run:
        raise UserError("say which run: anigan report RUN [RUN ...]")
    if tensorboard:
        raise UserError(
            f"--tensorboard is a verb now: anigan log {run[0]} --to tensorboard --out {tensorboard}"
        )
    names = collect.labels(list(run))
    out = _place(out, run)
    # What is damaged, or cannot be written, is refused before a minute of drawing.
    runs = [collect.collect(*one) for one in zip(run, names, strict=True)]
    if not no_draw:
        looked = [_look(one, trust) for one in run]
        runs = [collect.collect(*one) for one in zip(run, names, looked, strict=True)]
    missing = page.write(runs, out)
    for one in runs:
        _tell(one)
    for text in missing:
        print(f"left out: {printable(text)}")
    print(f"{printable(out)}  ({out.stat().st_size / 1e6:.1f} MB)")
    return 0


def epochs(
    run: RunDir,
    *,
    at: Annotated[str, arg(metavar="EPOCH,EPOCH")] = "",
    json: AsJson = False,
) -> int:
    """A table by epoch: mean losses of G and D, mean scores of real and fake images.

    Args:
      at: which epochs, such as 1,5,10; if omitted: those with kept checkpoints, else
        1,5,10,15,20,25, as far as they are completed.
    """
    collect.recorded(run)
    found = by_epoch.epoch_means(run, common.epochs_of("--at", at) if at else None)
    if json:
        print(jsons.dumps(found, indent=1))
    elif not found["epochs"]:
        per_epoch = found["images"] // found["batch_size"]
        print(f"{printable(run)} has completed 0 epochs: one is {per_epoch:,} steps")
    else:
        print(as_text([by_epoch.table(found)]))
    return 0


def _look(run: Path, trust: bool) -> dict:
    # A run that is still training may hold the accelerator; one batch needs none.
    environment.prepare("cpu")
    from anigan_jax.report import draw

    def progress(text: str) -> None:
        print(f"{printable(run)}: {text}", file=sys.stderr, flush=True)

    report = progress if sys.stderr.isatty() else lambda text: None
    return draw.look(run, collect.recorded(run), report, trust)


def _tell(run: dict) -> None:
    """A run's ledger, and what its page leaves out."""
    good, sentence = collect.verdict(run["ledger"])
    print(printable(f"{run['label']}: {'' if good else 'LEDGER DIFFERS: '}{sentence}"))
    for text in run["left_out"]:
        print(printable(f"left out of {run['label']}: {text}"))


def _place(out: Path | None, runs: Sequence[Path]) -> Path:
    """Where the page goes."""
    if out is None:
        return Path("report.html") if len(runs) > 1 else runs[0] / "report.html"
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out} must end in .html")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; name a file in it")
    return out
