"""The module that executes a plan of blocks."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from anigan_jax.networks.blocks import Block, InstanceNorm, Norm
from anigan_jax.networks.layers import (
    BatchNorm,
    Layer,
    activate,
    dropout,
    reflect,
    to_compute,
    to_float32,
)
from anigan_jax.networks.ops.norm import instance_norm

# The name of the sums of residual blocks: what rematerialization keeps.
RESIDUAL = "residual"


class Stack(nn.Module):
    """Executes `blocks` in order.

    Call with x (b, H, W, C) float32 and get the last block's output.

    Maps between layers, and what enters their products, are of type `dtype`; parameters,
    sums, norms and the output are float32.

    `train` uses batch statistics and dropout (which needs `keys`, (b,) example keys);
    `power_iterate` advances spectral norm. `parts`: of how many equal sets the images are, one
    after the other, each with batch statistics of its own. Returns the activations after each block
    as well where `features` is set.

    `told`: layers that x goes through apart; the batch norms of `blocks` follow what comes out.
    """

    blocks: tuple[Block, ...]
    norm: Norm | InstanceNorm
    negative_slope: float
    stddev: float
    axis_name: str | None = None
    dtype: str = "float32"
    told: tuple[Block, ...] = ()

    @property
    def trunk(self) -> int:
        """Number of layers before the last one, a discriminator's logit."""
        return len(self.blocks) - 1

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool,
        power_iterate: bool = False,
        keys: jax.Array | None = None,
        features: bool = False,
        parts: int = 1,
    ):
        rest = {"train": train, "power_iterate": power_iterate, "keys": keys, "parts": parts}
        followed = None
        if self.told:
            followed, _ = run_layers(self, make_layers(self, self.told), x, **rest)
        x, maps = run_layers(self, make_layers(self, self.blocks), x, text=followed, **rest)
        x = to_float32(x)
        return (x, maps) if features else x


def make_layers(net: nn.Module, blocks: tuple[Block, ...]) -> list[tuple]:
    """(block, its layer, its norm or None); called inside the compact method of `net`."""
    return [
        (
            block,
            Layer(
                block,
                net.stddev if block.stddev is None else block.stddev,
                # A logit: bfloat16 would round it to three digits.
                "float32" if block.features == 1 else net.dtype,
                name=block.name,
            ),
            _norm_of(net, block),
        )
        for block in blocks
    ]


def _norm_of(net: nn.Module, block: Block):
    if not block.norm:
        return None
    if isinstance(net.norm, InstanceNorm):
        return lambda x, *_: instance_norm(x, net.norm.epsilon)
    return BatchNorm(net.norm, net.axis_name, name=f"{block.name}_norm")


def run_layers(
    net, layers, x, *, train: bool, power_iterate: bool, keys, first: int = 0, text=None, parts=1
):
    """Executes layers; returns the output and the map after each of them.

    `first`: index of the first one within the network; dropout's draws depend on it.
    `text` (b, E): what the norms follow, or None. `parts`: see `Stack`.
    """
    maps, kept = [], None
    for index, (block, layer, norm) in enumerate(layers, first):
        if block.skip == "start":
            kept = x
        if block.reflect:
            x = reflect(x, block.reflect)
        x = layer(x, power_iterate)
        if block.pad_after:
            x = jnp.pad(x, ((0, 0), (0, block.pad_after), (0, block.pad_after), (0, 0)))
        if block.activation_first:
            x = activate(x, block.activation, net.negative_slope)
        if norm:
            x = norm(x, train, text, parts)
        if block.skip == "end":
            x = x + kept
        if not block.activation_first:
            x = activate(x, block.activation, net.negative_slope)
        if block.dropout and train and keys is not None:
            x = dropout(x, block.dropout, keys, index)
        if block.features > 1 and block.activation not in ("tanh", "sigmoid"):
            x = to_compute(x, net.dtype)
        if block.skip == "end":
            x = checkpoint_name(x, RESIDUAL)
        maps.append(x)
    return x, maps


def grid_max(x: jax.Array, side: int) -> jax.Array:
    """(n, H, W, C) -> (n, side, side, C): the maximum of each cell of a grid.

    Cells overlap where `side` does not divide H or W, as torch.nn.AdaptiveMaxPool2d's.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        ends = [(i * size // side, -(-(i + 1) * size // side)) for i in range(side)]
        cells = [jax.lax.slice_in_dim(x, a, b, axis=axis).max(axis) for a, b in ends]
        x = jnp.stack(cells, axis)
    return x
