"""Kills trainings of every family at random times, and compares how they end.

    python tests/faults/soak.py [--kills 100] [--family gan] [--seed 0] [--jobs 1] [--folder DIR]

Of each family a tiny model is trained without interruption, twice; then in processes that are
killed (SIGKILL) at times drawn evenly over the life of a whole one, its start included, and
started again with the same command until the run ends. Every line of metrics.jsonl, every array
of the last checkpoint, the exported networks and every picture must be those of the first run.
Exit code 1 where one is not.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

from tiny import CARTOON, CYCLE, FULL, JUDGE, R3, SPELLER, TEXT, process_env, with_features  # noqa: E402

from anigan_jax.config import Run  # noqa: E402
from anigan_jax.storage.manifest import path_of, read_manifest, steps  # noqa: E402
from anigan_jax.storage.metrics_file import read_metrics  # noqa: E402

RUN = Run(steps=120, steps_per_dispatch=2, sample_every=24, checkpoint_every=12, keep_checkpoints=2)
FAMILIES = {
    name: dataclasses.replace(config, name=name, run=RUN)
    for name, config in {
        "gan": FULL,
        "text_gan": TEXT,
        "cyclegan": CYCLE,
        "cartoongan": CARTOON,
        "r3gan": R3,
        "classifier": JUDGE,
        "text_encoder": SPELLER,
    }.items()
}


class Soaked(NamedTuple):
    """What became of a family; `different` lists what was not as in the uninterrupted run."""

    kills: int
    runs: int
    phases: dict[str, int]
    different: list[str]


def ending(run: Path) -> dict[str, str]:
    """What a run left: part -> its content, or a digest; without times."""
    parts = {}
    for name in ("metrics.jsonl", "evaluation.jsonl"):
        lines = read_metrics(run / name) if (run / name).exists() else []
        for number, line in enumerate(lines):
            line.pop("images_per_sec", None)
            parts[f"{name}, line {number + 1}"] = json.dumps(line, sort_keys=True)
    folder = run / "checkpoints"
    parts["steps of the checkpoints"] = str(steps(folder))
    last = read_manifest(path_of(folder, steps(folder)[-1]))
    for name, leaf in last["leaves"].items():
        parts[f"checkpoint {last['step']}, {name}"] = json.dumps(leaf)
    for path in (run / "weights.safetensors", *run.glob("previews/*/step_*.png")):
        name = path.relative_to(run).as_posix()
        parts[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return parts


def differences(one: Path, other: Path) -> list[str]:
    """The parts in which two runs end differently."""
    a, b = ending(one), ending(other)
    return sorted(part for part in a.keys() | b.keys() if a.get(part) != b.get(part))


def _marks(run: Path) -> dict[str, object]:
    """What tells, before and after a kill, what was under way."""
    hidden = [path for path in run.rglob(".*") if path.is_file() or path.name.count("-") == 2]
    metrics = run / "metrics.jsonl"
    return {
        "lines": metrics.stat().st_mtime_ns if metrics.exists() else None,
        "hidden": {(path.name, path.stat().st_ino) for path in hidden},
    }


def _phase(before: dict, after: dict) -> str:
    """What a process was doing when it was killed, as far as its files tell."""
    new = {name for name, _ in after["hidden"] - before["hidden"]}
    if any(name.startswith((".tmp-", ".old-")) for name in new):
        return "save"
    if any(name.startswith(".gone-") for name in new):
        return "prune"
    if new:
        return "export"
    return "start" if after["lines"] == before["lines"] else "train"


def _command(family: str, folder: Path, run: Path) -> list[str]:
    config = folder / "config.py"
    config.write_text(
        f"import sys\nsys.path[:0] = {sys.path[:2]!r}\nfrom faults.soak import FAMILIES\n"
        f"CONFIG = FAMILIES[{family!r}]\n"
    )
    command = [sys.executable, "-m", "anigan_jax", "train", str(config), "--workdir", str(run)]
    changed = with_features(FAMILIES[family], folder)
    if changed != FAMILIES[family]:
        command += ["--method.features.path", changed.method.features.path]
    return command


def _attempt(command: list[str], log: Path, seconds: float | None) -> bool:
    """Trains for some time, or to the end (None); whether it was killed.

    Raises:
      RuntimeError: it ended by itself, and not well.
    """
    with log.open("ab") as said:
        process = subprocess.Popen(command, env=process_env(), stdout=said, stderr=said)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
        finally:
            process.kill()
            process.wait()
    if process.returncode == -9:
        return True
    if process.returncode:
        tail = log.read_text().splitlines()[-3:]
        raise RuntimeError(f"exit code {process.returncode}: {' | '.join(tail)}")
    return False


def soak(family: str, kills: int, seed: int, folder: Path) -> Soaked:
    """Kills a family's trainings until there were `kills`; each run goes on to its end."""
    folder.mkdir(parents=True)
    log, whole, again = (folder / name for name in ("log", "whole", "again"))
    _attempt(_command(family, folder, whole), log, None)
    # Its programs are compiled now: this is how long a process lives.
    clock = time.monotonic()
    _attempt(_command(family, folder, again), log, None)
    life = time.monotonic() - clock
    different = [f"again: {part}" for part in differences(whole, again)]
    draws = random.Random(f"{seed} {family}")
    done, runs, phases = 0, 0, collections.Counter()
    while done < kills:
        runs += 1
        run = folder / f"killed{runs}"
        command = _command(family, folder, run)
        while True:
            before = _marks(run)
            if not _attempt(command, log, draws.uniform(0, life) if done < kills else None):
                break
            done += 1
            phases[_phase(before, _marks(run))] += 1
        different += [f"{run.name}: {part}" for part in differences(whole, run)]
        print(f"{family}: {done} of {kills} kills, {runs} runs", file=sys.stderr, flush=True)
    return Soaked(done, runs, dict(phases), different)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--kills", type=int, default=100, help="over all families")
    parser.add_argument("--family", action="append", choices=list(FAMILIES), help="repeatable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="families at a time")
    parser.add_argument("--folder", type=Path, help="a new one; without: one that is deleted")
    args = parser.parse_args(argv)
    names = args.family or list(FAMILIES)
    shares = [args.kills // len(names) + (i < args.kills % len(names)) for i in range(len(names))]
    with tempfile.TemporaryDirectory() as temp:
        folder = args.folder or Path(temp)
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            found = pool.map(
                lambda name, kills: soak(name, kills, args.seed, folder / name), names, shares
            )
            found = dict(zip(names, found, strict=True))
    print("| family | kills | runs | killed while | as uninterrupted |\n|---|---|---|---|---|")
    for name, one in found.items():
        phases = ", ".join(f"{phase} {count}" for phase, count in sorted(one.phases.items()))
        equal = "yes" if not one.different else f"NO: {len(one.different)} parts differ"
        print(f"| {name} | {one.kills} | {one.runs} | {phases} | {equal} |")
    for name, one in found.items():
        for part in one.different[:20]:
            print(f"{name}: {part}")
    total = sum(one.kills for one in found.values())
    failed = sum(bool(one.different) for one in found.values())
    print(f"{total} kills; {failed} of {len(found)} families ended otherwise than uninterrupted")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
