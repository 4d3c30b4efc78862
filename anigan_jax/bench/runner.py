"""Alternating windows of sides in processes of their own, and what follows from them. No JAX."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import platform as host
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from anigan_jax.errors import UserError
from anigan_jax.runtime import environment

# A window lasts at least so long, in seconds.
WINDOW = 2.0
NONDETERMINISTIC = "--xla_gpu_deterministic_ops=false"
DISPATCHES_OF_A_RUN = 8
# Another side that cannot be built (a peer's compiler, its memory) is told of and left out.
ESSENTIAL = ("matrix product", "ours", "ours, no data")


@dataclass(frozen=True)
class Wanted:
    """What is to be measured of a config.

    Attributes:
      overrides: of the config, as `anigan train` takes them.
      batches, dtypes, devices: every combination is measured; 0 devices: all.
      peers: 'torch', 'lax'.
      windows: of each side; medians are told.
      checkpoint_every: steps between a run's checkpoints, over which their cost is spread.
    """

    config: str
    overrides: list[str]
    batches: list[int]
    dtypes: list[str]
    peers: list[str]
    windows: int
    platform: str
    devices: list[int]
    checkpoint_every: int


class Worker:
    """A side's process: what it learned while it was built in `facts`, speeds in `speeds`."""

    def __init__(self, spec: dict, cache: str = "", flags: str = ""):
        """Starts it; `build` has it built."""
        env = dict(os.environ)
        if cache:
            env["JAX_COMPILATION_CACHE_DIR"] = cache
        if spec.pop("retains_memory", True):
            env = {name: str(value) for name, (_, value) in environment.RETAINING.items()} | env
        if flags:
            env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} {flags}".strip()
        # Several processes share one accelerator.
        env.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        self.spec, self.speeds = spec, []
        where = (spec.pop("platform"), str(spec.pop("devices")))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "anigan_jax.bench.worker", *where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )

    def build(self) -> None:
        """Lets it build its side."""
        self._write(json.dumps(self.spec))

    def built(self) -> None:
        """Waits for that."""
        self.facts = self._read()

    def _write(self, line: str) -> None:
        # A worker that has died says why when it is read.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def _read(self) -> dict:
        line = self.process.stdout.readline()
        told = json.loads(line) if line else {"error": "it ended without an answer"}
        if "error" in told:
            self.process.kill()
            said = self.process.stderr.read().strip().splitlines()
            why = told["error"] + (f" ({said[-1]})" if said and not line else "")
            raise UserError(f"the side {self.spec['label']!r} could not be measured: {why}")
        return told

    def window(self) -> None:
        """Runs one window and keeps its images per second."""
        count = max(1, round(WINDOW / self.facts["seconds"]))
        self._write(str(count))
        told = self._read()
        self.speeds.append(told["images"] / told["seconds"])
        self.facts |= {k: v for k, v in told.items() if k not in ("seconds", "images")}

    def end(self) -> None:
        """Closes the process; its peak memory joins the facts."""
        self.process.stdin.close()
        self.facts |= self._read()
        self.process.wait()


def sides(wanted: Wanted, batch: int, dtype: str, devices: int, on_gpu: bool) -> list[dict]:
    """The specs of one combination; `flags` and `cold` are taken off before they are sent."""
    overrides = [*wanted.overrides, "--batch-size", str(batch), "--run.devices", str(devices)]
    if dtype != "float32":
        overrides += ["--method.dtype", dtype]
    common = {
        "config": wanted.config,
        "overrides": overrides,
        "dtype": dtype,
        "platform": wanted.platform,
        "devices": devices,
    }
    found = [
        {**common, "side": "gemm", "label": "matrix product"},
        {**common, "side": "ours", "label": "ours", "cold": True},
        {**common, "side": "no data", "label": "ours, no data"},
    ]
    if on_gpu:
        free = {"side": "ours", "label": "ours, not deterministic", "flags": NONDETERMINISTIC}
        found.append({**common, **free})
    if "lax" in wanted.peers:
        found.append({**common, "side": "lax", "label": "lax.conv_transpose"})
    if "torch" in wanted.peers:
        found += [{**common, "side": "torch", **each} for each in torch_sides(on_gpu, dtype)]
    return found


def torch_sides(on_gpu: bool, dtype: str) -> Iterator[dict]:
    """PyTorch's layouts; on a GPU also with AMP and compiled, on a CPU retaining memory."""

    half = dtype == "bfloat16"
    name = "PyTorch AMP" if half else "PyTorch"
    ways: dict[str, dict] = {"": {}}
    if on_gpu:
        ways[", compiled"] = {"compiled": True}
    elif host.libc_ver()[0] == "glibc":
        # As its users start it, and with our settings of glibc.
        ways = {"": {"retains_memory": False}, ", memory retained": {}}
    for way, settings in ways.items():
        for layout, last in (("", False), (", channels-last", True)):
            about = {"channels_last": last, "amp": half, "compiled": False}
            yield {"label": f"{name}{layout}{way}", **about, **settings}


def measure(wanted: Wanted, on_gpu: bool, report: Callable[[str], None]) -> list[dict]:
    """A row for each batch, type and side.

    Rows hold 'side', 'batch', 'dtype', 'devices', 'images_per_sec' (or 'failed', the reason),
    and as far as the side knows them 'ours_is' (ours / this), 'flops' and 'xla_flops' (an
    image), 'gflops_per_sec', 'of_peak' (share of the matrix product's), 'memory_mb',
    'compile_s', 'compile_cached_s', and beside ours 'end_to_end', 'overhead' (share of the
    time that logging, previews and checkpoints take), 'feed' (share that the resident data
    take), and on a CPU 'memory_compiling_mb' and 'memory_run_mb' of a whole run ('memory_mb' is
    that of steps which were found compiled).
    """
    rows = []
    for about in itertools.product(wanted.batches, wanted.dtypes, wanted.devices):
        named = dict(zip(("batch", "dtype", "devices"), about, strict=True))
        measured = _one(wanted, sides(wanted, *about, on_gpu), about[0], report)
        rows += [{**row, **named} for row in measured]
    return rows


def _one(wanted: Wanted, specs: list[dict], batch: int, report) -> list[dict]:
    with (
        tempfile.TemporaryDirectory(prefix="anigan_bench_") as cache,
        contextlib.ExitStack() as stack,
    ):

        def started(spec: dict) -> Worker:
            cold, flags = spec.pop("cold", False), spec.pop("flags", "")
            worker = Worker(spec, cache if cold else "", flags)
            stack.callback(worker.process.kill)
            return worker

        def mine(**rest) -> Worker:
            return started({**_spec(specs, "ours"), "cold": True, **rest})

        workers = [started(dict(spec)) for spec in specs]
        theirs = [w for w in workers if w.spec["side"] == "torch"]
        # PyTorch's compiler works on the host. Ours go one after the other: XLA chooses its
        # algorithms by timing them.
        for worker in theirs:
            worker.build()
        failed = {}
        for worker in list(workers):
            label = worker.spec["label"]
            report(f"batch {batch}: building {label}")
            if worker not in theirs:
                worker.build()
            try:
                worker.built()
            except UserError as error:
                if label in ESSENTIAL:
                    raise
                failed[label] = str(error)
                workers.remove(worker)
        for number in range(wanted.windows):
            report(f"batch {batch}: window {number + 1}")
            # There and back: what a side leaves behind is felt by another one each time.
            for worker in workers[:: -1 if number % 2 else 1]:
                worker.window()
        for worker in workers:
            worker.end()
        facts = _worker(workers, "ours").facts
        report(f"batch {batch}: a whole run")
        run = mine(side="run", label="a whole run", steps=facts["steps"] * DISPATCHES_OF_A_RUN)
        run.build()
        run.built()
        again = mine()
        again.build()
        again.built()
        again.end()
    rows = list(_rows(wanted, workers, batch, run.facts, again.facts))
    return rows + [{"side": label, "failed": why} for label, why in failed.items()]


def _spec(specs: list[dict], label: str) -> dict:
    return next(spec for spec in specs if spec["label"] == label)


def _worker(workers: list[Worker], label: str) -> Worker:
    return next(worker for worker in workers if worker.spec["label"] == label)


def _updates(facts: dict) -> float:
    """Updates of a step: a schedule that varies may have done more of them on one side."""
    return sum(facts.get("repeats", {}).values()) or 2.0


def _rows(
    wanted: Wanted, workers: list[Worker], batch: int, run: dict, again: dict
) -> Iterator[dict]:
    speed = {w.spec["label"]: statistics.median(w.speeds) for w in workers}
    facts = {w.spec["label"]: w.facts for w in workers}
    mine, work = speed["ours"], facts["ours"]["flops"]
    peak = speed["matrix product"] * facts["matrix product"]["flops"]
    for worker in workers:
        label, spec = worker.spec["label"], worker.spec
        row: dict[str, Any] = {"side": label}
        if spec["side"] == "gemm":
            yield row | {"gflops_per_sec": peak / 1e9, "of_peak": 1.0}
            continue
        done = _updates(worker.facts) / _updates(facts["ours"])
        row |= {
            "images_per_sec": speed[label],
            "spread": (max(worker.speeds) - min(worker.speeds)) / speed[label],
            "ours_is": mine / speed[label] / done,
        }
        if not math.isnan(work):
            # The work is the algorithm's, whoever does it.
            rate = speed[label] * work * done
            row |= {"flops": work, "gflops_per_sec": rate / 1e9, "of_peak": rate / peak}
        known = ("xla_flops", "memory_mb", "compile_s")
        row |= {name: worker.facts[name] for name in known if worker.facts.get(name) is not None}
        if label == "ours":
            every = wanted.checkpoint_every
            bare, rest = every * batch / mine, every * run["log_s"] + run["event_s"]
            row |= {
                "end_to_end": run["images_per_sec"],
                "event_s": run["event_s"],
                "overhead": rest / (bare + rest),
                "feed": 1 - mine / speed["ours, no data"],
                "compile_cached_s": again["compile_s"],
            }
            if worker.facts.get("host"):
                row["memory_mb"] = again["memory_mb"]
                row["memory_compiling_mb"] = worker.facts["memory_mb"]
                row["memory_run_mb"] = run["memory_mb"]
        yield row
