"""The one loop: train(config, workdir). It contains no family's name."""

from __future__ import annotations

import itertools
import json
import math
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from anigan_jax import checkpoint, feed, parallel, record, rng, train_step, weights
from anigan_jax import judge as judging
from anigan_jax import run_folder as folders
from anigan_jax.config import Config, fingerprint, in_steps, to_dict
from anigan_jax.core import Method, Phase, PyTree, TrainState
from anigan_jax.data import order
from anigan_jax.data.pack import Pack
from anigan_jax.errors import UserError
from anigan_jax.evaluation import collapse

PREVIEWS = 64
STREAM_AHEAD = 2


class Session(NamedTuple):
    """A config made ready to run; all static.

    `dispatch(at, state, local)` runs `length` steps from step `at`; `local` comes from
    `locals_from(step)`. `steps` are the compiled functions of the phases, called with
    (state, shared, local).
    """

    method: Method
    data: dict[str, np.ndarray]
    devices: list
    total: int
    length: int
    steps: list[Callable]
    shared: PyTree
    dispatch: Callable
    locals_from: Callable[[int], Iterator[dict]]
    initial: Callable[[], TrainState]
    like: TrainState


def ends(phases: tuple[Phase, ...], total: int, per_epoch: int) -> list[int]:
    """The step at which each phase is over; `per_epoch` steps are an epoch."""
    found, at = [], 0
    for phase in phases:
        steps = phase.steps
        if steps is None:
            steps = total if phase.epochs is None else phase.epochs * per_epoch
        at = min(at + steps, total)
        found.append(at)
    return found


def prepare(config: Config, pack: Pack, frozen: PyTree, start: int = 0) -> Session:
    """Makes the compiled pieces of a run that starts at a step."""
    config = in_steps(config, len(pack.images))
    run, total = config.run, config.run.steps
    devices = parallel.choose_devices(run.devices, config.batch_size)
    axis = parallel.axis_of(devices)
    method = config.method.make(axis)
    # Not up to `total` alone: a replay also repeats what a longer, resumed run added.
    over = ends(method.phases, sys.maxsize, len(pack.images) // config.batch_size)
    changes = [end for end in over if end < total]
    marks = (run.sample_every, run.checkpoint_every, total, start, *changes)
    length = largest_divisor(run.steps_per_dispatch, marks)
    mapped = [
        parallel.map_step(
            train_step.make_super_step(config, method, phase, length, axis),
            run.mapper,
            devices,
        )
        for phase in method.phases
    ]
    resident = run.feed == "resident"
    data = rows(config, pack)
    shared = parallel.replicate(jax.tree.map(np.asarray, data) if resident else {}, devices)
    # Explicitly on the devices: no dispatch waits for a transfer.
    index = parallel.split(np.arange(len(devices), dtype=np.int32), devices)
    reserved = train_step.draws_per_step(method)

    def locals_from(first: int) -> Iterator[dict]:
        if resident:
            while True:
                yield {"device": index}
        for rows in _ahead(
            parallel.split(_rows(config, data, at, length, reserved, len(devices)), devices)
            for at in itertools.count(first, length)
        ):
            yield {"device": index, "rows": rows}

    def dispatch(at: int, state: TrainState, local: dict):
        phase = next(i for i, end in enumerate(over) if at < end)
        return mapped[phase](state, shared, local)

    def initial() -> TrainState:
        return jax.jit(lambda held: train_step.init_state(config, method, held))(frozen)

    return Session(
        method,
        data,
        devices,
        total,
        length,
        mapped,
        shared,
        dispatch,
        locals_from,
        initial,
        like(config, method, frozen),
    )


def rows(config: Config, pack: Pack, part: str = "train") -> dict[str, np.ndarray]:
    """The arrays of a part that a batch is drawn from; those of domain B end in '_b'.

    Raises:
      UserError: the pack lacks what the method needs, or has too little for a batch.
    """
    found = {"images": pack.first(part), **config.method.inputs(pack, part)}
    fewest = min(len(values) for values in found.values())
    if part == "train" and fewest < config.batch_size:
        raise UserError(
            f"a batch of {config.batch_size} needs at least as many images; the data has {fewest}"
        )
    return found


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
    b = config.batch_size
    examples = np.arange(b, dtype=np.uint32)
    drawn = [
        feed.gather(
            data, np.uint32(draw), b, examples, config.seed, while_loop=order.python_while_loop
        )
        for draw in range(first * reserved, (first + length) * reserved)
    ]

    def arranged(name: str, values: np.ndarray) -> np.ndarray:
        taken = np.stack([rows[name] for rows in drawn])
        taken = taken.reshape(length, reserved, devices, b // devices, *values.shape[1:])
        return np.ascontiguousarray(np.moveaxis(taken, 2, 0))

    return {name: arranged(name, values) for name, values in data.items()}


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


def train(config: Config, workdir: Path, pack: Pack, source: str, overrides: list[str]) -> int:
    """Trains to the end, or to a signal; resumes where the folder holds a checkpoint.

    Returns:
      The exit code: 0, or 128 + the signal that stopped it (after a checkpoint).
    """
    # Everything that can refuse comes before the first file of the run is written.
    parallel.choose_devices(config.run.devices, config.batch_size)
    rows(config, pack)
    judge = judging.Judge(config, config.method.make(None), pack, workdir)
    with folders.lock(workdir):
        frozen = folders.open_run(config, workdir, pack, source, overrides)
        folder = workdir / "checkpoints"
        folder.mkdir(exist_ok=True)
        session = prepare(config, pack, frozen)
        found = checkpoint.restore(folder, session.like)
        if found:
            print(f"resuming {workdir} at step {found.step}", flush=True)
            session = prepare(config, pack, frozen, found.step)
        state = found.state.replace(frozen=frozen) if found else session.initial()
        state = parallel.replicate(state, session.devices)
        return _loop(config, workdir, pack, session, judge, state, found.step if found else 0)


def _loop(config, workdir: Path, pack: Pack, session: Session, judge, state, at: int) -> int:
    run, folder = config.run, workdir / "checkpoints"
    stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda s, _: os._exit(128 + s) if stop else stop.append(s))
    draw_previews = previewer(config, session.method, pack)
    # Before the first checkpoint a run starts over, its line of step 0 too.
    metrics = record.MetricsFile(workdir / "metrics.jsonl", at or -1, collapse.WINDOW)
    if at == 0:
        for name, images in session.data.items():
            if name.startswith("images"):
                path = workdir / f"{name.replace('images', 'real')}.png"
                record.save_image(record.grid(images[:PREVIEWS]), path)
        metrics.write({"step": 0, "fingerprint": f"{int(_fingerprint(state)):08x}"})
    judge.begin(at, state, session.total)
    progress = record.Progress(session.total, at)
    local = session.locals_from(at)
    clock, late = time.monotonic(), None
    while at < session.total and not stop:
        state, new = session.dispatch(at, state, next(local))
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
            judge.checkpoint(at, state, hurry=bool(stop))
            bare = state.replace(frozen={})
            checkpoint.save(folder, at, bare, {"config_sha256": fingerprint(config)})
            best, _ = judge.best() or (None, None)
            checkpoint.prune(folder, run.keep_checkpoints, run.keep_every, best)
            judge.saved()
            record.curves(record.read_metrics(workdir / "metrics.jsonl"), workdir / "curves")
        if ended or at % run.sample_every == 0 or at % run.checkpoint_every == 0:
            clock = time.monotonic()
    metrics.close()
    progress.close()
    judge.close()
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
        warnings = collapse.of_training([*metrics.lines, line])
        for message in warnings:
            judging.warn(step, message)
        metrics.write({**line, "warnings": warnings} if warnings else line)
    progress.update(at, line)


def _export(config: Config, workdir: Path, state: TrainState) -> None:
    """Writes the networks alone, for use outside of this run, as safetensors."""
    trees = {"params": state.params, "stats": state.stats, "ema": state.ema}
    about = {"step": int(state.step), "method": to_dict(config.method)}
    weights.write(weights.flatten(trees), workdir / weights.OF_A_RUN, about)


_fingerprint = jax.jit(lambda state: train_step.fingerprint(state.replace(frozen={})))


def previewer(config: Config, method: Method, pack: Pack) -> Callable[[TrainState], dict]:
    """A compiled function of the state that draws fixed latents, or fixed images of the data.

    The images are held-out ones where there are any.
    """
    key = rng.stream_key(rng.root_key(config.seed), rng.Stream.PREVIEW)
    keys = rng.example_keys(key, np.arange(PREVIEWS))
    shown = {}
    if method.translate:
        found = rows(config, pack, "test" if pack.has("test") else "train")
        shown = {name: np.asarray(values[:PREVIEWS]) for name, values in found.items()}
    compiled = jax.jit(method.preview)
    return lambda state: {n: np.asarray(x) for n, x in compiled(state, keys, shown).items()}


def replay(config: Config, workdir: Path, pack: Pack, until: int | None) -> tuple[int, str]:
    """Trains again from the start, without writing, and compares the ledger.

    Returns:
      (exit code, message): 0 and 'identical through step N', or 1 and the first
      recorded step that differs, with the leaves where a checkpoint of it exists.
    """
    folders.same_bits(workdir)
    ledger = {m["step"]: m["fingerprint"] for m in record.read_metrics(workdir / "metrics.jsonl")}
    last = min(until if until is not None else max(ledger), max(ledger))
    session = prepare(config, pack, folders.frozen_of(workdir), 1)
    state = parallel.replicate(session.initial(), session.devices)
    folder = workdir / "checkpoints"
    local, saved = session.locals_from(0), set(checkpoint.steps(folder))
    got = f"{int(_fingerprint(state)):08x}"
    for step in range(last + 1):
        if step:
            state, new = session.dispatch(step - 1, state, next(local))
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
