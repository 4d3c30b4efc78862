"""Long series made short for a page, with their extremes; NumPy alone."""

from __future__ import annotations

import numpy as np

POINTS = 600
SMOOTHED = 50
"""A running mean goes over this share of a series."""


def series(steps: np.ndarray, values: np.ndarray, most: int = POINTS) -> tuple[list[int], dict]:
    """A series in at most `most` stretches of neighboring values.

    Args:
      steps: (n,) ascending integers; values: (n,), NaN where there is none.

    Returns:
      The steps (m,) that stand for the stretches: the first, the last, and middles; and
      'mean', the running mean there; 'low' and 'high', the extremes of each stretch ('high'
      is None where it is 'low': nothing was put together); 'numbers', of the whole series:
      'first', 'last', 'lowest' and 'highest' as [value, step], 'recent', the mean of the last
      tenth. None stands for NaN.
    """
    n = len(values)
    edges = np.linspace(0, n, min(n, most) + 1).astype(int)[:-1]
    ends = np.append(edges[1:], n) - 1
    middles = (edges + ends) // 2
    x = steps[middles].copy()
    x[[0, -1]] = steps[[0, -1]]
    low, high = np.fmin.reduceat(values, edges), np.fmax.reduceat(values, edges)
    mean = np.where(np.isnan(low), np.nan, running_mean(values, max(1, n // SMOOTHED))[middles])
    return x.tolist(), {
        "mean": _plain(mean),
        "low": _plain(low),
        "high": None if n <= most else _plain(high),
        "numbers": numbers(steps, values),
    }


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Centered mean of up to `width` values that are there; NaN where none is."""
    there = ~np.isnan(values)
    sums = np.concatenate([[0], np.cumsum(np.where(there, values, 0))])
    counts = np.concatenate([[0], np.cumsum(there)])
    at = np.arange(len(values))
    start, end = np.maximum(at - width // 2, 0), np.minimum(at + (width + 1) // 2, len(values))
    count = counts[end] - counts[start]
    return np.where(count > 0, (sums[end] - sums[start]) / np.maximum(count, 1), np.nan)


def numbers(steps: np.ndarray, values: np.ndarray) -> dict | None:
    """First, last, extremes and recent mean of what is there; None where nothing is."""
    there = np.flatnonzero(~np.isnan(values))
    if not len(there):
        return None
    kept, at = values[there], steps[there]
    low, high = int(kept.argmin()), int(kept.argmax())
    return {
        "first": float(kept[0]),
        "last": float(kept[-1]),
        "lowest": [float(kept[low]), int(at[low])],
        "highest": [float(kept[high]), int(at[high])],
        "recent": float(kept[-max(1, len(kept) // 10) :].mean()),
    }


def _plain(values: np.ndarray) -> list[float | None]:
    """Six digits are more than a page shows."""
    return [None if np.isnan(v) else float(f"{v:.6g}") for v in values]
