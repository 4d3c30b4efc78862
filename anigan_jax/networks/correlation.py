"""Stride-1 correlation and its derivatives, for XLA's CPU backend.

`correlate` and `kernel_gradient` are closed under differentiation, so that no pass of any
order is dilated or reaches into padding where that is slow.

Arrays are NHWC, kernels HWIO.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

Pads = tuple[tuple[int, int], tuple[int, int]]
NO_PADS: Pads = ((0, 0), (0, 0))
# Up to so many output channels a kernel's gradient is computed with its sides swapped.
NARROW = 16
LAYOUT = ("NHWC", "HWIO", "NHWC")


def mirror(kernel: Array) -> Array:
    """The kernel of the adjoint map: flipped, inputs and outputs swapped."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _mirror_pads(pads: Pads, kernel: Array) -> Pads:
    return tuple(
        (side - 1 - low, side - 1 - high)
        for (low, high), side in zip(pads, kernel.shape[:2], strict=True)
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def correlate(x: Array, kernel: Array, pads: Pads) -> Array:
    """Stride-1 cross-correlation; pads below the kernel's side, forward and mirrored."""
    return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def kernel_gradient(x: Array, dy: Array, pads: Pads) -> Array:
    """Gradient of <correlate(x, kernel, pads), dy> with respect to the kernel."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    if dy.shape[3] <= NARROW < x.shape[3]:
        # A matrix product with few columns is slow (an image's three channels): the
        # roles of x and dy swap, and the kernel comes out mirrored.
        reach = tuple((n - m,) * 2 for n, m in zip(x.shape[1:3], dy.shape[1:3], strict=True))
        dy = jnp.pad(dy, ((0, 0), *reach, (0, 0)))
        return mirror(_windows_product(dy, x))
    return _windows_product(x, dy)


def _windows_product(x: Array, window: Array) -> Array:
    """(B, H, W, C), (B, h, w, D) -> (H - h + 1, W - w + 1, C, D): sums over batch and window."""
    # A convolution of its own: input channels as batch, batch as channels. Transposing is
    # spelled out, and padding done before, because XLA's CPU backend is a hundred times
    # slower where this window reaches into padding, and in a loop (`lax.scan`) where the
    # operands are not in its own order.
    x, window = x.transpose(3, 1, 2, 0), window.transpose(1, 2, 0, 3)
    out = lax.conv_general_dilated(x, window, (1, 1), NO_PADS, dimension_numbers=LAYOUT)
    return out.transpose(1, 2, 0, 3)


def _correlate_forward(x, kernel, pads):
    return correlate(x, kernel, pads), (x, kernel)


def _correlate_backward(pads, saved, dy):
    x, kernel = saved
    dx = correlate(dy, mirror(kernel), _mirror_pads(pads, kernel))
    return dx, kernel_gradient(x, dy, pads)


def _kernel_gradient_forward(x, dy, pads):
    return kernel_gradient(x, dy, pads), (x, dy)


def _kernel_gradient_backward(pads, saved, kernel):
    # The map is bilinear; its cotangent has the kernel's shape.
    x, dy = saved
    dx = correlate(dy, mirror(kernel), _mirror_pads(pads, kernel))
    return dx, correlate(x, kernel, pads)


correlate.defvjp(_correlate_forward, _correlate_backward)
kernel_gradient.defvjp(_kernel_gradient_forward, _kernel_gradient_backward)
