"""How often images have the classes they were asked for; NumPy on the host."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Integer

Classes = Integer[np.ndarray, "n a"]
COLORS = ("hair", "eyes")


class Share(NamedTuple):
    """`right` of `n`, with the Wilson interval at 95 %."""

    value: float
    low: float
    high: float
    right: int
    n: int


def share(right: Bool[np.ndarray, " n"]) -> Share:
    """The share of True in (n,) bool; n at least 1. Source: Wilson 1927."""
    from scipy.stats import binomtest  # Most of a second to import.

    count, n = int(right.sum()), len(right)
    interval = binomtest(count, n).proportion_ci(0.95, method="wilson")
    return Share(count / n, float(interval.low), float(interval.high), count, n)


def best(scores: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Class index (n, A) of the highest score of each of A attributes.

    Args:
      scores: (n, T) of the classes of each attribute in turn; sizes: their numbers, T in all.
    """
    parts = np.split(scores, np.cumsum(sizes)[:-1], axis=1)
    return np.stack([part.argmax(1) for part in parts], axis=1)


def whole(names: tuple[str, ...]) -> str:
    """What the share with every attribute right is called; '' where there is only one."""
    return {1: "", 2: "both"}.get(len(names), "all")


def shares(found: Classes, asked: Classes, names: tuple[str, ...] = COLORS) -> dict[str, Share]:
    """Shares right of each attribute, and of images with 'both' or 'all' right.

    Args:
      found, asked: (n, A) class indices; names: of the A attributes.

    Raises:
      ValueError: the shapes differ or there is nothing to judge.
    """
    if found.shape != asked.shape or found.ndim != 2 or not len(found):
        raise ValueError(f"shapes {found.shape} and {asked.shape} must both be (n, A), n > 0")
    equal = found == asked
    each = {name: share(equal[:, i]) for i, name in enumerate(names)}
    return each | ({whole(names): share(equal.all(1))} if whole(names) else {})


def shuffled(
    found: Classes, asked: Classes, seed: int, names: tuple[str, ...] = COLORS
) -> dict[str, Share]:
    """`shares` against the prompts in another order: what no obedience would give.

    With equally many prompts of each class the expectation is 1 / number of classes.
    """
    order = np.random.default_rng(seed).permutation(len(asked))
    return shares(found, asked[order], names)


def by_class(found: Classes, asked: Classes, column: int) -> dict[int, Share]:
    """Class index -> share right, for each class that was asked of the attribute of a column."""
    equal = found[:, column] == asked[:, column]
    return {int(c): share(equal[asked[:, column] == c]) for c in np.unique(asked[:, column])}
