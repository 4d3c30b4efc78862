"""The training step compiled for devices that are described, and need not be there.

XLA's whole pipeline runs and no step does: so one learns whether a step compiles, the memory
that it takes on each device, and every kernel, copy and collective of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from anigan_jax.bench import batches, cases, flops, hlo
from anigan_jax.config import Config, resolve
from anigan_jax.core import PyTree
from anigan_jax.errors import UserError
from anigan_jax.methods.cartoongan import CartoonGAN
from anigan_jax.runtime import backend
from anigan_jax.runtime import devices as parallel
from anigan_jax.state import abstract_state
from anigan_jax.training import input
from anigan_jax.training import step as train_step

IMAGES = 10_000
"""Images on the device where neither the user nor the config says how many there are."""

# Bytes that a program can have on a chip: what libtpu names where one asks for more, or else the
# published size.
TPUS = {"v4": 32 << 30, "v5e": 15.75 * 2**30, "v5p": 95 << 30, "v6e": 32 << 30}
# What XLA asks a GPU, as one of NVIDIA's Hopper answers (SXM): those of a name differ in `differs`.
GPU = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448 threads_per_core_limit: 2048
  core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: {bandwidth} l2_cache_size: {l2} clock_rate_ghz: 1.98
  device_memory_size: {memory} cuda_compute_capability {{ major: 9 minor: 0 }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{name}"
"""
GPUS = {
    "h100": {
        "name": "NVIDIA H100",
        "memory": 85_000_000_000,
        "bandwidth": 3_350_000_000_000,
        "l2": 52_428_800,
    },
    "h200": {
        "name": "NVIDIA H200",
        "memory": 150_000_000_000,
        "bandwidth": 4_800_000_000_000,
        "l2": 62_914_560,
    },
}
# Nothing can be tried out without a GPU, nor can Triton's products be listed without one.
OPTIONS = {
    "cuda": {
        "xla_gpu_autotune_level": 0,
        "xla_gpu_enable_triton_gemm": False,
        "xla_gpu_deterministic_ops": True,
    }
}
# JAX takes three quarters of a GPU's memory, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
SHARE = {"cuda": 0.75}
FORMS = "cpu, cpu:2, h100, h200, h200:8, v5e:2x2, v5p:2x2x1, v6e:2x2"


class Target(NamedTuple):
    """What is compiled for.

    Attributes:
      name: 'v5e:2x2', 'h200', 'cpu:2'.
      platform: 'cpu', 'cuda' or 'tpu'.
      kind, shape: the parts of the name; without a shape '1'.
      memory: bytes of each device; on a CPU a device's share of this machine's.
    """

    name: str
    platform: str
    kind: str
    shape: str
    memory: int

    @property
    def usable(self) -> int:
        """Bytes that a program can have."""
        return int(self.memory * SHARE.get(self.platform, 1))


def target(name: str) -> Target:
    """The target of a name.

    Raises:
      UserError: there is no such target, or its compiler is not installed.
    """
    kind, _, shape = name.lower().partition(":")
    dims = re.fullmatch(r"\d+(x\d+){1,2}" if kind in TPUS else r"[1-9]\d*", shape or "1")
    if not dims or kind not in ("cpu", *GPUS, *TPUS):
        raise UserError(f"--for {name!r} is not a target; use {FORMS}, or another shape")
    if kind == "cpu":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Target(name, "cpu", kind, shape or "1", memory // int(shape or 1))
    if kind in TPUS:
        _need(name, "tpu", "libtpu")
        return Target(name, "tpu", kind, shape, int(TPUS[kind]))
    _need(name, "cuda", "jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")
    return Target(name, "cuda", kind, shape or "1", GPUS[kind]["memory"])


def _need(name: str, extra: str, *modules: str) -> None:
    for module in modules:
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(module):
                return
    raise UserError(
        f"--for {name} needs the compiler of the extra {extra!r}: pip install 'anigan_jax[{extra}]'"
    )


def described(target: Target) -> list[jax.Device]:
    """The devices of a target; those of a CPU are this machine's.

    Raises:
      UserError: there is no such shape, or there are fewer simulated devices.
    """
    if target.platform == "cpu":
        found = jax.devices("cpu")
        if len(found) < int(target.shape):
            raise UserError(f"--for {target.name}: this process has {len(found)} CPU devices")
        return found[: int(target.shape)]
    try:
        if target.platform == "tpu":
            # Else libtpu asks the network which machine this is.
            os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
            os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
            os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
            # No chip is touched, so that several may compile at a time.
            os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")
            return list(topologies.get_topology_desc(target.name, platform="tpu").devices)
        about = GPU.format(**GPUS[target.kind])
        shape = f"1x1x{target.shape}"
        made = topologies.get_topology_desc(
            target.kind, "cuda", target_config=about, topology=shape
        )
        return list(made.devices)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UserError(f"--for {target.name} cannot be described: {sentence(error)}") from None


class Inputs(NamedTuple):
    """What a step is given.

    Attributes:
      config: resolved; its texts and feature weights are stand-ins of the benchmark.
      data, constants: shapes and types.
    """

    config: Config
    data: PyTree
    constants: PyTree


def inputs(config: Config, images: int = 0) -> Inputs:
    """Shapes of all that the step of a config reads.

    Args:
      images: in each domain; 0: as many as the config draws itself, or else `IMAGES`.
    """
    count = images or (config.data.count if config.data.drawn else IMAGES)
    count = max(count, config.batch_size)
    with tempfile.TemporaryDirectory(prefix="anigan_compile_") as folder:
        one = cases.synthetic(dataclasses.replace(config, batch_size=1), Path(folder))
        pack = cases.opened(one)
        data, constants = input.rows(one, pack), one.method.constants(pack)
    method = one.method
    if isinstance(method, CartoonGAN):
        method = dataclasses.replace(method, content_epochs=config.method.content_epochs)
    abstract = jax.ShapeDtypeStruct
    return Inputs(
        resolve(dataclasses.replace(config, method=method), count),
        jax.tree.map(lambda x: abstract((count, *x.shape[1:]), x.dtype), data),
        jax.tree.map(lambda x: abstract(np.shape(x), np.asarray(x).dtype), constants),
    )


def compile_step(given: Inputs, phase: int, target: Target, devices: list[jax.Device]) -> Any:
    """The compiled dispatch of a phase, for described devices."""
    config, axis = given.config, parallel.axis_of(devices)
    method, length = config.method.make(axis), config.run.steps_per_dispatch
    mesh = Mesh(np.array(devices), (parallel.AXIS,))

    def on(tree: PyTree, *spec: str) -> PyTree:
        sharding = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )

    local = {"device": jax.ShapeDtypeStruct((len(devices),), np.int32)}
    data = given.data
    if config.run.input == "host":
        # (devices, steps, batches, images of a device, ...), as `input.host_rows` sends them.
        lead = len(devices), length, train_step.draws_per_step(method)
        b = config.batch_size // len(devices)
        local["rows"] = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((*lead, b, *x.shape[1:]), x.dtype), data
        )
        data = {}
    state = abstract_state(config, method, given.constants)
    step = train_step.make_super_step(config, method, method.phases[phase], length, axis)
    mapped = parallel.map_step(step, "shard_map", devices)
    shared = {"data": data, "constants": given.constants}
    with backend.traced_for(target.platform):
        lowered = mapped.lower(on(state), on(shared), on(local, parallel.AXIS))
    return lowered.compile(compiler_options=OPTIONS.get(target.platform))


def measured(given: Inputs, phase: int, target: Target, devices: list[jax.Device]) -> dict:
    """What is known of a phase's step.

    Returns:
      'phase'; 'failed', the compiler's reason, or: 'seconds' of compiling, 'memory' (see
      `memory`), the counts of `hlo.counts`, 'flops' of the layers, of all devices (None where
      unknown), 'xla_flops', and 'text', the compiled program.
    """
    config = given.config
    phases = config.method.make(parallel.axis_of(devices)).phases
    about = {"phase": phases[phase].name}
    begun = time.perf_counter()
    try:
        compiled = compile_step(given, phase, target, devices)
    except (RuntimeError, NotImplementedError) as error:
        return {**about, "failed": sentence(error)}
    seconds = time.perf_counter() - begun
    text = compiled.as_text()
    # Layers are counted for the last phase alone.
    layers = flops.per_image(config) * config.batch_size if phase == len(phases) - 1 else None
    told = compiled.cost_analysis() if target.platform != "cuda" else None
    return {
        **about,
        "seconds": seconds,
        "memory": memory(compiled.memory_analysis()),
        **hlo.counts(text, config.run.steps_per_dispatch),
        "flops": layers if layers and layers > 0 else None,
        "xla_flops": told["flops"] * len(devices) if told and told.get("flops", 0) > 0 else None,
        "text": text,
    }


def report(
    config: Config,
    target: Target,
    images: int = 0,
    search: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """What the training step of a config is on a target.

    Args:
      images: see `inputs`.
      search: whether the largest batch is looked for by compiling, not estimated.
      say: is given a line before each compilation.

    Returns:
      'phases', each as `measured` gives it; 'largest_batch' that fits in all phases (None where
      nothing is known, 0: none) and 'confirmed', whether it was compiled; and what was asked for.

    Raises:
      UserError: the batch is not a multiple of the devices.
    """
    devices = described(target)
    if config.batch_size % len(devices):
        raise UserError(
            f"the batch, {config.batch_size}, is not a multiple of {len(devices)} devices; "
            f"use --batch {config.batch_size + -config.batch_size % len(devices)}"
        )
    held: dict[str, Any] = {}

    def phases(batch: int) -> list[dict]:
        given = inputs(dataclasses.replace(config, batch_size=batch), images)
        held["images"] = max(x.shape[0] for x in jax.tree.leaves(given.data))
        count, found = len(given.config.method.make(None).phases), []
        for phase in range(count):
            say(f"compiling phase {phase + 1} of {count} for {target.name}, batch {batch}")
            found.append(measured(given, phase, target, devices))
        return found

    def peak(batch: int) -> int | None:
        memories = [phase.get("memory") for phase in phases(batch)]
        return max(m["peak"] for m in memories) if all(memories) else None

    found = phases(config.batch_size)
    batch = config.batch_size
    memories = [phase["memory"] for phase in found if "failed" not in phase]
    most = None
    if len(memories) == len(found):
        most = min(batches.estimate(m, batch, target.usable, len(devices)) for m in memories)
    if search:
        first = batch // 2 if most is None else most
        known = batch, None if most is None else max(m["peak"] for m in memories)
        multiple = batches.multiple_of(first, len(devices))
        most = batches.largest(peak, first, target.usable, multiple, known)
    return {
        "config": config.name,
        "target": target.name,
        "devices": len(devices),
        "device_kind": devices[0].device_kind,
        "device_memory": target.memory,
        "usable_memory": target.usable,
        "batch": batch,
        "dtype": getattr(config.method, "dtype", "float32"),
        "images": held["images"],
        "steps_per_dispatch": config.run.steps_per_dispatch,
        "phases": found,
        "largest_batch": most,
        "confirmed": search,
    }


def memory(stats: Any) -> dict[str, int]:
    """Bytes on a device: 'arguments', 'temporaries', and 'peak', all that a dispatch holds."""
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    arguments, temporaries = stats.argument_size_in_bytes, stats.temp_size_in_bytes
    peak = arguments + temporaries + results + stats.generated_code_size_in_bytes
    return {"arguments": arguments, "temporaries": temporaries, "peak": peak}


def sentence(error: BaseException) -> str:
    """The first sentence or two of a compiler's message."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"^([A-Z_]+): ", lambda m: m[1].lower().replace("_", " ") + ": ", text)
    return text if len(text) <= 300 else text[:300].rsplit(" ", 1)[0] + " ..."
