"""Parquet files with images in a column, as Hugging Face keeps them; needs the extra `parquet`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from anigan_jax.data.archives import Member
from anigan_jax.data.decode import Finding
from anigan_jax.data.label_files import Row, of_fields
from anigan_jax.errors import UserError

SUFFIX = ".parquet"
ROWS = 64
"""Rows that are in memory at once."""


class Store(NamedTuple):
    """A Parquet file and the column of its images: bytes, or a struct with `bytes`."""

    path: Path
    column: str

    def read(self, names) -> Iterator[tuple[str, bytes | Finding]]:
        """The bytes of members, in the order of the rows."""
        wanted = set(names)
        for number, record in enumerate(_records(self.path, [self.column])):
            name, value = _member(number), record[self.column]
            data = value.get("bytes") if isinstance(value, dict) else value
            if name in wanted:
                yield name, data or Finding(name, "empty", "its row holds no bytes")


def _member(number: int) -> str:
    return f"{number:08d}"


def opened(path: Path) -> tuple[Store, list[Member], list[tuple[str, Row]]]:
    """The store of a file, its images, and what its other columns say of each.

    Raises:
      UserError: pyarrow is missing, or the file has no column of images.
    """
    parquet = _pyarrow(path)
    try:
        with parquet.ParquetFile(path) as file:
            schema, count = file.schema_arrow, file.metadata.num_rows
    except Exception as error:
        # Arrow raises ArrowInvalid, OSError, ... on damaged files.
        raise _damaged(path, error) from None
    kinds = {field.name: str(field.type) for field in schema}
    images = [name for name, kind in kinds.items() if _holds_bytes(kind)]
    if not images:
        raise UserError(
            f"{path} has no column of images (bytes, or a struct with bytes); it has "
            f"{', '.join(kinds)}. Where it has names or addresses of images, give the images"
        )
    store = Store(path, next((n for n in images if n.lower() in ("image", "img")), images[0]))
    others = [name for name, kind in kinds.items() if not _holds_bytes(kind)]
    rows = []
    for number, record in enumerate(_records(path, others)):
        rows.append((_member(number), of_fields(record)[1]))
    return store, [Member(_member(n), 0) for n in range(count)], [r for r in rows if r[1]]


def _damaged(path: Path, error: Exception) -> UserError:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(f"{path} is no readable Parquet file: {first}")


def _holds_bytes(kind: str) -> bool:
    return kind in ("binary", "large_binary") or kind.startswith("struct<bytes: binary")


def _pyarrow(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"{path} needs pyarrow; install it: pip install 'anigan_jax[parquet]'"
        ) from None
    return parquet


def _records(path: Path, columns: list[str]) -> Iterator[dict]:
    """Rows as dicts of these columns, read a few at a time."""
    if not columns:
        return
    try:
        with _pyarrow(path).ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS, columns=columns):
                yield from batch.to_pylist()
    except UserError:
        raise
    except Exception as error:
        raise _damaged(path, error) from None
