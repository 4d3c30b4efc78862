"""A run's generators in a folder, in each form that there is."""

from __future__ import annotations

import json
from pathlib import Path

from anigan_jax.errors import UserError
from anigan_jax.export import hub, onnx, stablehlo, weights
from anigan_jax.export.about import about, refuse_own_code
from anigan_jax.export.generators import Generator, generators_of
from anigan_jax.opened import Opened
from anigan_jax.storage import atomic

KINDS = ("onnx", "stablehlo", "weights", "hub")


def check(to: str, opset: int) -> None:
    """Refuses what could not be written, before a run is opened.

    Args:
      to: 'onnx', 'stablehlo', 'weights' or 'hub'.
    """
    if to not in KINDS:
        raise UserError(f"to is {to!r}; it must be one of {', '.join(KINDS)}")
    if to == "stablehlo":
        stablehlo.check()
    elif to != "weights":
        onnx.check(opset)


def write(trained: Opened, to: str, folder: Path, opset: int, data_license: str) -> dict[str, str]:
    """Fills a folder; gives the names of its files and what is known about each.

    Raises:
      UserError: the run has no generator, or none of that form.
    """
    if to == "stablehlo":
        return _stablehlo(trained, folder, data_license)
    if to != "onnx":
        refuse_own_code(trained)
    if to == "weights":
        return weights.write(trained, folder, data_license)
    found = {}
    for generator in generators_of(trained, "float32"):
        data, told = onnx.write(generator, about(trained, generator, data_license), opset)
        name = f"{generator.name}.onnx"
        (folder / name).write_bytes(data)
        found[name] = f"{len(data) / 1e6:.1f} MB, {told}"
        # In the file too, where a browser's runtime does not read it.
        found |= _told(trained, generator, folder, data_license)
    if to == "hub":
        hub.write(trained, folder, found, data_license)
        found |= dict.fromkeys(
            ("weights.safetensors", "config.json", "samples.png", "README.md"), ""
        )
    return found


def _stablehlo(trained: Opened, folder: Path, data_license: str) -> dict[str, str]:
    found = {}
    for generator in generators_of(trained):
        data = stablehlo.write(generator)
        name = f"{generator.name}.stablehlo"
        (folder / name).write_bytes(data)
        found[name] = f"{len(data) / 1e6:.1f} MB, for {', '.join(stablehlo.PLATFORMS)}"
        found |= _told(trained, generator, folder, data_license)
    return found


def _told(trained: Opened, generator: Generator, folder: Path, data_license: str) -> dict[str, str]:
    """Writes what a generator takes, and the words that its labels stand for, as JSON."""
    inputs = {key: ["batch", *a.shape[1:], str(a.dtype)] for key, a in generator.sample.items()}
    told = {"inputs": inputs, **about(trained, generator, data_license)}
    name = f"{generator.name}.json"
    atomic.save_text(json.dumps(told, indent=1) + "\n", folder / name)
    return {name: "what it takes, and the words of its labels"}
