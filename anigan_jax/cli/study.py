"""The verbs of studies: what D's features tell, and grids of runs compared."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from anigan_jax import api
from anigan_jax.cli import data, sample
from anigan_jax.cli.common import arguments
from anigan_jax.errors import UserError
from anigan_jax.report import tables
from anigan_jax.report.table import as_text


def probe(argv: list[str]) -> int:
    """Classifiers on D's features and on pixels: real or generated, hair, eyes (UCSD)."""
    args = arguments(
        "probe",
        argv,
        run=sample.RUN,
        checkpoint=sample.CHECKPOINT,
        trust=sample.TRUST,
        n={"type": int, "default": 2000, "help": "images to fit on in each task (2000)"},
        seed=sample.SEED,
        json={"action": "store_true"},
    )
    sample.at_least("--n", args.n, 20)
    run = api.load(args.run, args.checkpoint, trust=args.trust)
    pack = api.data_of(run.config)
    from anigan_jax.evaluation import linear_probe, prompt_accuracy
    from anigan_jax.storage import atomic
    from anigan_jax.storage.run_dir import out_dir

    report = linear_probe.measure(run.config, run.model, pack, args.n, args.seed)
    path = out_dir(args.run, "probe") / f"step_{report['step']:09d}.json"
    text = json.dumps(prompt_accuracy.as_json(report), indent=1)
    atomic.save_text(text, path)
    print(text if args.json else f"{as_text(tables.probe(json.loads(text)))}\n\n{path}")
    return 0


SWEEP = """usage: anigan sweep CONFIG --workdir DIR --vary PATH=V1,V2,... [--vary ...] [overrides]

Trains every combination with every seed, each as `anigan train` in a folder of its own in DIR,
and compares them. The same command resumes a sweep that was stopped.

  --vary PATH=V1,V2   a setting as in `anigan train CONFIG --help`: optimizers.g.name=adam,rmsprop;
                      a value of several words: "optimizers.g.boundaries=3 5,10 20"
  --seeds N           runs of each variant, from the config's seed on (3)
  --updates N         equal updates of G and D together; else as many steps as the config says
  --points N          judged checkpoints of each run, about (10); 0: none, losses only
  --jobs N            runs at a time (1)
  overrides           for all runs: --batch-size 32 --run.eval-network random"""


def sweep(argv: list[str]) -> int:
    """A grid of settings and seeds, trained and compared at equal updates."""
    if not argv or argv[0].startswith("-"):
        print(SWEEP)
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    parser = argparse.ArgumentParser("anigan sweep", add_help=False, allow_abbrev=False)
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--vary", action="append", default=[])
    for name, default in (("seeds", 3), ("updates", 0), ("points", 10), ("jobs", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args, overrides = parser.parse_known_args(argv[1:])
    if {"-h", "--help"} & set(overrides):
        print(SWEEP)
        return 0
    _refuse(args, overrides)
    from anigan_jax.storage import run_dir
    from anigan_jax.sweep import grid

    trials = grid.grid(argv[0], overrides, args.vary, args.seeds, args.workdir)
    grid.refuse_others(trials)
    goal = grid.Goal(args.updates, args.points)
    with run_dir.lock(args.workdir, "another sweep is at work in"):
        return _sweep(argv[0], args, trials, goal)


def _refuse(args: argparse.Namespace, overrides: list[str]) -> None:
    """Refuses flags that say nothing, or that a sweep decides itself."""
    from anigan_jax.sweep.grid import INTERVALS

    if args.workdir is None:
        raise UserError("say where the runs go: --workdir DIR")
    if not args.vary:
        raise UserError(
            "say what varies: --vary PATH=V1,V2, such as --vary optimizers.g.name=adam,rmsprop"
        )
    if (args.workdir / "run.json").exists():
        raise UserError(f"{args.workdir} is a run; a sweep needs a folder for several")
    for name, low in (("seeds", 1), ("updates", 0), ("points", 0), ("jobs", 1)):
        sample.at_least(f"--{name}", getattr(args, name), low)
    given = {word.partition("=")[0].replace("_", "-") for word in overrides}
    for name in INTERVALS:
        if f"--{name}" in given:
            raise UserError(f"--{name} is decided by a sweep; --points says how often it judges")
    both = given & {"--run.steps", "--run.epochs"}
    if args.updates and both:
        raise UserError(f"{min(both)} and --updates both say how long; give one")


def _sweep(name: str, args: argparse.Namespace, trials: list, goal) -> int:
    from anigan_jax.storage import atomic
    from anigan_jax.sweep import compare, grid

    images, paces = {}, {}
    for trial in trials:
        if trial.variant not in paces:
            count = len(api.data_of(trial.config, data.progress("packing")).images)
            paces[trial.variant] = grid.pace(trial.config, trial.config.method.make(None), count)
            images[trial.variant] = count
    code, message = grid.train(
        trials,
        lambda trial: grid.next_leg(trial, goal, paces[trial.variant], images[trial.variant]),
        lambda trial, leg: grid.command(name, trial, leg, judged=goal.points > 0),
        args.jobs,
    )
    if code:
        print(f"error: {message}" if code < 128 else message, file=sys.stderr)
        return code
    runs = [compare.read(trial, grid.updates_done(trial, paces[trial.variant])) for trial in trials]
    asked = {"config": name, "varied": args.vary, "updates": args.updates}
    seeds = sorted({trial.seed for trial in trials})
    found = compare.compare(runs, goal, {**asked, "seeds": seeds})
    text = as_text(compare.tables(found))
    written = [
        atomic.save_text(json.dumps(found, indent=1) + "\n", args.workdir / "sweep.json"),
        atomic.save_text(text + "\n", args.workdir / "sweep.md"),
        compare.draw(runs, found, args.workdir / "sweep.png"),
        compare.samples(runs, found["compared_at"], args.workdir / "samples.png"),
    ]
    print(f"\n{text}\n")
    for path in filter(None, written):
        print(path)
    return 0
