"""A run's own code, kept in its directory."""

from __future__ import annotations

import hashlib
from pathlib import Path

from anigan_jax.storage import atomic


def keep(files: dict[str, Path], folder: Path) -> dict[str, str]:
    """Copies a run's own code into it; path -> SHA-256.

    Each file is replaced at one instant, and none that stays as it is: a run may go on with the
    very files that it keeps, which have no other copy.
    """
    texts = {name: path.read_bytes() for name, path in files.items()}
    # Earlier versions kept the same file by another path, and weights may still name it.
    former = [path for path in folder.rglob("*.py") if path.read_bytes() in texts.values()]
    texts = {path.relative_to(folder).as_posix(): path.read_bytes() for path in former} | texts
    for name, text in texts.items():
        path = folder / name
        if not (path.is_file() and path.read_bytes() == text):
            atomic.save_bytes(text, path)
    for path in sorted(folder.rglob("*"), reverse=True):
        if not path.is_dir() and path.relative_to(folder).as_posix() not in texts:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    return {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}
