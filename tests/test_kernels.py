"""KID and CMMD against numbers by hand, sums over pairs, and torch-fidelity."""

import numpy as np
import pytest
from oracles.fidelity import torch_fidelity

from anigan_jax.metrics import distances, kid

X, Y = np.array([[1, 0], [0, 1]]), np.array([[1, 1], [0, 0]])


def normal(n, d, seed):
    return np.random.default_rng(seed).standard_normal((n, d))


def by_pairs(kernel, x, y, biased):
    """The definition, pair by pair."""
    total = 0.0
    for a, sign in ((x, 1), (y, 1)):
        some = [kernel(p, q) for i, p in enumerate(a) for j, q in enumerate(a) if biased or i != j]
        total += sign * np.mean(some)
    return total - 2 * np.mean([kernel(p, q) for p in x for q in y])


def test_by_hand():
    assert kid.polynomial_mmd(X, Y) == pytest.approx(-2.375, abs=1e-14)
    assert kid.polynomial_mmd(X, Y, biased=True) == pytest.approx(0.5625, abs=1e-14)
    # A set against itself is negative, not 0, without the pairs of a row with itself.
    assert kid.polynomial_mmd(X, X) == pytest.approx(-2.375, abs=1e-14)
    assert kid.polynomial_mmd(X, X, biased=True) == pytest.approx(0, abs=1e-14)
    assert kid.kid(X, Y, 1, subsets=3, size=2) == pytest.approx((-2.375, 0), abs=1e-14)


def test_cmmd_by_hand():
    want = 1000 * (2 - 2 * np.exp(-0.5))
    assert kid.cmmd([[0]], [[10]]) == pytest.approx(want, rel=1e-13)
    assert kid.cmmd([[0]], [[10]]) == pytest.approx(786.9386805747, rel=1e-12)
    assert kid.cmmd([[0]], [[1]], sigma=1) == pytest.approx(want, rel=1e-13)
    assert kid.cmmd(normal(50, 4, 1), normal(50, 4, 1)) == pytest.approx(0, abs=1e-12)
    assert kid.cmmd([[0]], [[1e4]]) == pytest.approx(2000, rel=1e-13)


@pytest.mark.parametrize("cells", [1, 40, 2**22])
@pytest.mark.parametrize("biased", [True, False])
def test_equals_the_sum_over_pairs_in_any_blocks(monkeypatch, cells, biased):
    monkeypatch.setattr(distances, "CELLS", cells)
    x, y = normal(13, 3, 1), normal(9, 3, 2) + 0.5
    want = by_pairs(lambda p, q: (p @ q / 3 + 1) ** 3, x, y, biased)
    assert kid.polynomial_mmd(x, y, biased) == pytest.approx(want, rel=1e-12)
    if biased:
        want = by_pairs(lambda p, q: np.exp(-((p - q) @ (p - q)) / 200), x, y, True)
        assert kid.cmmd(x, y) == pytest.approx(1000 * want, rel=1e-9)


def test_the_unbiased_form_is_unbiased():
    # Mean over many pairs of sets: 0 for equal distributions, where the biased one is not.
    sets = np.random.default_rng(3).standard_normal((2, 800, 20, 4))
    got = np.array([kid.polynomial_mmd(x, y) for x, y in zip(*sets, strict=True)])
    error = got.std() / np.sqrt(len(got))
    assert abs(got.mean()) < 4 * error
    assert (got < 0).mean() > 0.3
    biased = [kid.polynomial_mmd(x, y, biased=True) for x, y in zip(*sets[:, :20], strict=True)]
    assert min(biased) > 0


def test_shift_in_closed_form():
    # Of constant sets 0 and t, d = 1, the kernel is 1, 1 and (1 + t^2)^3.
    zero, t = np.zeros((5, 1)), np.full((4, 1), 2.0)
    assert kid.polynomial_mmd(zero, t) == pytest.approx(1 + 5**3 - 2, rel=1e-14)


def test_kid_draws_subsets_by_seed():
    x, y = normal(300, 8, 1), normal(250, 8, 2) + 0.3
    got = kid.kid(x, y, 1, subsets=20, size=100)
    assert got == kid.kid(x, y, 1, subsets=20, size=100)
    other = kid.kid(x, y, 2, subsets=20, size=100)
    assert other.mean != got.mean
    rng = np.random.default_rng(1)
    found = []
    for _ in range(20):
        i, j = (rng.choice(n, 100, replace=False) for n in (300, 250))
        found.append(kid.polynomial_mmd(x[i], y[j]))
    assert got == pytest.approx((np.mean(found), np.std(found)), rel=1e-12)


def test_kid_estimates_the_whole_set_in_any_order():
    x, y = normal(600, 8, 1), normal(600, 8, 2) + 0.3
    want = kid.polynomial_mmd(x, y)
    order = np.random.default_rng(4).permutation(600)
    for fake, real in ((x, y), (x[order], y), (y, x)):
        got = kid.kid(fake, real, 1, subsets=60, size=150)
        assert got.mean == pytest.approx(want, abs=4 * got.std / np.sqrt(60))
        assert 0.05 * want < got.std < want
    # All rows in each subset: no choice, and no spread.
    got = kid.kid(x, y, 1, subsets=3, size=600)
    assert got.mean == pytest.approx(want, rel=1e-11)
    assert got.std < 1e-12


@pytest.mark.parametrize(
    "measure",
    [
        kid.polynomial_mmd,
        lambda x, y: kid.polynomial_mmd(x, y, biased=True),
        kid.cmmd,
        lambda x, y: kid.kid(x, y, 1, 5, len(x)).mean,
    ],
    ids=["unbiased", "biased", "cmmd", "kid"],
)
def test_laws(measure):
    x, y = normal(80, 6, 1), 1.4 * normal(80, 6, 2) + 0.5
    want = measure(x, y)
    turn = np.linalg.qr(normal(6, 6, 3))[0]
    order = np.random.default_rng(3).permutation(80)
    assert want > 0.05
    assert measure(y, x) == pytest.approx(want, rel=1e-10)
    assert measure(x @ turn, y @ turn) == pytest.approx(want, rel=1e-10)
    assert measure(x[order], y) == pytest.approx(want, rel=1e-10)
    assert measure(x[:, ::-1], y[:, ::-1]) == pytest.approx(want, rel=1e-10)
    assert measure(x, y) == want
    single = x.astype("f4"), y.astype("f4")
    assert measure(*single) == measure(*(a.astype("f8") for a in single))
    assert measure(*single) == pytest.approx(want, rel=1e-4)


def test_cmmd_does_not_see_where_the_sets_lie():
    x, y = normal(80, 6, 1), normal(90, 6, 2) + 0.5
    want = kid.cmmd(x, y)
    assert kid.cmmd(x + 1e6, y + 1e6) == pytest.approx(want, rel=1e-7)
    assert kid.cmmd(3 * x, 3 * y, sigma=30) == pytest.approx(want, rel=1e-10)


def test_kid_equals_torch_fidelity(monkeypatch):
    theirs = torch_fidelity("metric_kid")
    import torch

    x, y = normal(400, 32, 1), 1.2 * normal(300, 32, 2) + 0.1
    options = {"kid_subsets": 30, "kid_subset_size": 120, "rng_seed": 2020, "verbose": False}
    want = theirs.kid_features_to_metric(torch.from_numpy(x), torch.from_numpy(y), **options)
    # Their generator in place of ours: the same subsets.
    monkeypatch.setattr(np.random, "default_rng", np.random.RandomState)
    got = kid.kid(x, y, 2020, subsets=30, size=120)
    assert got.mean == pytest.approx(want[theirs.KEY_METRIC_KID_MEAN], rel=1e-6)
    assert got.std == pytest.approx(want[theirs.KEY_METRIC_KID_STD], rel=1e-6)


def test_cmmd_equals_torch_fidelitys_kernel():
    theirs = torch_fidelity("metric_kid")
    x, y = normal(200, 16, 1), 1.5 * normal(200, 16, 2) + 0.4
    k = [theirs.kernel_rbf(a, b, kid_kernel_rbf_sigma=10) for a, b in ((x, x), (x, y), (y, y))]
    assert kid.cmmd(x, y) == pytest.approx(1000 * theirs.mmd2(*k, mmd_est="biased"), rel=1e-6)


def test_refusals():
    x, y = normal(20, 3, 1), normal(30, 3, 2)
    with pytest.raises(ValueError, match="20 rows of fake features are too few: 21"):
        kid.kid(x, y, 1, size=21)
    with pytest.raises(ValueError, match="real features are too few"):
        kid.kid(y, x, 1, size=21)
    kid.kid(x, y, 1, subsets=1, size=20)
    for wrong in ({"size": 1}, {"subsets": 0}, {"size": 2.5}):
        with pytest.raises(ValueError, match="must be a whole number"):
            kid.kid(x, y, 1, **{"size": 10, **wrong})
    with pytest.raises(ValueError, match="too few"):
        kid.polynomial_mmd(x[:1], y)
    for sigma in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="sigma"):
            kid.cmmd(x, y, sigma)
