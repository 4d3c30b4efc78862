"""Checkpoints: Orbax, wrapped so that damage and mismatch are seen. Orbax's only room.

Orbax restores a flipped byte silently and does not fsync, so each checkpoint carries a
manifest with the SHA-256 of every file and leaf, and is committed by one rename.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from anigan_jax.core import PyTree
from anigan_jax.errors import UserError

SCHEMA = 1
logging.getLogger("absl").setLevel(logging.ERROR)


class Found(NamedTuple):
    """A restored checkpoint; the leaves of `state` are NumPy arrays."""

    step: int
    state: PyTree
    manifest: dict


def leaf_digests(tree: PyTree) -> dict[str, dict]:
    """Path of each leaf -> its dtype, shape and SHA-256."""
    digests = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf, order="C")
        digests[jax.tree_util.keystr(path)] = {
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
        }
    return digests


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _file_digests(folder: Path) -> dict[str, dict]:
    digests = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        name = path.relative_to(folder).as_posix()
        digests[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return digests


def save(folder: Path, step: int, state: PyTree, meta: dict) -> Path:
    """Writes folder/step_…, durable and whole or not at all.

    Args:
      state: arrays, the same on every device; one replica is saved.
      meta: JSON, kept in the manifest.
    """
    host = jax.tree.map(np.asarray, state)
    temp, final = folder / f".tmp-{step}-{os.getpid()}", folder / f"step_{step:09d}"
    shutil.rmtree(temp, ignore_errors=True)
    temp.mkdir(parents=True)
    with ocp.PyTreeCheckpointer() as writer:
        writer.save((temp / "state").resolve(), jax.tree.leaves(host))
    manifest = {
        "schema": SCHEMA,
        "step": step,
        "meta": meta,
        "leaves": leaf_digests(host),
        "files": _file_digests(temp / "state"),
    }
    (temp / "manifest.json").write_text(json.dumps(manifest, indent=1))
    for path in (*temp.rglob("*"), temp):
        _sync(path)
    old = folder / f".old-{step}-{os.getpid()}"
    if final.exists():
        final.rename(old)
    temp.rename(final)
    _sync(folder)
    shutil.rmtree(old, ignore_errors=True)
    return final


def steps(folder: Path) -> list[int]:
    """Committed steps, ascending."""
    names = (path.name for path in folder.glob("step_*") if path.is_dir())
    return sorted(int(name[5:]) for name in names if name[5:].isdigit())


def prune(folder: Path, keep: int, every: int = 0, best: int | None = None) -> None:
    """Deletes all but the newest `keep` checkpoints, and what killed saves left.

    Checkpoints of steps that `every` divides stay (0: none), and that of step `best`.
    """
    for step in steps(folder)[:-keep]:
        if step != best and not (every and step % every == 0):
            shutil.rmtree(folder / f"step_{step:09d}")
    for path in (*folder.glob(".tmp-*"), *folder.glob(".old-*")):
        shutil.rmtree(path, ignore_errors=True)


def verify(path: Path) -> list[str]:
    """Every fault of a checkpoint folder; empty where it is whole."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        known = manifest["files"]
        schema = manifest["schema"]
    except (OSError, ValueError, KeyError) as error:
        return [f"manifest.json: {error}"]
    if schema != SCHEMA:
        return [f"manifest.json: schema {schema}, this version reads {SCHEMA}"]
    found = _file_digests(path / "state")
    faults = [f"state/{name}: missing" for name in known.keys() - found.keys()]
    faults += [f"state/{name}: unknown file" for name in found.keys() - known.keys()]
    faults += [
        f"state/{name}: changed"
        for name in known.keys() & found.keys()
        if known[name] != found[name]
    ]
    return sorted(faults)


def _mismatch(manifest: dict, like: PyTree) -> list[str]:
    want = {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(like)
    }
    have = {path: f"{d['dtype']}{d['shape']}" for path, d in manifest["leaves"].items()}
    return [
        f"{path}: {have.get(path, 'absent')} in the checkpoint, {want.get(path, 'absent')} here"
        for path in sorted(want.keys() | have.keys())
        if want.get(path) != have.get(path)
    ]


def restore(
    folder: Path, like: PyTree, *, at: int | None = None, report: Callable = print
) -> Found | None:
    """The newest whole checkpoint (or that of step `at`), or None where there never was one.

    A damaged newest one is reported, kept as `….corrupt`, and the one before it is used.

    Raises:
      UserError: all are damaged, or that of `at` is, or one holds another tree (every
        difference listed).
    """
    tried = bool(list(folder.glob("*.corrupt"))) if folder.exists() else False
    for step in reversed(steps(folder) if at is None else [at]):
        tried = True
        path = folder / f"step_{step:09d}"
        faults = verify(path)
        if not faults:
            manifest = json.loads((path / "manifest.json").read_text())
            different = _mismatch(manifest, like)
            if different:
                listed = "; ".join(different[:8])
                raise UserError(f"{path} holds another model: {listed}")
            with contextlib.suppress(Exception):
                # Tensorstore raises bare Exceptions; what failed is told below.
                found = Found(step, _read(path, like), manifest)
                if leaf_digests(found.state) == manifest["leaves"]:
                    return found
            faults = ["the arrays are not those of the manifest"]
        if at is not None:
            raise UserError(f"checkpoint {path} is damaged: {'; '.join(faults)}")
        report(f"checkpoint {path.name} is damaged ({'; '.join(faults)}); trying the one before")
        path.rename(path.with_name(path.name + ".corrupt"))
    if tried:
        raise UserError(
            f"all checkpoints in {folder} are damaged; restore one from a backup, or delete "
            "the run folder to start over"
        )
    return None


def _read(path: Path, like: PyTree) -> PyTree:
    leaves, tree = jax.tree.flatten(like)
    target = [np.zeros(leaf.shape, leaf.dtype) for leaf in leaves]
    with ocp.PyTreeCheckpointer() as reader:
        found = reader.restore((path / "state").resolve(), item=target)
    return jax.tree.unflatten(tree, [np.asarray(leaf) for leaf in found])
