"""Networks that see a text: SJTU's generator and discriminator, after Reed et al. 2016."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from anigan_jax.errors import UserError
from anigan_jax.networks.blocks import Activation, Block, Norm
from anigan_jax.networks.dcgan import Discriminator, Generator, discriminator_plan, generator_plan
from anigan_jax.networks.layers import to_float32
from anigan_jax.networks.stack import make_layers, run_layers

Plan = tuple[Block, ...]


@dataclass(frozen=True)
class TextGenerator(Generator):
    """A generator that sees a text beside z (SJTU, after Reed et al. 2016)."""

    kernel: int = 5
    stem: Literal["conv", "dense"] = "dense"
    bias: bool = True
    text_dim: int = 256
    """Length of the projected text."""
    embed: int = 0
    """Length of a learned embedding of the tags before the projection; 0: none."""
    join: Literal["concat", "norm"] = "concat"
    """concat: the text beside z (SJTU); norm: gains and biases of every batch norm
    follow the text, so that z alone makes the first map (de Vries et al. 2017)."""

    @property
    def text_layers(self) -> tuple[str, ...]:
        return ("embedding" if self.embed else "text",)

    def check(self, field: str) -> None:
        super().check(field)
        if self.self_modulation:
            raise UserError(
                f"{field}.self_modulation is {self.self_modulation}; it is only for generators "
                f"without texts. With texts, {field}.join 'norm' makes the norms follow the text"
            )

    def build(self, axis_name: str | None = None, dtype: str = "float32") -> nn.Module:
        """The module: z (b, 1, 1, Z) and texts, a tuple of (b, T) -> a tuple of images."""
        plans = text_plan(self, self.text_dim, "leaky_relu"), (), generator_plan(self)
        rest = (self.norm, self.negative_slope, self.stddev, axis_name, dtype)
        return TextStack(*plans, self.join, *rest, name="generator")


@dataclass(frozen=True)
class TextDiscriminator(Discriminator):
    """A discriminator that sees a text at its last map (SJTU)."""

    kernel: int = 5
    bias: bool = True
    first_norm: bool = True
    text_dim: int = 256
    """Length of the projected text (join 'product' needs that of the last map)."""
    embed: int = 0
    """Length of a learned embedding of the tags before the projection; 0: none."""
    join: Literal["concat", "product", "inner"] = "concat"
    """concat: the text repeated over the last map, a 1x1 convolution, the logit; product:
    a logit, plus the inner product of the text and the map summed over its places
    (projection discriminator, Miyato and Koyama 2018); inner: the inner product of the text
    and as many outputs as it is long in place of the one logit, so that each place of the map
    has its own weight (Karras et al. 2020, without their root of the length)."""

    @property
    def text_layers(self) -> tuple[str, ...]:
        return ("embedding" if self.embed else "text",)

    def build(self, axis_name: str | None = None, dtype: str = "float32") -> nn.Module:
        """The module: images and texts, a tuple of (b, T) -> a tuple of logits, one per text."""
        rest = (self.norm, self.negative_slope, self.stddev, axis_name, dtype)
        return TextStack(*joint_plan(self), self.join, *rest, name="discriminator")


def text_plan(s: TextGenerator | TextDiscriminator, features: int, activation: Activation):
    """Layers of a text: learned embedding, where there is one, and projection."""
    plan = (Block("text", "dense", features, bias=True, activation=activation),)
    if s.embed:
        # Like any embedding it starts at N(0, 1), or z would drown it.
        embedding = Block("embedding", "dense", s.embed, stddev=1.0)
        plan = (embedding, *plan)
    return tuple(replace(block, spectral=s.spectral) for block in plan)


def joint_plan(d: TextDiscriminator) -> tuple[Plan, Plan, Plan]:
    """Layers of the text, layers of an image before the text joins, layers after."""
    *before, logit = discriminator_plan(d)
    last = before[-1].features
    if d.join != "concat":
        length, outputs = (last, 1) if d.join == "product" else (d.text_dim, d.text_dim)
        head = replace(logit, op="dense", features=outputs, kernel=0)
        return text_plan(d, length, "none"), tuple(before), (head,)
    joint = Block("joint", "conv", last, 1, 1, 0, activation="leaky_relu")
    joint = replace(joint, norm=d.batch_norm, bias=d.bias, spectral=d.spectral)
    return text_plan(d, d.text_dim, "leaky_relu"), tuple(before), (joint, logit)


class TextStack(nn.Module):
    """Layers of an image or latent, the text joined to their output, further layers.

    Call with x (b, H, W, C) and texts, a tuple of (b, T); the layers before the join run
    once for all texts. Returns a tuple of outputs, one per text.

    Attributes:
      text, before, after: plans of the text, of what comes before and after the join.
      join: 'concat': the text beside each place of the map; 'norm': the batch norms of
        `after` follow the text; 'product': the inner product of the text and the map
        summed over its places is added to the output of `after`; 'inner': the inner product
        of the text and the output of `after` alone.
    """

    text: Plan
    before: Plan
    after: Plan
    join: str
    norm: Norm
    negative_slope: float
    stddev: float
    axis_name: str | None = None
    dtype: str = "float32"

    @property
    def blocks(self) -> Plan:
        """All layers, in the order of their maps."""
        return (*self.before, *self.text, *self.after)

    @property
    def trunk(self) -> int:
        """Number of layers before the text joins; they come first in `blocks`."""
        return len(self.before)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        texts: tuple[jax.Array, ...],
        *,
        train: bool,
        power_iterate: bool = False,
        keys: jax.Array | None = None,
        features: bool = False,
    ):
        def run(layers, x, first: int, iterate: bool, told=None):
            rest = {"train": train, "power_iterate": iterate, "keys": keys, "text": told}
            return run_layers(self, layers, x, first=first, **rest)

        before, text, after = (make_layers(self, b) for b in (self.before, self.text, self.after))
        x, maps = run(before, x, 0, power_iterate)
        outputs = []
        for number, vector in enumerate(texts):
            # One power iteration for all texts: they see the same kernels.
            iterate = power_iterate and number == 0
            told, text_maps = run(text, vector, len(before), iterate)
            joined = self._joined(x, told)
            followed = told if self.join == "norm" else None
            place = len(before) + len(text)
            y, after_maps = run(after, joined, place, iterate, followed)
            if self.join == "product":
                y = y + jnp.sum(to_float32(told) * joined, -1, keepdims=True)
            if self.join == "inner":
                y = jnp.sum(to_float32(told) * to_float32(y), -1, keepdims=True)
            outputs.append(to_float32(y))
            all_maps = [*maps, *text_maps, *after_maps]
        return (tuple(outputs), all_maps) if features else tuple(outputs)

    def _joined(self, x: jax.Array, told: jax.Array) -> jax.Array:
        """What `after` sees of the map and the text."""
        if self.join == "concat":
            return concatenate(x, told)
        return to_float32(x).sum((1, 2)) if self.join == "product" else x


def concatenate(x: jax.Array, text: jax.Array) -> jax.Array:
    """(b, H, W, C), (b, E) -> (b, H, W, C + E): the text repeated over space."""
    text = jnp.broadcast_to(text[:, None, None, :], (*x.shape[:3], text.shape[-1]))
    return jnp.concatenate([x, text], axis=-1)
