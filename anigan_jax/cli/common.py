"""What the verbs share: flags, overrides, starting JAX, opening a run folder."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from anigan_jax import config as configs
from anigan_jax.cli import data
from anigan_jax.config import Config, override
from anigan_jax.data import dataset
from anigan_jax.errors import UserError
from anigan_jax.runtime import environment
from anigan_jax.runtime import processes as cluster


def arguments(verb: str, argv: list[str], **options) -> argparse.Namespace:
    """Parses a verb's flags, as `parser_of` takes them."""
    return parser_of(verb, **options).parse_args(argv)


def parser_of(verb: str, **options) -> argparse.ArgumentParser:
    """The parser of a verb's flags; `positional` ones lose their dashes."""
    parser = argparse.ArgumentParser(f"anigan {verb}", allow_abbrev=False)
    for name, given in options.items():
        rest = dict(given)
        flag = name if rest.pop("positional", False) else f"--{name.replace('_', '-')}"
        parser.add_argument(flag, **rest)
    return parser


def together(config: Config, workdir: Path, distributed: bool) -> cluster.ProcessGroup:
    """Starts JAX, and connects to the other processes of a run where there are any."""
    spec, run = cluster.detect(os.environ, distributed), config.run
    world = (spec and spec.world) or 1
    if run.devices % world:
        raise UserError(f"run.devices {run.devices} is not a multiple of {world} processes")
    prepare(config, workdir, world)
    return cluster.initialize(spec, run.heartbeat_timeout, run.stall_timeout)


def start(config: Config, workdir: Path | None) -> None:
    """Starts JAX for a run of this process alone."""
    prepare(config, workdir)
    environment.start()


def refuse_name(workdir: Path) -> None:
    """Refuses a folder that cannot be, or that the checkpoints' library cannot name."""
    try:
        str(workdir).encode()
        workdir.exists()
    except UnicodeEncodeError:
        raise UserError(f"--workdir {str(workdir)!a} is not UTF-8; take another name") from None
    except (OSError, ValueError) as error:
        raise UserError(f"--workdir {str(workdir)!a} cannot be: {error}") from None


def prepare(config: Config, workdir: Path | None, processes: int = 1) -> None:
    """Sets the environment that a run, new or resumed, computes in."""
    threads = None
    if workdir:
        refuse_name(workdir)
    if workdir and (workdir / "run.json").exists():
        try:
            threads = _recorded(workdir)["facts"]["NPROC"]
        except (KeyError, TypeError) as error:
            raise UserError(f"{workdir}/run.json is damaged: {error!r}") from None
    environment.prepare(config.run.platform, config.run.devices // processes, threads)


def trained_on(config: Config) -> dataset.Pack:
    """The pack of a config's data, every byte of it as it was written."""
    pack = pack_of(config)
    dataset.verify(pack)
    return pack


def pack_of(config: Config) -> dataset.Pack:
    """The pack of a config's data, made where it is not there yet."""
    return dataset.build(config.data, dataset.default_cache(), report=data.progress("packing"))


def open_run(run: Path):
    """What is recorded of a run, its config, and its pack; JAX is started."""
    recorded, config = recorded_of(run)
    pack = pack_of(config)
    start(config, run)
    return recorded, config, pack


def _recorded(run: Path) -> dict:
    try:
        return json.loads((run / "run.json").read_text())
    except ValueError as error:
        raise UserError(f"{run}/run.json is damaged: {error}") from None


def recorded_of(run: Path) -> tuple[dict, Config]:
    """What is recorded of a run, and its config."""
    if not (run / "run.json").exists():
        raise UserError(f"{run} is no run folder: it has no run.json")
    recorded = _recorded(run)
    base = configs.load(str(run / "config.py"))
    config = override(base, recorded["overrides"], f"anigan train {run}")
    return recorded, config
