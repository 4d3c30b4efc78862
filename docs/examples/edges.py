import dataclasses
from dataclasses import dataclass

import jax.numpy as jnp

from anigan_jax import load_config
from anigan_jax.methods.cyclegan import CycleGAN


def edges(images):  # (b, S, S, 3) -> (b, S, S - 1)
    return jnp.abs(jnp.diff(images.mean(-1), axis=2))


@dataclass(frozen=True)
class Edged(CycleGAN):
    edge_weight: float = 2.0

    def terms(self, batch, made):  # anime has the edges of its photo
        apart = jnp.abs(edges(made["b"]) - edges(batch["a"]["image"]))
        return {"edges": (self.edge_weight, apart.mean((1, 2)))}


BASE = load_config("painted_cyclegan")
CONFIG = dataclasses.replace(BASE, name="edged", method=Edged(**vars(BASE.method)))
