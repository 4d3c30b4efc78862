"""The run folder: what a run is (run.json), its frozen arrays, its lock."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import jax
import numpy as np

from anigan_jax import runtime, weights
from anigan_jax.config import Config, differences, fingerprint, identity, to_dict
from anigan_jax.data.pack import Pack
from anigan_jax.errors import UserError

FROZEN = "frozen.safetensors"
RUN_SCHEMA = 2


def open_run(
    config: Config, workdir: Path, pack: Pack, source: str, overrides: list[str]
) -> dict[str, np.ndarray]:
    """Writes run.json, or checks it: another config or other data is refused.

    Returns:
      The frozen arrays: of the method at the start, of the run folder afterwards.
    """
    path = workdir / "run.json"
    now = {
        "schema": RUN_SCHEMA,
        "name": config.name,
        "config": to_dict(config),
        "identity": identity(config),
        "config_sha256": fingerprint(config),
        "overrides": overrides,
        "data_sha256": pack.manifest["sha256"],
        "facts": {**runtime.facts(), "devices": config.run.devices or jax.device_count()},
    }
    if path.exists():
        old = same_bits(workdir)
        changed = differences(old["identity"], now["identity"])
        if changed:
            listed = "; ".join(changed[:8])
            raise UserError(f"{workdir} holds another run: {listed}. Take another --workdir")
        if old["data_sha256"] != now["data_sha256"]:
            raise UserError(f"the data of {workdir} changed since its start; it cannot resume")
        for line in differences(old["facts"], now["facts"]):
            print(f"warning: {line}; the resumed run is not promised the same bits", flush=True)
        return frozen_of(workdir)
    if workdir.exists() and any(p.name not in ("lock", FROZEN) for p in workdir.iterdir()):
        raise UserError(f"{workdir} is not empty and holds no run; take another --workdir")
    frozen = config.method.frozen(pack)
    if frozen:
        now["frozen_sha256"] = weights.write(frozen, workdir / FROZEN)
    (workdir / "config.py").write_text(source)
    temp = workdir / ".run.json"
    temp.write_text(json.dumps(now, indent=1))
    temp.replace(path)
    return frozen


def frozen_of(workdir: Path) -> dict[str, np.ndarray]:
    """The frozen arrays of a run folder; {} where it has none."""
    wanted = read_run(workdir).get("frozen_sha256")
    return weights.read(workdir / FROZEN, wanted) if wanted else {}


def read_run(workdir: Path) -> dict:
    """run.json of a run folder."""
    try:
        return json.loads((workdir / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir} is no run folder: {error}") from None


def same_bits(workdir: Path) -> dict:
    """run.json of a run that this version can repeat; others can only be looked at."""
    recorded = read_run(workdir)
    if recorded.get("schema") != RUN_SCHEMA:
        # Schema 1 drew its mirror flips from other keys.
        raise UserError(
            f"{workdir} was made by another version (schema {recorded.get('schema')}, here "
            f"{RUN_SCHEMA}), whose bits this one does not repeat; use that version, or train anew"
        )
    return recorded


def lock(workdir: Path, busy: str = "another process is training in"):
    """Holds a folder for this process; a second one is refused, `busy` and the folder's name."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        handle = (workdir / "lock").open("a+")
    except OSError as error:
        raise UserError(f"workdir {workdir} cannot be written: {error}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(f"{busy} {workdir}") from None
    return handle
