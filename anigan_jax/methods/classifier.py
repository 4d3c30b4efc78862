"""A classifier of hair and eye colour: the judge of text GANs, trained like them.

It is a family of one player, so its runs repeat and resume as every other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from anigan_jax.config import MethodSettings
from anigan_jax.data.tags import EYES, HAIR
from anigan_jax.methods import text_tables
from anigan_jax.networks.specs import Classifier

CLASSES = len(HAIR) + len(EYES)


@dataclass(frozen=True)
class ColourClassifier(MethodSettings):
    """Softmax over hair and over eye colours, by one convolutional network."""

    network: Classifier = field(default_factory=Classifier)
    shift: bool = True
    """Moves each training image by up to an eighth of its side."""

    inputs = text_tables.inputs

    @property
    def size(self) -> int:
        return self.network.size

    @property
    def has_generator(self) -> bool:
        return False

    def networks(self):
        """Name -> (module, shapes of its inputs for one image)."""
        from anigan_jax.networks import text

        shape = (1, self.size, self.size, 3)
        return {"classifier": (text.image_encoder(self.network, CLASSES), (shape,))}

    def make(self, axis_name: str | None):
        """The Method; `axis_name` is the mapped axis of devices or None."""
        from anigan_jax.methods.classifier_updates import make

        self.network.check("method.network")
        return make(self, axis_name)
