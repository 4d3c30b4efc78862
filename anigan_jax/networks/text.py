"""Networks that see or read a text: seed S0's players and its encoder, after Reed et al. 2016."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from anigan_jax.networks.dcgan import Stack, make_layers, run_layers
from anigan_jax.networks.layers import to_float32
from anigan_jax.networks.specs import (
    Block,
    CharEncoder,
    Classifier,
    Norm,
    TextDiscriminator,
    TextGenerator,
    classifier_plan,
    generator_plan,
    joint_plan,
    text_plan,
)


class TextStack(nn.Module):
    """Layers of an image or latent, the text joined to their output, further layers.

    Call with x (b, H, W, C) and texts, a tuple of (b, T); the layers before the join run
    once for all texts. Returns a tuple of outputs, one per text.

    Attributes:
      text, before, after: plans of the text, of what comes before and after the join.
      join: 'concat': the text beside each place of the map; 'norm': the batch norms of
        `after` follow the text; 'product': the inner product of the text and the map
        summed over its places is added to the output of `after`.
    """

    text: tuple[Block, ...]
    before: tuple[Block, ...]
    after: tuple[Block, ...]
    join: str
    norm: Norm
    leak: float
    stddev: float
    axis_name: str | None = None
    dtype: str = "float32"

    @property
    def blocks(self) -> tuple[Block, ...]:
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


def generator(s: TextGenerator, axis_name: str | None = None, dtype="float32") -> TextStack:
    """The generator of the settings; x is z as (b, 1, 1, Z)."""
    plans = text_plan(s, s.text_dim, "leaky_relu"), (), generator_plan(s)
    rest = (s.norm, s.leak, s.stddev, axis_name, dtype)
    return TextStack(*plans, s.join, *rest, name="generator")


def discriminator(s: TextDiscriminator, axis_name: str | None = None, dtype="float32") -> TextStack:
    """The discriminator of the settings; its outputs are (b, 1, 1, 1) or (b, 1)."""
    before, after = joint_plan(s)
    product = s.join == "product"
    width = before[-1].features if product else s.text_dim
    told = text_plan(s, width, "none" if product else "leaky_relu")
    rest = (s.norm, s.leak, s.stddev, axis_name, dtype)
    return TextStack(told, before, after, s.join, *rest, name="discriminator")


class CharCNNRNN(nn.Module):
    """Characters -> convolutions over time -> GRU -> mean over time -> (b, dim).

    Call with codes (b, L) integers: 1 + index among `letters` letters, 0 for others and
    the end.

    Source: Reed et al. 2016 (CVPR), section 4, "char-CNN-RNN". Departs: narrower, GRU,
    for captions of up to 64 characters instead of 201.
    """

    settings: CharEncoder
    letters: int

    @nn.compact
    def __call__(self, codes: jax.Array) -> jax.Array:
        s = self.settings
        x = jax.nn.one_hot(codes.astype(jnp.int32) - 1, self.letters)  # (b, L, letters)
        for i, width in enumerate(s.widths):
            x = jax.nn.relu(nn.Dense(width, name=f"conv{i + 1}")(windows(x, s.kernel)))
            if i < len(s.widths) - 1:
                half = x.shape[1] // 2
                x = x[:, : 2 * half].reshape(x.shape[0], half, 2, -1).max(2)
        x = nn.RNN(nn.GRUCell(s.hidden, name="gru"))(x)
        return nn.Dense(s.dim, name="vector")(x.mean(1))


def windows(x: jax.Array, size: int) -> jax.Array:
    """(b, L, C) -> (b, L - size + 1, size C): a convolution over time as one product.

    Raises:
      ValueError: the sequence is shorter than a window.
    """
    count = x.shape[1] - size + 1
    if count < 1:
        raise ValueError(f"{x.shape[1]} places hold no window of {size}")
    return jnp.concatenate([x[:, i : i + count] for i in range(size)], axis=-1)


def image_encoder(s: Classifier, dim: int, axis_name: str | None = None) -> Stack:
    """A convolutional network from images (b, H, W, 3) to vectors or logits (b, dim)."""
    plan = classifier_plan(s, dim)
    return Stack(plan, s.norm, s.leak, s.stddev, axis_name, name="image")
