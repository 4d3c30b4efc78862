"""What images are told apart by: attributes, each with classes; NumPy and text alone.

A set has any number of them, in order: hair and eyes, glasses, a character, a class. A label is a
row of class indices, -1 where unknown, or by name `{"hair": "blue", "glasses": "no glasses"}`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Integer

# The one-hot columns of the NTU label file, hair and eyes; painted faces use them too.
HAIR = (
    "orange",
    "white",
    "aqua",
    "gray",
    "green",
    "red",
    "purple",
    "pink",
    "blue",
    "black",
    "brown",
    "blonde",
)
EYES = (
    "gray",
    "black",
    "orange",
    "pink",
    "yellow",
    "aqua",
    "purple",
    "green",
    "brown",
    "red",
    "blue",
)
# Their classes are adjectives: nobody says 'blue' for blue hair.
PARTS = ("hair", "eyes")
# As many combinations have a place each, seen or not; of more, those that the data has.
PLACES = 4096
ARRAY = "attribute/"


class Attribute(NamedTuple):
    """What an image is asked for, and the answers there are."""

    name: str
    classes: tuple[str, ...]

    @property
    def is_tag(self) -> bool:
        """Whether it says that something is there or is not, as `tag` makes it."""
        return self == tag(self.name)


Attributes = tuple[Attribute, ...]
Label = Mapping[str, str]
DEFAULT: Attributes = (Attribute("hair", HAIR), Attribute("eyes", EYES))
"""Those of the NTU files and of painted faces."""


class Places:
    """Where attributes and their classes stand, for the labels of one set.

    Attributes:
      of: name of an attribute -> its place.
      classes: name of an attribute -> class -> its number, from 1.
    """

    def __init__(self, attributes: Attributes):
        self.attributes = attributes
        self.of = {a.name: i for i, a in enumerate(attributes)}
        self.classes = {a.name: {c: n for n, c in enumerate(a.classes, 1)} for a in attributes}


class Coded(Mapping[str, str]):
    """A label in a byte for each attribute: a set of millions of images has one for each."""

    __slots__ = ("_codes", "_places")

    def __init__(self, places: Places, codes: Sequence[int]):
        """`codes` are by attribute the numbers of `Places`; 0: the label says nothing."""
        self._places = places
        self._codes = bytes(codes) if max(codes, default=0) < 256 else tuple(codes)

    def __getitem__(self, name: str) -> str:
        place = self._places.of[name]
        if not self._codes[place]:
            raise KeyError(name)
        return self._places.attributes[place].classes[self._codes[place] - 1]

    def __iter__(self) -> Iterator[str]:
        return (a.name for a, c in zip(self._places.attributes, self._codes, strict=True) if c)

    def __len__(self) -> int:
        return len(self._codes) - self._codes.count(0)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Coded) and other._places is self._places:
            return self._codes == other._codes
        return super().__eq__(other)

    def __hash__(self) -> int:
        return hash(self._codes)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self):
        return Coded, (self._places, self._codes)

    def row(self, attributes: Attributes) -> tuple[int, ...] | None:
        """Its class indices, -1 where it says nothing; None where it is of other attributes."""
        if attributes is not self._places.attributes:
            return None
        return tuple(code - 1 for code in self._codes)


def tag(name: str) -> Attribute:
    """Something that an image shows or does not."""
    return Attribute(name, (f"no {name}", name))


def label(**classes: str | None) -> dict[str, str]:
    """A label by name, without what is None."""
    return {name: found for name, found in classes.items() if found is not None}


def phrase(attributes: Attributes, name: str, chosen: str) -> str:
    """A class in words: 'blue hair', 'glasses', 'hatsune miku', 'tall size' where unclear."""
    others = [c for a in attributes if a.name != name for c in a.classes]
    return f"{chosen} {name}" if name in PARTS or chosen in others else chosen


def say(attributes: Attributes, chosen: Label) -> str:
    """A label in words, 'blue hair red eyes, glasses', in the order of the attributes.

    What an image does not show is left unsaid where anything else is said.
    """
    known = [a for a in attributes if a.name in chosen]
    parts = [phrase(attributes, a.name, chosen[a.name]) for a in known if a.name in PARTS]
    rest = [a for a in known if a.name not in PARTS]
    there = [a for a in rest if not (a.is_tag and chosen[a.name] != a.name)]
    said = there if parts or there else rest
    first = [" ".join(parts)] if parts else []
    return ", ".join([*first, *(phrase(attributes, a.name, chosen[a.name]) for a in said)])


def row(attributes: Attributes, chosen: Mapping[str, str]) -> tuple[int, ...]:
    """Class indices of a label; -1 where it says nothing, or names no class of these."""
    if isinstance(chosen, Coded) and (known := chosen.row(attributes)) is not None:
        return known
    return tuple(
        a.classes.index(chosen[a.name]) if chosen.get(a.name) in a.classes else -1
        for a in attributes
    )


def rows(attributes: Attributes, labels: Iterable[Label]) -> Int32[np.ndarray, "n a"]:
    """Class indices of many labels, as `row` gives them of one."""
    flat = (index for each in labels for index in row(attributes, each))
    return np.fromiter(flat, np.int32).reshape(-1, len(attributes) or 1)


def label_of(attributes: Attributes, indices: Iterable[int]) -> dict[str, str]:
    """The label of class indices (A,); those below 0 are left out."""
    each = zip(attributes, indices, strict=True)
    return {a.name: a.classes[int(i)] for a, i in each if i >= 0}


def one_hot(attributes: Attributes, rows: Integer[np.ndarray, "n a"]) -> Float32[np.ndarray, "n t"]:
    """Class indices, none of them -1 -> a one for the class of each attribute, in order."""
    sizes = [len(a.classes) for a in attributes]
    found = np.zeros((len(rows), sum(sizes)), np.float32)
    for column, first in zip(rows.T, np.cumsum([0, *sizes]), strict=False):
        found[np.arange(len(rows)), first + column] = 1
    return found


def combinations(
    sizes: tuple[int, ...], rows: np.ndarray | None = None
) -> Int32[np.ndarray, "p a"]:
    """Every combination of classes in order, or of too many those among `rows` (N, A).

    Args:
      sizes: A numbers of classes.
      rows: needed where there are more than `PLACES`.
    """
    if math.prod(sizes) <= PLACES:
        return np.indices(sizes).reshape(len(sizes), -1).T.astype(np.int32)
    assert rows is not None
    return np.unique(rows, axis=0).astype(np.int32)


def to_arrays(attributes: Attributes) -> dict[str, np.ndarray]:
    """Constants of a run that `of_arrays` reads back: (C, W) UTF-8 names; {} for the default."""
    if attributes == DEFAULT:
        return {}
    found = {}
    for i, (name, classes) in enumerate(attributes):
        rows = np.array([c.encode() for c in classes])
        found[f"{ARRAY}{i}/{name}"] = rows.view(np.uint8).reshape(len(classes), -1)
    return found


def sizes_of(constants: Mapping) -> tuple[int, ...]:
    """Numbers of classes by the shapes of a run's constants, which may be traced."""
    found = [constants[key].shape[0] for key in _keys(constants)]
    return tuple(found) or tuple(len(a.classes) for a in DEFAULT)


def names_of(constants: Mapping) -> tuple[str, ...]:
    """Names of the attributes by the constants of a run, which may be traced."""
    names = [key.split("/", 2)[2] for key in _keys(constants)]
    return tuple(names) or tuple(a.name for a in DEFAULT)


def of_arrays(constants: Mapping) -> Attributes:
    """The attributes of a run's constants, on the host."""
    found = []
    for name, key in zip(names_of(constants), _keys(constants), strict=False):
        rows = np.asarray(constants[key])
        classes = (bytes(each).rstrip(b"\0").decode() for each in rows)
        found.append(Attribute(name, tuple(classes)))
    return tuple(found) or DEFAULT


def _keys(constants: Mapping) -> list[str]:
    keys = [key for key in constants if key.startswith(ARRAY)]
    return sorted(keys, key=lambda key: int(key.split("/", 2)[1]))


def merged(one: Attributes, two: Attributes) -> Attributes:
    """Attributes of either, with the classes of both."""
    found = {a.name: a.classes for a in one}
    for name, classes in two:
        found[name] = tuple(dict.fromkeys((*found.get(name, ()), *classes)))
    return tuple(Attribute(name, classes) for name, classes in found.items())
