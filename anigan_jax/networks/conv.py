"""Convolutions as slices and matrix products, exact against the textbook layers.

XLA's CPU backend computes a convolution whose input or kernel is dilated (every
gradient of a strided convolution, all of a transposed one) with slow code, and GPUs
miss their fast kernels in the weight gradient of `lax.conv_transpose`. Here a strided
convolution is one matrix product over gathered windows, and a stride-2 transposed one
is split into phases of its output, each an undilated convolution, so that no pass,
forward or backward, is dilated.

Arrays are NHWC, kernels HWIO.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

Pads = tuple[tuple[int, int], tuple[int, int]]
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def same_pads(size: tuple[int, int], kernel: int, stride: int) -> Pads:
    """Padding of TensorFlow's and Keras's SAME: the odd pixel goes to the far side."""
    pads = []
    for side in size:
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads.append((total // 2, total - total // 2))
    return tuple(pads)


def _windows(x: Array, kernel: tuple[int, int], stride: int) -> Array:
    """(B, H, W, C) -> (B, h, w, kh*kw*C): all windows, taps in kernel order."""
    kh, kw = kernel
    h = (x.shape[1] - kh) // stride + 1
    w = (x.shape[2] - kw) // stride + 1
    taps = [
        lax.slice(
            x,
            (0, i, j, 0),
            (x.shape[0], i + (h - 1) * stride + 1, j + (w - 1) * stride + 1, x.shape[3]),
            (1, stride, stride, 1),
        )
        for i in range(kh)
        for j in range(kw)
    ]
    return jnp.concatenate(taps, axis=-1)


def _valid(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Convolution without padding, as one matrix product (or a plain one on a GPU)."""
    kh, kw, cin, cout = kernel.shape
    if jax.default_backend() != "cpu" and stride == 1:
        return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=_LAYOUT)
    if x.shape[1:3] == (kh, kw):
        # The window is the whole map: no gathering.
        flat = x.reshape(x.shape[0], -1) @ kernel.reshape(-1, cout)
        return flat[:, None, None, :]
    return _windows(x, (kh, kw), stride) @ kernel.reshape(-1, cout)


def _space_to_depth(x: Array) -> Array:
    """(B, 2h, 2w, C) -> (B, h, w, 4C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // 2, w // 2, 4 * c)


def conv(x: Array, kernel: Array, *, stride: int = 1, pads: Pads = ((0, 0), (0, 0))) -> Array:
    """Cross-correlation: out[i] = sum_t x[stride * i + t - pad] kernel[t].

    Args:
      x: (B, H, W, Cin).
      kernel: (k, k, Cin, Cout).
      stride: step of the window.
      pads: zeros ((top, bottom), (left, right)).

    Returns:
      (B, h, w, Cout).
    """
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    k, cin, cout = kernel.shape[0], kernel.shape[2], kernel.shape[3]
    if stride != 2 or x.shape[1] == k:
        return _valid(x, kernel, stride)
    # Stride 2 on s x s blocks of pixels is stride 1: no strided slice in any pass.
    odd = k % 2
    kernel = jnp.pad(kernel, ((0, odd), (0, odd), (0, 0), (0, 0)))
    half = (k + odd) // 2
    rows, columns = ((n - k) // 2 + half for n in x.shape[1:3])
    x = _fit(x, 2 * rows, 2 * columns)
    blocks = kernel.reshape(half, 2, half, 2, cin, cout).transpose(0, 2, 1, 3, 4, 5)
    return _valid(_space_to_depth(x), blocks.reshape(half, half, 4 * cin, cout))


def _fit(x: Array, rows: int, columns: int) -> Array:
    """Crops or zero-extends at the bottom and right."""
    x = x[:, :rows, :columns]
    grow = (rows - x.shape[1], columns - x.shape[2])
    return jnp.pad(x, ((0, 0), (0, grow[0]), (0, grow[1]), (0, 0)))


def _phase(kernel: int, pad: int, parity: int) -> tuple[list[int], int]:
    """Taps that reach outputs of one parity (in order of rising input), first offset.

    Output o = 2i + t - pad, so o = 2q + parity sees input i = q + (parity + pad - t)/2.
    """
    taps = [t for t in range(kernel) if (parity + pad - t) % 2 == 0][::-1]
    return taps, (parity + pad - taps[0]) // 2


def conv_transpose(
    x: Array, kernel: Array, *, stride: int = 2, padding: int = 1, output_padding: int = 0
) -> Array:
    """Transposed convolution of torch.nn.ConvTranspose2d: out[s i + t - p] += x[i] w[t].

    Args:
      x: (B, h, w, Cin).
      kernel: (k, k, Cin, Cout): PyTorch's (in, out, kh, kw) moved to HWIO, not flipped.
      stride: 1 or 2.
      padding: pixels cut from each side of the full output.
      output_padding: rows and columns added at the bottom and right.

    Returns:
      (B, H, W, Cout), H = (h - 1) stride - 2 padding + k + output_padding.

    Raises:
      ValueError: for another stride.
    """
    if stride not in (1, 2):
        raise ValueError(f"stride is {stride}; 1 and 2 are supported")
    k, cin, cout = kernel.shape[0], kernel.shape[2], kernel.shape[3]
    b, h, w, _ = x.shape
    if h == w == 1 and padding == 0 and output_padding == 0:
        # A 1x1 map (the generator's stem): a plain matrix product.
        matrix = kernel.transpose(2, 0, 1, 3).reshape(cin, -1)
        return (x.reshape(b, cin) @ matrix).reshape(b, k, k, cout)
    if stride == 1:
        out = (h - 1 - 2 * padding + k + output_padding)
        low = k - 1 - padding
        x = jnp.pad(x, ((0, 0), (max(low, 0),) * 2, (max(low, 0),) * 2, (0, 0)))
        return _fit(_valid(x, kernel[::-1, ::-1]), out, out)
    return _two_phases(x, kernel, padding, output_padding)


def _two_phases(x: Array, kernel: Array, padding: int, output_padding: int) -> Array:
    k, cin, cout = kernel.shape[0], kernel.shape[2], kernel.shape[3]
    b, h, w, _ = x.shape
    out_h, out_w = (2 * (n - 1) - 2 * padding + k + output_padding for n in (h, w))
    rows, columns = -(-out_h // 2), -(-out_w // 2)
    plans = [_phase(k, padding, parity) for parity in (0, 1)]
    low = max(0, *(-first for _, first in plans))
    size = [
        max(n + low, *(low + first + len(taps) - 1 + m for taps, first in plans))
        for n, m in ((h, rows), (w, columns))
    ]
    x = jnp.pad(
        x, ((0, 0), (low, size[0] - low - h), (low, size[1] - low - w), (0, 0))
    )
    phases = []
    for taps_h, first_h in plans:
        for taps_w, first_w in plans:
            top, left = low + first_h, low + first_w
            part = x[
                :, top : top + rows + len(taps_h) - 1, left : left + columns + len(taps_w) - 1
            ]
            # Indexing by lists would be a gather (and its gradient a scatter).
            taps = jnp.stack([kernel[t] for t in taps_h])
            taps = jnp.stack([taps[:, t] for t in taps_w], axis=1)
            phases.append(_valid(part, taps))
    y = jnp.stack(phases, axis=3).reshape(b, rows, columns, 2, 2, cout)
    y = y.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * rows, 2 * columns, cout)
    return y[:, :out_h, :out_w]


def upsample_conv(x: Array, kernel: Array) -> Array:
    """Nearest-neighbour doubling, then a same-size convolution with an odd kernel.

    Taps that see the same source pixel are summed, so each of the four output phases
    is a smaller convolution of the small map: the same function up to rounding.

    Args:
      x: (B, h, w, Cin).
      kernel: (k, k, Cin, Cout), k odd.

    Returns:
      (B, 2h, 2w, Cout).
    """
    k, _, _, cout = kernel.shape
    b, h, w, _ = x.shape
    r = k // 2
    # Output 2q + p, tap t reads big pixel 2q + p + t - r, small pixel q + offset.
    offsets = [[(p + t - r) // 2 for t in range(k)] for p in (0, 1)]
    low = -min(map(min, offsets))
    high = max(map(max, offsets))
    x = jnp.pad(x, ((0, 0), (low, high), (low, high), (0, 0)))

    def fold(array: Array, axis: int, parity: int) -> Array:
        offs = offsets[parity]
        rows = jnp.split(array, k, axis)
        sums = [
            sum(row for row, o in zip(rows, offs, strict=True) if o == value)
            for value in range(offs[0], offs[-1] + 1)
        ]
        return jnp.concatenate(sums, axis)

    phases = []
    for p in (0, 1):
        for q in (0, 1):
            taps = fold(fold(kernel, 0, p), 1, q)
            top, left = low + offsets[p][0], low + offsets[q][0]
            part = x[:, top : top + h + taps.shape[0] - 1, left : left + w + taps.shape[1] - 1]
            phases.append(_valid(part, taps))
    y = jnp.stack(phases, axis=3).reshape(b, h, w, 2, 2, cout)
    return y.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, cout)


def conv_reference(x: Array, kernel: Array, *, stride: int = 1, pads: Pads = ((0, 0), (0, 0))):
    """`conv` by XLA's own operator; for tests and the benchmark."""
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT
    )


def conv_transpose_reference(
    x: Array, kernel: Array, *, stride: int = 2, padding: int = 1, output_padding: int = 0
):
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
