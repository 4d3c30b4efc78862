"""MIND against shifts, scales, optimal assignment and quantiles."""

import numpy as np
import pytest

from anigan_jax.metrics import distances, mind


def normal(n, d, seed):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize("mu", [1, 3])
def test_shift_of_a_gaussian(mu):
    # torch-fidelity's own test: other samples, so 10 %.
    x, y = normal(4000, 64, 11), normal(4000, 64, 22) + mu
    assert mind.mind(y, x, 1, directions=2000) == pytest.approx(3 * 64 * mu**2, rel=0.1)


def test_one_dimension_is_exact():
    x = normal(500, 1, 1)
    assert mind.mind(x, x, 1) == 0
    # The only directions are 1 and -1: no chance is left.
    assert mind.mind(x + 2, x, 1) == pytest.approx(3 * 4, rel=1e-12)
    assert mind.mind(3 * x, x, 1) == pytest.approx(3 * 4 * (x * x).mean(), rel=1e-12)
    assert mind.mind([[0], [1]], [[5], [3]], 1) == pytest.approx(3 * (9 + 16) / 2, rel=1e-12)


def test_shift_of_the_same_rows_is_its_length_over_directions():
    x, shift = normal(50, 5, 1), normal(1, 5, 2)
    units = np.random.default_rng(7).standard_normal((300, 5))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    want = 3 * 5 * ((units @ shift[0]) ** 2).mean()
    assert mind.mind(x + shift, x, 7, directions=300) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(6, 6), (4, 6), (6, 4), (1, 5), (3, 7)])
def test_equals_the_best_assignment(n, m):
    from scipy.optimize import linear_sum_assignment

    x, y = normal(n, 3, 1), normal(m, 3, 2) + 0.5
    units = np.random.default_rng(9).standard_normal((20, 3))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    total = 0
    for u in units:
        # Each row as often as makes the sets equally large: n m rows each.
        cost = ((x @ u).repeat(m)[:, None] - (y @ u).repeat(n)) ** 2
        total += cost[linear_sum_assignment(cost)].mean()
    assert mind.mind(x, y, 9, directions=20) == pytest.approx(9 * total / 20, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 5), (12, 18), (7, 100)])
def test_the_plan_moves_all_mass_in_order(n, m):
    i, j, mass = mind._plan(n, m)
    np.testing.assert_allclose(np.bincount(i, mass, n), np.full(n, 1 / n), rtol=1e-12)
    np.testing.assert_allclose(np.bincount(j, mass, m), np.full(m, 1 / m), rtol=1e-12)
    assert (np.diff(i) >= 0).all()
    assert (np.diff(j) >= 0).all()
    assert len(i) == n + m - np.gcd(n, m)


def test_laws():
    x, y = normal(300, 12, 1), 1.4 * normal(200, 12, 2) + 0.3
    want = mind.mind(x, y, 5)
    order = np.random.default_rng(3).permutation(300)
    assert mind.mind(x, x, 5) == 0
    assert mind.mind(y, x, 5) == want
    assert mind.mind(x, y, 5) == want
    assert mind.mind(x, y, 6) != want
    assert mind.mind(x, y, 6) == pytest.approx(want, rel=0.1)
    assert mind.mind(x[order], y, 5) == pytest.approx(want, rel=1e-12)
    assert mind.mind(x + 50, y + 50, 5) == pytest.approx(want, rel=1e-10)
    assert mind.mind(3 * x, 3 * y, 5) == pytest.approx(9 * want, rel=1e-12)
    # All rows twice are the same distribution.
    assert mind.mind(x.repeat(2, 0), y, 5) == pytest.approx(want, rel=1e-12)
    # Rotations change which directions are drawn, not their distribution.
    turn = np.linalg.qr(normal(12, 12, 4))[0]
    assert mind.mind(x @ turn, y @ turn, 5) == pytest.approx(want, rel=0.1)
    single = x.astype("f4"), y.astype("f4")
    assert mind.mind(*single, 5) == mind.mind(*(a.astype("f8") for a in single), 5)


def test_fewer_rows_than_features_and_any_blocks(monkeypatch):
    x, y = normal(30, 100, 1), normal(20, 100, 2) + 1
    want = mind.mind(x, y, 5, directions=50)
    assert want == pytest.approx(300, rel=0.5)
    monkeypatch.setattr(distances, "CELLS", 200)
    assert mind.mind(x, y, 5, directions=50) == pytest.approx(want, rel=1e-12)


def test_grows_with_the_shift():
    x = normal(1000, 32, 1)
    found = [mind.mind(normal(1000, 32, 2) + mu, x, 3) for mu in (0, 0.2, 0.5, 1, 2)]
    assert np.diff(found).min() > 0
    assert found[0] < 1


def test_no_directions_are_refused():
    with pytest.raises(ValueError, match="directions"):
        mind.mind(normal(5, 2, 1), normal(5, 2, 1), 1, directions=0)
