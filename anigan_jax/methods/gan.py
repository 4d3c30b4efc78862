"""Noise to image: the DCGAN family with any adversarial loss, penalty and schedule."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp

from anigan_jax import losses, rng
from anigan_jax.config import ComputeType, MethodSettings
from anigan_jax.core import Array, Aux, Batch, Keys, Method, Phase, Update, sum_over
from anigan_jax.errors import UserError
from anigan_jax.methods.augment import diff_augment
from anigan_jax.methods.schedule import Schedule, schedule_repeats
from anigan_jax.networks import dcgan, stack
from anigan_jax.networks.dcgan import Discriminator, Generator


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
    """Two optimizer steps of D, on reals and then on fakes, as Keras trains."""
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
    losses and optimizers stay float32."""

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

        return make(self, axis_name)


def make(settings: GAN, axis_name: str | None) -> Method:
    """The Method of the family."""
    g = dcgan.generator(settings.generator, axis_name, settings.dtype)
    d = dcgan.discriminator(settings.discriminator, axis_name, settings.dtype)
    return method_of(Game(settings, g, d, axis_name), preview)


def method_of(game: Game, draw: Callable) -> Method:
    """The Method of a game; draw(game, state, keys) gives the previews."""
    return Method(
        init=game.init,
        phases=(Phase("train", game.updates()),),
        preview=lambda state, keys, shown: draw(game, state, keys),
        generate=game.generate,
        z_dim=game.settings.generator.z_dim,
        represent=game.represent,
    )


class Game:
    """Two networks and their losses; holds static choices only, no arrays.

    A text of G is (n, T); those of D are a tuple, a logit each. Both are absent here and
    there in `text_gan`.
    """

    def __init__(self, settings: GAN, generator, discriminator, axis_name):
        g, d = settings.generator, settings.discriminator
        if g.size != d.size:
            raise UserError(f"generator.size {g.size} differs from discriminator.size {d.size}")
        self.settings = settings
        self.g, self.d = generator, discriminator
        self.axis_name = axis_name
        self.adversarial = losses.ADVERSARIAL[settings.loss]
        self.sigmoid_images = settings.generator.output == "sigmoid"

    def init(self, key: Array, frozen, *texts):
        """() key -> (params, stats, memory); `texts`: the networks' further arguments."""
        key_g, key_d = jax.random.split(key)
        s = self.settings.generator
        z = jnp.zeros((1, 1, 1, s.z_dim))
        images = jnp.zeros((1, s.size, s.size, 3))
        variables = {
            # Evaluation mode: training mode would need the mapped axis.
            "g": self.g.init(key_g, z, *texts, train=False),
            "d": self.d.init(key_d, images, *texts, train=False),
        }
        params, stats = split_variables(variables)
        # The first step's accuracy is not stated in CSC412: one half.
        memory = {}
        if self.settings.schedule.kind in ("as_printed", "as_argued"):
            memory = {"correct": jnp.int32(1), "judged": jnp.int32(2)}
        return params, stats, memory

    def updates(self) -> tuple[Update, ...]:
        """D, then G, with the repeats of the schedule."""
        d_repeats, g_repeats, most_d, most_g = schedule_repeats(self.settings.schedule)
        dynamic = bool(self.settings.schedule.kind.startswith("as_"))
        parts = ("real", "fake") if self.settings.split_d else ("both",)
        d_losses = tuple(functools.partial(self.d_loss, part) for part in parts)
        shared = self.settings.shared_noise
        return (
            # CSC412: one batch of fakes for all repeats of D, fresh noise for each of G.
            Update("d", d_losses, d_repeats, most_d, 0, fresh_noise=not dynamic),
            Update("g", (self.g_loss,), g_repeats, most_g, 0 if shared else 1, True),
        )

    def generate(self, params, stats, z: Array, text: Array | None = None) -> Array:
        """z (n, Z) -> images (n, H, W, 3) in [-1, 1], with running statistics."""
        x, _ = self.fake(params, stats, z, text, train=False)
        return 2 * x - 1 if self.sigmoid_images else x

    def fake(self, params, stats, z: Array, text: Array | None = None, *, train=True):
        """Images of z (n, Z) in G's own range, and G's new statistics."""
        variables, rest = {"params": params, **stats}, {"train": train, "mutable": list(stats)}
        z = z[:, None, None, :]
        if text is None:
            return self.g.apply(variables, z, **rest)
        (images,), new = self.g.apply(variables, z, (text,), **rest)
        return images, new

    def logits(self, params, stats, images, texts: tuple = (), **rest):
        """D's logits, one (b,) for each text (one where there is none), and new statistics."""
        variables, more = {"params": params, **stats}, (texts,) if texts else ()
        out, new = self.d.apply(variables, images, *more, mutable=list(stats), **rest)
        each = out if texts else (out,)
        return tuple(x.reshape(x.shape[0], -1).mean(-1) for x in each), new

    def represent(self, params, stats, images: Array) -> Array:
        """D's features (n, F) of images (n, H, W, 3) in [-1, 1], with running statistics.

        The map of every convolution before the logit, and before a text joins, as the
        next layer sees it: max-pooled to 4x4, flattened, one after the other.

        Source: Radford et al. 2016, section 5.1.
        """
        variables, images = {"params": params, **stats}, self.real({"real": images})
        told = self.no_texts(len(images))
        _, maps = self.d.apply(variables, images, *told, train=False, features=True)
        trunk = list(zip(self.d.blocks, maps, strict=True))[: self.d.trunk]
        pooled = [stack.grid_max(x, 4) for block, x in trunk if block.op == "conv"]
        rows = [x.reshape(len(x), -1) for x in pooled]
        return jnp.concatenate(rows, axis=1).astype(jnp.float32)

    def no_texts(self, n: int) -> tuple:
        """D's further arguments for n images where no text matters."""
        return ()

    def score(self, params, stats, images, texts, keys: Keys, salt: int, *, iterate: bool):
        """`logits` in training, of augmented images; `salt` keeps draws apart."""
        own = rng.children(keys.example, salt)
        images = diff_augment(images, own, self.settings.augment)
        rest = {"train": True, "power_iterate": iterate, "keys": own}
        return self.logits(params, stats, images, texts, **rest)

    def real(self, batch: Batch) -> Array:
        """The batch in the generator's range."""
        return (batch["real"] + 1) / 2 if self.sigmoid_images else batch["real"]

    def d_loss(self, part: str, params, state, batch: Batch, keys: Keys):
        """D's loss on reals and fakes ('both') or on one of them."""
        s = self.settings
        images = self.real(batch)
        fake, _ = self.fake(state.params["g"], state.stats["g"], keys.z)
        fake = jax.lax.stop_gradient(fake)
        # Separate passes: each has its own batch statistics, as in the references.
        (real,), stats = self.score(params, state.stats["d"], images, (), keys, 0, iterate=True)
        (made,), stats = self.score(params, stats, fake, (), keys, 1, iterate=False)
        terms = self.adversarial.d(real, made, s.real_label, s.fake_label)
        weights = {"both": (1, 1), "real": (1, 0), "fake": (0, 1)}[part]
        total = sum(w * jnp.mean(term) for w, term in zip(weights, terms, strict=True))
        loss = s.d_scale * total + self.penalty(params, stats, images, fake, (), keys)
        metrics, memory = self.judged(state, real, made)
        return loss, Aux({"loss/d": loss, **metrics}, stats, memory)

    def judged(self, state, real: Array, fake: Array):
        """Metrics and new memory from D's logits of reals and fakes (b,)."""
        correct = jnp.sum(real > 0) + jnp.sum(fake < 0)
        judged = jnp.int32(2 * real.shape[0])
        metrics = {
            "score/real": jnp.mean(jax.nn.sigmoid(real)),
            "score/fake": jnp.mean(jax.nn.sigmoid(fake)),
            "accuracy/d": correct / judged,
        }
        if not state.memory:
            return metrics, state.memory
        counts = {"correct": correct.astype(jnp.int32), "judged": judged}
        return metrics, {name: sum_over(self.axis_name, n) for name, n in counts.items()}

    def penalty(self, params, stats, real, fake, texts: tuple, keys: Keys) -> Array:
        """Weighted gradient penalties of D; 0 where none is set.

        Departs: D sees the images unaugmented and with running statistics, so that an
        image's gradient does not depend on its neighbors in the batch.
        """
        s = self.settings

        def discriminate(images):
            (logits,), _ = self.logits(params, stats, images, texts, train=False)
            return logits

        total = jnp.float32(0)
        if s.r1:
            total += s.r1 / 2 * jnp.mean(losses.r1(discriminate, real))
        if s.r2:
            total += s.r2 / 2 * jnp.mean(losses.r2(discriminate, fake))
        if s.gradient_penalty:
            mix = jax.vmap(jax.random.uniform)(rng.children(keys.example, 2))
            value = losses.gradient_penalty(discriminate, real, fake, mix)
            total += s.gradient_penalty * jnp.mean(value)
        return total

    def g_loss(self, params, state, batch: Batch, keys: Keys):
        """G's loss under the D of the state; D's statistics stay as they are."""
        fake, stats = self.fake(params, state.stats["g"], keys.z)
        loss = self.fooled(state, batch, fake, (), keys)
        return loss, Aux({"loss/g": loss}, stats, state.memory)

    def fooled(self, state, batch: Batch, fake: Array, texts: tuple, keys: Keys, salt=0) -> Array:
        """() G's loss for generated images and their text; draws of `salt` and the next."""
        d = state.params["d"], state.stats["d"]
        (made,), _ = self.score(*d, fake, texts, keys, salt, iterate=False)
        real = jnp.zeros_like(made)
        if self.settings.loss == "relativistic":
            images = self.real(batch)
            (real,), _ = self.score(*d, images, texts, keys, salt + 1, iterate=False)
        return jnp.mean(self.adversarial.g(made, real, self.settings.real_label))


def split_variables(variables: dict) -> tuple[dict, dict]:
    """Flax variables of each player -> (params, stats), dicts over players."""
    params = {player: tree["params"] for player, tree in variables.items()}
    stats = {
        player: {name: part for name, part in tree.items() if name != "params"}
        for player, tree in variables.items()
    }
    return params, stats


def preview(game: Game, state, keys: Array) -> dict[str, Array]:
    """Images of fixed latents, (n,) keys: with the trained weights and their average."""
    z = rng.normal(keys, (game.settings.generator.z_dim,))
    panels = {"samples": game.generate(state.params["g"], state.stats["g"], z)}
    if state.ema:
        panels["ema"] = game.generate(state.ema, state.stats["g"], z)
    return panels
