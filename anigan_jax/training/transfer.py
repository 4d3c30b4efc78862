"""What a new run takes of another run; the other is only read."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anigan_jax import config as configs
from anigan_jax import parent
from anigan_jax import state as states
from anigan_jax.config import Config
from anigan_jax.core import Method
from anigan_jax.data import attributes
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import UserError
from anigan_jax.storage import checkpoint, metrics_file, run_dir, safetensors
from anigan_jax.storage.run_dir import Taken

OPTIMIZER = ("class", "name")
"""The settings that say which optimizer one is, and with it what its state means."""


class Source(NamedTuple):
    """What another run holds at a step.

    Attributes:
      leaves: by label; constants: by name.
      recorded: run.json; {} of exported weights alone.
    """

    step: int
    leaves: dict[str, np.ndarray]
    constants: dict[str, np.ndarray]
    recorded: dict


def take(config: Config, workdir: Path, pack: Pack) -> Taken | None:
    """What a run of this config in `workdir` starts from; None: from random weights, or it resumes.

    Raises:
      UserError: there is no such run or checkpoint, it is damaged, or its layers do not fit.
    """
    wanted = config.parent
    if not wanted.run or (workdir / run_dir.RUN).exists():
        return None
    run, asked = parent.place(wanted.run)
    run = run_dir.found(run)
    if (at := re.fullmatch(r"step_(\d+)", run.name)) and run.parent.name == "checkpoints":
        whole = f"{run.parent.parent}@{int(at[1])}"
        raise UserError(f"{run} is a checkpoint of a run: --init-from {whole} names it")
    there = _weights(run, asked) or _checkpoint(run, asked)
    method, constants = config.method.make(), config.method.constants(pack)
    players = parent.chosen(wanted, method.players)
    absent = [p for p in players if not any(n.startswith(f"params/{p}/") for n in there.leaves)]
    if absent:
        raise UserError(f"{run} has no player {', '.join(absent)}; see --init-players")
    here = states.labeled(states.abstract_state(config, method, constants))
    old, new = there.recorded.get("identity", {}), configs.identity(config)
    # Moments of one optimizer have the names and shapes of another's.
    which = {f"opt_state/{p}": [f"optimizers.{p}.{part}" for part in OPTIMIZER] for p in players}
    others = [p for p, names in which.items() if old and _of(old, names) != _of(new, names)]
    strange = (*_strange(method, constants, there.constants), *others)
    fit = parent.fit(here, there.leaves, players, wanted.optimizers, strange)
    told = ("method.", *(n for p in others * wanted.optimizers for n in which[p]))
    changed = [line for line in configs.differences(old, new) if line.startswith(told)]
    parent.refuse(wanted, fit, wanted.frozen(config.method), changed if old else None)
    # Layers at random would stay in the average: it begins as one from scratch.
    anew = {"ramps": True} if any(name.startswith("g/") for name in fit.fresh) else {}
    return Taken(
        {name: np.asarray(there.leaves[source]) for name, source in sorted(fit.taken.items())},
        {
            "run": run.resolve().name,
            "path": wanted.run,
            "step": there.step,
            "fingerprint": _fingerprint(run, there.step),
            "config_sha256": there.recorded.get("config_sha256"),
            "players": list(players),
            "taken": sorted({name.split("/")[0] for name in fit.taken}),
            "arrays": len(fit.taken),
            "fresh": fit.fresh,
            **anew,
        },
    )


def _of(identity: dict, names: list[str]) -> list:
    return [identity.get(name) for name in names]


def as_begun(config: Config, workdir: Path) -> Config:
    """The config with its parent as the run in `workdir` names it, where that is the same place."""
    if not config.parent.run or not (workdir / run_dir.RUN).exists():
        return config
    begun = run_dir.read_run(workdir).get("identity", {}).get("parent.run", "")
    if not begun or _place(begun) != _place(config.parent.run):
        return config
    return dataclasses.replace(config, parent=dataclasses.replace(config.parent, run=begun))


def ramps(workdir: Path) -> bool:
    """Whether the average of a run with a parent begins as one from scratch."""
    return bool(run_dir.read_run(workdir).get("parent", {}).get("ramps"))


def _place(text: str) -> tuple[Path, str]:
    run, checkpoint = parent.place(text)
    return run.resolve(), checkpoint or "latest"


def _checkpoint(run: Path, asked: str | None) -> Source:
    """A checkpoint of a run directory; a damaged newest one is passed over."""
    recorded, at = run_dir.read_run(run), run_dir.checkpoint_step(run, asked)
    # By names alone, without the settings of the other run: its code is not needed.
    found = checkpoint.restore(run / "checkpoints", None, at=at, repair=False)
    if found is None:
        raise UserError(f"{run} holds no checkpoint yet")
    names = map(parent.label, found.manifest["leaves"])
    leaves = dict(zip(names, found.state, strict=True))
    return Source(found.step, leaves, run_dir.constants_of(run), recorded)


def _weights(path: Path, asked: str | None) -> Source | None:
    """Exported weights: a file, or a folder with one that is no run directory; else None."""
    file = path / safetensors.WEIGHTS if path.is_dir() else path
    if asked or (path / run_dir.RUN).exists() or not file.is_file():
        return None
    about, held = safetensors.metadata(file), safetensors.widened(safetensors.read(file))
    front = "constants/"
    constants = {n.removeprefix(front): x for n, x in held.items() if n.startswith(front)}
    return Source(int(about.get("step", 0)), held, constants, {})


def _strange(method: Method, here: dict, there: dict) -> tuple[str, ...]:
    """The layers that read or give classes, where the constants of the runs name others."""
    same = attributes.of_arrays(here) == attributes.of_arrays(there)
    return () if same else method.vocabulary


def _fingerprint(run: Path, step: int) -> str | None:
    """Of the other run's whole state at a step, as its ledger has it; None where it has not."""
    path = run / "metrics.jsonl"
    lines = metrics_file.read_metrics(path) if path.exists() else []
    return next((line.get("fingerprint") for line in lines if line["step"] == step), None)


def told(record: dict) -> str:
    """One line: from where a run starts, and what of it starts at random."""
    players = ", ".join(sorted((p.upper() for p in record["players"]), reverse=True))
    more = {"ema": "the average", "opt_state": "optimizers"}
    parts = ", ".join([players, *(more[part] for part in record["taken"] if part in more)])
    rest = f"; at random: {', '.join(record['fresh'])}" if record["fresh"] else ""
    return f"{parts} of {record['run']}, step {record['step']:,}{rest}"
