"""TFRecord files by index, read without TensorFlow.

A record is its length (8 bytes, little endian), a checksum of that, the bytes, and a checksum of
those. Source: TensorFlow, tensorflow/core/lib/io/record_writer.h. The checksums are not compared:
the lengths must fill the file, and what is in a record is judged when it is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from anigan_jax.data.decode import MAX_BYTES
from anigan_jax.errors import UserError

HEAD, TAIL = 12, 4


class Records:
    """The records of files, in order, each as `parse` makes it."""

    def __init__(self, paths: Iterable[Path], parse: Callable[[bytes], Any]):
        """Reads where records begin, and nothing of them.

        Raises:
          UserError: a file is missing or is not made of whole records.
        """
        self._paths, self._parse = [Path(path) for path in paths], parse
        self._places = [_places(path) for path in self._paths]
        self._ends = np.cumsum([len(places) for places in self._places])
        self._open: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._ends, index, side="right"))
        places = self._places[number]
        start, length = places[index - int(self._ends[number])]
        if self._open[0] != number:
            if self._open[1]:
                self._open[1].close()
            self._open = (number, self._paths[number].open("rb"))
        file = self._open[1]
        file.seek(start)
        try:
            return self._parse(file.read(length))
        except Exception as error:
            # TFDS and protobuf raise their own, ValueError, KeyError, ... on damaged records.
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            where = f"{self._paths[number]}, the record at byte {start - HEAD:,}"
            raise UserError(f"{where}, is damaged: {first}") from None


def _places(path: Path) -> np.ndarray:
    """(n, 2) int64: where the bytes of each record start, and how many they are."""
    found = []
    try:
        size, at = path.stat().st_size, 0
        with path.open("rb") as file:
            while at < size:
                file.seek(at)
                head = file.read(HEAD)
                length = struct.unpack("<Q", head[:8])[0] if len(head) == HEAD else size
                end = at + HEAD + length + TAIL
                if end > size or length > MAX_BYTES:
                    raise UserError(
                        f"{path} is not a whole TFRecord file: no record begins at byte {at:,}"
                    )
                found.append((at + HEAD, length))
                at = end
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    return np.array(found, np.int64).reshape(-1, 2)
