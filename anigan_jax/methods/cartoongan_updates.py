"""Photo to cartoon: the losses and updates of CartoonGAN.

Source: Chen et al. 2018 (CartoonGAN), eq. 1 to 4 and section 3.3; seed S1.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from anigan_jax import losses
from anigan_jax.core import Array, Aux, Batch, Keys, Method, Phase, Update
from anigan_jax.foreign_weights import depth_of
from anigan_jax.methods import translation_updates as shared
from anigan_jax.methods.cartoongan import CartoonGAN
from anigan_jax.methods.translation_updates import Network
from anigan_jax.networks import cartoon, resnet
from anigan_jax.networks.landmarks import Landmarks
from anigan_jax.networks.layers import to_compute, to_float32
from anigan_jax.networks.vgg import VGG
from anigan_jax.weights import unflatten


def make(settings: CartoonGAN, axis_name: str | None) -> Method:
    """The Method of the family: G on the content alone, then both players."""
    game = CartoonGame(settings, axis_name)
    both = (Update("d", (game.d_loss,)), Update("g", (game.g_loss,)))
    phases = [Phase("train", both)]
    steps, epochs = settings.content_steps or None, settings.content_epochs
    if steps or epochs:
        content = Phase("content", (Update("g", (game.content_loss,)),), steps, epochs)
        phases.insert(0, content)
    return shared.method_of(game.init, tuple(phases), {"ab": game.translate})


class CartoonGame:
    """Two networks and their losses; holds static choices only, no arrays."""

    def __init__(self, settings: CartoonGAN, axis_name: str | None):
        s = settings
        self.settings = s
        g = resnet.generator(s.generator, axis_name, s.dtype)
        self.g = Network(g, s.size, s.remat)
        self.d = Network(cartoon.discriminator(s.discriminator, axis_name, s.dtype), s.size)
        f = s.features
        self.features = VGG(depth_of(f.network), (f.layer,), f.convention)

    def init(self, key: Array, frozen):
        """() key -> (params, stats, memory)."""
        return *shared.init_all({"g": self.g, "d": self.d}, key), {}

    def translate(self, params, stats, images: Array) -> Array:
        """(params of g, stats of g, images (n, H, W, 3)) -> cartoons, both in [-1, 1]."""
        return self.g(params, stats, images, train=False)[0]

    def maps(self, state, images: Array) -> Array:
        """The feature network's map (b, h, w, C) of images."""
        dtype = self.settings.dtype
        vgg = jax.tree.map(lambda x: to_compute(x, dtype), unflatten(state.frozen)["vgg"])
        return to_float32(self.features.apply({"params": vgg}, images)[0])

    def content_loss(self, params, state, batch: Batch, keys: Keys):
        """The first phase: G learns to keep what is in the photo."""
        made, stats = self.g(params, state.stats["g"], batch["real"])
        distance = losses.l1(self.maps(state, made), self.maps(state, batch["real"]))
        content = jnp.mean(distance)
        loss = self.settings.content * content
        return loss, Aux({"loss/g": loss, "loss/content": content}, stats, state.memory)

    def d_loss(self, params, state, batch: Batch, keys: Keys):
        """Cartoons are real; G's images, and cartoons with smoothed edges, are fakes."""
        s = self.settings
        made, _ = self.g(state.params["g"], state.stats["g"], batch["real"])
        made = jax.lax.stop_gradient(made)
        real, stats = self.d(params, state.stats["d"], batch["real_b"])
        fake, stats = self.d(params, stats, made)
        loss, metrics = shared.judge(s.loss, real, fake)
        if s.edge:
            smooth, stats = self.d(params, stats, batch["edges_b"])
            smooth = smooth.reshape(-1)
            _, term = losses.ADVERSARIAL[s.loss].d(smooth, smooth)
            loss += s.edge * jnp.mean(term)
            metrics["score/edges"] = shared.opinion(s.loss, smooth, smooth)["score/fake"]
        return loss, Aux({"loss/d": loss, **metrics}, stats, state.memory)

    def g_loss(self, params, state, batch: Batch, keys: Keys):
        """G's loss under the D of the state, and the distances that have a weight."""
        s, photo = self.settings, batch["real"]
        made, stats = self.g(params, state.stats["g"], photo)
        logits, _ = self.d(state.params["d"], state.stats["d"], made)
        weighted = {"gan": (s.adversarial, shared.fooled(s.loss, logits))}
        if s.content or s.style:
            maps = self.maps(state, made)
        if s.content:
            weighted["content"] = s.content, losses.l1(maps, self.maps(state, photo))
        if s.style:
            wanted = losses.gram(self.maps(state, batch["real_b"]))
            weighted["style"] = s.style, losses.l1(losses.gram(maps), wanted)
        if s.landmark:
            places = self.landmarks(state, made), self.landmarks(state, photo)
            weighted["landmark"] = s.landmark, losses.l1(*places)
        if s.greyscale:
            weighted["greyscale"] = s.greyscale, losses.greyscale(made, photo)
        if s.colour:
            weighted["colour"] = s.colour, losses.colour(made, photo)
        if s.total_variation:
            weighted["total_variation"] = s.total_variation, losses.total_variation(made)
        total, parts = shared.weighted_sum(weighted)
        return total, Aux({"loss/g": total, **parts}, stats, state.memory)

    def landmarks(self, state, images: Array) -> Array:
        """68 points (b, 68, 2) of images in [-1, 1], in units of the side.

        Source: Wu et al. 2019 (Landmark Assisted CycleGAN), eq. 4. Departs: the points of
        the photo are the same network's, and the distance is L1 as the other terms'.
        """
        params = unflatten(state.frozen)["landmarks"]
        found = Landmarks().apply({"params": params}, (images + 1) * 127.5)
        return found / images.shape[1]
