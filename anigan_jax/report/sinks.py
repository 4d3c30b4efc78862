"""Other records that a run's can be handed on to; each is an extra, imported where it is used."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from anigan_jax.errors import UserError
from anigan_jax.report import collect, files, tensorboard
from anigan_jax.report.record import Sink

Target = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class Place(NamedTuple):
    """What a record is told of a run.

    Attributes:
      identity: names the run in other records, as long as its folder stays where it is.
      name, project: as they are shown.
      settings: of the run, by their paths.
      folder: where the record keeps its files; None where it does by itself.
      log: what `anigan log` keeps: in the folder, or in the run directory.
    """

    identity: str
    name: str
    project: str
    settings: dict[str, str]
    folder: Path | None
    log: Path


def place_of(target: Target, run: Path, project: str = "", folder: Path | None = None) -> Place:
    """The place of a run; `project` is the config's name where it is ''.

    Raises:
      UserError: the folder is not a run directory.
    """
    about = collect.recorded(run)
    # A run of other settings may be trained where one was deleted.
    which = str(about.get("config_sha256"))
    words = (str(run.resolve()), about["name"], about["data_sha256"])
    former, identity = (_identity(*words, *more) for more in ((), (which,)))
    if not folder and any((run / "log" / target).glob(f"*{former}")):
        # What an earlier version began there goes on.
        identity = former
    settings = collect.flat(about["config"])
    name, log = run.resolve().name, run / "log" / target
    if folder:
        # Other runs may log there, too.
        log = folder / f".{target}-{identity}"
    return Place(identity, name, project or about["name"], settings, folder, log)


def _identity(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def need(target: Target) -> None:
    """Refuses a target whose extra is not installed."""
    module = "tensorboardX" if target == "tensorboard" else target
    # Not imported yet: Trackio reads then where its files go.
    if importlib.util.find_spec(module) is None:
        raise UserError(f"--to {target} needs {module}: pip install 'anigan_jax[{target}]'")


def open_sink(target: Target, place: Place) -> Sink:
    """Opens another record for a run; what it has of it is kept or replaced, never doubled.

    Raises:
      UserError: the target refuses.
    """
    with _refusals(target):
        sink = SINKS[target](place)

    def told(call: Callable) -> Callable:
        def called(*args):
            with _refusals(target, "; the same command continues"):
                return call(*args)

        return called

    return sink._replace(write=told(sink.write), flush=told(sink.flush), close=told(sink.close))


@contextlib.contextmanager
def _refusals(target: Target, then: str = "") -> Iterator[None]:
    """What another record's client raises, as a UserError: each has exceptions of its own."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"--to {target}: {said[0]}{then}") from error


def _tensorboard(place: Place) -> Sink:
    return tensorboard.open_sink(place.folder or place.log, place.identity)


def _wandb(place: Place) -> Sink:
    """Written anew at each start: a run of W&B with the same id replaces the one before."""
    import wandb

    folder = place.folder or Path(os.environ.get("WANDB_DIR", "."))
    mode = os.environ.get("WANDB_MODE", "offline")
    for old in (folder / "wandb").glob(f"offline-run-*-{place.identity}"):
        shutil.rmtree(old)
    folder.mkdir(parents=True, exist_ok=True)
    made = wandb.init(
        project=place.project,
        name=place.name,
        id=place.identity,
        config=place.settings,
        dir=str(folder),
        mode=mode,
        settings=wandb.Settings(console="off", silent=True),
    )
    # Its own counter must grow, and evaluations come after later steps.
    made.define_metric("step")
    made.define_metric("*", step_metric="step")

    def write(step: int, scalars: dict[str, float], pictures: dict[str, Path]) -> None:
        images = {name: wandb.Image(str(path)) for name, path in pictures.items()}
        made.log({"step": step, **scalars, **images})

    where = Path(made.dir).parent
    shown = f"{where}: wandb sync {where}" if mode == "offline" else f"{made.url}"
    return Sink(shown, {}, write, lambda: None, made.finish)


def _mlflow(place: Place) -> Sink:
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    folder = (place.folder or Path()).resolve()
    uri, artifacts = os.environ.get("MLFLOW_TRACKING_URI", ""), None
    if place.folder or not uri:
        # Its own choice since version 3.7; folders of files are no longer taken.
        folder.mkdir(parents=True, exist_ok=True)
        uri, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "mlartifacts").as_uri()
    client = MlflowClient(tracking_uri=uri)
    known = client.get_experiment_by_name(place.project)
    experiment = known and known.experiment_id
    if experiment is None:
        experiment = client.create_experiment(place.project, artifact_location=artifacts)
    found = client.search_runs([experiment], f"tags.anigan = '{place.identity}'")
    if found:
        made = found[0]
    else:
        tags = {"anigan": place.identity}
        made = client.create_run(experiment, tags=tags, run_name=place.name)
        settings = [Param(name, value[:500]) for name, value in place.settings.items()]
        client.log_batch(made.info.run_id, params=settings)
    number = made.info.run_id
    client.update_run(number, status="RUNNING")
    has = {
        name: max(one.step for one in client.get_metric_history(number, name))
        for name in made.data.metrics
    }
    for one in client.list_artifacts(number, "previews"):
        steps = (files.step_of(Path(file.path)) for file in client.list_artifacts(number, one.path))
        has[Path(one.path).name] = max(steps, default=-1)

    def write(step: int, scalars: dict[str, float], pictures: dict[str, Path]) -> None:
        now = int(time.time() * 1000)
        client.log_batch(number, [Metric(name, x, now, step) for name, x in scalars.items()])
        for name, path in pictures.items():
            client.log_artifact(number, str(path), f"previews/{name}")

    def close() -> None:
        client.set_terminated(number)

    shown = f"run {number}: mlflow ui --backend-store-uri {uri}"
    return Sink(shown, has, write, lambda: None, close)


def _trackio(place: Place) -> Sink:
    """Written anew at each start, as for W&B."""
    if place.folder:
        os.environ["TRACKIO_DIR"] = str(place.folder)
    import trackio

    # A run is known by its name alone.
    name = f"{place.name}-{place.identity[:6]}"
    # The project may not be there yet.
    with contextlib.suppress(ValueError):
        for old in trackio.Api().runs(place.project):
            if old.name == name:
                old.delete()
    quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    with contextlib.redirect_stdout(sys.stderr):
        made = trackio.init(place.project, name, config=place.settings, **quiet)

    def write(step: int, scalars: dict[str, float], pictures: dict[str, Path]) -> None:
        images = {name: trackio.Image(path) for name, path in pictures.items()}
        made.log({**scalars, **images}, step=step)

    def close() -> None:
        with contextlib.redirect_stdout(sys.stderr):
            made.finish()

    where = f"TRACKIO_DIR={place.folder} " if place.folder else ""
    shown = f"run {name}: {where}trackio show --project {place.project}"
    return Sink(shown, {}, write, lambda: None, close)


SINKS: dict[str, Callable[[Place], Sink]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": _trackio,
}
