"""SAN: D's last layer as a direction and a length, which different losses teach.

Source: Takida et al. 2024 (SAN, ICLR), section 5.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from anigan_jax.core import Array
from anigan_jax.errors import UserError


def split(features: Array, layer: dict, spectral: bool) -> tuple[Array, Array]:
    """The logits of D's last layer, (b,), twice: equal but for a bias, with gradients of their own.

    A linear layer w is its direction w / |w| times its length |w|. The first logits teach the
    layers before, the length and the bias; the second ones the direction alone.

    Args:
      features: (b, ...) the map that the last layer reads, all of it.
      layer: that layer's parameters; a kernel with one output, maybe a bias.
      spectral: the layer is divided by its largest singular value, so its length is 1.

    Raises:
      UserError: the layer reads parts of the map.
    """
    stop = jax.lax.stop_gradient
    kernel = layer["weight"]["kernel"].astype(jnp.float32).reshape(-1)
    x = features.astype(jnp.float32).reshape(len(features), -1)
    if x.shape[1] != len(kernel):
        raise UserError("method.san needs a D whose last layer reads the whole last map at once")
    norm = jnp.linalg.norm(kernel)
    direction, length = kernel / norm, jnp.float32(1) if spectral else norm
    first = length * (x @ stop(direction)) + layer.get("bias", 0.0)
    return first, stop(length) * (stop(x) @ direction)
