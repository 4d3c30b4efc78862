"""Noise to image: the DCGAN family with any adversarial loss, penalty and schedule."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from anigan_jax import losses, rng
from anigan_jax.config import PACKAGE, ComputeType, MethodSettings
from anigan_jax.core import (
    Array,
    Aux,
    Batch,
    Keys,
    Method,
    Phase,
    Update,
    generator_of,
    sum_over,
)
from anigan_jax.errors import UserError
from anigan_jax.losses import Adversarial, AdversarialName
from anigan_jax.methods.augment import diff_augment
from anigan_jax.methods.players import Networks, call, check_inputs, split_variables
from anigan_jax.methods.schedule import Schedule, schedule_repeats
from anigan_jax.networks.blocks import GeneratorSettings, NetworkSettings
from anigan_jax.networks.dcgan import Discriminator, Generator
from anigan_jax.networks.stack import grid_max

# Of D's passes: each has draws of its own.
SALTS = {"real": 0, "fake": 1}


@dataclass(frozen=True)
class GAN(MethodSettings):
    """A DCGAN with any adversarial loss, penalties, schedule and augmentation.

    A family of the user's own is a subclass: each loss is a method, pure in its arguments, and
    `adversarial` gives the pair of loss functions.
    """

    generator: GeneratorSettings = field(default_factory=Generator)
    discriminator: NetworkSettings = field(default_factory=Discriminator)
    loss: AdversarialName = "non_saturating"
    """Adversarial loss of both players."""
    real_label: float = 1.0
    """D's target for real images; below 1: one-sided label smoothing."""
    fake_label: float = 0.0
    """D's target for generated images."""
    d_scale: float = 1.0
    """Factor on D's adversarial terms (Keras averages the two halves: 0.5); penalties have their
    own weights."""
    split_d: bool = False
    """Two optimizer steps of D, on reals and then on fakes, as in Keras. Losses and accuracies are
    means over each step's own forward pass; penalties belong to the fakes' step."""
    shared_noise: bool = True
    """G's update uses the latents of D's (as in the PyTorch example); else fresh ones, as always
    if D's accuracy decides the repeats."""
    r1: float = 0.0
    """Weight of half the squared gradient norm on reals (Mescheder et al. 2018)."""
    r2: float = 0.0
    """The same on fakes."""
    gradient_penalty: float = 0.0
    """Weight of WGAN-GP's penalty (Gulrajani et al. 2017)."""
    augment: tuple[Literal["color", "translation", "cutout"], ...] = ()
    """DiffAugment (Zhao et al. 2020), on reals and fakes alike."""
    san: bool = field(default=False, metadata={"later": True})
    """SAN (Takida et al. 2024): the direction of D's last layer learns by Wasserstein terms of its
    own, and `loss` teaches the rest of D."""
    schedule: Schedule = Schedule()
    dtype: ComputeType = "float32"
    """bfloat16: products of the networks in 16 bits, for GPUs and TPUs; parameters, statistics,
    losses and optimizers stay float32."""

    @property
    def size(self) -> int:
        return self.generator.size

    @property
    def channels(self) -> int:  # type: ignore[override]
        return getattr(self.generator, "channels", 3)

    @property
    def next_verbs(self) -> tuple[tuple[str, str], ...]:
        return ("sample RUN", "a grid of new faces"), ("interpolate RUN", "a GIF between faces")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is likely to go wrong with these settings."""
        found = []
        if self.adversarial.pairs and not self.r2:
            found.append(
                f"method.loss {self.loss!r} compares real and generated images; without a gradient "
                "penalty at both (--method.r1 and --method.r2 above 0) such games rarely converge"
            )
        if self.loss in losses.UNLABELED and (self.real_label, self.fake_label) != (1, 0):
            found.append(f"method.loss {self.loss!r} has no labels; real_label changes nothing")
        if self.unread:
            own = f"{type(self).__name__} has its own `adversarial`"
            found.append(f"method.loss {self.loss!r} changes nothing: {own}")
        return tuple(found)

    @property
    def unread(self) -> tuple[str, ...]:  # type: ignore[override]
        plain = dataclasses.replace(self, loss=type(self).loss)
        same = self.loss != plain.loss and self.adversarial == plain.adversarial
        return ("loss",) if same else ()

    @property
    def adversarial(self) -> Adversarial:
        """The losses of both players."""
        return losses.ADVERSARIAL[self.loss]

    def networks(self) -> dict[str, tuple[nn.Module, tuple]]:
        """Name -> (module, shapes of its inputs for one image)."""
        g, d = self.generator, self.discriminator
        return {
            "generator": (g.build(), ((1, 1, 1, g.z_dim),)),
            "discriminator": (d.build(), ((1, d.size, d.size, self.channels),)),
        }

    def make(self, axis_name: str | None = None) -> Method:
        """The Method; `axis_name` is the mapped axis of devices, None on one device.

        Raises:
          UserError: the networks make and take images of different sizes, or take no texts in a
            game with texts, or ask for them in one without; or a loss that compares reals and fakes
            is to teach D each alone, or to drive a schedule by D's accuracy.
        """
        g, d = self.generator, self.discriminator
        g.check("method.generator")
        d.check("method.discriminator")
        for name in ("size", "channels"):
            one, other = getattr(self, name), getattr(d, name, getattr(self, name))
            if one != other:
                raise UserError(f"generator.{name} {one} differs from discriminator.{name} {other}")
        if self.split_d and self.adversarial.pairs:
            raise UserError(
                f"method.split_d trains D separately on reals and fakes; method.loss {self.loss!r} "
                "compares them"
            )
        if self.schedule.by_accuracy and self.adversarial.line is None:
            raise UserError(
                f"method.schedule.kind {self.schedule.kind!r} follows how many images D judges "
                f"correctly; with method.loss {self.loss!r} D only ranks them"
            )
        # A family of the user's own knows what its networks take.
        ours = type(self).__module__.startswith(f"{PACKAGE}.")
        for name, (module, inputs) in self.networks().items() if ours else ():
            check_inputs(f"method.{name}", module, len(inputs))
        nets = self.nets(axis_name)
        if self.san and (type(self).d_loss is not GAN.d_loss or not hasattr(nets.d, "trunk")):
            raise UserError("method.san needs GAN's own loss and a D that is a stack of layers")
        return Method(
            init=functools.partial(self.init, nets),
            phases=(Phase("train", self.updates(nets)),),
            preview=functools.partial(self.preview, nets),
            generate=nets.generate,
            z_dim=g.z_dim,
            features=self.features(nets),
        )

    def nets(self, axis_name: str | None) -> Networks:
        """Both players' modules."""
        g, d = (x.build(axis_name, self.dtype) for x in (self.generator, self.discriminator))
        return Networks(g, d, self.generator.unit_range, axis_name)

    @property
    def text_layers(self) -> tuple[str, ...]:
        """'g/text': player and name of each layer that reads texts."""
        each = {"g": self.generator, "d": self.discriminator}
        return tuple(f"{player}/{name}" for player, s in each.items() for name in s.text_layers)

    def texts_of_nothing(self, n: int, known: dict) -> tuple:
        """Further inputs of both networks for n images where no text matters; () without texts.

        Args:
          known: the constants, or D's parameters, which know the length of a text.
        """
        return ()

    def init(self, nets: Networks, key: Array, constants: dict) -> tuple:
        """() key -> (params, stats, extra_state)."""
        key_g, key_d = jax.random.split(key)
        g = self.generator
        z, images = jnp.zeros((1, 1, 1, g.z_dim)), jnp.zeros((1, g.size, g.size, self.channels))
        texts = self.texts_of_nothing(1, constants)
        variables = {
            # Evaluation mode: training mode would need the mapped axis.
            "g": call(nets.g, "init", key_g, z, *texts, train=False),
            "d": call(nets.d, "init", key_d, images, *texts, train=False),
        }
        params, stats = split_variables(variables)
        # The first step's accuracy is not stated in CSC412's report: one half.
        extra_state = {}
        if self.schedule.by_accuracy:
            extra_state = {"correct": jnp.int32(1), "judged": jnp.int32(2)}
        return params, stats, extra_state

    def updates(self, nets: Networks) -> tuple[Update, ...]:
        """D, then G, with the repeats of the schedule."""
        d_repeats, g_repeats, most_d, most_g = schedule_repeats(self.schedule)
        parts = ("real", "fake") if self.split_d else ("both",)
        d_losses = tuple(functools.partial(self.d_loss, nets, part) for part in parts)
        g_loss = functools.partial(self.g_loss, nets)
        # CSC412's rule: one batch of fakes for all repeats of D, fresh noise for each of G.
        fresh = not self.schedule.by_accuracy
        stream = 0 if self.shared_noise and fresh else 1
        return (
            Update("d", d_losses, d_repeats, most_d, 0, fresh_noise=fresh),
            Update("g", (g_loss,), g_repeats, most_g, stream, True),
        )

    def preview(self, nets: Networks, state, constants, keys: Array, data) -> dict[str, Array]:
        """Images of fixed latents, (n,) keys: with the trained weights and their average."""
        z = rng.normal(keys, (self.generator.z_dim,))
        panels = {"samples": nets.generate(state.params["g"], state.stats["g"], z)}
        if state.ema:
            panels["ema"] = nets.generate(*generator_of(state), z)
        return panels

    def features(self, nets: Networks) -> Callable | None:
        """(params of d, stats of d, images (n, H, W, 3) in [-1, 1]) -> D's features (n, F).

        The map of every convolution (or residual block) before the logit, and before a text
        joins, as the next layer sees it: max-pooled to 4x4, flattened, one after the other. None
        where D is not a stack of blocks.

        Source: Radford et al. 2016, section 5.1.
        """
        if not hasattr(nets.d, "trunk"):
            return None

        def features(params, stats, images: Array) -> Array:
            variables = {"params": params, **stats}
            texts = self.texts_of_nothing(len(images), params)
            images = nets.in_range(images)
            _, maps = nets.d.apply(variables, images, *texts, train=False, features=True)
            trunk = list(zip(nets.d.blocks, maps, strict=True))[: nets.d.trunk]
            # Of a residual block its sum.
            sums = [grid_max(x, 4) for block, x in trunk if block.skip == "end"]
            pooled = sums or [grid_max(x, 4) for block, x in trunk if block.op == "conv"]
            rows = [x.reshape(len(x), -1) for x in pooled]
            return jnp.concatenate(rows, axis=1).astype(jnp.float32)

        return features

    def shifted(self, images: Array, keys: Array) -> Array:
        """Images in G's range, (b, H, W, C), by DiffAugment, whose constants are for [-1, 1]."""
        if not (self.augment and self.generator.unit_range):
            return diff_augment(images, keys, self.augment)
        return (diff_augment(2 * images - 1, keys, self.augment) + 1) / 2

    def score(
        self,
        nets: Networks,
        params,
        stats,
        seen: Mapping[int, Array],
        texts,
        keys: Keys,
        *,
        iterate,
    ):
        """D's logits in training, of augmented images, and its new statistics.

        Args:
          seen: a salt, which keeps draws apart -> images. Several sets go through D in one pass.
          iterate: whether spectral norm advances.
        """
        own = {salt: rng.children(keys.example, salt) for salt in seen}
        images = [self.shifted(x, own[salt]) for salt, x in seen.items()]
        parts = {"parts": len(seen)} if len(seen) > 1 else {}
        rest = {"train": True, "power_iterate": iterate, "keys": _joined([*own.values()]), **parts}
        return nets.logits(params, stats, _joined(images), texts, **rest)

    def d_loss(self, nets: Networks, part: str, params, state, batch: Batch, keys: Keys):
        """D's loss on reals and fakes ('both'), or in one pass of D on one of them alone."""
        real, fake = nets.in_range(batch["a"]["image"]), None
        if part != "real":
            g = state.params["g"], state.stats["g"]
            fake = jax.lax.stop_gradient(nets.fake(*g, keys.z, keys=keys.example)[0])
        seen = {"real": real, "fake": fake}
        seen = {name: images for name, images in seen.items() if part in (name, "both")}
        judge = nets._replace(san=self.san)
        outs, stats = self.judgments(judge, params, state.stats["d"], seen, keys)
        logits = {name: first for name, (first, *_) in outs.items()}
        # A term reads the logits of its own half alone, unless it compares both.
        (either, *_) = logits.values()
        both = logits.get("real", either), logits.get("fake", either)
        terms = self.adversarial.d(*both, self.real_label, self.fake_label)
        named = zip(("real", "fake"), terms, strict=True)
        loss = self.d_scale * sum(jnp.mean(term) for name, term in named if name in logits)
        if self.san:
            means = {name: jnp.mean(own) for name, (_, own) in outs.items()}
            loss = loss + self.d_scale * (means.get("fake", 0.0) - means.get("real", 0.0))
        if part != "real":
            loss = loss + self.penalty(nets, params, stats, real, fake, (), keys)
        metrics, extra_state = self.judged(nets, state, **logits)
        return loss, Aux({"loss/d": loss, **metrics}, stats, extra_state)

    def judgments(self, nets: Networks, params, stats, seen: dict[str, Array], keys: Keys):
        """What D gives for real and fake images, name -> outputs, and its new statistics.

        Each has batch statistics of its own, as in the references.
        """
        score = functools.partial(self.score, nets, params)
        if nets.joins and len(seen) > 1:
            salted = {SALTS[name]: images for name, images in seen.items()}
            both, stats = score(stats, salted, (), keys, iterate=True)
            halves = zip(*(jnp.split(out, 2) for out in both), strict=True)
            return dict(zip(seen, halves, strict=True)), stats
        outs = {}
        for name, images in seen.items():
            # Both passes see the kernels of the first.
            salted, iterate = {SALTS[name]: images}, name == "real"
            outs[name], stats = score(stats, salted, (), keys, iterate=iterate)
        return outs, stats

    def judged(self, nets: Networks, state, real: Array | None = None, fake: Array | None = None):
        """Metrics and new extra state from D's logits of reals and fakes (b,).

        Fakes alone are counted beside the reals that the step before has counted. Where the loss
        compares, a pair is right in which the real image has the larger logit: the logits
        themselves mean nothing.
        """
        if self.adversarial.pairs and real is not None and fake is not None:
            right, score = real > fake, jax.nn.sigmoid(real - fake)
            metrics = {"accuracy/d": jnp.mean(right), "score/pair": jnp.mean(score)}
            return metrics, state.extra_state
        seen = [x for x in (real, fake) if x is not None]
        judged = jnp.int32(sum(len(x) for x in seen))
        correct, metrics, game = jnp.int32(0), {}, self.adversarial
        line = game.sides
        if real is not None:
            correct += jnp.sum(real > line)
            metrics["score/real"] = jnp.mean(game.score(real))
        if fake is not None:
            correct += jnp.sum(fake < line)
            metrics["score/fake"] = jnp.mean(game.score(fake))
        metrics["accuracy/d"] = correct / judged
        if not state.extra_state:
            return metrics, state.extra_state
        counts = {"correct": correct.astype(jnp.int32), "judged": judged}
        counts = {name: sum_over(nets.axis_name, n) for name, n in counts.items()}
        if real is None:
            counts = {name: n + state.extra_state[name] for name, n in counts.items()}
        return metrics, counts

    def penalty(self, nets: Networks, params, stats, real, fake, texts: tuple, keys: Keys) -> Array:
        """Weighted gradient penalties of D; 0 where none is set.

        Departs: D sees the images unaugmented and with running statistics, so that an
        image's gradient does not depend on its neighbors in the batch.
        """

        def discriminate(images):
            (logits,), _ = nets.logits(params, stats, images, texts, train=False)
            return logits

        total = jnp.float32(0)
        if self.r1:
            total += self.r1 / 2 * jnp.mean(losses.r1(discriminate, real))
        if self.r2:
            total += self.r2 / 2 * jnp.mean(losses.r2(discriminate, fake))
        if self.gradient_penalty:
            mix = jax.vmap(jax.random.uniform)(rng.children(keys.example, 2))
            value = losses.gradient_penalty(discriminate, real, fake, mix)
            total += self.gradient_penalty * jnp.mean(value)
        return total

    def g_loss(self, nets: Networks, params, state, batch: Batch, keys: Keys):
        """G's loss under the D of the state; D's statistics stay as they are."""
        fake, stats = nets.fake(params, state.stats["g"], keys.z, keys=keys.example)
        loss = self.generator_loss(nets, state, batch, fake, (), keys)
        return loss, Aux({"loss/g": loss}, stats, state.extra_state)

    def generator_loss(
        self, nets: Networks, state, batch: Batch, fake: Array, texts: tuple, keys: Keys, salt=0
    ) -> Array:
        """() G's loss for generated images and their text; draws of `salt` and the next."""
        d = state.params["d"], state.stats["d"]
        (made,), _ = self.score(nets, *d, {salt: fake}, texts, keys, iterate=False)
        real = jnp.zeros_like(made)
        if self.adversarial.pairs:
            images = nets.in_range(batch["a"]["image"])
            (real,), _ = self.score(nets, *d, {salt + 1: images}, texts, keys, iterate=False)
        return jnp.mean(self.adversarial.g(made, real, self.real_label))


def _joined(arrays: list[Array]) -> Array:
    """Arrays one after the other; a single one as it is."""
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays)
