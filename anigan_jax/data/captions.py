"""Captions of labels in varied wording, and their characters; pure functions of text."""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple

import numpy as np

from anigan_jax.data.labels import COLORS, EYES, SYNONYMS, Label, known_colors, parse_caption
from anigan_jax.errors import UserError


class Prompt(NamedTuple):
    """What a user asked for, and the colors in it; a part may be None."""

    text: str
    label: Label


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

_FILLERS = {"a", "an", "and", "anime", "face", "girl", "has", "her", "she", "the", "with"}


def captions(label: Label) -> list[str]:
    """All wordings of a label with both colors."""
    return [words.format(hair=label.hair, eyes=label.eyes) for words in WORDINGS]


def pair(hair, eyes):
    """Index of a pair of class indices among `pairs`; integers or arrays of any kind."""
    return hair * len(EYES) + eyes


def known_words(text: str) -> str:
    """The text with the colors' spellings that captions use ('grey' -> 'gray')."""
    return re.sub(r"[a-z]+", lambda word: SYNONYMS.get(word[0], word[0]), text.lower())


def pairs() -> list[Label]:
    """Every hair x eye color, in the order of `pair`."""
    return [Label(hair, eyes) for hair in COLORS["hair"] for eyes in COLORS["eyes"]]


def parse_prompt(text: str) -> Label:
    """Colors of a free prompt: any of the wordings, one part alone, either order.

    Raises:
      ValueError: names the word that is not understood, or the missing color.
    """
    words = text.lower()
    words = re.sub(r"([a-z]+)-(hair|eye)(?:ed|d)\b", r"\1 \2", words)
    words = re.sub(r"\b(hair|eyes) (?:is|are) ([a-z]+)", r"\2 \1", words)
    kept = [w for w in re.sub(r"[.,;]", " ", words).split() if w not in _FILLERS]
    kept = ["eyes" if word == "eye" else word for word in kept]
    if not kept:
        raise ValueError(f"{text!r} names no color of hair or eyes")
    known = {*COLORS, *SYNONYMS, *(name for names in COLORS.values() for name in names)}
    for word in kept:
        if word not in known:
            near = difflib.get_close_matches(word, sorted(known), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{word!r} is no known word{hint}")
    return parse_caption(" ".join(kept))


def read_prompts(lines: list[str], where: str) -> list[Prompt]:
    """Prompts, one a line; an id before them, as in `1,blue hair blue eyes`, is passed over.

    Raises:
      UserError: every faulty line, with the known colors.
    """
    found, faults = [], []
    for number, line in enumerate(lines, start=1):
        key, comma, rest = line.partition(",")
        text = (rest if comma and key.strip().isdecimal() else line).strip()
        if not text:
            continue
        try:
            found.append(Prompt(text, parse_prompt(text)))
        except ValueError as error:
            faults.append(f"line {number}: {error}" if len(lines) > 1 else str(error))
    if faults:
        raise UserError(f"{where}: {'; '.join(faults)}. Known colors are {known_colors()}")
    if not found:
        raise UserError(f"{where} holds no prompts; a line is 'blue hair blue eyes'")
    return found


def complete(prompt: Prompt, counts: np.ndarray, seed: int, number: int) -> Prompt:
    """The prompt with both colors; a missing one is drawn as often as the data has it.

    Args:
      counts: (132,) images of each pair; among those that fit the named part, or, where
        none fits, by the other part alone.
      seed, number: the draw is a pure function of them.
    """
    hair, eyes = prompt.label
    if hair and eyes:
        return prompt
    names = COLORS["eyes" if hair else "hair"]
    grid = counts.reshape(len(COLORS["hair"]), len(COLORS["eyes"]))
    grid = grid if hair else grid.T
    row = grid[COLORS["hair" if hair else "eyes"].index(hair or eyes)]
    weights = row if row.any() else grid.sum(0)
    draw = np.random.default_rng([seed, number]).choice(len(names), p=weights / weights.sum())
    label = Label(hair or names[draw], eyes or names[draw])
    return Prompt(str(label), label)


def codes(texts: list[str], length: int = LENGTH) -> np.ndarray:
    """Texts -> (n, length) uint8: 1 + index in `ALPHABET`, 0 for others and the rest."""
    table = {letter: 1 + i for i, letter in enumerate(ALPHABET)}
    out = np.zeros((len(texts), length), np.uint8)
    for row, text in zip(out, texts, strict=True):
        found = [table.get(letter, 0) for letter in text.lower()[:length]]
        row[: len(found)] = found
    return out
