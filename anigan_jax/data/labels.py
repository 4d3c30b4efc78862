"""What rows of label files mean: attributes, their classes, and the label of each image.

Colors of hair and eyes, columns of a table, and tags, which an image has or has not.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

from anigan_jax.data import words
from anigan_jax.data.attributes import (
    DEFAULT,
    PARTS,
    PLACES,
    Attribute,
    Attributes,
    Coded,
    Label,
    Places,
    tag,
)
from anigan_jax.data.rows import Tag
from anigan_jax.data.words import CLASS, CLASSES, COLORS, Pairs, plain
from anigan_jax.errors import UserError

HINTED = 100
"""Words that name no class, the most frequent, for which near ones are looked for."""
FEWEST = 3
"""Images that make a class of a word, or one in 1,000 of many."""
SHARE = 0.01
"""Of the images, above which 'tags' takes a tag."""
TAGS = "tags"
Rule = Literal["max-count", "unique", "last"]


class Table(NamedTuple):
    """Labels by image id.

    Attributes:
      conflicts: (id, detail) of rows that contradict themselves or each other.
      passed_over: words that name no class, quoted, and how often.
      scores: columns of a tagger's scores, which became tags.
    """

    attributes: Attributes
    labels: dict[str, Label]
    conflicts: list[tuple[str, str]]
    passed_over: Counter[str]
    scores: int = 0


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
    rows = words.together(rows)
    how = words.how_of(rows, wanted)
    tally = _tally(rows, how)
    found = _found(tally)
    places = Places(select(tally, found, wanted, where))
    scores = [*how.kinds.values()].count("score")
    made = Table(places.attributes, {}, [], Counter(), scores)
    known = {name: place for name, place in places.classes.items() if name in found}
    tags = {name: places.of[name] for name in places.of if name not in found}
    # 'no glasses' until a row has the tag.
    empty = [int(name in tags) for name in places.of]
    lost: Counter[tuple[str, str]] = Counter()
    same: dict[Coded, Coded] = {}
    for key, row in rows:
        said, codes = words.read(row, how), list(empty)
        own = [t.text for t in said.given.get(CLASS, ()) if t.text in tags]
        for word in dict.fromkeys([*said.tags, *own]):
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


def _tally(rows: Pairs, how: words.How) -> _Tally:
    given: dict[str, Counter[str]] = {}
    tags: Counter[str] = Counter()
    for _, row in rows:
        said = words.read(row, how)
        for name, candidates in said.given.items():
            given.setdefault(name, Counter()).update({t.text for t in candidates})
        tags.update(set(said.tags))
    return _Tally(given, tags, len(rows))


def _no_class(word: str, name: str, classes: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(classes), 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return (repr(f"{word} {name}") if name in PARTS else f"{name} {word!r}") + hint


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
        elif counts[name] or name in found.get(CLASS, ()):
            chosen[name] = tag(name)
        elif name != CLASS:
            near = difflib.get_close_matches(name, [*found, *counts], 3)
            hint = f"; similar: {', '.join(map(repr, near))}" if near else ""
            hint += "; separate several by spaces: --attributes A B" if "," in name else ""
            have = ", ".join(found) or "none"
            hint += f"; {name!r} has only one class" if len(tally.given.get(name, ())) == 1 else ""
            raise UserError(f"{where} has no attribute or tag {name!r} (it has {have}){hint}")
    return tuple(chosen.values())


def _share(text: str) -> float:
    try:
        share = float(text or SHARE)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise UserError(f"data.attributes 'tags:{text}': the share must be at least 0 and below 1")
    return share
