"""The run folder: what a run is (run.json), its frozen arrays, its lock."""

from __future__ import annotations

import fcntl
import json
import os
import platform as host
from pathlib import Path

import jax
import numpy as np

from anigan_jax.config import Config, differences, fingerprint, identity, to_dict
from anigan_jax.data import diff
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import UserError
from anigan_jax.runtime import environment
from anigan_jax.storage import atomic, safetensors
from anigan_jax.storage.checkpoint import Found

FROZEN, CONTENTS = "frozen.safetensors", "data.json"
RUN_SCHEMA = 2


def previews_dir(run: Path) -> Path:
    """Where training writes its previews, a folder each: NAME/step_N.png."""
    return run / "previews"


def out_dir(run: Path, verb: str) -> Path:
    """Where a verb writes what it makes of a run."""
    return run / "out" / verb


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
        "facts": facts_here(config),
    }
    if path.exists():
        old = same_bits(workdir)
        changed = differences(old["identity"], now["identity"])
        if changed:
            listed = "; ".join(changed[:8])
            raise UserError(f"{workdir} holds another run: {listed}. Take another --workdir")
        if old["data_sha256"] != now["data_sha256"]:
            told = diff.since(workdir / CONTENTS, pack)
            raise UserError(
                f"the data of {workdir} changed since its start ({told}); it cannot resume. "
                "Bring the data back, or take another --workdir"
            )
        for line in changes(old, config):
            print(f"warning: {line}; the resumed run is not promised the same bits", flush=True)
        return frozen_of(workdir)
    # What a start that was killed leaves before run.json.
    begun = {"lock", FROZEN, CONTENTS, "config.py", ".run.json", ".config.py"}
    begun |= {f".{FROZEN}", f".{CONTENTS}"}
    if workdir.exists() and any(p.name not in begun for p in workdir.iterdir()):
        raise UserError(f"{workdir} is not empty and holds no run; take another --workdir")
    frozen = config.method.frozen(pack)
    if frozen:
        now["frozen_sha256"] = safetensors.write(frozen, workdir / FROZEN)
    atomic.save_text(source, workdir / "config.py")
    diff.record(pack, workdir / CONTENTS)
    _write(now, workdir)
    return frozen


def facts_here(config: Config) -> dict:
    """Versions, flags, devices and processes that the bits rest on."""
    facts = {**environment.facts(), "devices": config.run.devices or jax.device_count()}
    return {**facts, "processes": jax.process_count()}


def facts_of(config: Config, pack: Pack) -> dict:
    """All that the processes of a run must hold in common."""
    run = {f"run.{name}": value for name, value in to_dict(config.run).items()}
    data = {"data_sha256": pack.manifest["sha256"]}
    facts = {**facts_here(config), "anigan_jax": environment.sources()}
    if facts["platform"] != "cpu":
        # Threads of the host change no bits of another device.
        del facts["NPROC"]
    return {**identity(config), **run, **data, **facts}


def changes(recorded: dict, config: Config) -> list[str]:
    """What differs between a run's last start and this process, as 'name: then -> now'."""
    # Runs of before had one process, and did not say so.
    last = (recorded.get("resumed") or [recorded])[-1]["facts"]
    return differences({"processes": 1, **last}, facts_here(config))


def same_run(config: Config, workdir: Path, found: Found | None) -> None:
    """Refuses a checkpoint that another run put here: the same shapes say little."""
    mine = fingerprint(config)
    if found and found.manifest["meta"].get("config_sha256", mine) != mine:
        raise UserError(
            f"checkpoint {found.step} of {workdir} was made under other settings than run.json "
            "says; bring back the folder's own checkpoints, or take another --workdir"
        )


def note_resume(workdir: Path, config: Config, step: int) -> None:
    """Writes into run.json that a run goes on under other conditions, from which step."""
    recorded = read_run(workdir)
    changed = changes(recorded, config)
    if not changed:
        return
    now = facts_here(config)
    if step == 0:
        # It starts over: nothing is left of what came before.
        recorded.pop("resumed", None)
        _write({**recorded, "facts": now}, workdir)
        return
    resumed = [*recorded.get("resumed", []), {"step": step, "changed": changed, "facts": now}]
    _write({**recorded, "resumed": resumed}, workdir)


def _write(recorded: dict, workdir: Path) -> None:
    atomic.save_text(json.dumps(recorded, indent=1), workdir / "run.json")


def frozen_of(workdir: Path) -> dict[str, np.ndarray]:
    """The frozen arrays of a run folder; {} where it has none."""
    wanted = read_run(workdir).get("frozen_sha256")
    return safetensors.read(workdir / FROZEN, wanted) if wanted else {}


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
    except BlockingIOError:
        handle.seek(0)
        owner = handle.read(200).strip()
        raise UserError(f"{busy} {workdir}" + (f" ({owner})" if owner else "")) from None
    except OSError as error:
        raise UserError(f"{workdir} cannot be locked ({error}); take another place") from None
    handle.truncate(0)
    handle.write(f"process {os.getpid()} on {host.node()}\n")
    handle.flush()
    return handle
