"""A text encoder trained with images: the char-CNN-RNN of SJTU's report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax import losses, rng
from anigan_jax.config import MethodSettings
from anigan_jax.core import Array, Aux, Batch, Keys, Method, Phase, Update
from anigan_jax.data import attributes as known
from anigan_jax.data import captions
from anigan_jax.errors import UserError
from anigan_jax.methods import text_conditioning
from anigan_jax.methods.augment import signed
from anigan_jax.methods.players import split_variables
from anigan_jax.metrics.retrieval import retrieval
from anigan_jax.networks import char_cnn_rnn
from anigan_jax.networks.char_cnn_rnn import CharEncoder
from anigan_jax.networks.classifier import Classifier
from anigan_jax.rng import Salt
from anigan_jax.runtime.batching import in_batches


@dataclass(frozen=True)
class TextEncoder(MethodSettings):
    """Structured joint embedding of images and captions (Reed et al. 2016, CVPR)."""

    text: CharEncoder = field(default_factory=CharEncoder)
    image: Classifier = field(default_factory=Classifier)
    unseen_wordings: int = 2
    """How many of the last caption wordings are kept out of training, for judging."""

    inputs = text_conditioning.inputs

    @property
    def size(self) -> int:
        return self.image.size

    @property
    def has_generator(self) -> bool:
        return False

    def constants(self, pack: Any) -> dict[str, Any]:
        """'codes' (P, W, 64) uint8: characters of every wording of every combination.

        And what `text_conditioning.about` gives.
        """
        attributes = pack.attributes
        told = text_conditioning.about(attributes, text_conditioning.labels(pack, "train"))
        rows = text_conditioning.combinations(told)
        codes = captions.codes(text_conditioning.lines_of(attributes, rows))
        codes = codes.reshape(len(rows), -1, codes.shape[1])
        if len(np.unique(codes[:, 0], axis=0)) < len(rows):
            raise UserError(
                f"some classes of the data look alike in its letters ({captions.ALPHABET!r}; no "
                f"digits, no other scripts), of which it reads {captions.LENGTH}; rename "
                "them, or train the text GAN with --method.encoder.kind tags"
            )
        return {"codes": codes, **told}

    def networks(self):
        """Name -> (module, shapes of its inputs for one image)."""
        from anigan_jax.networks import char_cnn_rnn

        shape = (1, self.size, self.size, 3)
        return {
            "image": (self.image.build_for(self.text.dim), (shape,)),
            "text": (
                char_cnn_rnn.CharCNNRNN(self.text, len(captions.ALPHABET)),
                ((1, captions.LENGTH),),
            ),
        }

    def make(self, axis_name: str | None = None) -> Method:
        """The Method, of one player, 'd', with an image and a text network.

        Args:
          axis_name: the mapped axis of devices, None on one device.
        """
        most = len(captions.WORDINGS) - 1
        if not 0 <= self.unseen_wordings <= most:
            raise UserError(
                f"method.unseen_wordings is {self.unseen_wordings}; it must be 0 to {most}"
            )
        self.image.check("method.image")
        self.text.check("method.text", captions.LENGTH)
        image_net = self.image.build_for(self.text.dim, axis_name)
        text_net = char_cnn_rnn.CharCNNRNN(self.text, len(captions.ALPHABET))

        def init(key: Array, constants: dict):
            key_image, key_text = jax.random.split(key)
            images = jnp.zeros((1, self.size, self.size, 3))
            variables = image_net.init(key_image, images, train=False)
            params, stats = split_variables({"d": variables})
            words = text_net.init(key_text, constants["codes"][:1, 0])
            return {"d": {"image": params["d"], "text": words["params"]}}, stats, {}

        def loss(params, state, batch: Batch, keys: Keys):
            codes = batch["constants"]["codes"]
            pair = text_conditioning.place(batch["constants"], batch["a"]["label"])
            seen = codes.shape[1] - self.unseen_wordings
            wording = rng.below(rng.children(batch["keys"], Salt.WORDING), seen)
            variables = {"params": params["image"], **state.stats["d"]}
            rest = {"train": True, "keys": keys.example, "mutable": list(state.stats["d"])}
            images, stats = image_net.apply(variables, batch["a"]["image"], **rest)
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
            return total, Aux(metrics, stats, state.extra_state)

        return Method(
            init=init,
            phases=(Phase("train", (Update("d", (loss,)),)),),
            preview=lambda state, constants, keys, data: {},
            generate=None,
            z_dim=0,
            evaluate=evaluator(self),
        )


def evaluator(settings: TextEncoder) -> Callable:
    """`Method.evaluate`: `retrieval` on held-out images.

    By the mean of all wordings seen in training of a combination, and by that of the unseen ones.
    """
    image_net = settings.image.build_for(settings.text.dim)
    text_net = char_cnn_rnn.CharCNNRNN(settings.text, len(captions.ALPHABET))

    @jax.jit
    def look(params, stats, images):
        return image_net.apply({"params": params, **stats}, signed(images), train=False)

    @jax.jit
    def read(params, codes):
        return text_net.apply({"params": params}, codes)

    def evaluate(state, constants, data) -> dict[str, float]:
        params, stats, codes = state.params["d"], state.stats["d"], constants["codes"]
        found = in_batches(lambda part: look(params["image"], stats, part), data["a"]["image"])
        words = np.asarray(read(params["text"], codes.reshape(-1, codes.shape[-1])))
        words = words.reshape(*codes.shape[:2], -1)
        seen = codes.shape[1] - settings.unseen_wordings
        rows = np.asarray(text_conditioning.combinations(constants))
        pair = text_conditioning.rows_of(rows, data["a"]["label"])
        # Of many attributes, no text was read for what is held out alone.
        found, pair = found[pair >= 0], pair[pair >= 0]
        names = known.names_of(constants)
        ways = {"retrieval": words[:, :seen]}
        if settings.unseen_wordings:
            ways["unseen_wording"] = words[:, seen:]
        return {
            f"{name}/{key}": value
            for name, vectors in ways.items()
            for key, value in retrieval(found, vectors.mean(1), pair, rows, names).items()
        }

    return evaluate
