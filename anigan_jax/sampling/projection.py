"""The latent of a picture, found by gradient descent through the generator."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from anigan_jax import rng
from anigan_jax.core import Array, generator_of
from anigan_jax.methods.augment import signed
from anigan_jax.perceptual.lpips import between, maps
from anigan_jax.sampling.grids import Model, generated, latents
from anigan_jax.storage.safetensors import unflatten

CANDIDATES = 256
CHUNK = 25
KEPT = 2
"""Starts that are followed to the end."""
FIRST = 0.2
"""Share of the steps that all starts take."""


@dataclass(frozen=True)
class Settings:
    """How a latent is searched."""

    steps: int = 500
    """Steps of Adam."""
    restarts: int = 8
    """Starts; after a fifth of the steps the best two go on."""
    learning_rate: float = 0.1
    """Rises over the first twentieth of the steps, falls over the last quarter."""
    noise: float = 0.05
    """Standard deviation of what is added to the latent, which fades until three quarters."""
    pixels: float = 1.0
    """Weight of the mean squared difference of pixels, beside LPIPS's 1."""
    norm: float = 0.01
    """Weight of what keeps the latent's mean square near 1, as that of those trained with."""


class Found(NamedTuple):
    """A latent (Z,), what it shows (S, S, 3) uint8, and its LPIPS to the picture."""

    z: np.ndarray
    image: np.ndarray
    lpips: float


class Search(NamedTuple):
    """Starts (b, Z) on their way, with Adam's state."""

    z: Array
    moments: Any


def starts(model: Model, seed: int, text: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Latents (c, Z) to begin from, and their images; the same for every picture."""
    z = latents(model.method, CANDIDATES, seed)
    return z, generated(model, z, None if text is None else np.tile(text, (len(z), 1)))


def project(
    model: Model,
    vgg: dict[str, np.ndarray],
    target: np.ndarray,
    begin: tuple[np.ndarray, np.ndarray],
    settings: Settings,
    seed: int = 0,
    text: np.ndarray | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Found:
    """The latent whose image comes nearest to a picture, by LPIPS and pixels.

    A pure function of its arguments. Loss and schedule follow Karras et al. 2020 (StyleGAN2),
    appendix D.

    Args:
      vgg: as `convert.load('vgg16', heads=True)` reads them.
      target: (S, S, 3) uint8, of the model's size.
      begin: of `starts`.
      text: (T,) where the generator reads texts.
      report: called with (steps done, steps in all).
    """
    params, stats = generator_of(model.state)
    fixed = {"g": params, "stats": stats, **compared(vgg, target)}
    if text is not None:
        fixed["text"] = jnp.asarray(text)
    key = rng.stream_key(rng.root_key(seed), rng.Stream.PROJECT)
    z, images = begin
    apart = np.square(images.astype(np.float32) - target).mean((1, 2, 3))
    chosen = np.argsort(apart, kind="stable")[: settings.restarts]
    advance, judge = _compiled(model.method.generate, settings)
    search = Search(jnp.asarray(z[chosen]), _optimizer(settings).init(jnp.asarray(z[chosen])))
    steps, first = settings.steps, max(1, round(FIRST * settings.steps))
    for at in range(0, steps, CHUNK):
        if at >= first and len(search.z) > KEPT:
            search = _best(search, np.asarray(judge(fixed, search.z)[0]))
        search = advance(fixed, search, key, at, min(CHUNK, steps - at))
        if report:
            report(min(at + CHUNK, steps), steps)
    total, apart = map(np.asarray, judge(fixed, search.z))
    best = int(np.argmin(total))
    z = np.asarray(search.z[best])
    return Found(z, image_of(model, z, text), float(apart[best]))


def compared(vgg: dict[str, np.ndarray], target: np.ndarray) -> dict:
    """What images are compared with: the network, a picture (S, S, 3) uint8, and its maps."""
    network, picture = jax.tree.map(jnp.asarray, unflatten(vgg)), signed(target[None])
    return {"vgg": network, "target": picture, "maps": jax.jit(maps)(network, picture)}


def image_of(model: Model, z: np.ndarray, text: np.ndarray | None) -> np.ndarray:
    """(S, S, 3) uint8 of one latent (Z,) and one text (T,) or None."""
    return generated(model, z[None], None if text is None else np.asarray(text)[None])[0]


def _best(search: Search, losses: np.ndarray) -> Search:
    rows = np.argsort(losses, kind="stable")[:KEPT]
    return jax.tree.map(lambda x: x[rows] if x.ndim else x, search)


def _optimizer(settings: Settings) -> optax.GradientTransformation:
    def rate(count):
        done = count / settings.steps
        fall = 0.5 - 0.5 * jnp.cos(jnp.pi * jnp.minimum(1, (1 - done) / 0.25))
        return settings.learning_rate * fall * jnp.minimum(1, done / 0.05)

    return optax.adam(rate)


@functools.lru_cache(maxsize=8)
def _compiled(generate: Callable, settings: Settings):
    """(advance, judge) of a generator, compiled once for all pictures."""
    optimizer = _optimizer(settings)

    def losses(fixed: dict, z: Array) -> tuple[Array, Array]:
        """The loss of each latent (b, Z), and LPIPS alone."""
        text = jnp.tile(fixed["text"], (len(z), 1)) if "text" in fixed else None
        images = generate(fixed["g"], fixed["stats"], z, text)
        apart = between(fixed["vgg"], maps(fixed["vgg"], images), fixed["maps"])
        pixels = jnp.square(images - fixed["target"]).mean((1, 2, 3))
        norm = jnp.square(jnp.square(z).mean(1) - 1)
        return apart + settings.pixels * pixels + settings.norm * norm, apart

    def step(fixed: dict, key: Array, search: Search, at: Array) -> Search:
        fade = jnp.maximum(0, 1 - at / settings.steps / 0.75) ** 2
        noise = jax.random.normal(jax.random.fold_in(key, at), search.z.shape)
        moved = search.z + settings.noise * fade * noise
        grads = jax.grad(lambda z: losses(fixed, z)[0].sum())(moved)
        updates, moments = optimizer.update(grads, search.moments)
        return Search(optax.apply_updates(search.z, updates), moments)

    @jax.jit
    def advance(fixed: dict, search: Search, key: Array, at: int, count: int) -> Search:
        def body(i, search):
            return step(fixed, key, search, at + i)

        return jax.lax.fori_loop(0, count, body, search)

    return advance, jax.jit(losses)
