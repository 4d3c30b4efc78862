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

from anigan_jax.core import Array, generator_of
from anigan_jax.methods.augment import signed
from anigan_jax.perceptual.lpips import between, maps
from anigan_jax.sampling.grids import Model, generated, latents
from anigan_jax.storage.safetensors import unflatten

CANDIDATES = 256
CHUNK = 25
BLIND = 1 / 3
"""Share of the steps that all starts take, by pixels alone, which is a small part of the work."""


@dataclass(frozen=True)
class Settings:
    """How a latent is searched."""

    steps: int = 300
    """Steps of Adam."""
    restarts: int = 16
    """Starts, which take a third of the steps by pixels alone; the best one goes on."""
    learning_rate: float = 0.1
    """Rises over the first twentieth of the steps of each kind, falls over their last quarter."""
    pixels: float = 1.0
    """Weight of the mean squared difference of pixels, beside LPIPS's 1."""
    norm: float = 0.01
    """Weight of what keeps the latent's mean square near 1, as that of those trained with."""


class Found(NamedTuple):
    """A latent (Z,), what it shows (S, S, 3) uint8, and its LPIPS to the picture."""

    z: np.ndarray
    image: np.ndarray
    lpips: float


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
    text: np.ndarray | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Found:
    """The latent whose image comes nearest to a picture, by LPIPS and pixels.

    A pure function of its arguments. Loss and schedule follow Karras et al. 2020 (StyleGAN2),
    appendix D. Departs: pixels count too, and nothing is added to the latent. Of images of the
    model itself, many starts by pixels alone come near enough (Lipton and Tripathi 2017).

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
    candidates, images = begin
    apart = np.square(images.astype(np.float32) - target).mean((1, 2, 3))
    z = jnp.asarray(candidates[np.argsort(apart, kind="stable")[: settings.restarts]])
    advance, judge = _compiled(model.method.generate, settings)
    first, done = max(1, round(BLIND * settings.steps)), 0
    for sees, steps in ((False, first), (True, settings.steps - first)):
        moments = optax.scale_by_adam().init(z)
        for at in range(0, steps, CHUNK):
            count = min(CHUNK, steps - at)
            z, moments = advance(fixed, z, moments, at, count, steps, sees)
            done += count
            if report:
                report(done, settings.steps)
        total, apart = map(np.asarray, judge(fixed, z))
        best = int(np.argmin(total))
        z = z[best : best + 1]
    found = np.asarray(z[0])
    return Found(found, image_of(model, found, text), float(apart[best]))


def compared(vgg: dict[str, np.ndarray], target: np.ndarray) -> dict:
    """What images are compared with: the network, a picture (S, S, 3) uint8, and its maps."""
    network, picture = jax.tree.map(jnp.asarray, unflatten(vgg)), signed(target[None])
    return {"vgg": network, "target": picture, "maps": jax.jit(maps)(network, picture)}


def image_of(model: Model, z: np.ndarray, text: np.ndarray | None) -> np.ndarray:
    """(S, S, 3) uint8 of one latent (Z,) and one text (T,) or None."""
    return generated(model, z[None], None if text is None else np.asarray(text)[None])[0]


@functools.lru_cache(maxsize=8)
def _compiled(generate: Callable, settings: Settings):
    """(advance, judge) of a generator, compiled once for all pictures."""
    adam = optax.scale_by_adam()

    def losses(fixed: dict, z: Array, sees: bool = True) -> tuple[Array, Array]:
        """The loss of each latent (b, Z), and LPIPS alone; 0 where it is not looked at."""
        text = jnp.tile(fixed["text"], (len(z), 1)) if "text" in fixed else None
        images = generate(fixed["g"], fixed["stats"], z, text)
        pixels = jnp.square(images - fixed["target"]).mean((1, 2, 3))
        norm = jnp.square(jnp.square(z).mean(1) - 1)
        apart = jnp.zeros(len(z))
        if sees:
            apart = between(fixed["vgg"], maps(fixed["vgg"], images), fixed["maps"])
        return apart + settings.pixels * pixels + settings.norm * norm, apart

    def rate(done: Array) -> Array:
        fall = 0.5 - 0.5 * jnp.cos(jnp.pi * jnp.minimum(1, (1 - done) / 0.25))
        return settings.learning_rate * fall * jnp.minimum(1, done / 0.05)

    @functools.partial(jax.jit, static_argnames="sees")
    def advance(fixed: dict, z: Array, moments: Any, at: int, count: int, steps: int, sees: bool):
        def body(i, held):
            z, moments = held
            grads = jax.grad(lambda z: losses(fixed, z, sees)[0].sum())(z)
            updates, moments = adam.update(grads, moments)
            return z - rate((at + i) / steps) * updates, moments

        return jax.lax.fori_loop(0, count, body, (z, moments))

    return advance, jax.jit(losses)
