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
from jaxtyping import Float

from anigan_jax.networks.ops.correlation import NO_PADS, adjoint, correlate, kernel_gradient

Pair = tuple[int, int]
X = Float[Array, "b H W cin"]
Kernel = Float[Array, "k k cin cout"]
Y = Float[Array, "b h w cout"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def down(x: X, kernel: Kernel, low: Pair, size: Pair) -> Y:
    """The stride-2 convolution, with an output of `size` (h, w)."""
    return correlate(_windows(x, kernel.shape[0], low, size), _blocks(kernel), NO_PADS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def up(y: Y, kernel: Kernel, low: Pair, size: Pair) -> X:
    """The adjoint of `down` in x: (B, h, w, Cout) -> (B, H, W, Cin), of `size` (H, W)."""
    k = kernel.shape[0]
    if k % 2 and low[0] % 2 and low[1] % 2:
        # A zero before the taps instead of behind them: what is cut is whole blocks then.
        kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
        low = (low[0] + 1, low[1] + 1)
    blocks, pads, cut = _blocks(kernel), [], []
    reach = blocks.shape[0] - 1
    for zeros, side, n in zip(low, size, y.shape[1:3], strict=True):
        # Blocks that nothing is kept of are not computed.
        before = min(zeros // 2, reach)
        after = min(max(n + reach - -(-(zeros + side) // 2), 0), reach)
        pads.append((before, after))
        cut.append((2 * before - zeros, zeros + side - 2 * (n + reach - after), 0))
    return _padded(depth_to_space(adjoint(y, blocks, tuple(pads))), cut)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def taps(x: X, y: Y, low: Pair, k: int) -> Kernel:
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


def _space_to_depth(x: Array) -> Array:
    """(B, 2h, 2w, C) -> (B, h, w, 4C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // 2, w // 2, 4 * c)


def depth_to_space(x: Float[Array, "b h w c4"]) -> Float[Array, "b 2*h 2*w c4//4"]:
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
