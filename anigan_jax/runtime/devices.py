"""Mapping a step over devices: the only file that uses pmap, shard_map, device_put.

`jax.pmap` is in maintenance mode since JAX 0.8 (it is jit of shard_map now); both are
offered behind one signature and give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from anigan_jax.core import PyTree
from anigan_jax.errors import UserError

AXIS = "batch"


def choose_devices(count: int, batch_size: int) -> list[jax.Device]:
    """The first `count` devices of all processes (0: all); refuses a batch they do not divide."""
    world = jax.process_count()
    # Those of a process stand together: each reads consecutive examples.
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if count > len(devices) or (world > 1 and count not in (0, len(devices))):
        here = f"these {world} processes have" if world > 1 else "this machine has"
        hint = "" if world > 1 else "; --run.platform cpu simulates as many"
        raise UserError(f"run.devices is {count}, but {here} {len(devices)}{hint}")
    devices = devices[: count or len(devices)]
    if batch_size % len(devices):
        fits = [n for n in range(1, len(devices) + 1) if batch_size % n == 0]
        raise UserError(
            f"batch_size {batch_size} is not a multiple of {len(devices)} devices; "
            f"use another batch size, or run.devices of {', '.join(map(str, fits))}"
        )
    return devices


def axis_of(devices: list[jax.Device]) -> str | None:
    """The name that steps reduce over; None on one device.

    There each reduction, dozens in a step, would be a copy of its own on a GPU.
    """
    return AXIS if len(devices) > 1 else None


def local_indices(devices: list[jax.Device]) -> list[int]:
    """Indices, among the devices of all processes, of those of this one."""
    return [i for i, d in enumerate(devices) if d.process_index == jax.process_index()]


def replicate(tree: PyTree, devices: list[jax.Device]) -> PyTree:
    """A copy of a host tree, equal on all processes, on every device."""
    return _put(tree, devices, PartitionSpec())


def split(tree: PyTree, devices: list[jax.Device]) -> PyTree:
    """A host tree whose leaves have an entry for each device of this process, each on its own."""
    return _put(tree, devices, PartitionSpec(AXIS))


def _put(tree: PyTree, devices: list[jax.Device], spec: PartitionSpec) -> PyTree:
    sharding = NamedSharding(Mesh(np.array(devices), (AXIS,)), spec)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
    )


def local(tree: PyTree) -> PyTree:
    """A tree, equal on all devices, that this process can compute with alone."""

    def addressable(leaf):
        return leaf if leaf.is_fully_addressable else leaf.addressable_data(0)

    return jax.tree.map(addressable, tree)


def mapper_of(asked: str, world: int) -> tuple[str, str]:
    """The mapper that `world` processes take where one is asked for, and why it is another.

    The pmap of several processes cannot be compiled before its first call, and processes whose
    compilations take unequal times time out in it.
    """
    if asked != "pmap" or world == 1:
        return asked, ""
    return "shard_map", (
        "shard_map, with the bits of pmap: pmap compiles in its first call, which the other "
        "processes would wait for until they time out"
    )


def map_step(step: Callable, mapper: str, devices: list[jax.Device]) -> Callable:
    """Maps step(state, shared, local) over devices.

    State and shared go in and come out without a device axis and equal everywhere; the
    leaves of `local` have a leading axis of one entry per device. The state is donated.

    Several processes take what `mapper_of` says.
    """
    if mapper_of(mapper, jax.process_count())[0] == "pmap":
        return jax.pmap(
            step,
            axis_name=AXIS,
            in_axes=(None, None, 0),
            out_axes=(None, None),
            donate_argnums=(0,),
            devices=devices,
        )
    mesh = Mesh(np.array(devices), (AXIS,))
    replicated, sharded = PartitionSpec(), PartitionSpec(AXIS)

    def body(state, shared, local):
        return step(state, shared, jax.tree.map(lambda x: x[0], local))

    # With check_vma=True gradients arrive summed, and the step's own mean would make
    # updates as many times too large as there are devices.
    mapped = jax.shard_map(
        body,
        mesh=mesh,
        in_specs=(replicated, replicated, sharded),
        out_specs=replicated,
        check_vma=False,
    )
    return jax.jit(mapped, donate_argnums=(0,))


def assert_replicated(tree: PyTree) -> None:
    """Raises AssertionError naming the first leaf that differs between devices."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        for shard in shards[1:]:
            if shard.tobytes() != shards[0].tobytes():
                name = jax.tree_util.keystr(path)
                raise AssertionError(f"{name} differs between devices")
