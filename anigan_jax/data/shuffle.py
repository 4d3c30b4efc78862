"""The order of the data: a bijection of (seed, epoch), the same in NumPy and JAX.

Only operators on uint32 arrays, so one piece of code runs on the host and inside the
compiled step, and no library's generator can change it.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 8


def python_while_loop(condition, body, value):
    """`jax.lax.while_loop` for NumPy."""
    while condition(value):
        value = body(value)
    return value


def _mix(x):
    """murmur3's finaliser on uint32 arrays."""
    u = np.uint32
    x = (x ^ (x >> u(16))) * u(0x85EBCA6B)
    x = (x ^ (x >> u(13))) * u(0xC2B2AE35)
    return x ^ (x >> u(16))


def permute(index, n: int, key, *, while_loop=python_while_loop):
    """Position of each index in a permutation of 0..n-1.

    Args:
      index: (b,) uint32 below n.
      key: (1,) uint32 words of the permutation.

    Returns:
      (b,) uint32. Feistel rounds on the bits of n - 1, walked until below n.
    """
    bits = max((n - 1).bit_length(), 2)
    low_bits = np.uint32(bits // 2)
    high_mask = np.uint32((1 << (bits - bits // 2)) - 1)
    low_mask = np.uint32((1 << (bits // 2)) - 1)

    def once(x):
        high, low = x >> low_bits, x & low_mask
        for i in range(ROUNDS):
            salt = key + np.uint32(0x9E3779B9 * (i + 1) & 0xFFFFFFFF)
            if i % 2:
                high = high ^ (_mix(low ^ salt) & high_mask)
            else:
                low = low ^ (_mix(high ^ salt) & low_mask)
        return (high << low_bits) | low

    limit = np.uint32(n)
    one = np.uint32(1)

    def outside(x):
        return (x >= limit).any()

    def walk(x):
        again = (x >= limit) * one
        return x * (one - again) + once(x) * again

    return while_loop(outside, walk, once(index))


def epoch_key(seed: int, epoch):
    """(1,) uint32 key of an epoch; `epoch` is a (1,) uint32 array, traced or not."""
    root = _mix(np.array([seed & 0xFFFFFFFF], np.uint32))
    high = np.array([seed >> 32 & 0xFFFFFFFF], np.uint32)
    return _mix(_mix(epoch + root) ^ high)


def batch_indices(
    draw, batch_size: int, n: int, seed: int, *, start, count: int, while_loop=python_while_loop
):
    """Indices of images start..start+count of batch number `draw` (0-based).

    The last partial batch of an epoch is dropped.

    Args:
      draw, start: () or (1,) uint32 arrays; n: images; needs batch_size <= n.

    Returns:
      (count,) uint32 below n.
    """
    per_epoch = np.uint32(n // batch_size)
    draw = draw + np.zeros(1, np.uint32)
    epoch, k = draw // per_epoch, draw % per_epoch
    index = k * np.uint32(batch_size) + start + np.arange(count, dtype=np.uint32)
    return permute(index, n, epoch_key(seed, epoch), while_loop=while_loop)
