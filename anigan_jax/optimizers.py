"""Optimizers as settings: optax's, with a learning-rate schedule that follows the step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from anigan_jax.core import Array, PyTree

BUILDERS: dict[str, Callable[[Optimizer], optax.GradientTransformation]] = {
    "adam": lambda s: optax.scale_by_adam(s.b1, s.b2, s.epsilon),
    "adamw": lambda s: optax.chain(
        optax.scale_by_adam(s.b1, s.b2, s.epsilon), optax.add_decayed_weights(s.weight_decay)
    ),
    # Departs: PyTorch's form, with epsilon outside the root.
    "rmsprop": lambda s: optax.scale_by_rms(s.decay, s.epsilon, eps_in_sqrt=False),
    "sgd": lambda s: optax.trace(s.momentum) if s.momentum else optax.identity(),
    "lion": lambda s: optax.chain(
        optax.scale_by_lion(s.b1, s.b2), optax.add_decayed_weights(s.weight_decay)
    ),
}
"""Name -> optax's transformation without a learning rate; the step builder multiplies by it."""


@dataclass(frozen=True)
class Optimizer:
    """The optimizer of one player; its rate follows completed steps, not updates."""

    name: Literal["adam", "adamw", "rmsprop", "sgd", "lion"] = "adam"
    learning_rate: float = 2e-4
    b1: float = 0.5
    """Decay of the first moment (adam, adamw); share of the momentum in an update (lion)."""
    b2: float = 0.999
    """Decay of the second moment (adam, adamw); decay of the momentum (lion)."""
    decay: float = 0.99
    """Decay of the mean square (rmsprop)."""
    epsilon: float = 1e-8
    """Added to the root of the second moment (adam, adamw, rmsprop)."""
    momentum: float = 0.0
    """Decay of the velocity (sgd); 0: none is kept."""
    weight_decay: float = 0.0
    """Share of a parameter that an update takes off, times the rate (adamw, lion)."""
    unit: Literal["step", "epoch"] = "step"
    """What `boundaries`, `decay_start` and `decay_steps` count; an epoch is whole batches of
    the (first domain's) data."""
    boundaries: tuple[int, ...] = ()
    """Steps (or epochs) after which the rate is multiplied by `gamma`."""
    gamma: float = 0.1
    """Factor of the rate at each boundary."""
    decay_start: int = 0
    """Step (or epoch) at which a linear decay to 0 starts (with `decay_steps`)."""
    decay_steps: int = 0
    """Length of the linear decay in steps (or epochs); 0: none."""

    def build(self) -> optax.GradientTransformation:
        """The transformation without its learning rate."""
        return BUILDERS[self.name](self)

    def in_steps(self, per_epoch: int) -> Optimizer:
        """The same with its schedule counted in steps."""
        if self.unit == "step":
            return self
        return dataclasses.replace(
            self,
            unit="step",
            boundaries=tuple(epoch * per_epoch for epoch in self.boundaries),
            decay_start=self.decay_start * per_epoch,
            decay_steps=self.decay_steps * per_epoch,
        )

    def rate(self, step: Array) -> Array:
        """() float32 learning rate at a step: drops, then linear decay to 0.

        Raises:
          ValueError: the settings count in epochs; see `in_steps`.
        """
        if self.unit != "step":
            raise ValueError("a schedule counted in epochs needs Optimizer.in_steps first")
        scales = dict.fromkeys(self.boundaries, self.gamma)
        rate = optax.piecewise_constant_schedule(jnp.float32(self.learning_rate), scales)(step)
        if self.decay_steps:
            # Not optax.linear_schedule: compiled, its end is -1e-12 of the rate, not 0.
            done = (step - self.decay_start) / self.decay_steps
            rate = rate * jnp.clip(1.0 - done, 0.0, 1.0)
        return rate


def on_layers(tree: PyTree, names: Collection[str], change: Callable[[Array], Array]) -> PyTree:
    """A tree of parameters with `change` applied below the layers of these names."""

    def one(path: tuple, leaf: Array) -> Array:
        return change(leaf) if any(getattr(k, "key", None) in names for k in path) else leaf

    return jax.tree_util.tree_map_with_path(one, tree)
