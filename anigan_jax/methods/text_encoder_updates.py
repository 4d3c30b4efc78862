"""The text encoder of seed S0: its loss, and retrieval on held-out images."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax import losses, rng
from anigan_jax.augment import signed
from anigan_jax.core import Array, Aux, Batch, Keys, Method, Phase, Update
from anigan_jax.data import captions
from anigan_jax.data.tags import EYES
from anigan_jax.evaluation.batches import in_batches
from anigan_jax.evaluation.retrieval import retrieval
from anigan_jax.methods.gan_updates import split_variables
from anigan_jax.methods.text_encoder import TextEncoder
from anigan_jax.networks import text
from anigan_jax.rng import Salt


def make(settings: TextEncoder, axis_name: str | None) -> Method:
    """The Method of the family: one player, 'd', with an image and a text network."""
    image_net = text.image_encoder(settings.image, settings.text.dim, axis_name)
    text_net = text.CharCNNRNN(settings.text, len(captions.ALPHABET))

    def init(key: Array, frozen):
        key_image, key_text = jax.random.split(key)
        images = jnp.zeros((1, settings.size, settings.size, 3))
        variables = image_net.init(key_image, images, train=False)
        params, stats = split_variables({"d": variables})
        words = text_net.init(key_text, frozen["codes"][:1, 0])
        return {"d": {"image": params["d"], "text": words["params"]}}, stats, {}

    def loss(params, state, batch: Batch, keys: Keys):
        codes, pair = state.frozen["codes"], captions.pair(*batch["label"].T)
        seen = codes.shape[1] - settings.unseen_wordings
        wording = rng.below(rng.children(batch["keys"], Salt.WORDING), seen)
        variables = {"params": params["image"], **state.stats["d"]}
        rest = {"train": True, "keys": keys.example, "mutable": list(state.stats["d"])}
        images, stats = image_net.apply(variables, batch["real"], **rest)
        texts = text_net.apply({"params": params["text"]}, codes[pair, wording])
        if axis_name is not None:
            # Negatives come from the global batch, whatever the number of devices.
            images, texts, pair = (
                jax.lax.all_gather(x, axis_name, tiled=True) for x in (images, texts, pair)
            )
        scores = images @ texts.T
        same = pair[:, None] == pair[None]
        total = jnp.mean(losses.joint_embedding(scores, same))
        best = pair[scores.argmax(1)]
        metrics = {"loss/d": total, "accuracy/image_to_text": jnp.mean(best == pair)}
        return total, Aux(metrics, stats, state.memory)

    return Method(
        init=init,
        phases=(Phase("train", (Update("d", (loss,)),)),),
        preview=lambda state, keys, shown: {},
        generate=None,
        z_dim=0,
        evaluate=evaluator(settings),
    )


def evaluator(settings: TextEncoder) -> Callable:
    """evaluate(state, images, inputs) -> `retrieval` on held-out images.

    By the mean of all wordings seen in training of a pair, and by that of the unseen ones.
    """
    image_net = text.image_encoder(settings.image, settings.text.dim)
    text_net = text.CharCNNRNN(settings.text, len(captions.ALPHABET))

    @jax.jit
    def look(params, stats, images):
        return image_net.apply({"params": params, **stats}, signed(images), train=False)

    @jax.jit
    def read(params, codes):
        return text_net.apply({"params": params}, codes)

    def evaluate(state, images, inputs) -> dict[str, float]:
        params, stats, codes = state.params["d"], state.stats["d"], state.frozen["codes"]
        found = in_batches(lambda part: look(params["image"], stats, part), images)
        words = np.asarray(read(params["text"], codes.reshape(-1, codes.shape[-1])))
        words = words.reshape(*codes.shape[:2], -1)
        seen = codes.shape[1] - settings.unseen_wordings
        pair = captions.pair(*np.asarray(inputs["label"]).T)
        ways = {"retrieval": words[:, :seen]}
        if settings.unseen_wordings:
            ways["unseen_wording"] = words[:, seen:]
        return {
            f"{name}/{key}": value
            for name, vectors in ways.items()
            for key, value in retrieval(found, vectors.mean(1), pair, len(EYES)).items()
        }

    return evaluate
