"""Image augmentation on the device, with a key per example."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Key, Shaped, UInt8

# Of RGBA: what alpha multiplies.
COLORS = np.array([1, 1, 1, 0], np.int32)


def signed(images: UInt8[Array | np.ndarray, "*s"]) -> Float[Array | np.ndarray, "*s"]:
    """uint8 -> float32 in [-1, 1], any shape; the colors of RGBA multiplied by alpha.

    So a network sees one color where nothing shows, and none bleeds where it is resampled;
    `storage.images.to_uint8` divides again.
    """
    values = images.astype(jnp.int32)
    # One rounding; x / 127.5 - 1 may become a multiply-add or not, as fusion decides.
    if images.shape[-1:] == (4,):
        most = 255 * 255
        values = values * (values[..., 3:] * COLORS + 255 * (1 - COLORS))
        return (2 * values - most).astype(jnp.float32) / most
    return (2 * values - 255).astype(jnp.float32) / 255


def of_colors(images: Array, change: Callable[[Array], Array]) -> Array:
    """Images (..., C) whose first three channels are changed; alpha stays."""
    if images.shape[-1] == 3:
        return change(images)
    return jnp.concatenate([change(images[..., :3]), images[..., 3:]], -1)


def random_flip(
    images: Shaped[Array, "b h w c"], keys: Key[Array, " b"]
) -> Shaped[Array, "b h w c"]:
    """Mirrors each of (b, H, W, C) with probability 1/2; (b,) keys."""
    coins = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(coins[:, None, None, None], images[:, :, ::-1], images)


def diff_augment(
    images: Float[Array, "b s s c"], keys: Key[Array, " b"], policy: tuple[str, ...]
) -> Float[Array, "b s s c"]:
    """DiffAugment of (b, H, W, C) images in [-1, 1]; differentiable, a key per example.

    Source: Zhao et al. 2020; constants of its reference code. Departs: a cut's center lies on a
    pixel of the image, and of sides that 8 does not divide the eighth and the half are cut off.

    Raises:
      ValueError: for an unknown entry of `policy`.
    """
    unknown = set(policy) - {"color", "translation", "cutout"}
    if unknown:
        raise ValueError(f"unknown augmentation {sorted(unknown)}")
    if not policy:
        return images
    draws = jax.vmap(lambda key: jax.random.uniform(key, (7,)))(keys)
    return jax.vmap(lambda x, u: _augment(x, u, policy))(images, draws)


def _recolored(x: Array, u: Array) -> Array:
    x = x + (u[0] - 0.5)
    grey = x.mean(-1, keepdims=True)
    x = (x - grey) * (2 * u[1]) + grey
    mean = x.mean()
    return (x - mean) * (0.5 + u[2]) + mean


def _augment(x: Array, u: Array, policy: tuple[str, ...]) -> Array:
    side = x.shape[0]
    rows = jnp.arange(side)
    if "color" in policy:
        x = of_colors(x, lambda rgb: _recolored(rgb, u))
    if "translation" in policy:
        most = side // 8
        # One-hot products: a gather's gradient would be a scatter.
        shift = jnp.floor(u[3:5] * (2 * most + 1)) - most
        down = (rows[:, None] - rows[None, :] == shift[0]).astype(x.dtype)
        right = (rows[:, None] - rows[None, :] == shift[1]).astype(x.dtype)
        # Exact on every device: by default a TPU would round the pixels to bfloat16.
        x = jnp.einsum("ij,jkc,lk->ilc", down, x, right, precision="highest")
    if "cutout" in policy:
        half = side // 4
        center = jnp.floor(u[5:7] * side)
        hit = jnp.abs(rows[:, None] - center + 0.5) < half  # (side, 2)
        x = jnp.where((hit[:, None, 0] & hit[None, :, 1])[..., None], 0.0, x)
    return x
