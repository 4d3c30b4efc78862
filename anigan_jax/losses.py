"""Adversarial losses, pure and per example; no Flax, no module of ours.

Logits are (B,); computed in float32 at least. Weights belong to the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import softplus


def _checked(*logits: Array) -> tuple[Array, ...]:
    shapes = {x.shape for x in logits}
    if len(shapes) > 1 or any(x.ndim != 1 for x in logits):
        raise ValueError(f"logits must all be (B,), got {[x.shape for x in logits]}")
    return tuple(x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in logits)


def bce(logits: Array, target: float) -> Array:
    """Binary cross-entropy on logits, (B,) -> (B,): target softplus(-x) + (1 - target) softplus(x).

    Source: Goodfellow et al. 2014, eq. 1, in the stable form.
    """
    (x,) = _checked(logits)
    return target * softplus(-x) + (1 - target) * softplus(x)


def non_saturating_d(real: Array, fake: Array, real_label=1.0, fake_label=0.0):
    """BCE of D: (B,), (B,) -> two terms (B,). Source: Goodfellow et al. 2014, eq. 1."""
    real, fake = _checked(real, fake)
    return bce(real, real_label), bce(fake, fake_label)


def non_saturating_g(fake: Array, real: Array, real_label=1.0):
    """-log D(G(z)), (B,). Source: Goodfellow et al. 2014, section 3. `real` is unused."""
    return bce(fake, 1.0)


def minimax_g(fake: Array, real: Array, real_label=1.0):
    """log(1 - D(G(z))) = -softplus(x), (B,). Source: Goodfellow et al. 2014, eq. 1."""
    (fake,) = _checked(fake)
    return -softplus(fake)


def least_squares_d(real: Array, fake: Array, real_label=1.0, fake_label=0.0):
    """Squared distances to the labels. Departs: without the paper's 1/2. Mao et al. 2017."""
    real, fake = _checked(real, fake)
    return (real - real_label) ** 2, (fake - fake_label) ** 2


def least_squares_g(fake: Array, real: Array, real_label=1.0):
    """Squared distance of fakes to 1, (B,). Source: Mao et al. 2017, eq. 2, without 1/2."""
    (fake,) = _checked(fake)
    return (fake - 1.0) ** 2


def hinge_d(real: Array, fake: Array, real_label=1.0, fake_label=0.0):
    """max(0, 1 - real), max(0, 1 + fake); labels unused. Miyato et al. 2018, eq. 16."""
    real, fake = _checked(real, fake)
    return jax.nn.relu(1 - real), jax.nn.relu(1 + fake)


def wasserstein_d(real: Array, fake: Array, real_label=1.0, fake_label=0.0):
    """-real, fake; labels unused. Source: Arjovsky et al. 2017, eq. 3."""
    real, fake = _checked(real, fake)
    return -real, fake


def wasserstein_g(fake: Array, real: Array, real_label=1.0):
    """-fake, (B,); G's loss of the hinge too. Source: Arjovsky et al. 2017."""
    (fake,) = _checked(fake)
    return -fake


def relativistic_d(real: Array, fake: Array, real_label=1.0, fake_label=0.0):
    """softplus(fake - real) for pairs, and zeros. Jolicoeur-Martineau 2019; R3GAN."""
    real, fake = _checked(real, fake)
    return softplus(fake - real), jnp.zeros_like(fake)


def relativistic_g(fake: Array, real: Array, real_label=1.0):
    """softplus(real - fake) for pairs, (B,). Source: as `relativistic_d`."""
    fake, real = _checked(fake, real)
    return softplus(real - fake)


class Adversarial(NamedTuple):
    """d(real, fake, real_label, fake_label) -> two terms; g(fake, real, real_label)."""

    d: Callable
    g: Callable


ADVERSARIAL = {
    "non_saturating": Adversarial(non_saturating_d, non_saturating_g),
    "minimax": Adversarial(non_saturating_d, minimax_g),
    "least_squares": Adversarial(least_squares_d, least_squares_g),
    "hinge": Adversarial(hinge_d, wasserstein_g),
    "wasserstein": Adversarial(wasserstein_d, wasserstein_g),
    "relativistic": Adversarial(relativistic_d, relativistic_g),
}


def r1(discriminate: Callable[[Array], Array], images: Array) -> Array:
    """Squared gradient norm of D at each image, (B, ...) -> (B,).

    Exact only where D does not mix the examples of a batch (batch norm in training
    does). Source: Mescheder et al. 2018, eq. 9, without gamma / 2.
    """
    grads = jax.grad(lambda x: jnp.sum(discriminate(x)))(images)
    return jnp.sum(grads.reshape(grads.shape[0], -1) ** 2, axis=1)


# R2 is the same at generated images (Mescheder et al. 2018, eq. 10).
r2 = r1


def gradient_penalty(discriminate, real: Array, fake: Array, mix: Array) -> Array:
    """(|gradient| - 1)^2 at mix real + (1 - mix) fake, (B,); `mix` (B,) in [0, 1].

    Source: Gulrajani et al. 2017, eq. 3, without lambda.
    """
    if real.shape != fake.shape or mix.shape != real.shape[:1]:
        raise ValueError(f"shapes differ: {real.shape}, {fake.shape}, mix {mix.shape}")
    mix = mix.reshape(-1, *(1,) * (real.ndim - 1))
    squared = r1(discriminate, mix * real + (1 - mix) * fake)
    # sqrt has no gradient at 0; the floor is far below float32's resolution at 1.
    return (jnp.sqrt(squared + 1e-12) - 1) ** 2
