"""The verbs of proof: a run repeated bit for bit, its checkpoints listed, verified, pruned."""

from __future__ import annotations

import json as jsons
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from anigan_jax import api
from anigan_jax import config as configs
from anigan_jax.cli.common import AsJson, RunDir, Trust, at_least
from anigan_jax.errors import MachineError, UserError, printable
from anigan_jax.intervals import Every, parse
from anigan_jax.runtime import environment
from anigan_jax.storage import epochs, lock, manifest, metrics_file, run_dir
from anigan_jax.storage.epochs import Epochs


def replay(
    run: RunDir,
    *,
    until: Annotated[int | None, arg(metavar="STEP")] = None,
    distributed: bool = False,
    trust: Trust = False,
) -> int:
    """Train again and compare every step's bits; exit code 1 where they differ.

    Args:
      until: last step to compare.
      distributed: this is one of several processes.
    """
    if until is not None:
        at_least("--until", until, 0)
    recorded = run_dir.read_run(run)
    config = run_dir.config_of(run, recorded, trust)
    with api.opened(api.exact(config), run, distributed) as (pack, group):
        from anigan_jax.training import replay as training

        changed = configs.differences(recorded["identity"], configs.identity(config))
        told = "the settings in run.json differ from those recorded at its start"
        notes = [f"{told}: {line}" for line in changed]
        if pack.manifest["sha256"] != recorded["data_sha256"]:
            notes.append("the data changed since the run")
        for entry in recorded.get("resumed", []):
            changed = "; ".join(entry["changed"])
            notes.append(
                f"the run itself was resumed under other conditions at {entry['step']}: {changed}"
            )
        notes += [f"{line}; the bits may differ" for line in run_dir.changes(recorded, config)]
        code, message = training.replay(config, run, pack, until, group)
        if group.is_primary:
            print("\n".join([*(f"note: {note}" for note in notes), message]), flush=True)
    return code


def checkpoints(
    run: RunDir,
    *,
    verify: bool = False,
    prune: Annotated[int | None, arg(metavar="KEEP")] = None,
    json: AsJson = False,
) -> int:
    """List a run's checkpoints; exit code 1 where one is not known to be whole.

    Args:
      verify: read and hash every file and every array.
      prune: delete all but the newest KEEP checkpoints, those of run.keep_every and the best one,
        and what killed saves left; damaged ones that were set aside stay.
    """
    if not (run / "run.json").exists():
        raise UserError(f"{run} is not a run directory (no run.json){manifest.hint(run)}")
    if prune is not None and prune < 1:
        raise UserError(f"--prune {prune}: at least 1 checkpoint stays")
    if verify or prune is not None:
        # JAX is imported, without an accelerator: a run that trains may hold it.
        environment.prepare("cpu")
    folder, best = run / "checkpoints", _best(run)
    path = run / "evaluation.jsonl"
    scores = metrics_file.by_step(metrics_file.read_metrics(path)) if path.exists() else {}
    deleted = None if prune is None else _prune(run, prune, best)
    known = epochs.of_run(run)
    found = {**_look(folder, best, verify, known, scores), "deleted": deleted}
    print(jsons.dumps(found, indent=1) if json else _text(found, known))
    return int(any(one["faults"] or one["newer"] for one in found["checkpoints"]))


def _best(run: Path) -> int | None:
    """The step of the best checkpoint, where the run is judged."""
    path = run / "best.json"
    if not path.exists():
        return None
    try:
        return int(jsons.loads(path.read_text())["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({error}); delete it and training writes it again"
        ) from None


def _prune(run: Path, keep: int, best: int | None) -> list[int]:
    folder = run / "checkpoints"
    kept = _kept(run)
    with lock.hold(run):
        manifest.recover(folder)
        steps = manifest.steps(folder)
        whole = (
            s for s in reversed(steps) if not manifest.examine(manifest.path_of(folder, s), s)[1]
        )
        newest = next(whole, None)
        if steps and newest is None:
            raise UserError(f"no checkpoint in {folder} is intact, so none is deleted")
        return manifest.prune(folder, keep, kept, best, newest)


def _kept(run: Path) -> Every:
    """The steps whose checkpoints are never deleted; runs of before had no such setting."""
    setting = run_dir.read_run(run).get("config", {}).get("run", {}).get("keep_every", 0)
    found = epochs.of_run(run)
    try:
        return parse(setting, found and found.steps)
    except ValueError as error:
        raise UserError(f"{run} has run.keep_every {setting!r}: {error}; none is deleted") from None


def _look(folder: Path, best: int | None, verify: bool, known: Epochs | None, scores: dict) -> dict:
    """What is there; `faults` is None where nothing was verified, `newer` says why not.

    Args:
      scores: step -> `metrics_file.Best` of the steps that were evaluated.
    """
    found = []
    for step, path in sorted(manifest.places(folder).items()):
        faults, newer = _faults(path, step) if verify else (None, None)
        # The run goes on and has deleted it.
        if path.exists():
            size = _size(path)
            at = {"step": step, "epoch": known and known.at(step)}
            told = {**at, "bytes": size, "best": step == best}
            score = scores.get(step)
            told |= {"kid": score and score.kid, "variety": score and score.variety}
            found.append({**told, "faults": faults, "newer": newer})
    return {
        "folder": str(folder),
        "checkpoints": found,
        "set_aside": [{"name": p.name, "bytes": _size(p)} for p in manifest.corrupt(folder)],
        "leftovers": [{"name": p.name, "bytes": _size(p)} for p in manifest.leftovers(folder)],
    }


def _faults(path: Path, step: int) -> tuple[list[str] | None, str | None]:
    """(faults, None), or (None, why they are not known)."""
    from anigan_jax.storage import checkpoint

    try:
        return checkpoint.verify(path, step), None
    except MachineError:
        raise
    except UserError as error:
        return None, str(error)


def _size(path: Path) -> int:
    total = 0
    for file in path.rglob("*"):
        try:
            total += file.stat().st_size * file.is_file()
        except FileNotFoundError:
            # A save or a deletion is under way.
            continue
    return total


def _text(found: dict, known: Epochs | None) -> str:
    lines = [printable(found["folder"])]
    for one in found["checkpoints"]:
        marks = [f"{k} {one[k]:.4g}" for k in ("kid", "variety") if one[k] is not None]
        marks += ["best"] if one["best"] else []
        if one is found["checkpoints"][-1]:
            marks.append("newest")
        if one["faults"] is not None:
            marks.append(f"DAMAGED: {'; '.join(one['faults'])}" if one["faults"] else "whole")
        if one["newer"] is not None:
            marks.append(f"NOT READ: {one['newer']}")
        marks = printable(", ".join(marks))
        epoch = f"  {known.label(one['step']):11}" if known else ""
        lines.append(f"  step {one['step']:>9}{epoch}  {_told(one['bytes'])}  {marks}".rstrip())
    for title, kind in (("damaged, set aside", "set_aside"), ("left by killed saves", "leftovers")):
        for one in found[kind]:
            lines.append(f"  {title}: {printable(one['name'])}  {_told(one['bytes']).strip()}")
    every = found["checkpoints"]
    total = _told(sum(one["bytes"] for one in every)).strip()
    lines.append(f"{len(every)} checkpoint(s), {total}" if every else "no checkpoint")
    if found["leftovers"]:
        lines.append("the next save, or --prune, removes what killed saves left")
    if found["deleted"] is not None:
        lines.append(f"deleted: {', '.join(map(str, found['deleted'])) or 'none'}")
    return "\n".join(lines)


def _told(size: int) -> str:
    return f"{size / 1e6:8.1f} MB" if size >= 1e6 else f"{size / 1e3:8.1f} kB"
