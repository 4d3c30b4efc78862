"""Weights as safetensors: of runs, and of foreign networks converted once; never unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from anigan_jax.errors import UserError

MAX_HEADER = 2**20
MAX_BYTES = 2**32
ABOUT = "anigan"
OF_A_RUN = "weights.safetensors"
"""The networks of a run, in its folder."""
ASSETS = Path(__file__).parent / "networks" / "assets"
LANDMARKS = ASSETS / "face_landmarks_68.safetensors"


def write(arrays: dict[str, np.ndarray], path: Path, about: dict | None = None) -> str:
    """Writes a safetensors file whole or not at all; returns its SHA-256.

    Args:
      about: JSON, kept beside the arrays; see `metadata`.
    """
    notes = {ABOUT: json.dumps(about)} if about else None
    # Not ascontiguousarray: it makes a scalar an array of one.
    data = save({name: np.asarray(value, order="C") for name, value in arrays.items()}, notes)
    temp = path.with_name(f".{path.name}")
    with temp.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temp, path)
    return hashlib.sha256(data).hexdigest()


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
    if length > MAX_HEADER:
        raise ValueError(f"its header claims {length:,} bytes")
    return data[8 : 8 + length]


def flatten(tree: dict, prefix: str = "") -> dict[str, np.ndarray]:
    """A tree of dicts -> 'path/to/leaf' -> array."""
    flat = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        flat |= flatten(value, f"{path}/") if isinstance(value, dict) else {path: np.asarray(value)}
    return flat


def unflatten(flat: dict[str, np.ndarray]) -> dict:
    """The inverse of `flatten`."""
    tree: dict = {}
    for path, value in flat.items():
        *parents, leaf = path.split("/")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = value
    return tree


def from_face_api(folder: Path) -> bytes:
    """The 68-point landmark network of face-api.js as safetensors, still quantised.

    Each tensor NAME is uint8 with NAME/scale and NAME/min: value = byte * scale + min.

    Args:
      folder: holds face_landmark_68_model.bin and its -weights_manifest.json.

    Raises:
      UserError: the files are absent or do not fit together.
    """
    stem = "face_landmark_68_model"
    try:
        groups = json.loads((folder / f"{stem}-weights_manifest.json").read_text())
        data = (folder / f"{stem}.bin").read_bytes()
        arrays, at = {}, 0
        for entry in groups[0]["weights"]:
            count = int(np.prod(entry["shape"]))
            quantised = entry["quantization"]
            if quantised["dtype"] != "uint8":
                raise ValueError(f"{entry['name']} is {quantised['dtype']}, not uint8")
            values = np.frombuffer(data, np.uint8, count, at).reshape(entry["shape"])
            arrays[entry["name"]] = values
            arrays[f"{entry['name']}/scale"] = np.array([quantised["scale"]])
            arrays[f"{entry['name']}/min"] = np.array([quantised["min"]])
            at += count
        if at != len(data):
            raise ValueError(f"{len(data) - at} bytes are left over")
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{folder} holds no {stem} of face-api: {error}") from None
    return save(arrays)


def face_landmarks() -> dict:
    """Parameters of `networks.landmarks.Landmarks` (MIT, beside the file), dequantised."""
    arrays, tree = read(LANDMARKS), {}
    for name, values in arrays.items():
        if name.endswith(("/scale", "/min")):
            continue
        # tfjs computes in double and stores float32.
        value = values * arrays[f"{name}/scale"] + arrays[f"{name}/min"]
        *path, leaf = name.split("/")
        if leaf == "depthwise_filter":
            value = value.transpose(0, 1, 3, 2)  # (k, k, C, 1) -> Flax's (k, k, 1, C)
        if path[0] != "fc" and path != ["dense0", "conv0"]:
            # A separable convolution; its bias is that of the pointwise half.
            path.append("depthwise" if leaf == "depthwise_filter" else "pointwise")
        node = tree.setdefault("_".join(path), {})
        node["bias" if leaf == "bias" else "kernel"] = value.astype(np.float32)
    return tree
