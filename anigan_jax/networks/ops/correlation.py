"""Stride-1 correlation and its derivatives, for XLA's CPU backend.

`correlate`, `adjoint` and `kernel_gradient` are the derivatives of one trilinear form, so
that no pass of any order is dilated or reaches into padding where that is slow. Each is
computed by Winograd's products where those are faster, or as a convolution of XLA's.

Arrays are NHWC, kernels HWIO; x (B, H, W, Cin), kernel (kh, kw, Cin, Cout), y (B, h, w, Cout),
and pads are the zeros around x, fewer than the kernel has taps.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from anigan_jax.networks.ops import winograd

X = Float[Array, "b H W cin"]
Kernel = Float[Array, "kh kw cin cout"]
Y = Float[Array, "b h w cout"]
Pads = tuple[tuple[int, int], tuple[int, int]]
NO_PADS: Pads = ((0, 0), (0, 0))
# With up to so many channels XLA's convolution is slow as a map's output, a product's columns.
NARROW = 16
LAYOUT = ("NHWC", "HWIO", "NHWC")


def mirror(kernel: Kernel) -> Float[Array, "kh kw cout cin"]:
    """The kernel of the adjoint map: flipped, inputs and outputs swapped."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def correlate(x: X, kernel: Kernel, pads: Pads) -> Y:
    """Stride-1 cross-correlation: x -> y."""
    if winograd.pays(_shape_of_y(x, kernel, pads), kernel.shape, x.dtype):
        return winograd.correlate(_padded(x, pads), kernel)
    if kernel.shape[3] <= NARROW < kernel.shape[2]:
        return _folded(x, mirror(kernel), _mirrored(pads, kernel))
    return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def adjoint(y: Y, kernel: Kernel, pads: Pads) -> X:
    """The adjoint of `correlate` in x: y -> x."""
    if winograd.pays(y.shape, kernel.shape, y.dtype):
        return _cut(winograd.adjoint(y, kernel), pads)
    if kernel.shape[2] <= NARROW < kernel.shape[3]:
        return _folded(y, kernel, pads)
    pads = _mirrored(pads, kernel)
    return lax.conv_general_dilated(y, mirror(kernel), (1, 1), pads, dimension_numbers=LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def kernel_gradient(x: X, y: Y, pads: Pads) -> Kernel:
    """Gradient of <correlate(x, kernel, pads), y> with respect to the kernel."""
    x = _padded(x, pads)
    taps = [n - m + 1 for n, m in zip(x.shape[1:3], y.shape[1:3], strict=True)]
    if winograd.pays(y.shape, (*taps, x.shape[3], y.shape[3]), x.dtype):
        return winograd.kernel_gradient(x, y)
    if y.shape[3] <= NARROW < x.shape[3]:
        # A matrix product with few columns is slow (an image's three channels): the
        # roles of x and y swap, and the kernel comes out mirrored.
        reach = tuple((n - 1,) * 2 for n in taps)
        return mirror(_windows_product(_padded(y, reach), x))
    return _windows_product(x, y)


def _folded(y: Array, kernel: Array, pads: Pads) -> Array:
    """`adjoint` as one product with all taps, whose columns are then added up, shifted."""
    # Many columns where XLA's convolution would have few.
    (b, h, w, d), (rows, columns, c, _) = y.shape, kernel.shape
    taps = lax.dot_general(y.reshape(-1, d), kernel.reshape(-1, d), (((1,), (1,)), ((), ())))
    taps = taps.reshape(b, h, w, rows, columns, c)

    def moved(x: Array, axis: int, by: int, count: int) -> Array:
        return winograd.widened(x, axis, by, count - 1 - by)

    across = sum(moved(taps[:, :, :, :, j], 2, j, columns) for j in range(columns))
    return _cut(sum(moved(across[:, :, :, i], 1, i, rows) for i in range(rows)), pads)


def _mirrored(pads: Pads, kernel: Array) -> Pads:
    """Pads with which `correlate` of the mirrored kernel is the adjoint, and the reverse."""
    sides = zip(pads, kernel.shape[:2], strict=True)
    return tuple((side - 1 - low, side - 1 - high) for (low, high), side in sides)


def _cut(x: Array, pads: Pads) -> Array:
    (top, bottom), (left, right) = pads
    return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]


def _padded(x: Array, pads: Pads) -> Array:
    return jnp.pad(x, ((0, 0), *pads, (0, 0)))


def _shape_of_y(x: Array, kernel: Array, pads: Pads) -> tuple[int, ...]:
    sides = zip(x.shape[1:3], pads, kernel.shape[:2], strict=True)
    return (x.shape[0], *(n + sum(pad) - taps + 1 for n, pad, taps in sides), kernel.shape[3])


def _windows_product(x: Array, window: Array) -> Array:
    """(B, H, W, C), (B, h, w, D) -> (H - h + 1, W - w + 1, C, D): sums over batch and window."""
    # A convolution of its own: input channels as batch, batch as channels. Transposing is
    # spelled out, and padding done before, because XLA's CPU backend is a hundred times
    # slower where this window reaches into padding, and in a loop (`lax.scan`) where the
    # operands are not in its own order.
    x, window = x.transpose(3, 1, 2, 0), window.transpose(1, 2, 0, 3)
    out = lax.conv_general_dilated(x, window, (1, 1), NO_PADS, dimension_numbers=LAYOUT)
    return out.transpose(1, 2, 0, 3)


def _correlate_backward(pads, saved, dy):
    x, kernel = saved
    return adjoint(dy, kernel, pads), kernel_gradient(x, dy, pads)


def _adjoint_backward(pads, saved, dx):
    y, kernel = saved
    return correlate(dx, kernel, pads), kernel_gradient(dx, y, pads)


def _kernel_gradient_backward(pads, saved, kernel):
    # The map is bilinear; its cotangent has the kernel's shape.
    x, y = saved
    return adjoint(y, kernel, pads), correlate(x, kernel, pads)


correlate.defvjp(lambda x, k, pads: (correlate(x, k, pads), (x, k)), _correlate_backward)
adjoint.defvjp(lambda y, k, pads: (adjoint(y, k, pads), (y, k)), _adjoint_backward)
kernel_gradient.defvjp(
    lambda x, y, pads: (kernel_gradient(x, y, pads), (x, y)), _kernel_gradient_backward
)
