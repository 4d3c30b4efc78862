import dataclasses
from dataclasses import dataclass

import jax.numpy as jnp
import optax

from anigan_jax import Optimizer, load_config


@dataclass(frozen=True)
class Clipped(Optimizer):
    norm: float = 1.0
    warmup: int = 500

    def build(self, step=None):  # without its rate: the step takes `rate * update` off
        return optax.chain(optax.clip_by_global_norm(self.norm), super().build(step))

    def rate(self, step):  # () at a step
        return super().rate(step) * jnp.minimum(1.0, (step + 1) / self.warmup)


BASE = load_config("quickstart")
CONFIG = dataclasses.replace(BASE, name="clipped", optimizers={"g": Clipped(), "d": Clipped()})
