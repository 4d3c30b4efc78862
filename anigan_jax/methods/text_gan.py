"""Words to image: hyper-parameters of the matching-aware GAN of seed S0; no JAX until `make`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from anigan_jax.errors import UserError
from anigan_jax.methods import text_tables
from anigan_jax.methods.gan import GAN
from anigan_jax.methods.text_tables import Encoder
from anigan_jax.networks.specs import TextDiscriminator, TextGenerator


@dataclass(frozen=True)
class TextGAN(GAN):
    """GAN-CLS and GAN-INT (Reed et al. 2016) with every setting of the DCGAN family."""

    generator: TextGenerator = field(default_factory=TextGenerator)
    discriminator: TextDiscriminator = field(default_factory=TextDiscriminator)
    encoder: Encoder = field(default_factory=Encoder)
    wrong_weight: float = 1.0
    """Weight of D's term of real images with another text (seed S0: 1, Reed et al.: 0.5)."""
    fake_weight: float = 1.0
    """Weight of D's term of generated images (seed S0: 1, Reed et al.: 0.5)."""
    wrong_text: Literal["any", "one_part"] = "any"
    """The other text: any that is not the image's; or one that differs in hair or in eyes
    alone, where the data has one, so that D must look at both."""
    int_weight: float = 0.0
    """Weight of G's term for texts between two of the data (GAN-INT); 0: GAN-CLS."""
    int_beta: float = 0.5
    """Share of the image's own text in them."""

    inputs = text_tables.inputs

    def frozen(self, pack):
        """The texts of every pair of colours, and how often the data has the pair."""
        return text_tables.tables(self.encoder, text_tables.labels(pack, "train"))

    def networks(self):
        """Name -> (module, shapes of its inputs for one image)."""
        from anigan_jax.networks import text

        g, d = self.generator, self.discriminator
        texts = ((1, self.encoder.length),)
        return {
            "generator": (text.generator(g), ((1, 1, 1, g.z_dim), texts)),
            "discriminator": (text.discriminator(d), ((1, d.size, d.size, 3), texts)),
        }

    def make(self, axis_name: str | None):
        """The Method; `axis_name` is the mapped axis of devices or None."""
        from anigan_jax.methods.text_gan_updates import make

        if self.split_d:
            raise UserError("method.split_d has no meaning with texts; D learns all terms at once")
        if not 0 <= self.int_beta <= 1:
            raise UserError(f"method.int_beta is {self.int_beta}; it must be in 0 to 1")
        return make(self, axis_name)
