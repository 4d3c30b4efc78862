"""Hair and eye colors from tag files, and prompts; pure functions of text."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from anigan_jax.data.label_files import Row

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
# Before a color, another color of its own: 'light blue' is a tag that has no class here.
SHADES = ("light", "dark", "pale", "deep", "bright")

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
    words = text.lower().replace("_", " ").split()
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
        tags.append(Tag(" ".join(text.replace("_", " ").split()).lower(), int(count)))
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


class Reading(NamedTuple):
    """What a row of a label file says of hair and eyes.

    Attributes:
      label: its colors.
      conflict: whether a part has several.
      unknown: its words that name no color.
    """

    label: Label
    conflict: bool
    unknown: list[str]


def of_row(row: Row, rule: Rule = "max-count") -> Reading:
    """The colors of a row of any layout; what names none is passed over and returned."""
    tags, unknown = [], []
    for name, value in row.classes.items():
        part = {"eye": "eyes"}.get(word := re.split("[ _]", name)[0], word)
        text = f"{value} {part}" if part in COLORS else value
        tags += [Tag(piece, 0) for piece in _pieces(text)] if value else []
    spoken = [*row.tags, *(Tag(piece, 0) for piece in _pieces(row.text))]
    tags += spoken
    # A class of something else is no unknown word, unless it is all there is.
    for tag in spoken or tags:
        if not any(color(tag.text, part) for part in COLORS):
            unknown.append(tag.text)
    return Reading(choose(tags, rule), conflicts(tags), unknown)


def _pieces(text: str) -> list[str]:
    """Tags of 'blue_hair smile' or 'blue hair, smile'; colors and the rest of a sentence."""
    text = text.lower()
    if "_" not in text and "," not in text:
        return _phrase(text)
    pieces = text.split("," if "," in text else None)
    return [tag for piece in pieces for tag in _tag(" ".join(piece.replace("_", " ").split()))]


def _tag(text: str) -> list[str]:
    """'long blue hair' -> 'long', 'blue hair'; 'light blue hair' and 'hair bow' stay whole."""
    words = text.split()
    if len(words) > 4:
        return _phrase(text)
    if len(words) < 3 or words[-1] not in COLORS or words[-3] in SHADES:
        return [text] if text else []
    return [*words[:-2], " ".join(words[-2:])]


def _phrase(text: str) -> list[str]:
    """'blue hair red eyes smile' -> 'blue hair', 'red eyes', 'smile'."""
    found: list[str] = []
    for word in re.findall(r"[^\s.,;:!?()\"]+", text):
        if word in COLORS and found and " " not in found[-1] and found[-1] not in COLORS:
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found
