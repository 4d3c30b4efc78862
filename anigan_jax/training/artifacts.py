"""What a run leaves in its folder while it trains; of several processes the first writes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from anigan_jax import rng
from anigan_jax import state as states
from anigan_jax.config import Config, fingerprint, to_dict
from anigan_jax.core import Method, PyTree, TrainState
from anigan_jax.errors import DivergedError, MachineError, UserError
from anigan_jax.report import curves
from anigan_jax.runtime import devices, progress
from anigan_jax.runtime.signals import Stop
from anigan_jax.storage import atomic, checkpoint, metrics_file, safetensors
from anigan_jax.storage import images as record
from anigan_jax.training import health, online_eval

PREVIEWS = 64
DIVERGED = "diverged.json"
# Bytes a second at which even a slow disk takes a checkpoint, hashed and synced.
SLOWEST = 30e6


class Outputs:
    """The files of a run that goes on from step `at`.

    Checkpoints are written by a thread, from a copy; its error is raised by the next call.
    """

    def __init__(self, config, workdir: Path, draw: Callable, data: dict, judge, state, at, total):
        """Opens the files.

        Args:
          draw: state -> {panel: images}, as `previewer` makes it.
          data: the arrays of the training data, for a picture of real images.
          at, total: steps.
        """
        self.config, self.workdir, self.draw, self.judge = config, workdir, draw, judge
        self.folder = workdir / "checkpoints"
        # Before the first checkpoint a run starts over, its line of step 0 too.
        self.metrics = metrics_file.MetricsFile(workdir / "metrics.jsonl", at or -1, health.WINDOW)
        (workdir / DIVERGED).unlink(missing_ok=True)
        state = devices.local(state)
        if at == 0:
            for name, images in data.items():
                if name.startswith("images"):
                    path = workdir / f"{name.replace('images', 'real')}.png"
                    record.save_image(record.grid(images[:PREVIEWS]), path)
            self.metrics.write({"step": 0, "fingerprint": f"{int(fingerprint_of(state)):08x}"})
        judge.begin(at, state, total)
        self.progress = progress.Progress(total, at)
        self.thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self.pending: concurrent.futures.Future | None = None

    def lines(self, at: int, length: int, new: dict, seconds: float | None) -> None:
        """Writes the metric lines of one dispatch that ended at step `at`.

        Args:
          new: metrics on the host, each of shape (length,), without `train_step.verdicts`.
          seconds: None where they say nothing of the speed.
        """
        line: dict = {}
        for i in range(length):
            step = at - length + 1 + i
            if step % self.config.run.log_every:
                continue
            speed = math.nan if seconds is None else length * self.config.batch_size / seconds
            values = {k: float(v[i]) for k, v in sorted(new.items()) if k != "fingerprint"}
            line = {
                "step": step,
                "images_seen": step * self.config.batch_size,
                **values,
                "images_per_sec": round(speed, 2),
                "fingerprint": f"{int(new['fingerprint'][i]):08x}",
            }
            warnings = health.of_training([*self.metrics.lines, line])
            for message in warnings:
                online_eval.warn(step, message)
            self.metrics.write({**line, "warnings": warnings} if warnings else line)
        self.progress.update(at, line)

    def sample(self, at: int, state: TrainState) -> None:
        """Writes the preview grids of a step."""
        self._still_here()
        for panel, images in self.draw(devices.local(state)).items():
            # Without its parents: a folder that was moved away must not come to life again.
            (self.workdir / panel).mkdir(exist_ok=True)
            path = self.workdir / panel / f"step_{at:09d}.png"
            record.save_image(record.grid(images), path)

    def checkpoint(self, at: int, state: TrainState, stop: Stop) -> None:
        """Judges a state and begins to save it; a signal leaves the evaluation for later."""
        self.wait()
        self.judge.checkpoint(at, devices.local(state), stop)
        # The next step is given the state's memory.
        host = jax.tree.map(np.array, devices.local(state.replace(frozen={})))
        self.pending = self.thread.submit(self._save, at, host)

    def _still_here(self) -> None:
        if not (self.workdir / "run.json").exists():
            raise MachineError(f"{self.workdir} was deleted or moved while this run wrote into it")

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
        self.judge.sync()
        _export(self.config, self.workdir, state)
        checkpoint.save(self.folder, at, state, {"config_sha256": fingerprint(self.config)})
        best, _ = self.judge.best() or (None, None)
        checkpoint.prune(self.folder, run.keep_checkpoints, run.keep_every, best)
        self.judge.saved()
        (self.workdir / "curves").mkdir(exist_ok=True)
        curves.curves(
            metrics_file.read_metrics(self.workdir / "metrics.jsonl"), self.workdir / "curves"
        )

    def check(self) -> None:
        """Raises the error of a save that failed."""
        if self.pending and self.pending.done():
            self.wait()

    def wait(self) -> None:
        """Until the last save has ended; raises its error."""
        pending, self.pending = self.pending, None
        if pending:
            pending.result()

    def diverged(
        self, at: int, length: int, new: dict, state: TrainState, first: int
    ) -> DivergedError:
        """What to tell of NaN or Inf in the state after a dispatch that ended at step `at`.

        Args:
          state: of then, or of one dispatch later.
          first: index of its first bad leaf.
        """
        bad = not_finite(devices.local(state))
        leaf = names_of(state)[first]
        step, sign = at, ""
        for name in sorted(name for name in new if name.startswith("gradient/")):
            # NaN is no fault where a player was not updated.
            updated = new.get(name.replace("gradient", "repeats"), np.ones(length)) > 0
            wrong = np.flatnonzero(~np.isfinite(new[name]) & updated)
            if wrong.size and at - length + 1 + wrong[0] <= step:
                step = at - length + 1 + int(wrong[0])
                sign = f" ({name} is {float(new[name][wrong[0]])})"
        told = {"step": step, "first": leaf, "leaves": bad}
        atomic.save_text(json.dumps(told, indent=1) + "\n", self.workdir / DIVERGED)
        with contextlib.suppress(MachineError):
            self.wait()
        kept = checkpoint.steps(self.folder)
        kept = f"the last finite checkpoint is of step {kept[-1]}" if kept else "no checkpoint yet"
        return DivergedError(
            f"training diverged at step {step}{sign}: NaN or Inf in {leaf} and others, "
            f"{len(bad)} arrays, all in {self.workdir / DIVERGED}; {kept}. It would diverge there "
            "again: start a run with lower rates (--g.rate, --d.rate)"
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
            self.judge.close()


def names_of(state: TrainState) -> list[str]:
    """Path of each leaf, frozen arrays left out, in the order of `first_bad`."""
    leaves = jax.tree_util.tree_leaves_with_path(state.replace(frozen={}))
    return [jax.tree_util.keystr(path) for path, _ in leaves]


def not_finite(state: TrainState) -> dict[str, int]:
    """Path of each leaf with NaN or Inf -> how many."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.replace(frozen={})):
        leaf = np.asarray(leaf)
        count = leaf.size - int(np.isfinite(leaf).sum())
        if count:
            found[jax.tree_util.keystr(path)] = count
    return found


def _export(config: Config, workdir: Path, state: TrainState) -> None:
    """Writes the networks alone, for use outside of this run, as safetensors."""
    trees = {"params": state.params, "stats": state.stats, "ema": state.ema}
    about = {"step": int(state.step), "method": to_dict(config.method)}
    safetensors.write(safetensors.flatten(trees), workdir / safetensors.OF_A_RUN, about)


fingerprint_of = jax.jit(lambda state: states.fingerprint(state.replace(frozen={})))


def previewer(config: Config, method: Method, rows: Callable) -> Callable[[TrainState], dict]:
    """A compiled function of the state that draws fixed latents, or fixed images of the data.

    Args:
      rows: gives the arrays of held-out images, or of others where there are none.
    """
    key = rng.stream_key(rng.root_key(config.seed), rng.Stream.PREVIEW)
    keys = rng.example_keys(key, np.arange(PREVIEWS))
    shown = {}
    if method.translate:
        shown = {name: np.asarray(values[:PREVIEWS]) for name, values in rows().items()}
    compiled = jax.jit(method.preview)
    return lambda state: {n: np.asarray(x) for n, x in compiled(state, keys, shown).items()}


def size_of(like: PyTree) -> int:
    """Bytes of a checkpoint."""
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(like))


def check_space(config: Config, workdir: Path, like: TrainState, total: int) -> None:
    """Refuses a run whose checkpoints do not fit on the disk.

    Raises:
      UserError: there is less.
    """
    run, one = config.run, size_of(like)
    kept = math.lcm(run.keep_every, run.checkpoint_every)
    history = total // kept if kept else 0
    # The newest, the best, one in the making; and the exported networks, old and new.
    most = min(run.keep_checkpoints, total // run.checkpoint_every + 1) + 2 + history
    have = len(checkpoint.steps(workdir / "checkpoints"))
    need = max(most - have, 2) * one + size_of((like.params, like.stats, like.ema)) * 2
    free = shutil.disk_usage(workdir).free
    if free < need:
        raise UserError(
            f"{workdir} has {free / 1e6:,.0f} MB free, and this run needs up to "
            f"{need / 1e6:,.0f} MB ({most} checkpoints of {one / 1e6:,.0f} MB); free some, or keep "
            "fewer (run.keep_checkpoints, run.keep_every)"
        )


def seconds_to_stop(dispatch: float, like: TrainState, processes: int) -> int:
    """Seconds within which a signal stops a run: what runs, a save under way, the last save."""
    waits = 2 if processes == 1 else 3
    return math.ceil(2 * waits * dispatch + 2 * size_of(like) / SLOWEST + 5)
