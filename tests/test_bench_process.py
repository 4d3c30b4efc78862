"""The bench's processes: sides that die, sides that memory has no room for. The sides are fakes."""

import json
import subprocess
import sys
import time

import pytest
from launchers import alive
from tiny import process_env

from anigan_jax.bench import memory, process, runner, table
from anigan_jax.bench.process import SideError
from anigan_jax.report.table import as_text

# Answers as a worker does; its spec's 'does' says where it dies.
FAKE = """
import json, os, signal, sys
spec = json.loads(sys.stdin.readline())
does = spec.get("does", "")
def answer(**told):
    print(json.dumps(told), flush=True)
def die(when):
    if does == when + " killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if does == when + " crashes":
        os.abort()
    if does == when + " ends":
        sys.exit("no such thing")
if does == "talks":
    sys.stderr.write("x" * 300_000)
if does == "refuses":
    answer(error="UserError: no", died=False)
if does == "lacks memory":
    answer(error="RuntimeError: RESOURCE_EXHAUSTED", died=True)
die("build")
answer(seconds=5.0, images=1)
die("idle")
for line in sys.stdin:
    die("window")
    answer(seconds=1.0, images=int(line))
die("end")
answer(memory_mb=7)
"""


@pytest.fixture
def bench():
    """Measures fakes; each is given by what it does. Returns finished, failed, and the report."""
    started = []

    def start(spec):
        spec |= {"platform": "cpu", "devices": 1}
        started.append(process.Worker(spec, program=(sys.executable, "-S", "-c", FAKE)))
        return started[-1]

    def run(*does, free=None, windows=2, labels=None):
        labels = labels or [f"side {i}" for i in range(len(does))]
        specs = [
            {"label": label, "side": "x", "does": each}
            for label, each in zip(labels, does, strict=True)
        ]
        said = []
        left = {"free": free} if free else {}
        finished, failed = process.measure(specs, start, windows, said.append, **left)
        return {worker.label: worker for worker in finished}, failed, said

    yield run
    for worker in started:
        worker.kill()
        worker.process.wait()


@pytest.mark.parametrize("when", ["build", "idle", "window", "end"])
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("killed", "SIGKILL"),
        ("crashes", "SIGABRT"),
        ("ends", "exit code 1 (no such thing)"),
    ],
)
def test_a_side_that_dies_is_reported_and_the_others_go_on(bench, when, how, reason):
    finished, failed, said = bench("", f"{when} {how}", "talks")
    assert list(finished) == ["side 0", "side 2"]
    assert all(len(worker.speeds) == 2 for worker in finished.values())
    assert {worker.facts["memory_mb"] for worker in finished.values()} == {7}
    assert list(failed) == ["side 1"] and reason in failed["side 1"]
    assert sum(reason in line for line in said) == 1
    # At once: an idle one is missed while another one is asked.
    place = next(i for i, line in enumerate(said) if reason in line)
    assert place <= said.index("window 1") + (when != "build") * 2


def test_memory_that_does_not_suffice_is_no_refusal(bench):
    _, failed, _ = bench("lacks memory", labels=["ours"])
    assert "RESOURCE_EXHAUSTED" in failed["ours"]
    with pytest.raises(SideError, match="UserError: no"):
        bench("refuses", labels=["ours"])
    _, failed, _ = bench("refuses", labels=["PyTorch"])
    assert "PyTorch" in failed


def test_sides_that_do_not_fit_together_run_one_after_another(bench):
    """As many at a time as there is room for; one line says so, and so does the table."""
    finished, failed, said = bench("", "", "", free=lambda: 1)
    assert [worker.facts["turn"] for worker in finished.values()] == [0, 1, 2]
    assert not failed and all(len(worker.speeds) == 2 for worker in finished.values())
    lines = [line for line in said if "one after another" in line]
    assert len(lines) == 2 and lines[0].startswith("side 1 might need")
    # A side ends before the next one starts.
    assert said.index(lines[1]) < said.index("building side 2")
    left = iter([1e12, 1e12, 1, 1e12])
    finished, _, _ = bench("", "", "", free=lambda: next(left))
    assert [worker.facts["turn"] for worker in finished.values()] == [0, 0, 1]
    rows = [
        {"side": name, "turn": worker.facts["turn"], "batch": 1, "dtype": "x", "devices": 0}
        for name, worker in finished.items()
    ]
    assert "side 0, side 1; then side 2" in as_text(table.tables(rows))


def test_what_memory_is_left(tmp_path):
    """The machine's, or what a group has below its limit; pages of idle files are free."""
    assert memory.available(tmp_path) == float("inf")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:   50 kB\n")
    assert memory.available(tmp_path) == 50 * 1024
    # Version 2, the limit of a group further up.
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/a/b\n")
    groups = tmp_path / "sys" / "fs" / "cgroup"
    (groups / "a" / "b").mkdir(parents=True)
    for folder, most in ((groups / "a" / "b", "max"), (groups / "a", "30000")):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text("20000\n")
        (folder / "memory.stat").write_text("anon 12000\ninactive_file 5000\n")
    assert memory.available(tmp_path) == 15000
    # Version 1, in a container: the path is the host's.
    (tmp_path / "proc" / "self" / "cgroup").write_text("4:memory:/docker/12\n3:cpu:/\n")
    old = groups / "memory"
    old.mkdir()
    (old / "memory.limit_in_bytes").write_text("9000")
    (old / "memory.usage_in_bytes").write_text("8000")
    assert memory.available(tmp_path) == 1000
    # What other processes hold, and whether there is room beside them.
    (tmp_path / "proc" / "7").mkdir()
    (tmp_path / "proc" / "7" / "status").write_text("VmHWM:\t  9 kB\nVmRSS:\t  4 kB\n")
    assert memory.held(7, tmp_path) == (4096, 9216)
    assert memory.held(8, tmp_path) == (0, 0)
    held = [memory.held(7, tmp_path)]
    assert memory.fits(held, 10000, 4880) and not memory.fits(held, 10000, 4881)


def test_pytorch_is_also_measured_in_the_type_that_the_cpu_multiplies(tmp_path):
    """Its best is sought among all its sides, whatever ours computes in."""
    for dtype, other in (("float32", "PyTorch AMP"), ("bfloat16", "PyTorch")):
        with_it = {side["label"]: side for side in runner.torch_sides(False, dtype, True)}
        without = {side["label"]: side for side in runner.torch_sides(False, dtype, False)}
        ((label, side),) = ((k, v) for k, v in with_it.items() if k not in without)
        assert label.startswith(f"{other}, channels-last")
        assert side["channels_last"] and side["amp"] == (other == "PyTorch AMP")
        assert [side["label"] for side in runner.torch_sides(True, dtype, True)] == [
            side["label"] for side in runner.torch_sides(True, dtype, False)
        ]
    known = tmp_path / "cpuinfo"
    known.write_text("flags\t\t: fpu avx512_bf16 amx_tile\n")
    assert runner.has_bfloat16(known)
    known.write_text("flags\t\t: fpu avx512f\n")
    assert not runner.has_bfloat16(known)
    assert not runner.has_bfloat16(tmp_path / "none")


def test_a_worker_goes_first_and_with_its_parent():
    """Where memory runs out, and where the bench is killed while a side compiles."""
    code = """
import pathlib, subprocess, sys
inner = (
    "from anigan_jax.bench import worker; import pathlib, time; worker._harm_nobody();"
    "print(pathlib.Path('/proc/self/oom_score_adj').read_text(), flush=True); time.sleep(60)"
)
child = subprocess.Popen([sys.executable, "-c", inner], stdout=subprocess.PIPE, text=True)
print(child.pid, child.stdout.readline(), flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=process_env()
    ) as parent:
        child, first = map(int, parent.stdout.readline().split())
        assert alive(child) and first == 1000
        parent.kill()
    deadline = time.monotonic() + 10
    while alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_rows_of_what_is_left():
    """Without ours there are speeds and no shares, and no number that is none."""
    made = object.__new__(process.Worker)
    made.spec = {"label": "PyTorch", "side": "torch"}
    made.speeds, made.facts = [10.0, 20.0, 30.0], {"turn": 0}
    wanted = runner.Wanted("x", [], [4], ["float32"], ["torch"], 3, "cpu", [0], 50)
    (row,) = runner._rows(wanted, [made], 4, {}, {})
    assert row["images_per_sec"] == 20 and "ours_is" not in row
    failed = {"side": "ours", "failed": "it was killed", "batch": 4, "dtype": "x", "devices": 0}
    rows = [{**row, "batch": 4, "dtype": "x", "devices": 0}, failed]
    text = as_text(table.tables(rows))
    assert "20.0" in text and "it was killed" in text and "nan" not in json.dumps(rows).lower()
