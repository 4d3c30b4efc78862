"""Label files: what each image is, by its ID, and which attributes they make; functions of text.

Colors of hair and eyes, columns of a table, and tags, which an image has or has not.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from anigan_jax.data.attributes import DEFAULT, EYES, HAIR, PARTS, Attribute, Attributes, Label, tag
from anigan_jax.errors import UserError

# Colors are classes however rare; other words only where they are no slip.
COLORS = dict.fromkeys((*HAIR, *EYES))
RARER = frozenset(
    [
        "amber",
        "crimson",
        "cyan",
        "gold",
        "golden",
        "gradient",
        "hazel",
        "lavender",
        "magenta",
        "maroon",
        "multicolored",
        "scarlet",
        "teal",
        "turquoise",
        "violet",
    ]
)
# "Tags that have no color meanings such as long, short" (SJTU).
SHAPES = frozenset(["long", "short", "medium", "big", "open", "closed", "messy", "curly", "wavy"])
# Spellings of other sites.
SYNONYMS = {"grey": "gray", "blond": "blonde", "silver": "gray"}
FEWEST = 3
"""Images that make a class of a word, or one in 1,000 of many."""
SHARE = 0.01
"""Of the images, above which 'tags' takes a tag."""
CLASS, TAGS = "class", "tags"
FILES = ("file", "file name", "filename", "image", "image id", "id", "path", "name")
INDEX = ("", "index", "unnamed: 0")
TEXTS = ("tags", "tag", "text", "caption", "captions", "description", "tag_string")
NO, YES = ("0", "-1", "false", "no"), ("1", "true", "yes")

Rule = Literal["max-count", "unique", "last"]


class Tag(NamedTuple):
    """A tag and how many posts of its site carry it."""

    text: str
    count: int = 0


class Row(NamedTuple):
    """What a line says of an image: attribute -> candidates for its class, and all tags."""

    key: str
    given: dict[str, list[Tag]]
    tags: tuple[str, ...] = ()


@dataclass
class Table:
    """Labels by image id, and what was wrong in their file: (id, code, detail)."""

    attributes: Attributes = ()
    labels: dict[str, Label] = field(default_factory=dict)
    faults: list[tuple[str, str, str]] = field(default_factory=list)


def plain(text: str) -> str:
    """A tag as it is compared: lower case, `_` is a blank, blanks are single."""
    return " ".join(text.lower().replace("_", " ").split())


def color(text: str, part: str) -> str | None:
    """'aqua hair' -> 'aqua' for part 'hair'; None for 'long hair' or 'bicolored eyes'."""
    words = plain(text).split()
    if len(words) != 2 or words[1] != part:
        return None
    name = SYNONYMS.get(words[0], words[0])
    return name if name in COLORS or name in RARER else None


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


def choose(candidates: list[Tag], rule: Rule = "max-count") -> str | None:
    """The class of an image among several; None where there is none.

    Args:
      rule: 'max-count' takes the one whose tag is the most used on the site (SJTU), the
        first of equals; 'last' the last one; 'unique' none of several.
    """
    if not candidates or (rule == "unique" and len({t.text for t in candidates}) > 1):
        return None
    if rule == "max-count":
        return max(candidates, key=lambda t: t.count).text
    return candidates[-1].text


def read_table(
    text: str, where: str, rule: Rule = "max-count", wanted: tuple[str, ...] = ()
) -> Table:
    """Reads a label file of any of the kinds, told by its content.

    The kinds: raw `ID,tag:count<TAB>...`; captions `ID,aqua hair blue eyes, glasses`; one-hot
    `ID` and 11 eye and 12 hair columns of 0 and 1 (the NTU files); a table with a header,
    whose columns are attributes.

    Args:
      wanted: names of the attributes, in order, as `select` takes them; (): those found.

    Raises:
      UserError: it is none of them, or has not what is wanted.
    """
    lines = [line for line in text.removeprefix("\ufeff").splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{where} is empty")
    reader = next((kind for kind, fits in _KINDS if any(fits(r) for r in lines[:50])), None)
    if _has_header(lines[0]):
        reader = _columns
    if reader is None:
        raise UserError(
            f"{where} is no label file: its first line is {lines[0][:60]!r}. A line is "
            "'ID,aqua hair blue eyes', 'ID,tag:count<TAB>tag:count', ID and 23 columns of "
            "0 and 1, or below a header 'file,hair,glasses' what it says"
        )
    table = Table()
    rows = list(reader(table, lines))
    found = {} if reader is _one_hot else _found(rows)
    if reader is _columns and not (found or wanted):
        raise UserError(f"{where}: no column of {lines[0][:60]!r} tells images apart by classes")
    found = found or dict(DEFAULT)
    table.attributes = select(rows, found, wanted, where)
    known = {a.name: dict.fromkeys(a.classes) for a in table.attributes if a.name in found}
    tags = [a.name for a in table.attributes if a.name not in found]
    for each in rows:
        if reader is _caption and not (each.given or tags):
            fault = f"{', '.join(each.tags)!r} names no color of hair or eyes"
            table.faults.append((each.key, "unknown tag", fault))
        else:
            _add(table, each, known, tags, rule)
    return table


def _add(table: Table, said: Row, known: dict[str, dict], tags: list[str], rule: Rule) -> None:
    """The label of a row, by the classes that are known, and its faults."""
    chosen = {name: name if name in said.tags else f"no {name}" for name in tags}
    for name, candidates in said.given.items():
        if name not in known:
            continue
        fit = [t for t in candidates if t.text in known[name]]
        if len({t.text for t in fit}) > 1:
            table.faults.append((said.key, "conflict", f"several of {name}; rule {rule}"))
        for slip in (t.text for t in candidates if t.text not in known[name]):
            table.faults.append((said.key, "unknown tag", _no_class(slip, name, known[name])))
        if found := choose(fit, rule):
            chosen[name] = found
    if table.labels.setdefault(said.key, chosen) != chosen:
        table.faults.append((said.key, "conflict", "several rows; the first is used"))


def _no_class(word: str, name: str, classes: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(classes), 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    what = f"no color of {name}" if name in PARTS else f"too rare to be a class of {name}"
    return f"{word!r} is {what}{hint}"


def _found(rows: list[Row]) -> dict[str, tuple[str, ...]]:
    """Attribute -> its classes, of what the rows say; {} where they say nothing.

    Hair and eyes that have no color beyond the NTU file's have its classes, so that sets
    compare; with others, those that occur.
    """
    counts: dict[str, Counter] = {}
    for each in rows:
        for name, candidates in each.given.items():
            counts.setdefault(name, Counter()).update({t.text for t in candidates})
    fewest, found = _fewest(len(rows)), {}
    for name, count in counts.items():
        usual = dict(DEFAULT).get(name, ())
        kept = {c for c, n in count.items() if n >= fewest or (usual and c in COLORS)}
        if kept and kept <= set(usual):
            found[name] = usual
        elif kept == set(tag(name).classes):
            found[name] = tag(name).classes
        elif len(kept) > 1:
            found[name] = (*(c for c in usual if c in kept), *sorted(kept - set(usual)))
    if set(found) == set(PARTS):
        return {part: found[part] for part in PARTS}
    return found


def _fewest(rows: int) -> int:
    return max(FEWEST, rows // 1000)


def select(
    rows: list[Row], found: dict[str, tuple[str, ...]], wanted: tuple[str, ...], where: str
) -> Attributes:
    """The attributes of a table.

    Args:
      found: attribute -> classes.
      wanted: names of `found`, of tags, 'tags' or 'tags:SHARE' for each tag of so many of the
        images ('class' is of folders and passed over here); (): all of `found`.

    Raises:
      UserError: there is no such attribute or tag.
    """
    if not wanted:
        return tuple(Attribute(name, classes) for name, classes in found.items())
    counts = Counter(t for each in rows for t in set(each.tags))
    chosen: dict[str, Attribute] = {}
    for name in map(plain, wanted):
        kind, _, share = name.partition(":")
        if kind == TAGS:
            least = max(_fewest(len(rows)), _share(share) * len(rows))
            names = sorted(t for t, n in counts.items() if least <= n < len(rows))
            chosen |= {t: tag(t) for t in names if not _of_part(t) and t not in found}
        elif name in found:
            chosen[name] = Attribute(name, found[name])
        elif counts[name]:
            chosen[name] = tag(name)
        elif name != CLASS:
            near = difflib.get_close_matches(name, [*found, *counts], 3)
            hint = f"; near are {', '.join(map(repr, near))}" if near else ""
            have = ", ".join(found)
            raise UserError(f"{where} has no attribute or tag {name!r} (it has {have}){hint}")
    return tuple(chosen.values())


def _share(text: str) -> float:
    try:
        share = float(text or SHARE)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise UserError(f"data.attributes 'tags:{text}': a share is at least 0 and below 1")
    return share


def _of_part(text: str) -> bool:
    return text.split()[-1:] in ([part] for part in PARTS)


# --- the kinds of files: each reads lines as rows and notes what it cannot


def _raw(table: Table, lines: list[str]):
    for line in lines:
        key, _, rest = line.partition(",")
        try:
            tags = parse_raw(rest)
        except ValueError as error:
            table.faults.append((key.strip(), "unknown tag", str(error)))
            continue
        given = {}
        for part in PARTS:
            colors = [Tag(c, t.count) for t in tags if (c := color(t.text, part))]
            given |= {part: colors} if colors else {}
        yield Row(key.strip(), given, tuple(t.text for t in tags))


def caption(text: str) -> tuple[dict[str, list[Tag]], tuple[str, ...]]:
    """'aqua hair, blue eyes, glasses' -> words before hair and eyes, and the other tags."""
    given: dict[str, list[Tag]] = {}
    tags = []
    for piece in re.split(r"[,;.]", plain(text)):
        words = piece.split()
        if words and set(words[1::2]) <= {*PARTS} and not len(words) % 2:
            for word, part in zip(words[::2], words[1::2], strict=True):
                if word not in SHAPES:
                    given.setdefault(part, []).append(Tag(SYNONYMS.get(word, word)))
        elif words:
            tags.append(" ".join(words))
    return given, tuple(tags)


def _caption(table: Table, lines: list[str]):
    for line in lines:
        key, _, rest = line.partition(",")
        given, tags = caption(rest.strip().strip('"'))
        if not given and not tags:
            table.faults.append((key.strip(), "unknown tag", f"{rest!r} says nothing"))
            continue
        yield Row(key.strip(), given, tags)


def _one_hot(table: Table, lines: list[str]):
    for line in lines:
        key, _, rest = line.partition(",")
        cells = [c.strip() for c in next(csv.reader([rest]), [])]
        if len(cells) != 23 or any(c not in ("0", "1") for c in cells):
            fault = "not 23 columns of 0 and 1"
            table.faults.append((key.strip(), "unknown tag", fault))
            continue
        given = {}
        for part, names, bits in (("eyes", EYES, cells[:11]), ("hair", HAIR, cells[11:])):
            on = [name for name, bit in zip(names, bits, strict=True) if bit == "1"]
            if len(on) > 1:
                table.faults.append((key.strip(), "conflict", f"{part}: {', '.join(on)}"))
            given[part] = [Tag(on[0])] if len(on) == 1 else []
        yield Row(key.strip(), given)


def _divider(line: str) -> str:
    return max(",;\t", key=line.count)


def _has_header(line: str) -> bool:
    cells = [plain(c) for c in next(csv.reader([line], delimiter=_divider(line)), [])]
    return len(cells) > 1 and cells[0] in (*FILES, *INDEX) and all(cells[1:])


def _columns(table: Table, lines: list[str]):
    """Columns of 0 and 1, true and false, yes and no are tags; of texts, the tags in them."""
    reader = csv.DictReader(lines, delimiter=_divider(lines[0]))
    columns = list(reader.fieldnames or ())
    first = next((c for c in columns if plain(c) in FILES), columns[0])
    names = [c for c in columns if c != first and plain(c) not in INDEX]
    rows = [
        (each[first] or "", {name: plain(each.get(name) or "") for name in names})
        for each in reader
    ]
    yes_no = {n for n in names if {said[n] for _, said in rows} - {""} <= {*NO, *YES}}
    for key, said in rows:
        given: dict[str, list[Tag]] = {}
        tags: tuple[str, ...] = ()
        for name in names:
            value, plainly = said[name], plain(name)
            if plainly in TEXTS:
                words, tags = caption(value)
                given |= words
            elif name in yes_no and value:
                given[plainly] = [Tag(plainly if value in YES else f"no {plainly}")]
            elif value:
                word = value.removesuffix(f" {plainly}")
                given[plainly] = [Tag(SYNONYMS.get(word, word) if plainly in PARTS else word)]
        yield Row(key.strip(), given, tags)


_KINDS: tuple[tuple[Callable, Callable], ...] = (
    (_one_hot, lambda row: row.count(",") == 23 and set(row.split(",", 1)[1]) <= set("01, ")),
    (_raw, lambda row: "," in row and ":" in row.split(",", 1)[1]),
    (_caption, lambda row: "," in row and {*PARTS} & set(re.split(r"[\s,]+", row.lower()))),
)
