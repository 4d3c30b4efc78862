"""Frozen dataclasses of an experiment, loading, identity; standard library only."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.util
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro

from anigan_jax.data.sources import Source
from anigan_jax.errors import UserError
from anigan_jax.optimizers import Optimizer

Network = Literal["vgg16", "inception", "random"]
"""By which images can be judged; `features` has them."""
ComputeType = Literal["float32", "bfloat16"]
"""What networks multiply in."""


@dataclass(frozen=True)
class MethodSettings:
    """Base of every family's hyper-parameters; `make(axis_name)` gives the Method."""

    def make(self, axis_name: str | None) -> Any:
        raise NotImplementedError

    def networks(self) -> dict[str, tuple[Any, tuple]]:
        """Name -> (Flax module with `blocks`, shapes of its inputs for one image)."""
        raise NotImplementedError

    def inputs(self, pack: Any, part: str = "train") -> dict[str, Any]:
        """Arrays (N, ...) beside the images of a part, in the batch under their names.

        Names that end in '_b' are rows of the second domain.
        """
        return {}

    def frozen(self, pack: Any) -> dict[str, Any]:
        """NumPy arrays, a flat dict, that the state holds and nothing trains."""
        return {}

    @property
    def size(self) -> int:
        raise NotImplementedError

    @property
    def has_generator(self) -> bool:
        return True

    @property
    def next_verbs(self) -> tuple[tuple[str, str], ...]:
        """(what follows `anigan`, what it gives) for a run that has ended."""
        return ()


@dataclass(frozen=True)
class Run:
    """How long and where; none of this changes the numbers of a step."""

    epochs: int = 25
    """Length in epochs of the data (whole batches); `steps` overrides it."""
    steps: int = 0
    """Length in steps; 0: `epochs` decides."""
    steps_per_dispatch: int = 10
    """At most this many steps in one dispatch; rounded down to divide the intervals."""
    log_every: int = 1
    """Steps between lines of metrics.jsonl."""
    sample_every: int = 500
    """Steps between sample grids."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    keep_checkpoints: int = 3
    """Newest checkpoints kept."""
    keep_every: int = 0
    """Checkpoints of steps that it divides are never deleted; 0: all but the newest are."""
    evaluate_every: int = 0
    """Steps between evaluations of what the run makes, a multiple of `checkpoint_every`; 0: none.
    The checkpoint with the best KID is then kept."""
    evaluate_n: int = 2000
    """Images of each evaluation; as many as are held out where those are fewer, so that the
    floor has the same number."""
    judge: Network = "vgg16"
    """Feature network of the evaluations."""
    feed: Literal["resident", "streamed"] = "resident"
    """Data on the device, or sent two batches ahead; the same bits."""
    mapper: Literal["pmap", "shard_map"] = "pmap"
    """How the step is mapped over devices; the same bits. Several processes: always shard_map."""
    platform: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Refuse to start on another platform."""
    devices: int = 0
    """Devices used, of all processes together; 0: all. With platform=cpu they are simulated."""
    heartbeat_timeout: int = 60
    """Seconds without a heartbeat after which a process counts as lost and the others end."""
    stall_timeout: int = 1800
    """Seconds without progress after which all processes end; must exceed the longest
    compilation and evaluation."""


@dataclass(frozen=True)
class Config:
    """One experiment. Everything but `run` is its identity: a resume must match it."""

    name: str
    method: MethodSettings
    data: Source
    batch_size: int = 128
    """Global batch, over all devices."""
    seed: int = 0
    """Root of all randomness."""
    flip: bool = False
    """Mirror each real image with probability 1/2."""
    g: Optimizer = Optimizer()
    """Optimizer of the generator."""
    d: Optimizer = Optimizer()
    """Optimizer of the discriminator."""
    ema_half_life: int = 0
    """Half-life, in real images, of the average of G's weights; 0: none."""
    run: Run = field(default_factory=Run)


def to_dict(value: Any) -> Any:
    """JSON form of settings; a dataclass is tagged with its class name."""
    if dataclasses.is_dataclass(value):
        fields = {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [to_dict(item) for item in value]
    return value


def in_steps(config: Config, images: int) -> Config:
    """The config with its length and rates counted in steps, not in epochs of `images` images."""
    per_epoch = images // config.batch_size

    def player(settings: Optimizer) -> Optimizer:
        if settings.unit == "step":
            return settings
        return dataclasses.replace(
            settings,
            unit="step",
            drops=tuple(epoch * per_epoch for epoch in settings.drops),
            decay_from=settings.decay_from * per_epoch,
            decay_steps=settings.decay_steps * per_epoch,
        )

    steps = config.run.steps or config.run.epochs * per_epoch
    return dataclasses.replace(
        config,
        g=player(config.g),
        d=player(config.d),
        run=dataclasses.replace(config.run, steps=steps),
    )


def identity(config: Config) -> dict[str, Any]:
    """The part of a config that decides the bits of a step, flat: path -> value."""
    flat: dict[str, Any] = {}

    def walk(path: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                walk(f"{path}.{key}" if path else key, item)
        else:
            flat[path] = value

    tree = to_dict(config)
    tree.pop("run")
    walk("", tree)
    return flat


def fingerprint(config: Config) -> str:
    """SHA-256 of the identity."""
    text = json.dumps(identity(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lines 'path: old -> new' of two identities."""
    paths = sorted(old.keys() | new.keys())
    gone = "absent"
    return [
        f"{path}: {old.get(path, gone)} -> {new.get(path, gone)}"
        for path in paths
        if old.get(path, gone) != new.get(path, gone)
    ]


def config_folder() -> Path:
    """The project's own configs, beside the package."""
    return Path(__file__).resolve().parent.parent / "configs"


def find(name: str) -> Path:
    """A config by path or by the name of a file in `configs/`."""
    folder = config_folder()
    for path in (Path(name), folder / name, folder / f"{name}.py"):
        if path.is_file() and path.suffix == ".py":
            return path
    known = sorted(path.stem for path in folder.glob("*.py"))
    near = difflib.get_close_matches(Path(name).stem, known, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(f"no config {name!r}.{hint} There are: {', '.join(known)}")


def load(name: str) -> Config:
    """Executes a config file (trusted code of the user's) and returns its CONFIG."""
    path = find(name)
    spec = importlib.util.spec_from_file_location(f"anigan_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        raise UserError(_fault_of(error, path, vars(module))) from None
    config = getattr(module, "CONFIG", None)
    if not isinstance(config, Config):
        raise UserError(f"{path} defines no CONFIG of type anigan_jax.config.Config")
    return config


def _fault_of(error: Exception, path: Path, names: dict[str, Any]) -> str:
    """What a config file does wrong, in one line: where, what, and the field that was meant."""
    line, text = None, str(error)
    if isinstance(error, SyntaxError) and error.filename == str(path):
        line, text = error.lineno, error.msg
    at = error.__traceback__
    while at:
        if at.tb_frame.f_code.co_filename == str(path):
            line = at.tb_lineno
        at = at.tb_next
    where, hint = f"{path}, line {line}" if line else str(path), ""
    if unknown := re.search(r"unexpected keyword argument '(\w+)'", text):
        classes = [c for c in names.values() if dataclasses.is_dataclass(c)]
        known = sorted({f.name for c in classes for f in dataclasses.fields(c)})
        near = difflib.get_close_matches(unknown[1], known, 1)
        hint = f". Did you mean {near[0]!r}?" if near else ""
    return f"{where}: {type(error).__name__}: {text}{hint}"


def _numbers(path: str, value: Any) -> Iterator[tuple[str, float]]:
    """Path and value of every float of settings in their JSON form."""
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for name, part in parts:
            yield from _numbers(f"{path}.{name}".removeprefix("."), part)


def refuse_repeats(argv: list[str]) -> None:
    """Refuses a flag that is given twice: which one was meant cannot be known."""
    seen: dict[str, str] = {}
    for word in argv:
        flag = word.partition("=")[0]
        if not flag.startswith("--") or flag == "--":
            continue
        # '--a.no-b' and '--a.b', '--a-b' and '--a_b' are the same setting.
        setting = re.sub(r"(--|\.)no-", r"\1", flag.replace("_", "-"))
        if setting in seen:
            also = "" if seen[setting] == flag else f", once as {seen[setting]}"
            raise UserError(f"{flag} is given twice{also}; give it once")
        seen[setting] = flag


def check(config: Config) -> None:
    """Refuses values that no run can have, all named at once."""
    run, faults = config.run, []
    for path, value, low in (
        ("batch_size", config.batch_size, 1),
        ("seed", config.seed, 0),
        ("ema_half_life", config.ema_half_life, 0),
        ("run.steps", run.steps, 0),
        ("run.epochs", run.epochs, 0),
        ("run.devices", run.devices, 0),
        ("run.steps_per_dispatch", run.steps_per_dispatch, 1),
        ("run.log_every", run.log_every, 1),
        ("run.sample_every", run.sample_every, 1),
        ("run.checkpoint_every", run.checkpoint_every, 1),
        ("run.keep_checkpoints", run.keep_checkpoints, 1),
        ("run.keep_every", run.keep_every, 0),
        ("run.evaluate_every", run.evaluate_every, 0),
        ("run.evaluate_n", run.evaluate_n, 2),
        ("run.heartbeat_timeout", run.heartbeat_timeout, 3),
        ("run.stall_timeout", run.stall_timeout, 3),
    ):
        if value < low:
            faults.append(f"{path} is {value}; it must be at least {low}")
    for path, value in _numbers("", to_dict(config)):
        if not math.isfinite(value):
            faults.append(f"{path} is {value}; it must be a finite number")
    for player in ("g", "d"):
        settings = getattr(config, player)
        for name in ("rate", "epsilon"):
            if (value := getattr(settings, name)) <= 0:
                faults.append(f"{player}.{name} is {value}; it must be above 0")
        for name in ("b1", "b2"):
            if not 0 <= (value := getattr(settings, name)) < 1:
                faults.append(f"{player}.{name} is {value}; it must be at least 0 and below 1")
    if run.evaluate_every > 0 and run.evaluate_every % max(run.checkpoint_every, 1):
        faults.append(
            f"run.evaluate_every {run.evaluate_every} is not a multiple of "
            f"run.checkpoint_every {run.checkpoint_every}; checkpoints are judged"
        )
    if run.steps == 0 and run.epochs == 0:
        faults.append("run.steps and run.epochs are both 0; set one")
    if config.ema_half_life and not config.method.has_generator:
        faults.append("ema_half_life averages a generator, and this method has none; set it to 0")
    if config.data.size != config.method.size:
        faults.append(f"data.size is {config.data.size} but the networks make {config.method.size}")
    if config.run.devices and config.batch_size % config.run.devices:
        faults.append(f"batch_size {config.batch_size} is not a multiple of {run.devices} devices")
    if faults:
        raise UserError("; ".join(faults))


def override(config: Config, argv: list[str], prog: str) -> Config:
    """Typed overrides; tyro prints help and errors itself, with exit code 2."""
    return tyro.cli(type(config), args=argv, default=config, prog=prog)
