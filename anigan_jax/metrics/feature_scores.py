"""All distances of two feature sets at once, each one refused where it would mean nothing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Num

from anigan_jax.metrics import frechet, kid, mind, prdc

SUBSETS = 100
SIZE = 1000
NEIGHBORS = 5
DIRECTIONS = 1000
BETTER = {
    "kid": "lower",
    "fd": "lower",
    "mind": "lower",
    "precision": "higher",
    "recall": "higher",
    "density": "near 1",
    "coverage": "higher",
}
"""The scores, and what of each is better."""
COLUMNS = ("generated", "like_floor", "floor")
"""What is scored: all generated images, as many as are held out, those held out."""


class Scores(NamedTuple):
    """`values`: those of `BETTER` that could be computed; `refused`: name -> why the others
    could not; `kid_std`: spread of one KID subset, or None."""

    values: dict[str, float]
    refused: dict[str, str]
    kid_std: float | None


def kid_size(*counts: int) -> int:
    """Rows of a KID subset for sets of these sizes: 1000, or all rows of the smallest set.

    The estimate is unbiased, so its expectation does not depend on the size.
    """
    return min(SIZE, *counts)


def scores(
    fake: Num[np.ndarray, "n d"], real: Num[np.ndarray, "m d"], seed: int, size: int
) -> Scores:
    """The panel of two feature sets.

    Args:
      fake: (N, d); real: (M, d).
      seed: of KID's subsets and MIND's directions.
      size: rows of a KID subset.

    Raises:
      ValueError: wrong shapes, or NaN.
    """
    values: dict[str, float] = {}
    refused: dict[str, str] = {}
    spread = None
    n, m, d = len(fake), len(real), fake.shape[1]
    fewest = min(n, m)
    if fewest < 2 or not 2 <= size <= fewest:
        refused["kid"] = f"subsets of {size} need as many images, and 2 or more; there are {fewest}"
    else:
        values["kid"], spread = kid.kid(fake, real, seed, SUBSETS, size)
    if fewest <= d:
        refused["fd"] = f"a covariance of {d} features needs more than {d} images, not {fewest}"
    else:
        values["fd"] = frechet.distance(fake, real)
    values["mind"] = mind.mind(fake, real, seed, DIRECTIONS)
    if fewest <= NEIGHBORS:
        why = f"balls of {NEIGHBORS} neighbors need more than {NEIGHBORS} images, not {fewest}"
        refused |= dict.fromkeys(("precision", "recall", "density", "coverage"), why)
    else:
        values |= prdc.prdc(fake, real, NEIGHBORS)._asdict()
    return Scores(values, refused, spread)
