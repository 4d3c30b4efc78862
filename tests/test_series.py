"""Long series made short for a page."""

import itertools

import numpy as np
import pytest

from anigan_jax.report import series
from anigan_jax.storage.metrics_file import spaced


def test_long_series_keep_their_extremes():
    n = 100_000
    draws = np.random.default_rng(0)
    values = draws.normal(size=n)
    values[[12_345, 77_777]] = 50, -60
    values[draws.integers(0, n, 500)] = np.nan
    steps = np.arange(1, n + 1)
    x, found = series.series(steps, values)
    assert len(x) == series.POINTS
    assert (x[0], x[-1]) == (1, n)
    assert (max(found["high"]), min(found["low"])) == (50, -60)
    assert found["numbers"]["highest"] == [50, 12_346]
    assert found["numbers"]["lowest"] == [-60, 77_778]
    edges = np.linspace(0, n, 601).astype(int)
    each = [values[a:b] for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(found["high"], [np.nanmax(v) for v in each], rtol=1e-5)
    np.testing.assert_allclose(found["low"], [np.nanmin(v) for v in each], rtol=1e-5)


@pytest.mark.parametrize("width", [1, 2, 5, 8])
def test_the_running_mean_is_that_of_the_curves(width):
    values = np.random.default_rng(width).normal(size=40)
    ones = np.ones(width)
    want = np.convolve(values, ones, "same") / np.convolve(np.ones(40), ones, "same")
    np.testing.assert_allclose(series.running_mean(values, width), want, rtol=1e-10)
    values[3:30] = np.nan
    mean = series.running_mean(values, width)
    assert np.isnan(mean[12:20]).all()
    np.testing.assert_allclose(mean[-1], values[-(width // 2 + 1) :].mean(), rtol=1e-10)


def test_nothing_is_no_series():
    x, found = series.series(np.arange(3), np.full(3, np.nan))
    assert found["mean"] == [None] * 3
    assert found["numbers"] is None
    assert x == [0, 1, 2]
    assert spaced(0, 5) == []
    assert spaced(100, 3) == [0, 50, 99]
