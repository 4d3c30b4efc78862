"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from anigan_jax.errors import UserError
from anigan_jax.runtime.disk import sync

PARTIAL = ".partial"
"""What a kill may leave in a folder that was there."""


def partial(path: Path) -> Path:
    """Where `path` is written until it is whole: beside it, by a name that nobody else gives.

    What a kill left there is written over.
    """
    return path.with_name(f".{path.name}.partial")


def save_text(text: str, path: Path) -> Path:
    """Writes a text file whole or not at all, and to the disk."""
    return save_bytes(text.encode(), path)


def save_bytes(data: bytes, path: Path) -> Path:
    """Writes a file whole or not at all, and to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = partial(path)
    with temp.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temp, path)
    sync(path.parent)
    return path


def need_same(temp: Path, path: Path) -> None:
    """Refuses to replace a file by one of other content, which is deleted then.

    Raises:
      UserError: `path` is there and holds something else.
    """
    if path.exists() and not (path.is_file() and filecmp.cmp(temp, path, shallow=False)):
        temp.unlink()
        raise UserError(f"{path} already exists with other content; give another --out")


def refuse_taken(path: Path, flag: str) -> None:
    """Refuses a place for a new folder where something is already."""
    if path.exists() and not (path.is_dir() and {p.name for p in path.iterdir()} <= {PARTIAL}):
        what = "not empty" if path.is_dir() else "a file"
        raise UserError(f"{flag} {path} is {what}; give a new or an empty folder")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives a folder to fill, which gets the name `path` once all is in it.

    Where anything fails, nothing is left. `path` is new, or an empty folder.

    Raises:
      UserError: it cannot be written.
    """
    path = path.absolute()
    # One that is there may be a disk of its own, a link, or where somebody stands: it stays.
    within = path.is_dir()
    temp = path / PARTIAL if within else partial(path)
    try:
        # A kill may have left one.
        for left in (temp, partial(path)):
            shutil.rmtree(left, ignore_errors=True)
        temp.mkdir(parents=True)
        yield temp
        for file in temp.rglob("*"):
            sync(file)
        sync(temp)
        if within:
            for entry in temp.iterdir():
                entry.rename(path / entry.name)
            temp.rmdir()
            sync(path)
            return
        temp.rename(path)
        sync(path.parent)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temp, ignore_errors=True)
