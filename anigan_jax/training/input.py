"""Real batches inside the compiled step, from uint8 images on the device or sent to it.

Data and batches are a dict of domains: {"a": {"image": ..., "label": ...}, "b": {...}}.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax import rng
from anigan_jax.config import Config
from anigan_jax.core import Array, Batch, PyTree
from anigan_jax.data import shuffle
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import UserError
from anigan_jax.methods.augment import random_flip, signed

BATCHES_AHEAD = 2
# Domains are shuffled and mirrored apart, whatever their sizes.
ORDER = {"a": 0, "b": 1 << 63}
FLIP = {"a": rng.Salt.FLIP, "b": rng.Salt.FLIP_B}


def held_out(pack: Pack) -> bool:
    """Whether images are held out, of each domain where there are two."""
    parts = pack.manifest["parts"]
    return pack.has("test") and ("testA" in parts) == ("testB" in parts)


def rows(config: Config, pack: Pack, part: str = "train") -> dict[str, dict[str, np.ndarray]]:
    """The arrays of a part that a batch is drawn from, by domain and name.

    Raises:
      UserError: the pack lacks what the method needs, or has too little for a batch.
    """
    data: dict = {"a": {"image": pack.first(part)}}
    for domain, arrays in config.method.inputs(pack, part).items():
        data[domain] = {**data.get(domain, {}), **arrays}
    if "trainA" in pack.manifest["parts"] and "b" not in data:
        parts = pack.manifest["parts"]
        counts = ", ".join(f"{n[-1].lower()} {stop - start}" for n, (start, stop) in parts.items()
                           if n.startswith("train"))  # fmt: skip
        raise UserError(
            f"{pack.shown} has two domains ({counts} images) and {config.name} trains on one: say "
            "which, --data.domain a, b or both"
        )
    fewest = min(len(values) for values in jax.tree.leaves(data))
    if part == "train" and fewest < config.batch_size:
        held = sum(b - a for n, (a, b) in pack.manifest["parts"].items() if n.startswith("test"))
        more = f" to train on and {held} held out" if held else ""
        raise UserError(
            f"a batch of {config.batch_size} needs at least as many images; the data has {fewest}"
            f"{more}. --batch-size {1 << (fewest.bit_length() - 1)} fits"
        )
    return data


def gather(
    data: PyTree,
    draw: Array,
    batch_size: int,
    examples: Array,
    seed: int,
    while_loop: Callable = jax.lax.while_loop,
) -> PyTree:
    """Rows of one draw: on the device, or on the host from NumPy arrays.

    Args:
      data: domain -> name -> array (N, ...); those of a domain have the same N.
      draw: () int32 number of the batch since the start of training.
      examples: (b,) global example indices of this device, consecutive.
      while_loop: `shuffle.python_while_loop` on the host.

    Returns:
      The arrays with b rows; those of one domain are of the same images.
    """

    def indices(domain: str, arrays: dict) -> Array:
        return shuffle.batch_indices(
            draw.astype(np.uint32),
            batch_size,
            next(iter(arrays.values())).shape[0],
            seed ^ ORDER[domain],
            start=examples[0].astype(np.uint32),
            count=examples.shape[0],
            while_loop=while_loop,
        )

    chosen = {domain: indices(domain, arrays) for domain, arrays in data.items()}
    return {d: {name: x[chosen[d]] for name, x in arrays.items()} for d, arrays in data.items()}


def to_batch(rows: PyTree, raw_key: Array, draw: Array, examples: Array, flip: bool) -> Batch:
    """Rows of the data -> the batch that losses see, but for its constants.

    Images, uint8 (b, H, W, 3), become float32 in [-1, 1], mirrored by example where
    `flip`, all of a domain alike; other inputs stay as they are. 'keys' (b,) are the
    examples' own keys in this draw, the same in all updates that see it.
    """
    # The barrier keeps the compiler from fusing the gather, or the slice of a streamed
    # batch, into the step: on jax 0.12 the two inputs' sums differed in the last bit.
    rows = jax.lax.optimization_barrier(rows)
    keys = rng.example_keys(rng.stream_key(raw_key, rng.Stream.DATA, draw), examples)

    def prepared(domain: str, value: Array) -> Array:
        if value.dtype != jnp.uint8 or value.ndim != 4:
            return value
        value = signed(value)
        return random_flip(value, rng.children(keys, FLIP[domain])) if flip else value

    batch = {d: {n: prepared(d, x) for n, x in arrays.items()} for d, arrays in rows.items()}
    return {**batch, "keys": keys}


def host_rows(
    config: Config,
    data: PyTree,
    first: int,
    length: int,
    reserved: int,
    devices: int,
    local: np.ndarray | None = None,
) -> PyTree:
    """What `gather` takes on the device, (D, K, R, b, ...) of each array for `length` steps.

    Args:
      first: step of the first.
      reserved: batches that a step reserves, R.
      local: places among the devices of those that get rows, consecutive; None: all.
    """
    b = config.batch_size // devices
    local = np.arange(devices) if local is None else local
    examples = np.arange(local[0] * b, (local[-1] + 1) * b, dtype=np.uint32)
    loop = shuffle.python_while_loop
    drawn = [
        gather(data, np.uint32(draw), config.batch_size, examples, config.seed, loop)
        for draw in range(first * reserved, (first + length) * reserved)
    ]

    def arranged(*batches: np.ndarray) -> np.ndarray:
        taken = np.stack(batches)
        taken = taken.reshape(length, reserved, len(local), b, *taken.shape[2:])
        return np.ascontiguousarray(np.moveaxis(taken, 2, 0))

    return jax.tree.map(arranged, *drawn)


def ahead(items: Iterator) -> Iterator:
    """The same items, made two ahead in a thread; its error is raised here.

    The thread ends with whoever takes them, also where not all are taken.
    """
    made: queue.Queue = queue.Queue(BATCHES_AHEAD)
    end, left = object(), threading.Event()

    def put(item: Any) -> None:
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                made.put(item, timeout=1)
                return

    def work() -> None:
        try:
            for item in items:
                put(item)
                if left.is_set():
                    return
            put(end)
        except Exception as error:
            put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        while (item := made.get()) is not end:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        left.set()
