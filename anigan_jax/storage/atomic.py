"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def save_text(text: str, path: Path) -> Path:
    """Writes a text file whole or not at all, and to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f".{path.name}")
    with temp.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temp, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    return path
