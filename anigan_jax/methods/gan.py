"""Noise to image: hyper-parameters of the DCGAN family; no JAX until `make`.

Kept apart from `gan_updates`, so that reading a config, checking it and printing its
help do not start JAX.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from anigan_jax.config import ComputeType, MethodSettings
from anigan_jax.networks.specs import Discriminator, Generator


@dataclass(frozen=True)
class Schedule:
    """How often each player is updated in a step."""

    kind: Literal["fixed", "as_printed", "as_argued", "alternate"] = "fixed"
    """fixed: `g` and `d` updates; as_printed / as_argued: seed S2's accuracy rule as its
    formula or as its prose has it; alternate: seed S3's `d_steps` of D, then `g_steps`
    of G."""
    g: int = 1
    """G's updates in a step (fixed, alternate)."""
    d: int = 1
    """D's updates in a step (fixed, alternate)."""
    d_steps: int = 0
    """alternate: steps in which only D learns."""
    g_steps: int = 0
    """alternate: steps in which only G learns."""


@dataclass(frozen=True)
class GAN(MethodSettings):
    """A DCGAN with any adversarial loss, penalties, schedule and augmentation."""

    generator: Generator = field(default_factory=Generator)
    discriminator: Discriminator = field(default_factory=Discriminator)
    loss: Literal[
        "non_saturating", "minimax", "least_squares", "hinge", "wasserstein", "relativistic"
    ] = "non_saturating"
    real_label: float = 1.0
    """D's target for real images; below 1: one-sided label smoothing."""
    fake_label: float = 0.0
    """D's target for generated images."""
    d_scale: float = 1.0
    """Factor of D's whole loss (Keras averages the two halves: 0.5)."""
    split_d: bool = False
    """Two optimiser steps of D, on reals and then on fakes, as Keras trains."""
    shared_noise: bool = True
    """G's update sees the latents of D's (as the PyTorch example); else fresh ones."""
    r1: float = 0.0
    """Weight of half the squared gradient norm at reals (Mescheder et al. 2018)."""
    r2: float = 0.0
    """The same at fakes."""
    gradient_penalty: float = 0.0
    """Weight of WGAN-GP's penalty (Gulrajani et al. 2017)."""
    augment: tuple[Literal["color", "translation", "cutout"], ...] = ()
    """DiffAugment (Zhao et al. 2020), on reals and fakes alike."""
    schedule: Schedule = Schedule()
    dtype: ComputeType = "float32"
    """bfloat16: products of the networks in 16 bits, for GPUs and TPUs; parameters, statistics,
    losses and optimisers stay float32."""

    @property
    def size(self) -> int:
        return self.generator.size

    @property
    def next_verbs(self) -> tuple[tuple[str, str], ...]:
        return ("sample RUN", "a grid of new faces"), ("interpolate RUN", "a GIF between faces")

    def networks(self):
        """Name -> (module, shapes of its inputs for one image)."""
        from anigan_jax.networks import dcgan

        g, d = self.generator, self.discriminator
        return {
            "generator": (dcgan.generator(g), ((1, 1, 1, g.z_dim),)),
            "discriminator": (dcgan.discriminator(d), ((1, d.size, d.size, 3),)),
        }

    def make(self, axis_name: str | None):
        """The Method; `axis_name` is the mapped axis of devices or None."""
        from anigan_jax.methods.gan_updates import make

        return make(self, axis_name)
