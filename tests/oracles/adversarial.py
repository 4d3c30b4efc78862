"""Adversarial losses and penalties in float64 NumPy, written from the papers alone."""

import numpy as np


def softplus(x):
    """log(1 + e^x) without overflow."""
    x = np.asarray(x, np.float64)
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def bce64(x, target):
    """Binary cross-entropy of logits."""
    return target * softplus(-x) + (1 - target) * softplus(x)


# name -> (D's term of reals, D's term of fakes, G's term) of logits r, f and labels a, b.
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


def slopes(value, tree: dict, size=1e-6) -> dict:
    """Gradient of value(tree) by central differences; `tree` is name -> float64 array."""
    found = {}
    for name, array in tree.items():
        array = np.asarray(array, np.float64)
        slope = np.zeros(array.shape)
        for place in np.ndindex(array.shape):
            step = np.zeros(array.shape)
            step[place] = size
            up, down = (value({**tree, name: array + s * step}) for s in (1, -1))
            slope[place] = (up - down) / (2 * size)
        found[name] = slope
    return found
