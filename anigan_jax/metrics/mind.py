"""Optimal transport between feature sets along random directions; NumPy on the host."""

from __future__ import annotations

import numpy as np

from anigan_jax.metrics.distances import FeaturesM, FeaturesN, blocks, pair, whole


def mind(fake: FeaturesN, real: FeaturesM, seed: int, directions: int = 1000) -> float:
    """Monge inception distance: 3 d times the mean squared 2-Wasserstein of projections.

    It works for any N, smaller than d too. For two sets that differ by a shift mu of every
    coordinate it is near 3 d mu^2. It is biased upwards by what N leaves to chance.

    Args:
      fake: (N, d); real: (M, d).
      seed: of NumPy's default generator, which draws the unit directions; the same for both
        orders of the arguments.
      directions: how many.

    Returns:
      The distance, 0 or more. The order of the rows does not matter.

    Raises:
      ValueError: wrong shapes, NaN, or no directions.

    Source: Berthet et al. 2026 (arXiv 2605.06797); torch-fidelity, metric_mind.py.
    Departs: where N and M differ, transport is between all rows and exact; torch-fidelity
    leaves random rows of the larger set out. In float64, not float32.
    """
    fake, real = pair(fake, real)
    d = fake.shape[1]
    units = np.random.default_rng(seed).standard_normal((whole("directions", directions, 1), d))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    i, j, mass = _plan(len(fake), len(real))
    total = 0.0
    for part in blocks(directions, len(i)):
        a = np.sort(units[part] @ fake.T, axis=1)
        b = np.sort(units[part] @ real.T, axis=1)
        total += ((a[:, i] - b[:, j]) ** 2 @ mass).sum()
    return float(3 * d * total / directions)


def _plan(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best plan between n and m sorted points on a line, each of mass 1/n and 1/m.

    Returns:
      i, j, mass: the i-th smallest gives `mass` to the j-th smallest; at most n + m - 1.
    """
    # The masses end at multiples of m and of n, in units of 1 / (n m): whole numbers.
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    mass = np.diff(ends, prepend=0) / (n * m)
    return (ends - 1) // m, (ends - 1) // n, mass
