"""Neighbors, precision, recall, density, coverage and copies: by hand, and by definition."""

import tracemalloc

import numpy as np
import pytest
from oracles.fidelity import torch_fidelity
from scipy.spatial.distance import cdist

from anigan_jax.metrics import distances as arrays
from anigan_jax.metrics import prdc
from anigan_jax.metrics.feature_scores import NEIGHBORS, scores


def normal(n, d, seed):
    return np.random.default_rng(seed).standard_normal((n, d))


def column(*values):
    return np.array(values, float)[:, None]


def definition(fake, real, k):
    """The shares by their definition, from all distances at once."""
    across = cdist(real, fake)
    r = np.sort(cdist(real, real), 1)[:, k]  # column 0 is the row itself
    f = np.sort(cdist(fake, fake), 1)[:, k]
    inside = across < r[:, None]
    return (
        inside.any(0).mean(),
        (across < f).any(1).mean(),
        inside.sum() / (k * len(fake)),
        inside.any(1).mean(),
    )


def test_by_hand():
    got = prdc.prdc(column(0.5, 2.5, 10), column(0, 1, 2, 3), k=1)
    assert got == pytest.approx((2 / 3, 1, 4 / 3, 1), rel=1e-15)


def test_a_tie_is_outside():
    # With <= it would be 0.5, 0.25, 0.5 and 0.25.
    assert prdc.prdc(column(4, 5), column(0, 1, 2, 3), k=1) == (0, 0, 0, 0)
    assert prdc.prdc(column(4 - 1e-9, 5), column(0, 1, 2, 3), k=1) == (0.5, 0.25, 0.5, 0.25)


@pytest.mark.parametrize("offset", [0, 1000])
def test_a_copy_of_the_data_ties_everywhere(offset):
    # Each ball holds its own middle and k - 1 neighbors; the k-th lies on the edge, which
    # a matrix product alone cannot tell.
    real = normal(300, 64, 1) + offset
    assert prdc.prdc(real.copy(), real) == (1, 1, 1, 1)
    assert prdc.prdc(real[::-1], real, k=2) == (1, 1, 1, 1)


def test_whole_numbers_tie_in_many_ways():
    rng = np.random.default_rng(1)
    fake, real = rng.integers(0, 4, (2, 150, 3)).astype(float)
    for k in (1, 3, 5):
        # Squares of whole numbers are exact, their roots are in order.
        assert prdc.prdc(fake, real, k) == pytest.approx(definition(fake, real, k), rel=1e-14)
        moved = prdc.prdc(fake + 0.5, real + 0.5, k)
        assert moved == prdc.prdc(fake, real, k)


@pytest.mark.parametrize("cells", [1, 1000, 2**22])
@pytest.mark.parametrize(("n", "m", "d", "k"), [(120, 90, 4, 5), (60, 100, 30, 3), (9, 7, 2, 1)])
def test_equals_the_definition_in_any_blocks(monkeypatch, cells, n, m, d, k):
    monkeypatch.setattr(arrays, "CELLS", cells)
    fake, real = 0.9 * normal(n, d, 1) + 0.2, normal(m, d, 2)
    assert prdc.prdc(fake, real, k) == pytest.approx(definition(fake, real, k), rel=1e-14)


def test_laws():
    fake, real = 0.8 * normal(200, 8, 1) + 0.4, normal(300, 8, 2)
    want = prdc.prdc(fake, real)
    swapped = prdc.prdc(real, fake)
    assert (swapped.precision, swapped.recall) == (want.recall, want.precision)
    assert len({*want}) == 4
    turn = np.linalg.qr(normal(8, 8, 4))[0]
    order = np.random.default_rng(3).permutation(200)
    for change in (
        lambda x: x @ turn,
        lambda x: x + 1e3,
        lambda x: 7 * x,
        lambda x: x[:, ::-1],
        lambda x: x.astype("f4"),
        lambda x: x,
    ):
        assert prdc.prdc(change(fake), change(real)) == want
    assert prdc.prdc(fake[order], real) == want
    assert prdc.prdc(fake, real[::-1]) == want


def test_a_narrow_cluster_inside_is_precise_and_recalls_little():
    # torch-fidelity's test that the arguments are not swapped.
    got = prdc.prdc(0.1 * normal(200, 16, 1), 3 * normal(200, 16, 2), k=3)
    assert got.precision > 0.8
    assert got.recall < 0.3
    other = prdc.prdc(3 * normal(200, 16, 2), 0.1 * normal(200, 16, 1), k=3)
    assert other.precision < 0.3
    assert other.recall > 0.8


def test_the_panel_calls_the_fakes_fakes():
    """Precision is the fakes' share among reals, recall the reals' among fakes, and so on."""
    fake, real = 0.1 * normal(200, 16, 1), 3 * normal(150, 16, 2)
    for one, other, precise in ((fake, real, True), (real, fake, False)):
        got = scores(one, other, 0, 100).values
        assert (got["precision"] > 0.8) == (got["recall"] < 0.3) == precise
        by_definition = definition(one, other, NEIGHBORS)
        names = ("precision", "recall", "density", "coverage")
        np.testing.assert_allclose([got[name] for name in names], by_definition, rtol=1e-12)


def test_equal_distributions_have_the_expected_density_and_coverage():
    n, k = 300, 5
    found = [prdc.prdc(normal(n, 4, s), normal(n, 4, 1000 + s), k) for s in range(60)]
    _, _, density, coverage = np.array(found).T
    want = 1 - np.prod([(n - i) / (2 * n - i) for i in range(1, k + 1)])
    assert want == pytest.approx(0.9695, abs=1e-4)
    assert coverage.mean() == pytest.approx(want, abs=4 * coverage.std() / np.sqrt(60))
    assert coverage.std() / np.sqrt(60) < 0.002
    assert density.mean() == pytest.approx(1, abs=0.02)


def test_equals_torch_fidelity():
    theirs = torch_fidelity("metric_prc")
    import torch

    fake, real = 0.9 * normal(500, 16, 1) + 0.1, normal(400, 16, 2)
    # They have <=, which is the same where nothing ties.
    for k in (3, 5):
        want = theirs.prc_features_to_metric(
            torch.from_numpy(fake), torch.from_numpy(real), prc_neighborhood=k, verbose=False
        )
        got = prdc.prdc(fake, real, k)
        assert got.precision == pytest.approx(want[theirs.KEY_METRIC_PRECISION], rel=1e-6)
        assert got.recall == pytest.approx(want[theirs.KEY_METRIC_RECALL], rel=1e-6)


def test_the_whole_matrix_is_never_held(monkeypatch):
    monkeypatch.setattr(arrays, "CELLS", 2**15)
    fake, real = normal(1500, 4, 1), normal(1500, 4, 2)
    tracemalloc.start()
    prdc.prdc(fake, real)
    prdc.memorization(fake, real, fake[:100])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All distances would be 18 MB; a block is 0.26 MB, and some eight of them are alive.
    assert peak < 4e6


@pytest.mark.parametrize("cells", [1, 300, 2**22])
def test_nearest_equals_sorting_all(monkeypatch, cells):
    monkeypatch.setattr(arrays, "CELLS", cells)
    x, pool = normal(40, 6, 1), normal(70, 6, 2)
    everything = cdist(x, pool)
    distances, index = prdc.nearest(x, pool, k=4)
    np.testing.assert_allclose(distances, np.sort(everything, 1)[:, :4], rtol=1e-12)
    assert (index == np.argsort(everything, 1)[:, :4]).all()
    distances, index = prdc.nearest(x, k=39)
    alone = cdist(x, x)
    np.testing.assert_allclose(distances, np.sort(alone, 1)[:, 1:], rtol=1e-12)
    assert (index == np.argsort(alone, 1)[:, 1:]).all()


def test_nearest_finds_a_copy_far_from_zero():
    pool = normal(50, 64, 1) + 1e4
    distances, index = prdc.nearest(pool[[7, 3]], pool)
    assert distances.tolist() == [[0], [0]]
    assert index.tolist() == [[7], [3]]
    # A row that comes twice is its other copy's neighbor.
    twice = np.concatenate([pool, pool[:1]])
    distances, index = prdc.nearest(twice)
    assert (distances[0, 0], index[0, 0], index[50, 0]) == (0, 50, 0)


def test_memorization_by_hand():
    train, held_out = column(0, 10, 20), column(2, 12, 24)  # 2, 2 and 4 away
    got = prdc.memorization(column(0.5, 9, 24, 10), train, held_out, closest=3)
    assert (got.fake, got.held_out, got.ratio) == (0.75, 2, 0.375)
    assert got.closest.tolist() == [[3, 1], [0, 0], [1, 1]]
    assert got.distances.tolist() == [0, 0.5, 1]
    # Three of them are nearer than the nearest held-out row.
    assert got.copies == 0.75
    # One that a training row equals does not hide them.
    assert prdc.memorization(column(0.5, 15), train, column(10, 2, 12), closest=1).copies == 0.5


def test_memorization_tells_copies_from_new_images():
    train, held_out, new = (normal(n, 16, s) for n, s in ((800, 1), (300, 2), (300, 3)))
    assert prdc.memorization(new, train, held_out).ratio == pytest.approx(1, abs=0.05)
    found = []
    for noise in (0, 0.05, 0.2, 0.5):
        copies = train[:300] + noise * normal(300, 16, 4)
        found.append(prdc.memorization(copies, train, held_out).ratio)
    assert found[0] == 0
    assert np.diff(found).min() > 0
    assert found[1] < 0.1
    assert prdc.memorization(train[:300], train, held_out).copies == 1
    assert prdc.memorization(new, train, held_out).copies < 0.05
    # A quarter of copies leaves the median and fills the list.
    some = np.concatenate([new[:240], train[:60]])
    got = prdc.memorization(some, train, held_out)
    assert got.distances.tolist() == [0] * 16
    assert (got.closest[:, 0] - 240 == got.closest[:, 1]).all()
    assert got.copies == pytest.approx(0.2, abs=0.04)
    again = prdc.memorization(some + 1e3, train + 1e3, held_out + 1e3)
    assert again.ratio == pytest.approx(got.ratio, rel=1e-9)


def test_refusals():
    x, y = normal(20, 3, 1), normal(5, 3, 2)
    for fake, real in ((x, y), (y, x)):
        with pytest.raises(ValueError, match="features are too few: 6"):
            prdc.prdc(fake, real, k=5)
    prdc.prdc(x, y, k=4)
    for k in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="whole number"):
            prdc.prdc(x, x, k)
    with pytest.raises(ValueError, match="too few"):
        prdc.nearest(y, k=5)
    prdc.nearest(y, y, k=5)
    with pytest.raises(ValueError, match="too few"):
        prdc.nearest(x, y, k=6)
    with pytest.raises(ValueError, match="do not match"):
        prdc.nearest(x, y[:, :2])
    with pytest.raises(ValueError, match="too few: 16"):
        prdc.memorization(y, x, x)
    with pytest.raises(ValueError, match="do not match"):
        prdc.memorization(x, x, y[:, :2])
    with pytest.raises(ValueError, match="held-out rows are training"):
        prdc.memorization(x, x, x)
