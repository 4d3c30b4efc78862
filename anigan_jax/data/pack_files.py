"""The files of a pack as they are written: whole, on the disk, hashed; and what is not in them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from anigan_jax.data.decode import NOTED, REFUSED
from anigan_jax.data.discover import counted
from anigan_jax.data.ingest import Scan

BLOCK = 1024
# What became of labels, by the code of the finding.
LABELS = {
    "no label": "images without one",
    "unlabeled": "images without a class of an attribute",
    "conflict": "rows that contradict themselves or another",
    "bad row": "rows that cannot be read",
}


def rows(path: Path, found: Scan, change: Callable | None = None) -> str:
    """Writes the pixels of the used rows, changed each where asked; their SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, len(found.order), BLOCK):
            pixels = found.take(found.order[start : start + BLOCK])
            if change:
                pixels = np.stack([change(image) for image in pixels])
            data = pixels.tobytes()
            digest.update(data)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def landmarks(folder: Path, found: Scan, parts, detect: Callable) -> str:
    """Writes the landmarks of all images but those of domain B; their SHA-256."""
    points = np.full((len(found.order), 68, 2), np.nan, np.float32)
    for name, (start, stop) in parts.items():
        if not name.endswith("B"):
            for at in range(start, stop, BLOCK):
                used = found.order[at : min(at + BLOCK, stop)]
                points[at : at + len(used)] = detect(found.take(used))
    path = folder / "landmarks.npy"
    with path.open("wb") as file:
        np.save(file, points, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(path.read_bytes()).hexdigest()


def as_json(path: Path, value) -> str:
    """Writes JSON; its SHA-256."""
    text = json.dumps(value).encode()
    with path.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(text).hexdigest()


# Why images have no labels though something lies there.
WITHOUT = ("no attribute", "folders", "tables")


def unlabeled(manifest: dict) -> str:
    """What would give labels to a pack that has none; '' where nothing is known."""
    found = (NOTED[code] for code in WITHOUT if code in manifest.get("counts", {}))
    return next(found, "").replace(" --", " --data.")


def notes(manifest: dict) -> list[str]:
    """What was left out of a pack and why, what was not read, what has no label: a line each."""
    counts, found = manifest.get("counts", {}), []
    first = {code: (file, why) for file, code, why in reversed(manifest.get("refused", ()))}
    if first:
        kinds = (
            f"{counts[code]:,} {code} ({': '.join(filter(None, example))})"
            for code, example in first.items()
        )
        gone = sum(n for code, n in counts.items() if code in REFUSED)
        found.append(f"left out    {gone:,} files: {', '.join(kinds)}")
    if manifest.get("ignored"):
        found.append(f"not read    {counted(manifest['ignored'])}")
    if labels := {what: counts[code] for code, what in LABELS.items() if code in counts}:
        found.append(f"labels      {counted(labels)}")
    found += [f"note: {NOTED[code]}" for code in (*WITHOUT, "untrained") if code in counts]
    found += [
        f"note: {code} ({counts[code]:,} of the images): {NOTED[code]}"
        for code in ("16-bit", "dark", "transparent")
        if code in counts
    ]
    if small := counts.get("enlarged"):
        size = manifest["size"]
        found.append(f"note: {small:,} images are smaller than {size} px and were enlarged")
    # A training names the settings of its data so.
    return [line.replace(" --", " --data.") for line in found]
