"""Which row of a label file is of which image, by their names."""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from urllib.parse import unquote

from anigan_jax.data.kinds import SUFFIXES


def forms(name: str) -> Iterator[str]:
    """Spellings under which an image and its row are compared, the strictest first.

    As it is, without its ending, without its folder, without both, as a number without leading
    zeros (a spreadsheet's '12.0' too), and whatever its letter case and escapes ('my%20face').
    """
    whole = unicodedata.normalize("NFC", name).replace("\\", "/").removeprefix("./")
    stem, dot, ending = whole.rpartition(".")
    bare = stem if f"{dot}{ending.lower()}" in SUFFIXES else whole
    last = bare.rpartition("/")[2]
    number = last.removesuffix(".0")
    yield from (whole, bare, last + whole.removeprefix(bare), last)
    yield number.lstrip("0") or "0" if number.isascii() and number.isdecimal() else ""
    yield folded(last)


def folded(name: str) -> str:
    """A name without folder and ending, whatever its letter case, escapes and leading zeros."""
    name = unquote(name).replace("\\", "/").rpartition("/")[2].casefold()
    stem, dot, ending = name.rpartition(".")
    bare = stem if f"{dot}{ending}" in SUFFIXES else name
    return bare.lstrip("0") or "0" if bare.isascii() and bare.isdecimal() else bare


def match(names: list[str], keys: Collection[str]) -> dict[str, str]:
    """Name of an image -> its key, where one alone fits.

    Keys with a folder, numbers without their leading zeros and other letter cases are taken where
    they fit one image alone; a plain key fits every image of its name, in whatever folder.
    """
    found: dict[str, str] = {}
    left = names
    for number in range(6):
        # One level at a time: of millions of names, all are gigabytes.
        form = functools.partial(_form, number)
        hits: dict[str, str | None] = {}
        for key in keys if left else ():
            each = form(key)
            hits[each] = None if each in hits else key
        hits.pop("", None)
        counts = Counter(map(form, names)) if number > 1 and left else Counter()
        later = []
        for name in left:
            each = form(name)
            if each not in hits:
                later.append(name)
            elif key := hits[each]:
                loose = number > 3 or (number > 1 and "/" in key)
                found |= {} if loose and counts[each] > 1 else {name: key}
        left = later
    return found


def _form(number: int, name: str) -> str:
    return next(itertools.islice(forms(name), number, None))
