"""metrics.jsonl: one line of JSON for each logged step."""

from __future__ import annotations

import json
import math
import os
from collections import deque
from pathlib import Path

import numpy as np

from anigan_jax.errors import UserError


def read_metrics(path: Path) -> list[dict]:
    """All whole lines; a partial last one (a killed run) is passed over."""
    if not path.exists():
        raise UserError(f"{path} does not exist; is this a run folder?")
    lines = path.read_text().split("\n")
    whole = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            whole.append(json.loads(line))
        except ValueError:
            raise UserError(f"{path}, line {number} is damaged") from None
    return whole


def best(lines: list[dict]) -> tuple[int, float] | None:
    """(step, KID) of the judged line with the lowest KID, the mean where there are several.

    Args:
      lines: of evaluation.jsonl; those without a KID do not count.
    """
    found = []
    for line in lines:
        kids = [value for name, value in line.items() if "kid-" in name and value is not None]
        if kids:
            found.append((sum(kids) / len(kids), line["step"]))
    if not found:
        return None
    kid, step = min(found)
    return step, kid


class MetricsFile:
    """metrics.jsonl; on resume, lines after the checkpoint's step are dropped.

    `lines` are the newest `memory` of the file; None: all.
    """

    def __init__(self, path: Path, step: int, memory: int | None = None):
        self.lines: deque[dict] = deque(maxlen=memory)
        if path.exists():
            keep = [line for line in read_metrics(path) if line["step"] <= step]
            self.lines.extend(keep)
            temp = path.with_name(f".{path.name}")
            with temp.open("w") as file:
                file.write("".join(json.dumps(line) + "\n" for line in keep))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temp, path)
        self.file = path.open("a")

    def write(self, line: dict) -> None:
        """One JSON line; NaN and Inf become null."""

        def clean(x):
            return None if isinstance(x, float) and not math.isfinite(x) else x

        line = {key: clean(value) for key, value in line.items()}
        self.lines.append(line)
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def sync(self) -> None:
        """To the disk: a checkpoint must not outlive the lines before it."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()


def spaced(n: int, most: int) -> list[int]:
    """At most `most` evenly spaced indices below `n`, the first and the last among them."""
    return np.unique(np.linspace(0, max(n - 1, 0), min(n, most)).round().astype(int)).tolist()
