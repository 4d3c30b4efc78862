"""Bytes of label files -> text, whatever wrote them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from anigan_jax.data.kinds import kind_of
from anigan_jax.data.matching import folded
from anigan_jax.errors import UserError

HEAD = 512
"""Bytes by which a text of two bytes a letter is known."""
# Of spreadsheets that do not write Unicode: Western Europe, Russia, Japan, China, Taiwan, Korea.
CODES = ("cp1252", "cp1251", "cp932", "gb18030", "big5", "cp949")
# Of names in zips: those of the places' consoles; cp437 is what zipfile reads.
NAMES = ("cp437", "cp850", "cp866", *CODES[1:])
GUESSED = 2**20
"""Bytes by which an encoding is guessed."""
# What is no text, and how it becomes one.
OTHER = {
    "ZIP archive": "it is a spreadsheet or an archive; save it as 'CSV UTF-8'",
    "OLE document": "it is a spreadsheet; save it as 'CSV UTF-8'",
    "Parquet": "it is Parquet; write it as CSV: pandas.read_parquet(FILE).to_csv('tags.csv')",
    "GZIP archive": "it is compressed; unpack it first",
}
MOST = 1000
"""Names by which an encoding is known."""


def decoded(table: bytes, images: Iterable[str] = ()) -> str:
    """Text of a table, whatever the locale; spreadsheets begin one with a byte order mark.

    Args:
      images: names, as `encoding` takes them.

    Raises:
      UserError: it is in no encoding that is known.
    """
    text = of_unicode(table)
    return table.decode(encoding([table], images), "replace") if text is None else text


def of_unicode(table: bytes) -> str | None:
    """The text of bytes that are Unicode; None of others."""
    if table.startswith((b"\xff\xfe", b"\xfe\xff")):
        return table.decode("utf-16", "replace")
    even, odd = (table[start:HEAD:2].count(0) for start in (0, 1))
    if max(even, odd) > HEAD // 8:
        return table.decode("utf-16-be" if even > odd else "utf-16-le", "replace")
    try:
        return table.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def encoding(
    texts: Sequence[bytes], images: Iterable[str] = (), codes: Sequence[str] = CODES
) -> str:
    """Of texts of one hand that are not Unicode: by the images that they name, else by a guess.

    Args:
      images: names, of which the most are found in a text that is read as it was written.
      codes: those that it may be.

    Raises:
      UserError: it is none that is known.
    """
    whole = b"\n".join(texts)
    stems = {name for name in map(folded, images) if not name.isascii()}
    stems = {*itertools.islice(stems, MOST)}

    def named(code: str) -> int:
        text = whole.decode(code, "replace").casefold()
        return sum(stem in text for stem in stems)

    hits = {code: named(code) for code in ("utf-8", *codes)} if stems else {}
    if any(hits.values()):
        return max(hits, key=lambda code: hits[code])
    text = whole.decode("utf-8", "replace")
    if 10 * text.count("\ufffd") < len(text) - sum(map(str.isascii, text)):
        # Unicode with a damaged byte.
        return "utf-8"
    # Of what is not ASCII alone, so that a few words among many file names count.
    odd = [line for line in whole.splitlines() if not line.isascii()]
    sizes = itertools.accumulate(map(len, odd), initial=0)
    lines = [line for line, size in zip(odd, sizes, strict=False) if size < GUESSED]
    runs = re.findall(rb"([ -~]?)([\x80-\xff]+)([ -~]?)", b"\n".join(lines))
    if all(len(run) == 1 and run >= b"\xc0" and (a + b).isalpha() for a, run, b in runs):
        # Single letters within words: Western Europe's.
        return codes[0]
    half = len(lines) // 2
    # A part may be free of damage, or of what only looks so: digits within words.
    tried = (lines, lines[:half], lines[half:], [re.sub(rb"[\x00-\x7f]+", b" ", b" ".join(lines))])
    found = next(filter(None, (_guessed(b"\n".join(part), codes) for part in tried)), None)
    if found is None:
        raise UserError(
            "its text is neither Unicode nor in an encoding that is known "
            f"({', '.join(codes)}); save it as UTF-8 (in a spreadsheet: 'CSV UTF-8')"
        )
    return found


def _guessed(text: bytes, codes: Sequence[str]) -> str | None:
    # Imported here: few tables need it.
    import charset_normalizer

    found = charset_normalizer.from_bytes(text, cp_isolation=[*codes]).best() if text else None
    return found.encoding if found else None


def of_bytes(table: bytes, where: str, images: Iterable[str] = ()) -> str:
    """The text of a label file, as `decoded`.

    Raises:
      UserError: it is a file of another kind.
    """
    if hint := OTHER.get(kind_of(table[:32])):
        raise UserError(f"{where} is not a label file: {hint}")
    try:
        return decoded(table, images)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
