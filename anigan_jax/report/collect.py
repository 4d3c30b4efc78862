"""The contents of run directories, as plain dicts for a page; no backend is started."""

from __future__ import annotations

import itertools
import json
import math
import shlex
import time
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from anigan_jax.errors import UserError
from anigan_jax.report import by_epoch, files, tables
from anigan_jax.report.files import read_json, reading
from anigan_jax.report.series import series
from anigan_jax.report.table import Table
from anigan_jax.storage import epochs, manifest, metrics_file, safetensors
from anigan_jax.storage.metrics_file import spaced

# Points of a judged metric; more than a run will ever have.
MOST_SCORES = 500
NO_METRIC = ("step", "images_seen", "epoch", "fingerprint", "warnings")


def labels(runs: list[Path]) -> list[str]:
    """Names of run directories, with as many parents as tell them apart.

    Raises:
      UserError: a run is given twice.
    """
    parts = [run.resolve().parts for run in runs]
    for i, part in enumerate(parts):
        if part in parts[:i]:
            first = runs[parts.index(part)]
            raise UserError(f"{first} and {runs[i]} are the same run, given twice")
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def recorded(run: Path) -> dict:
    """run.json.

    Raises:
      UserError: the folder is not a run directory, or the file is damaged.
    """
    path = run / "run.json"
    if not path.exists():
        raise UserError(f"{run} is not a run directory (no run.json){manifest.hint(run)}")
    found = read_json(path)
    with reading(path):
        for key in ("config", "facts"):
            found[key].items()
        for key in ("name", "data_sha256"):
            if not isinstance(found[key], str):
                raise ValueError(f"{key} is not a string")
        if not all(isinstance(word, str) for word in found["command"]):
            raise ValueError("the command is not of strings")
        found["config"]["run"]["log_every"] + 0
    return found


def collect(run: Path, label: str, looked: dict | None = None) -> dict:
    """Everything that a page shows of a run; pictures are paths.

    Args:
      label: its name among the runs of the page.
      looked: what `draw.look` found in the checkpoints; None: they were not examined.

    Raises:
      UserError: a file of the folder is damaged.
    """
    about = recorded(run)
    looked = looked or {"checked": None, "left_out": []}
    lines = lines_of(run / "metrics.jsonl")
    judged = lines_of(run / "evaluation.jsonl")
    last = lines[-1] if lines else {"step": 0}
    steps = about["config"]["run"].get("steps")
    return {
        "path": str(run),
        "label": label,
        "name": about["name"],
        "schema": about.get("schema"),
        "commands": commands(run),
        # After `anigan train CONFIG --workdir RUN`.
        "overrides": about["command"][5:],
        "seed": about["config"].get("seed"),
        "facts": about["facts"],
        "digests": {key: value for key, value in about.items() if key.endswith("_sha256")},
        "settings": flat(about["config"]),
        "parameters": parameters(run / safetensors.WEIGHTS),
        "step": last["step"],
        "of": steps if steps and steps >= last["step"] else None,
        "images_seen": last.get("images_seen"),
        "epochs": epochs.of_run(run),
        "by_epoch": _by_epoch(run),
        "seconds": seconds(lines),
        "written": _written(run / "metrics.jsonl"),
        "curves": curves(lines),
        "warnings": _warnings(lines) + _warnings(judged),
        "scores": scores(run, judged),
        "slides": files.slides(run),
        "real": files.real(run),
        "outputs": {
            verb: {"pictures": files.pictures(run, verb), "tables": tables.newest(run, verb)}
            for verb in files.verbs(run)
        },
        "ledger": ledger(lines, about["config"]["run"]["log_every"], looked["checked"]),
        "left_out": looked["left_out"] + ([] if lines else ["no step has been logged yet"]),
    }


def _by_epoch(run: Path) -> list[Table]:
    """The table by epoch; [] before the first epoch's end, or of a run of unknown epochs."""
    known = epochs.of_run(run) and (run / "metrics.jsonl").exists()
    found = by_epoch.epoch_means(run) if known else {"epochs": []}
    return [by_epoch.table(found)] if found["epochs"] else []


def lines_of(path: Path) -> list[dict]:
    """Lines of a metrics file, each a JSON object with a step; [] where there is none."""
    return checked(metrics_file.Tail(path).read(), path)


def checked(lines: list[dict], path: Path, first: int = 1) -> list[dict]:
    """The lines of a metrics file, numbered from `first`; numbers that are not finite are None.

    Raises:
      UserError: one is not a JSON object of numbers with a step.
    """
    for number, line in enumerate(lines, start=first):
        if not (isinstance(line, dict) and isinstance(line.get("step"), int)):
            raise UserError(f"{path}, line {number} is damaged: it has no step")
        for key, value in line.items():
            if key in ("fingerprint", "warnings") or value is None:
                continue
            if not isinstance(value, int | float):
                raise UserError(f"{path}, line {number} is damaged: {key} is not a number")
            if not math.isfinite(value):
                line[key] = None
    return lines


def commands(run: Path) -> dict[str, list[str]]:
    """What resumes the run, and what proves that it repeats, as quoted words."""
    # Code of the run's own runs by the word of whoever opens it.
    own = ["--trust"] if recorded(run).get("code") else []
    both = {
        "train": ["anigan", "train", "--resume", str(run), *own],
        "replay": ["anigan", "replay", str(run), *own],
    }
    return {name: [shlex.quote(word) for word in each] for name, each in both.items()}


def flat(settings: dict) -> dict[str, str]:
    """Path of each setting -> its value as text; classes stand for their own."""
    found: dict[str, str] = {}

    def walk(path: str, value) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if key == "class":
                    walk(path, item.rpartition(":")[2])
                else:
                    walk(f"{path}.{key}" if path else key, item)
        elif path:
            found[path] = value if isinstance(value, str) else json.dumps(value)

    walk("", settings)
    return found


def parameters(path: Path) -> dict[str, int]:
    """Parameters of each player by the newest exported weights; {} where there are none."""
    if not path.exists():
        return {}
    counts: dict[str, int] = {}
    try:
        with safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118
                kind, player = name.split("/")[:2]
                if kind == "params":
                    size = int(np.prod(file.get_slice(name).get_shape()))
                    counts[player] = counts.get(player, 0) + size
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    return counts


def seconds(lines: list[dict]) -> float | None:
    """Time spent in steps, by images per second; None where it is not recorded."""
    timed = [m for m in lines if m.get("images_per_sec") and m.get("images_seen")]
    if not timed:
        return None
    seen = np.array([m["images_seen"] for m in timed], float)
    rates = np.array([m["images_per_sec"] for m in timed], float)
    return float((np.diff(seen, prepend=0) / rates).sum())


def _written(path: Path) -> str | None:
    """The file's date: no date is recorded in a run."""
    if not path.exists():
        return None
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))


def curves(lines: list[dict]) -> dict:
    """{'lines', 'x', 'series': name -> what `series.series` returns}."""
    # The first line holds a fingerprint alone.
    lines = [line for line in lines if len(line.keys() - set(NO_METRIC)) > 0]
    steps = np.array([line["step"] for line in lines], np.int64)
    names = sorted({key for line in lines for key in line} - set(NO_METRIC))
    found: dict = {"lines": len(lines), "x": [], "series": {}}
    for name in names:
        # None becomes NaN; an absent one too, but that one was never computed.
        values = np.array([line.get(name) for line in lines], float)
        absent = sum(name not in line or _rested(name, line) for line in lines)
        found["x"], found["series"][name] = series(steps, values)
        found["series"][name]["not_finite"] = int(np.isnan(values).sum()) - absent
    return found


def _rested(name: str, line: dict) -> bool:
    """Whether a metric is not there because its player did not learn in this step."""
    player = "d" if name.startswith(("score/", "accuracy/")) else name.rpartition("/")[2]
    return line[name] is None and line.get(f"repeats/{player}") == 0


def _warnings(lines: list[dict]) -> list[dict]:
    return [
        {"step": line["step"], "text": str(text)}
        for line in lines
        for text in line.get("warnings") or ()
    ]


def scores(run: Path, judged: list[dict]) -> dict:
    """evaluation.jsonl with the protocol, its floor and the best step."""
    lines = [judged[i] for i in spaced(len(judged), MOST_SCORES)]
    names = list(dict.fromkeys(key for line in lines for key in line))
    found: dict = {
        "x": [line["step"] for line in lines],
        "series": {n: [line.get(n) for line in lines] for n in names if n not in NO_METRIC},
        "protocol": {},
        "floor": {},
        "best": None,
    }
    path = run / "protocol.json"
    if path.exists():
        protocol = read_json(path)
        with reading(path):
            floor = protocol.pop("floor", {}).items()
            # NaN is no JSON, and nothing to draw.
            found["floor"] = {k: v for k, v in floor if v is not None and math.isfinite(v)}
        found["protocol"] = protocol
    path = run / "best.json"
    best = metrics_file.best(judged)
    found["best"] = best and best._asdict()
    if path.exists():
        with reading(path):
            saved = read_json(path)
            step, kid, variety = int(saved["step"]), float(saved["kid"]), saved.get("variety")
            if not math.isfinite(kid):
                raise ValueError(f"kid is {kid}")
            variety = None if variety is None else float(variety)
            rule = str(saved.get("rule", ""))
            found["best"] = {"step": step, "kid": kid, "variety": variety, "rule": rule}
    return found


def ledger(lines: list[dict], every: int, checked: list[dict] | None) -> dict:
    """Whether the fingerprints are there for every step that is logged, and are those of the
    checkpoints.

    Args:
      checked: kept checkpoints as {'step', 'computed': hex or None, 'fault': text or None};
        None: they were not examined.

    Returns:
      'lines', 'first' and 'last' (a step and its fingerprint), 'every', 'gaps' as pairs of
      neighboring steps with something missing between; 'checked' with 'recorded' and 'state',
      one of 'same', 'differs', 'damaged', 'not recorded'.
    """
    recorded = {line["step"]: line.get("fingerprint") for line in lines}
    steps = [line["step"] for line in lines]
    pairs = itertools.pairwise(steps)
    gaps = [[a, b] for a, b in pairs if not a < b <= (a // every + 1) * every]
    if steps and steps[0] != 0:
        gaps = [[0, steps[0]], *gaps]
    found = {
        "lines": len(lines),
        "every": every,
        "gaps": gaps,
        "first": None,
        "last": None,
        "checked": None,
    }
    if lines:
        found["first"], found["last"] = (
            {"step": step, "fingerprint": recorded[step]} for step in (steps[0], steps[-1])
        )
    if checked is not None:
        found["checked"] = [{**one, **_compared(one, recorded.get(one["step"]))} for one in checked]
    return found


def _compared(one: dict, wanted: str | None) -> dict:
    state = "same" if one["computed"] == wanted else "differs"
    if one["fault"]:
        state = "damaged"
    elif wanted is None:
        state = "not recorded"
    return {"recorded": wanted, "state": state}


def verdict(found: dict) -> tuple[bool, str]:
    """Whether a ledger is consistent, and a sentence on it."""
    checked, bad = found["checked"], []
    if found["gaps"]:
        a, b = found["gaps"][0]
        more = f", and in {len(found['gaps']) - 1} more places" if len(found["gaps"]) > 1 else ""
        bad.append(
            f"in the metrics, step {a:,} is followed by step {b:,}{more}, but a line is due "
            f"every {found['every']} (unless the run was resumed with another --run.log-every)"
        )
    if checked is None:
        summary = "the checkpoints were not examined"
    elif not checked:
        summary = "there is no checkpoint to check"
    else:
        good = sum(one["state"] == "same" for one in checked)
        summary = f"{good} of {len(checked)} kept checkpoints have the recorded fingerprint"
        for one in checked:
            at = f"the checkpoint of step {one['step']:,}"
            if one["state"] == "differs":
                wanted = one["recorded"]
                bad.append(f"{at} has fingerprint {one['computed']}, recorded is {wanted}")
            if one["state"] == "damaged":
                bad.append(f"{at} cannot be read: {one['fault']}")
    return not bad, "; ".join([summary, *bad])
