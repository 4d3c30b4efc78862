"""Real batches inside the compiled step, from resident or streamed uint8 images.

Arrays whose names end in '_b' are rows of the second domain of unpaired data.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax import rng
from anigan_jax.config import Config
from anigan_jax.core import Array, Batch
from anigan_jax.data import shuffle
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import UserError
from anigan_jax.methods.augment import random_flip, signed


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
            indices[second(name)] = shuffle.batch_indices(
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


STREAM_AHEAD = 2


def rows(config: Config, pack: Pack, part: str = "train") -> dict[str, np.ndarray]:
    """The arrays of a part that a batch is drawn from; those of domain B end in '_b'.

    Raises:
      UserError: the pack lacks what the method needs, or has too little for a batch.
    """
    found = {"images": pack.first(part), **config.method.inputs(pack, part)}
    fewest = min(len(values) for values in found.values())
    if part == "train" and fewest < config.batch_size:
        raise UserError(
            f"a batch of {config.batch_size} needs at least as many images; the data has {fewest}"
        )
    return found


def _rows(
    config: Config,
    data: dict,
    first: int,
    length: int,
    reserved: int,
    devices: int,
    own: np.ndarray | None = None,
):
    """The resident feed's rows (D, K, R, b, ...) of each array, for `length` steps.

    Args:
      own: places among the devices of those that get rows, consecutive; None: all.
    """
    b = config.batch_size // devices
    own = np.arange(devices) if own is None else own
    examples = np.arange(own[0] * b, (own[-1] + 1) * b, dtype=np.uint32)
    drawn = [
        gather(
            data,
            np.uint32(draw),
            config.batch_size,
            examples,
            config.seed,
            while_loop=shuffle.python_while_loop,
        )
        for draw in range(first * reserved, (first + length) * reserved)
    ]

    def arranged(name: str, values: np.ndarray) -> np.ndarray:
        taken = np.stack([rows[name] for rows in drawn])
        taken = taken.reshape(length, reserved, len(own), b, *values.shape[1:])
        return np.ascontiguousarray(np.moveaxis(taken, 2, 0))

    return {name: arranged(name, values) for name, values in data.items()}


def _ahead(items: Iterator) -> Iterator:
    """The same items, made two ahead in a thread; its error is raised here."""
    made: queue.Queue = queue.Queue(STREAM_AHEAD)
    end = object()

    def work() -> None:
        try:
            for item in items:
                made.put(item)
            made.put(end)
        except Exception as error:
            made.put(error)

    threading.Thread(target=work, daemon=True).start()
    while (item := made.get()) is not end:
        if isinstance(item, Exception):
            raise item
        yield item
