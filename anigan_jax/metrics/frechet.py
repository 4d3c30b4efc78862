"""Fréchet distance of Gaussians with the moments of feature sets; NumPy on the host.

The name FID is kept for Inception-v3 features; everything here is FD-<network>.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from anigan_jax.metrics.distances import FeaturesM, FeaturesN, blocks, pair, rows

# Relative to the largest entry or eigenvalue: what rounding may do to a covariance.
ROUNDING = 1e-6


class Moments(NamedTuple):
    """What a Gaussian needs: `mean` (d,) and `covariance` (d, d), float64."""

    mean: Float64[np.ndarray, " d"]
    covariance: Float64[np.ndarray, "d d"]


def moments(features: FeaturesN) -> Moments:
    """Mean and covariance of (N, d) features, with divisor N - 1.

    Two passes in float64: a one-pass E[xx] - mm loses all digits of features that lie far
    from 0.

    Raises:
      ValueError: fewer than 2 rows, a wrong shape, or NaN.
    """
    features = rows(features, 2)
    mean = features.mean(0)
    covariance = np.zeros((len(mean), len(mean)))
    for part in blocks(len(features), len(mean)):
        centered = features[part] - mean
        covariance += centered.T @ centered
    return Moments(mean, covariance / (len(features) - 1))


def between(a: Moments, b: Moments) -> float:
    """Squared Fréchet distance of two Gaussians: |m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    With R R^T = C from the eigenvectors of each symmetric C, the trace of the root is the sum
    of the singular values of R1^T R2. A root of C1 C2 itself, which is not symmetric, comes
    out complex; the eigenvalues of R1^T C2 R1 would have to be rooted, which halves their
    digits where a covariance is singular.

    Returns:
      The distance. It is not clipped: near 0 rounding may bring it below, by about 1e-14 of
      the traces.

    Raises:
      ValueError: the shapes do not fit, a number is not finite, or a covariance is not
        symmetric or has a negative eigenvalue.

    Source: Dowson & Landau 1982, eq. 4; Heusel et al. 2017, eq. 6.
    """
    _check(a)
    _check(b)
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"means of {len(a.mean)} and {len(b.mean)} numbers do not match")
    product = _root(a.covariance).T @ _root(b.covariance)
    norm = np.linalg.svd(product, compute_uv=False).sum() if product.size else 0.0
    gap = a.mean - b.mean
    return float(gap @ gap + np.trace(a.covariance) + np.trace(b.covariance) - 2 * norm)


def _root(covariance: Float64[np.ndarray, "d d"]) -> Float64[np.ndarray, "d r"]:
    """R (d, rank) with R R^T = covariance. Raises ValueError where an eigenvalue is negative."""
    values, vectors = np.linalg.eigh(covariance)
    top = np.abs(values).max()
    if values.min() < -ROUNDING * top:
        raise ValueError(f"a covariance has the negative eigenvalue {values.min():.3g}")
    # What is left of a zero, of either sign, would have a root of 1e-8, not 1e-16.
    some = values > len(values) * np.finfo(np.float64).eps * top
    return vectors[:, some] * np.sqrt(values[some])


def distance(fake: FeaturesN, real: FeaturesM) -> float:
    """Squared Fréchet distance of two feature sets, as `between` has it.

    It is biased upwards, for two sets of N unit Gaussians by 2 d / N + d (d + 1) / (2 N):
    compare only distances of equal N, and beside them what real images give.

    Args:
      fake: (N, d); real: (M, d).

    Raises:
      ValueError: N or M is d or less, where covariances are singular and the bias is as
        large as the distance (`distance_of_few` takes such sets); wrong shapes; NaN.
    """
    fake, real = pair(fake, real, least=2)
    n, d = min(len(fake), len(real)), fake.shape[1]
    if n <= d:
        raise ValueError(f"{n} rows give no covariance of {d} features: {d + 1} or more")
    return between(moments(fake), moments(real))


def distance_of_few(fake: FeaturesN, real: FeaturesM) -> float:
    """The same number for any N and M from 2, by singular values of an (N, M) matrix.

    Tr (C1 C2)^(1/2) is the nuclear norm of X Y^T / sqrt((N - 1)(M - 1)) with centered X and
    Y. Where N <= d that is cheaper than `between`, but the number is mostly bias: good for
    comparing sets of one N.

    Args:
      fake: (N, d); real: (M, d).

    Raises:
      ValueError: fewer than 2 rows, wrong shapes, or NaN.
    """
    fake, real = pair(fake, real, least=2)
    means = fake.mean(0), real.mean(0)
    x, y = ((a - mean) / np.sqrt(len(a) - 1) for a, mean in zip((fake, real), means, strict=True))
    gap = means[0] - means[1]
    norm = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(gap @ gap + (x * x).sum() + (y * y).sum() - 2 * norm)


def _check(gaussian: Moments) -> None:
    mean, covariance = gaussian
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or not len(mean):
        raise ValueError(f"shapes {mean.shape} and {covariance.shape} must be (d,) and (d, d)")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError("the moments hold NaN or inf")
    if np.abs(covariance - covariance.T).max() > ROUNDING * np.abs(covariance).max():
        raise ValueError("the covariance is not symmetric")
