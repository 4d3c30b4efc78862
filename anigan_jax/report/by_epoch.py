"""Losses and scores of a run by epoch: means over the steps of chosen epochs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from anigan_jax.errors import UserError
from anigan_jax.intervals import parse
from anigan_jax.report.table import Table
from anigan_jax.storage import epochs as of_runs
from anigan_jax.storage.epochs import Epochs
from anigan_jax.storage.metrics_file import read_metrics

EPOCHS = (1, 5, 10, 15, 20, 25)
"""Those of AIUB's table."""
LOSSES = ("loss/g", "loss/d")
TITLES = {
    "loss/g": "loss of G",
    "loss/d": "loss of D",
    "score/real": "real score",
    "score/fake": "fake score",
    "score/pair": "pair score",
}


def epoch_means(run: Path, epochs: Sequence[int] | None = None) -> dict:
    """Means of each loss of G and D and each score of D over epochs of a run.

    Args:
      epochs: counted from 1, each whole batches of the data; None: those at which the run keeps
        checkpoints, else `EPOCHS`, as far as it has completed them.

    Returns:
      'images' of the training data, 'batch_size', and 'epochs': of each 'epoch', 'step' (its
      last) and the means by their names in metrics.jsonl, None where no step has a value.

    Raises:
      UserError: the run has not completed one of `epochs`, or does not say what it learns from.
    """
    found = of_runs.of_run(run)
    if found is None:
        raise UserError(f"{run} does not say how many images it learns from; it has no epochs")
    lines = read_metrics(run / "metrics.jsonl")
    done = (lines[-1]["step"] if lines else 0) // found.steps
    if epochs is None:
        kept = _kept(run, found, done)
        epochs = kept or [epoch for epoch in EPOCHS if epoch <= done]
    wrong = [str(epoch) for epoch in epochs if not 1 <= epoch <= done]
    if wrong:
        raise UserError(f"{run} has completed {done} epochs; epoch {', '.join(wrong)} is not there")
    names = dict.fromkeys(
        name for line in lines for name in line if name in LOSSES or name.startswith("score/")
    )
    order = [*TITLES, *names]
    names = sorted(names, key=order.index)
    return {**found._asdict(), "epochs": [_means(lines, found, k, names) for k in epochs]}


def _kept(run: Path, found: Epochs, done: int) -> list[int]:
    """The completed epochs after which the run keeps a checkpoint."""
    settings = json.loads((run / "run.json").read_text(encoding="utf-8"))["config"]["run"]
    try:
        kept = parse(settings.get("keep_every", 0), found.steps).up_to(done * found.steps)
    except ValueError as error:
        raise UserError(f"{run / 'run.json'} is damaged: keep_every: {error}") from None
    return [step // found.steps for step in kept if step % found.steps == 0]


def _means(lines: list[dict], found: Epochs, epoch: int, names: Sequence[str]) -> dict:
    last = epoch * found.steps
    inside = [line for line in lines if last - found.steps < line["step"] <= last]
    means: dict = {"epoch": epoch, "step": last}
    for name in names:
        values = [line[name] for line in inside if line.get(name) is not None]
        means[name] = sum(values) / len(values) if values else None
    return means


def epoch_table(run: Path, epochs: Sequence[int] | None = None) -> Table:
    """`epoch_means` as a table, a row for each epoch."""
    return table(epoch_means(run, epochs))


def table(found: dict) -> Table:
    """What `epoch_means` returns as a table."""
    names = [name for name in (found["epochs"] or [{}])[0] if name not in ("epoch", "step")]
    rows = [[str(one["epoch"]), one["step"], *map(one.get, names)] for one in found["epochs"]]
    title = f"Means over each epoch ({found['images']:,} images in batches of "
    columns = ["epoch", "last step", *(TITLES.get(name, name) for name in names)]
    return Table(f"{title}{found['batch_size']:,})", columns, rows)
