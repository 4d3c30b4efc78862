"""Convolutions as undilated stride-1 correlations, exact against the textbook layers.

XLA's CPU backend computes a convolution whose input or kernel is dilated (every
gradient of a strided convolution, all of a transposed one) ten to a hundred times
slower, and GPUs miss their fast kernels in the weight gradient of `lax.conv_transpose`.
There a stride-2 convolution is a stride-1 correlation over 2x2 blocks of pixels, a
transposed one is its mirror image, and `correlate` and `kernel_gradient` are closed
under differentiation, so that no pass of any order is dilated.

Elsewhere the textbook's own form is the faster one (`anigan bench --layers` measures both):
XLA's convolutions with their own gradients, which a GPU's library has kernels for, and a
transposed convolution as the gradient of a strided one, in all its passes.

Arrays are NHWC, kernels HWIO.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

Pads = tuple[tuple[int, int], tuple[int, int]]
NO_PADS: Pads = ((0, 0), (0, 0))
# Below this many output channels a kernel's gradient is computed with its sides swapped.
NARROW = 16
LOWERINGS = {"cpu": "blocks"}
"""The form of convolutions that was measured to be faster, by backend; 'native' elsewhere."""
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def same_pads(size: tuple[int, int], kernel: int, stride: int) -> Pads:
    """Padding of TensorFlow's and Keras's SAME: the odd pixel goes to the far side."""
    pads = []
    for side in size:
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads.append((total // 2, total - total // 2))
    return tuple(pads)


def _mirror(kernel: Array) -> Array:
    """The kernel of the adjoint map: flipped, inputs and outputs swapped."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _mirror_pads(pads: Pads, kernel: Array) -> Pads:
    return tuple(
        (side - 1 - low, side - 1 - high)
        for (low, high), side in zip(pads, kernel.shape[:2], strict=True)
    )


def lowering() -> str:
    """'blocks' or 'native', for this process's backend."""
    return LOWERINGS.get(jax.default_backend(), "native")


def correlate(x: Array, kernel: Array, pads: Pads) -> Array:
    """Stride-1 cross-correlation; pads below the kernel's side, forward and mirrored."""
    if lowering() == "native":
        return conv_reference(x, kernel, pads=pads)
    return _correlate(x, kernel, pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _correlate(x: Array, kernel: Array, pads: Pads) -> Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=_LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def kernel_gradient(x: Array, dy: Array, pads: Pads) -> Array:
    """Gradient of <correlate(x, kernel, pads), dy> with respect to the kernel."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    if dy.shape[3] <= NARROW < x.shape[3]:
        # A matrix product with few columns is slow (an image's three channels): the
        # roles of x and dy swap, and the kernel comes out mirrored.
        reach = tuple((n - m,) * 2 for n, m in zip(x.shape[1:3], dy.shape[1:3], strict=True))
        dy = jnp.pad(dy, ((0, 0), *reach, (0, 0)))
        return _mirror(_windows_product(dy, x))
    return _windows_product(x, dy)


def _windows_product(x: Array, window: Array) -> Array:
    """(B, H, W, C), (B, h, w, D) -> (H - h + 1, W - w + 1, C, D): sums over batch and window."""
    # A convolution of its own: input channels as batch, batch as channels. Transposing is
    # spelled out, and padding done before, because XLA's CPU backend is a hundred times
    # slower where this window reaches into padding, and in a loop (`lax.scan`) where the
    # operands are not in its own order.
    x, window = x.transpose(3, 1, 2, 0), window.transpose(1, 2, 0, 3)
    out = lax.conv_general_dilated(x, window, (1, 1), NO_PADS, dimension_numbers=_LAYOUT)
    return out.transpose(1, 2, 0, 3)


def _correlate_forward(x, kernel, pads):
    return _correlate(x, kernel, pads), (x, kernel)


def _correlate_backward(pads, saved, dy):
    x, kernel = saved
    dx = _correlate(dy, _mirror(kernel), _mirror_pads(pads, kernel))
    return dx, kernel_gradient(x, dy, pads)


def _kernel_gradient_forward(x, dy, pads):
    return kernel_gradient(x, dy, pads), (x, dy)


def _kernel_gradient_backward(pads, saved, kernel):
    # The map is bilinear; its cotangent has the kernel's shape.
    x, dy = saved
    dx = _correlate(dy, _mirror(kernel), _mirror_pads(pads, kernel))
    return dx, _correlate(x, kernel, pads)


_correlate.defvjp(_correlate_forward, _correlate_backward)
kernel_gradient.defvjp(_kernel_gradient_forward, _kernel_gradient_backward)


def _space_to_depth(x: Array) -> Array:
    """(B, 2h, 2w, C) -> (B, h, w, 4C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // 2, w // 2, 4 * c)


def _depth_to_space(x: Array) -> Array:
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


def _fit(x: Array, rows: int, columns: int) -> Array:
    """Crops or zero-extends at the bottom and right."""
    x = x[:, :rows, :columns]
    grow = (rows - x.shape[1], columns - x.shape[2])
    return jnp.pad(x, ((0, 0), (0, grow[0]), (0, grow[1]), (0, 0)))


def conv(x: Array, kernel: Array, *, stride: int = 1, pads: Pads = NO_PADS) -> Array:
    """Cross-correlation: out[i] = sum_t x[stride * i + t - pad] kernel[t].

    Args:
      x: (B, H, W, Cin).
      kernel: (k, k, Cin, Cout).
      stride: 1 or 2.
      pads: zeros ((top, bottom), (left, right)), below k where the stride is 1.

    Returns:
      (B, h, w, Cout).

    Raises:
      ValueError: for another stride.
    """
    k, cout = kernel.shape[0], kernel.shape[3]
    padded = tuple(n + sum(pad) for n, pad in zip(x.shape[1:3], pads, strict=True))
    if padded == (k, k):
        # One window (D's logit): a plain matrix product.
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        return (x.reshape(x.shape[0], -1) @ kernel.reshape(-1, cout))[:, None, None, :]
    if stride == 1:
        return correlate(x, kernel, pads)
    _check_stride(stride)
    if lowering() == "native":
        return conv_reference(x, kernel, stride=stride, pads=pads)
    rows, columns = ((n - k) // 2 + (k + 1) // 2 for n in padded)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    x = _space_to_depth(_fit(x, 2 * rows, 2 * columns))
    return correlate(x, _blocks(kernel), NO_PADS)


def conv_transpose(
    x: Array, kernel: Array, *, stride: int = 2, padding: int = 1, output_padding: int = 0
) -> Array:
    """Transposed convolution of torch.nn.ConvTranspose2d: out[s i + t - p] += x[i] w[t].

    Args:
      x: (B, h, w, Cin).
      kernel: (k, k, Cin, Cout): PyTorch's (in, out, kh, kw) moved to HWIO, not flipped.
      stride: 1 or 2.
      padding: pixels cut from each side of the full output; below k.
      output_padding: rows and columns added at the bottom and right.

    Returns:
      (B, H, W, Cout), H = (h - 1) stride - 2 padding + k + output_padding.

    Raises:
      ValueError: for another stride.
    """
    k, cin, cout = kernel.shape[0], kernel.shape[2], kernel.shape[3]
    b, h, w, _ = x.shape
    out = [(n - 1) * stride - 2 * padding + k + output_padding for n in (h, w)]
    if h == w == 1 and padding == 0 and output_padding == 0:
        # A 1x1 map (the generator's stem): a plain matrix product.
        matrix = kernel.transpose(2, 0, 1, 3).reshape(cin, -1)
        return (x.reshape(b, cin) @ matrix).reshape(b, k, k, cout)
    if stride == 1:
        full = correlate(x, kernel[::-1, ::-1], ((k - 1, k - 1),) * 2)
        return _fit(full[:, padding:, padding:], *out)
    _check_stride(stride)
    if lowering() == "native":
        return _strided_transpose(x, kernel, padding, output_padding)
    if k % 2 and padding % 2:
        # A zero before the taps instead of behind them: what is cut is whole blocks then.
        kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
        padding += 1
    blocks = _mirror(_blocks(kernel.swapaxes(2, 3)))
    reach, first = blocks.shape[0] - 1, padding // 2
    # Blocks of 2x2 that nothing is kept of are not computed.
    pads = tuple(
        (reach - first, -(-(padding + side) // 2) - n) for n, side in zip((h, w), out, strict=True)
    )
    full = _depth_to_space(_correlate_padded(x, blocks, pads))
    cut = padding % 2
    return _fit(full[:, cut:, cut:], *out)


def _correlate_padded(x: Array, kernel: Array, pads: Pads) -> Array:
    """`correlate` for any pads; those of the kernel's side and more are spelled out."""
    most = kernel.shape[0] - 1
    inner = tuple((max(min(low, most), 0), max(min(high, most), 0)) for low, high in pads)
    rest = [(low - a, high - b) for (low, high), (a, b) in zip(pads, inner, strict=True)]
    if any(side for pair in rest for side in pair):
        x = jax.lax.pad(
            x, jnp.zeros((), x.dtype), ((0, 0, 0), *((a, b, 0) for a, b in rest), (0, 0, 0))
        )
    return correlate(x, kernel, inner)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _strided_transpose(x: Array, kernel: Array, padding: int, output_padding: int) -> Array:
    """`conv_transpose` of stride 2 as the input gradient of a strided convolution."""
    # XLA recognises that gradient where it is one, and then the kernel's gradient too;
    # that of `lax.conv_transpose` it does not.
    b, h, w, _ = x.shape
    k, cout = kernel.shape[0], kernel.shape[3]
    out = [(n - 1) * 2 - 2 * padding + k + output_padding for n in (h, w)]
    strided = functools.partial(_strided, kernel=kernel.swapaxes(2, 3), padding=padding)
    like = jax.ShapeDtypeStruct((b, *out, cout), x.dtype)
    return jax.linear_transpose(strided, like)(x)[0]


def _strided(y: Array, kernel: Array, padding: int) -> Array:
    return conv_reference(y, kernel, stride=2, pads=((padding, padding),) * 2)


def _strided_transpose_forward(x, kernel, padding, output_padding):
    return _strided_transpose(x, kernel, padding, output_padding), (x, kernel)


def _strided_transpose_backward(padding, output_padding, saved, dy):
    x, kernel = saved
    swapped = kernel.swapaxes(2, 3)
    of_kernel = functools.partial(_strided, dy, padding=padding)
    (d_kernel,) = jax.linear_transpose(lambda k: of_kernel(kernel=k), swapped)(x)
    return _strided(dy, swapped, padding), d_kernel.swapaxes(2, 3)


_strided_transpose.defvjp(_strided_transpose_forward, _strided_transpose_backward)


def _check_stride(stride: int) -> None:
    if stride != 2:
        raise ValueError(f"stride is {stride}; 1 and 2 are supported")


def upsample_conv(x: Array, kernel: Array) -> Array:
    """Nearest-neighbour doubling, then a same-size convolution with an odd kernel.

    Taps that see the same source pixel are summed, so the four output phases are one
    smaller convolution of the small map: the same function up to rounding.

    Args:
      x: (B, h, w, Cin).
      kernel: (k, k, Cin, Cout), k odd.

    Returns:
      (B, 2h, 2w, Cout).
    """
    k, r = kernel.shape[0], kernel.shape[0] // 2
    # Output 2q + p, tap t reads big pixel 2q + p + t - r, small pixel q + offset.
    reach = (r + 1) // 2

    def fold(array: Array, axis: int, parity: int) -> Array:
        rows = jnp.split(array, k, axis)
        zero = jnp.zeros_like(rows[0])
        sums = [
            sum((row for t, row in enumerate(rows) if (parity + t - r) // 2 == offset), zero)
            for offset in range(-reach, reach + 1)
        ]
        return jnp.concatenate(sums, axis)

    phases = [fold(fold(kernel, 0, p), 1, q) for p in (0, 1) for q in (0, 1)]
    y = correlate(x, jnp.concatenate(phases, axis=3), ((reach, reach),) * 2)
    return _depth_to_space(y)


def conv_reference(x: Array, kernel: Array, *, stride: int = 1, pads: Pads = NO_PADS) -> Array:
    """`conv` by XLA's own operator; also the native form."""
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT)


def conv_transpose_reference(
    x: Array, kernel: Array, *, stride: int = 2, padding: int = 1, output_padding: int = 0
) -> Array:
    """`conv_transpose` by XLA's dilated operator; for tests and the benchmark."""
    low = kernel.shape[0] - 1 - padding
    return lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        ((low, low + output_padding),) * 2,
        lhs_dilation=(stride, stride),
        dimension_numbers=_LAYOUT,
    )
