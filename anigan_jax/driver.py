"""The one loop: train(config, workdir). It contains no family's name."""

from __future__ import annotations

import fcntl
import json
import math
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from anigan_jax import checkpoint, parallel, record, rng, runtime, train_step
from anigan_jax.config import Config, differences, fingerprint, identity, to_dict
from anigan_jax.core import Method, TrainState
from anigan_jax.data import order
from anigan_jax.data.pack import Pack
from anigan_jax.errors import UserError

PREVIEWS = 64
STREAM_AHEAD = 2


class Session(NamedTuple):
    """A config made ready to run; all static.

    `dispatch(state, local)` runs `length` steps; `local` comes from `locals_from(step)`.
    """

    method: Method
    devices: list
    total: int
    length: int
    dispatch: Callable
    locals_from: Callable[[int], Iterator[dict]]
    initial: Callable[[], TrainState]
    like: TrainState


def total_steps(config: Config, images: int) -> int:
    """Length of the run in steps."""
    if images < config.batch_size:
        raise UserError(
            f"a batch of {config.batch_size} needs at least as many images; the data has {images}"
        )
    return config.run.steps or config.run.epochs * (images // config.batch_size)


def prepare(config: Config, pack: Pack, start: int = 0) -> Session:
    """Makes the compiled pieces of a run that starts at a step."""
    run, images = config.run, len(pack.images)
    total = total_steps(config, images)
    devices = parallel.choose_devices(run.devices, config.batch_size)
    method = config.method.make(parallel.AXIS)
    (phase,) = method.phases
    marks = (run.sample_every, run.checkpoint_every, total, start)
    length = largest_divisor(run.steps_per_dispatch, marks)
    step = train_step.make_super_step(config, method, phase, length, parallel.AXIS)
    mapped = parallel.map_step(step, run.mapper, devices)
    resident = run.feed == "resident"
    data = np.asarray(pack.images) if resident else np.zeros((0, 1, 1, 3), np.uint8)
    shared = parallel.replicate(data, devices)
    index = np.arange(len(devices), dtype=np.int32)
    reserved = train_step.draws_per_step(phase)

    def locals_from(first: int) -> Iterator[dict]:
        if resident:
            while True:
                yield {"device": index}
        yield from _ahead(
            {"device": index, "images": _rows(config, pack, at, length, reserved, len(devices))}
            for at in range(first, total, length)
        )

    def initial() -> TrainState:
        return jax.jit(lambda: train_step.init_state(config, method))()

    return Session(
        method,
        devices,
        total,
        length,
        lambda state, local: mapped(state, shared, local),
        locals_from,
        initial,
        jax.eval_shape(lambda: train_step.init_state(config, method)),
    )


def largest_divisor(most: int, marks) -> int:
    """The largest number up to `most` that divides every mark."""
    common = math.gcd(*marks)
    return max(n for n in range(1, most + 1) if common % n == 0)


def _rows(config: Config, pack: Pack, first: int, length: int, reserved: int, devices: int):
    """(D, K, R, b, H, W, 3) uint8 for `length` steps; the resident feed's images."""
    b, rows = config.batch_size, []
    for draw in range(first * reserved, (first + length) * reserved):
        where = np.array([draw], np.uint32), b, len(pack.images), config.seed
        rows.append(pack.images[order.batch_indices(*where, start=np.uint32(0), count=b)])
    shape = (length, reserved, devices, b // devices, *pack.images.shape[1:])
    return np.ascontiguousarray(np.stack(rows).reshape(shape).transpose(2, 0, 1, 3, 4, 5, 6))


def _ahead(items: Iterator) -> Iterator:
    """The same items, made two ahead in a thread; its error is raised here."""
    made: queue.Queue = queue.Queue(STREAM_AHEAD)
    end = object()

    def work() -> None:
        try:
            for item in items:
                made.put(item)
            made.put(end)
        except Exception as error:
            made.put(error)

    threading.Thread(target=work, daemon=True).start()
    while (item := made.get()) is not end:
        if isinstance(item, Exception):
            raise item
        yield item


def open_run(config: Config, workdir: Path, pack: Pack, source: str, overrides: list[str]) -> None:
    """Writes run.json, or checks it: another config or other data is refused."""
    path = workdir / "run.json"
    now = {
        "schema": 1,
        "name": config.name,
        "config": to_dict(config),
        "identity": identity(config),
        "config_sha256": fingerprint(config),
        "overrides": overrides,
        "data_sha256": pack.manifest["sha256"],
        "facts": {**runtime.facts(), "devices": config.run.devices or jax.device_count()},
    }
    if path.exists():
        old = read_run(workdir)
        changed = differences(old["identity"], now["identity"])
        if changed:
            listed = "; ".join(changed[:8])
            raise UserError(f"{workdir} holds another run: {listed}. Take another --workdir")
        if old["data_sha256"] != now["data_sha256"]:
            raise UserError(f"the data of {workdir} changed since its start; it cannot resume")
        for line in differences(old["facts"], now["facts"]):
            print(f"warning: {line}; the resumed run is not promised the same bits", flush=True)
        return
    if workdir.exists() and any(p.name != "lock" for p in workdir.iterdir()):
        raise UserError(f"{workdir} is not empty and holds no run; take another --workdir")
    (workdir / "config.py").write_text(source)
    temp = workdir / ".run.json"
    temp.write_text(json.dumps(now, indent=1))
    temp.replace(path)


def read_run(workdir: Path) -> dict:
    """run.json of a run folder."""
    try:
        return json.loads((workdir / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir} is no run folder: {error}") from None


def lock(workdir: Path):
    """Holds the run folder for this process; a second one is refused."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        handle = (workdir / "lock").open("a+")
    except OSError as error:
        raise UserError(f"workdir {workdir} cannot be written: {error}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(f"another process is training in {workdir}") from None
    return handle


def train(config: Config, workdir: Path, pack: Pack, source: str, overrides: list[str]) -> int:
    """Trains to the end, or to a signal; resumes where the folder holds a checkpoint.

    Returns:
      The exit code: 0, or 128 + the signal that stopped it (after a checkpoint).
    """
    # Everything that can refuse comes before the first file of the run is written.
    total_steps(config, len(pack.images))
    parallel.choose_devices(config.run.devices, config.batch_size)
    with lock(workdir):
        open_run(config, workdir, pack, source, overrides)
        folder = workdir / "checkpoints"
        folder.mkdir(exist_ok=True)
        session = prepare(config, pack)
        found = checkpoint.restore(folder, session.like)
        if found:
            print(f"resuming {workdir} at step {found.step}", flush=True)
            session = prepare(config, pack, found.step)
        state = parallel.replicate(found.state if found else session.initial(), session.devices)
        return _loop(config, workdir, pack, session, state, found.step if found else 0)


def _loop(config, workdir: Path, pack: Pack, session: Session, state, at: int) -> int:
    run, folder = config.run, workdir / "checkpoints"
    stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda s, _: os._exit(128 + s) if stop else stop.append(s))
    draw_previews = previewer(session.method, config.seed)
    metrics = record.MetricsFile(workdir / "metrics.jsonl", at)
    if at == 0:
        record.save_image(record.grid(pack.images[:PREVIEWS]), workdir / "real.png")
        metrics.write({"step": 0, "fingerprint": f"{int(_fingerprint(state)):08x}"})
    progress = record.Progress(session.total, at)
    feed = session.locals_from(at)
    clock, late = time.monotonic(), None
    while at < session.total and not stop:
        state, new = session.dispatch(state, next(feed))
        at += session.length
        if late:
            _write(config, metrics, progress, *late)
        if jax.default_backend() == "cpu":
            # Collectives of queued dispatches deadlock XLA's CPU client.
            jax.block_until_ready(state)
        now = time.monotonic()
        late, clock = (at, session.length, new, now - clock), now
        ended = at >= session.total or bool(stop)
        if ended or at % run.sample_every == 0:
            for panel, images in draw_previews(state).items():
                path = workdir / panel / f"step_{at:09d}.png"
                record.save_image(record.grid(images), path)
        if ended or at % run.checkpoint_every == 0:
            _write(config, metrics, progress, *late)
            late = None
            checkpoint.save(folder, at, state, {"config_sha256": fingerprint(config)})
            checkpoint.prune(folder, run.keep_checkpoints)
            record.curves(record.read_metrics(workdir / "metrics.jsonl"), workdir / "curves")
        if ended or at % run.sample_every == 0 or at % run.checkpoint_every == 0:
            clock = time.monotonic()
    metrics.close()
    progress.close()
    if stop:
        print(f"stopped by signal {stop[0]} at step {at}; the same command resumes", flush=True)
    return 128 + stop[0] if stop else 0


def _write(config, metrics, progress, at: int, length: int, new: dict, seconds: float) -> None:
    """Writes the metric lines of one dispatch that ended at step `at`."""
    new = jax.device_get(new)
    prints = new.pop("fingerprint")
    line: dict = {}
    for i in range(length):
        step = at - length + 1 + i
        if step % config.run.log_every:
            continue
        line = {
            "step": step,
            "images_seen": step * config.batch_size,
            **{key: float(value[i]) for key, value in sorted(new.items())},
            "images_per_sec": round(length * config.batch_size / seconds, 2),
            "fingerprint": f"{int(prints[i]):08x}",
        }
        metrics.write(line)
    progress.update(at, line)


_fingerprint = jax.jit(train_step.fingerprint)


def previewer(method: Method, seed: int) -> Callable[[TrainState], dict]:
    """A compiled function of the state that draws fixed latents of their own stream."""
    key = rng.stream_key(rng.root_key(seed), rng.Stream.PREVIEW)
    keys = rng.example_keys(key, np.arange(PREVIEWS))
    compiled = jax.jit(method.preview)
    return lambda state: {name: np.asarray(x) for name, x in compiled(state, keys).items()}


def replay(config: Config, workdir: Path, pack: Pack, until: int | None) -> tuple[int, str]:
    """Trains again from the start, without writing, and compares the ledger.

    Returns:
      (exit code, message): 0 and 'identical through step N', or 1 and the first
      recorded step that differs, with the leaves where a checkpoint of it exists.
    """
    ledger = {m["step"]: m["fingerprint"] for m in record.read_metrics(workdir / "metrics.jsonl")}
    last = min(until if until is not None else max(ledger), max(ledger))
    session = prepare(config, pack, 1)
    state = parallel.replicate(session.initial(), session.devices)
    folder = workdir / "checkpoints"
    feed, saved = session.locals_from(0), set(checkpoint.steps(folder))
    got = f"{int(_fingerprint(state)):08x}"
    for step in range(last + 1):
        if step:
            state, new = session.dispatch(state, next(feed))
            got = f"{int(np.asarray(new['fingerprint'])[0]):08x}"
        leaves = []
        if step in saved:
            path = folder / f"step_{step:09d}" / "manifest.json"
            want = json.loads(path.read_text())["leaves"]
            have = checkpoint.leaf_digests(jax.tree.map(np.asarray, state))
            leaves = [leaf for leaf in have if want.get(leaf) != have[leaf]]
        if ledger.get(step, got) != got or leaves:
            where = f": {', '.join(leaves[:5])}" if leaves else ""
            return 1, f"first difference at step {step}{where}"
    return 0, f"identical through step {last}"
