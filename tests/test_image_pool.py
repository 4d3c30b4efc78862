"""The pool of former fakes against plain Python, its chances, and its bits on devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.image_pool import Pool

from anigan_jax.methods import image_pool
from anigan_jax.runtime import devices as parallel


def numbered(first, count, side=2):
    """Images that are recognized by their values: the first pixel is the number."""
    numbers = first + jnp.arange(count, dtype=jnp.float32)
    offsets = jnp.arange(side * side * 3, dtype=jnp.float32) / 100
    return (numbers[:, None] + offsets).reshape(count, side, side, 3)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def history(steps, batch, size, swaps, places):
    """Pool, held and shown images after each step."""

    def one(carry, step):
        pool, held = carry
        index, swap, place = step
        images = numbered(index * batch, batch)
        drawn = image_pool.Draws(swap, place)
        shown, pool, held = image_pool.exchange(pool, held, images, drawn)
        return (pool, held), (shown, pool, held)

    start = image_pool.empty(size, 2), jnp.int32(0)
    return jax.lax.scan(one, start, (jnp.arange(steps), swaps, places))[1]


def drawn(steps, batch, size, seed=0):
    draws = np.random.default_rng(seed)
    return draws.random((steps, batch)) > 0.5, draws.integers(0, size, (steps, batch), np.int32)


@pytest.mark.long
@pytest.mark.parametrize("size", [1, 5, 50])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_pool_equals_the_references(batch, size):
    steps = 200
    swaps, places = drawn(steps, batch, size, seed=batch * size)
    shown, pools, held = history(steps, batch, size, swaps, places)
    peer, images = Pool(size), np.asarray(numbered(0, steps * batch))
    for i in range(steps):
        want = peer.query(images[i * batch : (i + 1) * batch], swaps[i], places[i])
        np.testing.assert_array_equal(shown[i], want)
        assert held[i] == len(peer.images)
        np.testing.assert_array_equal(pools[i, : held[i]], peer.images)
        assert not np.asarray(pools[i, held[i] :]).any()
    assert held[-1] == size
    # Over the last half, a stored image is shown about every other time.
    former = (
        np.asarray(shown[steps // 2 :, :, 0, 0, 0]) < np.arange(steps // 2, steps)[:, None] * batch
    )
    in_one_batch = 1 - (1 - 1 / size) ** (batch - 1)
    assert 0.35 * (1 - in_one_batch) < former.mean() < 0.65


def test_a_batch_that_is_larger_than_the_pool():
    """The pool fills within the batch, whose other images may already be swapped."""
    swaps = np.array([[True, False, True, False, True, True]])
    places = np.array([[1, 1, 1, 0, 1, 0]], np.int32)
    shown, pools, held = history(1, 6, 2, swaps, places)
    assert held.tolist() == [2]
    assert np.asarray(shown[0, :, 0, 0, 0]).tolist() == [0, 1, 1, 3, 2, 0]
    assert np.asarray(pools[0, :, 0, 0, 0]).tolist() == [5, 4]


def test_no_image_is_lost():
    """Each was shown or is stored; the first ones, which fill the pool, are shown twice."""
    steps, batch, size = 60, 4, 7
    shown, pools, _ = history(steps, batch, size, *drawn(steps, batch, size))
    seen = np.asarray(shown[..., 0, 0, 0]).ravel().tolist()
    stored = np.asarray(pools[-1, :, 0, 0, 0]).tolist()
    want = [*range(steps * batch), *range(size)]
    assert sorted(seen + stored) == sorted(want)


def test_what_fills_the_pool_ignores_the_draws():
    swaps, places = np.ones((2, 3), bool), np.full((2, 3), 5, np.int32)
    shown, pools, held = history(2, 3, 6, swaps, places)
    np.testing.assert_array_equal(np.ravel(shown[..., 0, 0, 0]), np.arange(6))
    np.testing.assert_array_equal(pools[-1], numbered(0, 6))
    assert held.tolist() == [3, 6]


@pytest.fixture(scope="module")
def many():
    """Draws of 4000 batches of 8 for a pool of 5."""
    keys = jax.random.split(jax.random.key(3), 4000)
    return jax.jit(jax.vmap(lambda key: image_pool.draws(key, 8, 5)))(keys)


def test_draws_have_their_rates(many):
    """Two-sided, at 5 deviations of the counts."""
    swap, place = np.asarray(many.swap), np.asarray(many.place)
    n = swap.size
    assert abs(swap.mean() - 0.5) < 5 * 0.5 / np.sqrt(n)
    shares = np.bincount(place.ravel(), minlength=5) / n
    np.testing.assert_allclose(shares, 0.2, rtol=0, atol=5 * 0.4 / np.sqrt(n))
    # A place does not tell whether it is swapped, nor one image about the next.
    for a, b in ((swap, place == 2), (swap[:, 1:], swap[:, :-1]), (place[:, 1:], place[:, :-1])):
        correlation = np.corrcoef(a.ravel(), b.ravel())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(a.size)


def test_draws_depend_on_the_key_alone(many):
    key = jax.random.split(jax.random.key(3), 4000)[17]
    again = image_pool.draws(key, 8, 5)
    np.testing.assert_array_equal(again.swap, many.swap[17])
    np.testing.assert_array_equal(again.place, many.place[17])
    assert again.place.dtype == jnp.int32
    distinct = {tuple(row) for row in np.concatenate([many.swap, many.place], 1).tolist()}
    assert len(distinct) > 3980


@pytest.mark.long
@pytest.mark.parametrize("mapper", ["pmap", "shard_map"])
def test_devices_share_one_pool(mapper):
    """On 4 devices the pool, and what each shows of its own, are the bits of one device."""
    steps, batch, size = 6, 8, 11
    images = np.random.default_rng(0).normal(size=(steps, batch, 4, 4, 3)).astype(np.float32)

    def step(state, shared, local):
        pool, held = state
        mine = local["images"]
        everyone = image_pool.everywhere(mine, parallel.AXIS)
        key = jax.random.fold_in(jax.random.key(1), shared["step"])
        draws = image_pool.draws(key, len(everyone), size)
        shown, pool, held = image_pool.exchange(pool, held, everyone, draws)
        own = image_pool.own(shown, len(mine), parallel.AXIS)
        place = jax.lax.axis_index(parallel.AXIS) * len(mine)
        # Every device's own part, put back where it belongs: equal everywhere.
        back = jnp.zeros((batch, *mine.shape[1:]))
        back = jax.lax.dynamic_update_slice_in_dim(back, own, place, 0)
        return (pool, held), jax.lax.psum(back, parallel.AXIS)

    ends = []
    for count in (1, 4):
        devices = jax.devices()[:count]
        mapped = parallel.map_step(step, mapper, devices)
        state = image_pool.empty(size, 4), jnp.int32(0)
        state = parallel.replicate(jax.tree.map(np.asarray, state), devices)
        shown = []
        for i in range(steps):
            local = {"images": images[i].reshape(count, batch // count, 4, 4, 3)}
            shared = parallel.replicate({"step": np.int32(i)}, devices)
            state, seen = mapped(state, shared, local)
            jax.block_until_ready(state)
            shown.append(np.asarray(seen))
        parallel.assert_replicated(state)
        ends.append((np.asarray(state[0]), int(state[1]), np.stack(shown)))
    (pool, held, shown), (pool4, held4, shown4) = ends
    assert held == held4 == size
    np.testing.assert_array_equal(pool, pool4)
    np.testing.assert_array_equal(shown, shown4)
    # And it is the reference's pool.
    peer = Pool(size)
    for i in range(steps):
        draws = image_pool.draws(jax.random.fold_in(jax.random.key(1), i), batch, size)
        want = peer.query(images[i], np.asarray(draws.swap), np.asarray(draws.place))
        np.testing.assert_array_equal(shown[i], want)
    np.testing.assert_array_equal(pool, peer.images)


def test_one_device_without_a_mapped_axis():
    images = numbered(0, 4)
    np.testing.assert_array_equal(image_pool.everywhere(images, None), images)
    np.testing.assert_array_equal(image_pool.own(images, 4, None), images)
