"""Parquet files with images in a column, as Hugging Face keeps them; needs the extra `parquet`.

They are read by a process of their own: a hostile file can crash or bomb pyarrow.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from anigan_jax.data import isolated
from anigan_jax.data.archives import MAX_ENTRIES, Member
from anigan_jax.data.decode import MAX_BYTES, Finding
from anigan_jax.data.label_files import of_fields
from anigan_jax.data.rows import Rows
from anigan_jax.errors import UserError

SUFFIX = ".parquet"
ROWS = 64
"""Rows that are in memory at once, of images of a usual size."""
BATCH_BYTES = 32 * 2**20
MOST_BYTES = 2 * MAX_BYTES
"""Bytes of a few rows, over which a file is refused."""
MOST_TEXTS = 2**30
"""Bytes of all that is no image: a short file can say the same long text of each of its rows."""
SECONDS = 60.0


class Store(NamedTuple):
    """A Parquet file and the column of its images: bytes, or a struct with `bytes`."""

    path: Path
    column: str

    def read(self, names) -> Iterator[tuple[str, bytes | Finding]]:
        """The bytes of members, in the order of the rows."""
        wanted = dict.fromkeys(names)
        for number, record in enumerate(_records(self.path, [self.column])):
            name, value = _member(number), record[self.column]
            data = value.get("bytes") if isinstance(value, dict) else value
            if name in wanted:
                del wanted[name]
                yield name, data or Finding(name, "empty", "its row holds no bytes")
        for name in wanted:
            yield name, Finding(name, "truncated", "the file has fewer rows than it says")


def _member(number: int) -> str:
    return f"{number:08d}"


def opened(path: Path) -> tuple[Store, list[Member], Rows]:
    """The store of a file, its images, and what its other columns say of each.

    Raises:
      UserError: pyarrow is missing, or the file has no column of images.
    """
    kinds, count, classes = _asked(path, _schema, str(path))
    images = [name for name, kind in kinds.items() if _holds_bytes(kind)]
    if not images:
        raise UserError(
            f"{path} has no column of images (bytes, or a struct with bytes); it has "
            f"{', '.join(kinds)}. If it only names images, give the images themselves"
        )
    if count > MAX_ENTRIES:
        raise UserError(f"{path} holds {count:,} rows; at most {MAX_ENTRIES:,} are read")
    store = Store(path, next((n for n in images if n.lower() in ("image", "img")), images[0]))
    others = [name for name, kind in kinds.items() if not _holds_bytes(kind)]
    records = (_with_names(each, classes) for each in _records(path, others))
    said = ((_member(n), of_fields(each)[1]) for n, each in enumerate(records))
    rows = Rows(pair for pair in said if pair[1])
    return store, [Member(_member(n), 0) for n in range(count)], rows


def is_list(path: Path) -> bool:
    """Whether a file can be read and has no column of images: of their addresses, say."""
    try:
        return not any(map(_holds_bytes, _asked(path, _schema, str(path))[0].values()))
    except UserError:
        return False


def _holds_bytes(kind: str) -> bool:
    packed = kind.startswith("struct<") and re.search(r"\bbytes: (large_)?binary", kind)
    return kind in ("binary", "large_binary") or bool(packed)


def _with_names(record: dict, classes: dict[str, list[str]]) -> dict:
    """The record with the names of classes in place of their numbers, where the file has them."""

    def named(names: list[str], value: Any) -> Any:
        if isinstance(value, list):
            return [named(names, one) for one in value]
        if not isinstance(value, int) or value >= len(names):
            return value
        # -1 is Hugging Face's word for none.
        return names[value] if value >= 0 else None

    return {n: named(classes[n], v) if n in classes else v for n, v in record.items()}


def _records(path: Path, columns: list[str]) -> Iterator[dict]:
    """Rows as dicts of these columns, read a few at a time."""
    if not columns:
        return
    reading, begun = next(_NUMBERS), False
    while rows := _asked(path, _next, reading, begun, str(path), columns):
        begun = True
        yield from rows


def _asked(path: Path, function: Callable, *args: Any) -> Any:
    """What a function of the reading process gives."""
    try:
        return READER.result(READER.submit(function, *args), SECONDS)
    except ImportError:
        raise UserError(
            f"{path} needs pyarrow; install it: pip install 'anigan_jax[parquet]'"
        ) from None
    except (ValueError, isolated.Died) as error:
        raise UserError(f"{path} is not a readable Parquet file: {error}") from None


# --- in the reading process


def _begin() -> None:
    # Its other allocators reserve more than a bounded process may have.
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
    os.environ["OMP_NUM_THREADS"] = "1"


READER = isolated.Worker(_begin)
_NUMBERS = itertools.count()
_READING: dict[int, Iterator] = {}


def _refusing(function: Callable) -> Callable:
    """With what Arrow raises on damaged files as a ValueError: ArrowInvalid, OSError, ..."""

    @functools.wraps(function)
    def wrapped(*args: Any) -> Any:
        try:
            return function(*args)
        except ImportError:
            raise
        except Exception as error:
            text = str(error).strip() or type(error).__name__
            raise ValueError(text.splitlines()[0]) from None

    return wrapped


@_refusing
def _schema(path: str) -> tuple[dict[str, str], int, dict[str, list[str]]]:
    """(column -> its type, number of rows, column -> names of its classes)."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        kinds = {field.name: str(field.type) for field in file.schema_arrow}
        about = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
        return kinds, file.metadata.num_rows, _class_names(about)


def _class_names(about: bytes) -> dict[str, list[str]]:
    """Column -> names of its classes, of what Hugging Face's `datasets` keeps in a schema."""
    try:
        features = json.loads(about)["info"]["features"]
        each = {name: _of_feature(kind) for name, kind in features.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return {}
    return {n: [*map(str, names)] for n, names in each.items() if isinstance(names, list)}


def _of_feature(kind: Any) -> Any:
    """The names of a class label, or of those in a list: [...], or {"feature": ...}."""
    inner = kind[0] if isinstance(kind, list) and kind else kind
    inner = inner.get("feature", inner) if isinstance(inner, dict) else {}
    return inner.get("names") if isinstance(inner, dict) else None


@_refusing
def _next(reading: int, begun: bool, path: str, columns: list[str]) -> list[dict]:
    """The next rows of a reading; [] where there are none left."""
    if not begun:
        # One at a time: what was not read to its end is not read on.
        _READING.clear()
        _READING[reading] = _batches(path, columns)
    return next(_READING[reading], [])


def _batches(path: str, columns: list[str]) -> Iterator[list[dict]]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        count = max(1, file.metadata.num_rows)
        each = max(1, Path(path).stat().st_size // count)
        most, texts = max(1, min(ROWS, BATCH_BYTES // each)), 0
        for batch in file.iter_batches(most, columns=columns, use_threads=False):
            if batch.nbytes > MOST_BYTES:
                raise ValueError(f"{batch.num_rows} of its rows are {batch.nbytes:,} bytes")
            rows = batch.to_pylist()
            if not any(_holds_bytes(str(field.type)) for field in batch.schema):
                texts += len(repr(rows))
            if texts > MOST_TEXTS:
                raise ValueError(f"beside images, it holds over {MOST_TEXTS:,} bytes")
            if rows:
                yield rows
