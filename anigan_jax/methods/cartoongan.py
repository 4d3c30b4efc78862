"""Photo to cartoon: CartoonGAN.

Source: Chen et al. 2018 (CartoonGAN), eq. 1 to 4 and section 3.3; Tsinghua's report.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp

from anigan_jax import losses
from anigan_jax.core import Array, Aux, Batch, Keys, Method, Phase, Update
from anigan_jax.errors import UserError
from anigan_jax.losses import AdversarialName
from anigan_jax.methods import translation
from anigan_jax.methods.translation import Network, Translation, domain_b
from anigan_jax.networks.blocks import NetworkSettings
from anigan_jax.networks.cartoon import CartoonDiscriminator, CartoonGenerator
from anigan_jax.networks.layers import to_compute, to_float32
from anigan_jax.perceptual import convert
from anigan_jax.perceptual.landmarks import Landmarks
from anigan_jax.perceptual.vgg import VGG, depth_of, needed
from anigan_jax.storage.safetensors import flatten, unflatten


@dataclass(frozen=True)
class Features:
    """The frozen network whose maps content and style are compared in."""

    network: Literal["vgg16", "vgg19"] = "vgg19"
    path: str = field(default="", metadata={"location": True})
    """Its weights (safetensors); '': where `anigan weights` puts them."""
    layer: str = "conv4_4"
    """convN_M: before ReLU; reluN_M: after it. VGG16 has no conv4_4; its last is conv4_3."""
    convention: Literal["imagenet", "unit", "signed"] = "imagenet"
    """What the network is shown: normalized as in its training; [0, 1]; or [-1, 1]."""


@dataclass(frozen=True)
class CartoonGAN(Translation):
    """One generator, content of the photo, edges of the cartoon (Chen et al. 2018; Tsinghua)."""

    generator: NetworkSettings = field(default_factory=CartoonGenerator)
    discriminator: NetworkSettings = field(default_factory=CartoonDiscriminator)
    features: Features = Features()
    loss: AdversarialName = "non_saturating"
    """non_saturating: BCE (the paper, Tsinghua); least_squares: the authors' code."""
    content_epochs: int = 10
    """Length of the first phase, in which G learns the content loss alone."""
    content_steps: int = 0
    """The same in steps; overrides `content_epochs` where it is not 0."""
    adversarial: float = 1.0
    """Weight of G's adversarial term."""
    edge: float = 1.0
    """Weight of D's term of edge-smoothed cartoons, which are fakes to it."""
    content: float = 10.0
    """Weight of the distance between the maps of G(a) and of a."""
    style: float = 0.0
    """Weight of the distance between the Gram matrices of G(a)'s and of a cartoon's maps."""
    landmark: float = 0.0
    """Weight of the distance between 68 face landmarks in G(a) and in a, in image sides."""
    grayscale: float = 0.0
    """Weight of the distance between the luminances of G(a) and of a."""
    color: float = 0.0
    """Weight of AnimeGAN's color distance between G(a) and a."""
    total_variation: float = 0.0
    """Weight of G(a)'s total variation."""

    def inputs(self, pack, part: str = "train"):
        """The cartoons, and the same with smoothed edges."""
        cartoons = {"image": domain_b(pack, part)}
        if self.edge:
            cartoons["edges"] = domain_b(pack, part, "edges")
        return {"b": cartoons}

    def constants(self, pack: Any) -> dict[str, Any]:
        """Weights of the feature network, and of the landmark network where it is used."""
        from anigan_jax.perceptual import landmarks

        found, f = {}, self.features
        if self.content or self.style:
            vgg = convert.load(f.network, f.path, taps=(f.layer,))
            found |= {f"vgg/{name}": array for name, array in vgg.items()}
        if self.landmark:
            found |= flatten(landmarks.face_landmarks(), "landmarks/")
        return found

    def check(self) -> None:
        """Refuses what cannot be trained."""
        super().check()
        f = self.features
        needed(depth_of(f.network), [f.layer])
        if self.content_epochs < 0 or self.content_steps < 0:
            raise UserError("method.content_epochs and content_steps must be 0 or more")
        if not self.content and (self.content_epochs or self.content_steps):
            raise UserError(
                "method.content is 0, so the first phase has nothing to learn; "
                "set method.content_epochs 0 as well"
            )

    def make(self, axis_name: str | None = None) -> Method:
        """The Method: G on the content alone, then both players.

        Args:
          axis_name: the mapped axis of devices, None on one device.
        """
        self.check()
        game = CartoonGame(self, axis_name)
        both = (Update("d", (game.d_loss,)), Update("g", (game.g_loss,)))
        phases = [Phase("train", both)]
        steps, epochs = self.content_steps or None, self.content_epochs
        if steps or epochs:
            content = Phase("content", (Update("g", (game.content_loss,)),), steps, epochs)
            phases.insert(0, content)
        return translation.method_of(game.init, tuple(phases), {"ab": game.translate})


class CartoonGame:
    """Two networks and their losses; holds static choices only, no arrays."""

    def __init__(self, settings: CartoonGAN, axis_name: str | None):
        s = settings
        self.settings = s
        self.g = Network(s.generator.build(axis_name, s.dtype), s.size, s.remat)
        self.d = Network(s.discriminator.build(axis_name, s.dtype), s.size)
        f = s.features
        self.features = VGG(depth_of(f.network), (f.layer,), f.convention)

    def init(self, key: Array, constants: dict):
        """() key -> (params, stats, extra_state)."""
        return *translation.init_all({"g": self.g, "d": self.d}, key), {}

    def translate(self, params, stats, images: Array) -> Array:
        """(params of g, stats of g, images (n, H, W, 3)) -> cartoons, both in [-1, 1]."""
        return self.g(params, stats, images, train=False)[0]

    def maps(self, batch: Batch, images: Array) -> Array:
        """The feature network's map (b, h, w, C) of images."""
        dtype = self.settings.dtype
        vgg = jax.tree.map(lambda x: to_compute(x, dtype), unflatten(batch["constants"])["vgg"])
        return to_float32(self.features.apply({"params": vgg}, images)[0])

    def content_loss(self, params, state, batch: Batch, keys: Keys):
        """The first phase: G learns to keep what is in the photo."""
        made, stats = self.g(params, state.stats["g"], batch["a"]["image"], keys, iterate=True)
        distance = losses.l1(self.maps(batch, made), self.maps(batch, batch["a"]["image"]))
        content = jnp.mean(distance)
        loss = self.settings.content * content
        return loss, Aux({"loss/g": loss, "loss/content": content}, stats, state.extra_state)

    def d_loss(self, params, state, batch: Batch, keys: Keys):
        """Cartoons are real; G's images, and cartoons with smoothed edges, are fakes."""
        s = self.settings
        g = state.params["g"], state.stats["g"]
        made, _ = self.g(*g, batch["a"]["image"], keys, iterate=True)
        made = jax.lax.stop_gradient(made)
        real, stats = self.d(params, state.stats["d"], batch["b"]["image"], keys, 1, iterate=True)
        fake, stats = self.d(params, stats, made, keys, 2)
        loss, metrics = translation.judge(s.loss, real, fake)
        if s.edge:
            smooth, stats = self.d(params, stats, batch["b"]["edges"], keys, 3)
            smooth = smooth.reshape(-1)
            _, term = losses.ADVERSARIAL[s.loss].d(smooth, smooth)
            loss += s.edge * jnp.mean(term)
            metrics["score/edges"] = translation.opinion(s.loss, smooth, smooth)["score/fake"]
        return loss, Aux({"loss/d": loss, **metrics}, stats, state.extra_state)

    def g_loss(self, params, state, batch: Batch, keys: Keys):
        """G's loss under the D of the state, and the distances that have a weight."""
        s, photo = self.settings, batch["a"]["image"]
        made, stats = self.g(params, state.stats["g"], photo, keys, iterate=True)
        logits, _ = self.d(state.params["d"], state.stats["d"], made, keys, 1)
        weighted = {"gan": (s.adversarial, translation.fooled(s.loss, logits))}
        if s.content or s.style:
            maps = self.maps(batch, made)
        if s.content:
            weighted["content"] = s.content, losses.l1(maps, self.maps(batch, photo))
        if s.style:
            wanted = losses.gram(self.maps(batch, batch["b"]["image"]))
            weighted["style"] = s.style, losses.l1(losses.gram(maps), wanted)
        if s.landmark:
            places = self.landmarks(batch, made), self.landmarks(batch, photo)
            weighted["landmark"] = s.landmark, losses.l1(*places)
        if s.grayscale:
            weighted["grayscale"] = s.grayscale, losses.grayscale(made, photo)
        if s.color:
            weighted["color"] = s.color, losses.color(made, photo)
        if s.total_variation:
            weighted["total_variation"] = s.total_variation, losses.total_variation(made)
        total, parts = translation.weighted_sum({**weighted, **s.terms(batch, {"b": made})})
        return total, Aux({"loss/g": total, **parts}, stats, state.extra_state)

    def landmarks(self, batch: Batch, images: Array) -> Array:
        """68 points (b, 68, 2) of images in [-1, 1], in units of the side.

        Source: Wu et al. 2019 (Landmark Assisted CycleGAN), eq. 4. Departs: the points of
        the photo are the same network's, and the distance is L1 as the other terms'.
        """
        params = unflatten(batch["constants"])["landmarks"]
        found = Landmarks().apply({"params": params}, (images + 1) * 127.5)
        return found / images.shape[1]
