"""Config files: found by name, executed, overridden."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib.util
import io
import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import tyro
from tyro.conf import HelptextFromCommentsOff

from anigan_jax import declared, own_code
from anigan_jax.config import Config
from anigan_jax.errors import UserError
from anigan_jax.networks.blocks import NetworkSettings
from anigan_jax.runtime.environment import config_folder

RENAMED = {
    "seed_tsinghua_dcgan": "tsinghua_dcgan",
    "seed_cyclegan": "tsinghua_cyclegan",
    "seed_cartoongan": "tsinghua_cartoongan",
    "seed_text_encoder": "sjtu_text_encoder",
    "seed_text_gan": "sjtu_text_gan",
    "seed_text_gan_128": "sjtu_text_gan_128",
    "seed_keras_dynamic": "csc412_keras_dcgan",
    "seed_pytorch_dcgan": "aiub_dcgan",
    "seed_dcgan_baseline": "ucsd_dcgan",
    "seed_sn_dcgan": "ucsd_sn_dcgan",
}
"""Former names of configs -> the names that they have now."""
REPLACED = {"text_gan_sn": "anime_words"}
"""Former configs -> those that do better what they were for."""


def find(name: str) -> Path:
    """A config by path or by the name, also a former one, of a file in `configs/`."""
    folder = config_folder()
    new = RENAMED.get(name.removesuffix(".py"), name)
    for path in (Path(name), folder / new, folder / f"{new}.py"):
        if path.is_file() and path.suffix == ".py":
            return path
    known = sorted(path.stem for path in folder.glob("*.py"))
    near = difflib.get_close_matches(Path(name).stem, known, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if better := REPLACED.get(Path(name).stem):
        hint = f" {better!r} replaces it; `anigan train --resume RUN` continues an old run."
    raise UserError(f"no config {name!r}.{hint} Choose from: {', '.join(known)}")


def is_shipped(name: str) -> bool:
    """Whether a config of this name comes with the package."""
    return Path(name).name == name and (config_folder() / f"{name}.py").is_file()


def load(name: str) -> Config:
    """Executes a config file (the user's own, trusted code) and returns its CONFIG.

    It may import the modules beside it.

    Raises:
      UserError: there is no such file, it fails, or it defines no CONFIG.
    """
    path = find(name)
    if (old := Path(name).stem) != path.stem:
        print(f"note: the config {old} is now called {path.stem}", file=sys.stderr)
    path = path.resolve()
    if str(path.parent) not in sys.path:
        # Last: a neighbor must not hide an installed package.
        sys.path.append(str(path.parent))
    module = _execute(f"{own_code.CONFIG}{path.stem}", path)
    config = getattr(module, "CONFIG", None)
    if not isinstance(config, Config):
        others = [name for name, value in vars(module).items() if isinstance(value, Config)]
        found = f"; {', '.join(others)} is one: call it CONFIG" if others else ""
        found = found if config is None else f"; its CONFIG is a {type(config).__name__}"
        raise UserError(f"{path} defines no CONFIG of type anigan_jax.config.Config{found}")
    # Types that no flag can have are refused where flags are made.
    with contextlib.suppress(AttributeError, NameError, TypeError):
        if faults := list(declared.type_faults("", config)):
            raise UserError(f"{path}: {'; '.join(faults)}")
    return config


def _execute(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up here.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, UserError) or not isinstance(error, Exception):
            raise
        raise UserError(own_code.fault_of(error, path, vars(module))) from None
    return module


def override(config: Config, argv: list[str], prog: str) -> Config:
    """Typed overrides, `--size` among them (`sized`).

    Of a config whose length is in steps `--run.epochs` alone sets another.

    Raises:
      UserError: one of them is unknown or has no such value.
      SystemExit: 0, where help is asked for and was printed.
    """
    try:
        made = parse(type(config), sized(config, argv), prog, default=config)
    except (AttributeError, NameError, TypeError) as error:
        own = own_code.names(config)
        if not own:
            raise
        raise UserError(
            f"settings of {', '.join(sorted(own))} have types that no flag can have ({error}); "
            "int, float, bool, str, Literal, tuples of these and dataclasses can be flags"
        ) from None
    if "run.epochs" in (said := flags_of(argv)) and "run.steps" not in said:
        made = dataclasses.replace(made, run=dataclasses.replace(made.run, steps=0))
    return made


def sized(config: Config, overrides: Sequence[str]) -> list[str]:
    """The overrides with `--size N` as the settings of that name of the data and the networks.

    Networks that double a small square get the one that N is a power of two of: 96 is 16 x 6.
    Kept transparency is a channel of the networks that can have it.
    """
    words = [part for word in overrides for part in _halves(word)]
    if ("--data.transparency", "keep") in itertools.pairwise(words):
        both = networks("method", config.method)
        words += [f"--{path}.channels=4" for path, network in both if hasattr(network, "channels")]
    if "--size" not in words[:-1]:
        return words
    at = words.index("--size")
    wanted = words[at + 1]
    found = [f"--data.size={wanted}"]
    size = int(wanted) if wanted.isdecimal() else 0
    small = next((n for n in (4, 5, 6, 7) if size > n and _doubles(n, size)), 0)
    for path, network in networks("method", config.method):
        found.append(f"--{path}.size={wanted}")
        for name in ("start", "end"):
            if small and hasattr(network, name) and not _doubles(getattr(network, name), size):
                found.append(f"--{path}.{name}={small}")
    return [*words[:at], *found, *words[at + 2 :]]


def _halves(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith(("--size=", "--data.transparency=")) else [word]


def _doubles(small: int, size: int) -> bool:
    return size % small == 0 and (size // small).bit_count() == 1


def networks(path: str, settings: Any) -> Iterator[tuple[str, Any]]:
    """The networks' settings within settings, by their flag."""
    for f in dataclasses.fields(settings):
        value = getattr(settings, f.name)
        if dataclasses.is_dataclass(value):
            flag = f"{path}.{f.name.replace('_', '-')}"
            if isinstance(value, NetworkSettings):
                yield flag, value
            yield from networks(flag, value)


def flags_of(argv: Sequence[str]) -> set[str]:
    """The names of the flags among words, without dashes before and '=VALUE' behind."""
    found = (word[2:].partition("=")[0] for word in argv if word.startswith("--"))
    return {name.replace("_", "-") for name in found}


def setting_of(flag: str) -> str:
    """The setting that a flag is about: 'a.no-b' and 'a.b', 'a_b' and 'a-b' are of one."""
    return re.sub(r"(^-*|\.)no-", r"\1", flag.replace("_", "-"))


def without(words: Iterable[str], *names: str) -> list[str]:
    """The words without the flags of some settings, on or off, and their values."""
    settings = set(map(setting_of, names))
    kept, left_out = [], False
    for word in words:
        if word.startswith("--"):
            left_out = setting_of(word[2:].partition("=")[0]) in settings
        if not left_out:
            kept.append(word)
    return kept


def parse(
    target: Any, argv: list[str], prog: str, config: tuple[Any, ...] = (), **options: Any
) -> Any:
    """`tyro.cli`, whose refusals are UserErrors; help is printed and leaves by SystemExit."""
    said = io.StringIO()
    # Docstrings describe every flag; searching the source for comments takes half of the time.
    config = (*config, HelptextFromCommentsOff)
    # Its boxes are as wide as the terminal; words of ours are not broken.
    columns = {} if {"-h", "--help"} & set(argv) else {"COLUMNS": "1000"}
    before = {name: os.environ.get(name) for name in columns}
    os.environ.update(columns)
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(target, args=argv, prog=prog, config=config, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        lines = [line.strip(" │") for line in said.getvalue().splitlines()]
        kept = [line for line in lines if line and line[0] not in "╭╰─"]
        raise UserError("\n  ".join(kept)) from None
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


# Flags that users give twice for several values.
REPEATED = {
    "--data.path": "; to add sources to the set, use --data.also",
    **dict.fromkeys(("--data.also", "--also"), "; list several sources after it: --also A B"),
    **dict.fromkeys(
        ("--data.attributes", "--attributes"), "; list several after it: --attributes A B"
    ),
}


def refuse_repeats(argv: list[str]) -> None:
    """Refuses a flag that is given twice: which one was meant cannot be known."""
    seen: dict[str, str] = {}
    for word in argv:
        flag = word.partition("=")[0]
        if not flag.startswith("--") or flag == "--":
            continue
        setting = setting_of(flag)
        if setting in seen:
            also = "" if seen[setting] == flag else f", once as {seen[setting]}"
            hint = REPEATED.get(flag, "")
            raise UserError(f"{flag} is given twice{also}; give it once{hint}")
        seen[setting] = flag
