"""A config made ready to run: its compiled dispatches, its data on the devices."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from anigan_jax import intervals
from anigan_jax.config import Config, resolve
from anigan_jax.core import Health, Method, Phase, PyTree, TrainState
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import UserError
from anigan_jax.runtime import devices, environment, processes
from anigan_jax.runtime.processes import ProcessGroup
from anigan_jax.state import abstract_state, init_state
from anigan_jax.training import step
from anigan_jax.training.input import ahead, host_rows, rows


class Chunk(NamedTuple):
    """The steps of one dispatch.

    Attributes:
      start: completed steps before it.
      end: completed steps after it.
      phase: index of the phase that they belong to.
      local: what the devices of this process get, beside the state and the shared arrays.
    """

    start: int
    end: int
    phase: int
    local: dict[str, PyTree]


class Program:
    """A resolved config made ready to run; nothing of it changes but what is compiled.

    Attributes:
      given: the config before it was resolved, which is what files of a run say.
      config, method: resolved, and made for the devices.
      trained: the config that the steps are made of.
      data, constants: as `input.rows` and `MethodSettings.constants` give them.
      devices: of all processes.
      total: steps of the run.
      length: steps of a dispatch, where nothing is due before its end; else it has one.
      shared: the arrays on the devices that every dispatch reads.
      compiling: seconds that compilations have taken so far.
      abstract: shapes and types of the state.
      intervals: when the run does what.
    """

    def __init__(
        self,
        config: Config,
        pack: Pack,
        constants: PyTree,
        start: int = 0,
        group: ProcessGroup = processes.ALONE,
        report: Callable[[str], None] = lambda text: None,
        ramps: bool = False,
    ):
        """Puts the data on the devices; compiles nothing yet.

        Args:
          start: completed steps at which the run goes on.
          report: is given a line before something that takes long.
          ramps: whether G's average begins as from scratch, whatever is taken of a parent.
        """
        images = len(pack.images)
        self.given = config
        self.config = config = resolve(config, images)
        self.group, self.report = group, report
        run, self.total = config.run, config.run.steps
        scratch = dataclasses.replace(config, parent=dataclasses.replace(config.parent, run=""))
        self.trained = scratch if ramps else config
        self.devices = devices.choose_devices(run.devices, config.batch_size)
        axis = devices.axis_of(self.devices)
        self.method: Method = config.method.make(axis)
        # Not up to `total` alone: a replay also repeats what a longer, resumed run added.
        self.ends = phase_ends(self.method.phases, sys.maxsize, images // config.batch_size)
        if self.total > self.ends[-1]:
            raise UserError(
                f"the phases of this method end at step {self.ends[-1]:,}, and run.steps is "
                f"{self.total:,}; a last phase without a length has no end"
            )
        self.intervals = intervals.of(run)
        self.length = best_length(run.steps_per_dispatch, self._stretches(start, self.total))
        self._steps: dict[tuple[int, int], Any] = {}
        self.data, self.constants = rows(config, pack), constants
        held = jax.tree.map(np.asarray, self.data) if run.input == "device" else {}
        self.shared = devices.replicate({"data": held, "constants": constants}, self.devices)
        self.own = np.array(devices.local_indices(self.devices), np.int32)
        # Explicitly on the devices: no dispatch waits for a transfer.
        self.index = devices.split(self.own, self.devices)
        self.abstract = abstract_state(config, self.method, constants)
        self._compiled: set[tuple[int, int]] = set()
        self.compiling = 0.0

    def initial(self) -> TrainState:
        """The state before the first step."""
        return jax.jit(lambda held: init_state(self.config, self.method, held))(self.constants)

    def chunks(self, start: int, end: int | None = None) -> Iterator[Chunk]:
        """The dispatches from a step to the end of the run, or to another step."""
        last = self.total if end is None else end
        spans = self._spans(start, last)
        for (at, to), local in zip(spans, self._locals(start, last), strict=False):
            phase = next(i for i, over in enumerate(self.ends) if at < over)
            yield Chunk(at, to, phase, local)

    def _stretches(self, start: int, last: int) -> Iterator[tuple[int, int]]:
        """(start, end) of the steps between two at which a dispatch must end."""
        ends = (self.intervals.sample | self.intervals.checkpoint) | intervals.Every(
            (*self.ends, self.total, last)
        )
        for end in ends.up_to(last, start):
            yield start, end
            start = end

    def _spans(self, start: int, last: int) -> Iterator[tuple[int, int]]:
        """(start, end) of each dispatch: whole ones, then single steps to what is due."""
        for at, end in self._stretches(start, last):
            whole = end - (end - at) % self.length
            yield from ((step, step + self.length) for step in range(at, whole, self.length))
            yield from ((step, step + 1) for step in range(whole, end))

    def _locals(self, start: int, last: int) -> Iterator[dict]:
        if self.config.run.input == "device":
            while True:
                yield {"device": self.index}
        reserved, count = step.draws_per_step(self.method), len(self.devices)
        for part in ahead(
            devices.split(
                host_rows(self.config, self.data, at, to - at, reserved, count, self.own),
                self.devices,
            )
            for at, to in self._spans(start, last)
        ):
            yield {"device": self.index, "rows": part}

    def step(self, phase: int, length: int) -> Any:
        """The function of a phase, (state, shared, local) -> ..., for dispatches of `length`."""
        if (phase, length) not in self._steps:
            axis = devices.axis_of(self.devices)
            made = self.method.phases[phase]
            self._steps[phase, length] = devices.map_step(
                step.make_super_step(self.trained, self.method, made, length, axis),
                self.config.run.mapper,
                self.devices,
            )
        return self._steps[phase, length]

    def run(
        self, state: TrainState, chunk: Chunk, stop: int = 0
    ) -> tuple[TrainState, dict, Health]:
        """Dispatches the steps of a chunk; the state that is given is donated.

        Args:
          stop: a signal that the other processes are to hear of; 0: none.

        Returns:
          (state, metrics of shape (steps of the chunk,), `Health`); not waited for.
        """
        local = chunk.local
        if len(self.own) < len(self.devices):
            # The processes must stop at one step: each hears of it from the dispatch.
            local = {**local, "stop": devices.split(np.full_like(self.own, stop), self.devices)}
        kind = chunk.phase, chunk.end - chunk.start
        if kind not in self._compiled:
            self._compile(state, chunk, local)
        self.group.at(chunk.start, "step")
        state, (metrics, health) = self.step(*kind)(state, self.shared, local)
        return state, metrics, health

    def _compile(self, state: TrainState, chunk: Chunk, local: dict) -> None:
        kind, clock = (chunk.phase, chunk.end - chunk.start), time.monotonic()
        self._compiled.add(kind)
        self.group.at(chunk.start, "compile")
        name = self.method.phases[chunk.phase].name
        self.report(f"compiling the steps of phase {name!r}: up to a few minutes the first time")
        self._steps[kind] = self.step(*kind).lower(state, self.shared, local).compile()
        environment.release_host_memory()
        # Collectives give up before a slow compilation ends.
        self.group.barrier()
        self.compiling += time.monotonic() - clock


def phase_ends(phases: tuple[Phase, ...], total: int, per_epoch: int) -> list[int]:
    """The step at which each phase is over; `per_epoch` steps are an epoch."""
    found, at = [], 0
    for phase in phases:
        steps = phase.steps
        if steps is None:
            steps = total if phase.epochs is None else phase.epochs * per_epoch
        at = min(at + steps, total)
        found.append(at)
    return found


def best_length(most: int, stretches: Iterable[tuple[int, int]]) -> int:
    """The steps of a dispatch, up to `most`, that give the fewest dispatches.

    What it leaves of a stretch (start, end) are single steps, which are compiled too: only
    where that halves the dispatches.
    """
    # They repeat: the first tell.
    first = itertools.islice(stretches, 10_000)
    counts = collections.Counter(end - start for start, end in first)

    def dispatches(length: int) -> int:
        singles = sum(n * (steps % length) for steps, n in counts.items())
        whole = sum(n * (steps // length) for steps, n in counts.items())
        return (whole + singles) * (2 if singles else 1)

    # Where something is due after fewer steps, no dispatch is longer.
    most = min(most, max(counts, default=most))
    return min(range(most, 0, -1), key=dispatches)
