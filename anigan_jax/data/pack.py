"""Import once, read fast: images as one uint8 memory map with a manifest."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anigan_jax.data.sources import Source
from anigan_jax.errors import UserError

SCHEMA = 1
CHUNK = 128


class Pack(NamedTuple):
    """`images` (N, size, size, 3) uint8 read-only map; `manifest`; its folder."""

    images: np.ndarray
    manifest: dict
    path: Path


def default_cache() -> Path:
    """Where packs live, outside any checkout."""
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "anigan_jax" / "packs"


def _load_chunk(source: Source, names: list[str]) -> list:
    rows = []
    for name in names:
        try:
            rows.append(source.load(name))
        except (ValueError, OSError) as error:
            rows.append(str(error))
    return rows


def build(source: Source, cache: Path, *, workers: int = 2, report: Callable | None = None):
    """Builds or re-uses the pack of a source.

    Args:
      report: called with (images done, images in all).

    Raises:
      UserError: no data, or faulty files under policy 'error', all listed.
    """
    key = source.key()
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    final = cache / name
    if (final / "manifest.json").exists():
        try:
            return open_pack(final)
        except UserError:
            shutil.rmtree(final)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        temp = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
    except OSError as error:
        raise UserError(f"the data cache {cache} cannot be written: {error}") from None
    try:
        _write(source, key, temp, workers, report)
        try:
            temp.rename(final)
        except OSError:
            # Another process built the same pack meanwhile.
            if not (final / "manifest.json").exists():
                raise
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    return open_pack(final)


def _write(source: Source, key: dict, temp: Path, workers: int, report) -> None:
    names = source.names()
    size, total = source.size, len(names)
    chunks = [names[i : i + CHUNK] for i in range(0, total, CHUNK)]
    refused, count, digest = [], 0, hashlib.sha256()
    pixels = temp / "pixels.bin"
    with pixels.open("wb") as file:
        for i, rows in enumerate(_decoded(source, chunks, workers)):
            for name, row in zip(chunks[i], rows, strict=True):
                if isinstance(row, str):
                    refused.append([name, row])
                else:
                    data = np.ascontiguousarray(row).tobytes()
                    digest.update(data)
                    file.write(data)
                    count += 1
            if report:
                report(min((i + 1) * CHUNK, total), total)
        file.flush()
        os.fsync(file.fileno())
    if refused and source.policy == "error":
        listed = "; ".join(f"{name}: {reason}" for name, reason in refused[:10])
        more = f" (and {len(refused) - 10} more)" if len(refused) > 10 else ""
        raise UserError(
            f"{len(refused)} of {total} images cannot be used: {listed}{more}. "
            "Mend them, or leave them out with --data.policy skip"
        )
    if not count:
        raise UserError(f"none of {total} images can be used")
    manifest = {
        "schema": SCHEMA,
        "key": key,
        "count": count,
        "size": size,
        "sha256": digest.hexdigest(),
        "tags": source.tags(),
        "refused": refused,
    }
    with (temp / "manifest.json").open("w") as file:
        json.dump(manifest, file)
        file.flush()
        os.fsync(file.fileno())


def _decoded(source: Source, chunks: list[list[str]], workers: int):
    """Chunks in order, decoded here or in processes; the same either way."""
    if workers < 2 or len(chunks) < 4:
        yield from (_load_chunk(source, chunk) for chunk in chunks)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
        yield from pool.map(_load_chunk, [source] * len(chunks), chunks)


def open_pack(path: Path) -> Pack:
    """Opens a pack; its size must be what the manifest says."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        count, size = manifest["count"], manifest["size"]
        shape = (count, size, size, 3)
        images = np.memmap(path / "pixels.bin", np.uint8, "r", shape=shape)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"the data pack {path} is damaged: {error}") from None
    if (path / "pixels.bin").stat().st_size != images.nbytes:
        raise UserError(f"the data pack {path} is damaged: pixels.bin has the wrong size")
    return Pack(images, manifest, path)


def verify(pack: Pack) -> None:
    """Hashes the pixels again; raises UserError where they changed."""
    digest = hashlib.sha256()
    for start in range(0, len(pack.images), 4096):
        digest.update(np.ascontiguousarray(pack.images[start : start + 4096]).tobytes())
    if digest.hexdigest() != pack.manifest["sha256"]:
        raise UserError(f"the data pack {pack.path} is damaged; delete it and run again")
