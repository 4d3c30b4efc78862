"""Image to image without pairs: CycleGAN.

Two generators are one player, two discriminators the other: one optimizer each.

Source: Zhu et al. 2017 (CycleGAN), eq. 1 to 3 and section 5.2; Tsinghua's report.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from anigan_jax import losses
from anigan_jax.core import Array, Aux, Batch, Keys, Method, Phase, Update
from anigan_jax.errors import UserError
from anigan_jax.losses import AdversarialName
from anigan_jax.methods import image_pool, translation
from anigan_jax.methods.translation import Network, Translation
from anigan_jax.networks.blocks import NetworkSettings
from anigan_jax.networks.resnet import PatchDiscriminator, ResnetGenerator


@dataclass(frozen=True)
class CycleGAN(Translation):
    """Two generators and two discriminators (Zhu et al. 2017), weighted as Tsinghua."""

    generator: NetworkSettings = field(default_factory=ResnetGenerator)
    discriminator: NetworkSettings = field(default_factory=PatchDiscriminator)
    loss: AdversarialName = "least_squares"
    """least_squares: MSE of D's map to its labels; non_saturating: BCE."""
    identity: float = 5.0
    """Weight of |G(b) - b| for images that are in G's target domain already; 0: left out."""
    adversarial: float = 1.0
    """Weight of the adversarial term."""
    cycle: float = 10.0
    """Weight of |F(G(a)) - a|."""
    d_scale: float = 0.5
    """Factor of D's whole loss (the PyTorch code of CycleGAN halves it)."""
    pool: int = 50
    """Former fakes of each domain that D also sees; 0: none."""

    def check(self) -> None:
        """Refuses what cannot be trained."""
        super().check()
        if self.pool < 0:
            raise UserError(f"method.pool is {self.pool}; it must be 0 or more")

    def make(self, axis_name: str | None = None) -> Method:
        """The Method; `axis_name` is the mapped axis of devices, None on one device."""
        self.check()
        game = CycleGame(self, axis_name)
        translate = {"ab": game.translator("ab"), "ba": game.translator("ba")}
        # Departs: D learns first, as in every family here. So D and G see the same fakes, and
        # one forward pass makes them for both; the PyTorch code updates both on the former G.
        updates = (Update("d", (game.d_loss,)), Update("g", (game.g_loss,)))
        return translation.method_of(game.init, (Phase("train", updates),), translate)


class CycleGame:
    """Four networks and their losses; holds static choices only, no arrays.

    Generators are 'ab' and 'ba', by where they lead; discriminators 'a' and 'b', by the
    domain that they know.
    """

    def __init__(self, settings: CycleGAN, axis_name: str | None):
        s = settings
        self.settings, self.axis_name = s, axis_name
        generator = Network(s.generator.build(axis_name, s.dtype), s.size, s.remat)
        discriminator = Network(s.discriminator.build(axis_name, s.dtype), s.size)
        self.g = {"ab": generator, "ba": generator}
        self.d = {"a": discriminator, "b": discriminator}

    def init(self, key: Array, constants: dict):
        """() key -> (params, stats, extra_state)."""
        s = self.settings
        key_g, key_d = jax.random.split(key)
        params, stats = {}, {}
        params["g"], stats["g"] = translation.init_all(self.g, key_g)
        params["d"], stats["d"] = translation.init_all(self.d, key_d)
        pools: dict = {}
        if s.pool:
            # Both domains fill alike, so one count serves both.
            pools = {name: image_pool.empty(s.pool, s.size) for name in self.d}
            pools["held"] = jnp.int32(0)
        return params, stats, pools

    def translator(self, direction: str):
        """(params of g, stats of g, images (n, H, W, 3)) -> the same in the other domain."""

        def translate(params, stats, images: Array) -> Array:
            net = self.g[direction]
            return net(params[direction], stats[direction], images, train=False)[0]

        return translate

    def d_loss(self, params, state, batch: Batch, keys: Keys):
        """Both discriminators' losses, on reals and on fakes that came through the pool."""
        s, real = self.settings, {name: batch[name]["image"] for name in "ab"}
        params_g, stats_g = state.params["g"], state.stats["g"]
        pools, stats, metrics, total = dict(state.extra_state), {}, {}, 0.0
        for i, (name, source) in enumerate((("a", "b"), ("b", "a"))):
            way = source + name
            g = params_g[way], stats_g[way]
            fake, _ = self.g[way](*g, real[source], keys, 3 * i, iterate=True)
            fake = jax.lax.stop_gradient(fake)
            if s.pool:
                key = jax.random.fold_in(keys.shared, i)
                fake, pools[name], held = self.query_pool(fake, name, state.extra_state, key)
            d, own = functools.partial(self.d[name], params[name]), state.stats["d"][name]
            logits, after = d(own, real[name], keys, 3 * i + 1, iterate=True)
            judged, stats[name] = d(after, fake, keys, 3 * i + 2)
            loss, opinion = translation.judge(s.loss, logits, judged)
            total += s.d_scale * loss
            metrics[f"loss/d_{name}"] = s.d_scale * loss
            metrics |= {k: metrics.get(k, 0.0) + v / 2 for k, v in opinion.items()}
        if s.pool:
            pools["held"] = held
        return total, Aux({"loss/d": total, **metrics}, stats, pools)

    def query_pool(self, fake: Array, name: str, pools: dict, key: Array):
        """What D sees of fakes (b, S, S, 3), and the pool and its count with them taken in."""
        everyone = image_pool.everywhere(fake, self.axis_name)
        drawn = image_pool.draws(key, len(everyone), self.settings.pool)
        shown, pool, held = image_pool.exchange(pools[name], pools["held"], everyone, drawn)
        return image_pool.own(shown, len(fake), self.axis_name), pool, held

    def g_loss(self, params, state, batch: Batch, keys: Keys):
        """Both generators' losses under the discriminators of the state."""
        s, real = self.settings, {name: batch[name]["image"] for name in "ab"}
        stats, terms = dict(state.stats["g"]), {}

        passes = itertools.count()

        def change(way: str, images: Array) -> Array:
            # Spectral norm advances in the first pass of each way.
            salt = next(passes)
            own, iterate = (params[way], stats[way], images, keys, salt), salt < len(self.g)
            out, stats[way] = self.g[way](*own, iterate=iterate)
            return out

        fakes = {"b": change("ab", real["a"]), "a": change("ba", real["b"])}
        for name, other in (("a", "b"), ("b", "a")):
            d = state.params["d"][other], state.stats["d"][other]
            logits, _ = self.d[other](*d, fakes[other], keys, next(passes))
            back = change(other + name, fakes[other])
            terms[f"gan_{name}{other}"] = s.adversarial, translation.fooled(s.loss, logits)
            terms[f"cycle_{name}"] = s.cycle, losses.l1(back, real[name])
            if s.identity:
                same = change(other + name, real[name])
                terms[f"identity_{name}"] = s.identity, losses.l1(same, real[name])
        total, parts = translation.weighted_sum({**terms, **s.terms(batch, fakes)})
        return total, Aux({"loss/g": total, **parts}, stats, state.extra_state)
