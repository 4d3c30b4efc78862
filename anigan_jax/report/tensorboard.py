"""A run's scalars and previews as TensorBoard's event files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from anigan_jax.errors import UserError
from anigan_jax.report import collect, files


def _writer():
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError(
            "--tensorboard needs tensorboardX: pip install 'anigan_jax[tensorboard]'"
        ) from None
    return SummaryWriter


def check(folder: Path, names: list[str]) -> None:
    """Refuses what `write` could not do.

    Raises:
      UserError: tensorboardX is not installed, or a folder holds event files: the same points
        twice would be drawn as two runs.
    """
    _writer()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--tensorboard {folder} is not a folder")
    for name in names:
        place = folder / name
        if list(place.glob("events.out.tfevents.*")):
            raise UserError(
                f"{place} holds event files already, and would show every point twice; "
                "delete it or take another --tensorboard"
            )


def write(run: Path, folder: Path) -> Path:
    """Writes metrics.jsonl, evaluation.jsonl and evenly spaced previews of a run.

    Names of evaluation metrics begin with 'evaluation/'.
    """
    make = _writer()
    from tensorboardX.proto.summary_pb2 import Summary

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with make(logdir=str(folder)) as writer:
            for front, name in (("", "metrics.jsonl"), ("evaluation/", "evaluation.jsonl")):
                for line in collect.lines_of(run / name):
                    values = [
                        Summary.Value(tag=f"{front}{key}", simple_value=value)
                        for key, value in line.items()
                        if key not in collect.NO_METRIC and value is not None
                    ]
                    # An event a line is several times quicker than one a value.
                    writer.file_writer.add_summary(Summary(value=values), line["step"])
            for panel, found in files.slides(run)["panels"].items():
                for step, path in found.items():
                    with Image.open(path) as image:
                        pixels = np.asarray(image.convert("RGB"))
                    writer.add_image(panel, pixels, step, dataformats="HWC")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}") from None
    return folder
