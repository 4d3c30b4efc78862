"""What the picture and table verbs do: describe, sample, interpolate, kernels."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax import checkpoint, record, rng
from anigan_jax.config import Config
from anigan_jax.core import Method, TrainState
from anigan_jax.errors import UserError


def describe(config: Config) -> dict:
    """Layers, parameters, statistics and FLOPs of a config's networks.

    FLOPs are two per multiplication of the forward pass of one image, without the
    taps that fall on padding's zeros being left out.
    """
    from anigan_jax.networks import dcgan
    from anigan_jax.networks.layers import SPECTRAL

    method = config.method
    nets = {
        "generator": (dcgan.generator(method.generator), (1, 1, 1, method.generator.z_dim)),
        "discriminator": (
            dcgan.discriminator(method.discriminator),
            (1, method.size, method.size, 3),
        ),
    }
    table = {"name": config.name, "networks": {}}
    for name, (net, shape) in nets.items():
        x = jnp.zeros(shape)
        key = jax.random.key(0)
        variables = jax.eval_shape(lambda net=net, x=x, key=key: net.init(key, x, train=False))
        _, maps = jax.eval_shape(
            lambda v, net=net, x=x: net.apply(v, x, train=False, features=True), variables
        )
        rows, before = [], shape
        for block, out in zip(net.blocks, maps, strict=True):
            parts = [block.name, f"{block.name}_norm"]
            kernel = variables["params"][block.name]["weight"]["kernel"].shape
            # Windows per image: output pixels, or input pixels where each is spread out.
            spread = block.op == "conv_transpose"
            places = int(np.prod((before if spread else out.shape)[1:-1]))
            if block.op == "dense":
                places = 1
            rows.append(
                {
                    "layer": block.name,
                    "kind": block.op,
                    "shape": list(out.shape[1:]),
                    "parameters": sum(_count(variables["params"].get(p)) for p in parts),
                    "statistics": _count(variables.get("batch_stats", {}).get(parts[1])),
                    "spectral": _count(variables.get(SPECTRAL, {}).get(block.name)),
                    "flops": 2 * places * int(np.prod(kernel)),
                }
            )
            before = out.shape
        totals = ("parameters", "statistics", "spectral", "flops")
        table["networks"][name] = {
            "layers": rows,
            **{total: sum(row[total] for row in rows) for total in totals},
        }
    return table


def _count(tree) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree or {}))


def as_text(table: dict) -> str:
    """The table of `describe` as a person reads it."""
    lines = [table["name"]]
    for name, net in table["networks"].items():
        lines += ["", name]
        head = ("layer", "kind", "output", "parameters", "statistics", "MFLOP")
        rows = [
            (
                r["layer"],
                r["kind"],
                "x".join(map(str, r["shape"])),
                f"{r['parameters']:,}",
                f"{r['statistics']:,}",
                f"{r['flops'] / 1e6:.1f}",
            )
            for r in net["layers"]
        ]
        both = net["parameters"] + net["statistics"]
        for row in (head, *rows):
            lines.append("  {:8} {:15} {:>12} {:>12} {:>11} {:>8}".format(*row))
        lines.append(
            f"  total {both:,} = {net['parameters']:,} trained + {net['statistics']:,} "
            f"statistics; {net['flops'] / 1e6:.1f} MFLOP per image forward"
        )
    return "\n".join(lines)


def newest(config: Config, run: Path, driver) -> tuple[Method, TrainState]:
    """The method, and the state of a run's newest whole checkpoint."""
    from anigan_jax import train_step

    method = config.method.make(None)
    like = jax.eval_shape(lambda: train_step.init_state(config, method))
    found = checkpoint.restore(run / "checkpoints", like)
    if found is None:
        raise UserError(f"{run} holds no checkpoint yet")
    return method, found.state


def _images(method: Method, state: TrainState, z: np.ndarray) -> np.ndarray:
    """Images of latents (n, Z), with the averaged weights where the run has them."""
    draw = jax.jit(method.generate)
    params = state.ema or state.params["g"]
    batches = [z[i : i + 64] for i in range(0, len(z), 64)]
    return np.concatenate([np.asarray(draw(params, state.stats["g"], b)) for b in batches])


def _latents(method: Method, n: int, seed: int) -> np.ndarray:
    key = rng.stream_key(rng.root_key(seed), rng.Stream.SAMPLE)
    return np.asarray(rng.normal(rng.example_keys(key, np.arange(n)), (method.z_dim,)))


def sample(method: Method, state: TrainState, run: Path, n: int, seed: int) -> Path:
    """A grid of `n` new images."""
    images = _images(method, state, _latents(method, n, seed))
    path = run / "sample" / f"step_{int(state.step):09d}_seed_{seed}.png"
    return record.save_image(record.grid(images), path)


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """Great-circle path between latents: lengths stay typical of a normal draw."""
    cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    angle = np.arccos(np.clip(cosine, -1, 1))
    if angle < 1e-6:
        return a
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def interpolate(method, state, run: Path, frames: int, stops: int, seed: int) -> list[Path]:
    """A closed path through `stops` latents: a GIF of `frames`, a grid of ten a leg."""
    ends = _latents(method, stops, seed)

    def path_of(steps: int) -> np.ndarray:
        rows = []
        for i in range(steps):
            leg, t = divmod(i * stops / steps, 1)
            rows.append(slerp(ends[int(leg)], ends[(int(leg) + 1) % stops], t))
        return np.stack(rows).astype(np.float32)

    stem = f"step_{int(state.step):09d}_seed_{seed}"
    pictures = record.to_uint8(_images(method, state, path_of(frames)))
    gif = record.save_gif(
        [record.grid(p[None], pad=0) for p in pictures], run / "interpolate" / f"{stem}.gif"
    )
    rows = _images(method, state, path_of(10 * stops))
    sheet = record.grid(rows, columns=10)
    return [gif, record.save_image(sheet, run / "interpolate" / f"{stem}.png")]


def kernels(state: TrainState, run: Path) -> Path:
    """D's first layer, each filter in its own range."""
    kernel = state.params["d"]["down1"]["weight"]["kernel"]
    path = run / "kernels" / f"step_{int(state.step):09d}.png"
    return record.save_image(record.kernel_grid(kernel), path)
