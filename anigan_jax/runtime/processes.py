"""Several processes as one run: who is who, what they agree on, what process 0 hands out."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from anigan_jax.errors import MachineError, UserError
from anigan_jax.runtime import environment as runtime
from anigan_jax.runtime import watch as watching

# What the libraries that exchange data between processes call themselves in their errors.
EXCHANGE = ("Gloo", "gloo", "NCCL", "oordination", "UNAVAILABLE", "DEADLINE_EXCEEDED")
# Seconds within which all processes must have come.
GATHER = 300


class Place(NamedTuple):
    """Where a process stands; None: JAX finds it out."""

    rank: int | None
    world: int | None
    address: str | None


class Group(NamedTuple):
    """The processes of a run, seen by one of them; `watch` is None where it is alone."""

    rank: int = 0
    world: int = 1
    watch: watching.Watch | None = None

    @property
    def writes(self) -> bool:
        """Whether this process writes into the run folder: the first alone does."""
        return self.rank == 0

    def at(self, step: int, phase: str) -> None:
        """Tells the others where this process is."""
        if self.watch:
            self.watch.at(step, phase)

    def meet(self) -> None:
        """Waits for the others, for as long as none is lost."""
        if self.watch:
            self.watch.meet()

    def failed(self, error: Exception) -> None:
        """After an error that a lost process may have caused: the watch tells, and ends all."""
        if self.watch and of_exchange(error):
            self.watch.verdict()


ALONE = Group()


class DisagreementError(UserError):
    """The processes of a run were started differently; all of them raise it."""

    alike = True


def place(environment: Mapping[str, str], forced: bool = False) -> Place | None:
    """What the environment says of several processes; None: this one is alone.

    Args:
      forced: `--distributed`: JAX's own detection decides where the environment is silent.

    Raises:
      UserError: half of it is said.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    given = [environment.get(name) for name in names]
    if any(given[1:]):
        return _explicit(names, given)
    slurm = environment.get("SLURM_PROCID"), environment.get("SLURM_NTASKS", "1")
    if slurm[0] is not None and "SLURM_STEP_NODELIST" in environment and int(slurm[1]) > 1:
        return Place(int(slurm[0]), int(slurm[1]), given[0])
    names = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    if len(names) > 1:
        return Place(None, len(names), given[0])
    return Place(None, None, given[0]) if forced else None


def is_first(environment: Mapping[str, str]) -> bool:
    """Whether this process is alone, or the first of several, as the environment says."""
    found = place(environment)
    return found is None or found.rank in (None, 0)


def _explicit(names: tuple[str, ...], given: list[str | None]) -> Place:
    missing = [name for name, value in zip(names, given, strict=True) if not value]
    if missing:
        raise UserError(
            f"several processes need {', '.join(names)} in the environment; missing: "
            f"{', '.join(missing)}"
        )
    address, world, rank = given
    if not (world.isdigit() and rank.isdigit() and int(rank) < int(world)):
        raise UserError(
            f"{names[2]} is {rank!r} of {names[1]} {world!r}; it counts from 0 up to one less"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{names[0]} is {address!r}; it must be host:port")
    return Place(int(rank), int(world), address) if int(world) > 1 else Place(0, 1, None)


def join(place: Place | None, silent: float, stuck: float) -> Group:
    """Meets the other processes and starts JAX; it must not have started before.

    Args:
      silent, stuck: seconds, as `watch.Watch` takes them.

    Raises:
      MachineError: they do not come.
    """
    if place is None or place.world == 1:
        runtime.start()
        return ALONE
    import jax

    # It would take SIGTERM for itself; `signals` has it.
    jax.config.update("jax_enable_preemption_service", False)
    who = "this process" if place.rank is None else f"process {place.rank} of {place.world}"
    try:
        jax.distributed.initialize(
            place.address, place.world, place.rank, initialization_timeout=GATHER
        )
    except ValueError as error:
        raise UserError(
            f"JAX finds no other processes from here ({error}); start them by srun, on a TPU, "
            "or with JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID set"
        ) from None
    except RuntimeError as error:
        raise MachineError(f"{who} did not find the others within {GATHER} s: {error}") from None
    try:
        runtime.start()
        rank, world = jax.process_index(), jax.process_count()
        if world == 1:
            return ALONE
        watch = watching.Watch(rank, world, silent, stuck)
        host = place.address.rpartition(":")[0] if place.address else None
        door = _share_json(watch.listen(host) if rank == 0 else None)
        if rank:
            watch.join(door)
    except (RuntimeError, UserError, OSError) as error:
        # A lost process may look like an absent device.
        if of_exchange(error) or isinstance(error, OSError):
            raise MachineError(f"{who} lost the others while they met: {error}") from None
        raise
    return Group(rank, world, watch)


def of_exchange(error: Exception) -> bool:
    """Whether it comes from the talk between processes."""
    return any(word in str(error) for word in EXCHANGE)


def leave(group: Group, error: BaseException | None = None) -> None:
    """Ends a process's part in a run; with an error the others end with it.

    JAX would wait for them, who may wait in a collective for this one.
    """
    import jax

    if not error:
        if group.watch:
            jax.distributed.shutdown()
            group.watch.leave()
        return
    code, message = 1, f"{type(error).__name__}: {error}"
    if isinstance(error, UserError):
        code, message = error.code, str(error)
    elif isinstance(error, SystemExit):
        code, message = error.code, "stopped before the first step"
    elif isinstance(error, KeyboardInterrupt):
        code, message = 130, "stopped"
    else:
        traceback.print_exception(error)
    alike = getattr(error, "alike", False)
    if group.watch:
        group.watch.leave("" if alike else f"process {group.rank}: {message}", code)
    watching.end(group.rank, code, f"error: {message}" if group.writes or not alike else "")


def agree(group: Group, facts: dict) -> None:
    """All processes must hold equal facts (JSON): config, data, versions.

    Raises:
      UserError: on every process, with what differs between whom.
    """
    group.meet()
    told = _gather_json(facts)
    faults = [
        f"{name}: {first} on process 0, {other.get(name)} on process {rank}"
        for rank, other in enumerate(told)
        for name, first in told[0].items()
        if other.get(name) != first
    ]
    if faults:
        raise DisagreementError(
            "the processes were started differently, and would not train one model: "
            + "; ".join(faults[:8])
        )


def share(group: Group, tree: Any, like: Any) -> Any:
    """Process 0's arrays, on every process, bit for bit.

    Args:
      tree: NumPy arrays on process 0; anything elsewhere.
      like: a tree of their shapes and types.
    """
    if group.world == 1:
        return tree
    import jax

    leaves, structure = jax.tree.flatten(like)
    total = sum(leaf.dtype.itemsize * int(np.prod(leaf.shape)) for leaf in leaves)
    # As bytes: a broadcast is a sum with zeros, which would lose the sign of -0.
    block = np.zeros(total, np.uint8)
    if group.writes:
        flat = [np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in jax.tree.leaves(tree)]
        block = np.concatenate(flat) if flat else block
    group.meet()
    block = _broadcast(block)
    found, start = [], 0
    for leaf in leaves:
        size = leaf.dtype.itemsize * int(np.prod(leaf.shape))
        piece = block[start : start + size].tobytes()
        found.append(np.frombuffer(piece, leaf.dtype).reshape(leaf.shape))
        start += size
    return jax.tree.unflatten(structure, found)


def share_arrays(group: Group, arrays: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """Process 0's flat dict of arrays, whose shapes the others do not know."""
    if group.world == 1:
        return arrays
    import jax

    told = {n: [str(x.dtype), list(x.shape)] for n, x in arrays.items()} if arrays else {}
    told = share_json(group, told if group.writes else None)
    like = {n: jax.ShapeDtypeStruct(shape, dtype) for n, (dtype, shape) in told.items()}
    return share(group, arrays, like)


def share_json(group: Group, value):
    """Process 0's JSON value, on every process."""
    if group.world == 1:
        return value
    group.meet()
    return _share_json(value)


def _broadcast(block: np.ndarray) -> np.ndarray:
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.broadcast_one_to_all(block))


def _share_json(value):
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(_broadcast(np.array([len(text)], np.int32))[0])
    block = np.zeros(size, np.uint8)
    block[: len(text)] = text[:size]
    return json.loads(_broadcast(block).tobytes())


def _gather_json(value) -> list:
    from jax.experimental import multihost_utils

    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.array([len(text)], np.int32)))
    block = np.zeros(int(sizes.max()), np.uint8)
    block[: len(text)] = text
    rows = np.asarray(multihost_utils.process_allgather(block))
    return [
        json.loads(row[:size].tobytes())
        for row, size in zip(rows.reshape(len(sizes.ravel()), -1), sizes.ravel(), strict=True)
    ]
