"""A character-level convolutional recurrent encoder of texts (Reed et al. 2016, CVPR)."""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from anigan_jax.errors import UserError


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
                    "a text; use fewer convolutions or a shorter kernel"
                )
            length = max(length // 2, 1)


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
