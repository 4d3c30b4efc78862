"""Inception-v3 as FID uses it: images in, the 2048 means behind its last block out."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax import Array, lax

from anigan_jax.perceptual.inception_weights import BLOCKS, SIDE, Branch, Conv, Pool, shapes


def features(params: dict, images: Array) -> Array:
    """pool3 of images.

    Args:
      params: as `weights.unflatten(inception_weights.find())`.
      images: (B, 299, 299, 3) RGB in [-1, 1]; pytorch-fid makes them as byte / 127.5 - 1, the
        original graph and torch-fidelity as (byte - 128) / 128.

    Returns:
      (B, 2048), not negative.

    Raises:
      ValueError: images of another shape, or parameters of another network.

    Source: Heusel et al. 2017 for its use in FID; `inception_weights` for the layers.
    """
    if images.ndim != 4 or images.shape[1:] != (SIDE, SIDE, 3):
        raise ValueError(f"images must be (B, {SIDE}, {SIDE}, 3); the shape is {images.shape}")
    given = {name: value.shape for name, value in flatten_dict(params, sep="/").items()}
    if given != shapes():
        name, shape = min(given.items() ^ shapes().items())
        raise ValueError(f"these are no parameters of Inception-v3: look at {name} {shape}")
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
