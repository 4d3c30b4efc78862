"""Optimizers and learning-rate schedules from settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import optax

from anigan_jax.core import Array


def direction(settings: Optimizer) -> optax.GradientTransformation:
    """The optimizer without its learning rate; the step builder multiplies by it.

    Departs: RMSProp has PyTorch's form, sqrt(v) + epsilon outside the root.
    """
    if settings.name == "adam":
        return optax.scale_by_adam(settings.b1, settings.b2, settings.epsilon)
    if settings.name == "rmsprop":
        return optax.scale_by_rms(settings.b2, settings.epsilon, eps_in_sqrt=False)
    return optax.identity()


def learning_rate(settings: Optimizer, step: Array) -> Array:
    """() float32 rate at a step (completed steps): drops, then linear decay to 0.

    Raises:
      ValueError: the settings count in epochs; see `config.in_steps`.
    """
    if settings.unit != "step":
        raise ValueError("a rate that follows epochs needs config.in_steps first")
    rate = jnp.float32(settings.rate)
    for boundary in settings.drops:
        rate = jnp.where(step >= boundary, rate * settings.drop_factor, rate)
    if settings.decay_steps:
        done = (step - settings.decay_from) / settings.decay_steps
        rate = rate * jnp.clip(1.0 - done, 0.0, 1.0)
    return rate


@dataclass(frozen=True)
class Optimizer:
    """An optimizer of one player; the rate follows completed steps, not updates."""

    name: Literal["adam", "rmsprop", "sgd"] = "adam"
    rate: float = 2e-4
    """Learning rate."""
    b1: float = 0.5
    """Adam's first decay."""
    b2: float = 0.999
    """Adam's second decay; RMSProp's decay."""
    epsilon: float = 1e-8
    unit: Literal["step", "epoch"] = "step"
    """What `drops`, `decay_from` and `decay_steps` count; an epoch is whole batches of the
    (first domain's) data."""
    drops: tuple[int, ...] = ()
    """Steps (or epochs) after which the rate is multiplied by `drop_factor`."""
    drop_factor: float = 0.1
    decay_from: int = 0
    """Step (or epoch) at which a linear decay to 0 starts (with `decay_steps`)."""
    decay_steps: int = 0
    """Length of the linear decay in steps (or epochs); 0: none."""
