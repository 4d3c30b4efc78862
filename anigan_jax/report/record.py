"""What a run's own files gain, handed on to another record: scalars and previews, each once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from anigan_jax.report import collect, files
from anigan_jax.storage import epochs, lock
from anigan_jax.storage.metrics_file import Tail

PERIOD = 2.0
"""Seconds between two looks at the files."""
GRACE = 60.0
"""Seconds that a run which stopped before its end is waited for: it may be started again."""
STREAMS = {"metrics.jsonl": "", "evaluation.jsonl": "evaluation/"}
"""Files of a run, and how the names of what they hold begin."""


class Sink(NamedTuple):
    """Another record, opened.

    Attributes:
      shown: where it is and how to look at it.
      has: name -> the last step that it has of it already.
      write: (step, name -> value, name -> path of a PNG), in order of the steps of each name.
      flush: makes what was written last.
      close: ends it.
    """

    shown: str
    has: dict[str, int]
    write: Callable[[int, dict[str, float], dict[str, Path]], None]
    flush: Callable[[], None]
    close: Callable[[], None]


class Reader:
    """What the files of a run gain."""

    def __init__(self, run: Path):
        self.run, self.step = run, 0
        self.tails = {front: Tail(run / name) for name, front in STREAMS.items()}
        self.seen: set[Path] = set()

    def read(self) -> dict[int, tuple[dict[str, float], dict[str, Path]]]:
        """Step -> scalars and pictures since the last call, by growing steps."""
        found: dict[int, tuple[dict[str, float], dict[str, Path]]] = {}
        for front, tail in self.tails.items():
            lines = tail.read()
            for line in collect.checked(lines, tail.path, tail.lines - len(lines) + 1):
                values = {
                    f"{front}{key}": value
                    for key, value in line.items()
                    if key not in collect.NO_METRIC and value is not None
                }
                found.setdefault(line["step"], ({}, {}))[0].update(values)
                self.step = max(self.step, line["step"])
        for name, steps in files.previews(self.run).items():
            for step, path in steps.items():
                if path not in self.seen:
                    self.seen.add(path)
                    found.setdefault(step, ({}, {}))[1][name] = path
        return dict(sorted(found.items()))


class Logged(NamedTuple):
    """How many values and pictures were handed on, and the run's last step."""

    scalars: int
    pictures: int
    step: int


def log(run: Path, sink: Sink, follow: bool = False) -> Logged:
    """Hands on all that a run has recorded; with `follow`, until it ends.

    Only files are read, so the training does not notice it. What the sink has already is passed
    over, also after a kill or where the run went on from an earlier step.
    """
    reader, counts, quiet = Reader(run), [0, 0], time.monotonic()
    has = dict(sink.has)
    asked, length = collect.recorded(run)["config"]["run"], epochs.of_run(run)
    last = asked.get("steps") or asked.get("epochs", 0) * (length.steps if length else 0)
    while True:
        # Asked first: what was written before its end is read below.
        training = lock.held(run)
        for step, parts in reader.read().items():
            fresh = [{n: x for n, x in part.items() if step > has.get(n, -1)} for part in parts]
            if any(fresh):
                sink.write(step, *fresh)
            for i, part in enumerate(fresh):
                has.update(dict.fromkeys(part, step))
                counts[i] += len(part)
        sink.flush()
        now = time.monotonic()
        quiet = now if training else quiet
        if not training and (reader.step >= last or now - quiet > GRACE):
            follow = False
        if not follow:
            return Logged(counts[0], counts[1], reader.step)
        time.sleep(PERIOD)
