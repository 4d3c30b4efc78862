from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from anigan_jax import Config, Cosine
from anigan_jax.core import Aux
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.methods.gan import GAN


@dataclass(frozen=True)
class Fading(GAN):
    """A GAN whose generator is paid for saturated colors, less and less."""

    color_weight: Cosine = field(default_factory=lambda: Cosine(1.0, 0.0, images=50_000))
    """Of the mean distance of a pixel's channels from their mean, by images seen."""

    def g_loss(self, nets, params, state, batch, keys):
        fake, stats = nets.fake(params, state.stats["g"], keys.z)  # (b, S, S, 3) in [-1, 1]
        game = self.generator_loss(nets, state, batch, fake, (), keys)
        color = jnp.abs(fake - fake.mean(-1, keepdims=True)).mean()
        # state.step * batch size, whatever the number of devices
        weight = self.color_weight.at(nets.seen(state.step, len(fake)))
        loss = game - weight * color
        metrics = {"loss/g": loss, "color/g": jax.lax.stop_gradient(color), "weight/color": weight}
        return loss, Aux(metrics, stats, state.extra_state)


CONFIG = Config("fading", Fading(), PaintedFaces(count=4096))
