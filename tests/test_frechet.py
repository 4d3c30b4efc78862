"""Fréchet distance against closed forms, NumPy, SciPy and torch-fidelity."""

import numpy as np
import pytest
from oracles.fidelity import torch_fidelity

from anigan_jax.metrics import distances, frechet
from anigan_jax.metrics.frechet import Moments


def normal(*shape, seed=11):
    return np.random.default_rng(seed).standard_normal(shape)


def mixed(n, d, seed=11):
    """Rows with correlated columns of different spread."""
    return normal(n, d, seed=seed) @ (normal(d, d, seed=99) / np.sqrt(d)) * np.linspace(0.5, 2, d)


def rotation(d, seed=5):
    return np.linalg.qr(normal(d, d, seed=seed))[0]


def covariance(d, seed):
    root = normal(d, 2 * d, seed=seed)
    return root @ root.T / (2 * d)


def between(m1, c1, m2, c2):
    a, b = (Moments(np.array(m, "f8"), np.array(c, "f8")) for m, c in ((m1, c1), (m2, c2)))
    return frechet.between(a, b)


@pytest.mark.long
def test_equal_covariances_leave_the_means():
    # pytorch-fid's own test: 2048 features, means 0 and 1, unit covariance.
    eye = np.eye(2048)
    assert between(np.zeros(2048), eye, np.ones(2048), eye) == pytest.approx(2048, rel=1e-12)
    c = covariance(6, 1)
    gap = normal(6)
    assert between(gap, c, 0 * gap, c) == pytest.approx(gap @ gap, rel=1e-12)


@pytest.mark.parametrize(("d", "a", "b"), [(1, 2, 5), (7, 0.5, 3), (64, 1, 0), (3, 4, 4)])
def test_balls_of_two_radii(d, a, b):
    zero, eye = np.zeros(d), np.eye(d)
    want = d * (a - b) ** 2
    assert between(zero, a * a * eye, zero, b * b * eye) == pytest.approx(want, abs=1e-12)


def test_diagonals_commute():
    a, b = np.random.default_rng(2).uniform(0, 9, (2, 20))
    a[3] = b[5] = 0
    want = ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    zero = np.zeros(20)
    assert between(zero, np.diag(a), zero, np.diag(b)) == pytest.approx(want, rel=1e-12)


def test_two_that_do_not_commute():
    got = between([0, 0], [[2, 1], [1, 2]], [1, -1], [[1, 0], [0, 3]])
    assert got == pytest.approx(10 - 2 * np.sqrt(14), abs=1e-13)
    assert got == pytest.approx(2.516685226452117, abs=1e-13)


@pytest.mark.parametrize("seed", range(8))
def test_any_two_by_two(seed):
    a, b = covariance(2, seed), covariance(2, seed + 50)
    product = a @ b
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    want = np.trace(a) + np.trace(b) - 2 * root
    assert between([0, 0], a, [0, 0], b) == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize("d", [3, 40])
def test_equals_the_matrix_root_of_scipy(d):
    from scipy.linalg import sqrtm

    a, b = covariance(d, 1), 3 * covariance(d, 2)
    want = np.trace(a) + np.trace(b) - 2 * np.trace(sqrtm(a @ b)).real
    assert between(np.zeros(d), a, np.zeros(d), b) == pytest.approx(want, rel=1e-10)


def test_moments_of_constant_images():
    # pytorch-fid's own test: pooled images of 0, 0.5 and 1, three features each.
    got = frechet.moments(np.array([0, 0.5, 1])[:, None].repeat(3, 1))
    np.testing.assert_allclose(got.mean, np.full(3, 0.5), rtol=1e-15)
    np.testing.assert_allclose(got.covariance, np.full((3, 3), 0.25), rtol=1e-15)


@pytest.mark.parametrize("cells", [8, 100, 2**22])
def test_moments_equal_numpys_in_any_blocks(monkeypatch, cells):
    monkeypatch.setattr(distances, "CELLS", cells)
    x = mixed(57, 8)
    got = frechet.moments(x)
    np.testing.assert_allclose(got.mean, x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(got.covariance, np.cov(x, rowvar=False), rtol=1e-11, atol=1e-14)


def test_features_far_from_zero_lose_nothing():
    # One pass in float32 makes 0.20 of these 0.14 (metrics.md, section 1).
    x, y = normal(1000, 128, seed=1), 1.02 * normal(1000, 128, seed=2)
    want = frechet.distance(x, y)
    assert frechet.distance(x + 100, y + 100) == pytest.approx(want, rel=1e-9)
    assert frechet.distance(x + 1e6, y + 1e6) == pytest.approx(want, rel=1e-4)


def test_identical_sets():
    x = mixed(300, 20)
    assert abs(frechet.distance(x, x)) < 1e-11
    few = normal(40, 100)
    gaussian = frechet.moments(few)
    # metrics.md asks for 1e-6 of the form by eigenvalues.
    assert abs(frechet.between(gaussian, gaussian)) < 1e-11
    assert abs(frechet.distance_of_few(few, few)) < 1e-12


@pytest.mark.parametrize(("n", "m", "d"), [(30, 50, 80), (60, 60, 60), (200, 90, 12), (2, 2, 1)])
def test_the_form_for_few_rows_is_the_same_number(n, m, d):
    x, y = mixed(n, d, 1) + 0.3, 2 * mixed(m, d, 2)
    want = frechet.between(frechet.moments(x), frechet.moments(y))
    assert frechet.distance_of_few(x, y) == pytest.approx(want, rel=1e-11)


@pytest.mark.parametrize("measure", [frechet.distance, frechet.distance_of_few])
def test_laws(measure):
    x, y = mixed(150, 10, 1), 1.5 * mixed(130, 10, 2) + 0.2
    want = measure(x, y)
    assert want > 0.1
    turn, order = rotation(10), np.random.default_rng(3).permutation(len(x))
    assert measure(y, x) == pytest.approx(want, rel=1e-10)
    assert measure(x @ turn, y @ turn) == pytest.approx(want, rel=1e-10)
    assert measure(x + 7, y + 7) == pytest.approx(want, rel=1e-9)
    assert measure(3 * x, 3 * y) == pytest.approx(9 * want, rel=1e-10)
    assert measure(x[order], y) == pytest.approx(want, rel=1e-10)
    assert measure(x[:, ::-1], y[:, ::-1]) == pytest.approx(want, rel=1e-10)
    assert measure(x, y) == want
    single = measure(x.astype("f4"), y.astype("f4"))
    assert single == measure(x.astype("f4").astype("f8"), y.astype("f4").astype("f8"))
    assert single == pytest.approx(want, rel=1e-5)


def test_what_chance_leaves_between_equal_distributions():
    d, n = 64, 4096
    want = 2 * d / n + d * (d + 1) / (2 * n)
    got = [frechet.distance(normal(n, d, seed=s), normal(n, d, seed=s + 100)) for s in range(3)]
    assert np.mean(got) == pytest.approx(want, rel=0.1)
    assert got == pytest.approx([want] * 3, rel=0.1)


def test_equals_torch_fidelity():
    import_torch = torch_fidelity("metric_fid")
    import torch

    for n, m, d in ((400, 300, 24), (2000, 2000, 128)):
        x, y = mixed(n, d, 1) + 0.1, 1.3 * mixed(m, d, 2)
        stats = [import_torch.fid_features_to_statistics(torch.from_numpy(a)) for a in (x, y)]
        want = import_torch.fid_statistics_to_metric(*stats, verbose=False)
        assert frechet.distance(x, y) == pytest.approx(want[import_torch.KEY_METRIC_FID], rel=1e-6)


def test_too_few_rows_are_refused():
    x = normal(40, 20)
    frechet.distance(x[:21], x)
    for fake, real in ((x[:20], x), (x, x[:20])):
        with pytest.raises(ValueError, match="20 rows give no covariance of 20"):
            frechet.distance(fake, real)
    for call in (frechet.moments, lambda one: frechet.distance_of_few(one, x)):
        with pytest.raises(ValueError, match="too few"):
            call(x[:1])


def test_what_is_no_gaussian_is_refused():
    good, eye = np.zeros(3), np.eye(3)
    for mean, cov, word in (
        (np.zeros(2), eye, "shapes"),
        (good[None], eye, "shapes"),
        (good[:0], eye[:0, :0], "shapes"),
        (good + np.nan, eye, "NaN"),
        (good, eye + np.inf, "NaN"),
        (good, eye + np.triu(np.ones((3, 3)), 1), "symmetric"),
        (good, np.diag([1, 1, -0.1]), "negative"),
    ):
        for first in (True, False):
            pair = (mean, cov, good, eye) if first else (good, eye, mean, cov)
            with pytest.raises(ValueError, match=word):
                between(*pair)
    with pytest.raises(ValueError, match="do not match"):
        between(good, eye, np.zeros(2), np.eye(2))
