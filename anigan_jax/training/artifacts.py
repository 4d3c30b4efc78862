"""Run artifacts: metrics, previews, checkpoints. Written by process 0."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from anigan_jax import intervals, own_code, rng
from anigan_jax import state as states
from anigan_jax.config import Config, fingerprint, to_json
from anigan_jax.core import PyTree, TrainState
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import DivergedError, MachineError, UserError
from anigan_jax.report.curves import curves
from anigan_jax.runtime import devices, progress
from anigan_jax.runtime.signals import Stop
from anigan_jax.storage import atomic, checkpoint, images, lock, manifest, metrics_file, run_dir
from anigan_jax.storage.epochs import Epochs
from anigan_jax.training import health, online_eval
from anigan_jax.training.input import held_out, rows
from anigan_jax.training.online_eval import Evaluator
from anigan_jax.training.program import Chunk, Program

PREVIEWS = 64
DIVERGED = "diverged.json"
# Bytes a second at which even a slow disk takes a checkpoint, hashed and synced.
SLOWEST = 30e6


class NoArtifacts:
    """What a process that writes nothing does: nothing."""

    saving = "wait"

    def announce(self, dispatch: float) -> None: ...

    def lines(self, chunk: Chunk, metrics: dict, seconds: float | None) -> None: ...

    def sample(self, at: int, state: TrainState) -> None: ...

    def make_up(self, at: int, state: TrainState) -> None: ...

    def checkpoint(self, at: int, state: TrainState, stop: Stop) -> None: ...

    def diverged(self, chunk: Chunk, metrics: dict, state: TrainState, first: int) -> None: ...

    def close(self, failed: bool = False) -> None: ...


class Artifacts:
    """The files of a run that goes on from a step.

    Checkpoints are written by a thread, from a copy; its error is raised by the next call.
    """

    saving = "save"

    def __init__(
        self,
        program: Program,
        pack: Pack,
        workdir: Path,
        evaluator: Evaluator,
        state: TrainState,
        at: int,
    ):
        """Opens the files of a run that goes on from step `at`."""
        self.program, self.workdir, self.evaluator = program, workdir, evaluator
        self.config, self.folder = program.config, workdir / "checkpoints"
        self.epochs = Epochs(len(pack.images), self.config.batch_size)
        self.draw = previewer(program, pack)
        # Now: while it trains, a user may edit the files of his classes.
        self.told = to_json(program.given, own_code.of(program.given).modules)
        # Before the first checkpoint a run starts over, its line of step 0 too.
        self.metrics = metrics_file.MetricsFile(workdir / "metrics.jsonl", at or -1, health.WINDOW)
        (workdir / DIVERGED).unlink(missing_ok=True)
        state = devices.local(state)
        if at == 0:
            for domain, arrays in program.data.items():
                path = workdir / ("real.png" if domain == "a" else f"real_{domain}.png")
                images.save_image(images.grid(arrays["image"][:PREVIEWS]), path)
            self.metrics.write({"step": 0, "fingerprint": f"{int(fingerprint_of(state)):08x}"})
        evaluator.begin(at, state, program.constants, program.total)
        self.progress = progress.Progress(program.total, at)
        self.thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self.pending: concurrent.futures.Future | None = None

    def announce(self, dispatch: float) -> None:
        """Says how soon a signal stops the run; `dispatch`: seconds of one."""
        within = seconds_to_stop(dispatch, self.program.abstract, self.program.group.world)
        print(f"on a signal, this run saves and stops within {within} s", flush=True)

    def lines(self, chunk: Chunk, metrics: dict, seconds: float | None) -> None:
        """Writes the metric lines of one dispatch.

        Args:
          metrics: on the host, each of shape (length,).
          seconds: of a step; None where they say nothing of the speed.
        """
        self.check()
        line: dict = {}
        batch = self.config.batch_size
        for i in range(chunk.end - chunk.start):
            step = chunk.start + 1 + i
            if step % self.config.run.log_every and step != self.program.total:
                continue
            speed = math.nan if seconds is None else batch / seconds
            values = {k: float(v[i]) for k, v in sorted(metrics.items()) if k != "fingerprint"}
            line = {
                "step": step,
                "images_seen": step * batch,
                "epoch": self.epochs.at(step),
                **values,
                "images_per_sec": round(speed, 2),
                "fingerprint": f"{int(metrics['fingerprint'][i]):08x}",
            }
            warnings = health.of_training([*self.metrics.lines, line])
            for message in warnings:
                online_eval.warn(step, message)
            self.metrics.write({**line, "warnings": warnings} if warnings else line)
        self.progress.update(chunk.end, line)

    def sample(self, at: int, state: TrainState) -> None:
        """Writes the preview grids of a step."""
        self._still_here()
        self.program.group.at(at, "sample")
        for name, pictures in self.draw(devices.local(state)).items():
            folder = run_dir.previews_dir(self.workdir)
            # Without its parents: a folder that was moved away must not come to life again.
            folder.mkdir(exist_ok=True)
            (folder / name).mkdir(exist_ok=True)
            images.save_image(images.grid(pictures), folder / name / f"step_{at:09d}.png")

    def make_up(self, at: int, state: TrainState) -> None:
        """Draws what a kill has left out between a save and its preview."""
        due = self.program.intervals.sample.due(at) or at == self.program.total
        there = run_dir.previews_dir(self.workdir).glob(f"*/step_{at:09d}.png")
        if at and due and not any(there):
            self.sample(at, state)

    def checkpoint(self, at: int, state: TrainState, stop: Stop) -> None:
        """Evaluates a state and begins to save it; a signal leaves the evaluation for later."""
        self.wait()
        self.evaluator.checkpoint(at, devices.local(state), stop)
        # The next step is given the state's memory.
        host = jax.tree.map(np.array, devices.local(state))
        self.pending = self.thread.submit(self._save, at, host)

    def _still_here(self) -> None:
        if not (self.workdir / "run.json").exists():
            raise MachineError(f"{self.workdir} was deleted or moved while this run wrote into it")
        if lock.lost(self.workdir):
            raise MachineError(
                f"{self.workdir} was deleted while this run wrote into it, and another process "
                "trains there now; this one stops"
            )

    def _save(self, at: int, state: TrainState) -> None:
        self._still_here()
        try:
            self._save_all(at, state)
        except (OSError, UserError):
            self._still_here()
            raise

    def _save_all(self, at: int, state: TrainState) -> None:
        run = self.config.run
        # Before the checkpoint: a run that is killed in between comes here again.
        self.metrics.sync()
        self.evaluator.sync()
        method = self.program.method
        constants = self.program.constants if method.texts or method.scores else {}
        run_dir.export_weights(self.workdir, self.program.given, state, constants, self.told)
        every = self.program.intervals.keep
        # Later starts may have other intervals.
        kept = {"kept": True} if every.due(at) else {}
        meta = {"config_sha256": fingerprint(self.config), **kept}
        checkpoint.save(self.folder, at, state, meta)
        best = self.evaluator.best()
        checkpoint.prune(self.folder, run.keep_checkpoints, every, best and best.step)
        self.evaluator.saved()

    def check(self) -> None:
        """Raises the error of a save that failed."""
        if self.pending and self.pending.done():
            self.wait()

    def wait(self) -> None:
        """Until the last save has ended; raises its error."""
        pending, self.pending = self.pending, None
        if pending:
            pending.result()

    def diverged(self, chunk: Chunk, metrics: dict, state: TrainState, first: int) -> DivergedError:
        """The error that tells of NaN or Inf in the state after a dispatch.

        Args:
          state: of then, or of one dispatch later.
          first: index of its first bad leaf.
        """
        at, length = chunk.end, chunk.end - chunk.start
        bad = not_finite(devices.local(state))
        leaf = names_of(state)[first]
        step, sign = at, ""
        for name in sorted(name for name in metrics if name.startswith("gradient/")):
            # NaN is no fault where a player was not updated.
            updated = metrics.get(name.replace("gradient", "repeats"), np.ones(length)) > 0
            wrong = np.flatnonzero(~np.isfinite(metrics[name]) & updated)
            if wrong.size and at - length + 1 + wrong[0] <= step:
                step = at - length + 1 + int(wrong[0])
                sign = f" ({name} is {float(metrics[name][wrong[0]])})"
        told = {"step": step, "first": leaf, "leaves": bad}
        atomic.save_text(json.dumps(told, indent=1) + "\n", self.workdir / DIVERGED)
        with contextlib.suppress(MachineError):
            self.wait()
        kept = checkpoint.steps(self.folder)
        last = f"the last finite checkpoint is of step {kept[-1]}" if kept else "no checkpoint yet"
        where = f"from its weights with --init-from {self.workdir}"
        where = where if kept else f"after deleting {self.workdir}, or in another --workdir"
        return DivergedError(
            f"training diverged at step {step}{sign}: NaN or Inf in {leaf} and others, "
            f"{len(bad)} arrays, all in {self.workdir / DIVERGED}; {last}. It would diverge there "
            "again: start a run with lower rates (--optimizers.g.learning-rate, "
            f"--optimizers.d.learning-rate), {where}"
        )

    def close(self, failed: bool = False) -> None:
        """Waits for the last save and closes the files.

        Args:
          failed: there is an error to tell already; that of the save is not raised.
        """
        try:
            with contextlib.suppress(*(Exception,) * failed):
                self.wait()
        finally:
            self.thread.shutdown()
            self.metrics.close()
            self.progress.close()
            self.evaluator.close()
            if not failed:
                # Here and in `anigan report` alone: the whole log is read for them.
                lines = metrics_file.read_metrics(self.workdir / "metrics.jsonl")
                curves(lines, self.workdir / "curves")


def names_of(state: TrainState) -> list[str]:
    """Path of each leaf, in the order of `first_nonfinite`."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [jax.tree_util.keystr(path) for path, _ in leaves]


def not_finite(state: TrainState) -> dict[str, int]:
    """Path of each leaf with NaN or Inf -> how many."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        leaf = np.asarray(leaf)
        count = leaf.size - int(np.isfinite(leaf).sum())
        if count:
            found[jax.tree_util.keystr(path)] = count
    return found


fingerprint_of = jax.jit(states.fingerprint)


def previewer(program: Program, pack: Pack) -> Callable[[TrainState], dict]:
    """A compiled function of the state: previews of fixed latents, or of fixed rows of the data.

    The rows are of held-out images, or of others where there are none.
    """
    method, constants = program.method, program.constants
    key = rng.stream_key(rng.root_key(program.config.seed), rng.Stream.PREVIEW)
    keys = rng.example_keys(key, np.arange(PREVIEWS))
    shown: PyTree = {}
    if method.translate:
        data = rows(program.config, pack, "test" if held_out(pack) else "train")
        shown = jax.tree.map(lambda values: np.asarray(values[:PREVIEWS]), data)
    compiled = jax.jit(method.preview)

    def draw(state: TrainState) -> dict:
        return {n: np.asarray(x) for n, x in compiled(state, constants, keys, shown).items()}

    return draw


def size_of(like: PyTree) -> int:
    """Bytes of a checkpoint."""
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(like))


def check_space(config: Config, workdir: Path, shapes: TrainState) -> None:
    """Refuses a run, its config resolved, whose checkpoints do not fit on the disk.

    Raises:
      UserError: there is less.
    """
    run, one, due = config.run, size_of(shapes), intervals.of(config.run)
    newest = itertools.islice(due.checkpoint.up_to(run.steps), run.keep_checkpoints - 1)
    kept = sum(1 for _ in due.keep.up_to(run.steps))
    # The newest with that of the end, the best, one in the making; and the exported networks,
    # old and new.
    most = len(list(newest)) + 3 + kept
    folder = workdir / "checkpoints"
    # Those that another start wanted kept stay beside these.
    strays = [at for at in checkpoint.steps(folder) if not due.keep.due(at)]
    stay = sum(manifest.is_kept(manifest.path_of(folder, at)) for at in strays)
    have = len(checkpoint.steps(folder)) - stay
    exported = shapes.params, shapes.stats, shapes.ema, shapes.ema_stats
    need = max(most - have, 2) * one + size_of(exported) * 2
    free = shutil.disk_usage(workdir).free
    if free < need:
        raise UserError(
            f"{workdir} has {free / 1e6:,.0f} MB free, but this run needs up to "
            f"{need / 1e6:,.0f} MB ({most} checkpoints of {one / 1e6:,.0f} MB); free some, or keep "
            "fewer (run.keep_checkpoints, run.keep_every)"
        )


def seconds_to_stop(dispatch: float, shapes: TrainState, processes: int) -> int:
    """Seconds within which a signal stops a run: what runs, a save under way, the last save."""
    waits = 2 if processes == 1 else 3
    return math.ceil(2 * waits * dispatch + 2 * size_of(shapes) / SLOWEST + 5)
