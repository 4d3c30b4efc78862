"""Neighbors of features: precision, recall, density, coverage, copies; NumPy on the host."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, Num

from anigan_jax.metrics.distances import (
    FeaturesM,
    FeaturesN,
    blocks,
    pair,
    rows,
    slack,
    squares,
    whole,
)


class Prdc(NamedTuple):
    """Shares in [0, 1], but `density`, which may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


class Memorization(NamedTuple):
    """How much nearer fakes are to training images than held-out images are.

    Attributes:
      ratio: fake / held_out; near 1 for what is new, towards 0 for copies.
      fake, held_out: median distances to the nearest training row.
      closest: (c, 2) indices of a fake and its training row, the nearest first.
      distances: (c,) theirs.
      copies: share of fakes that are nearer to a training row than all but `RARE` of the
        held-out rows are; about `RARE` for what is new, 1 for copies.
    """

    ratio: float
    fake: float
    held_out: float
    closest: Int64[np.ndarray, "c 2"]
    distances: Float64[np.ndarray, " c"]
    copies: float


RARE = 0.01
"""Share of held-out images that may lie as near to a training image as a copy does."""


def nearest(
    queries: FeaturesN, pool: FeaturesM | None = None, k: int = 1
) -> tuple[Float64[np.ndarray, "n {k}"], Int64[np.ndarray, "n {k}"]]:
    """The k nearest rows of the pool to each query, by Euclidean distance.

    Args:
      queries: (N, d); pool: (M, d), or None for the queries themselves, of which none is
        its own neighbor.
      k: how many, at most M (N - 1 without a pool).

    Returns:
      (N, k) float64 distances, ascending, each computed from differences; (N, k) indices
      into the pool. Which rows are the nearest is told by a matrix product: of rows equally
      near, or nearer than about 1e-6 of the spread of the pool, any.

    Raises:
      ValueError: too few rows for k, wrong shapes, or NaN.
    """
    k = whole("k", k, 1)
    alone = pool is None
    if pool is None:
        queries = pool = rows(queries, k + 1)
    else:
        queries, pool = rows(queries, name="queries"), rows(pool, k, "pool")
        if queries.shape[1] != pool.shape[1]:
            raise ValueError(f"{queries.shape[1]} and {pool.shape[1]} features do not match")
    gaps, found = _nearest(queries, pool, k, alone)
    return np.sqrt(gaps), found


def _nearest(
    queries: np.ndarray, pool: np.ndarray, k: int, alone: bool
) -> tuple[np.ndarray, np.ndarray]:
    """`nearest` of checked float64, with squared distances."""
    middle = pool.mean(0)
    near = pool - middle
    gaps, found = np.empty((len(queries), k)), np.empty((len(queries), k), np.int64)
    # A block also holds k differences of d numbers for each query.
    for part in blocks(len(queries), max(len(pool), k * pool.shape[1])):
        rough = squares(queries[part] - middle, near)
        if alone:
            np.fill_diagonal(rough[:, part], np.inf)
        index = np.argpartition(rough, k - 1, axis=1)[:, :k]
        exact = ((queries[part, None] - pool[index]) ** 2).sum(2)
        order = np.argsort(exact, axis=1, kind="stable")
        gaps[part] = np.take_along_axis(exact, order, 1)
        found[part] = np.take_along_axis(index, order, 1)
    return gaps, found


def prdc(fake: FeaturesN, real: FeaturesM, k: int = 5) -> Prdc:
    """Precision, recall, density and coverage of fakes among real ones.

    Each row has an open ball to its k-th nearest neighbor of its own set, itself not
    counted. Precision is the share of fakes in any real ball; recall, of real rows in any
    fake ball; density, the memberships of fakes in real balls / (k N); coverage, the share
    of real balls with a fake inside. For equal distributions the expected density is 1 and
    the expected coverage 1 - prod_{i=1..k} (M - i) / (M + N - i).

    Args:
      fake: (N, d); real: (M, d).
      k: the neighbor that sets the radius.

    Raises:
      ValueError: N or M is k or less, wrong shapes, or NaN.

    Source: Naeem et al. 2020, section 3, and their code: k = 5 and a strict `<`, where
    Kynkäänniemi et al. 2019 take k = 3 and `<=`.
    Departs: distances too near to a radius for a matrix product to tell are computed again
    from differences, so that ties are ties.
    """
    fake, real = pair(fake, real, least=whole("k", k, 1) + 1)
    real_ball = _nearest(real, real, k, alone=True)[0][:, -1]
    fake_ball = _nearest(fake, fake, k, alone=True)[0][:, -1]
    precise = np.zeros(len(fake), bool)
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    members, middle = 0, real.mean(0)
    fakes = _Balls(fake, fake - middle, fake_ball)
    for part in blocks(len(real), len(fake)):
        some = _Balls(real[part], real[part] - middle, real_ball[part])
        in_real, in_fake = _inside(some, fakes)
        precise |= in_real.any(0)
        covered[part] = in_real.any(1)
        recalled[part] = in_fake.any(1)
        members += int(in_real.sum())
    density = members / (k * len(fake))
    return Prdc(float(precise.mean()), float(recalled.mean()), density, float(covered.mean()))


class _Balls(NamedTuple):
    """`rows` (n, d), the same `near` the origin, and squared radii (n,)."""

    rows: np.ndarray
    near: np.ndarray
    radii: np.ndarray


def _inside(a: _Balls, b: _Balls) -> tuple[np.ndarray, np.ndarray]:
    """(n, m) bool, twice: is the pair nearer than the radius of a's row, than that of b's."""
    gaps, error = squares(a.near, b.near), slack(a.near, b.near)
    unsure = np.abs(gaps - a.radii[:, None]) <= error
    unsure |= np.abs(gaps - b.radii) <= error
    i, j = np.nonzero(unsure)
    for part in blocks(len(i), a.rows.shape[1]):
        # The same sum as for the radii: equal pairs of rows give equal bits.
        gaps[i[part], j[part]] = ((a.rows[i[part]] - b.rows[j[part]]) ** 2).sum(1)
    return gaps < a.radii[:, None], gaps < b.radii


def memorization(
    fake: FeaturesN,
    train: FeaturesM,
    held_out: Num[np.ndarray, "l d"],
    closest: int = 16,
) -> Memorization:
    """Whether fakes are copies: their nearest training rows against those of held-out rows.

    No distance of distributions finds copying.

    Args:
      fake: (N, d); train: (M, d); held_out: (L, d) real rows that no training saw.
      closest: how many pairs to name, at most N.

    Raises:
      ValueError: wrong shapes, NaN, fewer fakes than `closest`, or half of the held-out rows
        are training rows, so that nothing can be judged.
    """
    whole("closest", closest, 1)
    fake, train = pair(rows(fake, closest, "fake features"), train)
    gaps, found = nearest(fake, train)
    gaps, found = gaps[:, 0], found[:, 0]
    own = nearest(held_out, train)[0]
    usual = float(np.median(own))
    if usual == 0:
        raise ValueError("half of the held-out rows are training rows")
    order = np.argsort(gaps, kind="stable")[:closest]
    middle = float(np.median(gaps))
    pairs = np.stack([order, found[order]], 1)
    # A held-out row that a training row equals says nothing of how near others may be.
    copies = float(np.mean(gaps < np.quantile(own[own > 0], RARE, method="lower")))
    return Memorization(middle / usual, middle, usual, pairs, gaps[order], copies)
