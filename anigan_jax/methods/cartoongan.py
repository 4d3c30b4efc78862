"""Photo to cartoon: hyper-parameters of CartoonGAN; no JAX until `make`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from anigan_jax import foreign_weights
from anigan_jax.errors import UserError
from anigan_jax.methods.translation import Translation, domain_b
from anigan_jax.networks import cartoon, resnet
from anigan_jax.networks.cartoon import CartoonDiscriminator, CartoonGenerator


@dataclass(frozen=True)
class Features:
    """The frozen network whose maps content and style are compared in."""

    network: Literal["vgg16", "vgg19"] = "vgg19"
    path: str = ""
    """Its weights (safetensors); '': where `anigan weights` puts them."""
    layer: str = "conv4_4"
    """convN_M: before ReLU; reluN_M: after it. VGG16 has no conv4_4; its last is conv4_3."""
    convention: Literal["imagenet", "unit", "signed"] = "imagenet"
    """What the network is shown: normalised as it was trained; or [0, 1]; or [-1, 1]."""


@dataclass(frozen=True)
class CartoonGAN(Translation):
    """One generator, content of the photo, edges of the cartoon (Chen et al. 2018; seed S1)."""

    generator: CartoonGenerator = field(default_factory=CartoonGenerator)
    discriminator: CartoonDiscriminator = field(default_factory=CartoonDiscriminator)
    features: Features = Features()
    loss: Literal["non_saturating", "least_squares"] = "non_saturating"
    """non_saturating: BCE (the paper, seed S1); least_squares: the authors' code."""
    content_epochs: int = 10
    """Length of the first phase, in which G learns the content loss alone."""
    content_steps: int = 0
    """The same in steps; overrides `content_epochs` where it is not 0."""
    adversarial: float = 1.0
    """Weight of G's adversarial term."""
    edge: float = 1.0
    """Weight of D's term of edge-smoothed cartoons, which are fakes to it."""
    content: float = 10.0
    """Weight of the distance of the maps of G(a) and of a."""
    style: float = 0.0
    """Weight of the distance of the Gram matrices of G(a)'s and of a cartoon's maps."""
    landmark: float = 0.0
    """Weight of the distance of 68 face landmarks in G(a) and in a, in sides."""
    greyscale: float = 0.0
    """Weight of the distance of luminance of G(a) and of a."""
    colour: float = 0.0
    """Weight of AnimeGAN's colour distance of G(a) and of a."""
    total_variation: float = 0.0
    """Weight of G(a)'s total variation."""

    def inputs(self, pack, part: str = "train"):
        """The cartoons, and the same with smoothed edges."""
        found = {"images_b": domain_b(pack, part)}
        if self.edge:
            found["edges_b"] = domain_b(pack, part, "edges")
        return found

    def frozen(self, pack):
        """Weights of the feature network, and of the landmark network where it is used."""
        from anigan_jax import weights

        found, f = {}, self.features
        if self.content or self.style:
            vgg = foreign_weights.find(f.network, f.path, taps=(f.layer,))
            found |= {f"vgg/{name}": array for name, array in vgg.items()}
        if self.landmark:
            found |= weights.flatten(weights.face_landmarks(), "landmarks/")
        return found

    def check(self) -> None:
        """Refuses what cannot be trained."""
        super().check()
        f = self.features
        foreign_weights.needed(foreign_weights.depth_of(f.network), [f.layer])
        if self.content_epochs < 0 or self.content_steps < 0:
            raise UserError("method.content_epochs and content_steps must be 0 or more")
        if not self.content and (self.content_epochs or self.content_steps):
            raise UserError(
                "method.content is 0, so the first phase has nothing to learn; "
                "set method.content_epochs 0 as well"
            )

    def networks(self):
        """Name -> (module, shapes of its inputs for one image)."""
        image = ((1, self.size, self.size, 3),)
        return {
            "generator": (resnet.generator(self.generator), image),
            "discriminator": (cartoon.discriminator(self.discriminator), image),
        }

    def make(self, axis_name: str | None):
        """The Method; `axis_name` is the mapped axis of devices or None."""
        from anigan_jax.methods.cartoongan_updates import make

        self.check()
        return make(self, axis_name)
