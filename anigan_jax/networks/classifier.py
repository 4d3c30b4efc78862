"""A convolutional classifier of images: a discriminator's trunk with as many logits as classes."""

from __future__ import annotations

from dataclasses import dataclass

from anigan_jax.errors import UserError
from anigan_jax.networks.blocks import Block
from anigan_jax.networks.dcgan import Discriminator, discriminator_plan
from anigan_jax.networks.stack import Stack


@dataclass(frozen=True)
class Classifier(Discriminator):
    """A convolutional classifier of hair and eye color: the discriminator's trunk."""

    base_channels: int = 32
    bias: bool = True
    dropout: float = 0.1

    def check(self, field: str) -> None:
        """Refuses what a classifier has not."""
        if self.spectral:
            raise UserError(f"{field}.spectral is for discriminators, not classifiers")

    def build_for(self, outputs: int, axis_name: str | None = None) -> Stack:
        """The module: images (b, H, W, 3) -> vectors or logits (b, outputs)."""
        plan = classifier_plan(self, outputs)
        return Stack(plan, self.norm, self.negative_slope, self.stddev, axis_name, name="image")


def classifier_plan(c: Classifier, classes: int) -> tuple[Block, ...]:
    """The layers of a classifier: a discriminator's, with `classes` logits."""
    *trunk, _ = discriminator_plan(c)
    return (*trunk, Block("logits", "dense", classes, bias=True))
