"""TFDS builders of the project's sets; importing this module registers them by name.

    from anigan_jax.data import tfds_builders
    tfds.builder("painted_faces", data_dir=..., file_format="array_record")

They need no TensorFlow as long as `file_format` is 'array_record'; TFDS's default,
TFRecord, fails at the end of preparing without it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from anigan_jax.data import archives, discover, labels
from anigan_jax.data.attributes import DEFAULT, Attributes
from anigan_jax.data.decode import Finding
from anigan_jax.data.synthetic import painted
from anigan_jax.errors import UserError

UNKNOWN = "unknown"


def _classes(attributes: Attributes) -> dict:
    """Class labels of each attribute; the last class is 'unknown'."""
    features = tfds.features
    return {a.name: features.ClassLabel(names=[*a.classes, UNKNOWN]) for a in attributes}


def _image() -> tfds.features.Image:
    return tfds.features.Image(shape=(None, None, 3))


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First."}
    # TFDS looks for metadata files beside a builder; ours say all in code.
    pkg_dir_path = Path(__file__).parent

    def _features(self) -> dict:
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(self._features()),
        )


class PaintedFaces(_Builder):
    """Anime faces drawn by code, with hair and eye color and 68 landmarks."""

    def __init__(self, *, count: int = 4096, seed: int = 0, size: int = 64, **rest):
        """`count` training faces and a tenth as many others to test; `size` in pixels."""
        self.count, self.seed, self.size = count, seed, size
        super().__init__(**rest)

    def _features(self) -> dict:
        marks = tfds.features.Tensor(shape=(68, 2), dtype=np.float32)
        return {"image": _image(), **_classes(DEFAULT), "landmarks": marks}

    def _split_generators(self, download) -> dict:
        tested = max(1, self.count // 10)
        return {
            "train": self._generate_examples(0, self.count),
            "test": self._generate_examples(self.count, self.count + tested),
        }

    def _generate_examples(self, start: int, stop: int) -> Iterator:
        for index in range(start, stop):
            face = painted.face(self.seed, index)
            pixels, marks = painted.draw(face, self.size)
            yield (
                f"{index:08d}",
                {
                    "image": _png(pixels),
                    "hair": face.hair,
                    "eyes": face.eyes,
                    "landmarks": marks,
                },
            )


class TaggedFaces(_Builder):
    """A folder or archive of faces with the attributes of its label file, such as hair and eyes."""

    def __init__(self, *, source: str, tag_rule: labels.Rule = "max-count", **rest):
        self.found = discover.survey(Path(source), discover.Options(tag_rule=tag_rule))
        super().__init__(**rest)

    def _features(self) -> dict:
        classes = _classes(self.found.attributes)
        return {"image": _image(), **classes, "name": tfds.features.Text()}

    def _split_generators(self, download) -> dict:
        found = self.found
        splits: dict[str, list] = {}
        for item in found.items:
            splits.setdefault("test" if item.held else "train", []).append(item)
        return {name: self._generate_examples(found, items) for name, items in splits.items()}

    def _generate_examples(self, found: discover.Catalogue, items: list) -> Iterator:
        for item, data in _read(found, items):
            names = (a.name for a in found.attributes)
            classes = {name: item.label.get(name, UNKNOWN) for name in names}
            yield item.name, {"image": data, **classes, "name": item.name}


class UnpairedFaces(_Builder):
    """Two domains of images without pairs: splits trainA, trainB, testA and testB."""

    def __init__(self, *, source: str, **rest):
        self.source = source
        super().__init__(**rest)

    def _features(self) -> dict:
        return {"image": _image(), "name": tfds.features.Text()}

    def _split_generators(self, download) -> dict:
        found = discover.survey(Path(self.source), discover.Options())
        splits: dict[str, list] = {}
        for item in found.items:
            if not item.domain:
                raise UserError(f"{self.source} has no folders trainA and trainB")
            splits.setdefault(("test" if item.held else "train") + item.domain, []).append(item)
        return {name: self._generate_examples(found, items) for name, items in splits.items()}

    def _generate_examples(self, found: discover.Catalogue, items: list) -> Iterator:
        for item, data in _read(found, items):
            yield item.name, {"image": data, "name": item.name}


def _png(pixels) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    buffer.seek(0)
    return buffer


def _read(found: discover.Catalogue, items: list) -> Iterator:
    """(item, its file) undecoded, so that a later import applies every rule to it."""
    for number, store in enumerate(found.stores):
        named = {item.member: item for item in items if item.store == number}
        for member, data in archives.read(store, named):
            if isinstance(data, Finding):
                raise UserError(f"{data}; `anigan check` lists all faults")
            yield named[member], io.BytesIO(data)
