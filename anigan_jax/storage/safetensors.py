"""Weights as safetensors: of runs, and of converted pretrained networks; never unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from anigan_jax.errors import UserError
from anigan_jax.storage import atomic

# Of 49,000 captions, 12 wordings of 4,096 combinations, six million bytes.
MAX_HEADER = 2**23
MAX_BYTES = 2**32
ABOUT = "anigan"
SUFFIX = ".safetensors"
# How zips begin, and pickles of protocols 2 to 5: what torch.save writes.
PYTORCH = (b"PK\x03\x04", *(bytes((0x80, protocol)) for protocol in range(2, 6)))
WEIGHTS = f"weights{SUFFIX}"
"""The networks of a run, in its folder."""


def write(arrays: dict[str, np.ndarray], path: Path, about: dict | None = None) -> str:
    """Writes a safetensors file whole or not at all; returns its SHA-256.

    Args:
      about: JSON, kept beside the arrays; see `metadata`.

    Raises:
      UserError: they are more than `read` takes.
    """
    notes = {ABOUT: json.dumps(about)} if about else None
    # Not ascontiguousarray: it makes a scalar an array of one.
    data = save({name: np.asarray(value, order="C") for name, value in arrays.items()}, notes)
    if len(data) > MAX_BYTES:
        raise UserError(f"{path} would have {len(data):,} bytes; at most {MAX_BYTES:,} are read")
    temp = atomic.partial(path)
    with temp.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temp, path)
    return hashlib.sha256(data).hexdigest()


def widened(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights kept in half precision as float32, which networks compute with."""
    half = np.dtype(np.float16)
    return {k: v.astype(np.float32) if v.dtype == half else v for k, v in arrays.items()}


def read(path: Path, sha256: str | None = None) -> dict[str, np.ndarray]:
    """Arrays of a safetensors file; its checksum must be `sha256` where one is given.

    Raises:
      UserError: not a safetensors file, or one with a header out of bounds, or changed.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise ValueError(f"it has {size:,} bytes; at most {MAX_BYTES:,} are read")
            # Before the rest is read at all.
            _header(file.read(8 + MAX_HEADER))
            file.seek(0)
            data = file.read()
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError("its checksum is not the recorded one")
        return load(data)
    except Exception as error:
        # safetensors raises SafetensorError, KeyError, ... on hostile files.
        raise UserError(f"{path} holds no readable weights (safetensors): {error}") from None


def metadata(path: Path) -> dict:
    """What `write` was told about the arrays; {} where nothing.

    Raises:
      UserError: as `read`.
    """
    try:
        with path.open("rb") as file:
            notes = json.loads(_header(file.read(8 + MAX_HEADER))).get("__metadata__", {})
        return json.loads(notes.get(ABOUT, "{}"))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} holds no readable weights (safetensors): {error}") from None


def _header(data: bytes) -> bytes:
    if len(data) < 8:
        raise ValueError(f"it has {len(data)} bytes")
    (length,) = struct.unpack_from("<Q", data)
    if length > MAX_HEADER and data.startswith(PYTORCH):
        raise ValueError(
            "it is a PyTorch or pickle file, whose networks are not those of a run here; "
            "`anigan weights` takes those of VGG and Inception"
        )
    if length > MAX_HEADER:
        raise ValueError(f"its header claims {length:,} bytes; at most {MAX_HEADER:,} are read")
    return data[8 : 8 + length]


def flatten(tree: dict, prefix: str = "") -> dict[str, np.ndarray]:
    """A tree of dicts -> 'path/to/leaf' -> array."""
    flat = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        flat |= flatten(value, f"{path}/") if isinstance(value, dict) else {path: np.asarray(value)}
    return flat


def empty(tree: dict, prefix: str = "") -> list[str]:
    """Paths of a tree's dicts that hold nothing, which `flatten` leaves out."""
    if not tree:
        return [prefix]
    found = []
    for name, value in tree.items():
        if isinstance(value, dict):
            found += empty(value, f"{prefix}/{name}".removeprefix("/"))
    return found


def unflatten(flat: dict[str, np.ndarray], empty: Iterable[str] = ()) -> dict:
    """The inverse of `flatten`; `empty`: paths of dicts that hold nothing."""
    tree: dict = {}
    for path in empty:
        node = tree
        for name in path.split("/"):
            node = node.setdefault(name, {})
    for path, value in flat.items():
        *parents, leaf = path.split("/")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = value
    return tree
