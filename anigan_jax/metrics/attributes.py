"""How often images have the colors they were asked for; NumPy on the host."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Integer
from scipy.stats import binomtest

Colors = Integer[np.ndarray, "n 2"]
PARTS = ("hair", "eyes", "both")


class Share(NamedTuple):
    """`right` of `n`, with the Wilson interval at 95 %."""

    value: float
    low: float
    high: float
    right: int
    n: int


def share(right: Bool[np.ndarray, " n"]) -> Share:
    """The share of True in (n,) bool; n at least 1. Source: Wilson 1927."""
    count, n = int(right.sum()), len(right)
    interval = binomtest(count, n).proportion_ci(0.95, method="wilson")
    return Share(count / n, float(interval.low), float(interval.high), count, n)


def shares(found: Colors, asked: Colors) -> dict[str, Share]:
    """Shares of 'hair', 'eyes' and 'both' right.

    Args:
      found, asked: (n, 2) class indices of hair and eyes.

    Raises:
      ValueError: the shapes differ or there is nothing to judge.
    """
    if found.shape != asked.shape or found.ndim != 2 or not len(found):
        raise ValueError(f"shapes {found.shape} and {asked.shape} are no (n, 2) both, n > 0")
    equal = found == asked
    return dict(zip(PARTS, map(share, (equal[:, 0], equal[:, 1], equal.all(1))), strict=True))


def shuffled(found: Colors, asked: Colors, seed: int) -> dict[str, Share]:
    """`shares` against the prompts in another order: what no obedience would give.

    With equally many prompts of each color the expectation is 1 / number of colors.
    """
    order = np.random.default_rng(seed).permutation(len(asked))
    return shares(found, asked[order])


def by_class(found: Colors, asked: Colors, part: int) -> dict[int, Share]:
    """Class index -> share right, for each class that was asked; part 0: hair, 1: eyes."""
    equal = found[:, part] == asked[:, part]
    return {int(c): share(equal[asked[:, part] == c]) for c in np.unique(asked[:, part])}
