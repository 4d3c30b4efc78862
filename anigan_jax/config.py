"""Frozen dataclasses of an experiment: settings, checks, identity, JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from anigan_jax import declared, intervals, optimizers
from anigan_jax.data.sources import Source
from anigan_jax.errors import UserError
from anigan_jax.optimizers import Optimizer
from anigan_jax.parent import Parent

Weights = Literal["raw", "ema"]  # Of G: as trained, or averaged.
ComputeType = Literal["float32", "bfloat16"]  # What networks multiply in.
PACKAGE = "anigan_jax"


@dataclass(frozen=True)
class MethodSettings:
    """Base of every family's hyper-parameters; `make(axis_name)` gives the Method."""

    channels = 3
    """Of images: 4 where they are transparent."""
    unread = ()
    """Names of its settings that were given and change nothing."""

    def make(self, axis_name: str | None = None) -> Any:
        """The `core.Method`; `axis_name` is the mapped axis of devices, None on one device."""
        raise NotImplementedError

    def networks(self) -> dict[str, tuple[Any, tuple]]:
        """Name -> (Flax module, shapes of its inputs for one image)."""
        raise NotImplementedError

    def inputs(self, pack: Any, part: str = "train") -> dict[str, dict[str, Any]]:
        """Domain -> name -> array (N, ...), beside the images of domain A of a part."""
        return {}

    def constants(self, pack: Any) -> dict[str, Any]:
        """NumPy arrays, a flat dict, that losses read and nothing trains."""
        return {}

    @property
    def size(self) -> int:
        """Image side in pixels."""
        raise NotImplementedError

    @property
    def has_generator(self) -> bool:
        return True

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is likely to go wrong with these settings, a sentence each."""
        return ()

    @property
    def next_verbs(self) -> tuple[tuple[str, str], ...]:
        """(what follows `anigan`, what it gives) for a run that has ended.

        RUN stands for its folder, PROMPT for words that it knows.
        """
        return ()


@dataclass(frozen=True)
class Run:
    """How long and where; but for `kernels` none of this changes the numbers of a step.

    An `..._every` is a period or a list, in steps or in epochs (whole batches): '500',
    '2 epochs', '1,5,10 epochs', '1,20,40 steps', '1, every 20 steps'. Each is due at the end of
    the run too.
    """

    epochs: int = 25
    """Length in epochs of the data (whole batches); `steps` overrides it, unless this flag alone is
    given."""
    steps: int = 0
    """Length in steps; 0: `epochs` decides."""
    steps_per_dispatch: int = 10
    """At most this many steps in one dispatch; fewer if something is due earlier."""
    log_every: int = 1
    """Steps between lines of metrics.jsonl; the last step is always written."""
    sample_every: int | str = 500
    """When sample grids are written."""
    checkpoint_every: int | str = 500
    """When checkpoints are written."""
    keep_checkpoints: int = 3
    """Newest checkpoints kept."""
    keep_every: int | str = 0
    """When checkpoints that are never deleted are written; 0: only the newest are kept."""
    evaluate_every: int | str = 0
    """When what the run makes is evaluated, and a checkpoint written; 0: never. The best
    checkpoint, of low KID and not collapsed, is then kept."""
    evaluate_n: int = 2000
    """Images of each evaluation; no more than are held out, so that the floor has as many."""
    eval_network: str = "vgg16"
    """Feature network: vgg16, inception, random, one of the config file, or as `eval_second`."""
    eval_second: str = ""
    """A second judge, only shown: another network, or the run directory of a classifier."""
    eval_weights: Weights | None = None
    """G's weights in evaluations; if omitted: averaged if the run averages, as verbs draw."""
    input: Literal["device", "host"] = "device"
    """Data on the device, or sent two batches ahead; the same bits."""
    mapper: Literal["pmap", "shard_map"] = "pmap"
    """How the step is mapped over devices; the same bits. Several processes use shard_map."""
    platform: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Refuse to start on another platform."""
    kernels: Literal["exact", "fastest"] = "exact"
    """'fastest', on GPUs: also library kernels that add in their own order; bits do not repeat.
    The kernels chosen are kept in the run (algorithms.txt), for resuming it."""
    devices: int = 0
    """Devices used, over all processes; 0: all. With platform=cpu they are simulated."""
    heartbeat_timeout: int = 60
    """Seconds without a heartbeat before a process counts as lost and the others end."""
    stall_timeout: int = 1800
    """Seconds without progress before all end; more than compilation or evaluation takes."""


def _adam_for_both() -> dict[str, Optimizer]:
    return {"g": Optimizer(), "d": Optimizer()}


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
    optimizers: dict[str, Optimizer] = field(default_factory=_adam_for_both)
    """One for each player of the method: 'g', 'd', ..."""
    ema_half_life: int = 0
    """Half-life, in real images, of the average of G's weights; 0: none."""
    ema_ramp: float = 0.05
    """That half-life is at most this share of the images seen so far, so that the average soon
    forgets the first weights (Karras et al. 2020, StyleGAN2-ADA: 0.05); 0: no ramp."""
    ema_cosine: int = field(default=0, metadata={"later": True})
    """Real images over which that half-life grows from 0 by half a cosine (R3GAN), in place of the
    ramp; 0: the ramp."""
    parent: Parent = field(default=Parent(), metadata={"later": True})
    """The run that it starts from, where there is one."""
    run: Run = field(default_factory=Run)

    def __hash__(self) -> int:
        return hash(fingerprint(self))


def resolve(config: Config, images: int) -> Config:
    """The config with its length, intervals and schedules in steps, not in epochs of `images`.

    Raises:
      UserError: they are more than can be counted.
    """
    per_epoch = images // config.batch_size
    steps = config.run.steps or config.run.epochs * per_epoch
    players = {
        name: o.in_steps(per_epoch, config.batch_size) for name, o in config.optimizers.items()
    }
    every = {name: getattr(config.run, name) for name in intervals.SETTINGS}
    every = {name: intervals.in_steps(value, per_epoch) for name, value in every.items()}
    run = dataclasses.replace(config.run, steps=steps, **every)
    found = dataclasses.replace(config, optimizers=players, run=run)
    if faults := list(_too_large(found)):
        raise UserError(f"counted in steps ({per_epoch} per epoch), {'; '.join(faults)}")
    return found


def _tree(value: Any, class_name: Callable[[type], str], locations: bool = True) -> Any:
    """JSON form of settings; each dataclass is tagged with its class.

    Args:
      locations: whether fields that only say where something lies are in it.
    """

    def walk(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            fields = dataclasses.fields(value)
            kept = [f for f in fields if locations or not (is_location(f) or _unsaid(f, value))]
            said = {f.name: walk(getattr(value, f.name)) for f in kept}
            return {"class": class_name(type(value)), **said}
        if isinstance(value, Mapping):
            return {name: walk(item) for name, item in value.items()}
        if isinstance(value, tuple | list):
            return [walk(item) for item in value]
        return value

    return walk(value)


def _unsaid(field: dataclasses.Field, value: Any) -> bool:
    """Whether a setting that earlier runs have not is at its default, which is what they did."""
    return bool(field.metadata.get("later")) and getattr(value, field.name) == field.default


def is_location(field: dataclasses.Field) -> bool:
    """Whether a field says where something lies: what lies there is known by its hash."""
    return bool(field.metadata.get("location"))


def to_json(value: Any, files: Mapping[str, str] = types.MappingProxyType({})) -> Any:
    """JSON form of settings that `from_json` reads back.

    Args:
      files: module name -> the file of the run's own code that holds it.
    """

    def name(cls: type) -> str:
        return f"{files.get(cls.__module__, cls.__module__)}:{cls.__qualname__}"

    return _tree(value, name)


def from_json(tree: Any, own: Callable[[str], Any] | None = None) -> Any:
    """Settings from their JSON form.

    Only classes of this package are looked up; `own` gives a module of the run's own code by
    the name of its file, which executes it.

    Raises:
      UserError: a class is unknown, its settings are others, or it is not of this package and
        `own` is None.
    """
    if isinstance(tree, list):
        return tuple(from_json(item, own) for item in tree)
    if not isinstance(tree, dict):
        return tree
    fields = {name: from_json(item, own) for name, item in tree.items() if name != "class"}
    if "class" not in tree:
        return fields
    module, _, name = str(tree["class"]).partition(":")
    try:
        if module.split(".")[0] == PACKAGE:
            source: Any = importlib.import_module(module)
        elif own is not None:
            source = own(module)
        else:
            raise UserError(
                f"the settings name {name!r} of {module}, which is not part of {PACKAGE}"
            )
        found = source
        for part in name.split("."):
            found = getattr(found, part)
        if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
            raise TypeError(f"{name} is not a settings class")
        # A name may lead through what a module has imported, to classes of anybody.
        if found.__module__ != source.__name__:
            raise TypeError(f"{name} is defined elsewhere, in {found.__module__}")
        return found(**fields)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"the settings of {module}:{name} cannot be read: {error}") from None


def identity(config: Config) -> dict[str, Any]:
    """The part of a config that decides the bits of a step, flat: path -> value.

    Where data and weights lie is not in it: what lies there is compared by its SHA-256.
    """
    flat: dict[str, Any] = {}

    def walk(path: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                walk(f"{path}.{key}" if path else key, item)
        else:
            flat[path] = value

    tree = _tree(config, lambda cls: cls.__name__, locations=False)
    tree.pop("run")
    walk("", tree)
    return flat


def fingerprint(config: Config) -> str:
    """SHA-256 of the identity."""
    text = json.dumps(identity(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lines 'path: old -> new' of two identities."""
    both = ((p, *(d.get(p, "absent") for d in (old, new))) for p in sorted(old.keys() | new.keys()))
    return [f"{path}: {before} -> {after}" for path, before, after in both if before != after]


def _numbers(path: str, value: Any) -> Iterator[tuple[str, int | float]]:
    """Path and value of every number of settings in their JSON form."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value
    elif isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for name, part in parts:
            yield from _numbers(f"{path}.{name}".removeprefix("."), part)


def _too_large(config: Config) -> Iterator[str]:
    """Faults of integers that a step computes with, which are of 32 bits there."""
    tree = to_json(config)
    # How long a run is, is one; no step knows anything else of these.
    tree["run"] = {"steps": config.run.steps, "epochs": config.run.epochs}
    del tree["data"]
    for path, number in _numbers("", tree):
        end = 32 if path == "seed" else 31
        if isinstance(number, int) and abs(number) >= 2**end:
            yield f"{path} is {number}; it must be below 2**{end}"


def _out_of_range(path: str, settings: Any) -> Iterator[str]:
    """Faults of numbers that mean the same in every network."""
    least = {"base_channels": 1, "z_dim": 1, "self_modulation": 0}
    for f in dataclasses.fields(settings):
        value, name = getattr(settings, f.name), f"{path}.{f.name}"
        if dataclasses.is_dataclass(value):
            yield from _out_of_range(name, value)
        elif f.name in least and value < least[f.name]:
            yield f"{name} is {value}; it must be at least {least[f.name]}"
        elif f.name == "dropout" and not 0 <= value < 1:
            yield f"{name} is {value}; it must be at least 0 and below 1"


def check(config: Config) -> None:
    """Refuses values that no run can have, all named at once.

    Raises:
      UserError: with every fault.
    """
    faults = list(declared.type_faults("", config))
    if faults:  # What follows compares numbers.
        raise UserError("; ".join(faults))
    try:
        json.dumps(to_json(config))
    except TypeError as error:
        raise UserError(f"settings are kept as JSON, and one of them cannot be: {error}") from None
    run = config.run
    for path, value, low in (
        ("batch_size", config.batch_size, 1),
        ("seed", config.seed, 0),
        ("ema_half_life", config.ema_half_life, 0),
        ("ema_ramp", config.ema_ramp, 0),
        ("ema_cosine", config.ema_cosine, 0),
        ("run.steps", run.steps, 0),
        ("run.epochs", run.epochs, 0),
        ("run.devices", run.devices, 0),
        ("run.steps_per_dispatch", run.steps_per_dispatch, 1),
        ("run.log_every", run.log_every, 1),
        ("run.keep_checkpoints", run.keep_checkpoints, 1),
        ("run.evaluate_n", run.evaluate_n, 2),
        ("run.heartbeat_timeout", run.heartbeat_timeout, 3),
        ("run.stall_timeout", run.stall_timeout, 3),
    ):
        if value < low:
            faults.append(f"{path} is {value}; it must be at least {low}")
    faults += _too_large(config)
    faults += _out_of_range("method", config.method)
    for name in intervals.SETTINGS:
        value = getattr(run, name)
        if told := intervals.fault(value, int(name in ("sample_every", "checkpoint_every"))):
            faults.append(f"run.{name} is {value}; {told}")
    for path, number in _numbers("", to_json(config)):
        if isinstance(number, float) and not math.isfinite(number):
            faults.append(f"{path} is {number}; it must be a finite number")
    for player, settings in config.optimizers.items():
        faults += [f"optimizers.{player}.{fault}" for fault in settings.faults()]
    faults += config.parent.faults(config.method)
    if run.steps == 0 and run.epochs == 0:
        faults.append("run.steps and run.epochs are both 0; set one")
    if config.ema_half_life and not config.method.has_generator:
        faults.append("ema_half_life averages a generator, and this method has none; set it to 0")
    if run.eval_weights == "ema" and not config.ema_half_life:
        faults.append("run.eval_weights is 'ema' but nothing is averaged; set ema_half_life")
    if config.data.size != config.method.size:
        faults.append(
            f"data.size is {config.data.size} but the networks make {config.method.size}; "
            f"--size {config.data.size} sets both"
        )
    if config.data.channels != config.method.channels:
        faults.append(
            f"data have {config.data.channels} channels, networks {config.method.channels}; only "
            "GANs from noise or words take data.transparency keep, with channels=4 in both "
            "networks (the flag --data.transparency keep sets these too)"
        )
    if config.run.devices and config.batch_size % config.run.devices:
        faults.append(f"batch_size {config.batch_size} is not a multiple of {run.devices} devices")
    faults = faults or optimizers.absent(config.method.make().players, config.optimizers)
    if faults:
        raise UserError("; ".join(faults))
