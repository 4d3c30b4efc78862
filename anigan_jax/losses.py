"""Losses, pure and per example; no Flax, no module of ours.

Logits are (B,); computed in float32 at least. Weights belong to the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import softplus
from jaxtyping import Bool, Float, Integer

Logits = Float[Array, " b"]
PerExample = Float[Array, " b"]
RGB = Float[Array, "b h w 3"]


def _checked(*logits: Array) -> tuple[Array, ...]:
    shapes = {x.shape for x in logits}
    if len(shapes) > 1 or any(x.ndim != 1 for x in logits):
        raise ValueError(f"logits must all be (B,), got {[x.shape for x in logits]}")
    return tuple(x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in logits)


def bce(logits: Logits, target: float) -> PerExample:
    """Binary cross-entropy on logits, (B,) -> (B,): target softplus(-x) + (1 - target) softplus(x).

    Source: Goodfellow et al. 2014, eq. 1, in the stable form.
    """
    (x,) = _checked(logits)
    return target * softplus(-x) + (1 - target) * softplus(x)


def non_saturating_d(
    real: Logits, fake: Logits, real_label: float = 1.0, fake_label: float = 0.0
) -> tuple[PerExample, PerExample]:
    """BCE of D: (B,), (B,) -> two terms (B,). Source: Goodfellow et al. 2014, eq. 1."""
    real, fake = _checked(real, fake)
    return bce(real, real_label), bce(fake, fake_label)


def non_saturating_g(fake: Logits, real: Logits, real_label: float = 1.0) -> PerExample:
    """-log D(G(z)), (B,). Source: Goodfellow et al. 2014, section 3. `real` is unused."""
    return bce(fake, 1.0)


def minimax_g(fake: Logits, real: Logits, real_label: float = 1.0) -> PerExample:
    """log(1 - D(G(z))) = -softplus(x), (B,). Source: Goodfellow et al. 2014, eq. 1."""
    (fake,) = _checked(fake)
    return -softplus(fake)


def least_squares_d(
    real: Logits, fake: Logits, real_label: float = 1.0, fake_label: float = 0.0
) -> tuple[PerExample, PerExample]:
    """Squared distances to the labels. Departs: without the paper's 1/2. Mao et al. 2017."""
    real, fake = _checked(real, fake)
    return (real - real_label) ** 2, (fake - fake_label) ** 2


def least_squares_g(fake: Logits, real: Logits, real_label: float = 1.0) -> PerExample:
    """Squared distance of fakes to 1, (B,). Source: Mao et al. 2017, eq. 2, without 1/2."""
    (fake,) = _checked(fake)
    return (fake - 1.0) ** 2


def hinge_d(
    real: Logits, fake: Logits, real_label: float = 1.0, fake_label: float = 0.0
) -> tuple[PerExample, PerExample]:
    """max(0, 1 - real), max(0, 1 + fake); labels unused. Miyato et al. 2018, eq. 16."""
    real, fake = _checked(real, fake)
    return jax.nn.relu(1 - real), jax.nn.relu(1 + fake)


def wasserstein_d(
    real: Logits, fake: Logits, real_label: float = 1.0, fake_label: float = 0.0
) -> tuple[PerExample, PerExample]:
    """-real, fake; labels unused. Source: Arjovsky et al. 2017, eq. 3."""
    real, fake = _checked(real, fake)
    return -real, fake


def wasserstein_g(fake: Logits, real: Logits, real_label: float = 1.0) -> PerExample:
    """-fake, (B,); G's loss of the hinge too. Source: Arjovsky et al. 2017."""
    (fake,) = _checked(fake)
    return -fake


def relativistic_d(
    real: Logits, fake: Logits, real_label: float = 1.0, fake_label: float = 0.0
) -> tuple[PerExample, PerExample]:
    """Zeros, and softplus(fake - real) for pairs. Jolicoeur-Martineau 2019; R3GAN."""
    real, fake = _checked(real, fake)
    return jnp.zeros_like(real), softplus(fake - real)


def relativistic_g(fake: Logits, real: Logits, real_label: float = 1.0) -> PerExample:
    """softplus(real - fake) for pairs, (B,). Source: as `relativistic_d`."""
    fake, real = _checked(fake, real)
    return softplus(real - fake)


class Adversarial(NamedTuple):
    """The losses of both players, of logits (B,).

    Attributes:
      d: (real, fake, real_label, fake_label) -> two terms (B,).
      g: (fake, real, real_label) -> (B,).
      pairs: whether G's loss reads the logits of reals; else they may be anything.
      line: the logit that parts reals from fakes; None: nothing but their difference does.
      score: logits -> what D thinks, near 1 of reals and 0 of fakes.
    """

    d: Callable[..., tuple[Array, Array]]
    g: Callable[..., Array]
    pairs: bool = False
    line: float | None = 0.0
    score: Callable[[Array], Array] = jax.nn.sigmoid

    @property
    def sides(self) -> float:
        """The logit that accuracy parts by: `line`, or without one the sign, as far as that says
        anything."""
        return self.line or 0.0


ADVERSARIAL = {
    "non_saturating": Adversarial(non_saturating_d, non_saturating_g),
    "minimax": Adversarial(non_saturating_d, minimax_g),
    # Halfway between 0 and 1, smoothed or not.
    "least_squares": Adversarial(least_squares_d, least_squares_g, line=0.5, score=lambda x: x),
    "hinge": Adversarial(hinge_d, wasserstein_g),
    "wasserstein": Adversarial(wasserstein_d, wasserstein_g, line=None),
    "relativistic": Adversarial(relativistic_d, relativistic_g, pairs=True, line=None),
}
UNLABELED = ("hinge", "wasserstein", "relativistic")
"""Losses that smooth no labels."""
if TYPE_CHECKING:
    AdversarialName = str
else:
    # A checker of types cannot read a table; the command line and `config.check` can.
    AdversarialName = Literal[tuple(ADVERSARIAL)]


def matching_aware_d(
    d: Callable[..., tuple[Array, Array]],
    right: Logits,
    wrong: Logits,
    fake: Logits,
    real_label: float = 1.0,
    fake_label: float = 0.0,
) -> tuple[PerExample, PerExample, PerExample]:
    """Three terms (B,) of a D that judges an image and a text together.

    Args:
      d: an entry of `ADVERSARIAL`, its `d`.
      right, wrong: (B,) logits of real images with their own and with another text.
      fake: (B,) logits of generated images with the text they were made for.

    Returns:
      Terms of (real, right text), (real, wrong text), (fake, right text). Reed et al.
      2016, algorithm 1 halves the last two; SJTU adds all three.
    """
    real_term, fake_term = d(right, fake, real_label, fake_label)
    return real_term, d(right, wrong, real_label, fake_label)[1], fake_term


def interpolate_texts(
    one: Float[Array, "*s"], other: Float[Array, "*s"], beta: float
) -> Float[Array, "*s"]:
    """beta one + (1 - beta) other: texts that no caption has. Reed et al. 2016, eq. 5."""
    return beta * one + (1 - beta) * other


def joint_embedding(scores: Float[Array, "n n"], same: Bool[Array, "n n"]) -> Float[Array, " n"]:
    """Structured joint embedding of images and texts, (N, N) -> (N,).

    Args:
      scores: compatibility of image n with text m; text n belongs to image n.
      same: bool, whether image n and text m are of one class; such pairs are no
        negatives, since the 0-1 loss between them is 0.

    Returns:
      Per example the hinge max(0, 1 + score of a mismatch - score of the match), as the
      mean over the image's other texts plus the same over the text's other images.

    Raises:
      ValueError: the shapes differ or are not square.

    Source: Reed et al. 2016 (CVPR), eq. 5 and 6. Departs: the mean over the batch's
    negatives instead of the worst class, as the authors' code trains it.
    """
    if scores.shape != same.shape or scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(f"scores {scores.shape} and same {same.shape} must both be (N, N)")
    negative = jnp.where(same, 0.0, 1.0).astype(scores.dtype)
    match = jnp.diagonal(scores)[:, None]

    def mean_hinge(scores: Array, negative: Array) -> Array:
        terms = negative * jax.nn.relu(1 + scores - match)
        return terms.sum(1) / jnp.maximum(negative.sum(1), 1)

    return mean_hinge(scores, negative) + mean_hinge(scores.T, negative.T)


def cross_entropy(logits: Float[Array, "b c"], labels: Integer[Array, " b"]) -> PerExample:
    """-log softmax(logits)[label]: (B, C), (B,) integers -> (B,)."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits {logits.shape}, labels {labels.shape} must be (B, C), (B,)")
    x = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    hot = jax.nn.one_hot(labels, x.shape[1], dtype=x.dtype)
    return jax.nn.logsumexp(x, axis=1) - jnp.sum(hot * x, axis=1)


def l1(one: Float[Array, " b *s"], other: Float[Array, " b *s"]) -> PerExample:
    """Mean absolute difference of each example: (B, ...), (B, ...) -> (B,)."""
    if one.shape != other.shape:
        raise ValueError(f"shapes differ: {one.shape} and {other.shape}")
    return jnp.mean(jnp.abs(one - other).reshape(one.shape[0], -1), axis=1)


def gram(features: Float[Array, "b h w c"]) -> Float[Array, "b c c"]:
    """Gram matrices (B, C, C) of maps (B, H, W, C), divided by H W C.

    Source: Gatys et al. 2016, eq. 3, with the factor of Johnson et al. 2016, eq. 3.
    """
    b, h, w, c = features.shape
    flat = features.reshape(b, h * w, c)
    return jnp.einsum("bpc,bpd->bcd", flat, flat, precision="highest") / (h * w * c)


# Rec. 601: luminance, then the blue and red differences, of images in any linear range.
YUV = ((0.299, 0.587, 0.114), (-0.14713, -0.28886, 0.436), (0.615, -0.51499, -0.10001))


def grayscale(one: RGB, other: RGB) -> PerExample:
    """Mean absolute difference of luminance: (B, H, W, 3) twice -> (B,). Tsinghua."""
    luminance = jnp.array(YUV[0], one.dtype)
    return l1(one @ luminance, other @ luminance)


def huber(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """x^2 / 2 up to 1, |x| - 1/2 beyond; any shape. Source: Huber 1964."""
    size = jnp.abs(x)
    # Without a branch: no square overflows, and the gradient is 1 at 1.
    clipped = jnp.minimum(size, 1)
    return clipped * (size - 0.5 * clipped)


def color(one: RGB, other: RGB) -> PerExample:
    """L1 of luminance plus Huber of both color differences: (B, H, W, 3) twice -> (B,).

    Source: Chen et al. 2020 (AnimeGAN), eq. 4 and 5; Tsinghua names the loss alone.
    """
    if one.shape != other.shape:
        raise ValueError(f"shapes differ: {one.shape} and {other.shape}")
    difference = (one - other) @ jnp.array(YUV, one.dtype).T
    y, uv = difference[..., 0], difference[..., 1:]
    places = one.shape[1] * one.shape[2]
    return (jnp.abs(y).sum((1, 2)) + huber(uv).sum((1, 2, 3))) / places


def total_variation(images: Float[Array, "b h w c"]) -> PerExample:
    """Mean squared step to the next pixel, down plus right: (B, H, W, C) -> (B,).

    Source: Mahendran and Vedaldi 2015, section 3.2.2 with beta 2. AnimeGAN's code has half of it,
    as TensorFlow's l2_loss is halved.
    """
    down, right = images[:, 1:] - images[:, :-1], images[:, :, 1:] - images[:, :, :-1]
    return (down**2).mean((1, 2, 3)) + (right**2).mean((1, 2, 3))


def with_r1(
    discriminate: Callable[[Array], Array], images: Float[Array, " b *s"]
) -> tuple[Logits, PerExample]:
    """D's logits (B,) and its squared gradient norm (B,) at each image, of one forward pass.

    Exact only where D does not mix the examples of a batch (batch norm in training
    does). Source: Mescheder et al. 2018, eq. 9, without gamma / 2.
    """
    logits, pull = jax.vjp(discriminate, images)
    (grads,) = pull(jnp.ones_like(logits))
    return logits, jnp.sum(grads.reshape(grads.shape[0], -1) ** 2, axis=1)


def r1(discriminate: Callable[[Array], Array], images: Float[Array, " b *s"]) -> PerExample:
    """The squared gradient norm of `with_r1` alone, (B, ...) -> (B,)."""
    return with_r1(discriminate, images)[1]


# R2 is the same at generated images (Mescheder et al. 2018, eq. 10).
r2 = r1


def gradient_penalty(
    discriminate: Callable[[Array], Array],
    real: Float[Array, " b *s"],
    fake: Float[Array, " b *s"],
    mix: Float[Array, " b"],
) -> PerExample:
    """(|gradient| - 1)^2 at mix real + (1 - mix) fake, (B,); `mix` (B,) in [0, 1].

    Source: Gulrajani et al. 2017, eq. 3, without lambda.
    """
    if real.shape != fake.shape or mix.shape != real.shape[:1]:
        raise ValueError(f"shapes differ: {real.shape}, {fake.shape}, mix {mix.shape}")
    mix = mix.reshape(-1, *(1,) * (real.ndim - 1))
    squared = r1(discriminate, mix * real + (1 - mix) * fake)
    # sqrt has no gradient at 0; the floor is far below float32's resolution at 1.
    return (jnp.sqrt(squared + 1e-12) - 1) ** 2
