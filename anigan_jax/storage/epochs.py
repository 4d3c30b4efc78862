"""Epochs of a run: how its steps are named in metrics, tables and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple


class Epochs(NamedTuple):
    """Steps as epochs.

    Attributes:
      images: training images, of the first domain where there are two.
      batch_size: images of a step.
    """

    images: int
    batch_size: int

    @property
    def steps(self) -> int:
        """Steps of an epoch in settings: whole batches."""
        return self.images // self.batch_size

    def at(self, step: int) -> float:
        """Epochs of whole batches, as settings count them, after some steps."""
        return step / self.steps

    def label(self, step: int) -> str:
        """'epoch 5' after whole epochs, else 'epoch 0.13'."""
        whole, rest = divmod(step, self.steps)
        return f"epoch {self.at(step):.2f}" if rest else f"epoch {whole}"


def named(step: int, epochs: Epochs | None) -> str:
    """'step 1,950 (epoch 5)'; without the epoch where it is not known."""
    return f"step {step:,}" + (f" ({epochs.label(step)})" if epochs else "")


def of_run(run: Path) -> Epochs | None:
    """The epochs of a run directory; None where it does not say what it learns from."""
    try:
        batch = json.loads((run / "run.json").read_text(encoding="utf-8"))["config"]["batch_size"]
        names = json.loads((run / "data.json").read_text(encoding="utf-8"))
        images = sum(name.startswith(("train/", "trainA/")) for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Epochs(images, batch) if type(batch) is int and 0 < batch <= images else None
