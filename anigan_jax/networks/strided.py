"""Stride-2 convolutions and their adjoints as stride-1 correlations, for XLA's CPU backend.

A stride-2 convolution is a stride-1 correlation over 2x2 blocks of pixels. Three maps, each
of which is the derivative of the others: `down` (the convolution), `up` (its adjoint, the
transposed convolution) and `taps` (the kernel's gradient). With `low` = (top, left) zeros
before the first pixel, all of them stand for

    out[i] = sum over t of x[2 i + t - low] kernel[t]

and no product meets a zero that a dilation would insert.

Arrays are NHWC, kernels HWIO; x (B, H, W, Cin), kernel (k, k, Cin, Cout), out (B, h, w, Cout).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from anigan_jax.networks.correlation import NO_PADS, correlate, kernel_gradient, mirror

Pair = tuple[int, int]
# Maps of at most this side grow by four products, one for each parity of a pixel: together,
# as one product over blocks, they would compute the rows and columns that straddle its edge.
SMALL = 16


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def down(x: Array, kernel: Array, low: Pair, size: Pair) -> Array:
    """The stride-2 convolution, with an output of `size` (h, w)."""
    return correlate(_windows(x, kernel.shape[0], low, size), _blocks(kernel), NO_PADS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def up(y: Array, kernel: Array, low: Pair, size: Pair) -> Array:
    """The adjoint of `down` in x: (B, h, w, Cout) -> (B, H, W, Cin), of `size` (H, W)."""
    if max(y.shape[1:3]) <= SMALL and kernel.shape[0] > 1:
        return _up_by_parity(y, kernel, low, size)
    return _up_by_blocks(y, kernel, low, size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def taps(x: Array, y: Array, low: Pair, k: int) -> Array:
    """The adjoint of `down` in the kernel: -> (k, k, Cin, Cout)."""
    found = kernel_gradient(_windows(x, k, low, y.shape[1:3]), y, NO_PADS)
    return _pixels(found, k)


def _down_backward(low, size, saved, dy):
    x, kernel = saved
    return up(dy, kernel, low, x.shape[1:3]), taps(x, dy, low, kernel.shape[0])


def _up_backward(low, size, saved, dx):
    y, kernel = saved
    return down(dx, kernel, low, y.shape[1:3]), taps(dx, y, low, kernel.shape[0])


def _taps_backward(low, k, saved, kernel):
    # The map is bilinear; its cotangent has the kernel's shape.
    x, y = saved
    return up(y, kernel, low, x.shape[1:3]), down(x, kernel, low, y.shape[1:3])


down.defvjp(lambda x, kernel, low, size: (down(x, kernel, low, size), (x, kernel)), _down_backward)
up.defvjp(lambda y, kernel, low, size: (up(y, kernel, low, size), (y, kernel)), _up_backward)
taps.defvjp(lambda x, y, low, k: (taps(x, y, low, k), (x, y)), _taps_backward)


def _windows(x: Array, k: int, low: Pair, size: Pair) -> Array:
    """x over 2x2 blocks from -low on, as many as `size` windows of k pixels need."""
    blocks = (k + 1) // 2
    grow = [
        (zeros, 2 * (n + blocks - 1) - zeros - side, 0)
        for zeros, n, side in zip(low, size, x.shape[1:3], strict=True)
    ]
    return _space_to_depth(_padded(x, grow))


def _padded(x: Array, grow) -> Array:
    """Zeros added, or pixels taken off where a number is negative, on the sides of a map."""
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *grow, (0, 0, 0)))


def _up_by_blocks(y: Array, kernel: Array, low: Pair, size: Pair) -> Array:
    """One product for 2x2 pixels at once."""
    k = kernel.shape[0]
    if k % 2 and low[0] % 2 and low[1] % 2:
        # A zero before the taps instead of behind them: what is cut is whole blocks then.
        kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
        low = (low[0] + 1, low[1] + 1)
    blocks = mirror(_blocks(kernel))
    reach, pads, cut = blocks.shape[0] - 1, [], []
    for zeros, side, n in zip(low, size, y.shape[1:3], strict=True):
        # Blocks that nothing is kept of are not computed; pads beyond a kernel's are zeros.
        first, last = zeros // 2, -(-(zeros + side) // 2)
        pads.append((reach - first, last - n))
        cut.append((-(zeros % 2), side + zeros % 2 - 2 * (last - first), 0))
    inner = tuple((max(min(a, reach), 0), max(min(b, reach), 0)) for a, b in pads)
    rest = [(a - c, b - d, 0) for (a, b), (c, d) in zip(pads, inner, strict=True)]
    return _padded(depth_to_space(correlate(_padded(y, rest), blocks, inner)), cut)


def _up_by_parity(y: Array, kernel: Array, low: Pair, size: Pair) -> Array:
    """A product for each parity of rows and columns, with the taps that fall on it."""
    rows = []
    for r in range(2):
        row = [_of_parity(y, kernel, low, size, (r, c)) for c in range(2)]
        rows.append(jnp.stack(row, axis=3))
    out = jnp.stack(rows, axis=2)
    b, h, _, w, _, cin = out.shape
    return out.reshape(b, 2 * h, 2 * w, cin)[:, : size[0], : size[1]]


def _of_parity(y: Array, kernel: Array, low: Pair, size: Pair, parity: Pair) -> Array:
    """Pixels 2 q + parity of the result, q up to half of `size`, rounded up."""
    k, start, pads = kernel.shape[0], [], []
    for r, zeros, side, n in zip(parity, low, size, y.shape[1:3], strict=True):
        first = (r + zeros) % 2
        count, ahead = len(range(first, k, 2)), (r + zeros - first) // 2
        before = count - 1 - ahead
        start.append(first)
        pads.append((before, (side + 1) // 2 - n - before + count - 1, 0))
    some = mirror(kernel[start[0] :: 2, start[1] :: 2])
    return correlate(_padded(y, pads), some, NO_PADS)


def _space_to_depth(x: Array) -> Array:
    """(B, 2h, 2w, C) -> (B, h, w, 4C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // 2, w // 2, 4 * c)


def depth_to_space(x: Array) -> Array:
    """(B, h, w, 4C) -> (B, 2h, 2w, C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, 2 * h, 2 * w, c // 4)


def _blocks(kernel: Array) -> Array:
    """(k, k, Cin, Cout) -> (h, h, 4 Cin, Cout) over 2x2 blocks; odd k grows by a zero."""
    k, _, cin, cout = kernel.shape
    kernel = jnp.pad(kernel, ((0, k % 2), (0, k % 2), (0, 0), (0, 0)))
    h = (k + 1) // 2
    kernel = kernel.reshape(h, 2, h, 2, cin, cout).transpose(0, 2, 1, 3, 4, 5)
    return kernel.reshape(h, h, 4 * cin, cout)


def _pixels(blocks: Array, k: int) -> Array:
    """The adjoint of `_blocks`: (h, h, 4 Cin, Cout) -> (k, k, Cin, Cout)."""
    h, _, channels, cout = blocks.shape
    taps = blocks.reshape(h, h, 2, 2, channels // 4, cout).transpose(0, 2, 1, 3, 4, 5)
    return taps.reshape(2 * h, 2 * h, channels // 4, cout)[:k, :k]
