"""Modes, pairs and Inception score in closed form, and against torch-fidelity."""

import numpy as np
import pytest
from oracles.fidelity import torch_fidelity
from scipy.special import log_softmax, softmax

from anigan_jax.metrics import diversity

SIZES = (10, 9)
ALL = np.array([(hair, eyes) for hair in range(10) for eyes in range(9)])


def test_histogram_counts_cells():
    got = diversity.histogram(np.array([[0, 0], [9, 8], [9, 8], [2, 5]]), SIZES)
    assert got.shape == SIZES
    assert (got[0, 0], got[9, 8], got[2, 5], got.sum()) == (1, 2, 1, 4)
    assert diversity.histogram(np.array([[2], [0], [2]]), (3,)).tolist() == [1, 0, 2]


def test_modes_of_all_cells():
    got = diversity.modes(np.tile(ALL, (3, 1)), ALL, SIZES)
    assert (got.hit, got.held, got.both, got.cells) == (90, 90, 90, 90)
    assert got.entropy == pytest.approx(np.log(90), rel=1e-13)
    assert got.data_entropy == pytest.approx(np.log(90), rel=1e-13)
    assert (got.tv, got.kl) == pytest.approx((0, 0), abs=1e-14)


def test_modes_of_a_collapse():
    got = diversity.modes(np.full((50, 2), 4), ALL, SIZES)
    assert (got.hit, got.both, got.entropy) == (1, 1, 0)
    assert got.tv == pytest.approx(89 / 90, rel=1e-13)
    assert got.kl == pytest.approx(np.log(90), rel=1e-13)


def test_modes_by_hand():
    fake = np.array([[0], [0], [0], [1]])
    real = np.array([[0], [1], [2], [2]])
    got = diversity.modes(fake, real, (4,))
    assert (got.hit, got.held, got.both, got.cells) == (2, 3, 2, 4)
    assert got.entropy == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25), rel=1e-13)
    assert got.data_entropy == pytest.approx(1.5 * np.log(2), rel=1e-13)
    assert got.tv == pytest.approx(0.5, rel=1e-13)
    assert got.kl == pytest.approx(0.75 * np.log(3), rel=1e-13)
    swapped = diversity.modes(real, fake, (4,))
    assert (swapped.hit, swapped.held, swapped.tv) == (got.held, got.hit, got.tv)
    # Data nowhere has what two of the fakes show.
    assert swapped.kl == np.inf


def test_modes_grow_worse_with_each_class_dropped():
    rng = np.random.default_rng(1)
    real = np.stack([rng.integers(0, size, 4000) for size in SIZES], 1)
    fake = np.stack([rng.integers(0, size, 4000) for size in SIZES], 1)
    found = [diversity.modes(fake[fake[:, 0] < 10 - n], real, SIZES) for n in range(9)]
    assert [m.hit for m in found] == [90 - 9 * n for n in range(9)]
    assert np.diff([m.tv for m in found]).min() > 0.05
    assert np.diff([m.kl for m in found]).min() > 0.05
    assert np.diff([m.entropy for m in found]).max() < -0.05
    order = rng.permutation(4000)
    assert diversity.modes(fake[order], real[::-1], SIZES) == found[0]


def test_labels_that_are_none():
    good = np.zeros((3, 2), int)
    for bad in (good.astype(float), good[:, 0], good[:, :1], good - 1, good + 9):
        with pytest.raises(ValueError, match="class ind"):
            diversity.modes(bad, good, SIZES)
        with pytest.raises(ValueError, match="class ind"):
            diversity.modes(good, bad, SIZES)
    with pytest.raises(ValueError, match="no labels"):
        diversity.modes(good[:0], good, SIZES)


@pytest.mark.parametrize("n", [2, 7, 100])
def test_pairs_are_disjoint_and_seeded(n):
    got = diversity.pairs(n, 3)
    assert got.shape == (n // 2, 2)
    assert len(np.unique(got)) == n // 2 * 2
    assert (got == diversity.pairs(n, 3)).all()
    assert got.min() >= 0
    assert got.max() < n
    if n == 100:
        assert (got != diversity.pairs(n, 4)).any()
        some = diversity.pairs(n, 3, count=20)
        assert (some == got[:20]).all()


def test_pairs_are_uniform():
    found = np.zeros((6, 6))
    for seed in range(3000):
        for a, b in diversity.pairs(6, seed):
            found[a, b] += 1
    # Each of 30 ordered pairs is one of 3 in a tenth of the draws.
    expected = 3000 * 3 / 30
    rest = found[~np.eye(6, dtype=bool)]
    assert found.trace() == 0
    assert np.abs(rest - expected).max() < 5 * np.sqrt(expected)


def test_pairs_within_groups():
    groups = np.array(["red", "blue", "red", "green", "red", "blue", "red", "red"])
    got = diversity.pairs(8, 1, groups=groups)
    assert (groups[got[:, 0]] == groups[got[:, 1]]).all()
    assert len(np.unique(got)) == 2 * len(got)
    assert sorted(groups[got[:, 0]]) == ["blue", "red", "red"]
    labels = np.random.default_rng(1).integers(0, 10, 1000)
    got = diversity.pairs(1000, 1, count=300, groups=labels)
    assert (labels[got[:, 0]] == labels[got[:, 1]]).all()
    # Drawn from all groups, not the first ones alone.
    assert np.bincount(labels[got[:, 0]], minlength=10).min() > 10


def test_pairs_that_are_not_there():
    for n, count, groups in ((7, 4, None), (7, 0, None), (4, None, [1, 2, 3, 4]), (1, None, None)):
        with pytest.raises(ValueError, match=r"disjoint|whole number"):
            diversity.pairs(n, 1, count, groups)
    with pytest.raises(ValueError, match="groups of shape"):
        diversity.pairs(4, 1, groups=[1, 2, 3])


def test_diversity_by_hand():
    images = np.array([0.0, 1, 5, 10])
    asked = []

    def distance(a, b):
        asked.append((a.tolist(), b.tolist()))
        return np.abs(a - b)

    got = diversity.diversity(images, distance, np.array([[0, 1], [3, 2]]))
    assert asked == [([0, 10], [1, 5])]
    assert got == pytest.approx((3, np.sqrt(8) / np.sqrt(2), 2), rel=1e-14)


def test_diversity_laws():
    images = np.random.default_rng(1).standard_normal((400, 8))

    def distance(a, b):
        return np.linalg.norm(a - b, axis=1)

    chosen = diversity.pairs(400, 1)
    got = diversity.diversity(images, distance, chosen)
    assert got == diversity.diversity(images, distance, chosen[:, ::-1])
    # Of all 79,800 pairs; the error is that of 200 independent ones.
    gaps = np.linalg.norm(images[:, None] - images, axis=2)
    everything = gaps[np.triu_indices(400, 1)]
    assert got.mean == pytest.approx(everything.mean(), abs=4 * got.error)
    assert got.error == pytest.approx(everything.std() / np.sqrt(200), rel=0.2)
    assert diversity.diversity(images[:1].repeat(400, 0), distance, chosen) == (0, 0, 200)
    shrunk = [diversity.diversity(s * images, distance, chosen).mean for s in (1, 0.7, 0.3, 0.1)]
    assert np.diff(shrunk).max() < 0


def test_diversity_of_bad_distances():
    images, chosen = np.zeros((6, 2)), np.array([[0, 1], [2, 3]])
    for found in (np.zeros(3), np.zeros((2, 1)), np.array([0, np.nan]), np.array([0, -1e-3])):
        with pytest.raises(ValueError, match="distances"):
            diversity.diversity(images, lambda a, b, found=found: found, chosen)
    for bad in (chosen[:1], chosen[0], chosen.repeat(2, 1)):
        with pytest.raises(ValueError, match="pairs of shape"):
            diversity.diversity(images, lambda a, b: np.zeros(len(a)), bad)


def probabilities(n=1000, classes=7, seed=1):
    return softmax(2 * np.random.default_rng(seed).standard_normal((n, classes)), axis=1)


@pytest.mark.parametrize("classes", [1, 2, 10])
def test_inception_score_of_one_hot_and_constant_rows(classes):
    sure = np.eye(classes)[np.arange(20 * classes) % classes]
    got = diversity.inception_score(sure, 1, splits=1)
    assert got == pytest.approx((classes, 0), rel=1e-12)
    same = np.repeat(probabilities(1, classes), 40, 0)
    assert diversity.inception_score(same, 1) == pytest.approx((1, 0), abs=1e-12)
    flat = np.full((40, classes), 1 / classes)
    assert diversity.inception_score(flat, 1) == pytest.approx((1, 0), abs=1e-12)


def test_inception_score_laws():
    p = probabilities()
    got = diversity.inception_score(p, 1)
    assert 1 < got.mean < 7
    assert got == diversity.inception_score(p, 1)
    assert got != diversity.inception_score(p, 2)
    whole = diversity.inception_score(p, 1, splits=1)
    # By the definition: entropy of the mean less the mean entropy.
    marginal = p.mean(0)
    want = -(marginal * np.log(marginal)).sum() + (p * np.log(p)).sum(1).mean()
    assert whole == pytest.approx((np.exp(want), 0), rel=1e-12)
    order = np.random.default_rng(2).permutation(len(p))
    assert diversity.inception_score(p[order], 1, 1).mean == pytest.approx(whole.mean, rel=1e-12)
    assert diversity.inception_score(p[:, ::-1], 1).mean == pytest.approx(got.mean, rel=1e-12)
    # Parts give less than the whole: their own mean rows are nearer to the rows.
    assert 0.9 * whole.mean < got.mean < whole.mean
    single = diversity.inception_score(p.astype("f4"), 1)
    assert single.mean == pytest.approx(got.mean, rel=1e-5)


def test_inception_score_falls_with_doubt():
    logits = np.random.default_rng(1).standard_normal((500, 7))
    found = [diversity.inception_score(softmax(s * logits, 1), 1).mean for s in (8, 4, 2, 1, 0.3)]
    assert np.diff(found).max() < 0


def test_inception_score_equals_torch_fidelity(monkeypatch):
    theirs = torch_fidelity("metric_isc")
    import torch

    logits = 2 * np.random.default_rng(1).standard_normal((503, 7))
    assert (np.exp(log_softmax(logits, 1)) > 0).all()
    for splits in (10, 7, 1):
        want = theirs.isc_features_to_metric(torch.from_numpy(logits), splits, True, 2020)
        with monkeypatch.context() as patch:
            # Their generator in place of ours: the same order.
            patch.setattr(np.random, "default_rng", np.random.RandomState)
            got = diversity.inception_score(softmax(logits, 1), 2020, splits)
        assert got.mean == pytest.approx(want[theirs.KEY_METRIC_ISC_MEAN], rel=1e-6)
        assert got.std == pytest.approx(want[theirs.KEY_METRIC_ISC_STD], rel=1e-6, abs=1e-12)


def test_what_are_no_probabilities():
    p = probabilities(20)
    for bad in (2 * p, p - 0.2, p[:, :-1], np.zeros_like(p)):
        with pytest.raises(ValueError, match="sum to 1"):
            diversity.inception_score(bad, 1)
    with pytest.raises(ValueError, match="NaN"):
        diversity.inception_score(p * np.nan, 1)
    with pytest.raises(ValueError, match="too few"):
        diversity.inception_score(p, 1, splits=21)
    with pytest.raises(ValueError, match="splits"):
        diversity.inception_score(p, 1, splits=0)


def test_the_spread_is_the_mean_distance_of_pairs():
    features = np.random.default_rng(0).normal(3, 2, (4000, 5))
    i, j = np.random.default_rng(1).permutation(4000).reshape(2, -1)
    want = np.linalg.norm(features[i] - features[j], axis=1).mean()
    assert diversity.spread(features, 0) == pytest.approx(want, rel=0.03)
    assert diversity.spread(2 * features, 0) == pytest.approx(2 * diversity.spread(features, 0))
    # Copies of two rows: half of the pairs are equal.
    two = features[:2].repeat(1000, axis=0)
    apart = np.linalg.norm(features[0] - features[1])
    assert diversity.spread(two, 0) == pytest.approx(apart / 2, rel=0.1)
    with pytest.raises(ValueError, match="too few"):
        diversity.spread(features[:3], 0)
