"""One tiny model shared by the tests: few compilations, seconds in all."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax import checkpoint, parallel, train_step
from anigan_jax import config as configs
from anigan_jax.config import Config, Optimizer, Run
from anigan_jax.data import pack
from anigan_jax.data.sources import PaintedFaces
from anigan_jax.methods.gan import GAN, Schedule
from anigan_jax.networks.specs import Discriminator, Generator

NAMES = sorted(path.stem for path in configs.config_folder().glob("*.py"))

# Everything that has state of its own: dynamic schedule, EMA, spectral and batch norm.
FULL = Config(
    name="tiny",
    method=GAN(
        generator=Generator(z_dim=4, size=16, base=4),
        discriminator=Discriminator(size=16, base=4, spectral=True, dropout=0.1),
        augment=("color", "translation", "cutout"),
        schedule=Schedule(kind="as_printed"),
    ),
    data=PaintedFaces(count=44, size=16),
    batch_size=8,
    flip=True,
    ema_half_life=50,
    g=Optimizer(drops=(3,)),
    run=Run(steps=8, steps_per_dispatch=2, sample_every=4, checkpoint_every=4),
)
PLAIN = dataclasses.replace(
    FULL,
    method=GAN(
        generator=Generator(z_dim=4, size=16, base=4),
        discriminator=Discriminator(size=16, base=4),
    ),
)


def draw(seed: int, *shape: int):
    """Standard normal float32 numbers."""
    return jnp.array(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def shrunk(name: str) -> Config:
    """A config of the project at tiny width on painted faces."""
    config = configs.load(name)
    method = config.method
    method = dataclasses.replace(
        method,
        generator=dataclasses.replace(method.generator, base=2, size=32, z_dim=4),
        discriminator=dataclasses.replace(method.discriminator, base=2, size=32),
    )
    return dataclasses.replace(
        config, method=method, data=PaintedFaces(count=20, size=32), batch_size=4
    )


def packed(config: Config, folder: Path) -> pack.Pack:
    return pack.build(config.data, folder, workers=1)


def start(config: Config):
    """(method, initial state on the host)."""
    method = config.method.make(None)
    return method, jax.jit(lambda: train_step.init_state(config, method))()


_COMPILED: dict = {}


def run_steps(config: Config, images, state, steps: int, *, length=1, devices=1, mapper="pmap"):
    """Trains; returns (state on the host, metrics of every step stacked)."""
    method = config.method.make(parallel.AXIS)
    (phase,) = method.phases
    chosen = jax.devices()[:devices]
    key = (config, length, devices, mapper)
    if key not in _COMPILED:
        step = train_step.make_super_step(config, method, phase, length, parallel.AXIS)
        _COMPILED[key] = parallel.map_step(step, mapper, chosen)
    step = _COMPILED[key]
    state = parallel.replicate(jax.tree.map(np.asarray, state), chosen)
    shared = parallel.replicate(np.asarray(images), chosen)
    lines = []
    for _ in range(steps // length):
        state, metrics = step(state, shared, {"device": np.arange(devices, dtype=np.int32)})
        jax.block_until_ready(state)
        lines.append(jax.device_get(metrics))
    parallel.assert_replicated(state)
    stacked = {k: np.concatenate([m[k] for m in lines]) for k in lines[0]}
    return jax.tree.map(np.asarray, state), stacked


def digests(state) -> dict[str, str]:
    return {path: leaf["sha256"] for path, leaf in checkpoint.leaf_digests(state).items()}


def anigan(*args, cwd=None, env=None, **options) -> subprocess.CompletedProcess:
    """The command line in a process of its own, on one device."""
    return subprocess.run(
        [sys.executable, "-m", "anigan_jax.cli", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**process_env(), **(env or {})},
        timeout=300,
        **options,
    )


def process_env() -> dict[str, str]:
    """The environment without what conftest prepared for simulated devices."""
    drop = ("XLA_FLAGS", "JAX_PLATFORMS", "NPROC")
    kept = {k: v for k, v in os.environ.items() if k not in drop}
    root = str(Path(__file__).resolve().parent.parent)
    return {**kept, "NPROC": "2", "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}


def write_config(folder: Path, name: str = "FULL") -> Path:
    """A config file that a process can load."""
    path = folder / "tiny_config.py"
    here = Path(__file__).resolve().parent
    path.write_text(
        f"import sys\nsys.path.insert(0, {str(here)!r})\nfrom tiny import {name} as CONFIG\n"
    )
    return path
