"""A config made ready to run: its compiled dispatches, its data on the devices."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from anigan_jax.config import Config, in_steps
from anigan_jax.core import Method, Phase, PyTree, TrainState
from anigan_jax.data.dataset import Pack
from anigan_jax.runtime import devices as parallel
from anigan_jax.runtime import environment
from anigan_jax.state import abstract_state, init_state
from anigan_jax.training import step
from anigan_jax.training.input import _ahead, _rows, rows


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
            step.make_super_step(config, method, phase, length, axis),
            run.mapper,
            devices,
        )
        for phase in method.phases
    ]
    resident = run.feed == "resident"
    data = rows(config, pack)
    held = jax.tree.map(np.asarray, data) if resident else {}
    shared = parallel.replicate(held, devices)
    own = np.array(parallel.local_indices(devices), np.int32)
    # Explicitly on the devices: no dispatch waits for a transfer.
    index = parallel.split(own, devices)
    reserved = step.draws_per_step(method)

    def locals_from(first: int) -> Iterator[dict]:
        if resident:
            while True:
                yield {"device": index}
        for part in _ahead(
            parallel.split(_rows(config, data, at, length, reserved, len(devices), own), devices)
            for at in itertools.count(first, length)
        ):
            yield {"device": index, "rows": part}

    def initial() -> TrainState:
        return jax.jit(lambda held: init_state(config, method, held))(frozen)

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
        abstract_state(config, method, frozen),
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
        environment.release_host_memory()
        return True

    return dispatch, ready


def largest_divisor(most: int, marks) -> int:
    """The largest number up to `most` that divides every mark."""
    common = math.gcd(*marks)
    return max(n for n in range(1, most + 1) if common % n == 0)
