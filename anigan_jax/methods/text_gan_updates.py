"""Words to image: the losses of GAN-CLS and GAN-INT."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from anigan_jax import losses, rng
from anigan_jax.core import Array, Aux, Batch, Keys, Method
from anigan_jax.data import captions
from anigan_jax.data.tags import EYES
from anigan_jax.methods import text_tables
from anigan_jax.methods.gan_updates import Game, method_of
from anigan_jax.methods.text_gan import TextGAN
from anigan_jax.networks import text
from anigan_jax.rng import Salt

NEVER = -jnp.inf


def make(settings: TextGAN, axis_name: str | None) -> Method:
    """The Method of the family."""
    g = text.generator(settings.generator, axis_name, settings.dtype)
    d = text.discriminator(settings.discriminator, axis_name, settings.dtype)
    method = method_of(TextGame(settings, g, d, axis_name), preview)
    return method._replace(
        encode=lambda frozen, prompts: text_tables.encode(settings.encoder, frozen, prompts)
    )


class Texts(NamedTuple):
    """Vectors (b, T) of a batch: the images' own texts, others, and texts between two."""

    right: Array
    wrong: Array
    between: Array


def wrong_pairs(counts: Array, pair: Array, keys: Array, rule: str) -> Array:
    """A pair of the data for each image that is never its own, (b,).

    Args:
      counts: (P,) images of each pair; at least two are positive.
      pair: (b,) the images' own pairs; keys: (b,).
      rule: 'any', or 'one_part': it differs in hair or in eyes alone, where the data has
        such a pair.
    """
    every = jnp.arange(counts.shape[0])
    hair = every[None] // len(EYES) == pair[:, None] // len(EYES)
    eyes = every[None] % len(EYES) == pair[:, None] % len(EYES)
    allowed = (counts > 0)[None] & ~(hair & eyes)
    if rule == "one_part":
        near = allowed & (hair | eyes)
        allowed = jnp.where(near.any(1, keepdims=True), near, allowed)
    logits = jnp.where(allowed, jnp.log(counts)[None], NEVER)
    return jax.vmap(jax.random.categorical)(keys, logits)


def any_pairs(counts: Array, keys: Array) -> Array:
    """A pair of the data for each key, as often as the data has it, (b,)."""
    return jax.vmap(lambda key: jax.random.categorical(key, jnp.log(counts)))(keys)


def vectors(frozen, pair: Array, keys: Array) -> Array:
    """One of the wordings of each pair, (b,) -> (b, T)."""
    return frozen["texts"][pair, rng.below(keys, frozen["wordings"][pair])]


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
    rows = text_tables.PREVIEW_TEXTS
    columns = keys.shape[0] // rows
    z = rng.normal(keys[:columns], (game.settings.generator.z_dim,))
    shown = state.frozen["texts"][state.frozen["preview"], 0]
    z, shown = jnp.tile(z, (rows, 1)), jnp.repeat(shown, columns, axis=0)
    weights = {"samples": state.params["g"], **({"ema": state.ema} if state.ema else {})}
    stats = state.stats["g"]
    return {name: game.generate(tree, stats, z, shown) for name, tree in weights.items()}
