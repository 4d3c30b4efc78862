"""Metrics and baselines of translation against closed forms and scikit-image."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from anigan_jax.data.synthetic import painted
from anigan_jax.metrics import paired

PALETTE = np.array(list(painted.HAIR.values()))


def noise(shape=(6, 12, 10, 3), seed=0, low=0, high=256):
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.uint8)


def test_psnr_in_closed_form():
    a = np.full((4, 8, 8, 3), 100, np.uint8)
    b = a + np.array([0, 1, 10, 155], np.uint8)[:, None, None, None]
    want = [np.inf, 20 * np.log10(255), 20 * np.log10(25.5), 20 * np.log10(255 / 155)]
    np.testing.assert_allclose(paired.psnr(a, b), want, rtol=1e-12)
    assert (paired.psnr(a, b) == paired.psnr(b, a)).all()
    # Black against white is the worst there is: 0 dB.
    assert paired.psnr(np.zeros_like(a), np.full_like(a, 255)).tolist() == [0] * 4


def test_psnr_equals_scikit_image_over_several_blocks(monkeypatch):
    monkeypatch.setattr(paired, "BLOCK", 4)
    a, b = noise(), noise(seed=1)
    want = [peak_signal_noise_ratio(x, y, data_range=255) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(paired.psnr(a, b), want, rtol=1e-12)
    assert paired.psnr(a[:0], b[:0]).shape == (0,)


def test_matched_colors_have_the_targets_moments():
    images, targets = noise((40, 16, 16, 3), 0, 20, 120), noise((30, 8, 8, 3), 1, 90, 180)
    targets[..., 2] //= 2
    got = paired.match_colors(images, targets)
    assert got.shape == images.shape
    assert got.dtype == np.uint8
    for moment in (np.mean, np.std):
        np.testing.assert_allclose(
            moment(got, axis=(0, 1, 2)), moment(targets, axis=(0, 1, 2)), atol=0.1
        )
    # Each channel by an affine map: the order of the values stays.
    values = np.argsort(images[..., 0].ravel(), kind="stable")
    assert (np.diff(got[..., 0].ravel()[values].astype(int)) >= 0).all()


def test_colors_matched_by_hand():
    images = np.array([0, 10], np.uint8).reshape(2, 1, 1, 1).repeat(3, -1)
    targets = np.array([100, 140], np.uint8).reshape(2, 1, 1, 1).repeat(3, -1)
    assert (paired.match_colors(images, targets) == targets).all()
    flat = np.full((2, 4, 4, 3), 7, np.uint8)
    assert (paired.match_colors(flat, targets) == 120).all()
    same = noise()
    assert (paired.match_colors(same, same) == same).all()


def test_blur_conserves_the_mean_and_equals_the_textbook():
    images = noise((3, 33, 33, 3))
    soft = paired.blur(images, 1.5)
    np.testing.assert_allclose(soft.mean((1, 2)), images.mean((1, 2)), atol=0.1)
    # White noise through a Gaussian keeps 1 / (2 sigma sqrt(pi)) of its deviation.
    kept = soft[:, 8:-8, 8:-8].std() / images.std()
    assert 0.9 < kept * 2 * 1.5 * np.sqrt(np.pi) < 1.1
    flat = np.full((1, 9, 9, 3), 200, np.uint8)
    assert (paired.blur(flat, 3.0) == 200).all()
    dot = np.zeros((1, 33, 33, 3), np.uint8)
    dot[0, 16, 16] = 255
    distance = (np.arange(33) - 16) ** 2
    weights = np.exp(-(distance[:, None] + distance) / (2 * 1.5**2))
    want = 255 * weights / weights.sum()
    assert np.abs(paired.blur(dot, 1.5)[0, ..., 0] - want).max() <= 0.6


@pytest.mark.parametrize("size", [16, 32, 64])
def test_the_hair_of_painted_faces_is_read_without_a_mistake(size):
    faces = [painted.face(7, i) for i in range(400)]
    images = np.stack([painted.draw(f, size)[0] for f in faces])
    true = np.array([painted.HAIR_COLORS.index(f.hair) for f in faces])
    got = paired.agreement(paired.hair(images, PALETTE), true)
    assert (got.value, got.n) == (1, 400)
    assert set(true.tolist()) == set(range(12))


def test_hair_looks_at_the_box_alone():
    images = np.zeros((12, 64, 64, 3), np.uint8)
    images[:, 16:24, 26:38] = PALETTE[:, None, None]
    assert paired.hair(images, PALETTE).tolist() == list(range(12))
    assert paired.hair(images, PALETTE[:1]).tolist() == [0] * 12
    with pytest.raises(ValueError, match="no hair"):
        paired.hair(images[:, :2, :2], PALETTE)


def test_agreement():
    got = paired.agreement(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 0]))
    assert (got.value, got.right, got.n) == (0.75, 3, 4)
    assert 0.30 < got.low < 0.31  # Wilson at 3 of 4, by hand
    assert 0.95 < got.high < 0.96


def test_baselines():
    photos, anime = noise((5, 40, 40, 3), 0, 0, 100), noise((9, 40, 40, 3), 1, 100, 200)
    got = paired.baselines(photos, anime)
    assert list(got) == ["identity", "color matching", "blur", "mean"]
    assert all(x.shape == photos.shape and x.dtype == np.uint8 for x in got.values())
    assert (got["identity"] == photos).all()
    assert (got["color matching"] == paired.match_colors(photos, anime)).all()
    assert (got["blur"] == paired.blur(photos, 1.0)).all()
    assert np.abs(got["mean"] - anime.mean(0)).max() <= 0.5
    # No constant answer has a smaller squared error on the set itself.
    best = (got["mean"][:1].astype(float) - anime) ** 2
    assert best.mean() < ((got["mean"][:1].astype(float) + 2 - anime) ** 2).mean()
    assert best.mean() < ((got["mean"][:1].astype(float) - 2 - anime) ** 2).mean()


def test_what_is_no_uint8_set_is_refused():
    good = noise()
    for bad in (good.astype(np.float32), good[0]):
        for call in (
            lambda x: paired.psnr(x, x),
            lambda x: paired.match_colors(x, good),
            lambda x: paired.blur(x, 1.0),
            lambda x: paired.hair(x, PALETTE),
        ):
            with pytest.raises(ValueError, match="uint8"):
                call(bad)
    with pytest.raises(ValueError, match="differ"):
        paired.psnr(good, good[:, :6])
    with pytest.raises(ValueError, match="no colors"):
        paired.match_colors(good, good[:0])
    with pytest.raises(ValueError, match="shapes"):
        paired.agreement(np.zeros(0, int), np.zeros(0, int))
    with pytest.raises(ValueError, match="shapes"):
        paired.agreement(np.zeros(3, int), np.zeros(2, int))
