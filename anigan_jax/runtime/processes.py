"""Several processes as one run: their ranks, barriers, checks of equality, broadcasts."""

from __future__ import annotations

import contextlib
import json
import threading
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from anigan_jax.errors import MachineError, UserError
from anigan_jax.runtime import environment
from anigan_jax.runtime.heartbeat import Heartbeat, end

# Words in the errors of the libraries that exchange data between processes.
EXCHANGE = ("Gloo", "gloo", "NCCL", "oordination", "UNAVAILABLE", "DEADLINE_EXCEEDED")
# Of process 0, where an engine gives its host alone.
PORT = 8476
# Seconds within which all processes must have connected.
INITIALIZATION_TIMEOUT = 300


class ProcessSpec(NamedTuple):
    """A process's rank, the number of processes, and process 0's address; None: JAX detects it."""

    rank: int | None
    world: int | None
    address: str | None


class Variables(NamedTuple):
    """Where an engine tells a process its place: process 0 (or a list of hosts, of which it has
    the first), how many processes there are, which this is."""

    where: str
    world: str
    rank: str


OWN = Variables("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
SLURM = Variables("SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID")
# The step in which `salloc` has its shell on many clusters.
INTERACTIVE = "4294967290"
SKYPILOT = Variables("SKYPILOT_NODE_IPS", "SKYPILOT_NUM_NODES", "SKYPILOT_NODE_RANK")
# What starts the processes of a run, by its file in launch/.
ENGINES = {
    "local_multiprocess.sh": OWN,
    "slurm.sbatch": SLURM,
    "kubernetes_jobset.yaml": OWN,
    "kubeflow_trainjob.yaml": OWN,
    "ray_train.py": OWN,
    "skypilot.yaml": SKYPILOT,
}


class ProcessGroup(NamedTuple):
    """The processes of a run, seen by one of them; one that is alone has no heartbeat."""

    rank: int = 0
    world: int = 1
    heartbeat: Heartbeat | None = None

    @property
    def is_primary(self) -> bool:
        """Whether this is process 0, which alone writes the run directory."""
        return self.rank == 0

    def at(self, step: int, phase: str) -> None:
        """Reports where this process is; a phase that begins is progress."""
        if self.heartbeat:
            self.heartbeat.at(step, phase)

    def barrier(self) -> None:
        """Waits for the others, for as long as none is lost."""
        if self.heartbeat:
            self.heartbeat.barrier()

    def failed(self, error: Exception) -> None:
        """After an error that a lost process may have caused: names that process and ends all."""
        if self.heartbeat and is_exchange_error(error):
            self.heartbeat.diagnose()


BUSY = 60
"""Seconds between two signs of progress of what has no steps."""
ALONE = ProcessGroup()


class DisagreementError(UserError):
    """The processes of a run were started differently; all of them raise it."""

    alike = True


def detect(environ: Mapping[str, str], forced: bool = False) -> ProcessSpec | None:
    """What the environment says about several processes; None: there is only this one.

    Args:
      forced: `--distributed`: where the environment says nothing, JAX detects it.

    Raises:
      UserError: the variables are incomplete or contradict one another.
    """

    def given(names: Variables) -> list[str]:
        return [environ.get(name, "") for name in names]

    address, *place = given(OWN)
    if any(place):
        return _explicit(OWN, [address, *place])
    nodes, world, rank = given(SLURM)
    shell = environ.get("SLURM_STEP_ID") == INTERACTIVE
    if rank and nodes and int(world or 1) > 1 and not shell:
        return ProcessSpec(int(rank), int(world), address or None)
    workers = environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    if environ.get("MEGASCALE_NUM_SLICES", "1") != "1":
        # The names are those of one slice alone; JAX counts all.
        return ProcessSpec(None, None, address or None)
    if len(workers) > 1:
        return ProcessSpec(None, len(workers), address or None)
    nodes, world, rank = given(SKYPILOT)
    if nodes and world and rank:
        return _explicit(SKYPILOT, [f"{nodes.split()[0]}:{PORT}", world, rank])
    return ProcessSpec(None, None, address or None) if forced else None


def is_first(environment: Mapping[str, str], forced: bool = False) -> bool:
    """Whether this process is alone, or the first of several; JAX knows what nobody says.

    Args:
      forced: as `detect` takes it.
    """
    found = detect(environment, forced)
    if found is None:
        return True
    import jax

    return (jax.process_index() if found.rank is None else found.rank) == 0


def _explicit(names: Variables, given: list[str]) -> ProcessSpec:
    missing = [name for name, value in zip(names, given, strict=True) if not value]
    if missing:
        raise UserError(
            f"several processes need {', '.join(names)} in the environment; missing: "
            f"{', '.join(missing)}"
        )
    address, world, rank = given
    if not (world.isdigit() and rank.isdigit() and int(rank) < int(world)):
        raise UserError(
            f"{names[2]} is {rank!r}; it must be 0 or more and below {names[1]}, {world!r}"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{names[0]} is {address!r}; it must be host:port")
    alone = int(world) == 1
    return ProcessSpec(0, 1, None) if alone else ProcessSpec(int(rank), int(world), address)


def initialize(
    spec: ProcessSpec | None, heartbeat_timeout: float, stall_timeout: float
) -> ProcessGroup:
    """Connects the processes and starts JAX, which must not have been started before.

    Args:
      heartbeat_timeout, stall_timeout: seconds, as `Heartbeat` takes them.

    Raises:
      UserError: JAX does not detect them. MachineError: they cannot be reached.
    """
    if spec is None or spec.world == 1:
        environment.start()
        return ALONE
    import jax

    # It would take SIGTERM for itself; `signals` has it.
    jax.config.update("jax_enable_preemption_service", False)
    who = "this process" if spec.rank is None else f"process {spec.rank} of {spec.world}"
    try:
        jax.distributed.initialize(
            spec.address,
            spec.world,
            spec.rank,
            initialization_timeout=INITIALIZATION_TIMEOUT,
            # Behind ours, which names the lost process; JAX counts it lost after half of that.
            heartbeat_timeout_seconds=int(3 * heartbeat_timeout + 10),
        )
    except ValueError as error:
        raise UserError(
            f"JAX did not detect any other processes ({error}); start them with srun or on a TPU, "
            "or with JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID set"
        ) from None
    except RuntimeError as error:
        raise MachineError(
            f"{who} could not connect to the others within {INITIALIZATION_TIMEOUT} s: {error}"
        ) from None
    try:
        environment.start()
        rank, world = jax.process_index(), jax.process_count()
        if world == 1:
            return ALONE
        if jax.default_backend() == "cpu":
            environment.compile_anew()
        heartbeat = Heartbeat(rank, world, heartbeat_timeout, stall_timeout)
        host = spec.address.rpartition(":")[0].strip("[]") if spec.address else None
        server = _broadcast_json(heartbeat.serve(host) if rank == 0 else None)
        if rank:
            heartbeat.join(server)
    except (RuntimeError, UserError, OSError) as error:
        # A lost process may look like an absent device.
        if is_exchange_error(error) or isinstance(error, OSError):
            raise MachineError(f"{who} lost the others while connecting: {error}") from None
        raise
    return ProcessGroup(rank, world, heartbeat)


def is_exchange_error(error: Exception) -> bool:
    """Whether an error comes from the exchange of data between processes."""
    return any(word in str(error) for word in EXCHANGE)


@contextlib.contextmanager
def busy(group: ProcessGroup, phase: str) -> Iterator[None]:
    """Tells the others of work that has no steps of its own and may take long."""
    over = threading.Event()

    def tell() -> None:
        while not over.wait(BUSY):
            group.at(0, phase)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def shutdown(group: ProcessGroup, error: BaseException | None = None) -> None:
    """Ends a process's part in a run; after an error the others end too.

    JAX would wait for them, while they may wait for this one in a collective.
    """
    import jax

    if not error:
        if group.heartbeat:
            jax.distributed.shutdown()
            group.heartbeat.leave()
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
    if group.heartbeat:
        group.heartbeat.leave("" if alike else f"process {group.rank}: {message}", code)
    end(group.rank, code, f"error: {message}" if group.is_primary or not alike else "")


def assert_equal(group: ProcessGroup, facts: dict) -> None:
    """Checks that all processes hold equal facts (JSON): config, data, versions.

    Raises:
      UserError: on every process, with what differs between which ones.
    """
    group.barrier()
    gathered = _allgather_json(facts)
    faults = [
        f"{name}: {first} on process 0, {other.get(name)} on process {rank}"
        for rank, other in enumerate(gathered)
        for name, first in gathered[0].items()
        if other.get(name) != first
    ]
    if faults:
        raise DisagreementError(
            "the processes were started differently and would not train the same model: "
            + "; ".join(faults[:8])
        )


def broadcast(group: ProcessGroup, tree: Any, like: Any) -> Any:
    """Process 0's arrays, on every process, bit for bit.

    Args:
      tree: NumPy arrays on process 0; ignored elsewhere.
      like: a tree of their shapes and types.
    """
    if group.world == 1:
        return tree
    import jax

    leaves, structure = jax.tree.flatten(like)
    total = sum(leaf.dtype.itemsize * int(np.prod(leaf.shape)) for leaf in leaves)
    # As bytes: a broadcast is a sum with zeros, which would lose the sign of -0.
    block = np.zeros(total, np.uint8)
    if group.is_primary:
        flat = [np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in jax.tree.leaves(tree)]
        block = np.concatenate(flat) if flat else block
    group.barrier()
    block = _broadcast(block)
    arrays, start = [], 0
    for leaf in leaves:
        size = leaf.dtype.itemsize * int(np.prod(leaf.shape))
        piece = block[start : start + size].tobytes()
        arrays.append(np.frombuffer(piece, leaf.dtype).reshape(leaf.shape))
        start += size
    return jax.tree.unflatten(structure, arrays)


def broadcast_arrays(
    group: ProcessGroup, arrays: dict[str, np.ndarray] | None
) -> dict[str, np.ndarray]:
    """Process 0's flat dict of arrays, whose shapes the others do not know."""
    if group.world == 1:
        return arrays
    import jax

    specs = {n: [str(x.dtype), list(x.shape)] for n, x in arrays.items()} if arrays else {}
    specs = broadcast_json(group, specs)
    like = {n: jax.ShapeDtypeStruct(shape, dtype) for n, (dtype, shape) in specs.items()}
    return broadcast(group, arrays, like)


def broadcast_json(group: ProcessGroup, value):
    """Process 0's JSON value, on every process."""
    if group.world == 1:
        return value
    group.barrier()
    return _broadcast_json(value)


def _broadcast(block: np.ndarray) -> np.ndarray:
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.broadcast_one_to_all(block))


def _broadcast_json(value):
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(_broadcast(np.array([len(text)], np.int32))[0])
    block = np.zeros(size, np.uint8)
    block[: len(text)] = text[:size]
    return json.loads(_broadcast(block).tobytes())


def _allgather_json(value) -> list:
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
