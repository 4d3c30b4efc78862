"""Maximum mean discrepancies of feature sets: KID and CMMD; NumPy on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from anigan_jax.metrics.distances import FeaturesM, FeaturesN, blocks, pair, squares, whole

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
# Of google-research/cmmd: the bandwidth for CLIP embeddings, and a factor for the eye.
SIGMA = 10.0
SCALE = 1000.0


class Kid(NamedTuple):
    """`mean` over subsets, and `std`, the spread of one subset: no error of the mean."""

    mean: float
    std: float


def polynomial_mmd(fake: FeaturesN, real: FeaturesM, biased: bool = False) -> float:
    """Squared MMD with the kernel (x . y / d + 1)^3, over all rows.

    Args:
      fake: (N, d); real: (M, d).
      biased: keep the pairs of a row with itself, which makes the sum a squared norm.

    Returns:
      The discrepancy. Unbiased it may be negative, and is for a set against itself; it is
      never clipped. The order of the rows does not matter.

    Raises:
      ValueError: fewer than 2 rows (1 if biased), wrong shapes, or NaN.

    Source: Bińkowski et al. 2018, section 4; Gretton et al. 2012, eq. 3 and 5.
    """
    return _mmd(_cubic, *pair(fake, real, least=1 if biased else 2), biased=biased)


def kid(
    fake: FeaturesN,
    real: FeaturesM,
    seed: int,
    subsets: int = 100,
    size: int = 1000,
) -> Kid:
    """Kernel distance: the unbiased `polynomial_mmd` of random subsets.

    Args:
      fake: (N, d); real: (M, d).
      seed: of NumPy's default generator, which draws for each subset first rows of `fake`,
        then of `real`, each without repetition. Rows are drawn by their index, so the same
        number again needs the same order of rows.
      subsets: how many; size: rows of each.

    Returns:
      Mean and standard deviation (divisor `subsets`) over the subsets, not clipped.

    Raises:
      ValueError: `size` is larger than N or M, or below 2; wrong shapes; NaN.

    Source: Bińkowski et al. 2018, section 4; the numbers of torch-fidelity.
    Departs: from torch-fidelity in the generator, so its subsets are others.
    """
    fake, real = pair(fake, real, least=whole("size", size, 2))
    rng = np.random.default_rng(seed)
    found = np.empty(whole("subsets", subsets, 1))
    for i in range(subsets):
        x = fake[rng.choice(len(fake), size, replace=False)]
        y = real[rng.choice(len(real), size, replace=False)]
        found[i] = _mmd(_cubic, x, y, biased=False)
    return Kid(float(found.mean()), float(found.std()))


def cmmd(fake: FeaturesN, real: FeaturesM, sigma: float = SIGMA) -> float:
    """1000 times the squared MMD with the kernel exp(-|x - y|^2 / (2 sigma^2)), biased.

    The name is of CLIP embeddings scaled to length 1; say which others were taken.

    Args:
      fake: (N, d); real: (M, d); one row will do.
      sigma: bandwidth, in the features' unit.

    Returns:
      The discrepancy in [0, 2000], up to rounding below 0.

    Raises:
      ValueError: wrong shapes, NaN, or a sigma that is not above 0.

    Source: Jayasumana et al. 2024, section 4; google-research/cmmd, distance.py.
    """
    if not (np.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma is {sigma}; it must be above 0")
    fake, real = pair(fake, real)
    # Distances stay, and keep more digits near the origin.
    middle = real.mean(0)

    def gaussian(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(squares(a, b) / (-2 * sigma**2))

    return SCALE * _mmd(gaussian, fake - middle, real - middle, biased=True)


def _cubic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    base = a @ b.T / a.shape[1] + 1
    # NumPy's ** 3 calls pow, ten times as slow.
    return base * base * base


def _mmd(kernel: Kernel, x: np.ndarray, y: np.ndarray, biased: bool) -> float:
    within = _mean(kernel, x, x, not biased) + _mean(kernel, y, y, not biased)
    return float(within - 2 * _mean(kernel, x, y, False))


def _mean(kernel: Kernel, x: np.ndarray, y: np.ndarray, apart: bool) -> float:
    """Mean of the kernel over pairs of rows; `apart`: x is y, of which no row meets itself."""
    total = 0.0
    for part in blocks(len(x), len(y)):
        values = kernel(x[part], y)
        if apart:
            np.fill_diagonal(values[:, part], 0)
        total += values.sum()
    return total / (len(x) * (len(y) - apart))
