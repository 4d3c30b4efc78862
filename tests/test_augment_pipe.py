"""The augmentation pipe: exact where it can be, smooth elsewhere, and as often as it should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import draw

from anigan_jax.methods import augment_pipe
from anigan_jax.methods.augment_pipe import COLOR, EVERYTHING, augment, resample

SIDE = 12
IMAGES = draw(0, 1, SIDE, SIDE, 3)


def keys_of(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def all_of(parts, n=24, p=1.0, image=IMAGES):
    """One image under n keys."""
    many = jnp.broadcast_to(image, (n, *image.shape[1:]))
    return np.asarray(jax.jit(lambda x, k: augment(x, k, parts, p))(many, keys_of(n)))


def test_nothing_is_done_with_probability_zero():
    assert (all_of(EVERYTHING, p=0.0) == np.asarray(IMAGES)).all()
    assert augment(IMAGES, keys_of(1), (), 1.0) is IMAGES


def test_flips_quarter_turns_and_whole_shifts_are_exact():
    image = np.asarray(IMAGES[0])
    flips, turns = [image, image[:, ::-1]], [np.rot90(image, n) for n in range(4)]
    wide = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    shifts = [wide[r : r + SIDE, c : c + SIDE] for r in range(5) for c in range(5)]
    for part, allowed in (("xflip", flips), ("rotate90", turns), ("xint", shifts)):
        found = [[bool((x == y).all()) for y in allowed] for x in all_of((part,))]
        assert all(sum(row) == 1 for row in found)
        assert len({row.index(True) for row in found}) >= min(len(allowed), 10)


@pytest.mark.parametrize("angle", [0.0, 0.7, 1.5, 2.4, -2.9])
def test_a_resampled_image_shows_the_places_that_the_matrix_says(angle):
    """A smooth picture, turned and stretched; pixels that see the outside are left out."""
    side = 48

    def smooth(row, column):
        return np.sin(row / 9) * np.cos(column / 11 + 1)

    at = np.arange(side) - (side - 1) / 2
    picture = smooth(at[:, None], at[None, :])[..., None].astype("f")
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix, offset = turn @ np.diag([1.2, 0.8]), np.array([2.5, -1.25])
    got = resample(*map(jnp.float32, (picture, matrix, offset)))[..., 0]
    where = np.stack(np.meshgrid(at, at, indexing="ij"), -1) @ matrix.T + offset
    inside = (np.abs(where) < side / 2 - 12).all(-1)
    assert inside.sum() > 200
    np.testing.assert_allclose(
        np.asarray(got)[inside], smooth(where[..., 0], where[..., 1])[inside], atol=0.02
    )


def test_even_gray_stays_even_inside():
    gray = jnp.full((1, 32, 32, 3), 0.5)
    made = all_of(("rotate", "aniso", "scale"), image=gray)[:, 14:18, 14:18]
    np.testing.assert_allclose(made, 0.5, atol=1e-5)


@pytest.mark.long
def test_what_colors_keep():
    gray = jnp.full((1, 4, 4, 3), 0.25)
    mean = np.asarray(IMAGES).mean(-1)
    np.testing.assert_allclose(all_of(("hue", "saturation"), image=gray), 0.25, atol=1e-6)
    np.testing.assert_allclose(all_of(("hue",)).mean(-1), np.tile(mean, (24, 1, 1)), atol=1e-5)
    size = np.linalg.norm(all_of(("hue", "lumaflip")), axis=-1)
    want = np.linalg.norm(np.asarray(IMAGES), axis=-1)
    np.testing.assert_allclose(size, np.tile(want, (24, 1, 1)), rtol=1e-4)
    added = all_of(("brightness",)) - np.asarray(IMAGES)
    assert np.ptp(added, axis=(1, 2, 3)).max() < 1e-5
    assert added.std() == pytest.approx(0.2, rel=0.5)
    times = all_of(("contrast",)) / np.asarray(IMAGES)
    assert (np.ptp(times, axis=(1, 2, 3)) < 1e-3 * times.max()).all()
    assert times.min() > 0


@pytest.mark.parametrize("part", ["cutout", "contrast"])
def test_parts_are_applied_as_often_as_they_should(part):
    n, p = 600, 0.4
    changed = (all_of((part,), n, p) != np.asarray(IMAGES)).any((1, 2, 3)).mean()
    want = p / 2 if part in COLOR else p
    assert changed == pytest.approx(want, abs=0.08)


def test_a_part_draws_the_same_whatever_else_is_on():
    of_all = augment_pipe._draws(jax.random.key(3), EVERYTHING, 0.5)
    alone = augment_pipe._draws(jax.random.key(3), ("cutout",), 0.5)
    assert (of_all.uniform["cutout"] == alone.uniform["cutout"]).all()


def test_gradients_of_any_order_are_products():
    """Nothing is gathered, so no derivative scatters."""

    def penalty(x):
        run = lambda x: jnp.sum(jnp.tanh(augment(x, keys_of(2), EVERYTHING, 1.0)))  # noqa: E731
        return jnp.sum(jax.grad(run)(x) ** 2)

    x = draw(1, 2, SIDE, SIDE, 3)
    text = str(jax.make_jaxpr(jax.grad(penalty))(x))
    pixels = f"f32[2,{SIDE},{SIDE},3]"
    assert pixels in text
    assert not [line for line in text.splitlines() if "scatter" in line and pixels in line]
