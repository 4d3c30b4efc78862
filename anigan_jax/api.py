"""The library: open a trained run, train one.

import anigan_jax

run = anigan_jax.load("runs/faces")          # needs no training data
images = run.generate(64, seed=0)            # (64, H, W, 3) uint8
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from anigan_jax import config as configs
from anigan_jax import config_file, shipped
from anigan_jax.config import Config
from anigan_jax.core import TrainState
from anigan_jax.data import dataset, scratch
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import DivergedError, MachineError, UserError
from anigan_jax.runtime import environment, processes, signals
from anigan_jax.sampling import grids
from anigan_jax.storage import manifest, run_dir, safetensors
from anigan_jax.trained import Trained, model_at


def load(
    path: str | Path,
    checkpoint: str | int | None = None,
    *,
    weights: str | None = None,
    trust: bool = False,
    config: Config | None = None,
) -> Trained:
    """Opens a trained run; its training data are not needed and not looked at.

    Args:
      path: a run directory; a file of weights (weights.safetensors), or a folder with one; or a
        model that comes along, such as 'painted/words'.
      checkpoint: 'best' (by KID, where the run was evaluated), 'latest' or a step; None: the
        exported weights, which are those of the newest checkpoint. Without a run directory 'latest'
        is the same.
      weights: of the generator: 'raw' as trained, 'ema' averaged; None: averaged where the run
        averages.
      trust: runs the run's own code, where its config defines classes of its own. Everything
        else in a run directory is data: settings in JSON, arrays in safetensors.
      config: the settings that it was trained with, where its classes cannot be read back: those
        typed into a notebook, or of packages of your own.

    Raises:
      UserError: there is no such run or checkpoint, it is damaged, it averages no weights, or it
        needs `trust`.
    """
    path = environment.expanded(path)
    found = _load(path, checkpoint, trust, config)._replace(weights=weights)
    # Refused here, not at the first picture.
    _ = found.model
    return found


def load_config(name: str, *flags: str) -> Config:
    """A config by path or name, with settings as the command line has them.

    load_config("anime_faces", "--data.path", "FACES.zip", "--size", "96")

    Raises:
      UserError: there is no such config, or a flag is unknown or has no such value.
    """
    words = [*map(str, flags)]
    for word in words:
        flag, blank, value = word.partition(" ")
        if blank and flag.startswith("--") and "=" not in flag:
            raise UserError(f"{word!r} is two words; pass them separately: {flag!r}, {value!r}")
    # Its help is that of the command line.
    config = config_file.override(config_file.load(name), words, f"anigan train {name}")
    configs.check(config)
    return config


def _load(
    path: Path, checkpoint: str | int | None, trust: bool, given: Config | None = None
) -> Trained:
    environment.prepare()
    path = run_dir.found(path)
    if not path.exists():
        raise UserError(f"{path} does not exist{shipped.hint(path)}")
    file = path / safetensors.WEIGHTS if path.is_dir() else path
    recorded = run_dir.read_run(path) if (path / run_dir.RUN).exists() else {}
    # Weights alone are as the newest checkpoint was.
    weights = file.exists() and file.suffix == safetensors.SUFFIX and checkpoint == "latest"
    if not recorded and checkpoint is not None and not weights:
        why = manifest.hint(path) or "; it has no checkpoints"
        raise UserError(f"{path} is not a run directory (no {run_dir.RUN}){why}")
    if checkpoint == "latest" and weights and not any((path / "checkpoints").glob("step_*")):
        # A run that was handed on without them: its weights are those of the newest.
        checkpoint = None
    if recorded and (checkpoint is not None or not file.exists()):
        config = given or run_dir.config_of(path, recorded, trust)
        if given and configs.fingerprint(given) != recorded["config_sha256"]:
            raise UserError(f"config differs from the one {path} was trained with")
        return Trained(path, config, model_at(path, config, recorded, checkpoint), recorded)
    if not file.exists():
        raise UserError(
            f"{path} is not a run directory (no {run_dir.RUN}, no {safetensors.WEIGHTS})"
            f"{manifest.hint(path)}"
        )
    about = safetensors.metadata(file)
    config = given or run_dir.config_of_weights(file, recorded, trust)
    environment.start()
    trees = safetensors.unflatten(
        safetensors.widened(safetensors.read(file)), about.get("empty", ())
    )
    state = TrainState(
        step=jnp.int32(about.get("step", 0)),
        key=jnp.zeros(2, jnp.uint32),
        params=trees.get("params", {}),
        stats=trees.get("stats", {}),
        opt_state={},
        ema=trees.get("ema", {}),
        ema_stats=trees.get("ema_stats", {}),
        extra_state={},
    )
    constants = safetensors.flatten(trees.get("constants", {}))
    model = grids.model_of(config.method.make(), state, constants)
    model = model._replace(alone=_alone(about, config, state))
    notes = {name: str(about[name]) for name in ("data_license", "data_sha256") if name in about}
    return Trained(path, config, model, recorded, notes=notes)


def _alone(about: dict, config: Config, state: TrainState) -> str:
    """Which weights of G a file holds, where it has no average beside them: 'raw', 'ema', or
    'drawn', of files of before, which did not say it: those that its run drew with, it is assumed.
    """
    if "weights" in about:
        return "ema" if about["weights"] == "ema" else "raw"
    return "drawn" if config.ema_half_life and "d" not in state.params else "raw"


def data_of(config: Config, report: Any = None) -> Pack:
    """The packed data of a config, made where it is not there yet."""
    return dataset.build(config.data, scratch.default_cache(), report=report)


def train(
    config: Config,
    workdir: str | Path,
    *,
    init_from: str | Path = "",
    command: tuple[str, ...] = (),
    distributed: bool = False,
    stop: signals.Stop | None = None,
) -> Trained | None:
    """Trains a run to its end in this process, or resumes it where `workdir` holds one.

    A run that has as many steps as the config asks for, or more, is given back as it is.

    Args:
      workdir: the run directory.
      init_from: 'RUN', 'RUN@STEP', 'RUN@best': the run that a new one starts from; what it takes
        of it is `config.parent`.
      command: the words that started it, for the record.
      distributed: one of several processes, which JAX finds by itself; those of SLURM and of the
        launchers are found anyway.
      stop: `stop.ask()` in another thread saves and ends it, for a training that runs in a thread
        itself, where no interrupt arrives; what it has become by then is given back.

    Returns:
      The trained run; None in all but the first of several processes, whose disk has it.

    Raises:
      UserError: it is refused and nothing was begun; DivergedError: it made NaN;
        MachineError: disk, memory or the machine failed it, and it can be resumed.
      KeyboardInterrupt: it was interrupted; a checkpoint is written, the same call resumes.
    """
    if not isinstance(config, Config):
        raise UserError(
            f"config is {config!r}; it must be a Config: one of your own, or "
            "anigan_jax.load_config('quickstart')"
        )
    workdir = environment.expanded(workdir)
    if init_from:
        parent = dataclasses.replace(config.parent, run=str(init_from))
        config = dataclasses.replace(config, parent=parent)
    stop = stop or signals.Stop()
    try:
        with signals.caught(stop):
            code = start(config, workdir, command, stop, distributed)
    except SystemExit:
        if not stop.number:
            raise
        raise KeyboardInterrupt(f"stopped by signal {stop.number} before the first step") from None
    if code and not stop.asked:
        raise KeyboardInterrupt(f"stopped by signal {code - 128}; the same call resumes")
    if not processes.is_first(os.environ, distributed):
        return None
    # Not `load`: a class that was typed into a notebook has no file to open it from.
    recorded = run_dir.read_run(workdir)
    return Trained(workdir, config, model_at(workdir, config, recorded, "latest"), recorded)


def start(
    config: Config,
    workdir: Path,
    command: tuple[str, ...] = (),
    stop: signals.Stop | None = None,
    distributed: bool = False,
) -> int:
    """What `train` and `anigan train` do: checks, data, backend, loop; gives the exit code.

    Args:
      stop: what signals say.
      distributed: one of several processes, found by JAX.
    """
    configs.check(config)
    with opened(config, workdir, distributed) as (pack, group):
        # Here: no reader of a run needs the training code.
        from anigan_jax.training import loop

        return loop.train(config, workdir, pack, command, stop, group)


@contextlib.contextmanager
def opened(
    config: Config, workdir: Path | None, distributed: bool = False, report: Any = None
) -> Iterator[tuple[Pack, processes.ProcessGroup]]:
    """The packed data, and the processes that train on it together; JAX is started.

    An error of one process ends the others too.

    Args:
      workdir: of the run that goes on there; None where none does.
      report: is given the progress of packing, as `dataset.build` takes it.
    """
    place = processes.detect(os.environ, distributed)
    world = (place and place.world) or 1
    if config.run.devices % world:
        raise UserError(f"run.devices {config.run.devices} is not a multiple of {world} processes")
    if place is None or place.world == 1:
        # The data first: a mistake in them is reported before JAX takes its seconds to start.
        pack = verified(config, report)
        prepare(config, workdir)
        environment.start(config.run.platform)
        yield pack, processes.ALONE
        return
    group = processes.ALONE
    try:
        prepare(config, workdir, world)
        group = processes.initialize(place, config.run.heartbeat_timeout, config.run.stall_timeout)
        with processes.busy(group, "data"):
            pack = verified(config, report)
        yield pack, group
    except BaseException as error:
        processes.shutdown(group, error)
        raise
    processes.shutdown(group)


def verified(config: Config, report: Any = None) -> Pack:
    """The pack of a config's data, every byte of it as it was written.

    It is hashed once and then known by the size and time of change of its files.
    """
    pack = data_of(config, report)
    dataset.verify(pack, again=False)
    return pack


def exact(config: Config) -> Config:
    """The config with kernels that keep no file in the run, for what only reads it."""
    return dataclasses.replace(config, run=dataclasses.replace(config.run, kernels="exact"))


def prepare(config: Config, workdir: Path | None, world: int = 1) -> None:
    """Sets the environment that a run, new or resumed, computes in."""
    threads = None
    if workdir:
        refuse_name(workdir)
        if (workdir / run_dir.RUN).exists():
            try:
                threads = run_dir.read_run(workdir)["facts"]["NPROC"]
            except (KeyError, TypeError) as error:
                raise UserError(f"{workdir}/{run_dir.RUN} is damaged: {error!r}") from None
    free = config.run.kernels == "fastest"
    algorithms = workdir / run_dir.ALGORITHMS if workdir and free else None
    if algorithms:
        # XLA writes there with the first thing that it compiles; the lock tells where it cannot.
        with contextlib.suppress(OSError):
            algorithms.parent.mkdir(parents=True, exist_ok=True)
    environment.prepare(config.run.platform, config.run.devices // world, threads, algorithms)


def refuse_name(workdir: Path) -> None:
    """Refuses a folder that cannot be, or that the checkpoints' library cannot name."""
    try:
        str(workdir).encode()
        workdir.exists()
    except UnicodeEncodeError:
        raise UserError(f"--workdir {str(workdir)!a} is not UTF-8; use another name") from None
    except (OSError, ValueError) as error:
        raise UserError(f"--workdir {str(workdir)!a} cannot be used: {error}") from None


__all__ = ["DivergedError", "MachineError", "Trained", "UserError", "load", "load_config", "train"]
