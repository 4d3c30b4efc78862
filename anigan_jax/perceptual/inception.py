"""Inception-v3 as FID uses it: images in, the 2048 means behind its last block out.

Source: the graph inception-2015-12-05 of TensorFlow by way of pytorch-fid/inception.py, which
names the layers; Szegedy et al. 2016 has the blocks (figures 5, 6, 7 and 10).
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax import Array, lax

SIDE = 299
FEATURES = 2048


class Conv(NamedTuple):
    """A convolution (rows x columns) without bias, batch norm, ReLU."""

    name: str
    width: int
    rows: int = 1
    columns: int = 1
    stride: int = 1
    padding: str = "SAME"


class Pool(NamedTuple):
    """A pooling of 3x3; what lies outside the map counts neither as a value nor in the mean."""

    kind: str
    stride: int = 1
    padding: str = "SAME"


Branch = tuple[Conv | Pool, ...]
"""Layers in their order; branches of a block that start with the same layers share them."""
AVERAGE, MAX, HALVE = Pool("average"), Pool("max"), Pool("max", 2, "VALID")


def _a(pooled: int) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, 5, 5)),
        (
            Conv("branch3x3dbl_1", 64),
            Conv("branch3x3dbl_2", 96, 3, 3),
            Conv("branch3x3dbl_3", 96, 3, 3),
        ),
        (AVERAGE, Conv("branch_pool", pooled)),
    )


def _c(width: int) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", 192),),
        (
            Conv("branch7x7_1", width),
            Conv("branch7x7_2", width, 1, 7),
            Conv("branch7x7_3", 192, 7, 1),
        ),
        (
            Conv("branch7x7dbl_1", width),
            Conv("branch7x7dbl_2", width, 7, 1),
            Conv("branch7x7dbl_3", width, 1, 7),
            Conv("branch7x7dbl_4", width, 7, 1),
            Conv("branch7x7dbl_5", 192, 1, 7),
        ),
        (AVERAGE, Conv("branch_pool", 192)),
    )


def _e(pool: Pool) -> tuple[Branch, ...]:
    single = (Conv("branch3x3_1", 384),)
    double = (Conv("branch3x3dbl_1", 448), Conv("branch3x3dbl_2", 384, 3, 3))
    return (
        (Conv("branch1x1", 320),),
        (*single, Conv("branch3x3_2a", 384, 1, 3)),
        (*single, Conv("branch3x3_2b", 384, 3, 1)),
        (*double, Conv("branch3x3dbl_3a", 384, 1, 3)),
        (*double, Conv("branch3x3dbl_3b", 384, 3, 1)),
        (pool, Conv("branch_pool", 192)),
    )


BLOCKS: dict[str, tuple[Branch, ...]] = {
    "stem": (
        (
            Conv("Conv2d_1a_3x3", 32, 3, 3, 2, "VALID"),
            Conv("Conv2d_2a_3x3", 32, 3, 3, 1, "VALID"),
            Conv("Conv2d_2b_3x3", 64, 3, 3),
            HALVE,
            Conv("Conv2d_3b_1x1", 80),
            Conv("Conv2d_4a_3x3", 192, 3, 3, 1, "VALID"),
            HALVE,
        ),
    ),
    "Mixed_5b": _a(32),
    "Mixed_5c": _a(64),
    "Mixed_5d": _a(64),
    "Mixed_6a": (
        (Conv("branch3x3", 384, 3, 3, 2, "VALID"),),
        (
            Conv("branch3x3dbl_1", 64),
            Conv("branch3x3dbl_2", 96, 3, 3),
            Conv("branch3x3dbl_3", 96, 3, 3, 2, "VALID"),
        ),
        (HALVE,),
    ),
    "Mixed_6b": _c(128),
    "Mixed_6c": _c(160),
    "Mixed_6d": _c(160),
    "Mixed_6e": _c(192),
    "Mixed_7a": (
        (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, 3, 3, 2, "VALID")),
        (
            Conv("branch7x7x3_1", 192),
            Conv("branch7x7x3_2", 192, 1, 7),
            Conv("branch7x7x3_3", 192, 7, 1),
            Conv("branch7x7x3_4", 192, 3, 3, 2, "VALID"),
        ),
        (HALVE,),
    ),
    "Mixed_7b": _e(AVERAGE),
    # Departs: from the paper, which averages here; the published graph takes the largest.
    "Mixed_7c": _e(MAX),
}
"""In their order; a block's output is that of its branches, side by side."""


def shapes() -> dict[str, tuple[int, ...]]:
    """Our arrays and their shapes."""
    found, channels = {}, 3
    for block, branches in BLOCKS.items():
        total = 0
        for branch in branches:
            width = channels
            for layer in branch:
                if isinstance(layer, Conv):
                    path = f"{block}/{layer.name}"
                    found[f"{path}/kernel"] = (layer.rows, layer.columns, width, layer.width)
                    found[f"{path}/bias"] = (layer.width,)
                    width = layer.width
            total += width
        channels = total
    return found


def features(params: dict, images: Array) -> Array:
    """pool3 of images.

    Args:
      params: as `safetensors.unflatten(convert.load('inception'))`.
      images: (B, 299, 299, 3) RGB in [-1, 1]; pytorch-fid makes them as byte / 127.5 - 1, the
        original graph and torch-fidelity as (byte - 128) / 128.

    Returns:
      (B, 2048), not negative.

    Raises:
      ValueError: images of another shape, or parameters of another network.

    Source: Heusel et al. 2017 for its use in FID.
    """
    if images.ndim != 4 or images.shape[1:] != (SIDE, SIDE, 3):
        raise ValueError(f"images must be (B, {SIDE}, {SIDE}, 3); the shape is {images.shape}")
    given = {name: value.shape for name, value in flatten_dict(params, sep="/").items()}
    if given != shapes():
        name, shape = min(given.items() ^ shapes().items())
        raise ValueError(f"these are not the parameters of Inception-v3: see {name} {shape}")
    x = images.astype(params["stem"]["Conv2d_1a_3x3"]["kernel"].dtype)
    for name, branches in BLOCKS.items():
        x = block(params[name], x, branches)
    return x.mean((1, 2))


def block(params: dict, x: Array, branches: tuple[Branch, ...]) -> Array:
    """The branches' maps of (B, H, W, C), side by side: (B, h, w, the sum of their widths).

    Args:
      params: {name of a convolution: {'kernel': (kh, kw, Cin, Cout), 'bias': (Cout,)}}.
    """
    maps, ends = {(): x}, []
    for branch in branches:
        for end, layer in enumerate(branch):
            path = branch[: end + 1]
            if path not in maps:
                maps[path] = _layer(params, maps[branch[:end]], layer)
        ends.append(maps[branch])
    return jnp.concatenate(ends, 3)


def _layer(params: dict, x: Array, layer: Conv | Pool) -> Array:
    strides = (layer.stride, layer.stride)
    if isinstance(layer, Conv):
        x = lax.conv_general_dilated(
            x,
            params[layer.name]["kernel"],
            strides,
            layer.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            # GPUs and TPUs would round what they multiply, which moves the distances.
            precision=lax.Precision.HIGHEST,
        )
        return nn.relu(x + params[layer.name]["bias"])
    if layer.kind == "max":
        return nn.max_pool(x, (3, 3), strides, layer.padding)
    return nn.avg_pool(x, (3, 3), strides, layer.padding, count_include_pad=False)
