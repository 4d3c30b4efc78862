"""Images that are arrays in memory, as a pack that trains."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from anigan_jax.data import dataset
from anigan_jax.data.attributes import Attribute, Attributes, tag
from anigan_jax.data.decode import Decoded
from anigan_jax.data.discover import Catalogue, Item
from anigan_jax.data.label_fields import cell
from anigan_jax.data.sources import Source
from anigan_jax.data.words import plain
from anigan_jax.errors import UserError
from anigan_jax.runtime import environment

LEAST = 8
"""Pixels of a side."""


def pack(
    images: np.ndarray,
    out: str | Path,
    labels: Mapping[str, Sequence[Any]] = MappingProxyType({}),
    *,
    images_b: np.ndarray | None = None,
    test: float = 0.1,
    twins: bool = True,
    overwrite: bool = False,
) -> Path:
    """Writes images in memory as a pack, which `Images(path=OUT, size=S)` and --data.path take.

    anigan_jax.pack(images, "faces", {"hair": colors, "glasses": [True, False, ...]})

    Args:
      images: (N, S, S, 3) uint8 RGB, or (N, S, S, 4) RGBA.
      out: a new folder.
      labels: attribute -> N classes: words or numbers, True and False, None where unknown.
      images_b: (M, S, S, 3) uint8, of a second domain that is translated to.
      test: the share that is held out.
      twins: whether mirrored and near images are kept on one side of that.
      overwrite: replaces a pack of other images.

    Raises:
      UserError: the arrays are not of these shapes, or `out` holds something else.
    """
    sides, said, attributes = _checked(images, labels, images_b)
    if not 0 <= test < 1:
        raise UserError(f"test is {test}; it must be a share of the images, at least 0 and below 1")
    source = _Arrays(sides, said, attributes, test, twins)
    place = environment.expanded(out)
    dataset.import_to(source, place, overwrite=overwrite, workers=1)
    return place


@dataclass(frozen=True, eq=False)
class _Arrays(Source):
    """The arrays as a source; it lives as long as they are packed."""

    sides: dict[str, np.ndarray]
    """Domain, '' where there is one, -> images."""
    labels: dict[str, list[str | None]]
    attributes: Attributes
    test: float  # type: ignore[misc]
    twins: bool  # type: ignore[misc]
    drawn = True  # no file that could make a decoder hang

    @property
    def size(self) -> int:  # type: ignore[override]
        return next(iter(self.sides.values())).shape[1]

    @property
    def channels(self) -> int:  # type: ignore[override]
        return next(iter(self.sides.values())).shape[3]

    def key(self) -> dict:
        told = hashlib.sha256(json.dumps([self.labels, self.attributes]).encode())
        for side, images in self.sides.items():
            told.update(f"{side}{images.shape}".encode())
            told.update(np.ascontiguousarray(images).data)
        about = {"sha256": told.hexdigest(), "test": self.test, "twins": self.twins}
        return {"source": "arrays", "version": 1, **about}

    def catalogue(self) -> Catalogue:
        items = []
        for side, images in self.sides.items():
            for i in range(len(images)):
                name = f"{i:08d}"
                said = {} if side == "B" else {n: each[i] for n, each in self.labels.items()}
                label = {n: value for n, value in said.items() if value is not None}
                items.append(Item(f"{side}/{name}" if side else name, name, 0, side, label=label))
        return Catalogue(items, [], [], self.attributes)

    def payloads(self, catalogue: Catalogue) -> Iterator[tuple[int, np.ndarray]]:
        for i, item in enumerate(catalogue.items):
            yield i, self.sides[item.domain][int(item.member)]

    def make(self, item: Item, payload: np.ndarray) -> Decoded:
        return Decoded(payload, [])


def _checked(
    images: Any, labels: Mapping[str, Sequence[Any]], images_b: Any
) -> tuple[dict[str, np.ndarray], dict[str, list[str | None]], Attributes]:
    images = _need("images", images)
    sides = {"": images}
    if images_b is not None:
        sides = {"A": images, "B": _need("images_b", images_b)}
        if sides["B"].shape[1:] != images.shape[1:]:
            raise UserError(f"images_b are {sides['B'].shape}; they must have the size of images")
    if not hasattr(labels, "items"):
        raise UserError("labels must be a dict, from names to values: {'hair': [...]}")
    said: dict[str, list[str | None]] = {}
    attributes = []
    for name, column in labels.items():
        # Of pandas, what is missing is NaN or NA.
        values = [value if cell(value) else None for value in column]
        if len(values) != len(images):
            raise UserError(f"labels {name!r} has {len(values)} values for {len(images)} images")
        word = plain(str(name))
        if all(isinstance(value, bool | np.bool_ | None) for value in values):
            words = {True: word, False: f"no {word}"}
            said[word] = [None if value is None else words[bool(value)] for value in values]
            attributes.append(tag(word))
            continue
        said[word] = [None if value is None else plain(str(value)) for value in values]
        classes = tuple(sorted({value for value in said[word] if value}))
        if len(classes) < 2:
            raise UserError(f"labels {name!r} has {len(classes)} class; it must have two or more")
        attributes.append(Attribute(word, classes))
    return sides, said, tuple(attributes)


def _need(name: str, images: Any) -> np.ndarray:
    try:
        images = np.asarray(images)
    except ValueError:
        raise UserError(f"{name} have several sizes; resize them to one first") from None
    good = images.ndim == 4 and images.shape[1] == images.shape[2] and images.shape[3] in (3, 4)
    if not good or images.dtype != np.uint8 or images.shape[1] < LEAST or not len(images):
        raise UserError(
            f"{name} are {images.dtype} {images.shape}; they must be uint8 (N, S, S, 3) or "
            f"(N, S, S, 4), S at least {LEAST} (floats in [-1, 1]: anigan_jax.storage.images."
            "to_uint8)"
        )
    return images
