"""A classifier of hair and eye color: the judge of text GANs, trained like them.

It is a family of one player, so its runs repeat and resume as every other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import flax.linen as nn
import jax
import jax.numpy as jnp

from anigan_jax import losses, rng
from anigan_jax.config import MethodSettings
from anigan_jax.core import Array, Aux, Batch, Keys, Method, Phase, Update
from anigan_jax.data.labels import EYES, HAIR
from anigan_jax.methods import text_conditioning
from anigan_jax.methods.augment import diff_augment, signed
from anigan_jax.methods.gan import split_variables
from anigan_jax.metrics import attributes
from anigan_jax.networks.classifier import Classifier
from anigan_jax.runtime.batching import in_batches

CLASSES = len(HAIR) + len(EYES)


@dataclass(frozen=True)
class ColorClassifier(MethodSettings):
    """Softmax over hair and over eye colors, by one convolutional network."""

    network: Classifier = field(default_factory=Classifier)
    shift: bool = True
    """Moves each training image by up to an eighth of its side."""

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
        return {"classifier": (self.network.build_for(CLASSES), (shape,))}

    def make(self, axis_name: str | None = None) -> Method:
        """The Method, of one player, 'd'; `axis_name` is the mapped axis of devices or None."""
        self.network.check("method.network")
        net, side = self.network.build_for(CLASSES, axis_name), self.size
        policy = ("translation",) if self.shift else ()

        def init(key: Array, constants: dict):
            images = jnp.zeros((1, side, side, 3))
            return *split_variables({"d": net.init(key, images, train=False)}), {}

        def loss(params, state, batch: Batch, keys: Keys):
            own, label = rng.children(keys.example, 0), batch["a"]["label"]
            images = diff_augment(batch["a"]["image"], own, policy)
            variables = {"params": params, **state.stats["d"]}
            rest = {"train": True, "keys": rng.children(keys.example, 1)}
            logits, stats = net.apply(variables, images, mutable=list(state.stats["d"]), **rest)
            hair, eyes = split_logits(logits)
            total = jnp.mean(losses.cross_entropy(hair, label[:, 0]))
            total += jnp.mean(losses.cross_entropy(eyes, label[:, 1]))
            metrics = {
                "loss/d": total,
                "accuracy/hair": jnp.mean(hair.argmax(1) == label[:, 0]),
                "accuracy/eyes": jnp.mean(eyes.argmax(1) == label[:, 1]),
            }
            return total, Aux(metrics, stats, state.extra_state)

        classify = classifier(self)

        def evaluate(state, constants, data):
            found = classify(state.params["d"], state.stats["d"], data["a"]["image"])
            shares = attributes.shares(found, data["a"]["label"])
            return {f"accuracy/{part}": share.value for part, share in shares.items()}

        return Method(
            init=init,
            phases=(Phase("train", (Update("d", (loss,)),)),),
            preview=lambda state, constants, keys, data: {},
            generate=None,
            z_dim=0,
            evaluate=evaluate,
            classify=classify,
        )


def split_logits(logits: Array) -> tuple[Array, Array]:
    """(b, 23) -> hair (b, 12), eyes (b, 11)."""
    return logits[:, : len(HAIR)], logits[:, len(HAIR) :]


def classifier(settings: ColorClassifier) -> Callable:
    """classify(params, stats, images (n, H, W, 3) uint8) -> (n, 2) class indices."""
    net = settings.network.build_for(CLASSES)

    @jax.jit
    def one_batch(params, stats, images):
        logits = net.apply({"params": params, **stats}, signed(images), train=False)
        return jnp.stack([part.argmax(1) for part in split_logits(logits)], axis=1)

    return lambda params, stats, images: in_batches(
        lambda part: one_batch(params, stats, part), images
    )
