"""The table tells what ran, also from several processes."""

import subprocess
import sys
from pathlib import Path

import pytest
from faults.table import markdown, write

HERE = Path(__file__).resolve().parent
TESTS = """
import pytest

@pytest.mark.fault(14)
def test_good(): pass

@pytest.mark.fault(14, 15)
def test_bad(): assert False

@pytest.fixture
def broken(): raise OSError

@pytest.mark.fault(16)
def test_without_its_fixture(broken): pass

@pytest.mark.fault(17)
@pytest.mark.skip
def test_skipped(): pass

@pytest.mark.fault(18)
@pytest.mark.parametrize("i", range(3))
def test_three(i): pass

@pytest.mark.fault(20)
@pytest.mark.parametrize("i", range(3))
def test_one_of_three(i):
    if i: pytest.skip()
"""
WANT = {
    14: (2, "FAILED"),
    15: (1, "FAILED"),
    16: (1, "FAILED"),
    17: (1, "skipped"),
    18: (3, "passed"),
    19: (0, "not tested"),
    20: (3, "passed, 2 skipped"),
}


def session(folder: Path, text: str, *args: str) -> subprocess.CompletedProcess:
    (folder / "test_them.py").write_text(text)
    (folder / "pytest.ini").write_text(
        f"[pytest]\naddopts = --strict-markers\nmarkers = fault\npythonpath = {HERE.parent}\n"
    )
    (folder / "conftest.py").write_text('pytest_plugins = ["faults.table"]\n')
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.long
@pytest.mark.parametrize("args", [(), ("-n", "2")])
def test_results_of_rows(tmp_path, args):
    done = session(tmp_path, TESTS, *args, "--fault-table", "table.md")
    assert done.returncode == 1
    lines = (tmp_path / "table.md").read_text().splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found = {int(row): (int(count), result) for row, _, count, result in cells}
    assert len(found) == 42
    assert {row: found[row] for row in WANT} == WANT
    assert "faults injected" in done.stdout


def test_a_page_keeps_what_stands_around_its_table(tmp_path):
    page, rows = tmp_path / "faults.md", {14: (2, "passed"), 15: (1, "FAILED")}
    before, after = "# Faults\n\nWhy.\n\n", "\n## More\n\n| a |\n"
    page.write_text(before + markdown({14: (1, "skipped")}) + after)
    write(page, markdown(rows))
    assert page.read_text() == before + markdown(rows) + after
    write(tmp_path / "new.md", markdown(rows))
    assert (tmp_path / "new.md").read_text() == markdown(rows)


@pytest.mark.long
def test_other_sessions_print_no_table(tmp_path):
    assert "faults injected" not in session(tmp_path, "def test_it(): pass\n").stdout


@pytest.mark.long
def test_a_row_that_is_none_is_refused(tmp_path):
    text = "import pytest\n@pytest.mark.fault(43)\ndef test_it(): pass\n"
    assert session(tmp_path, text).returncode == 4
