from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp

from anigan_jax import Config
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.methods.text_gan import TextGAN
from anigan_jax.networks.blocks import GeneratorSettings, NetworkSettings


class Painter(nn.Module):
    side: int

    @nn.compact
    def __call__(self, z, texts):  # (b, 1, 1, Z), a tuple of (b, T) -> a tuple of images
        first, last = nn.Dense(self.side**2 * 4), nn.Conv(3, (3, 3))
        joined = [jnp.concatenate([z[:, 0, 0], text], -1) for text in texts]
        maps = [nn.relu(first(x)).reshape(-1, self.side, self.side, 4) for x in joined]
        return tuple(nn.tanh(last(x)) for x in maps)


class Critic(nn.Module):
    width: int

    @nn.compact
    def __call__(self, images, texts):  # (b, S, S, 3), a tuple of (b, T) -> a tuple of (b,)
        x = images
        for level in range(3):
            x = nn.leaky_relu(nn.Conv(self.width << level, (4, 4), strides=2)(x), 0.2)
        x, told = x.mean((1, 2)), nn.Dense(self.width << 2)
        alone = nn.Dense(1)(x)[:, 0]
        return tuple(alone + (x * told(text)).sum(-1) for text in texts)


@dataclass(frozen=True)
class PainterSettings(GeneratorSettings):
    def build(self, axis_name=None, dtype="float32"):
        return Painter(self.size)


@dataclass(frozen=True)
class CriticSettings(NetworkSettings):
    width: int = 32

    def build(self, axis_name=None, dtype="float32"):
        return Critic(self.width)


CONFIG = Config(
    "worded",
    TextGAN(generator=PainterSettings(), discriminator=CriticSettings()),
    PaintedFaces(count=4096),
)
