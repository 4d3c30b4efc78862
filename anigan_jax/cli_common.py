"""What the verbs share: flags, overrides, starting JAX, opening a run folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import tyro

from anigan_jax import cli_data, runtime
from anigan_jax import config as configs
from anigan_jax.config import Config
from anigan_jax.data import pack as packs
from anigan_jax.errors import UserError


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


def override(config: Config, argv: list[str], prog: str) -> Config:
    """Typed overrides; tyro prints help and errors itself, with exit code 2."""
    return tyro.cli(type(config), args=argv, default=config, prog=prog)


def ready(config: Config, workdir: Path | None):
    """The pack, and the driver module with JAX started under the right environment."""
    pack = pack_of(config)
    threads = None
    if workdir and (workdir / "run.json").exists():
        threads = json.loads((workdir / "run.json").read_text())["facts"]["NPROC"]
    runtime.prepare(config.run.platform, config.run.devices, threads)
    from anigan_jax import driver

    runtime.start()
    return pack, driver


def pack_of(config: Config) -> packs.Pack:
    """The pack of a config's data, made where it is not there yet."""
    return packs.build(config.data, packs.default_cache(), report=cli_data.progress("packing"))


def open_run(run: Path):
    """What is recorded of a run, its config, its pack, and the driver module."""
    if not (run / "run.json").exists():
        raise UserError(f"{run} is no run folder: it has no run.json")
    try:
        recorded = json.loads((run / "run.json").read_text())
    except ValueError as error:
        raise UserError(f"{run}/run.json is damaged: {error}") from None
    base = configs.load(str(run / "config.py"))
    config = override(base, recorded["overrides"], f"anigan train {run}")
    pack, driver = ready(config, run)
    return recorded, config, pack, driver
