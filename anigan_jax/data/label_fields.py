"""What named columns of a label file say of an image, and which of them names it."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TypeVar

from anigan_jax.data.kinds import SUFFIXES
from anigan_jax.data.matching import folded
from anigan_jax.data.rows import Row, Rows, Tag
from anigan_jax.data.words import CLASS, DIVIDERS, SCORE, pieces, plain, tag

# Columns by their header, the likeliest first.
NAMES = (
    *("file_name", "filename", "file", "image_name", "image_id", "image", "img", "path"),
    *("name", "id", "key", "md5"),
)
TEXTS = ("text", "caption", "prompt", "description", "sentence")
TAGS = ("tags", "tag_string", "tag_string_general", "tag", "tag_list", "keywords")
# Columns that may hold others.
NESTED = ("attributes", "labels", "annotations")
INDEX = ("", "unnamed: 0", "index")
FIRST = 1000
"""Rows by which a header, and the column that names images, are recognized."""
ENOUGH = 50
"""Images that the usual column names, after which no other is looked at."""
LONGEST = 100
"""Characters of a class; a longer cell is no class."""
# Cells that hold nothing, as pandas, spreadsheets and R write them.
MISSING = ("nan", "<na>", "n/a", "#n/a", "null")
MISSING_AS_IS = ("NA",)
TAG_WORDS = 5
"""Words of a line, under which lines are a list of tags."""
_NUMBER = re.compile(r"\s*[-+\d.e]*\s*")
Key = TypeVar("Key")


class Labels(NamedTuple):
    """A label file: its layout, (image name or id, row) in its order, and (key, code, detail)."""

    layout: str
    rows: Rows
    faults: list[tuple[str, str, str]]


def lines(text: str) -> Iterator[str]:
    """The lines that are not blank, one at a time: a file of millions has each once in memory."""
    return (found[0] for found in re.finditer(r"[^\r\n]+", text) if not found[0].isspace())


def of_text(text: str) -> Row:
    """The row of a text file beside its image: a caption, or tags with commas or one a line."""
    each = [" ".join(line.split()) for line in lines(text.removeprefix("\ufeff"))]
    listed = not set(",;") & set(text) and all(line.count(" ") < TAG_WORDS for line in each)
    return Row(text=(", " if listed else " ").join(each))


def of_fields(fields: Mapping[str, Any], key: str | None = None) -> tuple[str, Row]:
    """(image name, row) of named columns: of CSV with a header, JSON or Parquet.

    Args:
      key: the column that names images, where it is known.
    """
    known = {str(name).strip().lower(): _listed(value) for name, value in fields.items()}
    for column in NESTED:
        if isinstance(known.get(column), dict):
            inner = {str(n).strip().lower(): v for n, v in known.pop(column).items()}
            known = {**inner, **known}
    name = key if known.get(key or "") not in (None, "") else usual(known)
    key = cell(known.pop(name)) if name is not None else ""
    tags: list[Tag] = []
    texts = []
    for value in (known.pop(column) for column in TEXTS if column in known):
        each = value if isinstance(value, list | tuple) else [value]
        each = [cell(_named(one) if isinstance(one, dict) else one) for one in each]
        if len(each) == 1:
            texts += each
        else:
            # Of several captions each is one.
            tags += [Tag(word) for one in each for word in pieces(one)]
    for column in TAGS:
        if isinstance(value := known.get(column), dict):
            value = _of_dict(value)
        if not isinstance(value, str | list | tuple):
            # A number is a class.
            continue
        del known[column]
        if isinstance(value, str) and column.startswith("tag_string"):
            # Danbooru's, whose tags may be ';d'.
            value = value.split()
        divided = f"_|{DIVIDERS}" if any(texts) else _marks(value)
        if isinstance(value, str) and not re.search(divided, value):
            # Blanks alone tell no tags, 'blue hair red eyes': all rows together do.
            texts.append(value.strip())
        else:
            tags += split_tags(value)
    rest = {n: v for n, v in known.items() if n not in INDEX and not isinstance(v, dict)}
    lists = [n for n, v in rest.items() if isinstance(v, list | tuple)]
    for column in lists:
        tags += split_tags(rest.pop(column))
    cells = {n: cell(v) for n, v in rest.items()}
    for long in (v for v in cells.values() if len(v) > LONGEST and _is_list(v)):
        tags += split_tags(long)
    cells = {n: v for n, v in cells.items() if v and len(v) <= LONGEST}
    return key, Row(next(filter(None, texts), ""), tuple(tags), cells)


def _is_list(text: str) -> bool:
    """Whether a long text is tags with marks between, not sentences or numbers."""
    each = re.split(DIVIDERS, text)
    short = len(each) > 2 and len(text.split()) <= 3 * len(each)
    return short and any(map(str.isalpha, text)) and not all(map(_NUMBER.fullmatch, each))


def _of_dict(tags: dict) -> list:
    """Tags by their kinds, {"general": [...], "character": [...]}, or with a tagger's scores."""
    kinds = [_of_dict(kind) if isinstance(kind, dict) else kind for kind in tags.values()]
    each = [word for kind in kinds if isinstance(kind, list) for word in kind]
    return each + [name for name, n in tags.items() if isinstance(n, float) and n >= SCORE]


def _listed(value: Any) -> Any:
    """The list that a cell of a table holds as Python and JSON write it: "['a', 'b']"."""
    if isinstance(value, str) and value[:1] == "[" and value[-1:] == "]":
        return [word.strip(" '\"") for word in value[1:-1].split(",")]
    return value


def usual(known: Mapping[str, Any]) -> str | None:
    """The column that names images, by its name."""
    name = next((n for n in NAMES if known.get(n) not in (None, "")), None)
    return name or next((n for n in known if names(n) or n in INDEX), None)


def naming(columns: Mapping[Key, Iterable[Any]], first: Key, images: Iterable[str]) -> Key:
    """The column that names images: the usual one, or, where no cell of it does, another."""
    columns = {column: [*cells] for column, cells in columns.items()}
    # One of file names, where the usual one has none: '12' is as often a row's own number.
    shown = [column for column, cells in columns.items() if any(map(is_image, cells))]
    first = first if first in shown or not shown else shown[0]
    places: dict[str, set[Key]] = {}
    for column, cells in columns.items():
        for value in cells:
            if isinstance(value, str | int) and value != "":
                places.setdefault(folded(str(value)), set()).add(column)
    hits: Counter[Key] = Counter()
    for name in images:
        hits.update(places.get(folded(name), ()))
        if hits[first] == ENOUGH:
            return first
    distinct: Counter[Key] = Counter(itertools.chain.from_iterable(places.values()))

    def by_chance(column: Key) -> bool:
        """Whether it is of fewer and bare numbers, which are names of images by chance."""
        words = (str(cell).removesuffix(".0") for cell in columns[column] if cell not in ("", None))
        return distinct[column] < distinct[first] and all(map(str.isdecimal, words))

    others = (column for column in columns if not by_chance(column))
    return max((first, *others), key=lambda column: hits[column])


def names(column: str) -> bool:
    return column.endswith("_file_name")


def cell(value: Any) -> str:
    text = "" if value is None else str(value).strip()
    return "" if len(text) < 5 and (text.lower() in MISSING or text in MISSING_AS_IS) else text


def class_row(value: Any) -> Row:
    """A row that says a class alone."""
    return Row(classes={CLASS: str(value)})


def split_tags(value: Any) -> list[Tag]:
    """Tags of a list, of 'blue hair, smile' or of 'blue_hair smile'; `_` is a blank."""
    if isinstance(value, str):
        marks = _marks(value)
        value = re.split(marks, value) if re.search(marks, value) else value.split()
    value = (_named(word) if isinstance(word, dict) else word for word in value or ())
    # Of several captions each is one.
    pieces = (tag(plain(cell(word))) for word in value if not isinstance(word, dict | list))
    return [Tag(word) for words in pieces for word in words if word]


def _named(word: dict) -> Any:
    """A tag or caption that is an object of its own."""
    return next((word[name] for name in ("name", "raw", *TEXTS) if name in word), "")


def _marks(value: Any) -> str:
    """What may divide tags: between blanks, ';d' is a face."""
    return "[,\uff0c]" if isinstance(value, str) and {" ", "_"} <= set(value) else DIVIDERS


def of_records(layout: str, records: Iterable[Mapping], images: Collection[str]) -> Labels:
    """Rows of JSON's records."""
    records = iter(records)
    first = list(itertools.islice(records, FIRST))
    columns: dict[str, list] = {}
    for record in first:
        for name, value in record.items():
            columns.setdefault(str(name).strip().lower(), []).append(value)
    key = naming(columns, usual(columns) or "", images) if columns else None
    rest = itertools.chain(first, records)
    return Labels(layout, Rows(of_fields(record, key) for record in rest), [])


def is_image(cell: Any) -> bool:
    """Whether it is the name of an image, by its ending."""
    return isinstance(cell, str) and PurePosixPath(cell).suffix.lower() in SUFFIXES
