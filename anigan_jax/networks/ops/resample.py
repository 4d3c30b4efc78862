"""Doubling and halving of maps by the filter (1, 3, 3, 1), by slices alone.

A depthwise convolution is slow in one pass or another on every backend; sums of shifted maps are
not, and their gradients are sums of shifted maps as well.

Source: Karras et al. 2020 (StyleGAN2), whose filter it is; the map is zero outside.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

Map = Float[Array, "b h w c"]


def up(x: Map) -> Float[Array, "b 2*h 2*w c"]:
    """Doubles the side: y[2m] = (3 x[m] + x[m-1]) / 4, y[2m+1] = (3 x[m] + x[m+1]) / 4."""
    for axis in (1, 2):
        before, after = _shifted(x, axis)
        both = jnp.stack([3 * x + before, 3 * x + after], axis + 1) / 4
        x = both.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
    return x


def down(x: Map) -> Float[Array, "b h/2 w/2 c"]:
    """Halves the side: y[m] = (x[2m-1] + 3 x[2m] + 3 x[2m+1] + x[2m+2]) / 8."""
    for axis in (1, 2):
        pairs = x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
        even, odd = (lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1))
        x = (3 * (even + odd) + _shifted(odd, axis)[0] + _shifted(even, axis)[1]) / 8
    return x


def _shifted(x: Array, axis: int) -> tuple[Array, Array]:
    """(x[m-1], x[m+1]) along an axis, zero outside."""
    n, pads = x.shape[axis], [(0, 0)] * x.ndim
    pads[axis] = (1, 1)
    wide = jnp.pad(x, pads)
    return lax.slice_in_dim(wide, 0, n, axis=axis), lax.slice_in_dim(wide, 2, n + 2, axis=axis)
