"""Winograd's minimal products for stride-1 correlations with 2x2 and 3x3 taps.

Two output pixels of a row with r taps take r + 1 products instead of 2 r: in two dimensions
9 for 16, or 16 for 36. The three maps below are the derivatives of one trilinear form,

    sum over t, i of x[i + t] kernel[t] y[i] = sum over p of V_p(x) U_p(kernel) Z_p(y),

with linear V, U, Z that add up a few pixels or taps, by numbers that are 0, 1 and 1/2. Each
map is two of these transforms, (r + 1)^2 matrix products and the third transform's adjoint,
so nothing is computed twice and no output is thrown away.

Arrays are NHWC, kernels HWIO; x (B, h + r - 1, w + r - 1, C), kernel (r, r, C, D),
y (B, h, w, D). Results are those of the textbook sum up to rounding: about 1e-6 of the
largest value in float32.

Source: Winograd 1980, "Arithmetic complexity of computations", ch. 4; Lavin and Gray 2016,
eq. 5 to 12, whose points 0, 1, -1, infinity these are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Float

X = Float[Array, "b h+r-1 w+r-1 c"]
Kernel = Float[Array, "r r c d"]
Y = Float[Array, "b h w d"]

Weights = tuple[tuple[float, ...], ...]


class Transforms(NamedTuple):
    """V, U and Z in one dimension: a row of weights for each of the r + 1 products."""

    v: Weights
    u: Weights
    z: Weights


TRANSFORMS = {
    2: Transforms(
        v=((1, -1, 0), (0, 1, 0), (0, 1, -1)),
        u=((1, 0), (1, 1), (0, 1)),
        z=((1, 0), (1, 1), (0, -1)),
    ),
    3: Transforms(
        v=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        u=((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
        z=((1, 0), (1, 1), (1, -1), (0, -1)),
    ),
}
"""By the side r of the kernel."""

# From so many channels (the harmonic mean of C and D) on, the products saved are worth the
# sums of the maps, and from so many tiles of a batch on, those of the kernel; an odd map's
# last tiles reach beyond it, and of a small one most of what was saved is lost there.
CHANNELS, TILES, SHARE = 120, 64, 0.6


def pays(y_shape: Sequence[int], kernel_shape: Sequence[int], dtype) -> bool:
    """Whether this form was measured to be faster on a CPU (`anigan bench --layers`).

    Args:
      y_shape: (B, h, w, D).
      kernel_shape: (rows, columns, C, D).
    """
    r, columns, c, d = kernel_shape
    if r != columns or r not in TRANSFORMS or jnp.finfo(dtype).bits < 32:
        return False
    b, h, w, _ = y_shape
    if not isinstance(b, int):
        # A batch of any size, in a program that is exported and may hold no layouts of its own.
        return False
    tiles = b * ((h + 1) // 2) * ((w + 1) // 2)
    share = tiles * (r + 1) ** 2 / (b * h * w * r**2)
    return tiles >= TILES and share <= SHARE and 2 * c * d >= CHANNELS * (c + d)


def correlate(x: Float[Array, "b H W c"], kernel: Kernel) -> Y:
    """-> y[i] = sum over t of x[i + t] kernel[t]."""
    r = kernel.shape[0]
    h, w = _size(x, r)
    pairs = zip(_pixels(_even(x, r), r), _kernel(kernel), strict=True)
    return _y_adjoint([_times(v, u) for v, u in pairs], r)[:, :h, :w]


def adjoint(y: Y, kernel: Kernel) -> X:
    """-> x[i + t] += y[i] kernel[t]: the adjoint of `correlate` in x."""
    r = kernel.shape[0]
    h, w = (n + r - 1 for n in y.shape[1:3])
    # Row-major, or XLA turns each of the kernel's transforms over instead of the kernel.
    swapped = with_layout_constraint(kernel.swapaxes(2, 3), Layout(major_to_minor=(0, 1, 2, 3)))
    pairs = zip(_outputs(_even(y, 1), r), _kernel(swapped), strict=True)
    return _x_adjoint([_times(z, u) for z, u in pairs], r)[:, :h, :w]


def kernel_gradient(x: Float[Array, "b H W c"], y: Y) -> Kernel:
    """-> kernel[t] = sum over i and the batch of x[i + t] y[i]."""
    r = x.shape[1] - y.shape[1] + 1
    pairs = zip(_pixels(_even(x, r), r), _outputs(_even(y, 1), r), strict=True)
    over_tiles = (((0,), (0,)), ((), ()))
    return _kernel_adjoint([lax.dot_general(_rows(v), _rows(z), over_tiles) for v, z in pairs], r)


def _size(x: Array, r: int) -> tuple[int, int]:
    return x.shape[1] - r + 1, x.shape[2] - r + 1


def _even(x: Array, r: int) -> Array:
    """Zeros at the bottom and right, so that an even number of windows of r fits."""
    h, w = (n % 2 for n in _size(x, r))
    return jnp.pad(x, ((0, 0), (0, h), (0, w), (0, 0))) if h or w else x


def _sum(weights: Sequence[float], terms: Sequence[Array]) -> Array:
    """The weighted sum, without what is multiplied by zero."""
    total = None
    for weight, term in zip(weights, terms, strict=True):
        if weight:
            scaled = term if weight == 1 else -term if weight == -1 else weight * term
            total = scaled if total is None else total + scaled
    return total


def _transform(weights: Weights, terms: Sequence[Array]) -> list[Array]:
    return [_sum(row, terms) for row in weights]


def _transposed(weights: Weights) -> Weights:
    return tuple(zip(*weights, strict=True))


def _every_second(x: Array, axis: int, count: int) -> list[Array]:
    """`count` arrays: what each window of `count` with stride 2 has in its places."""
    last = x.shape[axis] - count
    return [lax.slice_in_dim(x, i, i + last + 1, 2, axis) for i in range(count)]


def _in_tiles(x: Array, weights: Weights) -> list[Array]:
    count = len(weights[0])
    rows = _transform(weights, _every_second(x, 1, count))
    return [p for row in rows for p in _transform(weights, _every_second(row, 2, count))]


def _pixels(x: Array, r: int) -> list[Array]:
    """V: (B, 2 m + r - 1, 2 n + r - 1, C) -> (r + 1)^2 arrays (B, m, n, C)."""
    return _in_tiles(x, TRANSFORMS[r].v)


def _outputs(y: Array, r: int) -> list[Array]:
    """Z: (B, 2 m, 2 n, D) -> (r + 1)^2 arrays (B, m, n, D)."""
    return _in_tiles(y, TRANSFORMS[r].z)


def _kernel(kernel: Array) -> list[Array]:
    """U: (r, r, C, D) -> (r + 1)^2 arrays (C, D)."""
    u = TRANSFORMS[kernel.shape[0]].u
    rows = _transform(u, list(kernel))
    return [p for row in rows for p in _transform(u, list(row))]


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _times(x: Array, matrix: Array) -> Array:
    return (_rows(x) @ matrix).reshape(*x.shape[:3], -1)


def _square(products: list[Array], r: int) -> list[list[Array]]:
    n = r + 1
    return [products[i * n : (i + 1) * n] for i in range(n)]


def _interleaved(even: Array, odd: Array, axis: int) -> Array:
    shape = list(even.shape)
    shape[axis] *= 2
    return jnp.stack([even, odd], axis + 1).reshape(shape)


def _y_adjoint(products: list[Array], r: int) -> Array:
    """Z's adjoint."""
    z = _transposed(TRANSFORMS[r].z)
    columns = [_interleaved(*_transform(z, row), 2) for row in _square(products, r)]
    return _interleaved(*_transform(z, columns), 1)


def _x_adjoint(products: list[Array], r: int) -> Array:
    """V's adjoint: neighboring windows overlap by r - 1."""
    v = _transposed(TRANSFORMS[r].v)
    columns = [_overlapped(_transform(v, row), 2) for row in _square(products, r)]
    return _overlapped(_transform(v, columns), 1)


def _overlapped(places: list[Array], axis: int) -> Array:
    """Adds windows up, given what all of them have in each of their places."""

    sides = []
    for first in (0, 1):
        side = widened(places[first], axis, 0, 1)
        if first + 2 < len(places):
            side = side + widened(places[first + 2], axis, 1, 0)
        sides.append(side)
    size = 2 * places[0].shape[axis] + len(places) - 2
    return lax.slice_in_dim(_interleaved(*sides, axis), 0, size, axis=axis)


def widened(x: Array, axis: int, before: int, after: int) -> Array:
    """Zeros on both sides along one axis."""
    return jnp.pad(x, [(before, after) if n == axis else (0, 0) for n in range(x.ndim)])


def _kernel_adjoint(products: list[Array], r: int) -> Array:
    """U's adjoint."""
    u = _transposed(TRANSFORMS[r].u)
    columns = [jnp.stack(_transform(u, row)) for row in _square(products, r)]
    return jnp.stack(_transform(u, columns))
