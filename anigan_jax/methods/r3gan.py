"""R3GAN: relativistic pairs, with a zero-centered gradient penalty at reals and at fakes.

Source: Huang et al. 2024 (R3GAN).
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax import core, losses, rng
from anigan_jax.core import Array, Aux, Batch, Keys, Method, Update
from anigan_jax.errors import UserError
from anigan_jax.losses import AdversarialName
from anigan_jax.methods import augment_pipe, text_conditioning
from anigan_jax.methods.augment import diff_augment
from anigan_jax.methods.gan import GAN
from anigan_jax.methods.players import Networks
from anigan_jax.methods.text_conditioning import Encoder, vectors
from anigan_jax.networks.blocks import GeneratorSettings, NetworkSettings
from anigan_jax.networks.r3gan import R3Discriminator, R3Generator
from anigan_jax.optimizers import Cosine
from anigan_jax.rng import Salt

TAGS = Encoder()
"""A one for the class of each attribute; the networks embed it."""


@dataclass(frozen=True)
class R3GAN(GAN):
    """R3GAN (Huang et al. 2024) with every setting of the DCGAN family.

    D's logits and the gradients of its penalties are of one forward pass through the
    augmentation; G learns from real images and latents of its own. What moves with the images seen
    is computed from the step. D must not mix the examples of a batch, as batch norm does.
    """

    generator: GeneratorSettings = field(default_factory=R3Generator)
    discriminator: NetworkSettings = field(default_factory=R3Discriminator)
    loss: AdversarialName = "relativistic"
    """Adversarial loss of both players."""
    shared_noise: bool = False
    """G's update uses the latents of D's; else its own."""
    r1: float = 1.0
    """Weight of R1, in units of `gamma`."""
    r2: float = 1.0
    """Weight of R2, in units of `gamma`."""
    gamma: Cosine = field(default_factory=lambda: Cosine(2.0, 0.2))
    """Weight of half the squared gradient norms, by images seen."""
    penalty_every: int = 1
    """Steps between penalties, whose weight grows with it; 1, as in the source: every step."""
    pipe: tuple[augment_pipe.Part, ...] = ()
    """Parts of Karras et al.'s augmentation pipe, on reals and fakes alike."""
    pipe_p: Cosine = field(default_factory=lambda: Cosine(0.0, 0.3))
    """Probability of each part of the pipe (of a color's: half of it), by images seen."""
    labels: bool = False
    """Condition both players on the attributes of the data set; its images then need a class of
    each (--data.unlabeled drop)."""

    @property
    def next_verbs(self) -> tuple[tuple[str, str], ...]:
        if not self.labels:
            return super().next_verbs
        return (
            ("sample RUN --prompt PROMPT", "faces by words"),
            ("table RUN", "every class of an attribute with every one of another"),
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is likely to go wrong with these settings."""
        kept = [n for n in ("batch_norm", "spectral") if getattr(self.discriminator, n, False)]
        told = "does not work in R3GAN: its state is never updated, and reals and fakes share it"
        return (*super().warnings, *(f"method.discriminator.{name} {told}" for name in kept))

    def inputs(self, pack: Any, part: str = "train") -> dict[str, dict[str, np.ndarray]]:
        """'label' (N, A) int32, classes of each image, where labels are read."""
        return text_conditioning.inputs(self, pack, part) if self.labels else {}

    def constants(self, pack: Any) -> dict[str, np.ndarray]:
        """Combinations of classes and how often the data has each, where labels are read."""
        if not self.labels:
            return {}
        found = text_conditioning.labels(pack, "train")
        return text_conditioning.tables(TAGS, found, pack.attributes)

    def networks(self) -> dict[str, tuple[nn.Module, tuple]]:
        """Name -> (module, shapes of its inputs for one image); labels are hair and eyes."""
        nets, plain = self.nets(None), super().networks()
        more = (((1, TAGS.length),),) if self.labels else ()
        each = zip(plain.items(), (nets.g, nets.d), strict=True)
        return {name: (net, (*shapes, *more)) for (name, (_, shapes)), net in each}

    def make(self, axis_name: str | None = None) -> Method:
        """The Method; `axis_name` is the mapped axis of devices, None on one device.

        Raises:
          UserError: a setting has no meaning here.
        """
        if self.split_d or self.gradient_penalty:
            name = "split_d" if self.split_d else "gradient_penalty"
            raise UserError(f"method.{name} has no meaning in R3GAN; use --method.r1 and r2")
        if self.penalty_every < 1:
            raise UserError(f"method.penalty_every is {self.penalty_every}; it must be at least 1")
        for name in ("gamma", "pipe_p"):
            values = getattr(self, name)
            most = 1.0 if name == "pipe_p" else float("inf")
            if values.images < 1 or not all(0 <= x <= most for x in (values.start, values.end)):
                limit = "in 0 to 1" if name == "pipe_p" else "at least 0"
                raise UserError(
                    f"method.{name} goes from {values.start} to {values.end} within "
                    f"{values.images} images; both must be {limit}, the images at least 1"
                )
        made = super().make(axis_name)
        if self.labels:
            texts = functools.partial(text_conditioning.askable, TAGS)
            made = made._replace(texts=texts, vocabulary=self.text_layers)
        return made

    def nets(self, axis_name: str | None) -> Networks:
        def build(settings: NetworkSettings) -> nn.Module:
            # Networks of the user's own are made with labels or without, and are not asked.
            taken = inspect.signature(settings.build).parameters.values()
            asks = any(p.name == "labels" or p.kind is p.VAR_KEYWORD for p in taken)
            more = {"labels": True} if self.labels and asks else {}
            return settings.build(axis_name, self.dtype, **more)

        g, d = build(self.generator), build(self.discriminator)
        return Unbounded(g, d, self.generator.unit_range, axis_name)

    def texts_of_nothing(self, n: int, known: dict) -> tuple:
        if not self.labels:
            return ()
        table = known["texts"] if "texts" in known else known["label"]["weight"]["kernel"].T
        return ((jnp.zeros((n, table.shape[-1])),),)

    def updates(self, nets: Networks) -> tuple[Update, ...]:
        """D, then G, whose real images are others."""
        d, g = super().updates(nets)
        return d, g._replace(first_batch=d.max_repeats)

    def of_labels(self, batch: Batch) -> tuple[Array, ...]:
        """The vectors (b, T) of the batch's labels, in a tuple; () where none are read."""
        if not self.labels:
            return ()
        constants = batch["constants"]
        place = text_conditioning.place(constants, batch["a"]["label"])
        return (vectors(constants, place, rng.children(batch["keys"], Salt.WORDING)),)

    def judge(self, nets: Networks, params, stats, images, texts, keys: Array, p: Array) -> Array:
        """D's logits (b,) of augmented images; `keys` (b,) are of this pass."""
        images = self.augmented(images, keys, p)
        # D keeps no statistics: reals and fakes would share them.
        rest = {"train": True, "power_iterate": False, "keys": keys}
        ((logits,), _) = nets.logits(params, stats, images, texts, **rest)
        return logits

    def augmented(self, images: Array, keys: Array, p: Array) -> Array:
        """Images in G's range, (b, H, W, C), by both augmentations, whose constants are for
        [-1, 1]."""
        unit = self.generator.unit_range and bool(self.pipe or self.augment)
        images = 2 * images - 1 if unit else images
        images = augment_pipe.augment(images, rng.children(keys, 1), self.pipe, p)
        images = diff_augment(images, keys, self.augment)
        return (images + 1) / 2 if unit else images

    def d_loss(self, nets: Networks, part: str, params, state, batch: Batch, keys: Keys):
        """D's loss with both penalties, of one pass over reals and fakes."""
        real, texts = nets.in_range(batch["a"]["image"]), self.of_labels(batch)
        fake, _ = nets.fake(state.params["g"], state.stats["g"], keys.z, *texts, keys=keys.example)
        images = jnp.concatenate([real, jax.lax.stop_gradient(fake)])
        seen = nets.seen(state.step, len(real))
        own = jnp.concatenate([rng.children(keys.example, salt) for salt in (0, 1)])
        rest = (tuple(jnp.tile(x, (2, 1)) for x in texts), own, self.pipe_p.at(seen))
        discriminate = lambda x: self.judge(nets, params, state.stats["d"], x, *rest)  # noqa: E731
        if self.penalty_every == 1:
            logits, norms = losses.with_r1(discriminate, images)
        else:
            logits, norms = jax.lax.cond(
                state.step % self.penalty_every == 0,
                functools.partial(losses.with_r1, discriminate),
                lambda x: (discriminate(x), jnp.zeros(len(x), x.dtype)),
                images,
            )
        (real, fake), (r1, r2) = jnp.split(logits, 2), map(jnp.mean, jnp.split(norms, 2))
        terms = self.adversarial.d(real, fake, self.real_label, self.fake_label)
        weight = self.penalty_every * self.gamma.at(seen) / 2
        loss = self.d_scale * sum(map(jnp.mean, terms)) + weight * (self.r1 * r1 + self.r2 * r2)
        metrics, extra_state = self.judged(nets, state, real, fake)
        metrics |= {"loss/d": loss, "penalty/r1": r1, "penalty/r2": r2}
        return loss, Aux(metrics, state.stats["d"], extra_state)

    def g_loss(self, nets: Networks, params, state, batch: Batch, keys: Keys):
        """G's loss of its own latents beside its own real images."""
        texts, d = self.of_labels(batch), (state.params["d"], state.stats["d"])
        fake, stats = nets.fake(params, state.stats["g"], keys.z, *texts, keys=keys.example)
        p = self.pipe_p.at(nets.seen(state.step, len(fake)))
        made = self.judge(nets, *d, fake, texts, rng.children(keys.example, 0), p)
        real = jnp.zeros_like(made)
        if self.adversarial.pairs:
            images = nets.in_range(batch["a"]["image"])
            real = self.judge(nets, *d, images, texts, rng.children(keys.example, 1), p)
        loss = jnp.mean(self.adversarial.g(made, real, self.real_label))
        return loss, Aux({"loss/g": loss}, stats, state.extra_state)

    def preview(self, nets: Networks, state, constants, keys: Array, data) -> dict[str, Array]:
        """Images of fixed latents (and texts): with the trained weights and their average."""
        if not self.labels:
            return super().preview(nets, state, constants, keys, data)
        both = text_conditioning.preview(constants, keys, self.generator.z_dim)
        weights = {"samples": (state.params["g"], state.stats["g"])}
        weights |= {"ema": core.generator_of(state)} if state.ema else {}
        return {name: nets.generate(*each, *both) for name, each in weights.items()}


class Unbounded(Networks):
    """Networks whose G has no bound on its pixels; what is shown is clipped, what D sees is not."""

    def generate(self, params, stats, z: Array, text: Array | None = None) -> Array:
        return jnp.clip(super().generate(params, stats, z, text), -1, 1)
