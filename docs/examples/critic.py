from dataclasses import dataclass

from anigan_jax import Config
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.losses import Adversarial
from anigan_jax.methods.gan import GAN


@dataclass(frozen=True)
class Critic(GAN):
    adversarial = Adversarial(lambda real, fake, *_: (-real, fake), lambda fake, *_: -fake)


CONFIG = Config("critic", Critic(gradient_penalty=10), PaintedFaces(count=4096))
