"""The run directory: what a run is (run.json), its own code, its constants.

run.json                what the run is and what its bits rest on
code/                   the config file, and the modules beside it that it imports
constants.safetensors   arrays that losses read and nothing trains
parent.safetensors      weights that it starts from, where they are those of another run
data.json               names and digests of the data, to say what changed
metrics.jsonl           a line for each logged step; evaluation.jsonl for each scored checkpoint
checkpoints/            see `manifest`
weights.safetensors     the networks of the newest checkpoint, with their settings
previews/NAME/          pictures made while it trains; curves/: its curves
out/VERB/               what verbs made of it
log/TARGET/             what `anigan log` keeps
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from anigan_jax import config as configs
from anigan_jax import own_code, shipped
from anigan_jax.config import Config, differences, fingerprint, identity, to_json
from anigan_jax.core import PyTree, TrainState
from anigan_jax.data import diff
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import UserError
from anigan_jax.runtime import environment
from anigan_jax.storage import atomic, lock, manifest, run_code, safetensors
from anigan_jax.storage.checkpoint import Found

RUN, CONTENTS, CODE = "run.json", "data.json", "code"
CONSTANTS, PARENT = "constants.safetensors", "parent.safetensors"
ALGORITHMS = "algorithms.txt"  # of a GPU's libraries, as XLA chose them, where none is exact
SCHEMA = 4


class Taken(NamedTuple):
    """What a new run takes from another: its `arrays` by label, and a `record` of it, JSON."""

    arrays: dict[str, np.ndarray]
    record: dict[str, Any]


def found(path: Path) -> Path:
    """Where a run or its weights lie; a model that comes along is known by its name."""
    # What verbs make of such a model lies in a folder of that name, which holds neither.
    return path if is_run(path) else shipped.file_of(path) or path


def is_run(path: Path) -> bool:
    """Whether a folder is a run directory, or holds the weights of one."""
    return (path / RUN).exists() or (path / safetensors.WEIGHTS).exists()


def previews_dir(run: Path) -> Path:
    """Where a run's previews lie: a folder for each name, with step_N.png in it."""
    return run / "previews"


def out_dir(run: Path, verb: str) -> Path:
    """Where a verb puts what it made of a run: in it, or beside a file of weights."""
    file = run.suffix == safetensors.SUFFIX
    own = f"{run.stem}_out" if file and run.name != safetensors.WEIGHTS else "out"
    return (run.parent if file else run) / own / verb


def open_run(
    config: Config,
    workdir: Path,
    pack: Pack,
    command: tuple[str, ...],
    taken: Taken | None = None,
) -> dict[str, np.ndarray]:
    """Writes run.json, or checks it: another config or other data is refused.

    Args:
      command: the words that started the run.
      taken: what a new run starts from; None: from random weights.

    Returns:
      The constants: of the method at the start, of the run directory afterwards.
    """
    check(config, workdir, pack)
    if (workdir / RUN).exists():
        for line in changes(read_run(workdir), config):
            print(f"warning: {line}; the resumed run may not have the same bits", flush=True)
        return constants_of(workdir)
    constants = config.method.constants(pack)
    code = own_code.of(config)
    recorded = {
        "schema": SCHEMA,
        "name": config.name,
        "config": to_json(config, code.modules),
        "identity": identity(config),
        "config_sha256": fingerprint(config),
        "command": list(command),
        "code": run_code.keep(code.files, workdir / CODE),
        "data_sha256": pack.manifest["sha256"],
        "facts": facts_here(config),
    }
    if constants:
        recorded["constants_sha256"] = safetensors.write(constants, workdir / CONSTANTS)
    if taken:
        # Kept here: the other run may go on, or be deleted.
        sha256 = safetensors.write(taken.arrays, workdir / PARENT)
        recorded["parent"] = {**taken.record, "sha256": sha256}
    atomic.save_text(json.dumps(diff.contents(pack)), workdir / CONTENTS)
    _write(recorded, workdir)
    return constants


def check(config: Config, workdir: Path, pack: Pack) -> None:
    """Refuses a folder in which a run of this config and data can neither begin nor go on.

    Raises:
      UserError: it holds another run, or what is no run.
    """
    if (workdir / RUN).exists():
        _check_same(config, workdir, pack)
        return
    # What a start that was killed leaves before run.json.
    whole = (RUN, CONSTANTS, CONTENTS, PARENT)
    begun = {lock.FILE, CODE, ALGORITHMS, *whole, *(atomic.partial(Path(n)).name for n in whole)}
    if workdir.exists() and any(p.name not in begun for p in workdir.iterdir()):
        raise UserError(f"{workdir} is not empty and holds no run; use another --workdir")


def _check_same(config: Config, workdir: Path, pack: Pack) -> None:
    old = same_bits(workdir)
    changed = differences(old["identity"], identity(config))
    if changed:
        listed = "; ".join(changed[:8])
        raise UserError(f"{workdir} holds another run: {listed}. {_instead(workdir)}")
    if old["data_sha256"] != pack.manifest["sha256"]:
        what = diff.since(workdir / CONTENTS, pack)
        raise UserError(
            f"the data of {workdir} changed since its start ({what}); it cannot resume. "
            f"Bring the data back, or: {_instead(workdir)}"
        )


def _instead(workdir: Path) -> str:
    """What to do where a run cannot go on."""
    if manifest.steps(workdir / "checkpoints"):
        again = f"--init-from {workdir} starts from the weights of this run"
        return f"Use another --workdir, where {again}"
    return f"It has no checkpoint yet: delete {workdir}, or use another --workdir"


def facts_here(config: Config) -> dict:
    """Versions, code, flags, devices and processes that the bits rest on."""
    code = own_code.of(config).files.items()
    own = {f"code/{n}": hashlib.sha256(p.read_bytes()).hexdigest() for n, p in code}
    devices = config.run.devices or jax.device_count()
    return {**environment.facts(), **own, "devices": devices, "processes": jax.process_count()}


def facts_of(config: Config, pack: Pack) -> dict:
    """All that the processes of a run must hold in common."""
    run = {f"run.{name}": value for name, value in to_json(config.run).items()}
    facts = facts_here(config)
    # Its source says more: `source_sha256`.
    del facts["git"]
    if facts["platform"] != "cpu":
        # Threads of the host change no bits of another device.
        del facts["NPROC"]
    return {**identity(config), **run, "data_sha256": pack.manifest["sha256"], **facts}


def changes(recorded: dict, config: Config) -> list[str]:
    """What differs between a run's last start and this process, as 'name: then -> now'."""
    last = (recorded.get("resumed") or [recorded])[-1]["facts"]
    # The same source under another commit makes the same bits.
    facts = [{k: v for k, v in f.items() if k != "git"} for f in (last, facts_here(config))]
    return differences(*facts)


def same_run(config: Config, workdir: Path, found: Found | None) -> None:
    """Refuses a checkpoint that another run put here: the same shapes say little."""
    own = fingerprint(config)
    if found and found.manifest["meta"].get("config_sha256", own) != own:
        raise UserError(
            f"checkpoint {found.step} of {workdir} was made under other settings than run.json "
            "says; bring back the folder's own checkpoints, or use another --workdir"
        )


def note_resume(workdir: Path, config: Config, step: int) -> None:
    """Writes into run.json that a run goes on under other conditions, from which step."""
    recorded = read_run(workdir)
    changed = changes(recorded, config)
    # How long, where the data lie and what the run's own code says may differ from start to
    # start: `load` takes the newest.
    code, now = own_code.of(config), facts_here(config)
    settings = to_json(config, code.modules)
    if not changed and recorded["config"] == settings:
        return
    recorded["config"] = settings
    recorded["code"] = run_code.keep(code.files, workdir / CODE)
    if changed and step == 0:
        # It starts over: nothing is left of what came before.
        recorded.pop("resumed", None)
        recorded["facts"] = now
    elif changed:
        entry = {"step": step, "changed": changed, "facts": now}
        recorded["resumed"] = [*recorded.get("resumed", []), entry]
    _write(recorded, workdir)


def _write(recorded: dict, workdir: Path) -> None:
    atomic.save_text(json.dumps(recorded, indent=1) + "\n", workdir / RUN)


def export_weights(
    workdir: Path, config: Config, state: TrainState, constants: PyTree, told=None, **notes: str
) -> None:
    """Writes the networks alone, for use outside of the run.

    Args:
      constants: those that the generator is asked with; {} for most.
      told: the config as JSON, where its files may have changed since.
      notes: what the file says beside its step and settings.
    """
    trees = {name: getattr(state, name) for name in ("params", "stats", "ema", "ema_stats")}
    trees["constants"] = constants
    about = {"step": int(state.step), **notes}
    about["config"] = told or to_json(config, own_code.of(config).modules)
    about["empty"] = safetensors.empty(trees)
    safetensors.write(safetensors.flatten(trees), workdir / safetensors.WEIGHTS, about)


def constants_of(workdir: Path) -> dict[str, np.ndarray]:
    """The constants of a run directory; {} where it has none."""
    wanted = read_run(workdir).get("constants_sha256")
    return safetensors.read(workdir / CONSTANTS, wanted) if wanted else {}


def taken_by(workdir: Path) -> dict[str, np.ndarray]:
    """What a run started from, by label, of its parent; {} where it has none."""
    parent = read_run(workdir).get("parent")
    return safetensors.read(workdir / PARENT, parent["sha256"]) if parent else {}


def checkpoint_step(workdir: Path, checkpoint: str | int | None) -> int | None:
    """The step of a checkpoint: 'best' or a step; None for 'latest', also where it is None.

    Raises:
      UserError: the run has no such checkpoint.
    """
    if checkpoint in (None, "latest"):
        return None
    if checkpoint == "best":
        try:
            at = int(json.loads((workdir / "best.json").read_text())["step"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(
                f"{workdir} has no best checkpoint; train with --run.evaluate-every to find it"
            ) from None
    elif str(checkpoint).isdecimal():
        at = int(checkpoint)
    else:
        raise UserError(f"checkpoint {checkpoint!r} is neither 'best', 'latest' nor a step")
    have = manifest.steps(workdir / "checkpoints")
    if at not in have:
        listed = ", ".join(map(str, have)) or "none"
        raise UserError(f"{workdir} has no checkpoint of step {at}; it has {listed}")
    return at


def read_run(workdir: Path) -> dict:
    """run.json of a run directory.

    Raises:
      UserError: there is none, or it is damaged.
    """
    path = workdir / RUN
    if not path.exists():
        raise UserError(f"{workdir} is not a run directory (no {RUN}){manifest.hint(workdir)}")
    try:
        recorded = json.loads(path.read_text())
        if not isinstance(recorded, dict):
            raise ValueError("it does not hold a JSON object")
        return recorded
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def config_of(workdir: Path, recorded: dict, trust: bool = False) -> Config:
    """The config of a run, from its JSON alone.

    Args:
      recorded: run.json.
      trust: whether classes of its own may be executed, from the run's code/.

    Raises:
      UserError: it has classes of its own and is not trusted, or it is damaged.
    """
    return settings_of(recorded.get("config"), own_of(workdir, recorded, trust), workdir)


def own_of(workdir: Path, recorded: dict, trust: bool) -> Callable[[str], ModuleType]:
    """Gives the modules of a run's own code."""
    return own_code.importer(workdir / CODE, recorded.get("code") or {}, trust)


def settings_of(tree: Any, own: Callable[[str], ModuleType], where: Path) -> Config:
    """The config of its JSON form.

    Raises:
      UserError: as `config.from_json`, or it is not a config.
    """
    config = configs.from_json(tree, own)
    if not isinstance(config, Config):
        raise UserError(f"{where} holds no settings of a run")
    return config


def config_of_weights(file: Path, recorded: dict, trust: bool) -> Config:
    """The settings that a file of weights keeps; classes of its own are of the run around it.

    Args:
      recorded: that run's run.json; {} where there is none.

    Raises:
      UserError: as `settings_of`, or it needs `trust`.
    """
    own = own_of(file.parent, recorded, trust)
    return settings_of(safetensors.metadata(file).get("config"), own, file)


def same_bits(workdir: Path) -> dict:
    """run.json of a run that this version can repeat; others can only be looked at."""
    recorded = read_run(workdir)
    if recorded.get("schema") != SCHEMA:
        raise UserError(
            f"{workdir} was made by another version (schema {recorded.get('schema')}, here "
            f"{SCHEMA}), whose bits this one does not repeat; use that version, or train again"
        )
    return recorded
