"""Label files of any layout: what they say of each image, as text, tags and classes."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from anigan_jax.data.attributes import EYES, HAIR
from anigan_jax.data.kinds import SUFFIXES
from anigan_jax.data.labels import CLASS, plain
from anigan_jax.data.rows import Row, Rows, Tag
from anigan_jax.errors import UserError

# Columns by their header, the likeliest first.
NAMES = (
    *("file_name", "filename", "file", "image_name", "image_id", "image", "img", "path"),
    *("name", "id", "key", "md5"),
)
TEXTS = ("text", "caption", "prompt", "description", "sentence")
TAGS = ("tags", "tag_string", "tag_string_general", "tag", "tag_list", "keywords")
INDEX = ("", "unnamed: 0", "index")
# Rows by which a layout is recognized.
HEAD = 50
FIRST = 1000
"""Rows by which a header is recognized."""
LONGEST = 100
"""Characters of a class; a longer cell is no class."""


class Labels(NamedTuple):
    """A label file: its layout, (image name or id, row) in its order, and (key, code, detail)."""

    layout: str
    rows: Rows
    faults: list[tuple[str, str, str]]


def read(text: str, where: str) -> Labels:
    """Reads a label file; its layout is recognized by its content.

    Args:
      where: the file's name, for messages.

    Raises:
      UserError: no row of it can be read.
    """
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise UserError(f"{where} is empty")
    found = next((made for reader in READERS if (made := _tried(reader, text)) is not None), None)
    if found and any(key and row for key, row in found.rows):
        return found
    first = next(_lines(text))
    raise UserError(
        f"{where} is no label file: its first line is {first[:60]!r}. Known layouts are a CSV of "
        "file name and text, tags or classes ('ID,aqua hair blue eyes', with or without a "
        "header), 'ID,tag:count<TAB>tag:count', metadata.jsonl, dataset.json, "
        "list_attr_celeba.txt and 23 columns of 0 and 1"
    )


def _tried(reader: Callable[[str], Labels | None], text: str) -> Labels | None:
    try:
        return reader(text)
    except RecursionError:
        # Lists in lists in lists, ... of JSON.
        return None


def _lines(text: str) -> Iterator[str]:
    """The lines that are not blank, one at a time: a file of millions has each once in memory."""
    return (found[0] for found in re.finditer(r"[^\r\n]+", text) if not found[0].isspace())


def _head(text: str) -> list[str]:
    return list(itertools.islice(_lines(text), HEAD))


def of_text(text: str) -> Row:
    """The row of a text file beside its image: a caption, or tags with commas."""
    return Row(text=" ".join(text.removeprefix("\ufeff").split()))


def of_fields(fields: Mapping[str, Any]) -> tuple[str, Row]:
    """(image name, row) of named columns: of CSV with a header, JSON or Parquet."""
    known = {str(name).strip().lower(): value for name, value in fields.items()}
    name = next((n for n in NAMES if known.get(n) not in (None, "")), None)
    if name is None:
        name = next((n for n in known if _names(n) or n in INDEX), None)
    key = _cell(known.pop(name)) if name is not None else ""
    tags: list[Tag] = []
    texts = [_cell(known.pop(column)) for column in TEXTS if column in known]
    for column in TAGS:
        if not isinstance(value := known.get(column), str | list | tuple):
            # A number is a class.
            continue
        del known[column]
        if isinstance(value, str) and not set(",_") & set(value):
            # Blanks alone tell no tags: 'blue hair red eyes'.
            texts.append(value.strip())
        else:
            tags += split_tags(value)
    rest = {n: v for n, v in known.items() if n not in INDEX and not isinstance(v, dict)}
    lists = [n for n, v in rest.items() if isinstance(v, list | tuple)]
    for column in lists:
        tags += split_tags(rest.pop(column))
    cells = {n: _cell(v) for n, v in rest.items()}
    cells = {n: v for n, v in cells.items() if v and len(v) <= LONGEST}
    return key, Row(next(filter(None, texts), ""), tuple(tags), cells)


def _names(column: str) -> bool:
    return column.endswith("_file_name")


def _cell(value: Any) -> str:
    return "" if value is None else str(value).strip()


def split_tags(value: Any) -> list[Tag]:
    """Tags of a list, of 'blue hair, smile' or of 'blue_hair smile'; `_` is a blank."""
    if isinstance(value, str):
        value = value.split("," if "," in value else None)
    words = (plain(_cell(word)) for word in value or ())
    return [Tag(word) for word in words if word]


def _jsonl(text: str) -> Labels | None:
    """One JSON object a line, as Hugging Face writes metadata.jsonl."""
    try:
        first = json.loads(next(_lines(text)))
    except (ValueError, RecursionError):
        return None
    if not isinstance(first, dict) or not any(name in NAMES or _names(name) for name in first):
        return None
    found = Labels("JSON lines", Rows(), [])
    for number, line in enumerate(_lines(text), start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("it is no object")
        except (ValueError, RecursionError) as error:
            found.faults.append((f"line {number}", "bad row", str(error)))
            continue
        found.rows.append(of_fields(record))
    return found


def _json(text: str) -> Labels | None:
    """StyleGAN's dataset.json, a list of records, or name -> text, tags or record."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(tree, dict) and isinstance(tree.get("labels"), list):
        return _stylegan(tree["labels"])
    if isinstance(tree, list):
        return Labels("JSON", Rows(of_fields(one) for one in tree if isinstance(one, dict)), [])
    rows = Rows()
    for key, value in tree.items():
        if isinstance(value, dict):
            rows.append((key, of_fields({**value, NAMES[0]: key})[1]))
        elif isinstance(value, list):
            rows.append((key, Row(tags=tuple(split_tags(value)))))
        elif isinstance(value, str | int) and not isinstance(value, bool):
            rows.append((key, Row(text=value) if isinstance(value, str) else _class(value)))
    return Labels("JSON", rows, [])


def _class(value: Any) -> Row:
    return Row(classes={CLASS: str(value)})


def _stylegan(pairs: list) -> Labels:
    """[["00000/img00000000.png", 3], ...]; a class may be one-hot."""
    found = Labels("dataset.json", Rows(), [])
    for number, pair in enumerate(pairs):
        try:
            name, value = pair
            if isinstance(value, list):
                if sorted(value) != [0] * (len(value) - 1) + [1]:
                    raise ValueError("its class is no number and not one-hot")
                value = value.index(1)
            found.rows.append((str(name), _class(value)))
        except (TypeError, ValueError) as error:
            found.faults.append((f"label {number}", "bad row", str(error)))
    return found


def _celeba(text: str) -> Labels | None:
    """list_attr_celeba.txt: the count, the attributes, then 'NAME 1 -1 ...' a line."""
    head = [line.split() for line in _head(text)[:3]]
    if len(head) < 3 or len(head[0]) != 1 or not head[0][0].isdecimal():
        return None
    names, found = head[1], Labels("list_attr_celeba", Rows(), [])
    for line in itertools.islice(_lines(text), 2, None):
        key, *cells = line.split()
        if len(cells) != len(names) or not set(cells) <= {"1", "-1", "0"}:
            found.faults.append((key, "bad row", f"not {len(names)} columns of 1 and -1"))
            continue
        found.rows.append((key, Row(classes=dict(zip(names, cells, strict=True)))))
    return found


def _one_hot(text: str) -> Labels | None:
    """The NTU file without a header: ID, 11 columns of eyes and 12 of hair."""
    if not any(n.count(",") == 23 and set(n.split(",", 1)[1]) <= set("01, ") for n in _head(text)):
        return None
    found = Labels("one-hot", Rows(), [])
    for line in _lines(text):
        key, *cells = (cell.strip() for cell in line.split(","))
        if len(cells) != 23 or not set(cells) <= {"0", "1"}:
            found.faults.append((key, "bad row", "not 23 columns of 0 and 1"))
            continue
        # A row of zeros is a row: of an image with no color that is known.
        classes = {"hair": "", "eyes": ""}
        for part, names, bits in (("eyes", EYES, cells[:11]), ("hair", HAIR, cells[11:])):
            on = [name for name, bit in zip(names, bits, strict=True) if bit == "1"]
            if len(on) > 1:
                found.faults.append((key, "conflict", f"{part}: {', '.join(on)}"))
            classes |= {part: on[0]} if len(on) == 1 else {}
        found.rows.append((key, Row(classes=classes)))
    return found


def parse_raw(cell: str) -> list[Tag]:
    """'touhou:17697<TAB>red hair:7200<TAB>' -> tags; blanks and the last tab fall away.

    Only the last colon divides, so a tag may hold colons and digits of its own.

    Raises:
      ValueError: a tag without a whole count.
    """
    tags = []
    for piece in cell.split("\t"):
        if not piece.strip():
            continue
        text, colon, count = piece.rpartition(":")
        if not colon or not count.strip().isdecimal():
            raise ValueError(f"{piece.strip()!r} is not tag:count")
        tags.append(Tag(plain(text), int(count)))
    return tags


def _raw(text: str) -> Labels | None:
    """'ID,tag:count<TAB>tag:count', whose tags may hold commas and quotes."""

    def fits(rest: str) -> bool:
        try:
            return bool(parse_raw(rest))
        except ValueError:
            return False

    if not any(fits(line.partition(",")[2]) for line in _head(text)):
        return None
    found = Labels("raw tags", Rows(), [])
    for line in _lines(text):
        key, _, rest = line.partition(",")
        try:
            found.rows.append((key.strip(), Row(tags=tuple(parse_raw(rest)))))
        except ValueError as error:
            found.faults.append((key.strip(), "bad row", str(error)))
    return found


def _table(text: str) -> Labels | None:
    """CSV as pandas and spreadsheets write it: any delimiter, quoted, with or without header."""
    delimiter = _delimiter(_head(text))
    if delimiter is None:
        return None
    try:
        return _of_cells(_cells(text, delimiter))
    except csv.Error:
        return None


def _cells(text: str, delimiter: str) -> Iterator[list[str]]:
    """The cells of each row that has any."""
    if delimiter == " ":
        rows: Iterable = (line.split(maxsplit=1) for line in _lines(text))
    else:
        rows = csv.reader((f"{line}\n" for line in _lines(text)), delimiter=delimiter)
    return ([cell.strip() for cell in row] for row in rows if any(row))


def _of_cells(cells: Iterator[list[str]]) -> Labels:
    first = list(itertools.islice(cells, FIRST))
    cells = itertools.chain(first, cells)
    if len(first) > 1 and _is_header(first):
        return _with_header(next(cells), cells)
    found = Labels("CSV", Rows(), [])
    for row in cells:
        # An index before the file name is no name.
        named = len(row) > 2 and not _is_image(row[0]) and _is_image(row[1])
        key, *rest = row[1:] if named else row
        words = ", ".join(filter(None, rest))
        if len(rest) == 1 and rest[0].lstrip("-").isdecimal():
            found.rows.append((key, _class(rest[0])))
        elif any(map(str.isalpha, words)):
            found.rows.append((key, Row(text=words)))
        else:
            found.faults.append((key, "bad row", "it has no words"))
    return found


def _delimiter(lines: list[str]) -> str | None:
    """What ends the first column of most lines; a blank only behind the name of an image."""
    counts: Counter[str] = Counter()
    for line in lines:
        bare = re.sub(r'^\s*"[^"]*"', "", line)
        if mark := re.search(r"[,;\t|]", bare):
            counts[mark[0]] += 1
        elif len(words := line.split(maxsplit=1)) == 2 and _is_image(words[0]):
            counts[" "] += 1
    return counts.most_common(1)[0][0] if counts else None


def _is_image(cell: str) -> bool:
    return PurePosixPath(cell).suffix.lower() in SUFFIXES


def _is_header(cells: list[list[str]]) -> bool:
    """Whether the first row names columns: by known names, or as no key is like its first."""
    head = [cell.lower() for cell in cells[0]]
    if {*NAMES, *TEXTS, *TAGS} & set(head):
        return True
    if any(cell and not re.search("[a-z]", cell) for cell in head) or len(set(head)) < len(head):
        return False

    def numbered(key: str) -> bool:
        return any(map(str.isdigit, key)) or _is_image(key)

    keys = [row[0] for row in cells[1:]]
    return not numbered(head[0]) and sum(map(numbered, keys)) >= 0.9 * len(keys)


def _with_header(head: list[str], body: Iterator[list[str]]) -> Labels:
    lower = [name.lower() for name in head]
    if not set(lower) & {*NAMES, *INDEX} and not any(map(_names, lower)):
        # A key column of any name stands first.
        lower[0] = NAMES[0]
    found = Labels("CSV with a header", Rows(), [])
    for row in body:
        if len(row) > len(head):
            # Commas of a text that was not quoted.
            row = [*row[: len(head) - 1], ", ".join(row[len(head) - 1 :])]
        row = row + [""] * (len(head) - len(row))
        found.rows.append(of_fields(dict(zip(lower, row, strict=True))))
    return found


READERS: tuple[Callable[[str], Labels | None], ...] = (
    *(_jsonl, _json, _celeba, _one_hot, _raw, _table),
)
