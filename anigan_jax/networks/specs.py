"""Settings of the DCGAN networks, and the layer plans they stand for; no JAX here.

A network is a tuple of `Block`s, so every DCGAN of the seeds is data: `describe`
prints the same plan that `networks.dcgan.Stack` executes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from anigan_jax.errors import UserError

Activation = Literal["none", "relu", "leaky_relu", "tanh", "sigmoid"]


@dataclass(frozen=True)
class Block:
    """One layer: operation, then zero padding, norm, sum, activation, dropout, in order.

    Attributes:
      op: 'dense' reshapes to (side, side, features) where `side` > 0.
      padding: pixels on each side, or 'same' for TensorFlow's rule.
      pad_after: zero rows and columns appended at the bottom and right.
      reflect: pixels mirrored on each side before the operation.
      skip: 'start' keeps the input; 'end' adds what was kept, after the norm.
      stddev: the kernel starts at N(0, this); None: as the network says.
    """

    name: str
    op: Literal["dense", "conv", "conv_transpose", "upsample_conv"]
    features: int
    kernel: int = 0
    stride: int = 1
    padding: int | Literal["same"] = 0
    output_padding: int = 0
    side: int = 0
    bias: bool = False
    spectral: bool = False
    pad_after: int = 0
    reflect: int = 0
    skip: Literal["", "start", "end"] = ""
    norm: bool = False
    activation: Activation = "none"
    dropout: float = 0.0
    stddev: float | None = None


@dataclass(frozen=True)
class Norm:
    """Batch norm constants. The defaults are PyTorch's (its momentum 0.1 is 0.9 here)."""

    momentum: float = 0.9
    epsilon: float = 1e-5
    """Added to the variance."""
    scale_stddev: float = 0.02
    """Gains start at N(1, this); 0 for Keras's ones."""


@dataclass(frozen=True)
class InstanceNorm:
    """Instance norm constants: no gain, no bias, no running statistics (CycleGAN)."""

    epsilon: float = 1e-5
    """Added to the variance."""


@dataclass(frozen=True)
class Generator:
    """A DCGAN generator: from z to (size, size, 3)."""

    z_dim: int = 100
    """Length of the latent."""
    size: int = 64
    """Image side in pixels."""
    base: int = 64
    """Channels of the widest map; they double at each halving of the side."""
    start: int = 4
    """Side of the first map."""
    kernel: int = 4
    """Kernel side: 4 (PyTorch style) or 5 (Radford)."""
    stem: Literal["conv", "dense"] = "conv"
    """First layer: a transposed convolution of a 1x1 map, or dense + reshape."""
    upsample: Literal["transpose", "nearest"] = "transpose"
    """Upsampling: transposed convolution, or nearest neighbour + convolution."""
    head: Literal["up", "extra", "conv"] = "up"
    """Last layers: an upsampling to RGB; a same-size convolution to 3 channels, then an
    upsampling (seed S1); or a same-size convolution to RGB at full size (seed S2)."""
    activation: Activation = "relu"
    leak: float = 0.2
    """Slope of leaky ReLU for negative inputs."""
    output: Literal["tanh", "sigmoid"] = "tanh"
    """sigmoid: images in [0, 1], as seed S2 trains them."""
    bias: bool = False
    """Biases in convolutions that batch norm follows (and in the last one)."""
    norm: Norm = Norm()
    stddev: float = 0.02
    """Kernels start at N(0, this); 0 for Glorot uniform, as Keras does."""


@dataclass(frozen=True)
class Discriminator:
    """A DCGAN discriminator: from (size, size, 3) to one logit."""

    size: int = 64
    """Image side in pixels."""
    base: int = 64
    """Channels after the first layer; they double at each halving of the side."""
    end: int = 4
    """Side of the last map before the logit."""
    kernel: int = 4
    batch_norm: bool = True
    """Batch norm after every convolution but the first and the last."""
    first_norm: bool = False
    """Batch norm after the first convolution too (seed S1)."""
    spectral: bool = False
    """Spectral norm on every convolution (Miyato et al. 2018)."""
    extra: bool = False
    """A channel- and size-preserving convolution before the logit (seed S1)."""
    head: Literal["conv", "dense"] = "conv"
    """Logit by one convolution over the whole last map, or flatten + dense."""
    pad_second: int = 0
    """Zero rows and columns after the second convolution (seed S2: 16 -> 17)."""
    dropout: float = 0.0
    """Share of activations dropped after each convolution."""
    leak: float = 0.2
    """Slope of leaky ReLU for negative inputs."""
    bias: bool = False
    norm: Norm = Norm()
    stddev: float = 0.02
    """Kernels start at N(0, this); 0 for Glorot uniform, as Keras does."""


def doublings(size: int, small: int, field: str) -> int:
    """How many factors of two lie between two sides; refuses others with the reason."""
    count = math.log2(size / small) if size > small > 0 else 0
    if count < 1 or count != int(count):
        sizes = ", ".join(str(small * 2**i) for i in range(2, 7))
        raise UserError(f"{field} is {size}; allowed are {small} x 2^n: {sizes}, ...")
    return int(count)


def up_padding(kernel: int) -> tuple[int, int]:
    """(padding, output_padding) of a stride-2 transposed convolution that doubles."""
    return (kernel - 1) // 2, kernel % 2


def generator_plan(g: Generator) -> tuple[Block, ...]:
    """The layers of a generator."""
    ups = doublings(g.size, g.start, "generator.size")
    act, hidden = g.activation, {"norm": True, "bias": g.bias}
    before_head = ups if g.head == "conv" else ups - 1
    widths = [g.base * 2 ** (before_head - i) for i in range(before_head + 1)]
    if g.stem == "dense":
        # A dense stem has its bias, as in Keras's summary (1,654,784 parameters).
        stem = Block("stem", "dense", widths[0], side=g.start, norm=True, activation=act)
        stem = replace(stem, bias=True)
    else:
        stem = Block("stem", "conv_transpose", widths[0], g.start, activation=act)
        stem = replace(stem, **hidden)
    blocks = [stem]
    for i, width in enumerate(widths[1:], start=1):
        blocks.append(_up(f"up{i}", width, g, activation=act, **hidden))
    if g.head == "extra":
        extra = Block("extra", "conv", 3, 3, 1, 1, activation=act, **hidden)
        blocks.append(extra)
    if g.head == "conv":
        last = Block("rgb", "conv", 3, g.kernel, 1, "same", bias=g.bias)
        blocks.append(replace(last, activation=g.output))
    else:
        blocks.append(_up("rgb", 3, g, bias=g.bias, activation=g.output))
    return tuple(blocks)


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
    blocks, width = [], d.base
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


@dataclass(frozen=True)
class TextGenerator(Generator):
    """A generator that sees a text beside z (seed S0, after Reed et al. 2016)."""

    kernel: int = 5
    stem: Literal["conv", "dense"] = "dense"
    bias: bool = True
    text_dim: int = 256
    """Length of the projected text."""
    embed: int = 0
    """Length of a learned embedding of the tags before the projection; 0: none."""
    join: Literal["concat", "norm"] = "concat"
    """concat: the text beside z (seed S0); norm: gains and biases of every batch norm
    follow the text, so that z alone makes the first map (de Vries et al. 2017)."""


@dataclass(frozen=True)
class TextDiscriminator(Discriminator):
    """A discriminator that sees a text at its last map (seed S0)."""

    kernel: int = 5
    bias: bool = True
    first_norm: bool = True
    text_dim: int = 256
    """Length of the projected text (join 'concat'; 'product' needs that of the last map)."""
    embed: int = 0
    """Length of a learned embedding of the tags before the projection; 0: none."""
    join: Literal["concat", "product"] = "concat"
    """concat: the text repeated over the last map, a 1x1 convolution, the logit; product:
    a logit, plus the inner product of the text and the map summed over its places
    (projection discriminator, Miyato and Koyama 2018)."""


def text_plan(s: TextGenerator | TextDiscriminator, features: int, activation: Activation):
    """Layers of a text: learned embedding, where there is one, and projection."""
    plan = (Block("text", "dense", features, bias=True, activation=activation),)
    if s.embed:
        # Like any embedding it starts at N(0, 1), or z would drown it.
        embedding = Block("embedding", "dense", s.embed, stddev=1.0)
        plan = (embedding, *plan)
    if isinstance(s, TextDiscriminator):
        plan = tuple(replace(block, spectral=s.spectral) for block in plan)
    return plan


def joint_plan(d: TextDiscriminator) -> tuple[tuple[Block, ...], tuple[Block, ...]]:
    """(layers before the text joins, layers after)."""
    *trunk, logit = discriminator_plan(d)
    if d.join == "product":
        pooled = replace(logit, op="dense", kernel=0, padding=0)
        return tuple(trunk), (pooled,)
    joint = Block("joint", "conv", trunk[-1].features, 1, 1, 0, activation="leaky_relu")
    joint = replace(joint, norm=d.batch_norm, bias=d.bias, spectral=d.spectral)
    return tuple(trunk), (joint, logit)


@dataclass(frozen=True)
class CharEncoder:
    """A character-level convolutional recurrent encoder of texts (Reed et al. 2016, CVPR)."""

    widths: tuple[int, ...] = (64, 128, 256)
    """Channels of the convolutions over characters; after each but the last, pooling by 2."""
    kernel: int = 4
    """Characters that a convolution sees."""
    hidden: int = 256
    """Units of the recurrent layer; its outputs are averaged over time."""
    dim: int = 256
    """Length of a text's vector."""

    def check(self, field: str, length: int) -> None:
        """Refuses more convolutions than texts of `length` characters have room for."""
        for width in self.widths:
            length -= self.kernel - 1
            if width < 1 or length < 1:
                raise UserError(
                    f"{field}.widths {self.widths} with kernel {self.kernel} leave nothing of "
                    "a text; take fewer convolutions or a shorter kernel"
                )
            length = max(length // 2, 1)


@dataclass(frozen=True)
class Classifier(Discriminator):
    """A convolutional classifier of hair and eye colour: the discriminator's trunk."""

    base: int = 32
    bias: bool = True
    dropout: float = 0.1

    def check(self, field: str) -> None:
        """Refuses what a classifier has not."""
        if self.spectral:
            raise UserError(f"{field}.spectral is for discriminators; a classifier is not normed")


def classifier_plan(c: Classifier, classes: int) -> tuple[Block, ...]:
    """The layers of a classifier: a discriminator's, with `classes` logits."""
    *trunk, _ = discriminator_plan(c)
    return (*trunk, Block("logits", "dense", classes, bias=True))
