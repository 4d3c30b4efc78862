"""What rows of label files mean: attributes, their classes, and the label of each image.

Colors of hair and eyes, columns of a table, and tags, which an image has or has not.
"""

from __future__ import annotations

import difflib
import functools
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, NamedTuple

from anigan_jax.data.attributes import (
    DEFAULT,
    EYES,
    HAIR,
    PARTS,
    PLACES,
    Attribute,
    Attributes,
    Coded,
    Label,
    Places,
    tag,
)
from anigan_jax.data.rows import Row, Rows, Tag
from anigan_jax.errors import UserError

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
HINTED = 100
"""Words that name no class, the most frequent, for which near ones are looked for."""
FEWEST = 3
"""Images that make a class of a word, or one in 1,000 of many."""
SHARE = 0.01
"""Of the images, above which 'tags' takes a tag."""
CLASS, TAGS = "class", "tags"
DIVIDERS = "[,;|\uff0c\uff1b\u3001]"
"""Of tags: commas and semicolons, of Chinese and Japanese too."""
# Columns of classes that may be numbers, however many.
CLASSES = (CLASS, "label", "category", "target")
MEASURE = 20
"""Numbers that a column has at most, unless it measures something."""
NO, YES = ("0", "-1", "0.0", "-1.0", "false", "no"), ("1", "1.0", "true", "yes")

MARKS = (*YES, "x", "\u2713", "\u2714", "\u25cb")
"""What a cell holds where the others of its column are empty: the image has it."""
SEVERAL = 1.5
"""Rows of an image, on average, from which on they are taken together."""

Rule = Literal["max-count", "unique", "last"]
Kind = Literal["class", "flag", "mark", "text", "measure"]


class Said(NamedTuple):
    """What a row says of an image: attribute -> candidates for its class, and all other tags."""

    given: dict[str, list[Tag]]
    tags: tuple[str, ...] = ()


class Table(NamedTuple):
    """Labels by image id.

    Attributes:
      conflicts: (id, detail) of rows that contradict themselves or each other.
      passed_over: words that name no class, quoted, and how often.
    """

    attributes: Attributes
    labels: dict[str, Label]
    conflicts: list[tuple[str, str]]
    passed_over: Counter[str]


# Millions of rows share few tags.
@functools.lru_cache(maxsize=2**16)
def plain(text: str) -> str:
    """A tag as it is compared: lower case, `_` is a blank, blanks are single."""
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
    return any(color(piece, part) for piece in _pieces(text) for part in PARTS)


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


class _Tally(NamedTuple):
    """Of all rows: how many name each class of an attribute, or carry each tag."""

    given: dict[str, Counter[str]]
    tags: Counter[str]
    rows: int


Pairs = Collection[tuple[str, Row]]


def table(rows: Pairs, where: str, rule: Rule = "max-count", wanted: tuple[str, ...] = ()) -> Table:
    """The attributes and labels of rows of any layout.

    Args:
      rows: (image id, row), read several times; of several with one id the first counts.
      where: the file's name, for messages.
      wanted: names of the attributes, in order, as `select` takes them; (): those found.

    Raises:
      UserError: the rows have not what is wanted.
    """
    wanted = tuple(map(plain, wanted))
    rows = together(rows)
    kinds, spaced = _kinds(rows, wanted), _spaced(rows)
    tally = _tally(rows, kinds, spaced)
    found = _found(tally)
    places = Places(select(tally, found, wanted, where))
    made = Table(places.attributes, {}, [], Counter())
    known = {name: place for name, place in places.classes.items() if name in found}
    tags = {name: places.of[name] for name in places.of if name not in found}
    # 'no glasses' until a row has the tag.
    empty = [int(name in tags) for name in places.of]
    lost: Counter[tuple[str, str]] = Counter()
    same: dict[Coded, Coded] = {}
    for key, row in rows:
        said, codes = read(row, kinds, spaced), list(empty)
        for word in dict.fromkeys(said.tags):
            if word in tags:
                codes[tags[word]] = 2
            else:
                lost["", word] += 1
        for name, candidates in said.given.items():
            if name not in known:
                # A column of one class tells no images apart.
                alone = not found and len(tally.given[name]) == 1
                lost.update((name, t.text) for t in candidates if alone)
                continue
            fit = [t for t in candidates if t.text in known[name]]
            if len({t.text for t in fit}) > 1:
                made.conflicts.append((key, f"several of {name}; rule {rule}"))
            lost.update((name, t.text) for t in candidates if t.text not in known[name])
            if chosen := choose(fit, rule):
                codes[places.of[name]] = known[name][chosen]
        label = Coded(places, codes)
        # Of few attributes, many images have one label.
        label = same.setdefault(label, label) if len(same) < PLACES else same.get(label, label)
        if made.labels.setdefault(key, label) != label:
            made.conflicts.append((key, "several rows; the first is used"))
    for at, ((name, word), count) in enumerate(lost.most_common()):
        near = known.get(name, ()) if at < HINTED else ()
        made.passed_over[_no_class(word, name, near) if name else repr(word)] += count
    return made


def together(rows: Pairs) -> Pairs:
    """A row of each image, where files give a row for each of its tags (or captions).

    Words that differ from row to row are its tags.
    """
    count = len({key for key, _ in rows})
    if len(rows) < max(SEVERAL * count, count + 1):
        return rows
    found: dict[str, list[Row]] = {}
    for key, row in rows:
        found.setdefault(key, []).append(row)
    cells = [
        (name, len({row.classes.get(name) for row in each}) > 1)
        for each in found.values()
        for name in dict.fromkeys(name for row in each for name in row.classes)
    ]
    changing = {name for name, changes in cells if changes}

    def of(each: list[Row]) -> Row:
        tags = [tag for row in each for tag in row.tags]
        tags += [
            Tag(plain(value))
            for row in each
            for name, value in row.classes.items()
            if name in changing
        ]
        fixed = {n: v for n, v in each[0].classes.items() if n not in changing}
        texts = dict.fromkeys(row.text for row in each if row.text)
        return Row(", ".join(texts), tuple(dict.fromkeys(tags)), fixed)

    return Rows((key, of(each)) for key, each in found.items())


def _spaced(rows: Pairs) -> bool:
    """Whether texts are tags with blanks between: most have `_`, none a comma."""
    count = marked = 0
    for _, row in rows:
        if row.text:
            if re.search("[,\uff0c]", row.text):
                return False
            count += 1
            marked += "_" in row.text
    return 2 * marked > count


def _tally(rows: Pairs, kinds: Mapping[str, Kind], spaced: bool) -> _Tally:
    given: dict[str, Counter[str]] = {}
    tags: Counter[str] = Counter()
    for _, row in rows:
        said = read(row, kinds, spaced)
        for name, candidates in said.given.items():
            given.setdefault(name, Counter()).update({t.text for t in candidates})
        tags.update(set(said.tags))
    return _Tally(given, tags, len(rows))


def _no_class(word: str, name: str, classes: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(classes), 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return (repr(f"{word} {name}") if name in PARTS else f"{name} {word!r}") + hint


# --- rows as attributes and tags


def read(row: Row, kinds: Mapping[str, Kind] | None = None, spaced: bool = False) -> Said:
    """What a row says.

    Args:
      kinds: of the columns; classes where not known.
      spaced: its text is tags with blanks between.
    """
    given: dict[str, list[Tag]] = {}
    tags: list[str] = []
    words = map(plain, row.text.split()) if spaced else _pieces(row.text)
    spoken = [*row.tags, *map(Tag, words)]
    for name, kind in (kinds or {}).items():
        if kind == "mark":
            has = bool(row.classes.get(name))
            given[plain(name)] = [Tag(plain(name) if has else f"no {plain(name)}")]
    for column, value in row.classes.items():
        name, word, kind = plain(column), plain(value), (kinds or {}).get(column, "class")
        if part := _part(name):
            words = (w.strip().removesuffix(f" {part}") for w in word.split(",") if w.strip())
            given.setdefault(part, []).extend(Tag(SYNONYMS.get(w, w)) for w in words)
        elif kind == "text":
            spoken += map(Tag, _pieces(value))
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


def _pieces(text: str) -> list[str]:
    """Tags of 'blue_hair smile' or 'blue hair, smile'; colors and the rest of a sentence."""
    text = text.lower()
    divided = re.search(DIVIDERS, text)
    if not divided and "_" not in text:
        return _phrase(text)
    pieces = re.split(DIVIDERS, text) if divided else text.split()
    return [found for piece in pieces for found in _tag(plain(piece))]


def _tag(text: str) -> list[str]:
    """'long blue hair' -> 'long', 'blue hair'; 'light blue hair' and 'hair bow' stay whole."""
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
        elif 2 * sum(names_color(w) or "," in w for w in words) >= len(words) and not asked:
            found[name] = "text"
        elif len(words) > MEASURE and all(map(_is_number, words)) and not asked | classes:
            found[name] = "measure"
        else:
            found[name] = "class"
    return found


def _is_number(word: str) -> bool:
    return not word or bool(re.fullmatch(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", word))


# --- the attributes of a set


def _found(tally: _Tally) -> dict[str, tuple[str, ...]]:
    """Attribute -> its classes, of what the rows say; hair and eyes first.

    Hair and eyes that have no color beyond the NTU file's have its classes, so that sets
    compare; with others, those that occur.
    """
    fewest, found = _fewest(tally.rows), {}
    for name in dict.fromkeys((*PARTS, *tally.given)):
        count = tally.given.get(name, Counter())
        usual = dict(DEFAULT).get(name, ())
        kept = {c for c, n in count.items()
                if n >= fewest or name in CLASSES or (usual and c in COLORS)}  # fmt: skip
        # A one-hot row names both, whatever it has.
        if name in tally.given and kept <= set(usual) and (kept or not count):
            found[name] = usual
        elif kept == set(tag(name).classes):
            found[name] = tag(name).classes
        elif len(kept) > 1:
            found[name] = (*(c for c in usual if c in kept), *sorted(kept - set(usual)))
    return found


def _fewest(rows: int) -> int:
    return max(FEWEST, rows // 1000)


def select(
    tally: _Tally, found: dict[str, tuple[str, ...]], wanted: tuple[str, ...], where: str
) -> Attributes:
    """The attributes of a table.

    Args:
      found: attribute -> classes.
      wanted: names of `found`, of tags, 'tags' or 'tags:SHARE' for each tag of so many of the
        images ('class' may be of folders and is passed over where it is not found); (): all
        of `found`.

    Raises:
      UserError: there is no such attribute or tag.
    """
    if not wanted:
        return tuple(Attribute(name, classes) for name, classes in found.items())
    counts = tally.tags
    chosen: dict[str, Attribute] = {}
    for name in wanted:
        kind, _, share = name.partition(":")
        if name in found:
            chosen[name] = Attribute(name, found[name])
        elif kind == TAGS:
            least = max(_fewest(tally.rows), _share(share) * tally.rows)
            names = sorted(t for t, n in counts.items() if least <= n < tally.rows)
            chosen |= {t: tag(t) for t in names if t.split()[-1] not in PARTS and t not in found}
        elif counts[name]:
            chosen[name] = tag(name)
        elif name != CLASS:
            near = difflib.get_close_matches(name, [*found, *counts], 3)
            hint = f"; near are {', '.join(map(repr, near))}" if near else ""
            hint += "; several stand apart: --attributes A B" if "," in name else ""
            have = ", ".join(found) or "none"
            hint += f"; {name!r} has one class alone" if len(tally.given.get(name, ())) == 1 else ""
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
