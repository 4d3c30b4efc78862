"""What the site takes from the code: flags of verbs, settings, configs, docstrings, notebooks.

A line `<!-- from_code: NAME -->` of a page becomes what `PARTS[NAME]` gives: Markdown.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import warnings
from argparse import Action, ArgumentParser
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tyro
from sphinx.application import Sphinx

from anigan_jax import config_file
from anigan_jax.cli import main

ROOT = Path(__file__).resolve().parent.parent
# Files of the repository that are pages of the site, too.
OUTSIDE = {"CONTRIBUTING": "contributing", "CHANGELOG": "changes", "SECURITY": "security"}
# Headings of the groups of settings that every training has.
COMMON = {
    "options": "The training",
    "data": "The images: `--data`",
    "optimizers.g": "Optimizers: `--optimizers.g`, and the same of `--optimizers.d`",
    "parent": "Another run to start from",
    "run": "Length, records, devices: `--run`",
}
# A config of each family whose settings the site lists.
FAMILIES = {
    "From noise": "quickstart",
    "From noise: R3GAN": "r3gan_lite",
    "From words": "anime_words",
    "From words: the text encoder": "sjtu_text_encoder",
    "From photos: CycleGAN": "tsinghua_cyclegan",
    "From photos: CartoonGAN": "tsinghua_cartoongan",
    "Classifiers": "colour_classifier",
}


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", _read)
    # Before napoleon, which is at 500.
    app.connect("autodoc-process-docstring", _as_rst, priority=400)
    app.connect("autodoc-process-docstring", _short_types, priority=600)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    if app.env.doc2path(name).suffix == ".ipynb":
        source[0] = "\n\n".join(notebook(json.loads(source[0])))
    for outside, page in OUTSIDE.items():
        source[0] = re.sub(rf"\]\((\.\./)+{outside}\.md", f"](/{page}.md", source[0])
    source[0] = re.sub(
        r"^<!-- from_code: (\w+) -->$",
        lambda found: "\n".join(PARTS[found[1]]()),
        source[0],
        flags=re.M,
    )


def verbs() -> Iterator[str]:
    """Every verb in the order of `anigan --help`, with its flags."""
    known = main.verbs()
    listed = [name for names in main.GROUPS.values() for name in names]
    groups = {**main.GROUPS, "more": [name for name in known if name not in listed]}
    for title, names in groups.items():
        if names:
            yield f"\n## {title.partition(' (')[0].capitalize()}\n"
        for name in names:
            module = importlib.import_module(f"anigan_jax.cli.{known[name].module}")
            function = getattr(module, known[name].function)
            parser = _parser(main.typed(function), config=(tyro.conf.FlagCreatePairsOff,))
            yield f"### anigan {name}\n\n{parser.description}\n"
            yield from _options(f"anigan {name}", parser._actions)


def settings() -> Iterator[str]:
    """All settings of `train`, those of each family under a heading of its own."""
    for group in _groups("ref_dcgan64"):
        name = _name(group)
        # D's optimizer has the same settings as G's.
        if not name.startswith(("method", "optimizers.d", "positional")):
            yield f"\n## {COMMON.get(name, name)}\n"
            yield from _options("anigan train", group._group_actions, group.description)
    painted = next(group for group in _groups("quickstart") if _name(group) == "data")
    yield "\n## Painted faces: `--data`\n"
    yield from _options("anigan train quickstart", painted._group_actions, painted.description)
    for title, name in FAMILIES.items():
        yield f"\n## {title}\n\nDefaults are those of the config `{name}`.\n"
        for group in _groups(name):
            if _name(group).startswith("method"):
                yield f"\n### `--{_name(group)}` of `{name}`\n"
                yield from _options(f"anigan train {name}", group._group_actions, group.description)


def configs() -> Iterator[str]:
    """Every config that comes along: what it says of itself, and the file."""
    for path in sorted((ROOT / "configs").glob("[a-z]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        yield f"\n## {path.stem}\n\n{_paragraphs(ast.get_docstring(tree) or '')}\n"
        first = next(node.lineno for node in tree.body[1:])
        yield f"```{{literalinclude}} ../../configs/{path.name}\n:lines: {first}-\n```\n"


def _paragraphs(docstring: str) -> str:
    """The docstring of a config: its commands as code, what it took from where as paragraphs."""
    parts = re.split(r"\n\n|\n(?=(?:Chosen|Departs|Measured|Trains|D: |Tags)\b)", docstring)
    commands = ("anigan ", "bash ")
    return "\n\n".join(f"```text\n{p}\n```" if p.startswith(commands) else p for p in parts)


def notebook(cells: dict[str, Any]) -> Iterator[str]:
    """A notebook as Markdown, with the outputs that it was saved with."""
    for cell in cells["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield text
            continue
        yield f"```python\n{text}\n```"
        for output in cell["outputs"]:
            data = output.get("data", {"text/plain": output.get("text", "")})
            if picture := data.get("image/png"):
                yield f"![output](data:image/png;base64,{''.join(picture).strip()})"
            else:
                yield f"```text\n{''.join(data['text/plain']).rstrip()}\n```"


PARTS = {"verbs": verbs, "settings": settings, "configs": configs}


def _groups(config: str) -> list[Any]:
    """The groups of settings of a config, as its help has them."""
    settings = config_file.load(config)
    return _parser(type(settings), default=settings)._action_groups


def _name(group: Any) -> str:
    return str(group.title or "").removesuffix(" options")


def _parser(target: Any, **options: Any) -> ArgumentParser:
    """What the command line understands, as argparse has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return tyro.extras.get_parser(target, **options)


def _options(program: str, actions: Iterable[Action], about: str | None = None) -> Iterator[str]:
    """Each flag as an `option` that other pages can link to."""
    yield f"```{{program}} {program}\n```\n"
    if about:
        yield f"{about}\n"
    for action in actions:
        shape = str(action.metavar or "")
        name = f"{action.option_strings[0]} {shape}" if action.option_strings else shape
        if action.dest == "help" or not name:
            continue
        help_text = str(action.help or "").replace("%%", "%")
        found = re.fullmatch(r"(.*?)\s*(?:\(required\)|\(default: (.*)\))?", help_text, re.S)
        said, default = found.groups("") if found else ("", "")
        if default not in ("", "None", "False", "''"):
            said = f"{said.rstrip('.')}. Default: `{default}`".removeprefix(". ")
        yield f"````{{option}} {name.rstrip()}\n{said}\n````\n"


def _as_rst(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escapes what reStructuredText would read as markup, outside of `code`."""
    for i, line in enumerate(lines):
        parts = line.split("`")
        for k in range(0, len(parts), 2):
            parts[k] = re.sub(r"([*|@\\])", r"\\\1", parts[k])
            parts[k] = re.sub(r"(?<=\w)_(?!\w)", r"\\_", parts[k])
        # A plural stands outside of its `code`s.
        lines[i] = re.sub(r"(`[^`]+`)(?=\w)", r"\1\\ ", "`".join(parts))


def _signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str | None, str | None]:
    """Settings and tuples show their fields, which follow, and not a signature of them all."""
    if what == "class" and (hasattr(obj, "__dataclass_fields__") or hasattr(obj, "_fields")):
        return "", None
    return _short(signature), _short(returns)


def _short(types: str | None) -> str | None:
    return types and re.sub(r"[~\w.]*\b(_jax|abc)\.(?=Array|Callable)", "", types)


def _short_types(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list) -> None:
    lines[:] = [_short(line) if line.startswith(":vartype") else line for line in lines]


def _skip(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Fields of a NamedTuple are described under its Attributes."""
    return True if type(obj).__name__ == "_tuplegetter" else None
