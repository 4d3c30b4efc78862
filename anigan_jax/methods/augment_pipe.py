"""Augmentation by geometry and color, each part with a probability, a key per example.

Source: Karras et al. 2020 (StyleGAN2-ADA), appendix B; strengths and multipliers of R3GAN.
Departs: images are resampled in two passes of one axis each, linearly, or by the mean of what a
shrunk pixel covers, and are gray outside of themselves; the source filters by wavelets and
reflects. The parts follow each other in the source's reverse order: whole shifts are of output
pixels and fractional ones of input pixels. Both turns share one coin; the source tosses two.
Such passes are matrix products, in every derivative: what gathers pixels scatters gradients, and
the sums of a GPU's scatter have no fixed order.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Key

from anigan_jax.methods.augment import of_colors

Part = Literal[
    "xflip",
    "rotate90",
    "xint",
    "scale",
    "rotate",
    "aniso",
    "xfrac",
    "brightness",
    "contrast",
    "lumaflip",
    "hue",
    "saturation",
    "cutout",
]
GEOMETRY: tuple[Part, ...] = ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac")
COLOR: tuple[Part, ...] = ("brightness", "contrast", "lumaflip", "hue", "saturation")
EVERYTHING: tuple[Part, ...] = (*GEOMETRY, *COLOR, "cutout")
# A part of color is drawn with this share of the probability.
COLOR_SHARE = 0.5
SCALE, ANISO, SHIFT, OFFSET = 0.2, 0.2, 1 / 8, 1 / 8
BRIGHTNESS, CONTRAST, SATURATION = 0.2, 0.5, 1.0


class Draws(NamedTuple):
    """What one image's parts draw.

    Attributes:
      on: part -> () bool, whether it is applied.
      uniform: part -> (2,) in [0, 1).
      normal: part -> (2,) standard normal.
    """

    on: dict[str, Array]
    uniform: dict[str, Array]
    normal: dict[str, Array]


def augment(
    images: Float[Array, "b s s c"],
    keys: Key[Array, " b"],
    parts: tuple[Part, ...],
    p: Float[Array, ""] | float,
) -> Float[Array, "b s s c"]:
    """Images (b, S, S, C) in [-1, 1] -> the same, some of them changed; differentiable.

    Args:
      keys: (b,), one of each example.
      parts: what can be applied; () for nothing.
      p: () in [0, 1], the probability of each part of geometry; colors have half of it.
    """
    if not parts:
        return images
    return jax.vmap(lambda x, key: _augment(x, _draws(key, parts, p), parts))(images, keys)


def _draws(key: Array, parts: tuple[Part, ...], p: Array | float) -> Draws:
    """By the part's own place, so that what one draws does not depend on the others."""
    of_coins, of_uniform, of_normal = jax.random.split(key, 3)
    n = len(EVERYTHING)
    share = np.array([COLOR_SHARE if part in COLOR else 1.0 for part in EVERYTHING], np.float32)
    on = jax.random.uniform(of_coins, (n,)) < share * p
    uniform, normal = jax.random.uniform(of_uniform, (n, 2)), jax.random.normal(of_normal, (n, 2))
    place = {part: EVERYTHING.index(part) for part in parts}
    return Draws(*({part: x[i] for part, i in place.items()} for x in (on, uniform, normal)))


def _augment(x: Array, draws: Draws, parts: tuple[Part, ...]) -> Array:
    if set(parts) & {*GEOMETRY}:
        x = resample(x, *_geometry(draws, x.shape[0], parts))
    if set(parts) & {*COLOR}:
        matrix, offset = (part.astype(x.dtype) for part in _color(draws, parts))

        def recolored(rgb: Array) -> Array:
            return jnp.einsum("ijc,dc->ijd", rgb, matrix, precision="highest") + offset

        x = of_colors(x, recolored)
    if "cutout" in parts:
        rows = (jnp.arange(x.shape[0]) + 0.5) / x.shape[0]
        hit = draws.on["cutout"] & (jnp.abs(rows[:, None] - draws.uniform["cutout"]) < 0.25)
        x = jnp.where((hit[:, None, 0] & hit[None, :, 1])[..., None], 0.0, x)
    return x


def _geometry(draws: Draws, side: int, parts: tuple[Part, ...]) -> tuple[Array, Array]:
    """The place (row, column), from the center, that an output pixel shows: matrix, offset."""
    matrix, offset = jnp.eye(2), jnp.zeros(2)

    def then(matrix_of_part: Array) -> None:
        nonlocal matrix, offset
        matrix, offset = matrix_of_part @ matrix, matrix_of_part @ offset

    def drawn(part: Part, value, otherwise=0.0) -> Array:
        return jnp.where(draws.on[part], value, otherwise)

    if "xflip" in parts:
        then(jnp.diag(jnp.stack([1.0, drawn("xflip", 1 - 2 * _of(draws, "xflip", 2), 1.0)])))
    if "rotate90" in parts:
        quarters = drawn("rotate90", _of(draws, "rotate90", 4))
        # Their cosines and sines, exactly.
        then(_rotation(jnp.abs(quarters - 2) - 1, 1 - jnp.abs(quarters - 1)))
    if "xint" in parts:
        most = round(SHIFT * side)
        whole = jnp.floor(draws.uniform["xint"] * (2 * most + 1)) - most
        offset = offset + drawn("xint", whole)
    if "scale" in parts:
        then(jnp.eye(2) * 2 ** drawn("scale", -SCALE * draws.normal["scale"][0]))
    # A full turn in two, around the change of the aspect.
    angles = jnp.pi * (2 * draws.uniform["rotate"] - 1) if "rotate" in parts else jnp.zeros(2)
    if "rotate" in parts:
        then(_turn(drawn("rotate", angles[0])))
    if "aniso" in parts:
        power = drawn("aniso", ANISO * draws.normal["aniso"][0])
        then(jnp.diag(jnp.stack([2**power, 2**-power])))
    if "rotate" in parts:
        then(_turn(drawn("rotate", angles[1])))
    if "xfrac" in parts:
        offset = offset + drawn("xfrac", OFFSET * side * draws.normal["xfrac"])
    return matrix, offset


def _of(draws: Draws, part: Part, count: int) -> Array:
    """() one of 0.0 to count - 1."""
    return jnp.floor(count * draws.uniform[part][0])


def _rotation(cosine: Array, sine: Array) -> Array:
    return jnp.stack([jnp.stack([cosine, -sine]), jnp.stack([sine, cosine])])


def _turn(angle: Array) -> Array:
    return _rotation(jnp.cos(angle), jnp.sin(angle))


def resample(x: Float[Array, "s s c"], matrix: Array, offset: Array) -> Float[Array, "s s c"]:
    """y[p] = x[matrix p + offset], places from the center in pixels; 0 outside of x.

    Source: Catmull and Smith 1980: columns first, then rows, of the image or of its transpose,
    whichever spreads the second pass wider.
    """
    swap = jnp.abs(matrix[0, 1]) > jnp.abs(matrix[1, 1])
    x = jnp.where(swap, x.swapaxes(0, 1), x)
    (a, b), (d, e) = jnp.where(swap, matrix[::-1], matrix)
    t_row, t_column = jnp.where(swap, offset[::-1], offset)
    side = x.shape[0]
    at = jnp.arange(side) - (side - 1) / 2
    # Row r of column c of the source shows there what row r of the output does.
    rows = (a - b * d / e) * at[:, None] + b / e * (at[None, :] - t_column) + t_row
    columns = d * at[:, None] + e * at[None, :] + t_column
    first = _weights(rows.T, a - b * d / e, at, x.dtype)
    middle = jnp.einsum("cri,icd->rcd", first, x, precision="highest")
    second = _weights(columns, e, at, x.dtype)
    return jnp.einsum("rcj,rjd->rcd", second, middle, precision="highest")


def _weights(places: Array, step: Array, at: Array, dtype) -> Array:
    """(n, m) places on an axis -> (n, m, S) weights of its pixels, which sum to 1 inside.

    A pixel's box, averaged over a step to the next place where that is longer than a pixel.
    """
    wide = jnp.maximum(jnp.abs(step), 1.0)
    away = jnp.abs(places[..., None] - at)
    return (jnp.clip((1 + wide) / 2 - away, 0.0, 1.0) / wide).astype(dtype)


# The gray axis.
LUMA = np.ones(3) / math.sqrt(3)
ALONG = np.outer(LUMA, LUMA)


def _color(draws: Draws, parts: tuple[Part, ...]) -> tuple[Array, Array]:
    """(3, 3) matrix and (3,) offset of the colors; each part acts on what the ones before made."""
    matrix, offset, along = jnp.eye(3), jnp.zeros(3), jnp.asarray(ALONG, jnp.float32)

    def then(part: Part, own: Array) -> None:
        nonlocal matrix, offset
        own = jnp.where(draws.on[part], own, jnp.eye(3))
        matrix, offset = own @ matrix, own @ offset

    if "brightness" in parts:
        value = BRIGHTNESS * draws.normal["brightness"][0]
        offset = offset + jnp.where(draws.on["brightness"], value, 0.0)
    if "contrast" in parts:
        then("contrast", jnp.eye(3) * 2 ** (CONTRAST * draws.normal["contrast"][0]))
    if "lumaflip" in parts:
        then("lumaflip", jnp.eye(3) - 2 * along * _of(draws, "lumaflip", 2))
    if "hue" in parts:
        angle = jnp.pi * (2 * draws.uniform["hue"][0] - 1)
        x, y, z = LUMA
        cross = jnp.asarray(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]), jnp.float32)
        turned = jnp.cos(angle) * (jnp.eye(3) - along) + jnp.sin(angle) * cross
        then("hue", along + turned)
    if "saturation" in parts:
        factor = 2 ** (SATURATION * draws.normal["saturation"][0])
        then("saturation", along + (jnp.eye(3) - along) * factor)
    return matrix, offset
