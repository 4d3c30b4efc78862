"""What became of a data set since a run began, image by image."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from anigan_jax.data.dataset import Pack, column
from anigan_jax.errors import printable

BYTES = 16
"""Of a digest: enough to tell images apart, not against an attacker."""
LISTED = 8


def contents(pack: Pack) -> dict[str, str]:
    """'part/name' of every image -> a digest of its pixels and labels (JSON)."""
    columns, found = pack.examples(), {}
    names = [column(a.name) for a in pack.attributes]
    labels = list(zip(*(columns[c] for c in names if c in columns), strict=True))
    for part, (start, stop) in pack.manifest["parts"].items():
        for row, pixels in zip(range(start, stop), pack.part(part), strict=True):
            digest = hashlib.blake2b(pixels, digest_size=BYTES)
            digest.update(repr(labels[row]).encode() if labels else b"")
            found[f"{part}/{columns['names'][row]}"] = digest.hexdigest()
    return found


def differences(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Lines that say which images were renamed, added, removed or edited, by `contents`."""
    gone = {name: old[name] for name in sorted(old.keys() - new.keys())}
    come = {name: new[name] for name in sorted(new.keys() - old.keys())}
    lines, by_digest = [], {digest: name for name, digest in gone.items()}
    for name, digest in list(come.items()):
        if digest in by_digest:
            was = by_digest.pop(digest)
            lines.append(f"renamed {was} to {name}")
            del come[name], gone[was]
    edited = sorted(name for name in old.keys() & new.keys() if old[name] != new[name])
    for what, names in (("added", come), ("removed", gone), ("edited", edited)):
        lines += [f"{what} {name}" for name in names]
    return lines


def since(path: Path, pack: Pack) -> str:
    """What differs between a pack and what was recorded, in one line; the first of many."""
    try:
        recorded = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return f"what changed cannot be told: {path.name} is missing or damaged"
    lines = differences(recorded, contents(pack))
    if not lines:
        return "the same images and labels, but other groups or landmarks"
    more = f" and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
    return f"{', '.join(map(printable, lines[:LISTED]))}{more}"
