"""The user's own code that a config rests on: found, kept with a run, opened again.

A run keeps its files by their paths below the folders that their imports begin at. It opens them
as a package of its own, in which the run's own modules come before others of their names.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import difflib
import hashlib
import importlib
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from anigan_jax.config import PACKAGE
from anigan_jax.errors import UserError
from anigan_jax.runtime import environment

CONFIG, RUN = "anigan_config_", "anigan_run_"
"""How the names of modules begin: of config files, and of the packages of runs."""


class OwnCode(NamedTuple):
    """The user's own modules that the classes of a config come from.

    Attributes:
      files: path below the folder that imports begin at -> the file.
      modules: module name -> that path; as `config.to_json` takes them.
    """

    files: dict[str, Path]
    modules: dict[str, str]


def of(config: Any) -> OwnCode:
    """The files that define a config's classes, with those of theirs that they import.

    A class that was typed into an interpreter has no file: it cannot be read back.
    """
    own: dict[str, tuple[Path, Path]] = {}
    for cls in _classes(config):
        module = sys.modules.get(cls.__module__)
        file = getattr(module, "__file__", None)
        if module and file and cls.__module__.split(".")[0] != PACKAGE:
            path = Path(file).absolute()
            own[cls.__module__] = path, _root(module, path)
    files: dict[str, Path] = {}
    todo, tops = list(own.values()), _tops(own.values())
    while todo:
        path, root = todo.pop()
        name = path.relative_to(root).as_posix()
        if name not in files:
            files[name] = path
            todo += _imported(path, root, tops)
        elif files[name] != path and files[name].read_bytes() != path.read_bytes():
            raise UserError(
                f"{files[name]} and {path} have the same name, and a run keeps its code by "
                "name; rename one of them"
            )
    names = {name: path.relative_to(root).as_posix() for name, (path, root) in own.items()}
    return OwnCode(dict(sorted(files.items())), names)


def names(config: Any) -> set[str]:
    """The names of a config's classes that are the user's own."""
    return {cls.__name__ for cls in _classes(config) if not cls.__module__.startswith(PACKAGE)}


def _classes(value: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(value):
        yield type(value)
        for f in dataclasses.fields(value):
            yield from _classes(getattr(value, f.name))
    elif isinstance(value, Mapping | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _classes(item)


def _root(module: ModuleType, path: Path) -> Path:
    """The folder that the imports of a module begin at: above all packages that it is in."""
    spec = module.__spec__
    # `python -m` calls it another name.
    name = spec.name if spec else module.__name__
    if name.startswith(CONFIG):
        return path.parent
    if name.startswith(RUN):
        name = name.partition(".")[2]
    parts = (*name.split("."), *(["__init__"] if path.name == "__init__.py" else []))
    # A module may be loaded by another name than its place has.
    alike = path.with_suffix("").parts[-len(parts) :] == parts
    return path.parents[len(parts) - 1] if alike else path.parent


def _tops(own: Iterable[tuple[Path, Path]]) -> dict[Path, set[str]]:
    """Root -> the first names of what lies below it and is the user's."""
    tops: dict[Path, set[str]] = {}
    for path, root in own:
        tops.setdefault(root, set()).add(Path(path.relative_to(root).parts[0]).stem)
    return tops


def _imported(path: Path, root: Path, tops: dict[Path, set[str]]) -> Iterator[tuple[Path, Path]]:
    """The files of the user's that a module imports, anywhere in it, and their roots; its packages
    among them."""
    inside = path.relative_to(root).parts
    found = [(root.joinpath(*inside[:end], "__init__.py"), root) for end in range(1, len(inside))]
    for node in ast.walk(ast.parse(path.read_bytes())):
        level, names = 0, []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            level, front = node.level, node.module.split(".") if node.module else []
            names = [front, *([*front, alias.name] for alias in node.names)]
        for parts in filter(None, names):
            if level:
                bases = [(path.parents[level - 1], root)]
            else:
                # Of what is installed some packages are a user's, not those beside them.
                bases = [
                    (base, base)
                    for base, own in tops.items()
                    if parts[0] != PACKAGE and (parts[0] in own or not _installed(base))
                ]
            for base, top in bases:
                stems = [base.joinpath(*parts[:end]) for end in range(1, len(parts) + 1)]
                found += [
                    (file, top) for s in stems for file in (s.with_suffix(".py"), s / "__init__.py")
                ]
    yield from ((file, top) for file, top in found if file.is_file() and file.is_relative_to(top))


def _installed(path: Path) -> bool:
    """Whether a path is of what an installation brought, or of this package."""
    homes = (sysconfig.get_path("stdlib"), environment.HOME)
    return bool({"site-packages", "dist-packages"} & {*path.parts}) or any(
        path.is_relative_to(home) for home in homes
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
                raise UserError(f"{path} is missing or not the file that the run was trained with")
        known = hashlib.sha256(repr(sorted(sha256.items())).encode()).hexdigest()[:12]
        front = f"{RUN}{known}"
        _KEPT[front] = folder.absolute(), frozenset(sha256)
        return _import(front, file)

    return own


_KEPT: dict[str, tuple[Path, frozenset[str]]] = {}
"""Package of a run's own code -> its folder, and the files that are modules of it."""


def _import(front: str, file: str) -> ModuleType:
    """A file of a run's own code, executed where it has not been yet."""
    if front not in sys.modules:
        sys.modules[front] = package = ModuleType(front)
        package.__path__ = [str(_KEPT[front][0])]
    if _FINDER not in sys.meta_path:
        # Before the one that looks into the package's folder.
        sys.meta_path.insert(0, _FINDER)
    parts = Path(file).with_suffix("").parts
    # The name of a config's file may have dots, which would be packages.
    names = [part.replace(".", ":") for part in parts]
    name = ".".join(names[:-1] if len(names) > 1 and names[-1] == "__init__" else names)
    try:
        return importlib.import_module(f"{front}.{name}")
    except UserError:
        raise
    except Exception as error:
        raise UserError(fault_of(error, _KEPT[front][0] / file, {})) from None


def _find(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
    """Finds the modules of runs' own code, as importlib asks for them."""
    front, _, inside = name.partition(".")
    if front not in _KEPT or not inside:
        return None
    folder, files = _KEPT[front]
    inside = inside.replace(".", "/").replace(":", ".")
    for file, places in ((f"{inside}/__init__.py", [str(folder / inside)]), (f"{inside}.py", None)):
        if file in files:
            loader = _Loader(name, str(folder / file))
            return spec_from_file_location(
                name, loader.path, loader=loader, submodule_search_locations=places
            )
    if not any(file.startswith(f"{inside}/") for file in files):
        return None
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(folder / inside)]
    return spec


_FINDER: Any = SimpleNamespace(find_spec=_find)


class _Loader(SourceFileLoader):
    """Executes a file of a run's own code, whose imports find the run's own files first."""

    def get_code(self, fullname: str) -> CodeType:
        """From its source alone: the run directory is only read, and no bytecode in it either."""
        return self.source_to_code(self.get_data(self.path), self.path)

    def exec_module(self, module: ModuleType) -> None:
        front = module.__name__.partition(".")[0]
        tops = {Path(name).parts[0].removesuffix(".py") for name in _KEPT[front][1]}

        def own(
            name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
        ) -> Any:
            top = name.split(".")[0]
            if level or top not in tops:
                return builtins.__import__(name, globals, locals, fromlist, level)
            found = builtins.__import__(f"{front}.{name}", globals, locals, fromlist, 0)
            return found if fromlist else sys.modules[f"{front}.{top}"]

        # Python asks the builtins of a module, also for the imports within its functions.
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": own}
        super().exec_module(module)


def fault_of(error: Exception, path: Path, names: dict[str, Any]) -> str:
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
    files = {name: getattr(module, "__file__", None) for name, module in [*sys.modules.items()]}
    # Of `__main__` the file is the command itself.
    loaded = {name: Path(file) for name, file in files.items() if file and name != "__main__"}
    folders = {path.parent for name, path in loaded.items() if name.startswith((CONFIG, RUN))}
    folders -= {environment.config_folder().resolve()}
    own = {
        path
        for path in loaded.values()
        if any(map(path.is_relative_to, folders)) and not _installed(path)
    }
    if not (found := _innermost(error, own.__contains__)):
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
