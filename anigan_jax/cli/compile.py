"""The verb that compiles a training step for devices that are not there."""

from __future__ import annotations

import dataclasses
import json as jsons
import sys
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from anigan_jax import config as configs
from anigan_jax.cli import common
from anigan_jax.cli.common import AsJson, ConfigName, Overrides
from anigan_jax.config import ComputeType, Config
from anigan_jax.errors import UserError
from anigan_jax.report.table import Table, as_text
from anigan_jax.runtime import environment

MIB = 2**20


def compile_(
    config: ConfigName = "ref_dcgan64",
    *,
    for_: Annotated[str, arg(name="for", metavar="TARGET")],
    batch: Annotated[int | None, arg(metavar="N")] = None,
    dtype: ComputeType | None = None,
    images: Annotated[int | None, arg(metavar="N")] = None,
    largest: bool = False,
    hlo: Annotated[Path | None, arg(metavar="FILE")] = None,
    json: AsJson = False,
    overrides: Overrides = (),
) -> int:
    """Compile the training step for a TPU, GPU or CPU that this machine does not have.

    Shows memory, kernels, copies and collectives of each phase, or the compiler's reason; exit
    code 1 if a phase does not compile. Other flags are settings of the config.

    Args:
      for_: v5e:2x2, v5p:2x2x1, v6e:2x2, h100, h200, h200:8, cpu or cpu:2; chips or devices.
      batch: over all devices; if omitted: the config's.
      dtype: if omitted: the config's.
      images: held in each domain; if omitted: as many as the config draws, or 10,000.
      largest: find the largest batch that fits by compiling up to four more, instead of by an
        estimate.
      hlo: write the compiled program as text; with several phases, a file for each.
    """
    for flag, value in (("--batch", batch), ("--images", images)):
        if value is not None:
            common.at_least(flag, value, 1)
    settings = _settings(config, overrides, batch, dtype)
    if hlo:
        # Before a compilation of minutes.
        with common.writing(hlo, "--hlo"):
            hlo.parent.mkdir(parents=True, exist_ok=True)
    kind, _, count = for_.partition(":")
    environment.prepare("cpu", devices=int(count) if kind == "cpu" and count.isdecimal() else 0)
    from anigan_jax.bench import compiled

    target = compiled.target(for_)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    found = compiled.report(settings, target, images or 0, largest, say)
    texts = {phase["phase"]: phase.pop("text", "") for phase in found["phases"]}
    if hlo:
        _write(hlo, texts)
    print(jsons.dumps(found, indent=1) if json else as_text(tables(found)))
    return 1 if any("failed" in phase for phase in found["phases"]) else 0


def _write(path: Path, texts: dict[str, str]) -> None:
    """The programs of the phases that were compiled, in the file or in files beside it."""
    with common.writing(path):
        for phase, text in texts.items():
            named = path.with_name(f"{path.stem}-{phase}{path.suffix}")
            if text:
                (named if len(texts) > 1 else path).write_text(text, encoding="utf-8")


def _settings(
    name: str, overrides: tuple[str, ...], batch: int | None, dtype: str | None
) -> Config:
    settings = common.settings(name, overrides, f"anigan compile {name}")
    if batch:
        settings = dataclasses.replace(settings, batch_size=batch)
    if dtype and not hasattr(settings.method, "dtype"):
        raise UserError(f"{name} has no --method.dtype; it computes in float32 only")
    changes: dict[str, Any] = {"dtype": dtype} if dtype else {}
    method = dataclasses.replace(settings.method, **changes)
    settings = dataclasses.replace(settings, method=method)
    configs.check(settings)
    return settings


def tables(found: dict[str, Any]) -> list[Table]:
    """What was found as a table with a column for each phase."""
    phases = found["phases"]
    cells = [_cells(phase, found) for phase in phases]
    names = dict.fromkeys(name for column in cells for name in column)
    rows = [(name, *(column.get(name, "-") for column in cells)) for name in names]
    count, kind = found["devices"], found["device_kind"]
    where = f"{count} CPU device(s)" if kind == "cpu" else f"{count} x {kind}"
    title = f"{found['config']} for {where}, batch {found['batch']:,}, {found['dtype']}"
    notes = [_largest(found)]
    if kind == "cpu":
        notes.append(
            "On a CPU a kernel is a function of the compiled program, not a launch, and a device's "
            "memory is its share of this machine's."
        )
    if any(phase.get("unknown_loops") for phase in phases):
        notes.append("Loops whose length is known only at run time are counted once.")
    failures = [f"{p['phase']}: {p['failed']}" for p in phases if "failed" in p]
    return [
        Table(title, ("a step of phase", *(p["phase"] for p in phases)), rows, failures + notes)
    ]


def _cells(phase: dict[str, Any], found: dict[str, Any]) -> dict[str, str]:
    """A phase's column, by the names of its rows."""
    if "failed" in phase:
        return {"compiled": "no"}
    memory, number = phase["memory"], "{:,}".format
    all_of_it = found["device_memory"]
    cells = {
        "compiled": f"in {phase['seconds']:.0f} s",
        "MiB on each device: arguments": number(memory["arguments"] // MIB),
        "temporaries": number(memory["temporaries"] // MIB),
        "peak": f"{memory['peak'] // MIB:,} ({memory['peak'] / all_of_it:.1%})",
        "of": number(all_of_it // MIB),
        "kernels": number(phase["kernels"]),
        "fusions": f"{phase['fusions']:,} ({phase['reductions']:,} reduce)",
        "library calls": number(phase["library_calls"]),
        "copies": f"{phase['copies']:,} ({phase['layout_changes']:,} change the layout)",
        "others": number(phase["others"]),
        "convolutions": number(phase["convolutions"]),
        "matrix products": number(phase["products"]),
        "kernels of a dispatch around its steps": number(phase["outside"]),
    }
    for name, label in (("prefetches", "copies meanwhile"), ("scalars", "single numbers")):
        if phase[name]:
            cells[label] = number(phase[name])
    for name, held in phase["collectives"].items():
        cells[name] = f"{held['count']:,} ({held['bytes'] / MIB:,.2f} MiB)"
    if not phase["collectives"]:
        cells["collectives"] = "0"
    for name, label in (("flops", "GFLOP, of the layers"), ("xla_flops", "GFLOP, as XLA counts")):
        if phase[name]:
            cells[label] = f"{phase[name] / 1e9:,.1f}"
    return cells


def _largest(found: dict[str, Any]) -> str:
    """The sentence about the largest batch that fits."""
    most, usable = found["largest_batch"], f"{found['usable_memory'] / 2**30:.1f} GiB"
    held = f"{found['images']:,} images held"
    if most is None:
        return "--largest compiles a few smaller batches to find out whether one fits."
    if found["confirmed"]:
        what = f"compiled, in {usable} per device" if most else f"none was found, in {usable}"
        return f"Largest batch that fits: {most:,} ({what}, {held})."
    return (
        f"Largest batch that fits: about {most:,} (estimated: temporaries are assumed to grow with "
        f"the batch; {usable} per device, {held}). --largest checks it by compiling."
    )
