"""Where packs are made: the cache, and folders that are gone when whoever made them is."""

from __future__ import annotations

import fcntl
import glob
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
        for old in parent.glob(f".{glob.escape(name)}-*"):
            # One that was made just now is not locked yet; one may vanish meanwhile.
            if not old.exists() or time.time() - old.stat().st_mtime < YOUNG:
                continue
            with (old / "lock").open("a") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue
                shutil.rmtree(old, ignore_errors=True)
        path = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
    except OSError as error:
        hint = "; XDG_CACHE_HOME says where instead" if parent == default_cache() else ""
        raise UserError(f"{parent} cannot be written: {error}{hint}") from None
    with (path / "lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
