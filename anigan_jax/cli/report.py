"""The verb that makes a page of runs."""

from __future__ import annotations

import sys
from pathlib import Path

from anigan_jax.cli.common import arguments
from anigan_jax.errors import UserError, printable
from anigan_jax.runtime import environment


def report(argv: list[str]) -> int:
    """One HTML page of a run, or of several side by side; event files for TensorBoard."""
    args = arguments(
        "report",
        argv,
        runs={"positional": True, "nargs": "+", "type": Path, "metavar": "RUN", "help": "folders"},
        out={
            "type": Path,
            "metavar": "PAGE.html",
            "help": "without: RUN/report.html, or ./report.html of several runs",
        },
        tensorboard={
            "type": Path,
            "metavar": "DIR",
            "help": "also write the scalars and previews as event files, a folder a run",
        },
        no_draw={
            "action": "store_true",
            "help": "show what is there: checkpoints are not read and nothing is drawn",
        },
        trust={"action": "store_true", "help": "run the code of the run directory"},
    )
    from anigan_jax.report import collect, page, tensorboard

    names = collect.labels(args.runs)
    out = _place(args.out, args.runs)
    # What is damaged, or cannot be written, is refused before a minute of drawing.
    runs = [collect.collect(*one) for one in zip(args.runs, names, strict=True)]
    if args.tensorboard:
        tensorboard.check(args.tensorboard, names)
    if not args.no_draw:
        looked = [_look(run, args.trust) for run in args.runs]
        runs = [collect.collect(*one) for one in zip(args.runs, names, looked, strict=True)]
    missing = page.write(runs, out)
    for run in runs:
        _tell(run)
    for text in missing:
        print(f"left out: {printable(text)}")
    if args.tensorboard:
        for run, name in zip(args.runs, names, strict=True):
            print(printable(tensorboard.write(run, args.tensorboard / name)))
    print(f"{printable(out)}  ({out.stat().st_size / 1e6:.1f} MB)")
    return 0


def _look(run: Path, trust: bool) -> dict:
    # A run that is still training may hold the accelerator; one batch needs none.
    environment.prepare("cpu")
    from anigan_jax.report import collect, draw

    def told(text: str) -> None:
        print(f"{printable(run)}: {text}", file=sys.stderr, flush=True)

    report = told if sys.stderr.isatty() else lambda text: None
    return draw.look(run, collect.recorded(run), report, trust)


def _tell(run: dict) -> None:
    """A run's ledger, and what its page leaves out."""
    from anigan_jax.report import collect

    good, sentence = collect.verdict(run["ledger"])
    print(printable(f"{run['label']}: {'' if good else 'LEDGER DIFFERS: '}{sentence}"))
    for text in run["left_out"]:
        print(printable(f"left out of {run['label']}: {text}"))


def _place(out: Path | None, runs: list[Path]) -> Path:
    """Where the page goes."""
    if out is None:
        return Path("report.html") if len(runs) > 1 else runs[0] / "report.html"
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out} must end in .html")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; name a file in it")
    return out
