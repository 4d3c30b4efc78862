"""Image to image without pairs: hyper-parameters of CycleGAN; no JAX until `make`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from anigan_jax.errors import UserError
from anigan_jax.methods.translation import Translation
from anigan_jax.networks import resnet
from anigan_jax.networks.resnet import PatchDiscriminator, ResnetGenerator


@dataclass(frozen=True)
class CycleGAN(Translation):
    """Two generators and two discriminators (Zhu et al. 2017), weighted as seed S1."""

    generator: ResnetGenerator = field(default_factory=ResnetGenerator)
    discriminator: PatchDiscriminator = field(default_factory=PatchDiscriminator)
    loss: Literal["least_squares", "non_saturating"] = "least_squares"
    """least_squares: MSE of D's map to its labels; non_saturating: BCE."""
    identity: float = 5.0
    """Weight of |G(b) - b| for images that are in G's target domain already; 0: left out."""
    adversarial: float = 1.0
    """Weight of the adversarial term."""
    cycle: float = 10.0
    """Weight of |F(G(a)) - a|."""
    d_scale: float = 0.5
    """Factor of D's whole loss (the PyTorch code of CycleGAN halves it)."""
    pool: int = 50
    """Former fakes of each domain that D also sees; 0: none."""

    def check(self) -> None:
        """Refuses what cannot be trained."""
        super().check()
        if self.pool < 0:
            raise UserError(f"method.pool is {self.pool}; it must be 0 or more")

    def networks(self):
        """Name -> (module, shapes of its inputs for one image)."""
        image = ((1, self.size, self.size, 3),)
        return {
            "generator": (resnet.generator(self.generator), image),
            "discriminator": (resnet.discriminator(self.discriminator), image),
        }

    def make(self, axis_name: str | None):
        """The Method; `axis_name` is the mapped axis of devices or None."""
        from anigan_jax.methods.cyclegan_updates import make

        self.check()
        return make(self, axis_name)
