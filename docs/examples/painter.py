from dataclasses import dataclass

import flax.linen as nn

from anigan_jax import Config
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.methods.gan import GAN
from anigan_jax.networks.blocks import GeneratorSettings


class Painter(nn.Module):
    side: int

    @nn.compact
    def __call__(self, z):  # (b, 1, 1, Z) -> (b, side, side, 3) in [-1, 1]
        x = nn.relu(nn.Dense(self.side**2 * 4)(z[:, 0, 0]))
        return nn.tanh(nn.Conv(3, (3, 3))(x.reshape(-1, self.side, self.side, 4)))


@dataclass(frozen=True)
class PainterSettings(GeneratorSettings):
    def build(self, axis_name=None, dtype="float32"):
        return Painter(self.size)


CONFIG = Config("painter", GAN(generator=PainterSettings()), PaintedFaces(count=4096))
