from dataclasses import dataclass

import jax
import jax.numpy as jnp

from anigan_jax import Config
from anigan_jax.core import Aux
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.methods.gan import GAN


@dataclass(frozen=True)
class Colorful(GAN):
    """A GAN whose generator is also paid for saturated colors."""

    color_weight: float = 1.0
    """Of the mean distance of a pixel's channels from their mean."""

    def g_loss(self, nets, params, state, batch, keys):
        fake, stats = nets.fake(params, state.stats["g"], keys.z)  # (b, S, S, 3) in [-1, 1]
        game = self.generator_loss(nets, state, batch, fake, (), keys)
        color = jnp.abs(fake - fake.mean(-1, keepdims=True)).mean()
        loss = game - self.color_weight * color
        metrics = {"loss/g": loss, "color/g": jax.lax.stop_gradient(color)}
        return loss, Aux(metrics, stats, state.extra_state)


CONFIG = Config("colorful", Colorful(), PaintedFaces(count=4096))
