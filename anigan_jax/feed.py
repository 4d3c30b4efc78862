"""Real batches inside the compiled step, from resident or streamed uint8 images.

Arrays whose names end in '_b' are rows of the second domain of unpaired data.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax import rng
from anigan_jax.augment import random_flip, signed
from anigan_jax.core import Array, Batch
from anigan_jax.data import order


def gather(
    data: Batch,
    draw: Array,
    batch_size: int,
    examples: Array,
    seed: int,
    while_loop: Callable = jax.lax.while_loop,
) -> Batch:
    """Rows of one draw: from the resident set, or on the host from NumPy arrays.

    Args:
      data: arrays with N rows each: 'images' (N, H, W, 3) uint8, and a method's inputs.
      draw: () int32 number of the batch since the start of training.
      examples: (b,) global example indices of this device, consecutive.
      while_loop: `order.python_while_loop` on the host.

    Returns:
      The arrays with b rows; those of one domain are of the same images.
    """

    indices = {}
    for name, rows in data.items():
        if second(name) not in indices:
            indices[second(name)] = order.batch_indices(
                draw.astype(np.uint32),
                batch_size,
                rows.shape[0],
                order_seed(name, seed),
                start=examples[0].astype(np.uint32),
                count=examples.shape[0],
                while_loop=while_loop,
            )
    return {name: rows[indices[second(name)]] for name, rows in data.items()}


def second(name: str) -> bool:
    """Whether an array is of the second domain."""
    return name.endswith("_b")


def order_seed(name: str, seed: int) -> int:
    """Seed of an array's order: the domains are shuffled apart, whatever their sizes."""
    return seed ^ (1 << 63) if second(name) else seed


def to_batch(rows: Batch, raw_key: Array, draw: Array, examples: Array, flip: bool) -> Batch:
    """Rows of the data -> the batch that losses see.

    Images, uint8 (b, H, W, 3), become float32 in [-1, 1], mirrored by example where
    `flip`, all of a domain alike; 'images' is called 'real', 'images_b' 'real_b'. 'keys'
    (b,) are the examples' own keys in this draw, the same in all updates that see it;
    other inputs stay as they are.
    """
    # The barrier keeps the compiler from fusing the gather, or the slice of a streamed
    # batch, into the step: on jax 0.12 the two feeds' sums differed in the last bit.
    rows = jax.lax.optimization_barrier(rows)
    keys = rng.example_keys(rng.stream_key(raw_key, rng.Stream.DATA, draw), examples)
    batch = {"keys": keys}
    for name, value in rows.items():
        if value.dtype == jnp.uint8 and value.ndim == 4:
            value = signed(value)
            if flip:
                salt = rng.Salt.FLIP_B if second(name) else rng.Salt.FLIP
                value = random_flip(value, rng.children(keys, salt))
        batch[name.replace("images", "real")] = value
    return batch
