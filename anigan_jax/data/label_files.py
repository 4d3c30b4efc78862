"""Label files of any layout: what they say of each image, as text, tags and classes."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator

from anigan_jax.data import label_json
from anigan_jax.data.attributes import EYES, HAIR
from anigan_jax.data.label_fields import (
    FIRST,
    NAMES,
    TAGS,
    TEXTS,
    Labels,
    class_row,
    is_image,
    lines,
    naming,
    of_fields,
    usual,
)
from anigan_jax.data.label_json import UNLABELED
from anigan_jax.data.matching import folded
from anigan_jax.data.rows import Row, Rows, Tag
from anigan_jax.data.words import DIVIDERS, names_color, plain
from anigan_jax.errors import UserError

# Rows by which a layout is recognized.
HEAD = 50
KEY = "the image"
LINES = 5
"""Rows within one cell, over which its quote was never closed."""
PAIR = re.compile(r"\d:\d\d?\s*$")
# A spreadsheet's hint of the delimiter, and remarks.
ABOVE = re.compile(r"\A(?:(?:sep=.|#[^,;\t|\r\n]*)[\r\n]+)+", re.IGNORECASE)


class NoLabels(UserError):
    """A file of a known layout that names images and says nothing of them."""

    def __init__(self, where: str, first: str):
        super().__init__(
            f"{where} says nothing that could be a label: its first line is {first[:60]!r}; "
            "--tags FILE names another file, --tags none reads none"
        )
        self.where = where


def read(text: str, where: str, images: Collection[str] = ()) -> Labels:
    """Reads a label file; its layout is recognized by its content.

    Args:
      where: the file's name, for messages.
      images: names of images, by which the column that names them is known where its header or
        its place does not tell.

    Raises:
      UserError: no row of it can be read.
    """
    text = text.removeprefix("\ufeff")
    if above := ABOVE.match(text):
        text = text[above.end() :]
    if not text.strip():
        raise UserError(f"{where} is empty")
    tried = (_tried(reader, text, images) for reader in READERS)
    try:
        found = next((made for made in tried if made is not None), None)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if found and (found is UNLABELED or any(key and row for key, row in found.rows)):
        return found
    first = next(lines(text))
    if found and found.rows and not found.faults:
        raise NoLabels(where, first)
    raise UserError(
        f"{where} is not a label file: its first line is {first[:60]!r}. Layouts known: a CSV of "
        "file name and text, tags or classes ('ID,aqua hair blue eyes', with or without a "
        "header), 'ID,tag:count<TAB>tag:count', metadata.jsonl, dataset.json, "
        "list_attr_celeba.txt and 23 columns of 0 and 1; --tags none reads no labels"
    )


def _tried(reader: Reader, text: str, images: Collection[str]) -> Labels | None:
    try:
        return reader(text, images)
    except RecursionError:
        # Lists in lists in lists, ... of JSON.
        return None


def _head(text: str) -> list[str]:
    return list(itertools.islice(lines(text), HEAD))


def _celeba(text: str, _: Collection[str]) -> Labels | None:
    """list_attr_celeba.txt: the count, the attributes, then 'NAME 1 -1 ...' a line."""
    head = [line.split() for line in _head(text)[:3]]
    if len(head) < 3 or len(head[0]) != 1 or not head[0][0].isdecimal():
        return None
    names, found = head[1], Labels("list_attr_celeba", Rows(), [])
    for line in itertools.islice(lines(text), 2, None):
        key, *cells = line.split()
        if len(cells) != len(names) or not set(cells) <= {"1", "-1", "0"}:
            found.faults.append((key, "bad row", f"not {len(names)} columns of 1 and -1"))
            continue
        found.rows.append((key, Row(classes=dict(zip(names, cells, strict=True)))))
    return found


def _one_hot(text: str, _: Collection[str]) -> Labels | None:
    """The NTU file without a header: ID, 11 columns of eyes and 12 of hair."""
    first = next(lines(text))
    if first.count(",") != 23 or not set(first.split(",", 1)[1]) <= set("01, "):
        return None
    found = Labels("one-hot", Rows(), [])
    for line in lines(text):
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


def _raw(text: str, _: Collection[str]) -> Labels | None:
    """'ID,tag:count<TAB>tag:count', whose tags may hold commas and quotes."""

    def fits(rest: str) -> bool:
        try:
            return bool(parse_raw(rest))
        except ValueError:
            return False

    # Most of what is no blank: ':3' ends texts of another layout; 12:30 and 16:9 are no counts.
    said = [rest for line in _head(text) if (rest := line.partition(",")[2]).strip()]
    said = ["" if PAIR.search(rest) else rest for rest in said]
    if 2 * sum(map(fits, said)) <= len(said):
        return None
    found = Labels("raw tags", Rows(), [])
    for line in lines(text):
        key, _, rest = line.partition(",")
        try:
            found.rows.append((key.strip(), Row(tags=tuple(parse_raw(rest)))))
        except ValueError as error:
            found.faults.append((key.strip(), "bad row", str(error)))
    return found


def _table(text: str, images: Collection[str]) -> Labels | None:
    """CSV as pandas and spreadsheets write it: any delimiter, quoted, with or without header."""
    try:
        return None if (found := cells(text, images)) is None else _of_cells(found, images)
    except csv.Error as error:
        if "field larger" in str(error):
            raise UserError("a quote is opened in it and not closed") from None
        return None


def cells(text: str, images: Collection[str] = ()) -> Iterator[list[str]] | None:
    """The cells of each row that has any; None where nothing divides them.

    Args:
      images: names, behind which a blank or a colon divides.

    Raises:
      csv.Error: (while they are read) it is no CSV.
    """
    delimiter = _delimiter(_head(text), images)
    if delimiter is None:
        return None
    if delimiter == " ":
        rows: Iterable = (re.split(r":?\s+", line.strip(), maxsplit=1) for line in lines(text))
    else:
        rows = csv.reader((f"{line}\n" for line in lines(text)), delimiter=delimiter)
    return ([_shown(cell) for cell in row] for row in rows if any(row))


def _of_cells(rows: Iterator[list[str]], images: Collection[str]) -> Labels:
    first = list(itertools.islice(rows, FIRST))
    rows = itertools.chain(first, rows)
    if len(first) > 1 and _is_header(first, images):
        return _with_header(first, next(rows), rows, images)
    found = Labels("CSV", Rows(), [])
    at = naming(_columns(first), 0, images)
    kinds = {"".join(row[:at] + row[at + 1 :]) for row in first}
    single = all(len(row) == 2 for row in first) and 2 * len(kinds) <= len(first)
    listed = re.compile(f"[ _]|{DIVIDERS}")
    single = single and not any(listed.search(kind) or names_color(kind) for kind in kinds)
    for row in rows:
        # An index before the file name is no name.
        named = at == 0 and len(row) > 2 and not is_image(row[0]) and is_image(row[1])
        if named:
            row = row[1:]
        key = row[at] if at < len(row) else ""
        rest = [cell for place, cell in enumerate(row) if place != at]
        words = ", ".join(filter(None, rest))
        if _never_closed(row):
            found.faults.append((key, "bad row", "a quote is opened in it and not closed"))
            continue
        number = rest[0].removesuffix(".0").lstrip("-") if len(rest) == 1 else ""
        if number.isdecimal() or (single and number):
            # A class of its own: a number, or one of few words.
            found.rows.append((key, class_row(rest[0].removesuffix(".0"))))
        elif any(map(str.isalpha, words)):
            found.rows.append((key, Row(text=words)))
        else:
            found.faults.append((key, "bad row", "it has no words"))
    return found


def _delimiter(lines: list[str], images: Collection[str]) -> str | None:
    """What ends the first column of most lines; a blank only behind the name of an image."""
    counts: Counter[str] = Counter()
    undivided = []
    for line in lines:
        mark = re.search(r"[,;\t|\uff0c\uff1b]", re.sub(r'^\s*"[^"]*"', "", line))
        word, _, rest = (line[: mark.start()] if mark else "").partition(" ")
        # '1.png blue hair, red eyes': what divides stands behind the name.
        if mark and not (rest.strip() and is_image(word.removesuffix(":"))):
            counts[mark[0]] += 1
        elif len(words := line.split(maxsplit=1)) == 2:
            undivided.append(words[0].removesuffix(":"))
    keys = {folded(word) for word in undivided}
    known = {key for key in map(folded, images) if key in keys} if keys else set()
    named = sum(is_image(word) or folded(word) in known for word in undivided)
    counts.update({" ": named} if named else {})
    return counts.most_common(1)[0][0] if counts else None


def _columns(rows: list[list[str]]) -> dict[int, tuple[str, ...]]:
    return dict(enumerate(itertools.zip_longest(*rows, fillvalue="")))


def _never_closed(row: list[str]) -> bool:
    """Whether its last cell holds other rows: all from a quote to the next one."""
    held = row[-1]
    return "\n" in held and len(re.findall(r"(?m)^[^,;\t|\s]+[,;\t|]", held)) > LINES


def _shown(cell: str) -> str:
    """A cell as a spreadsheet shows it: ="0012" and '0012 keep the zeros of 0012."""
    cell = cell.strip()
    kept = re.fullmatch(r"=\"(.*)\"|'(\d+)", cell) if cell[:1] in ("=", "'") else None
    return kept[1] or kept[2] or "" if kept else cell


def _is_header(cells: list[list[str]], images: Collection[str]) -> bool:
    """Whether the first row names columns: by known names, or as no key is like its first."""
    head = [cell.lower() for cell in cells[0]]
    if {*NAMES, *TEXTS, *TAGS} & set(head):
        return True
    if len(set(head)) < len(head) or _numbered(head[0]):
        return False
    wordy = any(cell.count(" ") > 2 for cell in head)
    if all(head) and not wordy and _names_none(cells, images):
        return True
    if any(cell and not re.search("[a-z]", cell) for cell in head):
        return False
    keys = [row[0] for row in cells[1:]]
    return sum(map(_numbered, keys)) >= 0.9 * len(keys)


def _numbered(key: str) -> bool:
    return any(map(str.isdigit, key)) or is_image(key)


def _names_none(cells: list[list[str]], images: Collection[str]) -> bool:
    """Whether the first row names no image and nothing that others hold; nearly all those do."""
    keys, known = {folded(row[0]) for row in cells[1:]}, set(map(folded, images))
    below = zip(*(row[: len(cells[0])] for row in cells[1:]), strict=False)
    repeats = any(cell in column for cell, column in zip(cells[0], below, strict=False))
    own = folded(cells[0][0]) in known
    return len(keys & known) >= 0.9 * len(keys) and not repeats and not own


def _with_header(
    first: list[list[str]], head: list[str], body: Iterator[list[str]], images: Collection[str]
) -> Labels:
    lower = [name.lower().lstrip("# ") for name in head]
    # A key column of any name stands first.
    known = usual(dict.fromkeys(lower, "x"))
    first_of = lower.index(known) if known is not None else 0
    # Of a row with more cells than the header, the rest is text.
    place = naming(_columns([row[: len(head)] for row in first[1:]]), first_of, images)
    # Apart from another column of its name, and from one that is no name.
    lower[place] = KEY
    found = Labels("CSV with a header", Rows(), [])
    for row in body:
        if _never_closed(row):
            found.faults.append((row[0], "bad row", "a quote is opened in it and not closed"))
            continue
        if len(row) > len(head):
            # Commas of a text that was not quoted.
            row = [*row[: len(head) - 1], ", ".join(row[len(head) - 1 :])]
        row = row + [""] * (len(head) - len(row))
        found.rows.append(of_fields(dict(zip(lower, row, strict=True)), KEY))
    return found


Reader = Callable[[str, Collection[str]], Labels | None]
READERS: tuple[Reader, ...] = (
    *(label_json.of_lines, label_json.of_tree, _celeba, _one_hot, _raw, _table),
)
