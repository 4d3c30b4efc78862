"""Hair and eye colors from tag files, and prompts; pure functions of text."""

from __future__ import annotations

import csv
import difflib
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from anigan_jax.errors import UserError

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
COLORS = {"hair": HAIR, "eyes": EYES}
# Spellings of other sites.
SYNONYMS = {"grey": "gray", "blond": "blonde", "silver": "gray"}

Rule = Literal["max-count", "unique", "last"]


class Tag(NamedTuple):
    """A tag and how many posts of its site carry it."""

    text: str
    count: int


class Label(NamedTuple):
    """Colors of one image; None where unknown."""

    hair: str | None = None
    eyes: str | None = None

    def __str__(self) -> str:
        parts = [f"{c} {p}" for p, c in (("hair", self.hair), ("eyes", self.eyes)) if c]
        return " ".join(parts)


def known_colors() -> str:
    """All colors, as messages list them."""
    return "; ".join(f"{part}: {', '.join(names)}" for part, names in COLORS.items())


def color(text: str, part: str) -> str | None:
    """'aqua hair' -> 'aqua' for part 'hair'; None for 'long hair' or 'bicolored eyes'."""
    words = text.lower().split()
    if len(words) != 2 or words[1] != part:
        return None
    name = SYNONYMS.get(words[0], words[0])
    return name if name in COLORS[part] else None


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
        tags.append(Tag(" ".join(text.split()).lower(), int(count)))
    return tags


def choose(tags: list[Tag], rule: Rule = "max-count") -> Label:
    """Hair and eye color of a raw tag list.

    Args:
      rule: where a part has several colors, 'max-count' takes the one whose tag is
        the most used on the site (SJTU), the first of equals; 'last' the last one;
        'unique' none of them.
    """
    chosen = {}
    for part in COLORS:
        found = [(tag.count, name) for tag in tags if (name := color(tag.text, part))]
        names = [name for _, name in found]
        if not found or (rule == "unique" and len(set(names)) > 1):
            chosen[part] = None
        elif rule == "max-count":
            chosen[part] = max(found, key=lambda pair: pair[0])[1]
        else:
            chosen[part] = names[-1]
    return Label(**chosen)


def conflicts(tags: list[Tag]) -> bool:
    """Whether a part has several colors."""
    return any(len({c for tag in tags if (c := color(tag.text, part))}) > 1 for part in COLORS)


def parse_caption(text: str) -> Label:
    """'aqua hair blue eyes', either order, either part alone.

    Raises:
      ValueError: names the words that are no color of hair or eyes.
    """
    words, chosen = text.lower().replace(",", " ").split(), {}
    if not words or len(words) % 2:
        raise ValueError(f"{text!r} is not 'COLOR hair COLOR eyes'")
    for name, part in zip(words[::2], words[1::2], strict=True):
        if part not in COLORS:
            raise ValueError(f"{part!r} is neither 'hair' nor 'eyes'")
        known = color(f"{name} {part}", part)
        if known is None:
            near = difflib.get_close_matches(name, COLORS[part], 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{name!r} is no color of {part}{hint}")
        if part in chosen:
            raise ValueError(f"{part} is named twice")
        chosen[part] = known
    return Label(**chosen)


@dataclass
class Table:
    """Labels by image id, and what was wrong in their file: (id, code, detail)."""

    labels: dict[str, Label] = field(default_factory=dict)
    faults: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, key: str, label: Label) -> None:
        if key in self.labels:
            if self.labels[key] != label:
                self.faults.append((key, "conflict", "several rows; the first is used"))
            return
        self.labels[key] = label


def read_table(text: str, where: str, rule: Rule = "max-count") -> Table:
    """Reads a label file of any of the three kinds, told by its content.

    The kinds: raw `ID,tag:count<TAB>...`; captions `ID,aqua hair blue eyes`; one-hot
    `ID` and 11 eye and 12 hair columns of 0 and 1 (the NTU files).

    Raises:
      UserError: it is none of them.
    """
    rows = [line for line in text.removeprefix("\ufeff").splitlines() if line.strip()]
    if not rows:
        raise UserError(f"{where} is empty")
    reader = next((kind for kind, fits in _KINDS if any(fits(r) for r in rows[:50])), None)
    if reader is None:
        raise UserError(
            f"{where} is no label file: its first line is {rows[0][:60]!r}. A line is "
            "'ID,aqua hair blue eyes', 'ID,tag:count<TAB>tag:count' or "
            "ID and 23 columns of 0 and 1"
        )
    table = Table()
    for row in rows:
        key, _, rest = row.partition(",")
        reader(table, key.strip(), rest, rule)
    return table


def _raw(table: Table, key: str, rest: str, rule: Rule) -> None:
    try:
        tags = parse_raw(rest)
    except ValueError as error:
        table.faults.append((key, "unknown tag", str(error)))
        return
    if conflicts(tags):
        table.faults.append((key, "conflict", f"several colors; rule {rule}"))
    table.add(key, choose(tags, rule))


def _caption(table: Table, key: str, rest: str, rule: Rule) -> None:
    try:
        table.add(key, parse_caption(rest))
    except ValueError as error:
        table.faults.append((key, "unknown tag", str(error)))


def _one_hot(table: Table, key: str, rest: str, rule: Rule) -> None:
    cells = next(csv.reader([rest]), [])
    if len(cells) != 23 or any(c.strip() not in ("0", "1") for c in cells):
        table.faults.append((key, "unknown tag", "not 23 columns of 0 and 1"))
        return
    hot = [c.strip() == "1" for c in cells]
    chosen = {}
    for part, names, bits in (("eyes", EYES, hot[:11]), ("hair", HAIR, hot[11:])):
        on = [name for name, bit in zip(names, bits, strict=True) if bit]
        if len(on) > 1:
            table.faults.append((key, "conflict", f"{part}: {', '.join(on)}"))
        chosen[part] = on[0] if len(on) == 1 else None
    table.add(key, Label(**chosen))


_KINDS = (
    (_one_hot, lambda row: row.count(",") == 23 and set(row.split(",", 1)[1]) <= set("01, ")),
    (_raw, lambda row: "," in row and ":" in row.split(",", 1)[1]),
    (_caption, lambda row: "," in row and {"hair", "eyes"} & set(row.lower().split())),
)
