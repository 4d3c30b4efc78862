"""VGG16 and VGG19 as feature extractors: their convolutions, with weights that are given."""

from __future__ import annotations

from collections.abc import Iterable

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from anigan_jax.errors import UserError
from anigan_jax.networks.ops.conv import correlate

DEPTHS = {"vgg16": 16, "vgg19": 19}
WIDTHS = (64, 128, 256, 512, 512)
"""Channels of each block."""
COUNTS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each block."""
# torchvision's, of RGB in [0, 1].
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CONVENTIONS = ("imagenet", "unit", "signed")
PADS = ((1, 1), (1, 1))


def depth_of(name: str) -> int:
    """'vgg16' -> 16."""
    if name not in DEPTHS:
        raise UserError(f"no network {name!r}; choose from {', '.join(DEPTHS)}")
    return DEPTHS[name]


def convolutions(depth: int) -> tuple[str, ...]:
    """'conv1_1', ... in their order.

    Raises:
      UserError: `depth` is neither 16 nor 19.
    """
    if depth not in COUNTS:
        raise UserError(f"no VGG of depth {depth}; there are 16 and 19")
    return tuple(
        f"conv{block}_{i}" for block, n in enumerate(COUNTS[depth], 1) for i in range(1, n + 1)
    )


def needed(depth: int, taps: Iterable[str]) -> tuple[str, ...]:
    """The convolutions up to the deepest tap.

    Args:
      taps: 'conv4_4' (before the ReLU), 'relu4_4' (behind it), ...

    Raises:
      UserError: a tap is unknown, or there is none.
    """
    names, taps = convolutions(depth), tuple(taps)
    for tap in taps:
        if tap.replace("relu", "conv", 1) not in names:
            raise UserError(f"VGG{depth} has no map {tap!r}; it has {_pairs(names)}")
    if not taps:
        raise UserError(f"no map of VGG{depth} is given; it has {_pairs(names)}")
    return names[: 1 + max(names.index(tap.replace("relu", "conv", 1)) for tap in taps)]


def _pairs(names: tuple[str, ...]) -> str:
    numbers = ", ".join(name.removeprefix("conv") for name in names)
    return f"convN (before its ReLU) and reluN (behind it), N in {numbers}"


def shapes(depth: int, widths: dict[str, int] | None = None) -> dict[str, tuple[int, ...]]:
    """'conv1_1/kernel' -> (3, 3, Cin, Cout), 'conv1_1/bias' -> (Cout,), ...

    Args:
      widths: channels of each convolution; None for the published ones.
    """
    found, channels = {}, 3
    for name in convolutions(depth):
        width = widths[name] if widths else WIDTHS[int(name[4]) - 1]
        found |= {f"{name}/kernel": (3, 3, channels, width), f"{name}/bias": (width,)}
        channels = width
    return found


class VGG(nn.Module):
    """Named maps of VGG16 or VGG19 (configurations D and E).

    Parameters are {'conv1_1': {'kernel': (3, 3, Cin, Cout), 'bias': (Cout,)}, ...}, at least
    those that `needed` names. They are always given, never initialized, and
    the widths are theirs.

    Attributes:
      depth: 16 or 19.
      taps: 'conv4_4' is a map before its ReLU, 'relu4_4' behind it.
      convention: how the images are presented, see `prepare`.

    Source: Simonyan and Zisserman 2015, table 1.
    """

    depth: int
    taps: tuple[str, ...]
    convention: str = "imagenet"

    @nn.compact
    def __call__(self, images: Array) -> tuple[Array, ...]:
        """Images (B, H, W, 3) in [-1, 1] -> one map (B, h, w, C) for each tap, in their order.

        Sides are halved, rounded down, between blocks. Nothing behind the deepest tap is computed.

        Raises:
          UserError: an unknown tap, depth or convention.
          ValueError: a convolution is not among the parameters, or the images are too small.
        """
        params, found = self.variables.get("params", {}), {}
        x = prepare(images, self.convention)
        for name in needed(self.depth, self.taps):
            if name not in params:
                raise ValueError(f"{name} of VGG{self.depth} is not among the parameters")
            if name.endswith("_1") and name != "conv1_1":
                x = max_pool(x)
            kernel, bias = params[name]["kernel"], params[name]["bias"]
            before = correlate(x.astype(kernel.dtype), kernel, PADS) + bias
            x = nn.relu(before)
            found |= {name: before, name.replace("conv", "relu"): x}
        return tuple(found[tap] for tap in self.taps)


def prepare(images: Array, convention: str) -> Array:
    """Images in [-1, 1] as a VGG is shown them.

    Args:
      convention: 'imagenet': in [0, 1], minus ImageNet's mean, over its deviation, as
        torchvision trained the weights. 'unit': in [0, 1] and no more, as
        znxlwm/pytorch-CartoonGAN. 'signed': unchanged, as mnicnc404/CartoonGan-tensorflow.
    """
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"images must be (B, H, W, 3); the shape is {images.shape}")
    if convention == "imagenet":
        dtype = images.dtype
        return ((images + 1) / 2 - jnp.array(MEAN, dtype)) / jnp.array(STD, dtype)
    if convention == "unit":
        return (images + 1) / 2
    if convention == "signed":
        return images
    raise UserError(f"no input convention {convention!r}; choose from {', '.join(CONVENTIONS)}")


def max_pool(x: Array) -> Array:
    """The larger of each 2x2: (B, H, W, C) -> (B, H // 2, W // 2, C), an odd last one is left out.

    Selections instead of a windowed reduction, whose gradient scatters and so may add in any
    order on a GPU. Of equal values the first in reading order gets the gradient, as in PyTorch.
    """
    b, height, width, c = x.shape
    rows, columns = height // 2, width // 2
    if not rows or not columns:
        raise ValueError(f"a map of {height}x{width} is too small to be halved")
    x = x[:, : 2 * rows, : 2 * columns].reshape(b, rows, 2, columns, 2, c)

    def larger(first: Array, second: Array) -> Array:
        # NaN wins, so that it is not hidden.
        return jnp.where((second > first) | jnp.isnan(second), second, first)

    return larger(
        larger(x[:, :, 0, :, 0], x[:, :, 0, :, 1]), larger(x[:, :, 1, :, 0], x[:, :, 1, :, 1])
    )
