"""A config made ready to run: its compiled dispatches, its data on the devices."""

from __future__ import annotations

import itertools
import math
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from anigan_jax import feed, parallel, runtime, train_step
from anigan_jax.config import Config, in_steps
from anigan_jax.core import Method, Phase, PyTree, TrainState
from anigan_jax.data import order
from anigan_jax.data.pack import Pack
from anigan_jax.errors import UserError

STREAM_AHEAD = 2


class Session(NamedTuple):
    """A config made ready to run; all static.

    `dispatch(at, state, local, stop)` runs `length` steps from step `at`; `local` comes from
    `locals_from(step)`; `ready(at, state, local)` compiles it where that was not done, and
    tells whether it did. `stop` is a signal that the other processes are to hear of. `steps`
    are the compiled functions of the phases, called with (state, shared, local).
    """

    method: Method
    data: dict[str, np.ndarray]
    devices: list
    total: int
    length: int
    steps: list[Callable]
    shared: PyTree
    dispatch: Callable
    ready: Callable
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
    held = jax.tree.map(np.asarray, data) if resident else {}
    shared = parallel.replicate(held, devices)
    own = np.array(parallel.mine(devices), np.int32)
    # Explicitly on the devices: no dispatch waits for a transfer.
    index = parallel.split(own, devices)
    reserved = train_step.draws_per_step(method)

    def locals_from(first: int) -> Iterator[dict]:
        if resident:
            while True:
                yield {"device": index}
        for rows in _ahead(
            parallel.split(_rows(config, data, at, length, reserved, len(devices), own), devices)
            for at in itertools.count(first, length)
        ):
            yield {"device": index, "rows": rows}

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
        *_dispatches(mapped, shared, over, own, devices),
        locals_from,
        initial,
        like(config, method, frozen),
    )


def _dispatches(
    mapped: list[Callable], shared: PyTree, over: list[int], own: np.ndarray, devices: list
) -> tuple[Callable, Callable]:
    """`dispatch` and `ready` of a session, whose phases end at the steps `over`."""
    together, compiled = len(own) < len(devices), set()

    def heard(local: dict, stop: int) -> dict:
        if not together:
            return local
        return {**local, "stop": parallel.split(np.full_like(own, stop), devices)}

    def phase_at(at: int) -> int:
        return next(i for i, end in enumerate(over) if at < end)

    def dispatch(at: int, state: TrainState, local: dict, stop: int = 0):
        return mapped[phase_at(at)](state, shared, heard(local, stop))

    def ready(at: int, state: TrainState, local: dict) -> bool:
        phase = phase_at(at)
        if phase in compiled:
            return False
        compiled.add(phase)
        mapped[phase] = mapped[phase].lower(state, shared, heard(local, 0)).compile()
        runtime.give_back()
        return True

    return dispatch, ready


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


def _rows(
    config: Config,
    data: dict,
    first: int,
    length: int,
    reserved: int,
    devices: int,
    own: np.ndarray | None = None,
):
    """The resident feed's rows (D, K, R, b, ...) of each array, for `length` steps.

    Args:
      own: places among the devices of those that get rows, consecutive; None: all.
    """
    b = config.batch_size // devices
    own = np.arange(devices) if own is None else own
    examples = np.arange(own[0] * b, (own[-1] + 1) * b, dtype=np.uint32)
    drawn = [
        feed.gather(
            data,
            np.uint32(draw),
            config.batch_size,
            examples,
            config.seed,
            while_loop=order.python_while_loop,
        )
        for draw in range(first * reserved, (first + length) * reserved)
    ]

    def arranged(name: str, values: np.ndarray) -> np.ndarray:
        taken = np.stack([rows[name] for rows in drawn])
        taken = taken.reshape(length, reserved, len(own), b, *values.shape[1:])
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
