"""Checkpoints: Orbax, wrapped so that damage and mismatch are seen. Orbax's only room.

Orbax restores a flipped byte silently and does not fsync all that it writes, so each
checkpoint carries a manifest with the SHA-256 of every file and leaf, and is committed by
one rename. `checkpoint_files` tells what lies in a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from anigan_jax.core import PyTree
from anigan_jax.errors import MachineError, UserError
from anigan_jax.runtime.disk import sync
from anigan_jax.storage.manifest import (
    MANIFEST,
    corrupt,
    examine,
    leftovers,
    path_of,
    places,
    prune,
    recover,
    set_aside,
    steps,
    write_manifest,
)

__all__ = ["Found", "leaf_digests", "prune", "restore", "save", "steps", "verify"]

# What goes wrong in Orbax's threads, `save` raises: it is told once, and not by them too.
logging.getLogger("absl").setLevel(logging.CRITICAL)
_unraisable = sys.unraisablehook


def _quiet(unraisable) -> None:
    # After a failed save, TensorStore's threads still answer to an event loop that is closed.
    if str(unraisable.exc_value) != "Event loop is closed":
        _unraisable(unraisable)


sys.unraisablehook = _quiet


class Found(NamedTuple):
    """A restored checkpoint; the leaves of `state` are NumPy arrays."""

    step: int
    state: PyTree
    manifest: dict


def leaf_digests(tree: PyTree) -> dict[str, dict]:
    """Path of each leaf -> its dtype, shape and SHA-256."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): _digest(leaf) for path, leaf in leaves}


def _digest(leaf) -> dict:
    array = np.asarray(leaf, order="C")
    return {
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
    }


def save(folder: Path, step: int, state: PyTree, meta: dict) -> Path:
    """Writes folder/step_…, durable and whole or not at all.

    Args:
      state: arrays, the same on every device; one replica is saved.
      meta: JSON, kept in the manifest.

    Raises:
      MachineError: it could not be written; what was there before stays.
    """
    host = jax.tree.map(np.asarray, state)
    temp, final = folder / f".tmp-{step}-{os.getpid()}", path_of(folder, step)
    old = folder / f".old-{step}-{os.getpid()}"
    try:
        temp.parent.mkdir(parents=True, exist_ok=True)
        recover(folder)
        # Before `old` is made: one of another process must not be taken for it.
        for path in leftovers(folder):
            shutil.rmtree(path, ignore_errors=True)
        temp.mkdir()
        _write(temp / "state", jax.tree.leaves(host))
        write_manifest(temp, step, meta, leaf_digests(host))
        for path in (*temp.rglob("*"), temp):
            sync(path)
        if final.exists():
            # Killed here, `old` is the checkpoint: see `places`.
            final.rename(old)
        temp.rename(final)
        sync(folder)
        sync(folder.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(temp, ignore_errors=True)
            recover(folder)
        raise MachineError(
            f"the checkpoint of step {step} could not be written to {folder}: {_told(error)}. "
            "Earlier ones are kept; free some space there, then the same command resumes"
        ) from error
    shutil.rmtree(old, ignore_errors=True)
    return final


def _write(path: Path, leaves: list) -> None:
    try:
        with _orbax() as writer:
            writer.save(path.resolve(), leaves)
    except Exception as error:
        # Tensorstore raises what it likes; whatever it is, the disk did not take it.
        raise OSError(_told(error)) from error


def _told(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _orbax() -> ocp.Checkpointer:
    """Orbax for this process alone: others that train beside it are not waited for."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me})
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def restore(
    folder: Path,
    like: PyTree | None,
    *,
    at: int | None = None,
    report: Callable = print,
    repair: bool = True,
) -> Found | None:
    """The newest whole checkpoint (or that of step `at`), or None where there never was one.

    Without `like` its state is a list of arrays, in the order of the manifest's leaves.

    A damaged newest one is reported and the one before it is used. With `repair` it is kept as
    `….corrupt`; a reader leaves the folder as it is.

    Raises:
      UserError: all are damaged, or that of `at` is, or one holds another tree (every
        difference listed) or comes from a newer version.
      MachineError: one cannot be read now, which says nothing about it.
    """
    if at is not None:
        path = places(folder).get(at, path_of(folder, at))
        found, faults = _load(path, at, like, report)
        if faults:
            raise UserError(f"checkpoint {path} is damaged: {'; '.join(faults)}")
        return found
    passed: set[int] = set()
    # Listed anew each time: the process that trains here may have deleted one.
    while left := {s: path for s, path in places(folder).items() if s not in passed}:
        step, path = max(left.items())
        found, faults = _load(path, step, like, report)
        if not faults:
            return found
        if not path.exists():
            continue
        passed.add(step)
        report(f"checkpoint {path.name} is damaged ({'; '.join(faults)}); trying the one before")
        if not repair:
            continue
        try:
            set_aside(path, folder, step)
        except OSError as error:
            report(f"it keeps its name: {error}")
    if passed or corrupt(folder):
        raise UserError(
            f"all checkpoints in {folder} are damaged; restore one from a backup, or delete "
            "the run folder to start over"
        )
    return None


def verify(path: Path, step: int) -> list[str]:
    """Every fault of a step's checkpoint, of its files and its arrays; empty where it is whole.

    Raises:
      UserError: a newer version wrote it.
      MachineError: it cannot be read now, which says nothing about it.
    """
    return _load(path, step)[1]


def _load(
    path: Path, step: int, like: PyTree | None = None, report: Callable = print
) -> tuple[Found | None, list[str]]:
    """(checkpoint, []), or (None, faults); without `like` its state is a list of arrays."""
    manifest, faults = examine(path, step)
    if faults:
        return None, faults
    leaves = manifest["leaves"]
    if like is None:
        try:
            target = [np.zeros(leaf["shape"], leaf["dtype"]) for leaf in leaves.values()]
        except (TypeError, ValueError, MemoryError) as error:
            return None, [f"{MANIFEST}: {_told(error)}"]
    else:
        _same_tree(path, leaves, like, report)
        target = [np.zeros(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(like)]
    try:
        with _orbax() as reader:
            arrays = reader.restore((path / "state").resolve(), item=target)
    except Exception as error:
        if not path.exists():
            return None, ["it was deleted meanwhile"]
        raise MachineError(
            f"the files of {path} are whole, but they could not be read: {_told(error)}; "
            "nothing was changed"
        ) from error
    arrays = [np.asarray(array) for array in arrays]
    # JSON keeps the order in which Orbax was given the leaves.
    pairs = zip(leaves.items(), arrays, strict=True)
    faults = [f"array {name}: not as saved" for (name, leaf), x in pairs if _digest(x) != leaf]
    if faults:
        return None, faults
    state = arrays if like is None else jax.tree.unflatten(jax.tree.structure(like), arrays)
    return Found(step, state, manifest), []


def _same_tree(path: Path, leaves: dict, like: PyTree, report: Callable) -> None:
    want = {
        jax.tree_util.keystr(name): f"{leaf.dtype}{list(leaf.shape)}"
        for name, leaf in jax.tree_util.tree_leaves_with_path(like)
    }
    have = {name: f"{leaf['dtype']}{leaf['shape']}" for name, leaf in leaves.items()}
    names = sorted(name for name in want.keys() | have.keys() if want.get(name) != have.get(name))
    for name in names:
        report(f"{name}: {have.get(name, 'absent')} in it, {want.get(name, 'absent')} here")
    if names:
        raise UserError(
            f"{path} holds another model: {len(names)} arrays differ, as listed, of "
            f"{len(want)} here; use the config that it was made with"
        )
