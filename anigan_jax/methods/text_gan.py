"""Words to image: the matching-aware GAN of SJTU's report (GAN-CLS and GAN-INT)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp

from anigan_jax import losses, rng
from anigan_jax.core import Array, Aux, Batch, Keys, Method
from anigan_jax.data import captions
from anigan_jax.errors import UserError
from anigan_jax.methods import text_conditioning
from anigan_jax.methods.gan import GAN, Game, method_of
from anigan_jax.methods.text_conditioning import Encoder, Texts, any_pairs, vectors, wrong_pairs
from anigan_jax.networks import text
from anigan_jax.networks.text import TextDiscriminator, TextGenerator
from anigan_jax.rng import Salt


@dataclass(frozen=True)
class TextGAN(GAN):
    """GAN-CLS and GAN-INT (Reed et al. 2016) with every setting of the DCGAN family."""

    generator: TextGenerator = field(default_factory=TextGenerator)
    discriminator: TextDiscriminator = field(default_factory=TextDiscriminator)
    encoder: Encoder = field(default_factory=Encoder)
    wrong_weight: float = 1.0
    """Weight of D's term of real images with another text (SJTU: 1, Reed et al.: 0.5)."""
    fake_weight: float = 1.0
    """Weight of D's term of generated images (SJTU: 1, Reed et al.: 0.5)."""
    wrong_text: Literal["any", "one_part"] = "any"
    """The other text: any that is not the image's; or one that differs in hair or in eyes
    alone, where the data has one, so that D must look at both."""
    int_weight: float = 0.0
    """Weight of G's term for texts between two of the data (GAN-INT); 0: GAN-CLS."""
    int_beta: float = 0.5
    """Share of the image's own text in them."""

    inputs = text_conditioning.inputs

    def frozen(self, pack):
        """The texts of every pair of colors, and how often the data has the pair."""
        return text_conditioning.tables(self.encoder, text_conditioning.labels(pack, "train"))

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

        if self.split_d:
            raise UserError("method.split_d has no meaning with texts; D learns all terms at once")
        if not 0 <= self.int_beta <= 1:
            raise UserError(f"method.int_beta is {self.int_beta}; it must be in 0 to 1")
        return make(self, axis_name)


def make(settings: TextGAN, axis_name: str | None) -> Method:
    """The Method of the family."""
    g = text.generator(settings.generator, axis_name, settings.dtype)
    d = text.discriminator(settings.discriminator, axis_name, settings.dtype)
    method = method_of(TextGame(settings, g, d, axis_name), preview)
    return method._replace(
        encode=lambda frozen, prompts: text_conditioning.encode(settings.encoder, frozen, prompts)
    )


def draw_texts(settings: TextGAN, frozen, batch: Batch) -> Texts:
    """The texts of a batch, by the examples' own keys: the same in D's and G's update."""

    def keys(salt: Salt) -> Array:
        return rng.children(batch["keys"], salt)

    counts, pair = frozen["counts"], captions.pair(*batch["label"].T)
    right = vectors(frozen, pair, keys(Salt.WORDING))
    other = wrong_pairs(counts, pair, keys(Salt.WRONG), settings.wrong_text)
    second = vectors(frozen, any_pairs(counts, keys(Salt.OTHER)), keys(Salt.OTHER_WORDING))
    return Texts(
        right,
        vectors(frozen, other, keys(Salt.WRONG_WORDING)),
        losses.interpolate_texts(right, second, settings.int_beta),
    )


class TextGame(Game):
    """A game in which both players see a text. Source: Reed et al. 2016, algorithm 1."""

    settings: TextGAN

    def init(self, key: Array, frozen):
        """() key -> (params, stats, memory)."""
        return super().init(key, frozen, (jnp.zeros((1, self.settings.encoder.length)),))

    def no_texts(self, n: int) -> tuple:
        return ((jnp.zeros((n, self.settings.encoder.length)),),)

    def d_loss(self, part: str, params, state, batch: Batch, keys: Keys):
        """D's loss on (real, right text), (real, wrong text) and (fake, right text)."""
        s, images = self.settings, self.real(batch)
        texts = draw_texts(s, state.frozen, batch)
        fake, _ = self.fake(state.params["g"], state.stats["g"], keys.z, texts.right)
        fake = jax.lax.stop_gradient(fake)
        both, own = (texts.right, texts.wrong), (texts.right,)
        logits, stats = self.score(params, state.stats["d"], images, both, keys, 0, iterate=True)
        (made,), stats = self.score(params, stats, fake, own, keys, 1, iterate=False)
        right, wrong = logits
        terms = losses.matching_aware_d(
            self.adversarial.d, right, wrong, made, s.real_label, s.fake_label
        )
        real_term, wrong_term, fake_term = (jnp.mean(term) for term in terms)
        total = real_term + s.wrong_weight * wrong_term + s.fake_weight * fake_term
        loss = s.d_scale * total + self.penalty(params, stats, images, fake, own, keys)
        metrics, memory = self.judged(state, right, made)
        metrics |= {
            "loss/d": loss,
            "loss/d_real": real_term,
            "loss/d_wrong": wrong_term,
            "loss/d_fake": fake_term,
            "score/wrong": jnp.mean(jax.nn.sigmoid(wrong)),
        }
        return loss, Aux(metrics, stats, memory)

    def g_loss(self, params, state, batch: Batch, keys: Keys):
        """G's loss for the images' texts and, with GAN-INT, for texts between two."""
        s = self.settings
        texts = draw_texts(s, state.frozen, batch)
        fake, stats = self.fake(params, state.stats["g"], keys.z, texts.right)
        loss = self.fooled(state, batch, fake, (texts.right,), keys)
        metrics = {}
        if s.int_weight:
            # A pass of its own, so that the first is the one that D's update has made.
            between, _ = self.fake(params, state.stats["g"], keys.z, texts.between)
            term = self.fooled(state, batch, between, (texts.between,), keys, salt=2)
            metrics["loss/g_between"] = term
            loss = loss + s.int_weight * term
        return loss, Aux({"loss/g": loss, **metrics}, stats, state.memory)


def preview(game: TextGame, state, keys: Array) -> dict[str, Array]:
    """Rows of fixed texts, columns of fixed latents: trained weights and their average."""
    rows = text_conditioning.PREVIEW_TEXTS
    columns = keys.shape[0] // rows
    z = rng.normal(keys[:columns], (game.settings.generator.z_dim,))
    shown = state.frozen["texts"][state.frozen["preview"], 0]
    z, shown = jnp.tile(z, (rows, 1)), jnp.repeat(shown, columns, axis=0)
    weights = {"samples": state.params["g"], **({"ema": state.ema} if state.ema else {})}
    stats = state.stats["g"]
    return {name: game.generate(tree, stats, z, shown) for name, tree in weights.items()}
