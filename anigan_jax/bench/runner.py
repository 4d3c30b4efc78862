"""Alternating windows of sides in processes of their own, and what follows from them. No JAX."""

from __future__ import annotations

import contextlib
import itertools
import math
import platform as host
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anigan_jax.bench import process
from anigan_jax.bench.process import Worker

NONDETERMINISTIC = "--xla_gpu_deterministic_ops=false"
DISPATCHES_OF_A_RUN = 8


@dataclass(frozen=True)
class Wanted:
    """What is to be measured of a config.

    Attributes:
      overrides: of the config, as `anigan train` takes them.
      batches, dtypes, devices: every combination is measured; 0 devices: all.
      peers: 'torch', 'lax'.
      windows: of each side; medians are told.
      checkpoint_every: steps between a run's checkpoints, over which their cost is spread.
      typed: whether the config says what it computes in.
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
    typed: bool = True


def sides(wanted: Wanted, batch: int, dtype: str, devices: int, on_gpu: bool) -> list[dict]:
    """The specs of one combination; `flags` and `cold` are taken off before they are sent."""
    overrides = [*wanted.overrides, "--batch-size", str(batch), "--run.devices", str(devices)]
    if wanted.typed:
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


def torch_sides(on_gpu: bool, dtype: str, bfloat16: bool | None = None) -> Iterator[dict]:
    """PyTorch's layouts; on a GPU also compiled, on a CPU retaining memory.

    Args:
      dtype: bfloat16 is its AMP.
      bfloat16: whether the CPU has products of it: then the other type is a side too, in the way
        that is quickest here; None: as this machine says.
    """
    half, names = dtype == "bfloat16", {True: "PyTorch AMP", False: "PyTorch"}
    ways: dict[str, dict] = {"": {}}
    if on_gpu:
        ways[", compiled"] = {"compiled": True}
    elif host.libc_ver()[0] == "glibc":
        # As its users start it, and with our settings of glibc.
        ways = {"": {"retains_memory": False}, ", memory retained": {}}
    for way, settings in ways.items():
        for layout, last in (("", False), (", channels-last", True)):
            about = {"channels_last": last, "amp": half, "compiled": False}
            yield {"label": f"{names[half]}{layout}{way}", **about, **settings}
    if not on_gpu and (has_bfloat16() if bfloat16 is None else bfloat16):
        # The last way is ours.
        label = f"{names[not half]}, channels-last{way}"
        yield {"label": label, "channels_last": True, "amp": not half, "compiled": False}


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU multiplies bfloat16 by instructions of its own, where that can be read."""
    with contextlib.suppress(OSError):
        words = set(cpuinfo.read_text().split())
        # Intel and AMD, Intel's tiles, ARM.
        return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})
    return False


def measure(wanted: Wanted, on_gpu: bool, report: Callable[[str], None]) -> list[dict]:
    """A row for each batch, type and side.

    Rows hold 'side', 'batch', 'dtype', 'devices', 'turn' (those of one turn alternated; more
    than one where memory is short), 'images_per_sec' (or 'failed', the reason),
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
        measured = _one(wanted, sides(wanted, *about, on_gpu), about[0], report, on_gpu)
        rows += [{**row, **named} for row in measured]
    return rows


def _one(wanted: Wanted, specs: list[dict], batch: int, report, on_gpu: bool) -> list[dict]:
    def told(text: str) -> None:
        report(f"batch {batch}: {text}")

    def at_once(spec: dict) -> bool:
        # PyTorch's compiler works on the host. Ours go one after the other: XLA chooses its
        # algorithms by timing them.
        return on_gpu and spec["side"] == "torch"

    with (
        tempfile.TemporaryDirectory(prefix="anigan_bench_") as cache,
        contextlib.ExitStack() as stack,
    ):

        def started(spec: dict) -> Worker:
            cold, flags = spec.pop("cold", False), spec.pop("flags", "")
            worker = Worker(spec, cache if cold else "", flags)
            stack.callback(worker.kill)
            return worker

        workers, failed = process.measure(specs, started, wanted.windows, told, at_once=at_once)
        run, again = {}, {}
        if mine := _worker(workers, "ours"):
            base = next(spec for spec in specs if spec["label"] == "ours")
            steps = mine.facts["steps"] * DISPATCHES_OF_A_RUN
            whole = {**base, "side": "run", "label": "a whole run", "steps": steps}
            cached = {**base, "label": "ours, found compiled"}
            for spec, facts in ((whole, run), (cached, again)):
                # Alone, as a user runs it.
                done, lost = process.measure([spec], started, 0, told)
                facts |= done[0].facts if done else {}
                failed |= lost
    rows = list(_rows(wanted, workers, batch, run, again))
    return rows + [{"side": label, "failed": why} for label, why in failed.items()]


def _worker(workers: list[Worker], label: str) -> Worker | None:
    return next((worker for worker in workers if worker.label == label), None)


def _updates(facts: dict) -> float:
    """Updates of a step: a schedule that varies may have done more of them on one side."""
    return sum(facts.get("repeats", {}).values()) or 2.0


def _rows(
    wanted: Wanted, workers: list[Worker], batch: int, run: dict, again: dict
) -> Iterator[dict]:
    speed = {w.spec["label"]: statistics.median(w.speeds) for w in workers}
    facts = {w.spec["label"]: w.facts for w in workers}
    # A side that was lost is missing, and with it what is a share of it.
    ours, bare = facts.get("ours", {}), speed.get("ours, no data", math.nan)
    mine, work = speed.get("ours", math.nan), ours.get("flops", math.nan)
    product = facts.get("matrix product", {}).get("flops", math.nan)
    peak = speed.get("matrix product", math.nan) * product
    for worker in workers:
        label, spec = worker.label, worker.spec
        row: dict[str, Any] = {"side": label, "turn": worker.facts.get("turn", 0)}
        if spec["side"] == "gemm":
            yield row | {"gflops_per_sec": peak / 1e9, "of_peak": 1.0}
            continue
        done = _updates(worker.facts) / _updates(ours)
        rate = speed[label] * work * done
        row |= {
            "images_per_sec": speed[label],
            "spread": (max(worker.speeds) - min(worker.speeds)) / speed[label],
            "ours_is": mine / speed[label] / done,
            # The work is the algorithm's, whoever does it.
            "flops": work,
            "gflops_per_sec": rate / 1e9,
            "of_peak": rate / peak,
        }
        known = ("xla_flops", "memory_mb", "compile_s")
        row |= {name: worker.facts[name] for name in known if worker.facts.get(name) is not None}
        if label == "ours":
            row |= {"feed": 1 - mine / bare, "compile_cached_s": again.get("compile_s", math.nan)}
            row |= _of_run(run, batch * wanted.checkpoint_every / mine, wanted.checkpoint_every)
            if worker.facts.get("host"):
                told = {"": again, "compiling_": worker.facts, "run_": run}
                row |= {
                    f"memory_{what}mb": about["memory_mb"] for what, about in told.items() if about
                }
        yield {name: value for name, value in row.items() if value == value}


def _of_run(run: dict, bare: float, every: int) -> dict[str, float]:
    """What a whole run tells, where it was not lost; `bare` seconds are `every` steps alone."""
    if not run:
        return {}
    rest = every * run["log_s"] + run["event_s"]
    told = {"end_to_end": run["images_per_sec"], "event_s": run["event_s"]}
    return {**told, "overhead": rest / (bare + rest)}
