"""Rows of label files, as they were read: of millions, each word is kept once."""

from __future__ import annotations

import copy
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple


class Tag(NamedTuple):
    """A tag and how many posts of its site carry it."""

    text: str
    count: int = 0


class Row(NamedTuple):
    """What a label file says of one image.

    Attributes:
      text: a caption, or tags as they were written; '' where there is none.
      tags: words of a layout that separates them; count 0 where it gives none.
      classes: column -> what it holds, 'hair' -> 'blue', 'smiling' -> '-1'.
    """

    text: str = ""
    tags: tuple[Tag, ...] = ()
    classes: Mapping[str, str] = MappingProxyType({})

    def __bool__(self) -> bool:
        return bool(self.text or self.tags or self.classes)


class Rows(Collection):
    """(name or id of an image, row) in the order of a file, a hundredth of what objects take.

    Tags and cells are numbers of words, in one array for all rows; a row is made when it is
    asked for.
    """

    def __init__(self, pairs: Iterable[tuple[str, Row]] = ()):
        self._keys: list[str] = []
        self._texts: list[str] = []
        self._tags, self._cells = _Lists(), _Lists()
        self._chosen: array | None = None
        self.extend(pairs)

    def append(self, pair: tuple[str, Row]) -> None:
        key, row = pair
        self._keys.append(key)
        self._texts.append(row.text)
        self._tags.append(row.tags)
        self._cells.append(row.classes.items())

    def extend(self, pairs: Iterable[tuple[str, Row]]) -> None:
        for pair in pairs:
            self.append(pair)

    def names(self) -> Iterator[str]:
        """The names alone, in order; several rows may have the same."""
        return (self._keys[i] for i in self._order())

    def of(self, keys: Collection[str]) -> Rows:
        """The rows of these names alone."""
        found = copy.copy(self)
        found._chosen = array("Q", (i for i in self._order() if self._keys[i] in keys))
        return found

    def by_name(self) -> Iterator[tuple[str, list[Row]]]:
        """(name, its rows), in the order of the first of each; made when they are asked for."""
        places: dict[str, array] = {}
        for i in self._order():
            places.setdefault(self._keys[i], array("Q")).append(i)
        for name, each in places.items():
            yield name, [self._row(i) for i in each]

    def _row(self, i: int) -> Row:
        return Row(self._texts[i], tuple(self._tags[i]), dict(self._cells[i]))

    def _order(self) -> Iterable[int]:
        return range(len(self._keys)) if self._chosen is None else self._chosen

    def __len__(self) -> int:
        return len(self._keys) if self._chosen is None else len(self._chosen)

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        for i in self._order():
            yield self._keys[i], self._row(i)

    def __contains__(self, pair: object) -> bool:
        return any(pair == each for each in self)


class _Lists:
    """Lists of hashable values, as numbers in one array."""

    def __init__(self) -> None:
        self._numbers: dict = {}
        self._values: list = []
        self._all, self._ends = array("I"), array("Q", [0])

    def append(self, values: Iterable) -> None:
        for value in values:
            number = self._numbers.setdefault(value, len(self._values))
            if number == len(self._values):
                self._values.append(value)
            self._all.append(number)
        self._ends.append(len(self._all))

    def __getitem__(self, i: int) -> Iterator:
        return map(self._values.__getitem__, self._all[self._ends[i] : self._ends[i + 1]])
