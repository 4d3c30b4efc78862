"""R3GAN: settings, layer plans, modules.

Source: Huang et al. 2024 (R3GAN), sections 4 and appendix: residual blocks of 1x1, grouped 3x3
and 1x1 convolutions without any norm, started as Zhang et al. 2019 (Fixup) start them.
Departs: with dtype bfloat16 it enters all products, also those of the 4x4 maps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import flax.linen as nn

from anigan_jax.errors import UserError
from anigan_jax.networks.blocks import Block, GeneratorSettings, NetworkSettings, Norm
from anigan_jax.networks.dcgan import doublings
from anigan_jax.networks.stack import Stack
from anigan_jax.networks.text import TextStack

BLOCKS = 2
"""Residual blocks of a stage."""
EXPANSION = 2
"""Channels within a block, for each one of its sum."""
SLOPE = 0.2
# That of leaky ReLU (He et al. 2015, eq. 15).
GAIN = math.sqrt(2 / (1 + SLOPE**2))


@dataclass(frozen=True)
class R3Generator(GeneratorSettings):
    """R3GAN's generator: from z to (size, size, channels), without a bound on the pixels."""

    z_dim: int = 64
    """Length of the latent; a label's embedding is as long."""
    size: int = 64
    """Image side in pixels."""
    base_channels: int = 768
    """Channels of the first, widest maps."""
    full_stages: int = 4
    """Stages that have all channels; each later one has half of the one before."""
    start: int = 4
    """Side of the first map."""
    group_channels: int = 16
    """Channels of a group of the 3x3 convolutions."""
    channels: int = field(default=3, metadata={"later": True})
    """Of images: 3, or 4 with transparency (--data.transparency keep sets all of them)."""

    @property
    def text_layers(self) -> tuple[str, ...]:
        return ("label",)

    def build(
        self, axis_name: str | None = None, dtype: str = "float32", labels: bool = False
    ) -> nn.Module:
        """The module: z (b, 1, 1, Z) -> images (b, size, size, channels).

        Args:
          labels: whether it also takes labels, a tuple of (b, T), and gives a tuple.
        """
        rest = (Norm(), SLOPE, 1.0, axis_name, dtype)
        if not labels:
            return Stack(generator_plan(self), *rest, name="generator")
        text = (Block("label", "dense", self.z_dim, gain=1.0),)
        return TextStack(text, (), generator_plan(self), "concat", *rest, name="generator")


@dataclass(frozen=True)
class R3Discriminator(NetworkSettings):
    """R3GAN's discriminator, the mirrored generator: from (size, size, channels) to one logit."""

    size: int = 64
    """Image side in pixels."""
    base_channels: int = 768
    """Channels of the last, widest maps."""
    full_stages: int = 4
    """Stages that have all channels; each earlier one has half of the one after it."""
    end: int = 4
    """Side of the last map before the logit."""
    group_channels: int = 16
    """Channels of a group of the 3x3 convolutions."""
    channels: int = field(default=3, metadata={"later": True})
    """Of images: 3, or 4 with transparency (--data.transparency keep sets all of them)."""

    @property
    def text_layers(self) -> tuple[str, ...]:
        return ("label",)

    def build(
        self, axis_name: str | None = None, dtype: str = "float32", labels: bool = False
    ) -> nn.Module:
        """The module: images (b, size, size, channels) -> logits (b, 1).

        Args:
          labels: whether it also takes labels, a tuple of (b, T), and gives a tuple of logits.
        """
        rest = (Norm(), SLOPE, 1.0, axis_name, dtype)
        *trunk, logit = discriminator_plan(self)
        if not labels:
            return Stack((*trunk, logit), *rest, name="discriminator")
        width = self.base_channels
        head = Block("head", "dense", width, gain=1.0)
        text = (Block("label", "dense", width, gain=1 / math.sqrt(width)),)
        return TextStack(text, (*trunk, head), (), "inner", *rest, name="discriminator")


def widths(s: R3Generator | R3Discriminator, stages: int) -> list[int]:
    """Channels of each stage, those of the smallest map first.

    Raises:
      UserError: a stage has too few channels to be halved, or no whole number of groups.
    """
    halvings = [max(0, stage + 1 - s.full_stages) for stage in range(stages)]
    found = [s.base_channels // 2**n for n in halvings]
    role = "generator" if isinstance(s, R3Generator) else "discriminator"
    for width, n in zip(found, halvings, strict=True):
        if width < 1 or width * 2**n != s.base_channels or EXPANSION * width % _group(s, width):
            raise UserError(
                f"{role}.base_channels is {s.base_channels}; with {stages} stages, "
                f"{s.full_stages} of them at full width, and groups of {s.group_channels} "
                f"channels it must be a multiple of {s.group_channels // 2 * 2 ** halvings[-1]}"
            )
    return found


def _group(s: R3Generator | R3Discriminator, width: int) -> int:
    """Channels of a group; narrow maps are one group."""
    return max(1, min(s.group_channels, EXPANSION * width))


def generator_plan(g: R3Generator) -> tuple[Block, ...]:
    """The layers of a generator."""
    stages = doublings(g.size, g.start, "generator.size") + 1
    each = widths(g, stages)
    plan = [
        Block("stem", "dense", each[0], gain=1.0),
        Block("constant", "constant", each[0], side=g.start),
    ]
    for stage, width in enumerate(each):
        if stage and width != each[stage - 1]:
            plan.append(Block(f"width{stage + 1}", "pointwise", width, gain=1.0))
        if stage:
            plan.append(Block(f"up{stage + 1}", "up", width))
        plan += _stage(f"stage{stage + 1}", width, _group(g, width), stages)
    return (*plan, Block("rgb", "pointwise", g.channels, gain=1.0))


def discriminator_plan(d: R3Discriminator) -> tuple[Block, ...]:
    """The layers of a discriminator; the logit is the last."""
    stages = doublings(d.size, d.end, "discriminator.size") + 1
    each = widths(d, stages)[::-1]
    plan = [Block("rgb", "pointwise", each[0], gain=1.0)]
    for stage, width in enumerate(each):
        plan += _stage(f"stage{stage + 1}", width, _group(d, width), stages)
        if stage + 1 < stages:
            plan.append(Block(f"down{stage + 1}", "down", width))
            if each[stage + 1] != width:
                after = each[stage + 1]
                plan.append(Block(f"width{stage + 1}", "pointwise", after, gain=1.0))
    plan.append(Block("pool", "conv", each[-1], d.end, groups=each[-1], gain=1.0))
    return (*plan, Block("logit", "dense", 1, gain=1.0))


def _stage(name: str, width: int, group: int, stages: int) -> Iterator[Block]:
    """The residual blocks of a stage: C -> 2C, 2C -> 2C in groups, 2C -> C, plus the input."""
    inner = EXPANSION * width
    # Fixup of three layers: L^(-1 / (2 m - 2)) for m = 3.
    gain = GAIN * (BLOCKS * stages) ** -0.25
    hidden = {"bias": True, "activation": "leaky_relu", "gain": gain}
    for i in range(1, BLOCKS + 1):
        own = f"{name}_block{i}"
        yield Block(f"{own}_in", "pointwise", inner, skip="start", **hidden)
        groups = inner // group
        yield Block(f"{own}_conv", "conv", inner, 3, 1, 1, groups=groups, **hidden)
        yield Block(f"{own}_out", "pointwise", width, skip="end", gain=0.0)
