"""Convolutions in the form that each backend is fast at, exact against the textbook layers.

XLA's CPU backend computes a convolution whose input or kernel is dilated (every gradient of
a strided convolution, all of a transposed one) ten to a hundred times slower; there
`correlation` and `strided` take their place, and in wide layers `winograd` saves two fifths to
a half of the products. Elsewhere the textbook's own form is the faster
one (`anigan bench --layers` measures both): XLA's convolutions with their own gradients,
which a GPU's library has kernels for, and a transposed convolution as the gradient of a
strided one, in all its passes; GPUs miss their fast kernels in the weight gradient of
`lax.conv_transpose`.

Arrays are NHWC, kernels HWIO.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from anigan_jax.networks.ops import correlation, grouped, strided
from anigan_jax.networks.ops.correlation import LAYOUT, NO_PADS, Pads
from anigan_jax.runtime import backend

X = Float[Array, "b H W cin"]
Kernel = Float[Array, "k k cin cout"]
Y = Float[Array, "b h w cout"]

LOWERINGS = {"cpu": "blocks"}
"""The form of convolutions that was measured to be faster, by backend; 'native' elsewhere."""


def same_pads(size: tuple[int, int], kernel: int, stride: int) -> Pads:
    """Padding of TensorFlow's and Keras's SAME: the odd pixel goes to the far side."""
    pads = []
    for side in size:
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads.append((total // 2, total - total // 2))
    return tuple(pads)


def lowering() -> str:
    """'blocks' or 'native', for this process's backend, or the one that is traced for."""
    return LOWERINGS.get(backend.traced(), "native")


def correlate(x: X, kernel: Kernel, pads: Pads) -> Y:
    """Stride-1 cross-correlation; pads below the kernel's side, forward and mirrored."""
    if lowering() == "native":
        return conv_reference(x, kernel, pads=pads)
    return correlation.correlate(x, kernel, pads)


def _fit(x: Array, rows: int, columns: int) -> Array:
    """Crops or zero-extends at the bottom and right."""
    x = x[:, :rows, :columns]
    grow = (rows - x.shape[1], columns - x.shape[2])
    return jnp.pad(x, ((0, 0), (0, grow[0]), (0, grow[1]), (0, 0)))


def conv(x: X, kernel: Kernel, *, stride: int = 1, pads: Pads = NO_PADS) -> Y:
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
    size = tuple((n - k) // 2 + 1 for n in padded)
    return strided.down(x, kernel, (pads[0][0], pads[1][0]), size)


def grouped_conv(x: X, kernel: Kernel, groups: int, *, pads: Pads = NO_PADS) -> Y:
    """Cross-correlation of stride 1 within groups of channels.

    Args:
      x: (B, H, W, Cin).
      kernel: (k, k, Cin / groups, Cout), outputs of a group side by side, as XLA and (moved to
        HWIO) PyTorch have them.
      pads: zeros ((top, bottom), (left, right)).

    Returns:
      (B, h, w, Cout).
    """
    if lowering() == "native":
        return conv_reference(x, kernel, pads=pads, groups=groups)
    return grouped.correlate(x, kernel, groups, pads)


def conv_transpose(
    x: X, kernel: Kernel, *, stride: int = 2, padding: int = 1, output_padding: int = 0
) -> Y:
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
    return strided.up(x, kernel.swapaxes(2, 3), (padding, padding), tuple(out))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _strided_transpose(x: Array, kernel: Array, padding: int, output_padding: int) -> Array:
    """`conv_transpose` of stride 2 as the input gradient of a strided convolution."""
    # XLA recognizes that gradient where it is one, and then the kernel's gradient too;
    # that of `lax.conv_transpose` it does not.
    b, h, w, _ = x.shape
    k, cout = kernel.shape[0], kernel.shape[3]
    out = [(n - 1) * 2 - 2 * padding + k + output_padding for n in (h, w)]
    adjoint = functools.partial(_strided, kernel=kernel.swapaxes(2, 3), padding=padding)
    like = jax.ShapeDtypeStruct((b, *out, cout), x.dtype)
    return jax.linear_transpose(adjoint, like)(x)[0]


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


def upsample_conv(x: X, kernel: Kernel) -> Float[Array, "b 2*H 2*W cout"]:
    """Nearest-neighbor doubling, then a same-size convolution with an odd kernel.

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
    return strided.depth_to_space(y)


def conv_reference(
    x: X, kernel: Kernel, *, stride: int = 1, pads: Pads = NO_PADS, groups: int = 1
) -> Y:
    """`conv` and `grouped_conv` by XLA's own operator; also the native form."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
    )


def conv_transpose_reference(
    x: X, kernel: Kernel, *, stride: int = 2, padding: int = 1, output_padding: int = 0
) -> Y:
    """`conv_transpose` by XLA's dilated operator; for tests and the benchmark."""
    low = kernel.shape[0] - 1 - padding
    return lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        ((low, low + output_padding),) * 2,
        lhs_dilation=(stride, stride),
        dimension_numbers=LAYOUT,
    )
