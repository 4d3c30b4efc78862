"""The verb that hands a run's record on to other ones."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from anigan_jax.cli.common import RunDir, writing
from anigan_jax.errors import printable
from anigan_jax.report import record, sinks
from anigan_jax.report.sinks import Target
from anigan_jax.storage import lock


def log(
    run: RunDir,
    *,
    to: Annotated[Target, arg(help="where to; each needs the pip extra of the same name")],
    follow: bool = False,
    out: Annotated[Path | None, arg(metavar="DIR")] = None,
    project: Annotated[str, arg(metavar="NAME")] = "",
) -> int:
    """A run's scalars and previews in TensorBoard, W&B, MLflow or Trackio.

    It only reads the run's files: no bit of the training changes. Started again, it continues;
    nothing is logged twice.

    Args:
      follow: keep logging until the run ends.
      out: where the files go; if omitted: RUN/log/tensorboard, or where the others keep theirs
        (./wandb, ./mlflow.db, Trackio's cache).
      project: W&B or Trackio project, or MLflow experiment; if omitted: the config's name.
    """
    place = sinks.place_of(to, run, project, out)
    sinks.need(to)
    held = lock.hold(place.log, "another process is logging in")
    with held, writing(out or place.log):
        sink = sinks.open_sink(to, place)
        with contextlib.ExitStack() as stack:
            stack.callback(sink.close)
            print(printable(sink.shown), flush=True)
            told = record.log(run, sink, follow)
    print(f"{told.scalars:,} values and {told.pictures:,} pictures, up to step {told.step:,}")
    return 0
