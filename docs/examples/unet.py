from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp

from anigan_jax import Config
from anigan_jax.data.synthetic.sources import PaintedPairs
from anigan_jax.methods.cyclegan import CycleGAN
from anigan_jax.networks.blocks import NetworkSettings


class UNet(nn.Module):
    width: int
    depth: int

    @nn.compact
    def __call__(self, x):  # (b, S, S, 3) -> the same in the other domain, in [-1, 1]
        kept = []
        for level in range(self.depth):
            kept.append(x)
            x = nn.Conv(self.width << level, (4, 4), strides=2)(x)
            x = nn.leaky_relu(nn.LayerNorm()(x), 0.2)
        for level in reversed(range(self.depth)):
            x = jnp.concatenate([x.repeat(2, 1).repeat(2, 2), kept.pop()], -1)
            x = nn.relu(nn.LayerNorm()(nn.Conv(self.width << level, (3, 3))(x)))
        return nn.tanh(nn.Conv(3, (3, 3))(x))


@dataclass(frozen=True)
class UNetSettings(NetworkSettings):
    width: int = 32
    depth: int = 3

    @property
    def multiple_of(self):
        return 2**self.depth

    def build(self, axis_name=None, dtype="float32"):
        return UNet(self.width, self.depth)


CONFIG = Config("unet", CycleGAN(generator=UNetSettings()), PaintedPairs(count=4096), batch_size=4)
