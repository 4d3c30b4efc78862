"""The house rules that a machine can check: who may import what, and what nobody may."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "anigan_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
# Each room knows only what stands above it.
ORDER = (
    ("errors", "core", "losses", "shipped"),
    ("rng",),
    ("metrics",),
    ("runtime",),
    ("networks",),
    ("data",),
    ("optimizers", "intervals", "parent", "declared"),
    ("config",),
    ("own_code",),
    ("config_file",),
    ("storage",),
    ("perceptual",),
    ("methods",),
    ("state",),
    ("sampling",),
    ("opened",),
    ("report",),
    ("evaluation", "export"),
    ("training",),
    ("trained",),
    ("api",),
    ("sweep", "bench"),
    ("reproduce",),
    ("cli",),
    ("__init__", "__main__"),
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}


def imports(path: Path, *, top: bool) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def module(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def rooms_of(path: Path) -> set[str]:
    """The rooms that a file imports from, its own left out."""
    used = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "anigan_jax":
            parts = node.module.split(".")[1:]
            used |= {parts[0]} if parts else {alias.name for alias in node.names}
    return (used & RANK.keys()) - {module(path).split("/")[0]}


@pytest.mark.parametrize("path", FILES, ids=module)
def test_rooms_know_only_what_stands_above_them(path):
    here = module(path).split("/")[0]
    wrong = {room for room in rooms_of(path) if RANK[room] >= RANK[here]}
    assert not wrong, f"{module(path)} imports from {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("path", FILES, ids=module)
def test_who_knows_which_library(path):
    here, room = module(path), module(path).split("/")[0]
    roots = {name.split(".")[0] for name in imports(path, top=False)}
    if here != "storage/checkpoint":
        assert "orbax" not in roots
    if room in ("data", "metrics"):
        assert not roots & {"jax", "flax", "optax"}, f"{here} is NumPy and Pillow only"
    if here in ("core", "losses"):
        assert "flax" not in roots or here == "core"
    if room not in ("methods", "bench"):
        names = imports(path, top=False) - {"anigan_jax.methods.augment"}
        families = {n for n in names if n.startswith("anigan_jax.methods.")}
        assert not {n for n in families if "augment" not in n}, "it names a family"


@pytest.mark.long
def test_no_circles():
    """Within a room too: what a module imports at its top is never imported back."""
    import graphlib

    names = {module(path).replace("/", ".") for path in FILES}
    graph = {}
    for path in FILES:
        used = {name.removeprefix("anigan_jax.") for name in imports(path, top=True)}
        graph[module(path).replace("/", ".")] = used & names
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", FILES, ids=module)
def test_arrays_hold_no_pickles(path):
    # The one unsafe call that ruff has no rule for.
    for node in ast.walk(ast.parse(path.read_text())):
        for keyword in node.keywords if isinstance(node, ast.Call) else ():
            if keyword.arg == "allow_pickle":
                assert isinstance(keyword.value, ast.Constant) and keyword.value.value is False


REFUSED = (
    ("import pickle", "TID251"),
    ("from pickle import loads", "TID251"),
    ("import _pickle", "TID251"),
    ("import pickle\npickle.load(open('x', 'rb'))", "S301"),
    ("import shelve\nshelve.open('x')", "S301"),
    ("import dill\ndill.loads(b'')", "S301"),
    ("import joblib", "TID251"),
    ("import marshal\nmarshal.loads(b'')", "S302"),
    ("eval(input())", "S307"),
    ("exec(input())", "S102"),
    ("import yaml\nyaml.load('x', Loader=yaml.Loader)", "S506"),
    ("import yaml\nyaml.full_load('x')", "TID251"),
    ("import yaml\nyaml.unsafe_load('x')", "TID251"),
    ("import subprocess\nsubprocess.run(input(), shell=True)", "S602"),
    ("import os\nos.system(input())", "S605"),
    ("import os\nos.popen(input())", "S605"),
    ("import torch\ntorch.load('x')", "TID251"),
    ("import tarfile\ntarfile.open('x').extractall()", "S202"),
    ("import shutil\nshutil.unpack_archive('x')", "TID251"),
    ("import jinja2\njinja2.Environment()", "S701"),
    ("from jinja2 import Template", "TID251"),
    ("from jax import lax\nlax.conv_transpose", "TID251"),
    ("try:\n    x = 1\nexcept:\n    x = 2", "E722"),
)
PASSES = """import json
import subprocess

import yaml

yaml.safe_load("x")
subprocess.run(["ls", "-l"])
json.loads("{}")
"""


@pytest.mark.parametrize("file", ["anigan_jax/new.py", "tests/test_new.py"])
def test_the_lint_refuses(file):
    """All in one file: starting the linter takes longer than its work."""
    found, line, missed = lint("\n".join(code for code, _ in REFUSED), file), 1, []
    for code, rule in REFUSED:
        lines = range(line, line := line + code.count("\n") + 1)
        if not any((at, rule) in found for at in lines):
            missed.append((code, rule))
    assert not missed


def test_the_lint_lets_pass():
    assert not lint(PASSES, "anigan_jax/new.py")


def test_nobody_silences_it():
    silenced = re.compile(r"noqa: [^#]*\b(S\d{3}|TID251)|noqa$", re.M)
    assert silenced.search("eval(x)  # noqa: E501, S307")
    assert not [module(path) for path in FILES if silenced.search(path.read_text())]


def lint(code: str, file: str) -> set[tuple[int, str]]:
    """(line, rule) of all that a file of this project with this code breaks."""
    command = [
        "ruff",
        "check",
        "--no-cache",
        "--output-format=json",
        f"--stdin-filename={file}",
        "-",
    ]
    found = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=PACKAGE.parent,
        input=code.rstrip() + "\n",
        capture_output=True,
        text=True,
    )
    return {(fault["location"]["row"], fault["code"]) for fault in json.loads(found.stdout)}


@pytest.mark.parametrize("path", FILES, ids=module)
def test_sizes(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 75, node.name
