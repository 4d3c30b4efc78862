"""Digests of files that were hashed before: known again by size and time of change."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from anigan_jax.data.archives import Member, facts_of
from anigan_jax.runtime.environment import cache_home

# A file that changed so short before it was hashed may change again within the clock's tick.
YOUNG = 2.0


def sha256(root: Path, members: Iterable[Member], folder: Path) -> str:
    """SHA-256 over the names and contents of files; read again only where one changed.

    Args:
      root: what the files belong to; by its real path it is remembered.
      members: their names, which are part of the digest, and what is known of them.
      folder: where they lie, which is not.
    """
    members = [m if m.facts else _looked_at(m, folder) for m in members]
    now, signature = time.time(), hashlib.sha256()
    newest = max((max(m.facts[:2]) if m.facts else now * 1e9 for m in members), default=0)
    for member in members:
        line = f"{member.name}\0{member.facts}\n"
        signature.update(line.encode("utf-8", "surrogateescape"))
    place = _place(root)
    if known := _known(place, signature.hexdigest()):
        return known
    digest = hashlib.sha256()
    for member in members:
        try:
            with (folder / member.name).open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            content = error.strerror or "unreadable"
        digest.update(f"{member.name}\0{content}\n".encode("utf-8", "surrogateescape"))
    if newest < (now - YOUNG) * 1e9:
        _remember(place, {"signature": signature.hexdigest(), "sha256": digest.hexdigest()})
    return digest.hexdigest()


def _looked_at(member: Member, folder: Path) -> Member:
    try:
        return member._replace(facts=facts_of((folder / member.name).stat()))
    except OSError:
        return member


def _place(root: Path) -> Path:
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]
    return cache_home() / "digests" / f"{name}.json"


def _known(place: Path, signature: str) -> str | None:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        return str(found["sha256"]) if found["signature"] == signature else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(place: Path, found: dict[str, str]) -> None:
    """Whole or not at all; where nothing can be written, nothing is remembered."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temp = place.with_name(f".{place.name}-{os.getpid()}")
        temp.write_text(json.dumps(found), encoding="utf-8")
        temp.replace(place)
    except OSError:
        return
