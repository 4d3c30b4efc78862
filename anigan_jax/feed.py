"""Real batches inside the compiled step, from resident or streamed uint8 images."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from anigan_jax import rng
from anigan_jax.augment import random_flip
from anigan_jax.core import Array, Batch
from anigan_jax.data import order


def gather(images: Array, draw: Array, batch_size: int, examples: Array, seed: int) -> Array:
    """Real images of one draw from the resident set.

    Args:
      images: (N, H, W, 3) uint8, the whole set.
      draw: () int32 number of the batch since the start of training.
      examples: (b,) global example indices of this device, consecutive.

    Returns:
      (b, H, W, 3) uint8.
    """
    indices = order.batch_indices(
        draw.astype(jnp.uint32),
        batch_size,
        images.shape[0],
        seed,
        start=examples[0].astype(jnp.uint32),
        count=examples.shape[0],
        while_loop=jax.lax.while_loop,
    )
    return images[indices]


def to_batch(images: Array, raw_key: Array, draw: Array, examples: Array, flip: bool) -> Batch:
    """uint8 (b, H, W, 3) -> {'real': float32 in [-1, 1]}, mirrored by example where `flip`."""
    # The barrier keeps the compiler from fusing the gather, or the slice of a streamed
    # batch, into the step: on jax 0.12 the two feeds' sums differed in the last bit.
    images = jax.lax.optimization_barrier(images)
    # One rounding; x / 127.5 - 1 may become a multiply-add or not, as fusion decides.
    real = (2 * images.astype(jnp.int32) - 255).astype(jnp.float32) / 255
    if flip:
        key = rng.stream_key(raw_key, rng.Stream.DATA, draw)
        real = random_flip(real, rng.example_keys(key, examples))
    return {"real": real}
