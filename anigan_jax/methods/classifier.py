"""A classifier of attributes such as hair and eye color: the judge of text GANs.

It is a family of one player, so its runs repeat and resume as every other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax import losses, rng
from anigan_jax.config import MethodSettings
from anigan_jax.core import Array, Aux, Batch, Keys, Method, Phase, Update
from anigan_jax.data import attributes as known
from anigan_jax.data.alpha import BACKGROUNDS, over
from anigan_jax.methods import text_conditioning
from anigan_jax.methods.augment import diff_augment, signed
from anigan_jax.methods.players import split_variables
from anigan_jax.metrics import attributes
from anigan_jax.networks.classifier import Classifier
from anigan_jax.networks.dcgan import Discriminator
from anigan_jax.runtime.batching import in_batches


@dataclass(frozen=True)
class ColorClassifier(MethodSettings):
    """Softmax over the classes of each attribute, by one convolutional network."""

    network: Classifier = field(default_factory=Classifier)
    shift: bool = True
    """Moves each training image by up to an eighth of its side."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What changes nothing."""
        other = self.network.head != Discriminator.head
        return ("method.network.head changes nothing: a classifier's is a dense layer",) * other

    inputs = text_conditioning.inputs

    @property
    def size(self) -> int:
        return self.network.size

    @property
    def has_generator(self) -> bool:
        return False

    def networks(self) -> dict[str, tuple[nn.Module, tuple]]:
        """Name -> (module, shapes of its inputs for one image)."""
        shape = (1, self.size, self.size, 3)
        return {"classifier": (self.network.build_for(sum(known.sizes_of({}))), (shape,))}

    def constants(self, pack: Any) -> dict[str, Any]:
        """The attributes and their classes; {} for hair and eyes as usual."""
        return known.to_arrays(pack.attributes)

    def features(self, params: Any, stats: Any, images: Array) -> Array:
        """(n, H, W, 3) in [-1, 1] -> (n, F): the map before the logits, its mean over space."""
        net = self.network.build_for(1)
        trunk = net.clone(blocks=net.blocks[: net.trunk])
        return trunk.apply({"params": params, **stats}, images, train=False).mean((1, 2))

    def make(self, axis_name: str | None = None) -> Method:
        """The Method, of one player, 'd'; `axis_name` is the mapped axis of devices or None."""
        self.network.check("method.network")
        side, policy = self.size, ("translation",) if self.shift else ()

        def net(constants: dict) -> nn.Module:
            return self.network.build_for(sum(known.sizes_of(constants)), axis_name)

        def init(key: Array, constants: dict):
            images = jnp.zeros((1, side, side, 3))
            return *split_variables({"d": net(constants).init(key, images, train=False)}), {}

        def loss(params, state, batch: Batch, keys: Keys):
            own, label = rng.children(keys.example, 0), batch["a"]["label"]
            images, constants = diff_augment(batch["a"]["image"], own, policy), batch["constants"]
            variables = {"params": params, **state.stats["d"]}
            rest = {"train": True, "keys": rng.children(keys.example, 1)}
            mutable = list(state.stats["d"])
            logits, stats = net(constants).apply(variables, images, mutable=mutable, **rest)
            metrics, total = {}, jnp.float32(0)
            each = split_logits(logits, known.sizes_of(constants))
            for i, (name, part) in enumerate(zip(known.names_of(constants), each, strict=True)):
                term = jnp.mean(losses.cross_entropy(part, label[:, i]))
                total = total + term if i else term
                metrics[f"accuracy/{name}"] = jnp.mean(part.argmax(1) == label[:, i])
            return total, Aux({"loss/d": total, **metrics}, stats, state.extra_state)

        def logits(params: Any, stats: Any, images: Array, constants: dict) -> Array:
            variables = {"params": params, **stats}
            return net(constants).apply(variables, on_white(images), train=False)

        scores = scorer(self)

        def evaluate(state, constants, data):
            logits = scores(state.params["d"], state.stats["d"], data["a"]["image"], constants)
            found = attributes.best(logits, known.sizes_of(constants))
            names = known.names_of(constants)
            shares = attributes.shares(found, data["a"]["label"], names)
            return {f"accuracy/{part}": share.value for part, share in shares.items()}

        return Method(
            init=init,
            phases=(Phase("train", (Update("d", (loss,)),)),),
            preview=lambda state, constants, keys, data: {},
            generate=None,
            z_dim=0,
            evaluate=evaluate,
            scores=scores,
            features=self.features,
            vocabulary=("d/logits",),
            logits=logits,
        )


def on_white(images: Array) -> Array:
    """(..., 3 or 4) in [-1, 1], colors multiplied by alpha -> (..., 3) over white."""
    return images if images.shape[-1] == 3 else images[..., :3] + 1 - images[..., 3:]


def split_logits(logits: Array, sizes: tuple[int, ...]) -> list[Array]:
    """(b, T) -> (b, C) of each attribute of C classes, T in all."""
    return jnp.split(logits, np.cumsum(sizes)[:-1], axis=1)


def scorer(settings: ColorClassifier) -> Callable:
    """scores(params, stats, images (n, H, W, 3) uint8, constants) -> (n, T) logits.

    RGBA is seen on white.
    """

    @functools.partial(jax.jit, static_argnums=0)
    def one_batch(classes, params, stats, images):
        net = settings.network.build_for(classes)
        return net.apply({"params": params, **stats}, signed(images), train=False)

    def scores(params, stats, images, constants):
        classes = sum(known.sizes_of(constants))
        white = BACKGROUNDS["white"]
        return in_batches(lambda x: one_batch(classes, params, stats, over(x, white)), images)

    return scores
