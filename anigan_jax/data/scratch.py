"""Where packs are made: a folder beside their place, which nobody takes for a finished one."""

from __future__ import annotations

import fcntl
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from anigan_jax.errors import UserError
from anigan_jax.runtime.environment import cache_home

# Seconds in which a folder that was just made gets its lock.
YOUNG = 60


def default_cache() -> Path:
    """Where packs live that nobody gave a place, outside any checkout."""
    return cache_home() / "packs"


@contextmanager
def temporary(parent: Path, name: str) -> Iterator[Path]:
    """A folder beside the place to be, gone afterwards; sweeps what killed processes left."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for lock in _locks(parent, name):
            with lock.open("a") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue
                shutil.rmtree(lock.parent, ignore_errors=True)
        path = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
    except OSError as error:
        hint = "; set XDG_CACHE_HOME to another folder" if parent == default_cache() else ""
        raise UserError(f"{parent} cannot be written: {error}{hint}") from None
    with (path / "lock").open("a") as handle:
        # A disk without locks: there nobody sweeps what is another's.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _locks(parent: Path, name: str) -> Iterator[Path]:
    """Locks in the folders that `temporary` has made, but for those of the last minute.

    A user's own folder may begin alike, '.faces-backup'.
    """
    ours = re.compile(rf"\.{re.escape(name)}-[a-z0-9_]{{8}}")
    for old in parent.iterdir():
        lock = old / "lock"
        # One that was made just now is not locked yet.
        if ours.fullmatch(old.name) and lock.is_file() and _age(old) >= YOUNG:
            yield lock


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime
