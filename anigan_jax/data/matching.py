"""Which row of a label file is of which image, by their names."""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from urllib.parse import unquote

from anigan_jax.data.kinds import SUFFIXES

FOLDERS = 6
"""Folders, the name among them, by which a row and an image are compared."""


def forms(name: str) -> Iterator[str]:
    """Spellings under which an image and its row are compared, the strictest first.

    As it is, without its ending, without its folder, without both, as a number without leading
    zeros (a spreadsheet's '12.0' too), and whatever its letter case and escapes ('my%20face').
    """
    whole = plain_path(name)
    stem, dot, ending = whole.rpartition(".")
    bare = stem if f"{dot}{ending.lower()}" in SUFFIXES else whole
    last = bare.rpartition("/")[2]
    number = last.removesuffix(".0")
    yield from (whole, bare, last + whole.removeprefix(bare), last)
    yield number.lstrip("0") or "0" if number.isascii() and number.isdecimal() else ""
    yield folded(last)


def plain_path(name: str) -> str:
    """A name as archives write it: '/' between folders, none for here; 'a.jpg#2' is a.jpg."""
    name = unicodedata.normalize("NFC", name).replace("\\", "/").removeprefix("./")
    if "#" in name:
        # Several captions of an image, as Flickr's sets number them.
        file, _, number = name.rpartition("#")
        name = file if number.isdecimal() and _ending(file) else name
    return name


def _ending(name: str) -> bool:
    """Whether a name ends as an image's."""
    return f".{name.rpartition('.')[2].lower()}" in SUFFIXES


def folded(name: str) -> str:
    """A name without folder and ending, whatever its letter case, escapes and leading zeros."""
    name = unquote(name).replace("\\", "/").rpartition("/")[2].casefold()
    stem, dot, ending = name.rpartition(".")
    bare = stem if f"{dot}{ending}" in SUFFIXES else name
    return bare.lstrip("0") or "0" if bare.isascii() and bare.isdecimal() else bare


def match(names: list[str], keys: Collection[str]) -> dict[str, str]:
    """Name of an image -> its key, where one alone fits.

    Keys with a folder, numbers without their leading zeros and other letter cases are taken where
    they fit one image alone; a plain key fits every image of its name, in whatever folder. A key
    with an image's ending that fits one so fits none of another ending.
    """
    found: dict[str, str] = {}
    left = names
    for number in range(6):
        used = set(found.values()) if number in (1, 2, 3) else set()
        if number == 2 and left:
            found |= _by_end(left, names, (key for key in keys if key not in used))
            left = [name for name in left if name not in found]
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
            key = hits.get(each)
            # 'a.png' is not of a.jpg where a.png is there; it is of b/a.png.
            if each not in hits or (number != 2 and key in used and _ending(key)):
                later.append(name)
            elif key:
                loose = number > 3 or (number > 1 and "/" in plain_path(key))
                found |= {} if loose and counts[each] > 1 else {name: key}
        left = later
    return found


def _by_end(left: list[str], names: list[str], keys: Iterable[str]) -> dict[str, str]:
    """Matches by the last folders and the name: '/data/a/1.png' is a/1.png, that is not b/1.png.

    By as many folders as both have, where one name and one key alone have them.

    Args:
      left: the names that have no key yet; names: all of them.
    """
    sought = {name: path.split("/") for name in left if "/" in (path := _form(1, name))}
    files = {parts[-1] for parts in sought.values()}
    deep = {}
    for key in keys if files else ():
        folder, _, file = _form(1, key).rpartition("/")
        if folder and file in files:
            deep[key] = [*folder.split("/"), file]
    if not deep:
        return {}
    every = [parts for name in names if (parts := _form(1, name).split("/"))[-1] in files]
    found: dict[str, str] = {}
    for depth in range(FOLDERS, 1, -1):
        tails: dict[tuple[str, ...], str | None] = {}
        for key, parts in deep.items():
            if len(parts) >= depth:
                tail = tuple(parts[-depth:])
                tails[tail] = None if tail in tails else key
        counts = Counter(tuple(parts[-depth:]) for parts in every)
        for name, parts in sought.items():
            tail = tuple(parts[-depth:])
            alone = len(parts) >= depth and counts[tail] == 1 and name not in found
            if alone and (key := tails.get(tail)):
                found[name] = key
    return found


def _form(number: int, name: str) -> str:
    return next(itertools.islice(forms(name), number, None))
