"""The one loop: train(config, workdir, pack). It contains no family's name."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from anigan_jax import own_code
from anigan_jax.config import Config, resolve
from anigan_jax.core import Health, Method, TrainState
from anigan_jax.data import pack_files
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import DivergedError, MachineError, UserError, machine_fault
from anigan_jax.runtime import devices, environment, processes
from anigan_jax.runtime.processes import ProcessGroup
from anigan_jax.runtime.signals import Stop
from anigan_jax.state import abstract_state, with_leaves
from anigan_jax.storage import checkpoint, lock, run_dir
from anigan_jax.training import artifacts, online_eval, transfer
from anigan_jax.training.artifacts import Artifacts, NoArtifacts
from anigan_jax.training.input import held_out, rows
from anigan_jax.training.program import Chunk, Program, phase_ends


def train(
    config: Config,
    workdir: Path,
    pack: Pack,
    command: tuple[str, ...] = (),
    stop: Stop | None = None,
    group: ProcessGroup = processes.ALONE,
) -> int:
    """Trains to the end, or to a signal; resumes where the folder holds a checkpoint.

    Args:
      command: the words that started it, for the record.
      stop: what signals say.
      group: the processes that train together; the first writes.

    Returns:
      The exit code: 0, or 128 + the signal that stopped it (after a checkpoint).

    Raises:
      UserError: it is refused; DivergedError: it made NaN; MachineError: it can be resumed.
    """
    stop = stop or Stop()
    config = transfer.as_begun(config, workdir)
    with machine_faults(workdir, group):
        evaluator, taken = checked(config, workdir, pack, group)
        with lock.hold(workdir) if group.is_primary else contextlib.nullcontext():
            return _resume(config, workdir, pack, evaluator, command, stop, group, taken)


def checked(
    config: Config, workdir: Path, pack: Pack, group: ProcessGroup = processes.ALONE
) -> tuple[online_eval.Evaluator, run_dir.Taken | None]:
    """Everything that can refuse a run, before its first file is written.

    Returns:
      What judges it, and what it takes from another run.

    Raises:
      UserError: it is refused.
    """
    devices.choose_devices(config.run.devices, config.batch_size)
    rows(config, pack)
    method = config.method.make()
    evaluator = online_eval.Evaluator(resolve(config, len(pack.images)), method, pack, workdir)
    if group.world > 1:
        processes.assert_equal(group, run_dir.facts_of(config, pack))
    if not (workdir / run_dir.RUN).exists():
        _check_own(config, method, pack)
    return evaluator, transfer.take(config, workdir, pack) if group.is_primary else None


def _check_own(config: Config, method: Method, pack: Pack) -> None:
    """Refuses a generator of the user's own whose images are not those that D is to judge."""
    if method.texts or not own_code.of(config).files:
        return
    want = (2, *pack.images.shape[1:])
    makers = [(change, "photos", want) for change in (method.translate or {}).values()]
    if method.generate:
        makers.append((method.generate, "latents", (2, method.z_dim)))
    if not makers:
        return
    shapes = abstract_state(config, method, config.method.constants(pack))
    for make, what, given in makers:
        seen = jax.ShapeDtypeStruct(given, np.float32)
        made = jax.eval_shape(make, shapes.params["g"], shapes.stats["g"], seen).shape
        if made != want:
            raise UserError(
                f"G makes images {made} from 2 {what}; they must be {want}, as the data are"
            )


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
        raise MachineError(reason) from error


def _resume(
    config: Config,
    workdir: Path,
    pack: Pack,
    evaluator,
    command,
    stop: Stop,
    group: ProcessGroup,
    taken: run_dir.Taken | None,
) -> int:
    """Opens the folder, takes up what is there, and trains."""
    constants = None
    if group.is_primary:
        constants = run_dir.open_run(config, workdir, pack, command, taken)
    constants = processes.broadcast_arrays(group, constants)
    shapes = abstract_state(config, config.method.make(), constants)
    folder, found = workdir / "checkpoints", None
    resolved = resolve(config, len(pack.images))
    total = resolved.run.steps
    if group.is_primary:
        folder.mkdir(exist_ok=True)
        found = checkpoint.restore(folder, shapes)
        # Checkpoints have the settings in steps.
        run_dir.same_run(resolved, workdir, found)
        if not (found and found.step >= total):
            artifacts.check_space(resolved, workdir, shapes)
    begun = found.step if found else 0, group.is_primary and transfer.ramps(workdir)
    at, ramps = processes.broadcast_json(group, begun)
    if group.is_primary:
        print("\n".join(_header(config, shapes, pack, workdir, at, total)), flush=True)
    # Once, now that the start is known: it puts the data on the devices.
    report = (lambda text: print(text, flush=True)) if group.is_primary else (lambda text: None)
    program = Program(config, pack, constants, at, group, report, ramps)
    started = {} if found or not group.is_primary else run_dir.taken_by(workdir)
    state = found.state if found else with_leaves(program.initial(), started)
    state = processes.broadcast(group, jax.tree.map(np.asarray, state), program.abstract)
    state = devices.replicate(state, program.devices)
    files = NoArtifacts()
    if group.is_primary:
        files = Artifacts(program, pack, workdir, evaluator, state, at)
        # Now that nothing refuses it. One that is longer than it is asked to be stays as it is.
        if at <= total:
            run_dir.note_resume(workdir, config, at)
            files.make_up(at, state)
    # All or none: a signal before leaves at once.
    group.barrier()
    stop.ready = True
    try:
        at, signal = _loop(program, files, state, at, stop)
    except BaseException:
        # Within the lock: nobody else may begin while the last save is being written.
        files.close(failed=True)
        raise
    files.close()
    if signal and group.is_primary:
        print(f"stopped by signal {signal} at step {at}; the same command resumes", flush=True)
    return 128 + signal if signal else 0


def _header(config, shapes: TrainState, pack: Pack, workdir: Path, at: int, total: int):
    """What a run begins with: where it computes, what it learns from, how large it is."""
    count = config.run.devices or jax.device_count()
    kind = jax.devices()[0].device_kind
    yield f"device      {count} x {jax.default_backend()} ({kind})"
    threads, cores = os.environ.get("NPROC", ""), environment.cores()
    recorded = run_dir.read_run(workdir)
    began = at and recorded["facts"].get("NPROC") == threads
    if began and count == 1 and jax.default_backend() == "cpu" and threads != str(cores):
        yield (
            f"threads     {threads}, as when the run began, but this process may use {cores}; "
            f"NPROC={cores} uses them, and the bits then change"
        )
    if why := devices.mapper_of(config.run.mapper, jax.process_count())[1]:
        yield f"mapper      {why}"
    if unused := environment.unused_accelerator():
        yield f"warning: {unused}"
    if late := environment.late_flags():
        yield f"warning: JAX had started before these flags were set: {' '.join(late)}"
    unread = [f"optimizers.{p}.{w}" for p, s in config.optimizers.items() for w in s.unread()]
    for warning in filter(None, (*config.method.warnings, *unread, config.data.unread(pack))):
        yield f"warning: {warning}"
    per_epoch = len(pack.images) // config.batch_size
    phases = config.method.make().phases
    starts = [0, *phase_ends(phases, total, per_epoch)]
    for phase, start in zip(phases, starts, strict=False):
        if start >= total:
            yield (
                f"warning: the phase {phase.name!r} gets no step: what comes before it takes all "
                f"{total:,}; a longer run reaches it (--run.steps)"
            )
    second = f", domain B {len(pack.part('trainB')):,}" if pack.has("trainB") else ""
    held = ", none held out" if not held_out(pack) else f", {len(pack.first('test')):,} held out"
    yield f"data        {len(pack.images):,} images of {config.data.size} px{second}{held}"
    yield from pack_files.notes(pack.manifest)
    sizes = {
        player: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
        for player, tree in shapes.params.items()
    }
    players = ", ".join(
        f"{player.upper()} {size:,}" for player, size in sorted(sizes.items(), reverse=True)
    )
    epochs = total / per_epoch
    yield f"parameters  {players}; {total:,} steps of {config.batch_size} ({epochs:.1f} epochs)"
    if at >= total:
        yield f"{workdir} is finished: {at:,} steps; more with --run.steps {2 * at}"
    elif at:
        yield f"resuming {workdir} at step {at}"
    elif parent := recorded.get("parent"):
        yield f"starts from {transfer.told(parent)}"


def _loop(program: Program, files: Artifacts | NoArtifacts, state: TrainState, at: int, stop: Stop):
    """Dispatches to the end or to a signal; returns the step, and the signal or 0."""
    record = Recorder(program, files, at, stop)
    for chunk in program.chunks(at):
        state, metrics, health = program.run(state, chunk, stop.number)
        at = chunk.end
        if record(chunk, metrics, health, state):
            break
    program.group.at(at, "end")
    return at, record.signal


class Recorder:
    """Fetches what a dispatch found one dispatch late, and records it at the intervals.

    The device never waits for logging: while a chunk runs, the one before it is written.
    """

    def __init__(self, program: Program, files: Artifacts | NoArtifacts, at: int, stop: Stop):
        self.program, self.files, self.stop = program, files, stop
        self.clock, self.late, self.signal, self.whole = time.monotonic(), None, 0, 0
        self.start = at
        self.compiled = program.compiling

    def __call__(self, chunk: Chunk, metrics: dict, health: Health, state: TrainState) -> bool:
        """Records a chunk that was dispatched; `state` is the one after it.

        Returns:
          Whether the run stops here.

        Raises:
          DivergedError: the state is not finite any more.
          MachineError: the devices do not agree any more, or a save failed.
          DisagreementError: they did not after the first dispatch.
        """
        intervals, group, at = self.program.intervals, self.program.group, chunk.end
        ended, timed = at >= self.program.total, chunk
        if self.late and jax.default_backend() != "cpu":
            # The one that is waited for here.
            timed = self.late[0]
        self._settle(state)
        if jax.default_backend() == "cpu":
            # Collectives of queued dispatches deadlock XLA's CPU client.
            jax.block_until_ready(state)
        self._hear()
        now, compiled = time.monotonic(), self.program.compiling - self.compiled
        seconds = (now - self.clock - compiled) / (timed.end - timed.start)
        self.late = (chunk, metrics, health, None if self.stop.slept else seconds)
        if at - chunk.start == self.program.length:
            self.whole += 1
            if self.whole == 2:
                self.files.announce(seconds * self.program.length)
        self.clock, self.stop.slept, self.compiled = now, False, self.program.compiling
        saves = bool(self.signal) or ended or intervals.checkpoint.due(at)
        if saves:
            self._settle(state)
            self._hear()
            group.at(at, self.files.saving)
            self.files.checkpoint(at, state, self._stop_for_files())
            self._hear()
        shows = ended or intervals.sample.due(at)
        if shows:
            self.files.sample(at, state)
        if saves or shows:
            # Collectives give up before process 0 has evaluated and drawn.
            group.barrier()
            self.clock = time.monotonic()
        return bool(self.signal)

    def _hear(self) -> None:
        # Several processes must stop at one step: they hear of it from the dispatch.
        if self.program.group.world == 1:
            self.signal = self.signal or self.stop.number

    def _stop_for_files(self) -> Stop:
        # What the others have not heard of must not keep an evaluation from being made.
        return self.stop if self.program.group.world == 1 else Stop(self.signal)

    def _settle(self, state: TrainState) -> None:
        """Fetches and writes what the dispatch before found; `state` is of then or later."""
        if self.late is None:
            return
        (chunk, metrics, health, seconds), self.late = self.late, None
        metrics, health = jax.device_get((metrics, health))
        if not health.replicated:
            told = f"at step {chunk.end} the devices hold different weights"
            if chunk.start == self.start:
                # Nothing that a launcher's second try would mend.
                raise processes.DisagreementError(
                    f"{told}, from the first steps on: does a network or loss of your own give "
                    "each device its own values (batch norm without axis_name)?"
                )
            raise MachineError(
                f"{told}: one of them, or its memory, is faulty; the same command resumes from the "
                "last checkpoint"
            )
        self.files.lines(chunk, metrics, seconds)
        if health.first_nonfinite >= 0:
            first = int(health.first_nonfinite)
            raise self.files.diverged(chunk, metrics, state, first) or DivergedError(
                f"training diverged before step {chunk.end}; process 0 tells more"
            )
        self.signal = self.signal or int(health.stop)
