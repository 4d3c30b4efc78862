"""Real batches inside the compiled step, from resident or streamed uint8 images."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from anigan_jax import rng
from anigan_jax.augment import random_flip, signed
from anigan_jax.core import Array, Batch, PyTree
from anigan_jax.data import order


def gather(data: PyTree, draw: Array, batch_size: int, examples: Array, seed: int) -> PyTree:
    """Rows of one draw from the resident set.

    Args:
      data: arrays with N rows each: 'images' (N, H, W, 3) uint8, and a method's inputs.
      draw: () int32 number of the batch since the start of training.
      examples: (b,) global example indices of this device, consecutive.

    Returns:
      The tree with b rows.
    """
    indices = order.batch_indices(
        draw.astype(jnp.uint32),
        batch_size,
        jax.tree.leaves(data)[0].shape[0],
        seed,
        start=examples[0].astype(jnp.uint32),
        count=examples.shape[0],
        while_loop=jax.lax.while_loop,
    )
    return jax.tree.map(lambda rows: rows[indices], data)


def to_batch(rows: Batch, raw_key: Array, draw: Array, examples: Array, flip: bool) -> Batch:
    """Rows of the data -> the batch that losses see.

    'images' uint8 (b, H, W, 3) become 'real', float32 in [-1, 1], mirrored by example
    where `flip`; 'keys' (b,) are the examples' own keys in this draw, the same in all
    updates that see it; a method's inputs stay as they are.
    """
    # The barrier keeps the compiler from fusing the gather, or the slice of a streamed
    # batch, into the step: on jax 0.12 the two feeds' sums differed in the last bit.
    rows = jax.lax.optimization_barrier(rows)
    real = signed(rows["images"])
    keys = rng.example_keys(rng.stream_key(raw_key, rng.Stream.DATA, draw), examples)
    if flip:
        real = random_flip(real, rng.children(keys, rng.Salt.FLIP))
    inputs = {name: value for name, value in rows.items() if name != "images"}
    return {"real": real, "keys": keys, **inputs}
