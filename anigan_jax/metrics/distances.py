"""Checked float64 feature rows, and distances between them; NumPy on the host."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, Num

FeaturesN = Num[np.ndarray, "n d"] | list[list[float]]
FeaturesM = Num[np.ndarray, "m d"] | list[list[float]]

# Cells of one block of an (N, M) matrix: 32 MiB of float64, so that a handful of
# temporaries stay far below 1 GB whatever N and M are.
CELLS = 2**22


def rows(features: FeaturesN, least: int = 1, name: str = "features") -> Float64[np.ndarray, "n d"]:
    """Features as float64, checked.

    Args:
      features: (N, d) real numbers, any integer or float type.
      least: the fewest rows that will do.
      name: what the error calls them.

    Returns:
      (N, d) float64; the very array where it is that already.

    Raises:
      ValueError: the shape is not (N, d) with N >= least and d >= 1, or a value is no
        finite real number.
    """
    features = np.asarray(features)
    if features.ndim != 2 or not features.shape[1]:
        raise ValueError(f"{name} of shape {features.shape} must be (N, d)")
    if len(features) < least:
        raise ValueError(f"{len(features)} rows of {name} are too few: {least} or more")
    if features.dtype.kind not in "biuf":
        raise ValueError(f"{name} of {features.dtype} must be real numbers")
    features = np.asarray(features, np.float64)
    bad = ~np.isfinite(features).all(1)
    if bad.any():
        first = np.flatnonzero(bad)[0]
        raise ValueError(f"{bad.sum()} rows of {name} hold NaN or inf; the first is {first}")
    return features


def pair(
    fake: FeaturesN, real: FeaturesM, least: int = 1
) -> tuple[Float64[np.ndarray, "n d"], Float64[np.ndarray, "m d"]]:
    """(N, d) and (M, d) as `rows` gives them. Raises ValueError also where the d differ."""
    fake, real = rows(fake, least, "fake features"), rows(real, least, "real features")
    if fake.shape[1] != real.shape[1]:
        raise ValueError(f"features of {fake.shape[1]} and {real.shape[1]} numbers do not match")
    return fake, real


def whole(name: str, value: int, least: int) -> int:
    """A whole number that is large enough. Raises ValueError where it is not."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} is {value!r}; it must be a whole number from {least}")
    return int(value)


def blocks(n: int, columns: int) -> Iterator[slice]:
    """Slices that cover n rows in order, each of about `CELLS` cells and one row or more."""
    step = max(1, CELLS // max(1, columns))
    return (slice(i, min(i + step, n)) for i in range(0, n, step))


def squares(
    a: Float64[np.ndarray, "n d"], b: Float64[np.ndarray, "m d"]
) -> Float64[np.ndarray, "n m"]:
    """Squared Euclidean distances (N, M) of (N, d) and (M, d) float64, by matrix product.

    Never negative; each is within `slack` of the exact value. Distances far smaller than
    the rows' own lengths have few true digits, so move the rows near the origin first.
    """
    out = a @ b.T
    out *= -2
    out += _norms(a)[:, None]
    out += _norms(b)
    return np.maximum(out, 0, out=out)


def slack(
    a: Float64[np.ndarray, "n d"], b: Float64[np.ndarray, "m d"]
) -> Float64[np.ndarray, "n m"]:
    """(N, M) bounds of the rounding error of `squares(a, b)`, of moving the rows included.

    Source: Higham 2002 (Accuracy and Stability of Numerical Algorithms), eq. 3.5, doubled.
    """
    unit = 4 * (a.shape[1] + 4) * np.finfo(np.float64).eps
    return unit * (_norms(a)[:, None] + _norms(b))


def _norms(a: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, " n"]:
    """(N,) squared lengths; unlike (a * a).sum(1) without another (N, d)."""
    return np.einsum("nd,nd->n", a, a)
