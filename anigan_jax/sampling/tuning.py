"""A generator that is fitted to one picture, at the latent that was found for it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from anigan_jax.core import PyTree, generator_of
from anigan_jax.perceptual.lpips import between, maps
from anigan_jax.sampling.grids import Model, with_generator
from anigan_jax.sampling.projection import CHUNK, compared, image_of


@dataclass(frozen=True)
class Settings:
    """How a generator is tuned."""

    steps: int = 350
    """Steps of Adam at most."""
    learning_rate: float = 3e-4
    enough: float = 0.06
    """LPIPS at which it stops, looked at every `projection.CHUNK` steps."""


class Tuned(NamedTuple):
    """A model with tuned weights, what it shows (S, S, 3) uint8, and its LPIPS to the picture."""

    model: Model
    image: np.ndarray
    lpips: float


def tune(
    model: Model,
    vgg: dict[str, np.ndarray],
    target: np.ndarray,
    z: np.ndarray,
    settings: Settings,
    text: np.ndarray | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Tuned:
    """Fits all weights of G so that a latent shows a picture; a pure function of its arguments.

    Args:
      vgg: as `convert.load('vgg16', heads=True)` reads them.
      target: (S, S, 3) uint8, of the model's size.
      z: (Z,) that `projection.project` found; it stays as it is.
      text: (T,) where the generator reads texts.
      report: called with (steps done, steps in all).

    Returns:
      The model, of which only G is left, without averaged weights beside it.

    Source: Roich et al. 2021 (pivotal tuning), eq. 3: LPIPS and mean squared difference of pixels,
    equally weighted. Departs: without its regularization of the images of other latents.
    """
    params, stats = generator_of(model.state)
    fixed = {"stats": stats, "z": z[None], **compared(vgg, target)}
    if text is not None:
        fixed["text"] = jnp.asarray(text)[None]
    advance, judge = _compiled(model.method.generate, settings.learning_rate)
    moments = optax.adam(settings.learning_rate).init(params)
    steps, done = settings.steps, 0
    apart = float(judge(fixed, params))
    while done < steps and apart > settings.enough:
        count = min(CHUNK, steps - done)
        params, moments = advance(fixed, params, moments, count)
        apart, done = float(judge(fixed, params)), done + count
        if report:
            report(done, steps)
    if report and done < steps:
        report(steps, steps)
    tuned = with_generator(model, params, stats)
    return Tuned(tuned, image_of(tuned, z, text), apart)


@functools.lru_cache(maxsize=8)
def _compiled(generate: Callable, learning_rate: float):
    """(advance, judge) of a generator, compiled once for all pictures."""
    optimizer = optax.adam(learning_rate)

    def parts(fixed: dict, params: PyTree):
        """LPIPS of the latent's image to the picture, and the image."""
        image = generate(params, fixed["stats"], fixed["z"], fixed.get("text"))
        return between(fixed["vgg"], maps(fixed["vgg"], image), fixed["maps"]).sum(), image

    def loss(params: PyTree, fixed: dict):
        apart, image = parts(fixed, params)
        return apart + jnp.square(image - fixed["target"]).mean()

    @jax.jit
    def advance(fixed: dict, params: PyTree, moments: PyTree, count: int):
        def body(_, held):
            params, moments = held
            updates, moments = optimizer.update(jax.grad(loss)(params, fixed), moments)
            return optax.apply_updates(params, updates), moments

        return jax.lax.fori_loop(0, count, body, (params, moments))

    return advance, jax.jit(lambda fixed, params: parts(fixed, params)[0])
