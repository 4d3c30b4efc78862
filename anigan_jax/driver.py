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

from anigan_jax import checkpoint, parallel, record, rng, runtime, train_step, weights
from anigan_jax.config import Config, differences, fingerprint, identity, to_dict
from anigan_jax.core import Method, PyTree, TrainState
from anigan_jax.data import order
from anigan_jax.data.pack import Pack
from anigan_jax.errors import UserError

PREVIEWS = 64
STREAM_AHEAD = 2
FROZEN = "frozen.safetensors"
RUN_SCHEMA = 2


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


def prepare(config: Config, pack: Pack, frozen: PyTree, start: int = 0) -> Session:
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
    data = {"images": pack.images, **config.method.inputs(pack)}
    shared = parallel.replicate(jax.tree.map(np.asarray, data) if resident else {}, devices)
    index = np.arange(len(devices), dtype=np.int32)
    reserved = train_step.draws_per_step(phase)

    def locals_from(first: int) -> Iterator[dict]:
        if resident:
            while True:
                yield {"device": index}
        yield from _ahead(
            {"device": index, "rows": _rows(config, data, at, length, reserved, len(devices))}
            for at in range(first, total, length)
        )

    def initial() -> TrainState:
        return jax.jit(lambda held: train_step.init_state(config, method, held))(frozen)

    return Session(
        method,
        devices,
        total,
        length,
        lambda state, local: mapped(state, shared, local),
        locals_from,
        initial,
        like(config, method, frozen),
    )


def largest_divisor(most: int, marks) -> int:
    """The largest number up to `most` that divides every mark."""
    common = math.gcd(*marks)
    return max(n for n in range(1, most + 1) if common % n == 0)


def like(config: Config, method: Method, frozen: PyTree) -> TrainState:
    """Shapes of a checkpoint: the state without its frozen arrays."""
    state = jax.eval_shape(lambda held: train_step.init_state(config, method, held), frozen)
    return state.replace(frozen={})


def _rows(config: Config, data: dict, first: int, length: int, reserved: int, devices: int):
    """The resident feed's rows (D, K, R, b, ...) of each array, for `length` steps."""
    b, n = config.batch_size, len(data["images"])
    draws = range(first * reserved, (first + length) * reserved)
    indices = [
        order.batch_indices(
            np.array([draw], np.uint32), b, n, config.seed, start=np.uint32(0), count=b
        )
        for draw in draws
    ]

    def take(values: np.ndarray) -> np.ndarray:
        rows = np.stack([values[where] for where in indices])
        rows = rows.reshape(length, reserved, devices, b // devices, *values.shape[1:])
        return np.ascontiguousarray(np.moveaxis(rows, 2, 0))

    return {name: take(values) for name, values in data.items()}


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


def open_run(
    config: Config, workdir: Path, pack: Pack, source: str, overrides: list[str]
) -> dict[str, np.ndarray]:
    """Writes run.json, or checks it: another config or other data is refused.

    Returns:
      The frozen arrays: of the method at the start, of the run folder afterwards.
    """
    path = workdir / "run.json"
    now = {
        "schema": RUN_SCHEMA,
        "name": config.name,
        "config": to_dict(config),
        "identity": identity(config),
        "config_sha256": fingerprint(config),
        "overrides": overrides,
        "data_sha256": pack.manifest["sha256"],
        "facts": {**runtime.facts(), "devices": config.run.devices or jax.device_count()},
    }
    if path.exists():
        old = same_bits(workdir)
        changed = differences(old["identity"], now["identity"])
        if changed:
            listed = "; ".join(changed[:8])
            raise UserError(f"{workdir} holds another run: {listed}. Take another --workdir")
        if old["data_sha256"] != now["data_sha256"]:
            raise UserError(f"the data of {workdir} changed since its start; it cannot resume")
        for line in differences(old["facts"], now["facts"]):
            print(f"warning: {line}; the resumed run is not promised the same bits", flush=True)
        return frozen_of(workdir)
    if workdir.exists() and any(p.name not in ("lock", FROZEN) for p in workdir.iterdir()):
        raise UserError(f"{workdir} is not empty and holds no run; take another --workdir")
    frozen = config.method.frozen(pack)
    if frozen:
        now["frozen_sha256"] = weights.write(frozen, workdir / FROZEN)
    (workdir / "config.py").write_text(source)
    temp = workdir / ".run.json"
    temp.write_text(json.dumps(now, indent=1))
    temp.replace(path)
    return frozen


def frozen_of(workdir: Path) -> dict[str, np.ndarray]:
    """The frozen arrays of a run folder; {} where it has none."""
    wanted = read_run(workdir).get("frozen_sha256")
    return weights.read(workdir / FROZEN, wanted) if wanted else {}


def read_run(workdir: Path) -> dict:
    """run.json of a run folder."""
    try:
        return json.loads((workdir / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir} is no run folder: {error}") from None


def same_bits(workdir: Path) -> dict:
    """run.json of a run that this version can repeat; others can only be looked at."""
    recorded = read_run(workdir)
    if recorded.get("schema") != RUN_SCHEMA:
        # Schema 1 drew its mirror flips from other keys.
        raise UserError(
            f"{workdir} was made by another version (schema {recorded.get('schema')}, here "
            f"{RUN_SCHEMA}), whose bits this one does not repeat; use that version, or train anew"
        )
    return recorded


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
    config.method.inputs(pack)
    evaluator(config, config.method.make(None), pack)
    with lock(workdir):
        frozen = open_run(config, workdir, pack, source, overrides)
        folder = workdir / "checkpoints"
        folder.mkdir(exist_ok=True)
        session = prepare(config, pack, frozen)
        found = checkpoint.restore(folder, session.like)
        if found:
            print(f"resuming {workdir} at step {found.step}", flush=True)
            session = prepare(config, pack, frozen, found.step)
        state = found.state.replace(frozen=frozen) if found else session.initial()
        state = parallel.replicate(state, session.devices)
        return _loop(config, workdir, pack, session, state, found.step if found else 0)


def _loop(config, workdir: Path, pack: Pack, session: Session, state, at: int) -> int:
    run, folder = config.run, workdir / "checkpoints"
    stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda s, _: os._exit(128 + s) if stop else stop.append(s))
    draw_previews = previewer(session.method, config.seed)
    evaluate = evaluator(config, session.method, pack)
    metrics = record.MetricsFile(workdir / "metrics.jsonl", at)
    if at == 0:
        record.save_image(record.grid(pack.images[:PREVIEWS]), workdir / "real.png")
        metrics.write({"step": 0, "fingerprint": f"{int(_fingerprint(state)):08x}"})
    judged = record.MetricsFile(workdir / "evaluation.jsonl", at) if evaluate else None
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
            # Before the checkpoint: a run that is killed in between comes here again.
            _export(config, workdir, state)
            if evaluate:
                judged.write({"step": at, **evaluate(state)})
            bare = state.replace(frozen={})
            checkpoint.save(folder, at, bare, {"config_sha256": fingerprint(config)})
            checkpoint.prune(folder, run.keep_checkpoints, run.keep_every)
            record.curves(record.read_metrics(workdir / "metrics.jsonl"), workdir / "curves")
        if ended or at % run.sample_every == 0 or at % run.checkpoint_every == 0:
            clock = time.monotonic()
    metrics.close()
    progress.close()
    if judged:
        judged.close()
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


def _export(config: Config, workdir: Path, state: TrainState) -> None:
    """Writes the networks alone, for use outside of this run, as safetensors."""
    trees = {"params": state.params, "stats": state.stats, "ema": state.ema}
    about = {"step": int(state.step), "method": to_dict(config.method)}
    weights.write(weights.flatten(trees), workdir / weights.OF_A_RUN, about)


def evaluator(config: Config, method: Method, pack: Pack) -> Callable | None:
    """A function of the state that judges it on the held-out part; None without either."""
    if method.evaluate is None or "test" not in pack.manifest["parts"]:
        return None
    images, inputs = pack.part("test"), config.method.inputs(pack, "test")
    return lambda state: method.evaluate(state, images, inputs)


_fingerprint = jax.jit(lambda state: train_step.fingerprint(state.replace(frozen={})))


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
    same_bits(workdir)
    ledger = {m["step"]: m["fingerprint"] for m in record.read_metrics(workdir / "metrics.jsonl")}
    last = min(until if until is not None else max(ledger), max(ledger))
    session = prepare(config, pack, frozen_of(workdir), 1)
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
            have = checkpoint.leaf_digests(jax.tree.map(np.asarray, state.replace(frozen={})))
            leaves = [leaf for leaf in have if want.get(leaf) != have[leaf]]
        if ledger.get(step, got) != got or leaves:
            where = f": {', '.join(leaves[:5])}" if leaves else ""
            return 1, f"first difference at step {step}{where}"
    return 0, f"identical through step {last}"
