"""Root key -> stream -> step -> update -> example: the only key derivations.

Keys are folded from indices, never carried: a resumed run needs the step alone, and
example noise depends on the global index, so 1 and 8 devices draw the same numbers.
"""

from __future__ import annotations

import enum

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer, Key, UInt32

from anigan_jax.core import Array, Keys

RawKey = UInt32[Array | np.ndarray, " 2"]
ExampleKeys = Key[Array, " b"]
Examples = Integer[Array | np.ndarray, " b"]
Step = Integer[Array | np.ndarray, ""]


class Stream(enum.IntEnum):
    """Children of the root key; the numbers are part of the promise, never reuse."""

    INIT = 0
    SHARED = 1
    EXAMPLE = 2
    NOISE = 3
    DATA = 4
    PREVIEW = 5
    SAMPLE = 6
    PROJECT = 7


class Salt(enum.IntEnum):
    """Children of an example's key in a draw of the data (`Batch['keys']`)."""

    FLIP = 0
    WORDING = 1
    WRONG = 2
    WRONG_WORDING = 3
    OTHER = 4
    OTHER_WORDING = 5
    FLIP_B = 6


def root_key(seed: int) -> UInt32[Array, " 2"]:
    """Raw (2,) uint32 data of the root key of a run."""
    return jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))


def stream_key(raw: RawKey, stream: Stream, *indices: Step | int) -> Key[Array, ""]:
    """Folds a stream and then indices into the root key; () typed key."""
    key = jax.random.wrap_key_data(jnp.asarray(raw), impl="threefry2x32")
    for index in (int(stream), *indices):
        key = jax.random.fold_in(key, index)
    return key


def example_keys(key: Key[Array, ""], examples: Examples) -> ExampleKeys:
    """One key per global example index: () key, (b,) int32 -> (b,) keys."""
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(examples)


def children(keys: ExampleKeys, salt: int) -> ExampleKeys:
    """One child of each key: (b,) -> (b,)."""
    return jax.vmap(lambda key: jax.random.fold_in(key, int(salt)))(keys)


def update_keys(
    raw: RawKey,
    step: Step,
    position: int,
    repeat: Step | int,
    examples: Examples,
    z: Float[Array, "b z"],
) -> Keys:
    """Keys of one repeat of one update.

    Args:
      raw: (2,) uint32 root key.
      step: () int32, completed steps.
      position: index of the update (and loss) within the step.
      repeat: index of the repeat.
      examples: (b,) global example indices of this device.
      z: (b, Z) latents of `latents`.
    """
    example = stream_key(raw, Stream.EXAMPLE, step, position, repeat)
    return Keys(
        shared=stream_key(raw, Stream.SHARED, step, position, repeat),
        example=example_keys(example, examples),
        z=z,
    )


def latents(
    raw: RawKey, step: Step, noise_stream: int, repeat: Step | int, examples: Examples, z_dim: int
) -> Float[Array, "b {z_dim}"]:
    """(b, z_dim) standard normal latents of one repeat; arguments as `update_keys`."""
    key = stream_key(raw, Stream.NOISE, step, noise_stream, repeat)
    return normal(example_keys(key, examples), (z_dim,))


def below(keys: ExampleKeys, count: Integer[Array, " ..."] | int) -> Integer[Array, " b"]:
    """One integer in 0..count-1 for each key: (b,), () or (b,) -> (b,) int32."""
    draw = jax.vmap(jax.random.uniform)(keys)
    # The product may round up to count.
    return jnp.minimum((draw * count).astype(jnp.int32), count - 1)


def normal(keys: ExampleKeys, shape: tuple[int, ...]) -> Float[Array, "b ..."]:
    """Standard normal float32 numbers, one draw per key: (b,) -> (b, *shape)."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)
