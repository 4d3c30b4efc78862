"""The house rules that a machine can check: who may import what, and what nobody may."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "anigan_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
# Modules that the command line reads before JAX may start.
JAX_FREE = (
    "cli",
    "cli_data",
    "weights",
    "config",
    "errors",
    "runtime",
    "cli_common",
    "cli_show",
    "methods/gan",
    "methods/text_gan",
    "methods/text_tables",
    "methods/text_encoder",
    "methods/classifier",
    "methods/translation",
    "methods/cyclegan",
    "methods/cartoongan",
    "networks/resnet",
    "networks/cartoon",
    "foreign_pickle",
    "foreign_weights",
    "foreign_files",
    "inception_weights",
    "cli_weights",
    "cli_evaluate",
    "cli_report",
    "cli_study",
    "report",
    "report_files",
    "report_tables",
    "report_page",
    "downsample",
    "event_files",
    "cli_photos",
    "photos",
    "networks/specs",
)


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


@pytest.mark.parametrize("path", FILES, ids=module)
def test_layers(path):
    here, used = module(path), imports(path, top=False)
    families = {n for n in used if n.startswith("anigan_jax.methods")}
    if not here.startswith(("methods/", "bench")):
        assert not families, f"{here} names a family"
    if here != "checkpoint":
        assert not any(name.startswith("orbax") for name in used)
    if here in JAX_FREE or here.startswith(("data/", "evaluation/")):
        roots = {name.split(".")[0] for name in imports(path, top=True)}
        assert not roots & {"jax", "flax", "optax", "orbax"}, f"{here} starts JAX"
    if here == "losses":
        assert not any(n.startswith(("anigan_jax", "flax")) for n in used)
    if here.startswith("evaluation/"):
        outside = [n for n in used if n.startswith("anigan_jax") and "evaluation" not in n]
        assert not outside, f"{here} judges arrays alone"
    if here == "core":
        assert not any(n.startswith("anigan_jax") for n in used)


@pytest.mark.parametrize("path", FILES, ids=module)
def test_nothing_unsafe(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, "bare except"
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            unsafe = ("pickle.load", "pickle.loads", "yaml.load", "eval", "os.system")
            assert call not in unsafe
            assert call != "lax.conv_transpose"
            assert not any(k.arg == "shell" for k in node.keywords)


@pytest.mark.parametrize("path", FILES, ids=module)
def test_sizes(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 75, node.name
