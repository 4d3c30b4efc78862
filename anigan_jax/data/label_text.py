"""Bytes of label files -> text, whatever wrote them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from anigan_jax.data.kinds import kind_of
from anigan_jax.data.matching import folded
from anigan_jax.errors import UserError

HEAD = 512
"""Bytes by which a text of two bytes a letter is known."""
# Of spreadsheets that do not write Unicode: Western Europe, Japan, China.
CODES = ("cp1252", "cp932", "gb18030")
# What is no text, and how it becomes one.
OTHER = {
    "ZIP archive": "it is a spreadsheet or an archive; save it as 'CSV UTF-8'",
    "OLE document": "it is a spreadsheet; save it as 'CSV UTF-8'",
    "Parquet": "it is Parquet; write it as CSV: pandas.read_parquet(FILE).to_csv('tags.csv')",
    "GZIP archive": "it is packed; unpack it once",
}
MOST = 1000
"""Names by which an encoding is known."""


def decoded(table: bytes, images: Iterable[str] = ()) -> str:
    """Text of a table, whatever the locale; spreadsheets begin one with a byte order mark.

    Args:
      images: names, of which the most are found in a text that is read as it was written: where
        it is not Unicode.
    """
    if table.startswith((b"\xff\xfe", b"\xfe\xff")):
        return table.decode("utf-16", "replace")
    even, odd = (table[start:HEAD:2].count(0) for start in (0, 1))
    if max(even, odd) > HEAD // 8:
        return table.decode("utf-16-be" if even > odd else "utf-16-le", "replace")
    try:
        return table.decode("utf-8-sig")
    except UnicodeDecodeError:
        stems = {name for name in map(folded, images) if not name.isascii()}
        usual = table.decode("utf-8-sig", "replace")
        texts = [table.decode(code, "replace") for code in CODES] if stems else []
        return max((usual, *texts), key=lambda text: _named(text.casefold(), stems))


def _named(text: str, stems: set[str]) -> int:
    return sum(stem in text for stem in itertools.islice(stems, MOST))


def of_bytes(table: bytes, where: str, images: Iterable[str] = ()) -> str:
    """The text of a label file, as `decoded`.

    Raises:
      UserError: it is a file of another kind.
    """
    if hint := OTHER.get(kind_of(table[:32])):
        raise UserError(f"{where} is no label file: {hint}")
    return decoded(table, images)
