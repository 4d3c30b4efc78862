"""CartoonGAN's networks.

Source: Chen et al. 2018 (CartoonGAN), figure 2 and section 3.1; Tsinghua.
"""

from __future__ import annotations

from dataclasses import dataclass

from anigan_jax.errors import UserError
from anigan_jax.networks import resnet
from anigan_jax.networks.blocks import Block, NetworkSettings
from anigan_jax.networks.resnet import NormKind, ResnetGenerator
from anigan_jax.networks.stack import Stack


@dataclass(frozen=True)
class CartoonGenerator(ResnetGenerator):
    """Two down, eight residual blocks, two up, each with a stride-1 convolution after it."""

    blocks: int = 8
    flat: bool = True


@dataclass(frozen=True)
class CartoonDiscriminator(NetworkSettings):
    """Seven convolutions, two of them down: a map of logits at a quarter of the side."""

    size: int = 64
    """Image side in pixels; a multiple of 4."""
    base_channels: int = 32
    """Channels after the first layer."""
    norm: NormKind = "instance"
    """After the third to the sixth convolution but the one of stride 2."""
    bias: bool = True
    """Biases in convolutions that a norm follows; the others always have them."""
    negative_slope: float = 0.2
    """Slope of leaky ReLU for negative inputs."""
    stddev: float = 0.02
    """Kernels start at N(0, this)."""

    def check(self, field: str) -> None:
        """Refuses sides that two halvings do not divide."""
        if self.base_channels < 1:
            raise UserError(f"{field}.base_channels is {self.base_channels}; it must be at least 1")
        resnet.check_side(self.size, 4, f"{field}.size")

    def build(self, axis_name: str | None = None, dtype: str = "float32") -> Stack:
        """The module: images (b, S, S, 3) -> logits (b, S/4, S/4, 1)."""
        return resnet.stack(self, discriminator_plan(self), axis_name, dtype)


def discriminator_plan(d: CartoonDiscriminator) -> tuple[Block, ...]:
    """The layers of a discriminator."""
    norm = d.norm != "none"
    plain = {"activation": "leaky_relu", "bias": True}
    hidden = {"activation": "leaky_relu", "bias": d.bias or not norm, "norm": norm}
    return (
        Block("flat1", "conv", d.base_channels, 3, 1, 1, **plain),
        Block("down1", "conv", 2 * d.base_channels, 3, 2, 1, **plain),
        Block("flat2", "conv", 4 * d.base_channels, 3, 1, 1, **hidden),
        Block("down2", "conv", 4 * d.base_channels, 3, 2, 1, **plain),
        Block("flat3", "conv", 8 * d.base_channels, 3, 1, 1, **hidden),
        Block("flat4", "conv", 8 * d.base_channels, 3, 1, 1, **hidden),
        Block("logit", "conv", 1, 3, 1, 1, bias=True),
    )
