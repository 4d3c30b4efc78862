"""The steps at which something is due: by a period or a list, in steps or epochs."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

FORMS = "'500', '2 epochs', '1,5,10 epochs', '1,20,40 steps' or '1, every 20 steps'"
_PART = re.compile(r"(every\s+)?(-?\d+)\s*(step|epoch)?s?")


@dataclass(frozen=True)
class Every:
    """Steps that are due: those listed, and all that a period divides."""

    listed: tuple[int, ...] = ()
    periods: tuple[int, ...] = ()

    def due(self, step: int) -> bool:
        return step in self.listed or any(step % period == 0 for period in self.periods)

    def after(self, step: int) -> int | None:
        """The first due step after a step; None where there is none."""
        later = [one for one in self.listed if one > step]
        later += [(step // period + 1) * period for period in self.periods]
        return min(later, default=None)

    def up_to(self, last: int, start: int = 0) -> Iterator[int]:
        """The due steps after `start`, up to and with `last`."""
        step = self.after(start)
        while step is not None and step <= last:
            yield step
            step = self.after(step)

    def __or__(self, other: Every) -> Every:
        """Due where one of both is."""
        return Every(self.listed + other.listed, self.periods + other.periods)

    def __bool__(self) -> bool:
        return bool(self.listed or self.periods)


NEVER = Every()


def parse(value: int | str, per_epoch: int | None = None) -> Every:
    """What a setting says, in steps.

    A number alone is a period (0: never), several are a list, in which 'every N' is a period;
    '20,' is a list of one. The unit of the last holds for all that have none: steps, unless
    it says epochs.

    Args:
      per_epoch: steps of an epoch, whole batches; None: only steps are understood.

    Raises:
      ValueError: it has another form, or counts epochs where `per_epoch` is None.
    """
    words = [word.strip() for word in str(value).split(",")]
    alone = len(words) == 1
    if not words[-1] and not alone:
        del words[-1]
    parts = [_PART.fullmatch(word) for word in words]
    if not all(parts):
        raise ValueError(f"it must look like {FORMS}")
    unit = parts[-1][3] or "step"
    listed, periods = [], []
    for part in parts:
        epochs = (part[3] or unit) == "epoch"
        if epochs and per_epoch is None:
            raise ValueError("it counts epochs, whose length in steps is not known here")
        number = int(part[2]) * (per_epoch if epochs else 1)
        (periods if alone or part[1] else listed).append(number)
    return Every(tuple(sorted(set(listed))), tuple(n for n in dict.fromkeys(periods) if n))


def in_steps(value: int | str, per_epoch: int) -> int | str:
    """The same setting counted in steps: an int where it is a period alone."""
    every = parse(value, per_epoch)
    if not every.listed and len(every.periods) <= 1:
        return every.periods[0] if every else 0
    words = [*map(str, every.listed), *(f"every {period}" for period in every.periods)]
    return ",".join(words) if len(words) > 1 else f"{words[0]},"


def fault(value: int | str, low: int) -> str:
    """What is wrong with a setting; '' where nothing is.

    Args:
      low: 0 where a period of 0, which is never, is allowed; else 1.
    """
    try:
        parse(value, 1)
    except ValueError as error:
        return str(error)
    numbers = [int(number) for number in re.findall(r"-?\d+", str(value))]
    low = low if len(numbers) == 1 else 1
    return f"it must be at least {low}" if min(numbers) < low else ""


class Intervals(NamedTuple):
    """When a run does what, beside its end, at which it does all.

    Attributes:
      sample: writes previews.
      checkpoint: saves its state: also what is kept or evaluated.
      keep: saves a state that is never deleted.
      evaluate: evaluates a state.
    """

    sample: Every
    checkpoint: Every
    keep: Every
    evaluate: Every


SETTINGS = tuple(f"{name}_every" for name in Intervals._fields)
"""The fields of `config.Run` that hold an interval."""


def of(run: Any) -> Intervals:
    """The intervals of a `config.Run` whose settings are in steps; see `config.resolve`.

    Raises:
      ValueError: one counts epochs.
    """
    return _of(*(getattr(run, name) for name in SETTINGS))


@functools.cache
def _of(*settings: int | str) -> Intervals:
    sample, checkpoint, keep, evaluate = map(parse, settings)
    return Intervals(sample, checkpoint | keep | evaluate, keep, evaluate)
