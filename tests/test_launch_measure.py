"""The script that measures on a GPU: each finished row is kept, a cut one is measured again."""

import json
import re
import shlex
import sys

import pytest
from launchers import LAUNCH, put

from anigan_jax import config_file
from anigan_jax.cli import bench, main
from anigan_jax.config_file import override

# Says what it was called with; FAILS has a row end otherwise.
BENCH = """#!{python}
import json, os, sys, time
with open("asked", "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
how = os.environ.get("FAILS", "")
if how and sys.argv[2] == "r3gan_lite":
    if how == "slow":
        time.sleep(60)
    sys.exit("error: it has no GPU")
row = {{"batch": 4, "dtype": "bfloat16", "devices": 0}}
rows = [
    {{"side": "ours", "images_per_sec": 1200.0, "end_to_end": 1100.0, "memory_mb": 2500, **row}},
    {{"side": "PyTorch AMP", "images_per_sec": 600.0, "ours_is": 2.0, **row}},
    {{"side": "PyTorch AMP, channels-last", "images_per_sec": 1000.0, "ours_is": 1.2, **row}},
    {{"side": "PyTorch AMP, compiled", "failed": "no", **row}},
]
print(json.dumps({{"config": sys.argv[2], "machine": "a GPU", "rows": rows}}))
"""


@pytest.fixture
def measure(shell, tmp_path):
    put(tmp_path / "bin", "anigan", BENCH.format(python=sys.executable))

    def run(*words, **environment):
        process = shell("measure_gpu.sh", *words, **environment)
        output, _ = process.communicate(timeout=60)
        asked = tmp_path / "asked"
        calls = [json.loads(line) for line in asked.read_text().splitlines()]
        asked.unlink()
        return process.returncode, output, calls

    return run


def rows() -> list[str]:
    table = re.search(r"^table='\n(.*?)\n'$", (LAUNCH / "measure_gpu.sh").read_text(), re.M | re.S)
    return [line.split(" | ")[0] for line in table[1].splitlines()]


def test_rows_are_kept_and_what_failed_is_measured_again(measure, tmp_path):
    code, output, calls = measure("out", FAILS="refuses")
    assert code == 4 and "missing: r3gan;" in output and "r3gan: exit code 1: error" in output
    assert len(calls) == len(rows()) == 7
    code, output, calls = measure("out")
    assert code == 0 and [call[1] for call in calls] == ["r3gan_lite"]
    assert {path.stem for path in (tmp_path / "out").glob("*.json")} == set(rows())
    table = (tmp_path / "out" / "table.md").read_text()
    assert table.startswith("a GPU; bfloat16")
    line = next(line for line in table.splitlines() if "dcgan64_1024" in line)
    assert "1,200.0" in line and "1,000.0 (PyTorch AMP, channels-last)" in line
    assert "| 1.20x | 2.5 |" in line
    assert len(table.splitlines()) == 4 + len(rows())


@pytest.mark.long
def test_it_ends_in_time(measure):
    """A row that takes too long is cut, and none is begun for which there is no time."""
    some = {"ROWS": "r3gan dcgan64_512", "LIMIT": "3", "LEAST": "1"}
    code, output, calls = measure("out", FAILS="slow", **some)
    assert code == 4 and "missing: r3gan dcgan64_512;" in output
    assert [call[1] for call in calls] == ["r3gan_lite"]


def test_the_bench_understands_every_row(measure):
    """Verbs, flags and settings are there and take these values."""
    _, _, calls = measure("out", "--run.devices", "1", PLATFORM="cpu", BATCH="4", WINDOWS="1")
    for verb, *words in calls:
        assert verb == "bench"
        given = main._arguments(bench.bench, words, shlex.join(words))
        config = override(config_file.load(words[0]), given["overrides"], "test")
        assert (config.run.platform, config.run.devices) == ("cpu", 1)
        assert given["batch"] == (4,) and given["windows"] == 1
        assert given["dtype"] == ("bfloat16",)
