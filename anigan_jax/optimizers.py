"""Optimizers as settings: optax's, with a learning-rate schedule that follows the step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from anigan_jax.core import Array, PyTree

BUILDERS: dict[str, Callable[[Optimizer, Array | float], optax.GradientTransformation]] = {
    "adam": lambda s, b2: optax.scale_by_adam(s.b1, b2, s.epsilon),
    "adamw": lambda s, b2: optax.chain(
        optax.scale_by_adam(s.b1, b2, s.epsilon), optax.add_decayed_weights(s.weight_decay)
    ),
    # Departs: PyTorch's form, with epsilon outside the root.
    "rmsprop": lambda s, _: optax.scale_by_rms(s.decay, s.epsilon, eps_in_sqrt=False),
    "sgd": lambda s, _: optax.trace(s.momentum) if s.momentum else optax.identity(),
    "lion": lambda s, b2: optax.chain(
        optax.scale_by_lion(s.b1, b2), optax.add_decayed_weights(s.weight_decay)
    ),
}
"""Name -> optax's transformation without a learning rate; the step builder multiplies by it."""

# Setting -> the optimizers that read it, of those that not all read.
READERS = {
    "decay": ("rmsprop",),
    "momentum": ("sgd",),
    "weight_decay": ("adamw", "lion"),
    "final_b2": ("adam", "adamw", "lion"),
}
OF_DECAY = ("decay_start", "shape", "final_share", "final_b2")


def cosine(done: Array) -> Array:
    """Half a cosine from 0 at 0 to 1 at 1, constant beyond; any shape."""
    return (1 - jnp.cos(math.pi * jnp.clip(done, 0.0, 1.0))) / 2


@dataclass(frozen=True)
class Cosine:
    """A number that moves by half a cosine while real images are seen, and then stays.

    Source: Huang et al. 2024 (R3GAN), appendix.
    """

    start: float
    end: float
    images: int = 20_000_000
    """Real images over which it moves."""

    def at(self, seen: Array) -> Array:
        """() the number after `seen` () images."""
        return self.start + (self.end - self.start) * cosine(seen / self.images)


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
    """Share of a parameter that an update subtracts, times the rate (adamw, lion)."""
    unit: Literal["step", "epoch", "image"] = "step"
    """What `boundaries`, `decay_start` and `decay_steps` count; an epoch is whole batches of
    the (first domain's) data, and an image is one of a step's batch."""
    boundaries: tuple[int, ...] = ()
    """Steps (or epochs) after which the rate is multiplied by `gamma`."""
    gamma: float = 0.1
    """Factor of the rate at each boundary."""
    decay_start: int = 0
    """Step (or epoch) at which a decay starts (with `decay_steps`)."""
    decay_steps: int = 0
    """Length of the decay in steps (or epochs); 0: none."""
    shape: Literal["linear", "cosine"] = field(default="linear", metadata={"later": True})
    """How the rate (and b2) change in the decay: linearly, or by half a cosine."""
    final_share: float = field(default=0.0, metadata={"later": True})
    """Share of the rate that is left after the decay."""
    final_b2: float | None = field(default=None, metadata={"later": True})
    """b2 at the end of the decay; None: it stays as it is."""

    def build(self, step: Array | None = None) -> optax.GradientTransformation:
        """The transformation without its learning rate, as it is at a step (None: the first).

        Its state does not depend on the step.
        """
        if self.final_b2 is None or step is None:
            return BUILDERS[self.name](self, self.b2)
        moved = (self.final_b2 - self.b2) * (1 - self._left(step))
        return BUILDERS[self.name](self, self.b2 + moved)

    def faults(self) -> Iterator[str]:
        """What no optimizer can have, a sentence each that begins with the setting."""
        for name in ("learning_rate", "epsilon"):
            if (value := getattr(self, name)) <= 0:
                yield f"{name} is {value}; it must be above 0"
        for name in ("b1", "b2", "decay", "momentum", "final_b2"):
            if (value := getattr(self, name)) is not None and not 0 <= value < 1:
                yield f"{name} is {value}; it must be at least 0 and below 1"
        if not 0 <= self.final_share <= 1:
            yield f"final_share is {self.final_share}; it must be in 0 to 1"
        for name in ("weight_decay", "gamma", "decay_start", "decay_steps"):
            if (value := getattr(self, name)) < 0:
                yield f"{name} is {value}; it must be at least 0"
        if min(self.boundaries, default=0) < 0:
            yield f"boundaries are {self.boundaries}; each must be at least 0"

    def unread(self) -> Iterator[str]:
        """Settings that were given and change nothing, a sentence each."""
        if type(self).build is not Optimizer.build:
            return
        plain = Optimizer()
        given = [x for x in (*READERS, *OF_DECAY) if getattr(self, x) != getattr(plain, x)]
        for name in dict.fromkeys(given):
            readers = READERS.get(name, BUILDERS)
            if self.name not in readers:
                yield f"{name} changes nothing: {self.name} has none ({', '.join(readers)} do)"
            elif name in OF_DECAY and not self.decay_steps:
                yield f"{name} changes nothing without decay_steps"

    def in_steps(self, per_epoch: int, batch_size: int) -> Optimizer:
        """The same with its schedule counted in steps."""
        if self.unit == "step":
            return self

        def steps(count: int) -> int:
            return count * per_epoch if self.unit == "epoch" else -(-count // batch_size)

        return dataclasses.replace(
            self,
            unit="step",
            boundaries=tuple(map(steps, self.boundaries)),
            decay_start=steps(self.decay_start),
            decay_steps=steps(self.decay_steps),
        )

    def rate(self, step: Array) -> Array:
        """() float32 learning rate at a step: drops, then the decay.

        Raises:
          ValueError: the settings count in epochs or images; see `in_steps`.
        """
        if self.unit != "step":
            raise ValueError(f"a schedule counted in {self.unit}s needs Optimizer.in_steps first")
        # Boundaries may fall on one step.
        scales = {at: self.gamma ** self.boundaries.count(at) for at in self.boundaries}
        rate = optax.piecewise_constant_schedule(jnp.float32(self.learning_rate), scales)(step)
        if self.decay_steps:
            left = self._left(step)
            rate = rate * (self.final_share + (1 - self.final_share) * left)
        return rate

    def _left(self, step: Array) -> Array:
        """() how much of the decay is still to come at a step, 1 to 0."""
        if not self.decay_steps:
            return jnp.float32(1)
        # Not optax.linear_schedule: compiled, its end is -1e-12 of the rate, not 0.
        done = (step - self.decay_start) / self.decay_steps
        return 1 - cosine(done) if self.shape == "cosine" else jnp.clip(1.0 - done, 0.0, 1.0)


def absent(players: Collection[str], given: Collection[str]) -> list[str]:
    """What is wrong where a player has no optimizer; nothing where each has one."""
    names = ", ".join(players)
    return [
        f"optimizers has no entry for {player!r}; the method's players are {names}"
        for player in players
        if player not in given
    ]


def on_layers(tree: PyTree, names: Collection[str], change: Callable[[Array], Array]) -> PyTree:
    """A tree of parameters with `change` applied below the layers of these names."""

    def one(path: tuple, leaf: Array) -> Array:
        return change(leaf) if any(getattr(k, "key", None) in names for k in path) else leaf

    return jax.tree_util.tree_map_with_path(one, tree)
