"""The text encoder of seed S0: a char-CNN-RNN trained with images; no JAX until `make`."""

from __future__ import annotations

from dataclasses import dataclass, field

from anigan_jax.config import MethodSettings
from anigan_jax.data import captions
from anigan_jax.errors import UserError
from anigan_jax.methods import text_tables
from anigan_jax.networks.specs import CharEncoder, Classifier


@dataclass(frozen=True)
class TextEncoder(MethodSettings):
    """Structured joint embedding of images and captions (Reed et al. 2016, CVPR)."""

    text: CharEncoder = field(default_factory=CharEncoder)
    image: Classifier = field(default_factory=Classifier)
    unseen_wordings: int = 2
    """The last wordings of captions, kept from training to be judged on."""

    inputs = text_tables.inputs

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
        from anigan_jax.networks import text

        shape = (1, self.size, self.size, 3)
        return {
            "image": (text.image_encoder(self.image, self.text.dim), (shape,)),
            "text": (text.CharCNNRNN(self.text, len(captions.ALPHABET)), ((1, captions.LENGTH),)),
        }

    def make(self, axis_name: str | None):
        """The Method; `axis_name` is the mapped axis of devices or None."""
        from anigan_jax.methods.text_encoder_updates import make

        most = len(captions.WORDINGS) - 1
        if not 0 <= self.unseen_wordings <= most:
            raise UserError(
                f"method.unseen_wordings is {self.unseen_wordings}; it must be 0 to {most}"
            )
        self.image.check("method.image")
        self.text.check("method.text", captions.LENGTH)
        return make(self, axis_name)
