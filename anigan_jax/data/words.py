"""What a row of a label file says: colors of hair and eyes, other classes, and tags."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from anigan_jax.data.attributes import EYES, HAIR, PARTS
from anigan_jax.data.rows import Row, Rows, Tag

# Colors are classes however rare; other words only where they are no slip.
COLORS = dict.fromkeys((*HAIR, *EYES))
RARER = frozenset(
    [
        *("amber", "crimson", "cyan", "gold", "golden", "gradient", "hazel", "lavender"),
        *("magenta", "maroon", "multicolored", "scarlet", "teal", "turquoise", "violet"),
    ]
)
# "Tags that have no color meanings such as long, short" (SJTU).
SHAPES = frozenset(["long", "short", "medium", "big", "open", "closed", "messy", "curly", "wavy"])
# Before a color, another color of its own: 'light blue hair' is a tag like any other.
SHADES = ("light", "dark", "pale", "deep", "bright")
# Spellings of other sites.
SYNONYMS = {"grey": "gray", "blond": "blonde", "silver": "gray"}
CLASS = "class"
DIVIDERS = "[,;|\uff0c\uff1b\u3001]"
"""Of tags: commas and semicolons, of Chinese and Japanese too."""
# Columns of classes that may be numbers, however many.
CLASSES = (CLASS, "label", "category", "target")
MEASURE = 20
"""Numbers that a column has at most, unless it measures something."""
NO = ("0", "-1", "0.0", "-1.0", "false", "no", "f", "n")
YES = ("1", "1.0", "true", "yes", "t", "y")

BRACKETS = {"(": ")", "[": "]", "{": "}"}
_CLOSED = {other: one for one, other in BRACKETS.items()}
_SURE = re.compile(r"^\(\d?\.\d+\) ")
_WEIGHT = re.compile(r":\d?\.\d+$")
_STOP = re.compile(r"\b(hair|eyes)[.!?\"]+(?=\s|$)")
_BRACKET, _WORD = re.compile(r"[()\[\]{}]"), re.compile(r"[^\W\d_]{2}")
MARKS = (*YES, "x", "\u2713", "\u2714", "\u25cb")
"""What a cell holds where the others of its column are empty: the image has it."""
SEVERAL = 2
"""Rows of an image, on average, from which on they are taken together."""

SCORE = 0.35
"""Of a tagger's scores, 0 to 1, the lowest that makes a tag (WD14's own)."""
# Tags that nearly every list of tags has, and columns beside them that are no tags.
USUAL = ("1girl", "1boy", "solo")
MEASURES = ("aesthetic", "quality", "confidence", "rating", "score")

Kind = Literal["class", "flag", "mark", "score", "text", "measure"]
Pairs = Collection[tuple[str, Row]]


class Said(NamedTuple):
    """What a row says of an image: attribute -> candidates for its class, and all other tags."""

    given: dict[str, list[Tag]]
    tags: tuple[str, ...] = ()


# Millions of rows share few tags.
@functools.lru_cache(maxsize=2**16)
def plain(text: str) -> str:
    """A tag as it is compared: lower case, one form of each letter, `_` is a blank, single ones."""
    if not text.isascii():
        # Of a letter with its accent, and of letters of half and full width.
        text = unicodedata.normalize("NFKC", text)
    if "\\" in text:
        # Tags of a picture generator's own format: 'saber \(fate\)'.
        text = re.sub(r"\\([()])", r"\1", text)
    return sys.intern(" ".join(text.lower().replace("_", " ").split()))


@functools.lru_cache(maxsize=2**16)
def color(text: str, part: str) -> str | None:
    """'aqua hair' -> 'aqua' for part 'hair'; None for 'long hair' or 'bicolored eyes'."""
    words = plain(text).split()
    if len(words) != 2 or words[1] != part:
        return None
    name = SYNONYMS.get(words[0], words[0])
    return name if name in COLORS or name in RARER else None


def names_color(text: str) -> bool:
    """Whether a text names a color of hair or eyes."""
    return any(color(piece, part) for piece in pieces(text) for part in PARTS)


class How(NamedTuple):
    """How the rows of a table are read.

    Attributes:
      kinds: of its columns; classes where not known.
      spaced: texts are tags with blanks between.
      marks: columns of marks, whose empty cells say no.
    """

    kinds: Mapping[str, Kind] = MappingProxyType({})
    spaced: bool = False
    marks: tuple[str, ...] = ()


def how_of(rows: Pairs, wanted: tuple[str, ...]) -> How:
    """How to read the rows of a table.

    Args:
      wanted: names of attributes that are asked for.
    """
    kinds = _kinds(rows, wanted)
    marks = tuple(name for name, kind in kinds.items() if kind == "mark")
    return How(kinds, _spaced(rows), marks)


_PLAIN = How()


def read(row: Row, how: How = _PLAIN) -> Said:
    """What a row says."""
    given: dict[str, list[Tag]] = {}
    tags: list[str] = []
    words: Iterable[str] = pieces(row.text)
    if how.spaced:
        words = (found for word in row.text.lower().split() for found in tag(plain(word)))
    spoken = [*row.tags, *map(Tag, words)]
    for column in how.marks:
        name = plain(column)
        given[name] = [Tag(name if row.classes.get(column) else f"no {name}")]
    for column, value in row.classes.items():
        name, word, kind = plain(column), plain(value), how.kinds.get(column, "class")
        if kind == "mark":
            continue
        if part := _part(name):
            words = (w.strip().removesuffix(f" {part}") for w in word.split(",") if w.strip())
            given.setdefault(part, []).extend(Tag(SYNONYMS.get(w, w)) for w in words)
        elif kind == "score" and word:
            # The surest of several colors counts.
            score = float(word)
            spoken += [Tag(name, round(1000 * score))] if score >= SCORE else []
        elif kind == "text":
            spoken += map(Tag, pieces(value))
        elif kind == "flag" and names_color(name):
            spoken += [Tag(name)] if word in YES else []
        elif kind == "flag" and word:
            given[name] = [Tag(name if word in YES else f"no {name}")]
        elif kind == "class" and word:
            given[name] = [Tag(word.removesuffix(f" {name}"))]
    free = _only_parts(row.text)
    for text, count in spoken:
        if part := _spoken_of(text, free):
            word = text.split()[0]
            given.setdefault(part, []).append(Tag(SYNONYMS.get(word, word), count))
        elif text:
            tags.append(text)
    return Said(given, tuple(tags))


def _part(column: str) -> str | None:
    """'hair' or 'eyes' of a column 'hair', 'Eye color' or 'eyes'."""
    found = re.fullmatch(r"(hair|eyes?)( colou?rs?)?", column)
    return {"eye": "eyes"}.get(found[1], found[1]) if found else None


def _of_part(text: str, part: str) -> bool:
    """Whether it is two words, the second the part, and the first may be a color of it."""
    first, _, last = text.partition(" ")
    return last == part and first not in SHAPES


@functools.lru_cache(maxsize=2**16)
def _spoken_of(text: str, free: bool) -> str | None:
    """The part that a tag gives a color; where `free`, any word before it is one."""
    return next((p for p in PARTS if color(text, p) or (free and _of_part(text, p))), None)


def _only_parts(text: str) -> bool:
    """Whether a text is words of hair and eyes alone, 'ombre hair blue eyes': captions of colors.

    Among other tags, a word before hair is as often no color: 'floating hair'.
    """
    words = text.lower().split()
    return bool(words) and len(words) % 2 == 0 and set(words[1::2]) <= {*PARTS}


def pieces(text: str) -> list[str]:
    """Tags of 'blue_hair smile' or 'blue hair, smile'; colors and the rest of a sentence."""
    text = text.lower()
    divided = re.search(DIVIDERS, text)
    if not divided and "_" not in text:
        return _phrase(text)
    pieces = re.split(DIVIDERS, text) if divided else text.split()
    return [found for piece in pieces for found in tag(plain(piece))]


def bare(piece: str) -> str:
    """Without the quotes, brackets and weights of picture generators: '((blue hair:1.2))'."""
    while True:
        before = piece
        piece = re.sub(r":{1,2}[\d.]+$", "", piece.strip(" \"'"))
        if len(piece) > 1 and BRACKETS.get(piece[0]) == piece[-1] and _encloses(piece):
            piece = piece[1:-1]
        elif piece[:1] in BRACKETS and BRACKETS[piece[0]] not in piece:
            # Its other end is beyond a comma.
            piece = piece[1:]
        elif piece[-1:] in _CLOSED and _CLOSED[piece[-1]] not in piece and piece[-2:-1] != ":":
            piece = piece[:-1]
        if piece == before:
            return piece


def _encloses(piece: str) -> bool:
    """Whether the first bracket is closed by the last letter: not in '(a) and (b)'."""
    first, last = piece[0], piece[-1]
    return all(piece[:end].count(first) > piece[:end].count(last) for end in range(1, len(piece)))


def tag(text: str) -> list[str]:
    """'long blue hair' -> 'long', 'blue hair'; 'light blue hair' and 'hair bow' stay whole."""
    if _BRACKET.search(text):
        # A tagger writes '(0.93) smile'; '(o)_(o)' is a tag.
        text = _SURE.sub("", text)
        text = bare(text) if _WORD.search(text) else text
    # 'blue hair:0.98'; ':3' and '16:9' are tags.
    text = _STOP.sub(r"\1", _WEIGHT.sub("", text))
    words = text.split()
    if len(words) > 4 or _only_parts(text):
        return _phrase(text)
    last = " ".join(words[-2:])
    if len(words) < 3 or words[-3] in SHADES or not any(color(last, part) for part in PARTS):
        return [text] if text else []
    return [*words[:-2], last]


def _phrase(text: str) -> list[str]:
    """'blue hair red eyes smile' -> 'blue hair', 'red eyes', 'smile'; 'red nose' stays whole."""
    words = re.findall(r"[^\s.,;:!?()\"]+", text)
    if not {*PARTS} & {*words}:
        return [plain(text)] if words else []
    found: list[str] = []
    for word in words:
        if word in PARTS and found and " " not in found[-1] and found[-1] not in PARTS:
            found[-1] += f" {word}"
        else:
            found.append(word)
    return [sys.intern(each) for each in found]


def _kinds(rows: Pairs, wanted: tuple[str, ...]) -> dict[str, Kind]:
    """How each column is read; one that measures something is not, unless it is wanted."""
    values: dict[str, set[str]] = defaultdict(set)
    for _, row in rows:
        for name, value in row.classes.items():
            values[name].add(plain(value))
    found: dict[str, Kind] = {}
    for name, words in values.items():
        asked, classes = plain(name) in wanted, name in CLASSES
        if len(words) == 1 and words <= {*MARKS} and not classes and not names_color(name):
            found[name] = "mark"
        elif words <= {*NO, *YES, ""} and not classes:
            found[name] = "flag"
        elif 2 * sum(map(_tells_several, words)) >= len(words) and not asked:
            found[name] = "text"
        elif len(words) > MEASURE and all(map(_is_number, words)) and not asked | classes:
            found[name] = "measure"
        else:
            found[name] = "class"
    other = (*CLASSES, *MEASURES)
    rest = [n for n, kind in found.items() if kind not in ("flag", "mark") and n not in other]
    shares = [name for name in rest if all(map(_is_share, values[name]))]
    if any(names_color(name) or plain(name) in USUAL for name in shares):
        found |= dict.fromkeys(shares, "score")
    return found


def _tells_several(word: str) -> bool:
    """Whether a cell is of tags: it names a color, or something divides it."""
    return names_color(word) or bool(re.search(DIVIDERS, word))


def _is_share(word: str) -> bool:
    return not word or (_is_number(word) and 0 <= float(word) <= 1)


def _is_number(word: str) -> bool:
    return not word or bool(re.fullmatch(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", word))


def together(rows: Pairs) -> Pairs:
    """A row of each image, where files give a row for each of its tags (or captions).

    A column whose words differ from row to row of most images gives them tags.
    """
    rows = rows if isinstance(rows, Rows) else Rows(rows)
    count = len(set(rows.names()))
    if len(rows) < max(SEVERAL * count, count + 1):
        return rows
    differ: Counter[str] = Counter()
    several = 0
    for _, each in rows.by_name():
        several += len(each) > 1
        columns = dict.fromkeys(name for row in each for name in row.classes)
        differ.update(name for name in columns if len(_words_of(each, name)) > 1)
    changing = [name for name, images in differ.items() if 2 * images > several]
    return Rows((key, _one(each, changing)) for key, each in rows.by_name())


def _words_of(each: list[Row], column: str) -> dict[str, None]:
    """What the rows of an image hold in a column, without empty cells."""
    return dict.fromkeys(word for row in each if (word := row.classes.get(column)))


def _one(each: list[Row], changing: list[str]) -> Row:
    """The rows of an image as one.

    Args:
      changing: columns of which every word counts; of others the first.
    """
    columns = dict.fromkeys(name for row in each for name in row.classes)
    words = {name: _words_of(each, name) for name in columns}
    fixed = {name: next(iter(words[name]), "") for name in columns if name not in changing}
    tags = [tag for row in each for tag in row.tags]
    for name in columns:
        if _part(plain(name)):
            # Colors of which one is chosen.
            fixed[name] = ", ".join(words[name])
        elif name in changing:
            said = map(plain, words[name])
            tags += [Tag(word) for word in said if name in CLASSES or not _is_number(word)]
    texts = dict.fromkeys(row.text for row in each if row.text)
    return Row(", ".join(texts), tuple(dict.fromkeys(tags)), fixed)


def _spaced(rows: Pairs) -> bool:
    """Whether texts are tags with blanks between: most have `_`, none a comma."""
    count = marked = 0
    for _, row in rows:
        if row.text:
            if re.search("[,\uff0c\uff1b\u3001]|[^\\W_][;|]", row.text):
                # Not ';d' and '|_|', which are tags.
                return False
            count += 1
            marked += "_" in row.text
    return 2 * marked > count
