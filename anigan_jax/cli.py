"""`anigan VERB`: parses, prepares the environment, calls. JAX starts after all checks."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import tyro

from anigan_jax import cli_data, runtime
from anigan_jax import config as configs
from anigan_jax.config import Config
from anigan_jax.data import pack as packs
from anigan_jax.errors import UserError

USAGE = """usage: anigan VERB ...

  import SOURCE [SOURCE_B] --out PACK      pack images for training
  check SOURCE [SOURCE_B] [--json|--html]  every fault in the data, with its reason
  describe CONFIG [--json]                 layers, parameters and FLOPs
  train CONFIG --workdir RUN [overrides]   start, or resume where RUN holds a run
  sample RUN [--n 64] [--seed 0]           a grid of new images
  interpolate RUN [--frames 60]            a grid and a GIF between latents
  kernels RUN                              D's first layer as a picture
  replay RUN [--until STEP]                train again and compare every step's bits
  bench [--peer torch] [--base 64]         images per second of a whole training step

`anigan train CONFIG --help` lists every setting with its type and default.
CONFIG is a file, or a name from configs/: {names}."""


def main(argv: list[str] | None = None) -> None:
    """Entry point: exit code 0, 1 (a replay or a check that fails), 2 (a mistake), 128 + signal."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        sys.exit(_verb(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)


def _verb(argv: list[str]) -> int:
    verbs = {
        "import": cli_data.import_,
        "check": cli_data.check,
        "describe": describe,
        "train": train,
        "sample": sample,
        "interpolate": interpolate,
        "kernels": kernels,
        "replay": replay,
        "bench": bench,
    }
    if not argv or argv[0] in ("-h", "--help"):
        names = sorted(path.stem for path in configs.config_folder().glob("*.py"))
        print(USAGE.format(names=", ".join(names)))
        return 0 if argv else 2
    if argv[0] not in verbs:
        raise UserError(f"no verb {argv[0]!r}; there are {', '.join(verbs)}")
    return verbs[argv[0]](argv[1:]) or 0


def _arguments(verb: str, argv: list[str], **options) -> argparse.Namespace:
    parser = argparse.ArgumentParser(f"anigan {verb}")
    for name, rest in options.items():
        flag = name if rest.pop("positional", False) else f"--{name.replace('_', '-')}"
        parser.add_argument(flag, **rest)
    return parser.parse_args(argv)


def _override(config: Config, argv: list[str], prog: str) -> Config:
    """Typed overrides; tyro prints help and errors itself, with exit code 2."""

    return tyro.cli(type(config), args=argv, default=config, prog=prog)


def train(argv: list[str]) -> int:
    """Starts or resumes a run."""
    if not argv or argv[0].startswith("-"):
        print("usage: anigan train CONFIG --workdir RUN [--dry-run] [overrides]")
        print("`anigan train CONFIG --help` lists every setting.")
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    name, rest = argv[0], argv[1:]
    base = configs.load(name)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    known, overrides = parser.parse_known_args(rest)
    config = _override(base, overrides, f"anigan train {name} --workdir RUN [--dry-run]")
    configs.check(config)
    if known.workdir is None:
        raise UserError("say where the run goes: --workdir RUN")
    pack, driver = _ready(config, known.workdir)
    if known.dry_run:
        return dry_run(config, pack, driver)
    code = driver.train(config, known.workdir, pack, configs.find(name).read_text(), overrides)
    if code == 0:
        _farewell(known.workdir)
    return code


def _ready(config: Config, workdir: Path | None):
    """The pack, and the driver module with JAX started under the right environment."""
    pack = _pack(config)
    threads = None
    if workdir and (workdir / "run.json").exists():
        threads = json.loads((workdir / "run.json").read_text())["facts"]["NPROC"]
    runtime.prepare(config.run.platform, config.run.devices, threads)
    from anigan_jax import driver

    runtime.start()
    return pack, driver


def _pack(config: Config) -> packs.Pack:
    return packs.build(config.data, packs.default_cache(), report=cli_data.progress("packing"))


def _farewell(workdir: Path) -> None:
    last = {p.parent.name: p for p in sorted(workdir.glob("*/step_*.png"))}
    print("\ndone:")
    for panel, path in last.items():
        print(f"  {panel:11} {path}")
    for what, path in (
        ("real images", workdir / "real.png"),
        ("curves", workdir / "curves"),
        ("metrics", workdir / "metrics.jsonl"),
        ("checkpoint", sorted((workdir / "checkpoints").glob("step_*"))[-1]),
    ):
        print(f"  {what:11} {path}")
    print("next:")
    print(f"  anigan sample {workdir}        a grid of new faces")
    print(f"  anigan interpolate {workdir}   a GIF between faces")
    print(f"  anigan replay {workdir}        prove that the run repeats bit for bit")


def dry_run(config: Config, pack: packs.Pack, driver) -> int:
    """Prints what a run would do; writes nothing into the run folder."""
    session = driver.prepare(config, pack)
    print(json.dumps(configs.to_dict(config), indent=1))
    print(f"{len(pack.images)} images, {session.total} steps, {len(session.devices)} device(s)")
    return 0


def describe(argv: list[str]) -> int:
    """Prints the layers of a config's networks."""
    args = _arguments("describe", argv, config={"positional": True}, json={"action": "store_true"})
    config = configs.load(args.config)
    runtime.prepare("cpu")
    from anigan_jax import show

    table = show.describe(config)
    print(json.dumps(table, indent=1) if args.json else show.as_text(table))
    return 0


def _open(run: Path):
    """Config, driver and newest state of a run folder."""
    if not (run / "run.json").exists():
        raise UserError(f"{run} is no run folder: it has no run.json")
    recorded = json.loads((run / "run.json").read_text())
    base = configs.load(str(run / "config.py"))
    config = _override(base, recorded["overrides"], f"anigan train {run}")
    pack, driver = _ready(config, run)
    return recorded, config, pack, driver


def _newest(run: Path):
    _recorded, config, _, driver = _open(run)
    from anigan_jax import show

    return show.newest(config, run, driver)


def sample(argv: list[str]) -> int:
    """A grid of new images."""
    args = _arguments(
        "sample",
        argv,
        run={"positional": True, "type": Path},
        n={"type": int, "default": 64, "help": "images"},
        seed={"type": int, "default": 0, "help": "seed of the latents"},
    )
    if args.n < 1:
        raise UserError(f"--n is {args.n}; it must be at least 1")
    method, state = _newest(args.run)
    from anigan_jax import show

    print(show.sample(method, state, args.run, args.n, args.seed))
    return 0


def interpolate(argv: list[str]) -> int:
    """A grid and a GIF along a closed path between latents."""
    args = _arguments(
        "interpolate",
        argv,
        run={"positional": True, "type": Path},
        frames={"type": int, "default": 60, "help": "frames of the GIF"},
        stops={"type": int, "default": 5, "help": "latents on the path"},
        seed={"type": int, "default": 0, "help": "seed of the latents"},
    )
    if args.stops < 2 or args.frames < args.stops:
        raise UserError("--stops must be at least 2, and --frames no fewer than --stops")
    method, state = _newest(args.run)
    from anigan_jax import show

    for path in show.interpolate(method, state, args.run, args.frames, args.stops, args.seed):
        print(path)
    return 0


def kernels(argv: list[str]) -> int:
    """D's first layer as a picture."""
    args = _arguments("kernels", argv, run={"positional": True, "type": Path})
    _, state = _newest(args.run)
    from anigan_jax import show

    print(show.kernels(state, args.run))
    return 0


def replay(argv: list[str]) -> int:
    """Trains again and compares the ledger; exit code 1 where it differs."""
    args = _arguments(
        "replay",
        argv,
        run={"positional": True, "type": Path},
        until={"type": int, "help": "last step to compare"},
    )
    recorded, config, pack, driver = _open(args.run)
    changed = configs.differences(recorded["identity"], configs.identity(config))
    for line in changed:
        print(f"note: this run says otherwise than its config: {line}")
    if pack.manifest["sha256"] != recorded["data_sha256"]:
        print("note: the data changed since the run")
    code, message = driver.replay(config, args.run, pack, args.until)
    print(message)
    return code


def bench(argv: list[str]) -> int:
    """Images per second of the reference DCGAN's whole step, against peers."""
    args = _arguments(
        "bench",
        argv,
        batch={"type": int, "default": 64},
        base={"type": int, "default": 64, "help": "channels of the widest map"},
        windows={"type": int, "default": 3, "help": "alternating windows; medians are shown"},
        peer={"choices": ["none", "torch"], "default": "none"},
        json={"action": "store_true"},
    )
    runtime.prepare()
    from anigan_jax import bench as benchmark

    rows = benchmark.measure(args.batch, args.base, args.windows, args.peer == "torch")
    print(json.dumps(rows, indent=1) if args.json else benchmark.as_text(rows))
    return 0


if __name__ == "__main__":
    main()
