"""A text encoder trained with images: the char-CNN-RNN of SJTU's report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax import losses, rng
from anigan_jax.config import MethodSettings
from anigan_jax.core import Array, Aux, Batch, Keys, Method, Phase, Update
from anigan_jax.data import captions
from anigan_jax.data.labels import EYES
from anigan_jax.errors import UserError
from anigan_jax.methods import text_conditioning
from anigan_jax.methods.augment import signed
from anigan_jax.methods.gan import split_variables
from anigan_jax.metrics.retrieval import retrieval
from anigan_jax.networks import char_cnn_rnn, classifier
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
    """The last wordings of captions, kept from training to be judged on."""

    inputs = text_conditioning.inputs

    @property
    def size(self) -> int:
        return self.image.size

    @property
    def has_generator(self) -> bool:
        return False

    def frozen(self, pack):
        """'codes' (132, W, 64) uint8: characters of every wording of every pair."""
        lines = [text for label in captions.pairs() for text in captions.captions(label)]
        codes = captions.codes(lines)
        return {"codes": codes.reshape(-1, len(captions.WORDINGS), codes.shape[1])}

    def networks(self):
        """Name -> (module, shapes of its inputs for one image)."""
        from anigan_jax.networks import char_cnn_rnn, classifier

        shape = (1, self.size, self.size, 3)
        return {
            "image": (classifier.image_encoder(self.image, self.text.dim), (shape,)),
            "text": (
                char_cnn_rnn.CharCNNRNN(self.text, len(captions.ALPHABET)),
                ((1, captions.LENGTH),),
            ),
        }

    def make(self, axis_name: str | None):
        """The Method; `axis_name` is the mapped axis of devices or None."""

        most = len(captions.WORDINGS) - 1
        if not 0 <= self.unseen_wordings <= most:
            raise UserError(
                f"method.unseen_wordings is {self.unseen_wordings}; it must be 0 to {most}"
            )
        self.image.check("method.image")
        self.text.check("method.text", captions.LENGTH)
        return make(self, axis_name)


def make(settings: TextEncoder, axis_name: str | None) -> Method:
    """The Method of the family: one player, 'd', with an image and a text network."""
    image_net = classifier.image_encoder(settings.image, settings.text.dim, axis_name)
    text_net = char_cnn_rnn.CharCNNRNN(settings.text, len(captions.ALPHABET))

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
    image_net = classifier.image_encoder(settings.image, settings.text.dim)
    text_net = char_cnn_rnn.CharCNNRNN(settings.text, len(captions.ALPHABET))

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
