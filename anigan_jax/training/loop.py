"""The one loop: train(config, workdir). It contains no family's name."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from anigan_jax.config import Config, in_steps
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import DivergedError, MachineError, UserError, machine_fault
from anigan_jax.runtime import devices, processes
from anigan_jax.runtime.processes import ProcessGroup
from anigan_jax.runtime.signals import Stop
from anigan_jax.state import abstract_state
from anigan_jax.storage import checkpoint, run_dir
from anigan_jax.training import artifacts, online_eval
from anigan_jax.training.input import rows
from anigan_jax.training.program import Session, prepare


def train(
    config: Config,
    workdir: Path,
    pack: Pack,
    source: str,
    overrides: list[str],
    stop: Stop | None = None,
    group: ProcessGroup = processes.ALONE,
) -> int:
    """Trains to the end, or to a signal; resumes where the folder holds a checkpoint.

    Args:
      stop: what signals say.
      group: the processes that train together; the first writes.

    Returns:
      The exit code: 0, or 128 + the signal that stopped it (after a checkpoint).

    Raises:
      UserError: it is refused; DivergedError: it made NaN; MachineError: it can be resumed.
    """
    stop = stop or Stop()
    with machine_faults(workdir, group):
        # Everything that can refuse comes before the first file of the run is written.
        devices.choose_devices(config.run.devices, config.batch_size)
        rows(config, pack)
        judge = online_eval.Judge(config, config.method.make(None), pack, workdir)
        if group.world > 1:
            processes.assert_equal(group, run_dir.facts_of(config, pack))
        with run_dir.lock(workdir) if group.is_primary else contextlib.nullcontext():
            return _resume(config, workdir, pack, judge, source, overrides, stop, group)


@contextlib.contextmanager
def machine_faults(workdir: Path, group: ProcessGroup) -> Iterator[None]:
    """Turns what a disk, memory or a lost process does into a MachineError; others pass."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # Where another process is lost, collectives fail here: the heartbeat names it.
        group.failed(error)
        reason = machine_fault(error, workdir)
        if not reason:
            raise
        raise MachineError(f"{reason}; the same command goes on with {workdir}") from error


def _resume(config, workdir: Path, pack: Pack, judge, source, overrides, stop, group) -> int:
    """Opens the folder, takes up what is there, and trains."""
    frozen = None
    if group.is_primary:
        frozen = run_dir.open_run(config, workdir, pack, source, overrides)
    frozen = processes.broadcast_arrays(group, frozen)
    shapes = abstract_state(config, config.method.make(None), frozen)
    folder, found = workdir / "checkpoints", None
    if group.is_primary:
        folder.mkdir(exist_ok=True)
        found = checkpoint.restore(folder, shapes)
        run_dir.same_run(config, workdir, found)
        total = in_steps(config, len(pack.images)).run.steps
        artifacts.check_space(config, workdir, shapes, total)
    at = processes.broadcast_json(group, found.step if found else 0)
    # Once, now that the start is known: it puts the data on the devices.
    session = prepare(config, pack, frozen, at)
    if found:
        print(f"resuming {workdir} at step {at}", flush=True)
    if group.is_primary:
        run_dir.note_resume(workdir, config, at)
    state = found.state if found else session.initial().replace(frozen={})
    state = processes.broadcast(group, jax.tree.map(np.asarray, state), session.like)
    state = devices.replicate(state.replace(frozen=frozen), session.devices)
    written = None
    if group.is_primary:
        draw = artifacts.previewer(
            config,
            session.method,
            lambda: rows(config, pack, "test" if pack.has("test") else "train"),
        )
        total, data = session.total, session.data
        written = artifacts.Outputs(config, workdir, draw, data, judge, state, at, total)
    # All or none: a signal before leaves at once.
    group.barrier()
    stop.ready = True
    try:
        at, asked = _loop(config, session, written, state, at, stop, group)
    except BaseException:
        # Within the lock: nobody else may begin while the last save is being written.
        if written:
            written.close(failed=True)
        raise
    if asked and written:
        print(f"stopped by signal {asked} at step {at}; the same command resumes", flush=True)
    return 128 + asked if asked else 0


def _loop(
    config, session: Session, written, state, at: int, stop: Stop, group: ProcessGroup
) -> tuple:
    """Dispatches super-steps to the end or to a signal; returns the step, and the signal."""
    run, local, first = config.run, session.locals_from(at), at
    clock, late, asked = time.monotonic(), None, 0

    def heard() -> int:
        # Several processes must stop at one step: they hear of it from the dispatch.
        return stop.number if group.world == 1 else 0

    while at < session.total and not asked:
        draws = next(local)
        group.at(at, "compile")
        if session.ready(at, state, draws):
            # Collectives give up before a slow compilation ends.
            group.barrier()
        group.at(at, "step")
        state, new = session.dispatch(at, state, draws, stop.number)
        at += session.length
        if late:
            asked = _settle(written, *late, state)
        if jax.default_backend() == "cpu":
            # Collectives of queued dispatches deadlock XLA's CPU client.
            jax.block_until_ready(state)
        asked = asked or heard()
        now = time.monotonic()
        late = (at, session.length, new, None if stop.slept else now - clock)
        if written and at == first + 2 * session.length:
            within = artifacts.seconds_to_stop(now - clock, session.like, group.world)
            print(f"a signal saves and stops this run within {within} s", flush=True)
        clock, stop.slept = now, False
        if asked or at >= session.total or at % run.checkpoint_every == 0:
            asked, late = _settle(written, *late, state) or asked, None
            asked = asked or heard()
            group.at(at, "save" if written else "wait")
            if written:
                # What the others have not heard of must not keep a evaluation from being made.
                written.checkpoint(at, state, stop if group.world == 1 else Stop(asked))
            asked = asked or heard()
        shows = at >= session.total or at % run.sample_every == 0
        if shows and written:
            group.at(at, "sample")
            written.sample(at, state)
        if late is None or shows:
            # Collectives give up before process 0 has judged and drawn.
            group.barrier()
            clock = time.monotonic()
    group.at(at, "end")
    if written:
        written.close()
    return at, asked


def _settle(written, at: int, length: int, new: dict, seconds: float | None, state) -> int:
    """Fetches the metrics of a dispatch and writes them.

    Returns:
      The signal that a process got.

    Raises:
      DivergedError: the state is not finite any more.
      MachineError: the devices do not agree, or a save failed.
    """
    new = jax.device_get(new)
    bad, equal, asked = (
        new.pop(name, np.array([default]))[-1]
        for name, default in (("bad", -1), ("equal", True), ("stop", 0))
    )
    if not equal:
        raise MachineError(
            f"at step {at} the devices hold different weights: one of them, or its memory, is "
            "faulty; the same command resumes from the last checkpoint"
        )
    if written:
        written.check()
        written.lines(at, length, new, seconds)
    if bad >= 0:
        if written:
            raise written.diverged(at, length, new, state, int(bad))
        raise DivergedError(f"training diverged before step {at}; process 0 tells more")
    return int(asked)
