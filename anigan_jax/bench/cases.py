"""What is measured: our step, the same without data, whole runs, a matrix product, PyTorch.

A side is built inside a worker process and gives a function that runs a few steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax.bench import flops
from anigan_jax.bench.random_vgg import random_vgg
from anigan_jax.config import Config, Run
from anigan_jax.data import dataset, scratch
from anigan_jax.data.dataset import Pack
from anigan_jax.data.synthetic.sources import PaintedFaces, PaintedPairs
from anigan_jax.methods.cartoongan import CartoonGAN
from anigan_jax.methods.text_gan import TextGAN
from anigan_jax.methods.translation import Translation
from anigan_jax.networks.ops import conv
from anigan_jax.perceptual.vgg import depth_of
from anigan_jax.runtime import devices as parallel
from anigan_jax.runtime import environment
from anigan_jax.storage import checkpoint, metrics_file, safetensors
from anigan_jax.storage import images as record
from anigan_jax.training import artifacts, input, loop
from anigan_jax.training.program import Program

MOST_IMAGES, PIXELS = 512, 2**23
GEMM = {"cpu": 2048, "gpu": 8192, "tpu": 8192}
EVENTS = 2
ON_ACCELERATOR = 20
# Operations of a dispatch on a CPU: two or three seconds.
CPU_WORK = 4e11


class Side(NamedTuple):
    """A side made ready.

    Attributes:
      run: one dispatch, to its end.
      images: real images of a dispatch.
      facts: what is known of it so far: 'compile_s', 'flops', 'xla_flops', ...; it takes time,
        so nobody asks within a window.
    """

    run: Callable[[], None]
    images: int
    facts: Callable[[], dict[str, Any]]


def synthetic(config: Config, folder: Path) -> Config:
    """The config on painted faces, with random weights where it needs a user's file."""
    method, size = config.method, config.method.size
    # Enough that a batch is gathered from more than a cache holds, and soon painted.
    count = max(min(MOST_IMAGES, PIXELS // size**2), config.batch_size)
    data = PaintedFaces(count=count, size=size, test=0)
    if isinstance(method, Translation):
        edges = isinstance(method, CartoonGAN)
        data = PaintedPairs(count=count, size=size, pairs=1, edges=edges)
    if isinstance(method, TextGAN) and method.encoder.kind != "tags":
        encoder = dataclasses.replace(method.encoder, kind="tags", path="")
        method = dataclasses.replace(method, encoder=encoder)
    if isinstance(method, CartoonGAN):
        path = folder / f"{method.features.network}.safetensors"
        safetensors.write(random_vgg(depth_of(method.features.network)), path)
        features = dataclasses.replace(method.features, path=str(path))
        method = dataclasses.replace(method, features=features, content_epochs=0)
    return dataclasses.replace(config, data=data, method=method)


def opened(config: Config) -> Pack:
    """The pack of a synthetic config, made where it is not there yet."""
    return dataset.build(config.data, scratch.default_cache())


def ours(config: Config, folder: Path, *, data: bool = True, form: str = "") -> Side:
    """Our own step of the last phase, as the driver compiles it.

    Args:
      data: off: the batch is a constant that needs no gathering.
      form: 'lax': XLA's own transposed convolution in place of ours; 'blocks' or 'native':
        that form of `conv`, whatever `conv.LOWERINGS` says.
    """
    config = synthetic(config, folder)
    pack = opened(config)
    constants = config.method.constants(pack)
    length = dispatch(config, jax.default_backend() != "cpu")
    far = length * 10**6
    run = dataclasses.replace(
        config.run,
        steps=far,
        steps_per_dispatch=length,
        sample_every=far,
        checkpoint_every=far,
        evaluate_every=0,
    )
    config = dataclasses.replace(config, run=run)
    program = Program(config, pack, constants)
    shared, step = program.shared, program.step(len(program.method.phases) - 1, program.length)
    patches = contextlib.ExitStack()
    if not data:
        shared = {**shared, "data": parallel.replicate(_constant(program), program.devices)}
        patches.enter_context(_no_data())
    if form == "lax":
        patches.enter_context(_reference_convolutions())
    elif form:
        patches.enter_context(convolutions_as(form))
    state = parallel.replicate(program.initial(), program.devices)
    local = next(program.chunks(0)).local
    start = time.perf_counter()
    with patches:
        lowered = step.lower(state, shared, local)
        compiled = lowered.compile()
        environment.release_host_memory()
    # Compiled for a GPU, convolutions are calls whose work XLA does not count.
    counted = compiled if jax.default_backend() == "cpu" else lowered
    built = {
        "compile_s": time.perf_counter() - start,
        "devices": len(program.devices),
        "steps": program.length,
        "xla_flops": _xla_flops(counted, config.batch_size, len(program.devices)),
    }
    held = [state, {}]

    def run_once() -> None:
        state, (metrics, _) = compiled(held[0], shared, local)
        held[:] = state, metrics
        jax.block_until_ready(metrics)

    def facts() -> dict[str, Any]:
        repeats = {
            name.partition("/")[2]: float(np.mean(values))
            for name, values in held[1].items()
            if name.startswith("repeats/")
        }
        # A number that is always 1 is not logged.
        repeats = dict.fromkeys(program.method.players, 1.0) | repeats if repeats else {}
        return {**built, "repeats": repeats, "flops": flops.per_image(config, repeats)}

    return Side(run_once, program.length * config.batch_size, facts)


def dispatch(config: Config, accelerated: bool) -> int:
    """Steps of a dispatch: the config's, on a CPU no more than take a few seconds."""
    most = config.run.steps_per_dispatch
    if accelerated:
        return max(most, ON_ACCELERATOR)
    work = flops.per_image(config) * config.batch_size
    return min(most, max(1, int(CPU_WORK / work))) if work > 0 else 1


def _xla_flops(counted, batch: int, devices: int) -> float | None:
    """XLA's own count for one image; None where the backend does not tell.

    The body of a loop counts once, so a dispatch of several steps counts as one.
    """
    told = counted.cost_analysis() or {}
    told = told[0] if isinstance(told, list) else told
    return told["flops"] * devices / batch if told.get("flops", 0) > 0 else None


def _constant(program: Program) -> dict:
    """A batch (the local part of it) as `input.to_batch` makes it, without its keys."""
    b = program.config.batch_size // len(program.devices)
    rows = jax.tree.map(lambda values: values[:b], program.data)
    key = np.zeros(2, np.uint32)
    made = input.to_batch(rows, key, np.uint32(0), np.arange(b, dtype=np.int32), False)
    return {name: jax.tree.map(np.asarray, x) for name, x in made.items() if name != "keys"}


@contextlib.contextmanager
def _no_data() -> Iterator[None]:
    """Steps that are traced inside take their batch as it lies in the shared arrays."""
    gather, to_batch = input.gather, input.to_batch

    def keyed(rows, raw_key, draw, examples, flip):
        empty = {"a": {"image": jnp.zeros((len(examples), 1, 1, 3), jnp.uint8)}}
        return {**rows, "keys": to_batch(empty, raw_key, draw, examples, False)["keys"]}

    input.gather, input.to_batch = (lambda data, *rest, **more: data), keyed
    try:
        yield
    finally:
        input.gather, input.to_batch = gather, to_batch


@contextlib.contextmanager
def _reference_convolutions() -> Iterator[None]:
    """XLA's own transposed convolution in place of ours, while a step is traced."""
    fast, conv.conv_transpose = conv.conv_transpose, conv.conv_transpose_reference
    try:
        yield
    finally:
        conv.conv_transpose = fast


@contextlib.contextmanager
def convolutions_as(form: str) -> Iterator[None]:
    """Convolutions that are traced inside take this form."""
    chosen, conv.lowering = conv.lowering, lambda: form
    try:
        yield
    finally:
        conv.lowering = chosen


def whole_run(config: Config, folder: Path, steps: int) -> dict[str, float]:
    """Trains as `anigan train` does, with every step logged, EVENTS previews and checkpoints.

    Returns:
      'images_per_sec': median of the dispatches, data and logging included; 'event_s':
      seconds of one preview, curves and checkpoint together; 'log_s': of logging a step, on
      an accelerator beside its work.
    """
    config = synthetic(config, folder)
    length = dispatch(config, jax.default_backend() != "cpu")
    every = -(-steps // (EVENTS * length)) * length
    run = dataclasses.replace(
        Run(),
        steps=EVENTS * every,
        sample_every=every,
        checkpoint_every=every,
        steps_per_dispatch=length,
        devices=config.run.devices,
        platform=config.run.platform,
        mapper=config.run.mapper,
    )
    config = dataclasses.replace(config, run=run)
    spent: list[float] = []
    logged: list[float] = []
    with contextlib.ExitStack() as stack:
        for module, name in (
            (record, "save_image"),
            (checkpoint, "save"),
            (checkpoint, "prune"),
            (safetensors, "write"),
            (artifacts, "previewer"),
        ):
            stack.enter_context(_timed(module, name, spent))
        stack.enter_context(_timed(artifacts.Artifacts, "lines", logged))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        workdir = folder / "run"
        loop.train(config, workdir, opened(config))
    lines = [line for line in metrics_file.read_metrics(workdir / "metrics.jsonl") if line["step"]]
    speeds = [line["images_per_sec"] for line in lines[::length]]
    # The first dispatch compiles; the one behind a checkpoint starts with an empty queue.
    later = speeds[1:] if len(speeds) > 1 else speeds
    return {
        "images_per_sec": statistics.median(later),
        "event_s": sum(spent) / EVENTS,
        "log_s": statistics.median(logged) / length,
    }


@contextlib.contextmanager
def _timed(module: Any, name: str, spent: list[float]) -> Iterator[None]:
    """Adds up the seconds of calls of a function, or of what it returns where that is one."""
    original = getattr(module, name)

    def timed(function: Callable) -> Callable:
        def call(*args, **kwargs):
            start = time.perf_counter()
            out = function(*args, **kwargs)
            spent.append(time.perf_counter() - start)
            return out

        return call

    def made(*args, **kwargs):
        # Its first call compiles and is not counted.
        drawn, calls = original(*args, **kwargs), []

        def call(state):
            start = time.perf_counter()
            out = drawn(state)
            calls.append(time.perf_counter() - start)
            if len(calls) > 1:
                spent.append(calls[-1] * EVENTS / (EVENTS - 1))
            return out

        return call

    setattr(module, name, made if name == "previewer" else timed(original))
    try:
        yield
    finally:
        setattr(module, name, original)


def product(dtype: str) -> Side:
    """A square matrix product: what this machine can do at best."""
    side = GEMM[jax.default_backend()]
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (side, side), jnp.float32).astype(dtype) for key in keys)
    multiply = jax.jit(lambda a, b: a @ b)

    def run() -> None:
        jax.block_until_ready([multiply(a, b) for _ in range(4)])

    return Side(run, 4, lambda: {"flops": 2 * side**3})


def build(spec: dict, config: Config | None, folder: Path) -> Side:
    """The side of a spec: 'ours', 'no data', 'lax', 'blocks', 'native', 'gemm' or 'torch'."""
    kind = spec["side"]
    if kind == "gemm":
        return product(spec["dtype"])
    if kind == "torch":
        return _torch(spec, config, folder)
    form = "" if kind in ("ours", "no data") else kind
    return ours(config, folder, data=kind != "no data", form=form)


def _torch(spec: dict, config: Config, folder: Path) -> Side:
    import torch

    from anigan_jax.bench.torch import families

    start = time.perf_counter()
    config, gpu = synthetic(config, folder), torch.cuda.is_available()
    about = spec["channels_last"], spec["amp"], spec["compiled"]
    peer = families.peer_of(config, *about, "cuda" if gpu else "cpu")
    # As many steps between waits as ours has in a dispatch.
    count = dispatch(config, gpu)

    def run() -> None:
        for _ in range(count):
            peer.step()
        if gpu:
            torch.cuda.synchronize()

    run()
    built = {"compile_s": time.perf_counter() - start}

    def facts() -> dict[str, Any]:
        if peer.repeats == (1, 1):
            return built
        return {**built, "repeats": dict(zip("dg", map(float, peer.repeats), strict=True))}

    return Side(run, count * config.batch_size, facts)


def temporary() -> tempfile.TemporaryDirectory:
    """A folder for weights and runs of a side."""
    return tempfile.TemporaryDirectory(prefix="anigan_bench_")
