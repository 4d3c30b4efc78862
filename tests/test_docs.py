"""The documentation: the site builds without a warning, and the commands that it shows parse."""

import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from anigan_jax.cli import common, main
from anigan_jax.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
WANTED = ("sphinx", "myst_parser", "furo")
MISSING = [name for name in WANTED if importlib.util.find_spec(name) is None]
NO_KERNEL = [n for n in ("nbclient", "ipykernel") if importlib.util.find_spec(n) is None]
# Files that are not there, and names for what the reader has.
STANDS_FOR = {"CONFIG": "quickstart", "REPORT": "aiub"}


def commands(page: Path) -> list[list[str]]:
    """The words of every `anigan VERB ...` in the shell blocks of a page."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            for command in re.split("&&", line):
                if command.strip().startswith("anigan "):
                    words = shlex.split(command, comments=True)
                    found.append([STANDS_FOR.get(word, word) for word in words[1:]])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_commands_of_a_page_parse(page, monkeypatch):
    """Verbs, flags and settings are there and take these values."""
    monkeypatch.chdir(ROOT / "docs" / "examples")
    known = main.verbs()
    for name, *words in commands(page):
        assert name in known, f"{page}: no verb {name}"
        function = getattr(
            importlib.import_module(f"anigan_jax.cli.{known[name].module}"), known[name].function
        )
        try:
            given = main._arguments(function, words, f"anigan {name}")
            if given.get("config") and given.get("overrides"):
                common.settings(given["config"], given["overrides"], f"anigan {name}")
        except UserError as error:
            pytest.fail(f"{page}: anigan {name} {shlex.join(words)}: {error}")


def test_every_page_that_a_link_names_is_there():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


@pytest.mark.long
@pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: pip install '.[docs]'")
def test_the_site_builds_without_a_warning(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "docs", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    flags = (tmp_path / "site" / "reference" / "cli.html").read_text()
    assert all(f"anigan {name}" in flags for name in main.verbs())
    assert "--truncation" in flags
    losses = (tmp_path / "site" / "reference" / "losses.html").read_text()
    assert "Miyato et al. 2018, eq. 16" in losses


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_shows_what_it_gives(path):
    assert path.stat().st_size < 200_000
    cells = json.loads(path.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert [output for output in outputs if "image/png" in output.get("data", {})]


def test_the_notebook_has_the_loss_of_the_page():
    cells = json.loads((ROOT / "docs/notebooks/own_loss.ipynb").read_text())["cells"]
    written = [c for c in map(_source, cells) if c.startswith("%%writefile critic.py\n")]
    assert [text.partition("\n")[2] for text in written] == [
        (ROOT / "docs/examples/critic.py").read_text().rstrip()
    ]


def _source(cell: dict) -> str:
    return "".join(cell["source"])


@pytest.mark.long
@pytest.mark.skipif(bool(NO_KERNEL), reason=f"needs {', '.join(NO_KERNEL)}: pip install '.[docs]'")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    """All its cells, with two steps of training in place of many."""
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    book = nbformat.read(path, as_version=4)
    steps = [cell for cell in book.cells if re.fullmatch(r"STEPS = \d+", cell.source)]
    assert len(steps) == 1
    steps[0].source = "STEPS = 2"
    nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
