"""Image-to-image generators with residual blocks, and discriminators with a map of logits.

Source: Johnson et al. 2016 and Zhu et al. 2017 (CycleGAN), appendix 7.2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from anigan_jax.errors import UserError
from anigan_jax.networks.blocks import Block, InstanceNorm, NetworkSettings, Norm
from anigan_jax.networks.stack import Stack

NormKind = Literal["instance", "batch", "none"]


@dataclass(frozen=True)
class ResnetGenerator(NetworkSettings):
    """From an image to an image: c7, n down, `blocks` residual, n up, c7, tanh."""

    size: int = 64
    """Image side in pixels; a multiple of 2^num_downsamples."""
    base_channels: int = 64
    """Channels of the first map; they double at each halving of the side."""
    blocks: int = 9
    """Residual blocks."""
    num_downsamples: int = 2
    """Halvings of the side before the residual blocks, doublings after them."""
    flat: bool = False
    """CartoonGAN's: each convolution that changes the side is followed by one of stride 1,
    and norm and activation follow the pair."""
    norm: NormKind = "instance"
    """After every convolution but the last. instance: no gain and bias, each image alone."""
    bias: bool = True
    """Biases in convolutions that a norm follows, as the PyTorch code of CycleGAN has them;
    instance norm takes them out again. The last convolution always has one."""
    stddev: float = 0.02
    """Kernels start at N(0, this)."""

    def check(self, field: str) -> None:
        """Refuses sizes that do not come back; `field` names the settings."""
        if self.num_downsamples < 1 or self.blocks < 0 or self.base_channels < 1:
            raise UserError(
                f"{field} needs num_downsamples and base_channels of at least 1, and "
                "blocks of 0 or more"
            )
        check_side(self.size, self.multiple_of, f"{field}.size")

    @property
    def multiple_of(self) -> int:
        return 2**self.num_downsamples

    @property
    def negative_slope(self) -> float:
        return 0.0

    def build(self, axis_name: str | None = None, dtype: str = "float32") -> Stack:
        """The module: images (b, S, S, 3) in [-1, 1] -> the same."""
        return stack(self, generator_plan(self), axis_name, dtype)


@dataclass(frozen=True)
class PatchDiscriminator(NetworkSettings):
    """From an image to a map of logits, each of which judges a patch (PatchGAN)."""

    size: int = 64
    """Image side in pixels."""
    base_channels: int = 64
    """Channels after the first layer; they double in each further one, at most three times."""
    num_downsamples: int = 3
    """k4 convolutions of stride 2; 3, and `num_flat_convs` 1, are the 70x70 PatchGAN."""
    num_flat_convs: int = 1
    """k4 convolutions of stride 1 before the logits."""
    extra: bool = False
    """A k3 convolution before the logits that keeps channels and side (Tsinghua)."""
    head_kernel: Literal[3, 4] = 4
    """Kernel side of the logits; 3 keeps the side of the map, 4 takes 1 off."""
    norm: NormKind = "instance"
    """After every convolution but the first and the logits."""
    first_norm: bool = False
    """After the first convolution too (Tsinghua)."""
    bias: bool = True
    """Biases in convolutions that a norm follows; the others always have them."""
    negative_slope: float = 0.2
    """Slope of leaky ReLU for negative inputs."""
    stddev: float = 0.02
    """Kernels start at N(0, this)."""

    def check(self, field: str) -> None:
        """Refuses sizes that leave no map of logits."""
        if self.num_downsamples < 1 or self.num_flat_convs < 0 or self.base_channels < 1:
            raise UserError(
                f"{field} needs num_downsamples and base_channels of at least 1, and "
                "num_flat_convs of 0 or more"
            )
        check_side(self.size, 2**self.num_downsamples, f"{field}.size")
        side = (self.size >> self.num_downsamples) - self.num_flat_convs
        if side - (self.head_kernel == 4) < 1 or (self.norm == "instance" and side < 2):
            raise UserError(
                f"{field}: {self.num_downsamples} halvings of {self.size} px and "
                f"{self.num_flat_convs} k4 "
                f"layers leave a map of {side} px; use fewer of them (num_downsamples, "
                "num_flat_convs)"
            )

    def build(self, axis_name: str | None = None, dtype: str = "float32") -> Stack:
        """The module: images (b, S, S, 3) -> logits (b, s, s, 1)."""
        return stack(self, discriminator_plan(self), axis_name, dtype)


def check_side(size: int, step: int, field: str) -> None:
    """Refuses a side in pixels that is no multiple of `step`, or no larger than it."""
    if size < 2 * step or size % step:
        near = max(2, round(size / step)) * step
        least = ", the least" if size < 2 * step else ""
        told = f"it must be a multiple of {step}, such as {near}{least}"
        raise UserError(f"{field} is {size}; {told}")


def generator_plan(g: ResnetGenerator) -> tuple[Block, ...]:
    """The layers of a generator."""
    norm = g.norm != "none"
    hidden = {"norm": norm, "bias": g.bias or not norm}
    act = {"activation": "relu", **hidden}
    blocks = [Block("first", "conv", g.base_channels, 7, reflect=3, **act)]

    def scaled(block: Block) -> list[Block]:
        if not g.flat:
            return [replace(block, **act)]
        flat = Block(f"{block.name}_flat", "conv", block.features, 3, 1, 1, **act)
        return [replace(block, bias=True), flat]

    for i in range(1, g.num_downsamples + 1):
        width = g.base_channels * 2**i
        blocks += scaled(Block(f"down{i}", "conv", width, 3, 2, 1))
    for i in range(1, g.blocks + 1):
        blocks.append(Block(f"res{i}a", "conv", width, 3, reflect=1, skip="start", **act))
        blocks.append(Block(f"res{i}b", "conv", width, 3, reflect=1, skip="end", **hidden))
    for i in range(1, g.num_downsamples + 1):
        width //= 2
        blocks += scaled(Block(f"up{i}", "conv_transpose", width, 3, 2, 1, 1))
    return (*blocks, Block("rgb", "conv", 3, 7, reflect=3, bias=True, activation="tanh"))


def discriminator_plan(d: PatchDiscriminator) -> tuple[Block, ...]:
    """The layers of a discriminator."""
    norm = d.norm != "none"
    plain = {"activation": "leaky_relu", "bias": True}
    hidden = {**plain, "norm": norm, "bias": d.bias or not norm}
    first = hidden if d.first_norm else plain
    blocks = [Block("down1", "conv", d.base_channels, 4, 2, 1, **first)]
    for i in range(2, d.num_downsamples + 1):
        blocks.append(
            Block(f"down{i}", "conv", d.base_channels * 2 ** min(i - 1, 3), 4, 2, 1, **hidden)
        )
    for i in range(1, d.num_flat_convs + 1):
        width = d.base_channels * 2 ** min(d.num_downsamples + i - 1, 3)
        blocks.append(Block(f"flat{i}", "conv", width, 4, 1, 1, **hidden))
    if d.extra:
        blocks.append(Block("extra", "conv", blocks[-1].features, 3, 1, 1, **hidden))
    return (*blocks, Block("logit", "conv", 1, d.head_kernel, 1, 1, bias=True))


def stack(settings, plan: tuple[Block, ...], axis_name: str | None, dtype: str) -> Stack:
    """The module that executes a plan under the norm and constants of its settings."""
    norm = Norm() if settings.norm == "batch" else InstanceNorm()
    return Stack(plan, norm, settings.negative_slope, settings.stddev, axis_name, dtype)
