"""DCGAN: settings, layer plans, modules.

Source: Radford et al. 2016; every DCGAN of the reports is a plan of blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import flax.linen as nn

from anigan_jax.errors import UserError
from anigan_jax.networks.blocks import (
    Activation,
    Block,
    GeneratorSettings,
    NetworkSettings,
    Norm,
)
from anigan_jax.networks.stack import Stack


@dataclass(frozen=True)
class Generator(GeneratorSettings):
    """A DCGAN generator: from z to (size, size, channels)."""

    z_dim: int = 100
    """Length of the latent."""
    size: int = 64
    """Image side in pixels."""
    base_channels: int = 64
    """Channels of the widest map; they double at each halving of the side."""
    start: int = 4
    """Side of the first map."""
    kernel: int = 4
    """Kernel side: 4 (PyTorch style) or 5 (Radford)."""
    stem: Literal["conv", "dense"] = "conv"
    """First layer: a transposed convolution of a 1x1 map, or dense + reshape."""
    upsample: Literal["transpose", "nearest"] = "transpose"
    """Upsampling: transposed convolution, or nearest neighbor + convolution."""
    head: Literal["up", "extra", "conv"] = "up"
    """Last layers: an upsampling to RGB; a same-size convolution to 3 channels, then an
    upsampling (Tsinghua); or a same-size convolution to RGB at full size (CSC412)."""
    activation: Activation = "relu"
    negative_slope: float = 0.2
    """Slope of leaky ReLU for negative inputs."""
    activation_first: bool = False
    """The activation before batch norm, not after it (UCSD's section 3.1)."""
    spectral: bool = False
    """Spectral norm on every layer, but not on what norms follow; each training pass iterates
    once, G's own updates keep it."""
    output: Literal["tanh", "sigmoid"] = "tanh"
    """sigmoid: images in [0, 1], as CSC412 trains them."""
    bias: bool = False
    """Biases in convolutions that batch norm follows (and in the last one)."""
    norm: Norm = Norm()
    stddev: float = 0.02
    """Kernels start at N(0, this); 0 for Glorot uniform, as Keras does."""
    channels: int = field(default=3, metadata={"later": True})
    """Of images: 3, or 4 with transparency (--data.transparency keep sets all of them)."""
    self_modulation: int = field(default=0, metadata={"later": True})
    """Length of a hidden layer of z that the gains and biases of every batch norm follow
    (self-modulation, Chen et al. 2019); 0: z only makes the first map."""

    @property
    def unit_range(self) -> bool:
        return self.output == "sigmoid"

    def build(self, axis_name: str | None = None, dtype: str = "float32") -> nn.Module:
        """The module: z (b, 1, 1, Z) -> images (b, size, size, channels)."""
        rest = (self.norm, self.negative_slope, self.stddev, axis_name, dtype)
        return Stack(generator_plan(self), *rest, told=modulation_plan(self), name="generator")


@dataclass(frozen=True)
class Discriminator(NetworkSettings):
    """A DCGAN discriminator: from (size, size, channels) to one logit."""

    size: int = 64
    """Image side in pixels."""
    base_channels: int = 64
    """Channels after the first layer; they double at each halving of the side."""
    end: int = 4
    """Side of the last map before the logit."""
    kernel: int = 4
    batch_norm: bool = True
    """Batch norm after every convolution but the first and the last."""
    first_norm: bool = False
    """Batch norm after the first convolution too (Tsinghua)."""
    spectral: bool = False
    """Spectral norm on every convolution (Miyato et al. 2018)."""
    extra: bool = False
    """A channel- and size-preserving convolution before the logit (Tsinghua)."""
    head: Literal["conv", "dense"] = "conv"
    """Logit by one convolution over the whole last map, or flatten + dense."""
    pad_second: int = 0
    """Zero rows and columns after the second convolution (CSC412: 16 -> 17)."""
    dropout: float = 0.0
    """Share of activations dropped after each convolution."""
    negative_slope: float = 0.2
    """Slope of leaky ReLU for negative inputs."""
    bias: bool = False
    norm: Norm = Norm()
    stddev: float = 0.02
    """Kernels start at N(0, this); 0 for Glorot uniform, as Keras does."""
    channels: int = field(default=3, metadata={"later": True})
    """Of images: 3, or 4 with transparency (--data.transparency keep sets all of them)."""

    def build(self, axis_name: str | None = None, dtype: str = "float32") -> nn.Module:
        """The module: images (b, size, size, channels) -> logits (b, 1, 1, 1) or (b, 1)."""
        rest = (self.norm, self.negative_slope, self.stddev, axis_name, dtype)
        return Stack(discriminator_plan(self), *rest, name="discriminator")


def doublings(size: int, small: int, field: str) -> int:
    """How many factors of two lie between two sides; refuses others with the reason."""
    count = math.log2(size / small) if size > small > 0 else 0
    if count < 1 or count != int(count):
        sizes = ", ".join(str(small * 2**i) for i in range(2, 7))
        raise UserError(
            f"{field} is {size}; allowed are {small} x 2^n: {sizes}, ...; "
            "--size sets data, networks and their start and end, also for 96 and 80"
        )
    return int(count)


def up_padding(kernel: int) -> tuple[int, int]:
    """(padding, output_padding) of a stride-2 transposed convolution that doubles."""
    return (kernel - 1) // 2, kernel % 2


def generator_plan(g: Generator) -> tuple[Block, ...]:
    """The layers of a generator."""
    ups = doublings(g.size, g.start, "generator.size")
    act = g.activation
    hidden = {"norm": True, "bias": g.bias, "activation_first": g.activation_first}
    before_head = ups if g.head == "conv" else ups - 1
    widths = [g.base_channels * 2 ** (before_head - i) for i in range(before_head + 1)]
    if g.stem == "dense":
        # A dense stem has its bias, as in Keras's summary (1,654,784 parameters).
        stem = Block("stem", "dense", widths[0], side=g.start, activation=act)
        stem = replace(stem, **{**hidden, "bias": True})
    else:
        stem = Block("stem", "conv_transpose", widths[0], g.start, activation=act)
        stem = replace(stem, **hidden)
    blocks = [stem]
    for i, width in enumerate(widths[1:], start=1):
        blocks.append(_up(f"up{i}", width, g, activation=act, **hidden))
    if g.head == "extra":
        extra = Block("extra", "conv", g.channels, 3, 1, 1, activation=act, **hidden)
        blocks.append(extra)
    if g.head == "conv":
        last = Block("rgb", "conv", g.channels, g.kernel, 1, "same", bias=g.bias)
        blocks.append(replace(last, activation=g.output))
    else:
        blocks.append(_up("rgb", g.channels, g, bias=g.bias, activation=g.output))
    return tuple(replace(block, spectral=g.spectral) for block in blocks)


def modulation_plan(g: Generator) -> tuple[Block, ...]:
    """The layer of z that the norms of a generator follow, where they follow one.

    Departs: one hidden layer serves all norms; Chen et al. 2019 have one of 32 for each.
    """
    if not g.self_modulation:
        return ()
    return (Block("modulation", "dense", g.self_modulation, bias=True, activation="relu"),)


def _up(name: str, features: int, g: Generator, **rest) -> Block:
    if g.upsample == "nearest":
        return Block(name, "upsample_conv", features, g.kernel | 1, **rest)
    pad, extra = up_padding(g.kernel)
    return Block(name, "conv_transpose", features, g.kernel, 2, pad, extra, **rest)


def discriminator_plan(d: Discriminator) -> tuple[Block, ...]:
    """The layers of a discriminator."""
    downs = doublings(d.size, d.end, "discriminator.size")
    common = {
        "spectral": d.spectral,
        "activation": "leaky_relu",
        "dropout": d.dropout,
        "bias": d.bias,
    }
    padding = 1 if d.kernel == 4 else "same"
    blocks, width = [], d.base_channels
    for i in range(downs):
        norm = d.batch_norm if i else d.first_norm
        pad_after = d.pad_second if i == 1 else 0
        args = (f"down{i + 1}", "conv", width, d.kernel, 2, padding)
        blocks.append(Block(*args, norm=norm, pad_after=pad_after, **common))
        width *= 2
    if d.extra:
        args = ("extra", "conv", width // 2, 3, 1, 1)
        blocks.append(Block(*args, norm=d.batch_norm, **common))
    if d.head == "dense":
        blocks.append(Block("logit", "dense", 1, bias=True, spectral=d.spectral))
    else:
        blocks.append(Block("logit", "conv", 1, d.end, spectral=d.spectral))
        blocks[-1] = replace(blocks[-1], bias=d.bias)
    return tuple(blocks)
