"""Captions of labels in varied wording, and their characters; pure functions of text."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np

from anigan_jax.data import attributes as known
from anigan_jax.data.attributes import DEFAULT, PARTS, Attributes, Label
from anigan_jax.data.words import DIVIDERS, SYNONYMS, bare, plain
from anigan_jax.errors import UserError


class Prompt(NamedTuple):
    """What a user asked for: its words, the classes in them, and what is passed over."""

    text: str
    label: Label
    passed_over: tuple[str, ...] = ()


# The first is the plain form; a text encoder learns that the others mean the same.
WORDINGS = (
    "{hair} hair {eyes} eyes",
    "{eyes} eyes, {hair} hair",
    "a girl with {hair} hair and {eyes} eyes",
    "a girl with {eyes} eyes and {hair} hair",
    "a {hair}-haired girl with {eyes} eyes",
    "a {eyes}-eyed girl with {hair} hair",
    "{hair} hair and {eyes} eyes",
    "her hair is {hair} and her eyes are {eyes}",
    "her eyes are {eyes}, her hair is {hair}",
    "an anime face with {hair} hair, {eyes} eyes",
    "she has {eyes} eyes and {hair} hair",
    "{hair} hair, {eyes} eyes",
)
ALPHABET = "abcdefghijklmnopqrstuvwxyz ,-"
LENGTH = 64
"""Characters of an encoded text; longer ones are cut."""

PASSED = "(?:(?:an?|the|any|wearing|visible) )*"
DENIED = ("no", "without", "neither", "nor", "except")
_FILLERS = {"a", "an", "and", "anime", "face", "girl", "has", "her", "she", "the", "with"}
# Shown for a color that the data has not, with a word of it.
_NEAREST = {
    **dict.fromkeys((("hair", word) for word in ("yellow", "gold", "golden")), "blonde"),
    **dict.fromkeys((("eyes", word) for word in ("gold", "golden", "amber")), "yellow"),
    ("eyes", "hazel"): "brown",
    **{
        (part, word): color
        for part in PARTS
        for color, words in (
            ("aqua", ("cyan", "teal", "turquoise")),
            ("purple", ("violet", "lavender")),
            ("red", ("crimson", "scarlet", "maroon")),
            ("pink", ("magenta",)),
            ("blue", ("navy",)),
        )
        for word in words
    },
}
_LISTED = 40
# Unicode's letters for private use.
_FIRST, _PRIVATE = 0xE000, 6400
_MARK = re.compile("[\ue000-\uf8ff]")
_LINKS = ("or", "nor", "and")
_QUOTES = str.maketrans("\u201c\u201d\u201e\xab\xbb\u2018\u2019", '"""""\'\'')
_HEADER = re.compile(r"prompts?|(id|index|n|number|),(prompt|text|caption)s?", re.IGNORECASE)
# Where no attribute is hair or eyes.
_PLAIN = ("{}", "a girl with {}", "an anime face with {}", "a picture of {}")


def captions(label: Label, attributes: Attributes = DEFAULT) -> list[str]:
    """All wordings of a label with a class of every attribute.

    Of hair and eyes in `WORDINGS`, what else there is behind them.
    """
    rest = tuple(a for a in attributes if a.name not in PARTS)
    said = known.say(rest, {a.name: label[a.name] for a in rest})
    if len(attributes) - len(rest) < len(PARTS):
        return [words.format(known.say(attributes, label)) for words in _PLAIN]
    shown = f", {said}" if said and not said.startswith("no ") else ""
    return [words.format(hair=label["hair"], eyes=label["eyes"]) + shown for words in WORDINGS]


def known_words(text: str) -> str:
    """The text with the colors' spellings that captions use ('grey' -> 'gray')."""
    text = text.lower().replace("_", " ")
    return re.sub(r"[a-z]+", lambda word: SYNONYMS.get(word[0], word[0]), text)


def phrases(attributes: Attributes) -> dict[tuple[str, ...], tuple[str, str]]:
    """Words -> the attribute and class that they name."""
    found: dict[tuple[str, ...], tuple[str, str]] = {}
    for name, chosen in ((a.name, c) for a in attributes for c in a.classes):
        said = known.phrase(attributes, name, chosen)
        forms = [said, *(f"{name}{mark}{chosen}" for mark in (": ", ":", "="))]
        if name not in PARTS:
            forms += [f"{chosen} {name}", f"{name} {chosen}"]
        if chosen.startswith("no "):
            forms += [f"{word}{chosen[3:]}" for word in ("without ", "not-", "-")]
        for form in forms:
            found.setdefault(tuple(plain(form).split()), (name, chosen))
    for a in attributes:
        for word, target in SYNONYMS.items() if a.name in PARTS else ():
            if target in a.classes:
                found.setdefault((word, a.name), (a.name, target))
    return found


def parse_prompt(text: str, attributes: Attributes = DEFAULT) -> Prompt:
    """Classes in free words: any of the wordings, tags, some attributes alone, in any order.

    `_` is a blank. Words that name nothing are passed over where others do.

    Raises:
      ValueError: nothing is understood, with the words and near ones; or an attribute is
        named twice.
    """
    found = phrases(attributes)
    said = {" ".join(phrase) for phrase in found}
    known = " ".join(said)
    quotes = {mark: to for mark, to in _QUOTES.items() if chr(mark) not in known}
    words, kept = _kept(plain(text).translate(quotes), said)
    found |= {(mark,): found[tuple(phrase.split())] for mark, phrase in kept.items()}
    words = _divided(words, known)
    words = re.sub(
        r"([a-z]+)[- ]colou?red[- ](hair|eyes?)",
        lambda m: m[0] if m[0] in said else f"{m[1]} {m[2]}",
        words,
    )
    words = re.sub(r"\b(hair|eyes?) colou?r\b", r"\1", words)
    words = re.sub(r"([a-z]+)[- ](hair|eye)(?:ed|d)\b", r"\1 \2", words)
    words = re.sub(r"([a-z]+)-(hair|eyes?)\b", r"\1 \2", words)
    words = re.sub(r"\b(\w+n't|never|not) (have|has|having|wears?|wearing)\b", "without", words)
    words = re.sub(rf"\bnot {PASSED}", "not-", words)
    words = re.sub(rf"\b({'|'.join(DENIED)}) {PASSED}", r"\1 ", words)
    words = re.sub(r"\b(hair|eyes) (?:is|are) ([a-z]+)", r"\2 \1", words)
    words = re.sub(r"\beye\b", "eyes", words)
    if not any("blonde" in each and "hair" not in each for each in said):
        # A color of hair alone: 'a blonde girl', but not 'hair: platinum blonde'.
        words = re.sub(
            r"\b(hair[ :=]+(?:\w+ )?)?\bblonde?\b(?! hair| eyes)",
            lambda m: m[0] if m[1] else "blonde hair",
            words,
        )
    label, lost = {}, []
    for piece in re.split(DIVIDERS + r"|\.(?:\s|$)|(?<=\w)[!?]+(?:\s|$)", words):
        for name, chosen in _scan(_in_order(bare(piece).split(), found), found):
            if not name:
                chosen = re.sub(_MARK, lambda m: kept.get(m[0], m[0]), chosen)
                nearest, hint = _near(chosen, attributes)
                lost.append(hint)
                name, chosen = nearest or ("", "")
            if name and label.setdefault(name, chosen) != chosen:
                raise ValueError(f"{name} is named twice")
    if not label:
        names = " or ".join(a.name for a in attributes[:_LISTED])
        raise ValueError("; ".join(lost) or f"{text!r} names no class of {names}")
    return Prompt(text, label, tuple(lost))


def _kept(words: str, said: Collection[str]) -> tuple[str, dict[str, str]]:
    """The words with a mark for each known phrase that what follows would change, and the phrases.

    'k-on!', 'one eye closed', 'dr. stone', 'class:3': a letter for private use stands for each.
    """
    kept: dict[str, str] = {}
    odd = (p for p in said if p in words and (re.search(r"[^\w ]", p) or "eye" in p.split()))
    for phrase in sorted(odd, key=len, reverse=True)[:_PRIVATE]:
        mark = chr(_FIRST + len(kept))
        words, count = re.subn(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])", mark, words)
        kept |= {mark: phrase} if count else {}
    return words, kept


def _divided(words: str, known: str) -> str:
    """With commas for what else divides: '/', brackets and weights, 'blue hair::2 red eyes::1'.

    Args:
      known: phrases, whose own marks divide nothing: 'saber (fate)'.
    """
    weights = r":[\d.]+(?=[)\]}])" + ("" if "::" in known else r"|((?<!\S)[\d.]+)?::[\d.]*")
    words = re.sub(weights, ",", words)
    marks = re.escape("".join(mark for mark in "/()[]{}" if mark not in known))
    return re.sub(f"[{marks}]", ",", words) if marks else words


def _in_order(words: list[str], found: dict) -> list[str]:
    """'hair blue eyes red' as 'blue hair red eyes': pairs that begin with a part."""
    pairs = [*zip(words[::2], words[1::2], strict=False)]
    turned = [(color, part) for part, color in pairs]
    if len(words) % 2 == 0 and all(part in PARTS for part, _ in pairs) and {*turned} <= {*found}:
        return [*itertools.chain(*turned)]
    return words


def _scan(words: list[str], found: dict) -> Iterator[tuple[str, str]]:
    """The longest phrases in words: (attribute, class); ('', words) of what names nothing."""
    longest = max(map(len, found))
    lost: list[str] = []
    refused = False

    def named(words: list[str]) -> int:
        return next((n for n in range(longest, 0, -1) if tuple(words[:n]) in found), 0)

    while words:
        length = named(words)
        denied = 0
        if not length and words[0] in DENIED:
            denied = named(words[1:]) or _of_several(words[1:], found)
        elif refused and words[0] in _LINKS and (count := named(words[1:])):
            # 'no hat or glasses'; 'without hat and glasses', but 'no hat and blue hair'.
            other = found.get(("no", *words[1 : 1 + count]))
            if other or words[0] != "and":
                yield other or ("", " ".join(["no", *words[1 : 1 + count]]))
                words = words[1 + count :]
                continue
        refused = bool(denied) or (length > 0 and _denies(words[0]))
        if denied:
            # What is not wanted is not to be drawn: 'no blue hair'.
            if lost:
                yield "", " ".join(lost)
                lost = []
            yield "", " ".join(words[: 1 + denied])
            words = words[1 + denied :]
            continue
        if not length and words[0] not in _FILLERS:
            lost.append(words[0])
        if lost and (length or words[0] in (*PARTS, *_FILLERS) or len(words) == 1):
            yield "", " ".join(lost)
            lost = []
        if length:
            yield found[tuple(words[:length])]
        words = words[length or 1 :]


def _denies(word: str) -> bool:
    return word in DENIED or word.startswith(("not-", "-"))


def _of_several(words: list[str], found: dict) -> int:
    """How many words are a choice of colors of one part: 3 of 'red or blue hair'; 0: none."""
    for part in PARTS:
        if part in words:
            chosen = words[: words.index(part)]
            each = [(color, part) in found for color in chosen[::2]]
            if len(chosen) > 2 and {*chosen[1::2]} <= {*_LINKS} and all(each):
                return len(chosen) + 1
    return 0


def _near(lost: str, attributes: Attributes) -> tuple[tuple[str, str] | None, str]:
    """(the class that stands for it, where one does; what is said of words that name nothing)."""
    word, _, part = lost.rpartition(" ")
    if lost.split()[0] in DENIED and word:
        return None, f"{lost!r} (say what there is instead)"
    classes = dict(attributes).get(part, ())
    instead = _NEAREST.get((part, word))
    if instead in classes:
        return (part, instead), f"{lost!r} is drawn as '{instead} {part}'"
    if part in PARTS and classes and word:
        near = difflib.get_close_matches(word, classes, 1)
        said = f"{word!r} is not a color of {part}"
    else:
        known_words = [known.phrase(attributes, a.name, c) for a in attributes for c in a.classes]
        near = difflib.get_close_matches(lost, known_words, 2)
        said = f"{lost!r} is not known"
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return None, said + hint


def text_of(line: str) -> str:
    """The prompt of a line, without an id as in `1,blue hair`; '' of a remark or a header."""
    if _HEADER.fullmatch(line.strip("\ufeff \r\n")):
        return ""
    key, comma, rest = line.partition(",")
    text = (rest if comma and key.strip().isdecimal() else line).strip()
    return "" if text.startswith("#") else text


def read_prompts(lines: list[str], where: str, attributes: Attributes = DEFAULT) -> list[Prompt]:
    """Prompts, one a line, as `text_of` reads it.

    Raises:
      UserError: every line of which nothing is understood, with the known classes.
    """
    found, faults = [], []
    names = {" ".join(phrase) for phrase in phrases(attributes)}
    for number, line in enumerate(lines, start=1):
        # A number before a comma is an id, or in a prompt alone a class.
        own = len(lines) == 1 and plain(line.partition(",")[0]) in names
        text = line.strip() if own else text_of(line)
        if not text:
            continue
        try:
            found.append(parse_prompt(text, attributes))
        except ValueError as error:
            faults.append(f"line {number}: {error}" if len(lines) > 1 else str(error))
    if faults:
        said = "; ".join(faults)
        end = "" if said.endswith("?") else "."
        raise UserError(f"{where}: {said}{end} Known classes: {known_classes(attributes)}")
    if not found:
        raise UserError(f"{where} holds no prompts; a line looks like 'blue hair blue eyes'")
    return found


def known_classes(attributes: Attributes) -> str:
    """All classes, as messages list them; the first of many."""

    def listed(names: tuple[str, ...]) -> str:
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        return ", ".join(names[:_LISTED]) + more

    tags = tuple(a.name for a in attributes if a.is_tag)
    parts = [f"{a.name}: {listed(a.classes)}" for a in attributes if not a.is_tag]
    return "; ".join([*parts, *([listed(tags)] if tags else [])])


def complete(
    prompt: Prompt,
    attributes: Attributes,
    combinations: np.ndarray,
    counts: np.ndarray,
    seed: int,
    number: int,
) -> Prompt:
    """The prompt with a class of every attribute; those left open as the data has them.

    They are those of an image among the ones that fit what is named, or, where none fits all
    of it, among those that fit the most of it.

    Args:
      combinations: (P, A) class indices; counts: (P,) images of each.
      seed, number: the draw is a pure function of them.
    """
    named = np.array(known.row(attributes, prompt.label))
    if (named >= 0).all():
        return prompt
    fits = np.where(counts > 0, ((combinations == named) & (named >= 0)).sum(1), -1)
    weights = np.where(fits == fits.max(), counts, 0).astype(np.float64)
    draw = np.random.default_rng([seed, number]).choice(len(weights), p=weights / weights.sum())
    row = np.where(named >= 0, named, combinations[draw])
    label = known.label_of(attributes, row)
    return Prompt(known.say(attributes, label), label)


def codes(texts: list[str], length: int = LENGTH) -> np.ndarray:
    """Texts -> (n, length) uint8: 1 + index in `ALPHABET`, 0 for others and the rest."""
    table = {letter: 1 + i for i, letter in enumerate(ALPHABET)}
    out = np.zeros((len(texts), length), np.uint8)
    for row, text in zip(out, texts, strict=True):
        found = [table.get(letter, 0) for letter in text.lower()[:length]]
        row[: len(found)] = found
    return out
