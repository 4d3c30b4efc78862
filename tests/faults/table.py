"""The fault table: which test injects which fault, printed at the end of a session.

A pytest plugin, loaded by tests/conftest.py. A test says `@pytest.mark.fault(14)`; the rows
travel in its report's user_properties, so that they arrive from pytest-xdist's workers too.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

FAULTS = {
    1: "kill -9 at every file boundary of a save",
    2: "kill -9 at random times",
    3: "power loss: order of write, fsync and rename",
    4: "a flipped bit, a cut or empty file in the newest checkpoint",
    5: "every checkpoint corrupt",
    6: "SIGTERM and SIGINT in each phase",
    7: "a second signal during the save",
    8: "SIGSTOP, then SIGCONT; a laptop asleep",
    9: "disk full, in the save and in the log",
    10: "quota or I/O error while free space looks fine",
    11: "output read-only, a file, or deleted during the run",
    12: "NaN or Inf in a batch or in weights, loss blown up",
    13: "D saturated, no gradient for G, collapse",
    14: "corrupt, truncated, empty or misnamed image files",
    15: "animated, CMYK, 16-bit, palette, transparent, turned, profiled, grey images",
    16: "images of 1x1, 1x10000, smaller than the crop",
    17: "decompression bombs: 50,000 px, gzip, FITS, EPS, SVG",
    18: "hostile archives: paths, links, devices, bombs, millions of entries",
    19: "a pickle offered as weights",
    20: "hostile safetensors header",
    21: "config typo, type, range, duplicate, unknown preset, NaN, BOM",
    22: "a checkpoint of another config or model",
    23: "a checkpoint of a newer or older schema",
    24: "resume on another number of devices",
    25: "batch not divisible by the devices",
    26: "GPU asked for and absent, or one of several missing",
    27: "jaxlib that computes wrongly, or another one than at the start",
    28: "out of memory, device or host",
    29: "clock runs back, 1970, time zones",
    30: "locale, HOME, closed stdout, hash seed, umask, few open files",
    31: "odd paths: blanks, newline, emoji, no UTF-8, 255 bytes, links, case",
    32: "two runs in one folder",
    33: "data changed between start and resume",
    34: "no data, one image, all duplicates, faulty labels, absent class",
    35: "a decoder that dies or hangs",
    36: "a rank killed, stopped or slow",
    37: "ranks with different configs, data or versions",
    38: "saving fails in its thread, or is slower than its interval",
    39: "retention beside a reader; a crash while pruning",
    40: "metrics cut in the middle of a line",
    41: "no network, proxies set, HOME not writable",
    42: "exports with a full disk, or killed",
}
OPTION = "--fault-table"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, metavar="FILE", help="also write the fault table there, as Markdown")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("fault"):
            if not mark.args or not set(mark.args) <= set(FAULTS):
                raise pytest.UsageError(f"{item.nodeid}: fault{mark.args} names no rows 1 to 42")
            item.user_properties += [("fault", row) for row in mark.args]


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    rows = judged(terminalreporter.stats)
    if not any(count for count, _ in rows.values()):
        return
    terminalreporter.section("faults injected")
    for row, (count, result) in rows.items():
        terminalreporter.write_line(f"{row:3}  {result:18}  {count:4}  {FAULTS[row]}")
    if path := config.getoption(OPTION):
        write(Path(path), markdown(rows))


def write(path: Path, table: str) -> None:
    """Puts the table in the place of the one that a page has, or makes a page of it alone."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    head = re.escape(table.splitlines()[0])
    page, found = re.subn(rf"{head}\n(\|.*\n)*", lambda _: table, text)
    path.write_text(page if found else table, encoding="utf-8")


def judged(stats: dict) -> dict[int, tuple[int, str]]:
    """Row -> (number of tests, result), of the reports by outcome."""
    seen: dict[int, Counter] = {row: Counter() for row in FAULTS}
    for outcome in ("passed", "failed", "error", "skipped", "xfailed", "xpassed"):
        for report in stats.get(outcome, ()):
            for name, row in getattr(report, "user_properties", ()):
                if name == "fault":
                    seen[row][outcome] += 1
    return {row: (found.total(), _result(found)) for row, found in seen.items()}


def _result(found: Counter) -> str:
    if not found:
        return "not tested"
    if found["failed"] or found["error"] or found["xfailed"] or found["xpassed"]:
        return "FAILED"
    if not found["passed"]:
        return "skipped"
    return "passed" if not found["skipped"] else f"passed, {found['skipped']} skipped"


def markdown(rows: dict[int, tuple[int, str]]) -> str:
    lines = ["| # | fault | tests | result |", "|---|---|---|---|"]
    lines += [f"| {n} | {FAULTS[n]} | {count} | {result} |" for n, (count, result) in rows.items()]
    return "\n".join(lines) + "\n"
