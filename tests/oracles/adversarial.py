"""The adversarial losses in float64 NumPy."""

import numpy as np


def softplus(x):
    x = np.asarray(x, np.float64)
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def bce64(x, target):
    return target * softplus(-x) + (1 - target) * softplus(x)


# name -> float64 (real term, fake term, G's term), labels a and b.
ORACLE = {
    "non_saturating": (
        lambda r, f, a, b: bce64(r, a),
        lambda r, f, a, b: bce64(f, b),
        lambda r, f: softplus(-f),
    ),
    "minimax": (
        lambda r, f, a, b: bce64(r, a),
        lambda r, f, a, b: bce64(f, b),
        lambda r, f: -softplus(f),
    ),
    "least_squares": (
        lambda r, f, a, b: (r - a) ** 2,
        lambda r, f, a, b: (f - b) ** 2,
        lambda r, f: (f - 1) ** 2,
    ),
    "hinge": (
        lambda r, f, a, b: np.maximum(1 - r, 0),
        lambda r, f, a, b: np.maximum(1 + f, 0),
        lambda r, f: -f,
    ),
    "wasserstein": (
        lambda r, f, a, b: -r,
        lambda r, f, a, b: f,
        lambda r, f: -f,
    ),
    "relativistic": (
        lambda r, f, a, b: 0 * r,
        lambda r, f, a, b: softplus(f - r),
        lambda r, f: softplus(r - f),
    ),
}
