"""One tiny model shared by the tests: few compilations, seconds in all."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from anigan_jax import config as configs
from anigan_jax import config_file, rng
from anigan_jax.config import Config, Run
from anigan_jax.data import dataset, scratch
from anigan_jax.data.images import Images
from anigan_jax.data.synthetic.sources import PaintedFaces, PaintedPairs
from anigan_jax.methods.cartoongan import CartoonGAN, Features
from anigan_jax.methods.classifier import ColorClassifier
from anigan_jax.methods.cyclegan import CycleGAN
from anigan_jax.methods.gan import GAN
from anigan_jax.methods.r3gan import R3GAN
from anigan_jax.methods.schedule import Schedule
from anigan_jax.methods.text_conditioning import Encoder
from anigan_jax.methods.text_encoder import TextEncoder
from anigan_jax.methods.text_gan import TextGAN
from anigan_jax.methods.translation import Translation
from anigan_jax.networks.cartoon import CartoonDiscriminator, CartoonGenerator
from anigan_jax.networks.char_cnn_rnn import CharEncoder
from anigan_jax.networks.classifier import Classifier
from anigan_jax.networks.dcgan import Discriminator, Generator
from anigan_jax.networks.r3gan import R3Discriminator, R3Generator
from anigan_jax.networks.resnet import PatchDiscriminator, ResnetGenerator
from anigan_jax.networks.text import TextDiscriminator, TextGenerator
from anigan_jax.optimizers import Cosine, Optimizer
from anigan_jax.perceptual import vgg
from anigan_jax.runtime import devices as parallel
from anigan_jax.runtime import environment
from anigan_jax.state import abstract_state, init_state
from anigan_jax.storage import checkpoint, lock, run_dir, safetensors
from anigan_jax.training import input, program
from anigan_jax.training import step as train_step

# Most of a test's time is compilation, which is three times as quick without LLVM's optimizations
# and the code generator for fusions (jaxlib 0.12 cannot do without; a third less by its preset).
# What is compared is compiled alike; the `optimized` fixture is for what users' own compilation has
# to show.
QUICK_COMPILE = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false"
    if jaxlib.__version__.startswith("0.10.")
    else "--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE",
}

NAMES = sorted(path.stem for path in environment.config_folder().glob("*.py"))

# Everything that has state of its own: dynamic schedule, EMA, spectral and batch norm.
FULL = Config(
    name="tiny",
    method=GAN(
        generator=Generator(z_dim=4, size=16, base_channels=4),
        discriminator=Discriminator(size=16, base_channels=4, spectral=True, dropout=0.1),
        augment=("color", "translation", "cutout"),
        schedule=Schedule(kind="as_printed"),
    ),
    data=PaintedFaces(count=44, size=16),
    batch_size=8,
    flip=True,
    ema_half_life=50,
    optimizers={"g": Optimizer(boundaries=(3,)), "d": Optimizer()},
    run=Run(steps=8, steps_per_dispatch=2, sample_every=4, checkpoint_every=4),
)
# For processes that compile anew each time: a third of the work, still with statistics and average.
LEAST = dataclasses.replace(
    FULL,
    method=GAN(
        generator=Generator(z_dim=4, size=8, base_channels=4),
        discriminator=Discriminator(size=8, base_channels=4, spectral=True),
    ),
    data=PaintedFaces(count=44, size=8),
)
PLAIN = dataclasses.replace(
    FULL,
    method=GAN(
        generator=Generator(z_dim=4, size=16, base_channels=4),
        discriminator=Discriminator(size=16, base_channels=4),
    ),
)
# Everything that a text adds: another text, texts between two, an embedding, spectral norm.
TEXT = dataclasses.replace(
    FULL,
    method=TextGAN(
        generator=TextGenerator(
            z_dim=4, size=16, base_channels=4, text_dim=6, embed=5, join="norm"
        ),
        discriminator=TextDiscriminator(
            size=16, base_channels=4, embed=5, spectral=True, dropout=0.1, join="product"
        ),
        augment=("color", "translation", "cutout"),
        wrong_weight=0.5,
        fake_weight=0.5,
        int_weight=1.0,
    ),
    run=dataclasses.replace(FULL.run, keep_every=4, keep_checkpoints=1),
)

# What moves with the images seen, labels, penalties in every second step, both augmentations.
_MOVES = Optimizer(
    b1=0.0, b2=0.9, unit="image", decay_steps=64, shape="cosine", final_share=0.25, final_b2=0.99
)
R3 = dataclasses.replace(
    PLAIN,
    name="r3",
    method=R3GAN(
        generator=R3Generator(z_dim=4, size=16, base_channels=4, start=8, group_channels=2),
        discriminator=R3Discriminator(size=16, base_channels=4, end=8, group_channels=2),
        augment=("translation",),
        gamma=Cosine(2.0, 0.2, 64),
        penalty_every=2,
        pipe=("xint", "rotate", "brightness"),
        pipe_p=Cosine(0.2, 0.6, 64),
        labels=True,
    ),
    optimizers=dict.fromkeys("gd", _MOVES),
    ema_cosine=64,
)

# The way there and back, and a pool that two steps do not fill.
CYCLE = Config(
    name="cycle",
    method=CycleGAN(
        generator=ResnetGenerator(size=16, base_channels=2, blocks=1),
        discriminator=PatchDiscriminator(
            size=16, base_channels=2, num_downsamples=2, num_flat_convs=0
        ),
        pool=20,
    ),
    data=PaintedPairs(count=44, pairs=12, size=16),
    batch_size=8,
    flip=True,
    ema_half_life=50,
    optimizers=dict.fromkeys("gd", Optimizer(boundaries=(5,))),
    run=FULL.run,
)
# Every loss; the features are those of `thin_vgg`.
CARTOON = dataclasses.replace(
    CYCLE,
    name="cartoon",
    method=CartoonGAN(
        generator=CartoonGenerator(size=16, base_channels=2, blocks=1),
        discriminator=CartoonDiscriminator(size=16, base_channels=2),
        features=Features(network="vgg16", layer="conv3_1"),
        content_epochs=0,
        content_steps=4,
        style=1.0,
        landmark=1.0,
        grayscale=1.0,
        color=1.0,
        total_variation=1.0,
    ),
    data=dataclasses.replace(CYCLE.data, edges=True),
)

JUDGE = dataclasses.replace(
    PLAIN,
    method=ColorClassifier(network=Classifier(size=16, base_channels=4)),
    data=PaintedFaces(count=60, size=16, test=0.3),
    ema_half_life=0,
)


# The least that reads, and a text GAN that takes its vectors.
SPELLER = dataclasses.replace(
    JUDGE,
    method=TextEncoder(
        text=CharEncoder(widths=(3, 4), hidden=5, dim=6), image=JUDGE.method.network
    ),
)
READS = dataclasses.replace(
    TEXT,
    method=dataclasses.replace(
        TEXT.method, encoder=Encoder(kind="char_cnn_rnn", char=SPELLER.method.text)
    ),
)
IMAGES = dataclasses.replace(TEXT, data=Images(size=16), batch_size=4)
SPRITES = dataclasses.replace(LEAST, data=Images(size=8, test=0.4))


def draw(seed: int, *shape: int):
    """Standard normal float32 numbers."""
    return jnp.array(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def drawn(shapes, seed=0):
    """Variables of those shapes that NumPy draws: maps neither vanish nor overflow."""
    draws = np.random.default_rng(seed)

    def one(where, leaf):
        name, values = jax.tree_util.keystr(where), draws.normal(size=leaf.shape)
        if "kernel" in name:
            values /= np.sqrt(np.prod(leaf.shape[:-1]))
        elif "'u'" in name or "'v'" in name:
            values /= np.linalg.norm(values)
        elif "scale" in name or "var" in name:
            values = 1 + 0.1 * np.abs(values)
        else:
            values *= 0.1
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(one, shapes)


TINY = {
    "base_channels": 2,
    "group_channels": 2,
    "gamma": Cosine(2.0, 0.2, 64),
    "pipe_p": Cosine(0.3, 0.6, 64),
    "blocks": 1,
    "num_downsamples": 2,
    "size": 16,
    "z_dim": 4,
    "text_dim": 6,
    "hidden": 5,
    "widths": (3, 4),
    "pool": 6,
    "content_epochs": 0,
}


def shrink(value):
    """Settings at tiny width, whatever the family."""
    changes = {}
    for field in dataclasses.fields(value):
        now = getattr(value, field.name)
        if field.name in TINY:
            changes[field.name] = TINY[field.name]
        elif dataclasses.is_dataclass(now):
            changes[field.name] = shrink(now)
    if isinstance(value, R3Generator | R3Discriminator):
        # Two stages: a gradient of gradients takes long to compile.
        changes["start" if isinstance(value, R3Generator) else "end"] = 8
    return dataclasses.replace(value, **changes)


def shrunk(name: str) -> Config:
    """A config of the project at tiny width on painted faces."""
    config = config_file.load(name)
    method = shrink(config.method)
    if hasattr(method, "encoder"):
        # No trained encoder is at hand; test_text_tables makes one.
        method = dataclasses.replace(method, encoder=Encoder())
    data = PaintedFaces(count=20, size=16)
    if isinstance(method, Translation):
        data = PaintedPairs(count=20, pairs=4, size=16, edges=True)
    return dataclasses.replace(config, method=method, data=data, batch_size=4)


def thin_vgg(depth: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights of a narrow VGG, as `convert.load` reads them."""
    draws, arrays, below = np.random.default_rng(seed), {}, 3
    for name in vgg.convolutions(depth):
        width = 4
        scale = np.sqrt(2 / (9 * below))
        kernel = scale * draws.normal(size=(3, 3, below, width))
        arrays[f"{name}/kernel"] = kernel.astype(np.float32)
        arrays[f"{name}/bias"] = np.zeros(width, np.float32)
        below = width
    return arrays


def with_features(config: Config, folder: Path) -> Config:
    """The config with a thin VGG in a file; others as they are."""
    if not isinstance(config.method, CartoonGAN):
        return config
    features = config.method.features
    path = folder / f"thin_{features.network}.safetensors"
    safetensors.write(thin_vgg(vgg.depth_of(features.network)), path)
    features = dataclasses.replace(features, path=str(path))
    method = dataclasses.replace(config.method, features=features)
    return dataclasses.replace(config, method=method)


def packed(config: Config, folder: Path) -> dataset.Pack:
    return dataset.build(config.data, folder, workers=1)


class Rows(dict):
    """Domain -> name -> array, and the method's constants beside them."""

    constants: dict


jax.tree_util.register_pytree_node(
    Rows,
    lambda rows: (tuple(rows.values()), tuple(rows)),
    lambda names, x: dict(zip(names, x, strict=True)),
)


def arrays(config: Config, packed: dataset.Pack) -> Rows:
    """What a step reads of the data."""
    rows = Rows(input.rows(config, packed))
    rows.constants = config.method.constants(packed)
    return rows


def constants_of(config: Config, packed: dataset.Pack | None) -> dict:
    return config.method.constants(packed) if packed else {}


_STARTED: dict = {}
_COMPILED: dict = {}


def start(config: Config, packed: dataset.Pack | None = None):
    """(method, initial state), drawn once in a process."""
    method, constants = config.method.make(), constants_of(config, packed)
    key = (config, packed and packed.path)
    if key not in _STARTED:
        _STARTED[key] = jax.jit(lambda held: init_state(config, method, held))(constants)
    # Dicts of its own; the arrays cannot change.
    return method, jax.tree.map(lambda leaf: leaf, _STARTED[key])


def drawn_state(config: Config, constants):
    """A first state that NumPy draws: compiling the initial one takes ten seconds."""
    shapes = abstract_state(config, config.method.make(None), constants)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    params, stats = drawn(shapes.params), drawn(shapes.stats, 1)
    ema, ema_stats = (params["g"], stats["g"]) if config.ema_half_life else ({}, {})
    root = rng.root_key(config.seed)
    return zeros.replace(key=root, params=params, stats=stats, ema=ema, ema_stats=ema_stats)


def run_steps(
    config: Config, data, state, steps: int, *, constants=None, length=1, devices=1, mapper="pmap"
):
    """Trains within one phase; returns (state on the host, metrics of every step stacked).

    Args:
      data: images of domain A, or `arrays` where the method has inputs.
      constants: the method's, where `data` do not bring them.
    """
    at, chosen = int(state.step), jax.devices()[:devices]
    axis = parallel.axis_of(chosen)
    method = config.method.make(axis)
    constants = getattr(data, "constants", {}) if constants is None else constants
    data = dict(data) if isinstance(data, dict) else {"a": {"image": data}}
    images = data["a"]["image"]
    config = configs.resolve(config, len(images))
    over = program.phase_ends(method.phases, at + steps, len(images) // config.batch_size)
    phase = next(i for i, end in enumerate(over) if at < end)
    assert over[phase] >= at + steps, "the steps reach into another phase"
    key = (config, phase, length, devices, mapper)
    if key not in _COMPILED:
        made = method.phases[phase]
        step = train_step.make_super_step(config, method, made, length, axis)
        _COMPILED[key] = parallel.map_step(step, mapper, chosen)
    step = _COMPILED[key]
    state = parallel.replicate(jax.tree.map(np.asarray, state), chosen)
    held = {"data": data, "constants": constants}
    shared = parallel.replicate(jax.tree.map(np.asarray, held), chosen)
    lines = []
    for _ in range(steps // length):
        local = {"device": np.arange(devices, dtype=np.int32)}
        state, (metrics, _) = step(state, shared, local)
        jax.block_until_ready(state)
        lines.append(jax.device_get(metrics))
    parallel.assert_replicated(state)
    stacked = {k: np.concatenate([m[k] for m in lines]) for k in lines[0]}
    return jax.tree.map(np.asarray, state), stacked


def digests(state) -> dict[str, str]:
    return {path: leaf["sha256"] for path, leaf in checkpoint.leaf_digests(state).items()}


def anigan(*args, cwd=None, env=None, timeout=300, **options) -> subprocess.CompletedProcess:
    """The command line in a process of its own, on one device."""
    return subprocess.run(
        [sys.executable, "-m", "anigan_jax", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**process_env(), **(env or {})},
        timeout=timeout,
        **options,
    )


def process_env() -> dict[str, str]:
    """The environment without what conftest prepared for simulated devices."""
    drop = ("XLA_FLAGS", "JAX_PLATFORMS", "NPROC")
    kept = {k: v for k, v in os.environ.items() if k not in drop}
    root = str(Path(__file__).resolve().parent.parent)
    if "JAX_DISABLE_MOST_OPTIMIZATIONS" in os.environ:
        kept |= QUICK_COMPILE
    return {**kept, "NPROC": "2", "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}


def write_config(folder: Path, name: str = "FULL", module: str = "tiny") -> Path:
    """A config file that a process can load."""
    path = folder / "tiny_config.py"
    here = Path(__file__).resolve().parent
    path.write_text(
        f"import sys\nsys.path.insert(0, {str(here)!r})\nfrom {module} import {name} as CONFIG\n"
    )
    return path


def untrained(folder: Path, name: str, *overrides: str, drawn: bool = True) -> Path:
    """A run directory as a start leaves it: compiling a step would take half a minute."""
    folder.mkdir()
    file = write_config(folder, name)
    config = config_file.override(config_file.load(str(file)), list(overrides), "")
    data = dataset.build(config.data, scratch.default_cache(), workers=1)
    run = folder / name.lower()
    lock.hold(run)
    constants = run_dir.open_run(config, run, data, tuple(overrides))
    state = drawn_state(config, constants) if drawn else start(config, data)[1]
    # As after a step, the averaged weights are others than the trained ones.
    state = state.replace(ema=jax.tree.map(lambda x: 1.5 * x, state.ema))
    checkpoint.save(run / "checkpoints", 0, state, {"config_sha256": configs.fingerprint(config)})
    run_dir.export_weights(run, config, state, constants if config.method.make().texts else {})
    return run
