"""Config files: found by name, executed, overridden; and the user's own code in them."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import hashlib
import importlib.util
import io
import itertools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import tyro
from tyro.conf import HelptextFromCommentsOff

from anigan_jax.config import PACKAGE, Config
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
        hint = f" {better!r} has replaced it; a run of it goes on by `anigan train --resume RUN`."
    raise UserError(f"no config {name!r}.{hint} There are: {', '.join(known)}")


def is_shipped(name: str) -> bool:
    """Whether a config of this name comes with the package."""
    return (config_folder() / f"{name}.py").is_file()


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
    module = _execute(f"anigan_config_{path.stem}", path)
    config = getattr(module, "CONFIG", None)
    if not isinstance(config, Config):
        raise UserError(f"{path} defines no CONFIG of type anigan_jax.config.Config")
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
        raise UserError(_fault_of(error, path, vars(module))) from None
    return module


def _fault_of(error: Exception, path: Path, names: dict[str, Any]) -> str:
    """What a config file does wrong, in one line: where, what, and the field that was meant."""
    line, text = None, str(error)
    if isinstance(error, SyntaxError) and error.filename == str(path):
        line, text = error.lineno, error.msg
    if found := _innermost(error, lambda file: file == path):
        line = found[1]
    where, hint = f"{path}, line {line}" if line else str(path), ""
    if unknown := re.search(r"unexpected keyword argument '(\w+)'", text):
        classes = [c for c in names.values() if dataclasses.is_dataclass(c)]
        hint = _near(unknown[1], {f.name for c in classes for f in dataclasses.fields(c)})
    elif unknown := re.search(r"name '(\w+)' is not defined", text):
        hint = _near(unknown[1], set(names))
    return f"{where}: {type(error).__name__}: {text}{hint}"


def fault_of_own(error: Exception) -> str | None:
    """'FILE, line N: TypeError: ...' of an error in a config file of the user's, or beside it.

    The innermost of its lines; None where the error did not pass through any.
    """
    ours = config_folder().resolve()
    loaded = [m for n, m in sys.modules.items() if n.startswith(("anigan_config_", "anigan_run_"))]
    folders = {Path(m.__file__).parent for m in loaded if m.__file__} - {ours}
    if not (found := _innermost(error, lambda file: file.parent in folders)):
        return None
    return f"{found[0]}, line {found[1]}: {type(error).__name__}: {error}"


def _innermost(error: Exception, own: Callable[[Path], bool]) -> tuple[str, int] | None:
    """The file and line nearest to an error, of those files that `own` accepts."""
    frames = traceback.walk_tb(error.__traceback__)
    lines = [(frame.f_code.co_filename, line) for frame, line in frames]
    return next((at for at in reversed(lines) if own(Path(at[0]))), None)


def _near(name: str, known: set[str]) -> str:
    """'. Did you mean ...?', whatever the case; '' where nothing is near."""
    lower = {other.lower(): other for other in sorted(known)}
    near = difflib.get_close_matches(name.lower(), lower, 1)
    return f". Did you mean {lower[near[0]]!r}?" if near else ""


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
        own = {cls.__name__ for cls in _classes(config) if not cls.__module__.startswith(PACKAGE)}
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
    "--data.path": "; more sources of one set: --data.also",
    **dict.fromkeys(("--data.also", "--also"), "; several sources stand behind it: --also A B"),
    **dict.fromkeys(
        ("--data.attributes", "--attributes"), "; several stand behind it: --attributes A B"
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


class OwnCode(NamedTuple):
    """The user's own modules that the classes of a config come from.

    Attributes:
      files: path below the folder of them all -> the file.
      modules: module name -> path below that folder; as `config.to_json` takes them.
    """

    files: dict[str, Path]
    modules: dict[str, str]


def own_code(config: Config) -> OwnCode:
    """The files that define a config's classes, with the neighbors that they import.

    A class that was typed into an interpreter has no file: it cannot be read back.
    """
    own: dict[str, Path] = {}
    for cls in _classes(config):
        file = getattr(sys.modules.get(cls.__module__), "__file__", None)
        if cls.__module__.split(".")[0] != PACKAGE and file:
            own[cls.__module__] = Path(file).resolve()
    if not own:
        return OwnCode({}, {})
    folder = min((path.parent for path in own.values()), key=lambda path: len(path.parts))
    found: set[Path] = set()
    todo = list(own.values())
    while todo:
        path = todo.pop()
        if path not in found and path.is_relative_to(folder):
            found.add(path)
            todo += _neighbors(path, folder)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(found)}
    names = {n: path.relative_to(folder).as_posix() for n, path in own.items() if path in found}
    return OwnCode(files, names)


def _classes(value: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(value):
        yield type(value)
        for f in dataclasses.fields(value):
            yield from _classes(getattr(value, f.name))
    elif isinstance(value, Mapping | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _classes(item)


def _neighbors(path: Path, folder: Path) -> Iterator[Path]:
    """The files below a folder that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                stem = folder.joinpath(*parts[:end])
                yield from (
                    p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()
                )


def importer(folder: Path, sha256: Mapping[str, str], trust: bool) -> Callable[[str], ModuleType]:
    """Gives the modules of a run's own code, as `config.from_json` takes it.

    Args:
      folder: where the run keeps the files.
      sha256: path below it -> what the file must have.
      trust: whether they may be executed.

    Raises:
      UserError: (the function) not trusted, unknown, or changed.
    """

    def own(file: str) -> ModuleType:
        if file not in sha256:
            raise UserError(f"a class of {file} was defined outside of any file; it cannot be read")
        if not trust:
            raise UserError(
                f"this run has classes of its own, and opening it would run {', '.join(sha256)} of "
                f"{folder}. Read that code; if you trust it, pass --trust (in Python: trust=True)"
            )
        for name, expected in sha256.items():
            path = folder / name
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
                raise UserError(f"{path} is absent or not the file that the run was trained with")
        known = hashlib.sha256("".join(sha256.values()).encode()).hexdigest()[:12]
        module = f"anigan_run_{known}_" + re.sub(r"\W", "_", file)
        return sys.modules.get(module) or _with_neighbors(module, folder, file, set(sha256))

    return own


def _with_neighbors(module: str, folder: Path, file: str, files: set[str]) -> ModuleType:
    """Executes a file whose imports find the run's own files first, whatever was imported."""
    names = {Path(name).with_suffix("").as_posix().replace("/", ".") for name in files}
    names |= {name.removesuffix(".__init__") for name in names}
    hidden = {name: sys.modules.pop(name) for name in names & sys.modules.keys()}
    sys.path.insert(0, str(folder))
    # The run directory is only read: no bytecode is left in it.
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return _execute(module, folder / file)
    finally:
        sys.dont_write_bytecode = before
        sys.path.remove(str(folder))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)
