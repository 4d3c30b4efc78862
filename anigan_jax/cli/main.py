"""`anigan VERB ...`: finds the verbs, parses their words, turns errors into exit codes."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import errno
import importlib
import inspect
import os
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import anigan_jax
from anigan_jax.errors import FULL, MachineError, UserError, printable
from anigan_jax.runtime import environment, stdio

# Verbs that take steps of a training.
TRAINS = (["train"], ["sweep"], ["bench"], ["replay"], ["reproduce"])
# Verbs in the order in which they are needed; `anigan --help` lists others last.
GROUPS = {
    "start here (anigan train quickstart --workdir runs/first)": ("train",),
    "pictures of a run": (
        *("sample", "interpolate", "project", "edit", "table", "history"),
        *("translate", "compare", "kernels"),
    ),
    "data": ("import", "check"),
    "how good it is": ("evaluate", "accuracy", "probe", "report", "log", "epochs", "sweep"),
    "proof": ("replay", "checkpoints"),
    "the five reports": ("reproduce",),
    "to share": ("demo", "export"),
    "networks and speed": ("describe", "weights", "bench", "compile"),
}
HELP = ("-h", "--help")
# A path that was given and cannot be: a disk's answer to a name.
NAMED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
)
# What the first lines of any verb import. A checkout is also run by a Python that has none of it.
NEEDED = ("jax", "jaxlib", "flax", "optax", "orbax", "numpy", "PIL", "tyro")


class Verb(NamedTuple):
    """A public function of this folder that gives an exit code (an int).

    Attributes:
      module, function: where it is.
      summary: the first line of its docstring.
    """

    module: str
    function: str
    summary: str


def verbs() -> dict[str, Verb]:
    """All verbs by name, read from the source: to import them all takes a second."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem in ("__init__", "main", "common"):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            if isinstance(node.returns, ast.Name) and node.returns.id == "int":
                name = node.name.strip("_").replace("_", "-")
                found[name] = Verb(path.stem, node.name, _summary(node))
    return found


def _summary(node: ast.FunctionDef | ast.Module) -> str:
    text = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
    return text.partition(";")[0].removesuffix(".")


def main(argv: list[str] | None = None) -> None:
    """Entry point.

    Exit code 0; 1: a replay or a check fails; 2: a mistake, nothing was begun; 3: training
    diverged; 4: disk, memory or another process failed, resume; 128 + signal.
    """
    try:
        _refuse_windows()
        if argv is None:
            argv = sys.argv[1:]
            stdio.prepare()
            if argv[:1] in TRAINS:
                environment.retain_host_memory()
        sys.exit(_run(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.code)
    except OSError as error:
        where = printable(str(error.filename or "a file"))
        if error.errno in NAMED and error.filename:
            print(f"error: {where}: {error.strerror}", file=sys.stderr)
            sys.exit(UserError.code)
        if error.errno not in FULL:
            raise
        print(f"error: {where} cannot be written: {error.strerror}", file=sys.stderr)
        sys.exit(MachineError.code)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in NEEDED:
            _tell_missing(error.name)
        from anigan_jax import own_code

        told = own_code.fault_of_own(error)
        # JAX's own switch for what it leaves out of a traceback.
        if not told or os.environ.get("JAX_TRACEBACK_FILTERING") == "off":
            raise
        whole = "JAX_TRACEBACK_FILTERING=off shows the whole traceback"
        print(f"error: {told}\n  {whole}", file=sys.stderr)
        sys.exit(UserError.code)


def _tell_missing(name: str | None) -> None:
    """Says that this Python has not what the package needs, and ends."""
    print(
        f"error: {sys.executable} has no package {name!r}: anigan_jax is not installed "
        "there. Activate the environment that has it (the launchers make .venv in the "
        "checkout: source .venv/bin/activate), or install it: pip install .",
        file=sys.stderr,
    )
    sys.exit(UserError.code)


def _refuse_windows() -> None:
    """Refuses a system without the locks and limits that every verb needs."""
    try:
        importlib.import_module("fcntl")
        importlib.import_module("resource")
    except ImportError:
        raise UserError(
            "anigan_jax runs on Linux and macOS; on Windows it needs WSL: `wsl --install`, then "
            "install and run it there"
        ) from None


# What other programs have as verbs of their own.
ELSEWHERE = {
    "resume": "`anigan train --resume RUN` continues a run with its own settings",
    "generate": "`anigan sample RUN` makes images",
    "serve": "`anigan demo RUN` is a page that makes images in the browser",
    "test": "`anigan evaluate RUN` scores images, `anigan translate RUN PHOTO` translates photos",
}


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in HELP or (argv[0] == "help" and set(argv[1:2]) <= {"help", *HELP}):
        print(_usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"anigan_jax {anigan_jax.__version__}")
        return 0
    name, words = argv[0], argv[1:]
    if name == "help":
        name, words = words[0], [*words[1:], "--help"]
    known = verbs()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"Did you mean {near[0]!r}?" if near else f"The verbs are {', '.join(known)}"
        hint = ELSEWHERE.get(name, hint)
        raise UserError(f"no verb {name!r}. {hint}")
    module = importlib.import_module(f"anigan_jax.cli.{known[name].module}")
    function = getattr(module, known[name].function)
    return function(**_arguments(function, words, f"anigan {name}"))


def _usage() -> str:
    found = verbs()
    listed = [name for names in GROUPS.values() for name in names]
    groups = {**GROUPS, "more": tuple(name for name in found if name not in listed)}
    lines = ["usage: anigan VERB ..."]
    for title, names in groups.items():
        lines += ["", f"{title}:"] if names else []
        lines += [f"  {name:13}{found[name].summary}" for name in names]
    lines += ["", "configs, by name (or give the path of your own file):"]
    for path in sorted(environment.config_folder().glob("[a-z]*.py")):
        lines.append(f"  {path.stem:21} {_summary(ast.parse(path.read_text(encoding='utf-8')))}")
    return "\n".join(
        [
            *lines,
            "",
            "`anigan help VERB` lists the flags of a verb, `anigan help train CONFIG` lists all",
            "settings of a config with their types and defaults.",
        ]
    )


def _arguments(function: Callable, words: list[str], prog: str) -> dict[str, Any]:
    """The arguments of a verb out of its words, by the types and the docstring that it has."""
    from tyro.conf import FlagCreatePairsOff, UseAppendAction

    from anigan_jax import config_file
    from anigan_jax.cli import common

    hints = typing.get_type_hints(function, include_extras=True)
    # An underscore at the end keeps a flag apart from a word of Python.
    flags = {f"--{name.rstrip('_').replace('_', '-')}" for name in hints}
    more: dict[str, Any] = {}
    own, name = words, ""
    configurable = "overrides" in hints
    if configurable:
        own, more["overrides"] = _split(words, flags)
    many = {f"--{n}" for n, h in hints.items() if UseAppendAction in typing.get_args(h)[1:]}
    config_file.refuse_repeats([word for word in words if word.partition("=")[0] not in many])
    if configurable and set(HELP) & set(own):
        # CONFIG is the first word, or it is none.
        own, name = ["--help"], "" if own[0].startswith("-") else own[0]
    try:
        return config_file.parse(typed(function), own, prog, config=(FlagCreatePairsOff,)) | more
    except UserError as error:
        meant = common.meant(own, flags | _flags_within(hints))
        raise UserError("\n  ".join([*meant, str(error)])) from None
    except SystemExit:
        if configurable and name:
            common.settings_help(name, f"{prog} {name}")
        raise


def _flags_within(hints: dict[str, Any]) -> set[str]:
    """The flags of dataclasses among a verb's arguments, by their types."""
    kinds = [typing.get_args(hint)[0] for hint in hints.values() if typing.get_args(hint)]
    fields = [
        f for kind in kinds if dataclasses.is_dataclass(kind) for f in dataclasses.fields(kind)
    ]
    return {f"--{field.name.replace('_', '-')}" for field in fields}


def typed(function: Callable) -> Callable[..., dict[str, Any]]:
    """A function of a verb's own flags that gives them by name; what tyro reads of the verb."""

    def collected(**given: Any) -> dict[str, Any]:
        # A shell leaves `--out=~/x` as it is.
        paths = {name: value for name, value in given.items() if isinstance(value, Path)}
        return given | {name: environment.expanded(path) for name, path in paths.items()}

    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    kept = [p.replace(annotation=hints[p.name]) for p in parameters if p.name != "overrides"]
    collected.__signature__ = inspect.Signature(kept, return_annotation=dict)  # type: ignore[attr-defined]
    collected.__annotations__ = {p.name: p.annotation for p in kept} | {"return": dict}
    collected.__doc__ = function.__doc__
    return collected


def _split(words: list[str], flags: set[str]) -> tuple[list[str], tuple[str, ...]]:
    """Words of a verb itself and, of other flags with their values, of the config."""
    own: list[str] = []
    others: list[str] = []
    target = own
    for word in words:
        if word.startswith("--") or word in HELP:
            flag = word.partition("=")[0].replace("_", "-")
            target = own if flag in flags or word in HELP else others
        target.append(word)
    return own, tuple(others)
