"""metrics.jsonl: one line of JSON for each logged step."""

from __future__ import annotations

import json
import math
import os
from collections import deque
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anigan_jax.errors import UserError
from anigan_jax.storage import atomic


def read_metrics(path: Path) -> list[dict]:
    """All whole lines; a partial last one (a killed run) is passed over."""
    if not path.exists():
        raise UserError(f"{path} does not exist; is this a run folder?")
    return Tail(path).read()


class Tail:
    """The whole lines that a metrics file gains; one that was replaced is read from its start."""

    def __init__(self, path: Path):
        self.path, self.file, self.at, self.lines = path, (0, 0), 0, 0

    def read(self) -> list[dict]:
        """The lines since the last call; [] where there is no file yet.

        Raises:
          UserError: one of them is damaged.
        """
        try:
            with self.path.open("rb") as file:
                about = os.fstat(file.fileno())
                here = about.st_dev, about.st_ino
                if here != self.file or about.st_size < self.at:
                    self.file, self.at, self.lines = here, 0, 0
                file.seek(self.at)
                data = file.read()
        except FileNotFoundError:
            return []
        found = []
        # A partial last line is read when it is whole.
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            self.lines += 1
            try:
                found.append(json.loads(line))
            except ValueError:
                raise UserError(f"{self.path}, line {self.lines} is damaged") from None
        self.at += data.rfind(b"\n") + 1
        return found


LEAST_VARIETY = 0.85
"""Share of the real images' variety below which a checkpoint is not the best by its KID.

Measured: real faces of one pose have 0.84 by VGG16 (LPIPS of pairs 0.80 of that of all faces);
of DCGANs a collapsed one had 0.72 of it by LPIPS, the others 0.92 and more.
"""
RULE = f"the lowest KID of those with at least {LEAST_VARIETY} of the real images' variety"
NONE_VARIED = f"none has {LEAST_VARIETY} of the real images' variety; the most varied one"


class Best(NamedTuple):
    """An evaluated checkpoint.

    Attributes:
      kid: the mean where there are several, of directions or backgrounds.
      variety: the least of them, as a share of the real images'; None where none was recorded.
      rule: by which it is the best.
    """

    step: int
    kid: float
    variety: float | None
    rule: str = RULE


def by_step(lines: list[dict]) -> dict[int, Best]:
    """Step -> KID and variety, by the first judge, of those lines that have its KID."""

    def of(line: dict, score: str) -> list[float]:
        # 'ba/kid-vgg16-on-white' without direction and background. Of a second judge the scores
        # stand after those of the first.
        names = {key: key.rpartition("/")[2].partition("-on-")[0] for key in line}
        judge = next((n.partition("kid-")[2] for n in names.values() if "kid-" in n), "")
        return [
            line[k] for k, n in names.items() if n == f"{score}-{judge}" and line[k] is not None
        ]

    return {
        line["step"]: Best(
            line["step"], sum(kids) / len(kids), min(of(line, "variety"), default=None)
        )
        for line in lines
        if (kids := of(line, "kid"))
    }


def best(lines: list[dict]) -> Best | None:
    """The checkpoint with the lowest KID among those that are varied; the earliest of equals.

    KID alone prefers a collapsed generator whose one face is good to a varied one.

    Args:
      lines: of evaluation.jsonl.
    """
    found = by_step(lines).values()
    varied = [one for one in found if one.variety is None or one.variety >= LEAST_VARIETY]
    if varied:
        return min(varied, key=lambda one: (one.kid, one.step))
    most = max(found, key=lambda one: (one.variety, -one.step), default=None)
    return most and most._replace(rule=NONE_VARIED)


class MetricsFile:
    """metrics.jsonl; on resume, lines after the checkpoint's step are dropped.

    `lines` are the newest `memory` of the file; None: all.
    """

    def __init__(self, path: Path, step: int, memory: int | None = None):
        self.lines: deque[dict] = deque(maxlen=memory)
        if path.exists():
            keep = [line for line in read_metrics(path) if line["step"] <= step]
            self.lines.extend(keep)
            temp = atomic.partial(path)
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
