"""Words to image: the matching-aware GAN of SJTU's report (GAN-CLS and GAN-INT).

Source: Reed et al. 2016, algorithm 1.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax import core, losses, rng
from anigan_jax.core import Array, Aux, Batch, Keys, Method
from anigan_jax.errors import UserError
from anigan_jax.methods import text_conditioning
from anigan_jax.methods.gan import GAN
from anigan_jax.methods.players import Networks
from anigan_jax.methods.text_conditioning import Encoder, Texts, vectors
from anigan_jax.networks.blocks import GeneratorSettings, NetworkSettings
from anigan_jax.networks.text import TextDiscriminator, TextGenerator
from anigan_jax.rng import Salt


@dataclass(frozen=True)
class TextGAN(GAN):
    """GAN-CLS and GAN-INT (Reed et al. 2016) with every setting of the DCGAN family."""

    generator: GeneratorSettings = field(default_factory=TextGenerator)
    discriminator: NetworkSettings = field(default_factory=TextDiscriminator)
    encoder: Encoder = field(default_factory=Encoder)
    wrong_weight: float = 1.0
    """Weight of D's term of real images with another text (SJTU: 1, Reed et al.: 0.5)."""
    fake_weight: float = 1.0
    """Weight of D's term of generated images (SJTU: 1, Reed et al.: 0.5)."""
    wrong_text: Literal["any", "one_part", "each_part"] = "any"
    """The other text: any that is not the image's; one_part: one that differs in only one
    attribute (hair or eyes), if the data has one, so that D must look at each; each_part: the
    same, with each attribute equally often, whether of few classes (glasses) or many (hair)."""
    int_weight: float = 0.0
    """Weight of G's term for texts between two in the data (GAN-INT); 0: GAN-CLS."""
    int_beta: float = 0.5
    """Share of the image's own text in them."""

    inputs = text_conditioning.inputs

    @property
    def next_verbs(self) -> tuple[tuple[str, str], ...]:
        return (
            ("sample RUN --prompt PROMPT", "faces by words"),
            ("table RUN", "every hair color with every eye color"),
        )

    def constants(self, pack: Any) -> dict[str, np.ndarray]:
        """The texts of combinations of classes, and how often the data has each."""
        found = text_conditioning.labels(pack, "train")
        return text_conditioning.tables(self.encoder, found, pack.attributes)

    def networks(self) -> dict[str, tuple[nn.Module, tuple]]:
        """Name -> (module, shapes of its inputs for one image)."""
        texts = ((1, self.encoder.length),)
        return {name: (net, (*shapes, texts)) for name, (net, shapes) in super().networks().items()}

    def make(self, axis_name: str | None = None) -> Method:
        """The Method; `axis_name` is the mapped axis of devices, None on one device."""
        if self.split_d:
            raise UserError("method.split_d has no meaning with texts; D learns all terms at once")
        if not 0 <= self.int_beta <= 1:
            raise UserError(f"method.int_beta is {self.int_beta}; it must be in 0 to 1")
        # Of tags alone: vectors of texts mean the same everywhere.
        vocabulary = self.text_layers if self.encoder.kind == "tags" else ()
        return super().make(axis_name)._replace(texts=self.texts, vocabulary=vocabulary)

    def texts(self, constants: dict) -> core.Texts:
        """What the generator can be asked for."""
        return text_conditioning.askable(self.encoder, constants)

    def texts_of_nothing(self, n: int, known: dict) -> tuple:
        if "texts" in known:
            length = known["texts"].shape[-1]
        else:
            layer = known[self.discriminator.text_layers[0]]
            length = next(x.shape[0] for x in jax.tree.leaves(layer) if x.ndim == 2)
        return ((jnp.zeros((n, length)),),)

    def draw_texts(self, batch: Batch) -> Texts:
        """The texts of a batch, by the examples' own keys: the same in D's and G's update."""

        def keys(salt: Salt) -> Array:
            return rng.children(batch["keys"], salt)

        constants = batch["constants"]
        counts = constants["counts"]
        own = text_conditioning.place(constants, batch["a"]["label"])
        right = vectors(constants, own, keys(Salt.WORDING))
        rows = text_conditioning.combinations(constants)
        other = text_conditioning.wrong_texts(rows, counts, own, keys(Salt.WRONG), self.wrong_text)
        drawn = text_conditioning.any_texts(counts, keys(Salt.OTHER))
        second = vectors(constants, drawn, keys(Salt.OTHER_WORDING))
        return Texts(
            right,
            vectors(constants, other, keys(Salt.WRONG_WORDING)),
            losses.interpolate_texts(right, second, self.int_beta),
        )

    def d_loss(self, nets: Networks, part: str, params, state, batch: Batch, keys: Keys):
        """D's loss on (real, right text), (real, wrong text) and (fake, right text)."""
        images = nets.in_range(batch["a"]["image"])
        texts = self.draw_texts(batch)
        fake, _ = nets.fake(state.params["g"], state.stats["g"], keys.z, texts.right, keys.example)
        fake = jax.lax.stop_gradient(fake)
        both, own = (texts.right, texts.wrong), (texts.right,)
        score = functools.partial(self.score, nets)
        logits, stats = score(params, state.stats["d"], {0: images}, both, keys, iterate=True)
        (made,), stats = score(params, stats, {1: fake}, own, keys, iterate=False)
        right, wrong = logits
        terms = losses.matching_aware_d(
            self.adversarial.d, right, wrong, made, self.real_label, self.fake_label
        )
        real_term, wrong_term, fake_term = (jnp.mean(term) for term in terms)
        total = real_term + self.wrong_weight * wrong_term + self.fake_weight * fake_term
        penalty = self.penalty(nets, params, stats, images, fake, own, keys)
        loss = self.d_scale * total + penalty
        metrics, extra_state = self.judged(nets, state, right, made)
        metrics |= {
            "loss/d": loss,
            "loss/d_real": real_term,
            "loss/d_wrong": wrong_term,
            "loss/d_fake": fake_term,
            "score/wrong": jnp.mean(self.adversarial.score(wrong)),
        }
        return loss, Aux(metrics, stats, extra_state)

    def g_loss(self, nets: Networks, params, state, batch: Batch, keys: Keys):
        """G's loss for the images' texts and, with GAN-INT, for texts between two."""
        texts = self.draw_texts(batch)
        fake, stats = nets.fake(params, state.stats["g"], keys.z, texts.right, keys.example)
        loss = self.generator_loss(nets, state, batch, fake, (texts.right,), keys)
        metrics = {}
        if self.int_weight:
            # A pass of its own, so that the first is the one that D's update has made.
            between, _ = nets.fake(params, state.stats["g"], keys.z, texts.between, keys.example)
            told = (texts.between,)
            term = self.generator_loss(nets, state, batch, between, told, keys, salt=2)
            metrics["loss/g_between"] = term
            loss = loss + self.int_weight * term
        return loss, Aux({"loss/g": loss, **metrics}, stats, state.extra_state)

    def preview(self, nets: Networks, state, constants, keys: Array, data) -> dict[str, Array]:
        """Rows of fixed texts, columns of fixed latents: trained weights and their average."""
        z, shown = text_conditioning.preview(constants, keys, self.generator.z_dim)
        weights = {"samples": (state.params["g"], state.stats["g"])}
        weights |= {"ema": core.generator_of(state)} if state.ema else {}
        return {name: nets.generate(*both, z, shown) for name, both in weights.items()}
