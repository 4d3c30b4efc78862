"""A pool of former fakes that D also sees, as pure state.

Source: Shrivastava et al. 2017, section 2.3, in the form of junyanz/pytorch-CycleGAN's
`ImagePool`: fill first; then, image by image, with probability 1/2 a stored image is shown
in place of the new one, which takes its place.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from anigan_jax.core import Array


class Draws(NamedTuple):
    """What chance decides for each image of a batch.

    Attributes:
      swap: (B,) bool, whether a stored image is shown once the pool is full.
      place: (B,) int32, which one.
    """

    swap: Array
    place: Array


def empty(size: int, side: int) -> Array:
    """A pool of `size` images (size, S, S, 3) that holds nothing yet."""
    return jnp.zeros((size, side, side, 3), jnp.float32)


def draws(key: Array, batch: int, size: int) -> Draws:
    """Draws of a global batch from one key, the same on every device."""
    swap, place = jax.random.split(key)
    return Draws(
        jax.random.uniform(swap, (batch,)) > 0.5,
        jax.random.randint(place, (batch,), 0, size, jnp.int32),
    )


def exchange(pool: Array, held: Array, images: Array, drawn: Draws) -> tuple[Array, Array, Array]:
    """Passes a global batch through the pool, one image after the other.

    Args:
      pool: (P, S, S, 3); its first `held` () int32 images are filled.
      images: (B, S, S, 3) new fakes.

    Returns:
      (images that D sees (B, S, S, 3), new pool, new held).
    """
    size = pool.shape[0]

    def one(carry, new):
        pool, held = carry
        image, swap, place = new
        filling = held < size
        place = jnp.where(filling, jnp.minimum(held, size - 1), place)
        stored = jax.lax.dynamic_index_in_dim(pool, place, keepdims=False)
        taken = filling | swap
        kept = jnp.where(taken, image, stored)
        pool = jax.lax.dynamic_update_index_in_dim(pool, kept, place, 0)
        shown = jnp.where(swap & ~filling, stored, image)
        return (pool, held + filling.astype(jnp.int32)), shown

    (pool, held), shown = jax.lax.scan(one, (pool, held), (images, *drawn))
    return shown, pool, held


def everywhere(images: Array, axis_name: str | None) -> Array:
    """The global batch of this device's images (b, ...), the same on every device."""
    if axis_name is None:
        return images
    return jax.lax.all_gather(images, axis_name, tiled=True)


def own(images: Array, count: int, axis_name: str | None) -> Array:
    """This device's part, `count` images, of a global batch."""
    if axis_name is None:
        return images
    start = jax.lax.axis_index(axis_name) * count
    return jax.lax.dynamic_slice_in_dim(images, start, count)
