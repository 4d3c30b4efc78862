"""Noise to image: the losses and updates of the DCGAN family."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from anigan_jax import losses, rng
from anigan_jax.augment import diff_augment
from anigan_jax.core import Array, Aux, Batch, Keys, Method, Phase, Update, sum_over
from anigan_jax.errors import UserError
from anigan_jax.methods.gan import GAN, Schedule
from anigan_jax.networks import dcgan

# Seed S2's rule gives at most this many repeats of a player.
MAX_DYNAMIC = 10


def make(settings: GAN, axis_name: str | None) -> Method:
    """The Method of the family."""
    g, d = settings.generator, settings.discriminator
    if g.size != d.size:
        raise UserError(f"generator.size {g.size} differs from discriminator.size {d.size}")
    nets = dcgan.generator(g, axis_name), dcgan.discriminator(d, axis_name)
    game = Game(settings, *nets, axis_name)
    return Method(
        init=game.init,
        phases=(Phase("train", game.updates()),),
        preview=lambda state, keys: preview(game, state, keys),
        generate=game.generate,
        z_dim=g.z_dim,
    )


class Game:
    """Two networks and their losses; holds static choices only, no arrays."""

    def __init__(self, settings: GAN, generator, discriminator, axis_name):
        self.settings = settings
        self.g, self.d = generator, discriminator
        self.axis_name = axis_name
        self.adversarial = losses.ADVERSARIAL[settings.loss]
        self.sigmoid_images = settings.generator.output == "sigmoid"

    def init(self, key: Array):
        """() key -> (params, stats, memory)."""
        key_g, key_d = jax.random.split(key)
        s = self.settings.generator
        z = jnp.zeros((1, 1, 1, s.z_dim))
        images = jnp.zeros((1, s.size, s.size, 3))
        variables = {
            # Evaluation mode: training mode would need the mapped axis.
            "g": self.g.init(key_g, z, train=False),
            "d": self.d.init(key_d, images, train=False),
        }
        params = {player: tree["params"] for player, tree in variables.items()}
        stats = {
            player: {name: part for name, part in tree.items() if name != "params"}
            for player, tree in variables.items()
        }
        # The first step's accuracy is not stated in seed S2: one half.
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
            # Seed S2: one batch of fakes for all repeats of D, fresh noise for each of G.
            Update("d", d_losses, d_repeats, most_d, 0, fresh_noise=not dynamic),
            Update("g", (self.g_loss,), g_repeats, most_g, 0 if shared else 1, True),
        )

    def generate(self, params, stats, z: Array) -> Array:
        """z (n, Z) -> images (n, H, W, 3) in [-1, 1], with running statistics."""
        x = self.g.apply({"params": params, **stats}, z[:, None, None, :], train=False)
        return 2 * x - 1 if self.sigmoid_images else x

    def fake(self, params, stats, keys: Keys):
        """Generated training images in G's own range, and G's new statistics."""
        variables = {"params": params, **stats}
        z = keys.z[:, None, None, :]
        return self.g.apply(variables, z, train=True, mutable=list(stats))

    def score(self, params, stats, images, keys, salt: int, *, iterate: bool, train=True):
        """D's logits (b,) and its new statistics; `salt` keeps draws apart."""
        fold = jax.vmap(lambda key: jax.random.fold_in(key, salt))
        keys = fold(keys.example)
        images = diff_augment(images, keys, self.settings.augment)
        logits, new = self.d.apply(
            {"params": params, **stats},
            images,
            train=train,
            power_iterate=iterate,
            keys=keys,
            mutable=list(stats),
        )
        return logits.reshape(logits.shape[0], -1).mean(-1), new

    def real(self, batch: Batch) -> Array:
        """The batch in the generator's range."""
        return (batch["real"] + 1) / 2 if self.sigmoid_images else batch["real"]

    def d_loss(self, part: str, params, state, batch: Batch, keys: Keys):
        """D's loss on reals and fakes ('both') or on one of them."""
        s = self.settings
        images = self.real(batch)
        fake, _ = self.fake(state.params["g"], state.stats["g"], keys)
        fake = jax.lax.stop_gradient(fake)
        # Separate passes: each has its own batch statistics, as in the references.
        real_logits, stats = self.score(params, state.stats["d"], images, keys, 0, iterate=True)
        fake_logits, stats = self.score(params, stats, fake, keys, 1, iterate=False)
        terms = self.adversarial.d(real_logits, fake_logits, s.real_label, s.fake_label)
        weights = {"both": (1, 1), "real": (1, 0), "fake": (0, 1)}[part]
        total = sum(w * jnp.mean(term) for w, term in zip(weights, terms, strict=True))
        total = s.d_scale * total
        loss = total + self.penalty(params, stats, images, fake, keys)
        correct = jnp.sum(real_logits > 0) + jnp.sum(fake_logits < 0)
        judged = jnp.int32(2 * real_logits.shape[0])
        metrics = {
            "loss/d": loss,
            "score/real": jnp.mean(jax.nn.sigmoid(real_logits)),
            "score/fake": jnp.mean(jax.nn.sigmoid(fake_logits)),
            "accuracy/d": correct / judged,
        }
        memory = state.memory
        if memory:
            memory = {
                "correct": sum_over(self.axis_name, correct.astype(jnp.int32)),
                "judged": sum_over(self.axis_name, judged),
            }
        return loss, Aux(metrics, stats, memory)

    def penalty(self, params, stats, real, fake, keys: Keys) -> Array:
        """Weighted gradient penalties of D; 0 where none is set.

        Departs: D sees the images unaugmented and with running statistics, so that an
        image's gradient does not depend on its neighbours in the batch.
        """
        s = self.settings
        variables = {"params": params, **stats}

        def discriminate(images):
            logits = self.d.apply(variables, images, train=False)
            return logits.reshape(logits.shape[0], -1).mean(-1)

        total = jnp.float32(0)
        if s.r1:
            total += s.r1 / 2 * jnp.mean(losses.r1(discriminate, real))
        if s.r2:
            total += s.r2 / 2 * jnp.mean(losses.r2(discriminate, fake))
        if s.gradient_penalty:
            mix = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 2)))(keys.example)
            value = losses.gradient_penalty(discriminate, real, fake, mix)
            total += s.gradient_penalty * jnp.mean(value)
        return total

    def g_loss(self, params, state, batch: Batch, keys: Keys):
        """G's loss under the D of the state; D's statistics stay as they are."""
        fake, stats = self.fake(params, state.stats["g"], keys)
        d = state.params["d"], state.stats["d"]
        fake_logits, _ = self.score(*d, fake, keys, 0, iterate=False)
        if self.settings.loss == "relativistic":
            real_logits, _ = self.score(*d, self.real(batch), keys, 1, iterate=False)
        else:
            real_logits = jnp.zeros_like(fake_logits)
        terms = self.adversarial.g(fake_logits, real_logits, self.settings.real_label)
        loss = jnp.mean(terms)
        return loss, Aux({"loss/g": loss}, stats, state.memory)


def preview(game: Game, state, keys: Array) -> dict[str, Array]:
    """Images of fixed latents, (n,) keys: with the trained weights and their average."""
    z = rng.normal(keys, (game.settings.generator.z_dim,))
    panels = {"samples": game.generate(state.params["g"], state.stats["g"], z)}
    if state.ema:
        panels["ema"] = game.generate(state.ema, state.stats["g"], z)
    return panels


def schedule_repeats(schedule: Schedule):
    """(d repeats, g repeats, most d, most g); repeats are ints or functions.

    The dynamic rule is seed S2's, from integer counts: float32 accuracy would turn 7
    repeats into 6 at 0.7.
    """
    if schedule.kind == "fixed":
        return schedule.d, schedule.g, max(schedule.d, 1), max(schedule.g, 1)
    if schedule.kind == "alternate":
        period = schedule.d_steps + schedule.g_steps
        if schedule.d_steps < 1 or schedule.g_steps < 1:
            raise UserError("schedule 'alternate' needs d_steps and g_steps of 1 or more")

        def d_turn(memory, step):
            return jnp.where(step % period < schedule.d_steps, schedule.d, 0)

        def g_turn(memory, step):
            return jnp.where(step % period < schedule.d_steps, 0, schedule.g)

        return d_turn, g_turn, schedule.d, schedule.g

    def right(memory, step):
        return MAX_DYNAMIC * memory["correct"] // memory["judged"]

    def wrong(memory, step):
        missed = memory["judged"] - memory["correct"]
        return MAX_DYNAMIC * missed // memory["judged"]

    d_count, g_count = right, wrong
    if schedule.kind == "as_argued":
        d_count, g_count = wrong, right

    def d_repeats(memory, step):
        return jnp.maximum(d_count(memory, step), 1)

    def g_repeats(memory, step):
        return jnp.maximum(g_count(memory, step), 3)

    return d_repeats, g_repeats, MAX_DYNAMIC, MAX_DYNAMIC
