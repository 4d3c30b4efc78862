"""Directions in latent space, along which what images show changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from anigan_jax.core import generator_of
from anigan_jax.data.attributes import Attributes, Label, row, say
from anigan_jax.errors import UserError
from anigan_jax.metrics import attributes
from anigan_jax.sampling.grids import Model, generated
from anigan_jax.sampling.latents import Latents, along, take
from anigan_jax.storage.images import table

SHOWN, ABREAST = 8, 4
"""Directions on a sheet, and latents that each is shown of."""
RIDGE = 1e-3
"""Penalty of the regression, as a share of the latents' variance."""


class Judge(NamedTuple):
    """What tells what images show.

    Attributes:
      scores: images (n, H, W, 3) uint8 -> (n, T) of the classes of each attribute in turn.
      attributes: A, of T classes in all.
    """

    scores: Callable[[np.ndarray], np.ndarray]
    attributes: Attributes

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(a.classes) for a in self.attributes)


def effects(z: np.ndarray, scores: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """How the score of each class follows the latent: ridge regression of scores on latents.

    Scores of an attribute are taken relative to their mean over its classes, because only their
    differences decide.

    Args:
      z: (n, Z) latents; scores: (n, T) of their images; sizes: classes of each attribute.

    Returns:
      (Z, C) slopes of each attribute of C classes.
    """
    z, scores = (np.asarray(x, np.float64) for x in (z, scores))
    z = z - z.mean(0)
    gram = z.T @ z
    penalty = RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    slopes = np.linalg.solve(gram + penalty, z.T @ (scores - scores.mean(0)))
    parts = np.split(slopes, np.cumsum(sizes)[:-1], axis=1)
    return [part - part.mean(1, keepdims=True) for part in parts]


def toward(slopes: Sequence[np.ndarray], wanted: dict[int, int]) -> np.ndarray:
    """The direction (Z,) of length 1 toward classes, along which other attributes stay.

    It is orthogonal to the slopes of every attribute that is not named, or where these span
    more than half of the latent space, to the half that they follow most.

    Args:
      slopes: of `effects`.
      wanted: number of an attribute -> number of its class.

    Raises:
      ValueError: no latent changes these classes.

    Source: Shen et al. 2020 (InterFaceGAN), section 3.2, conditional manipulation.
    """
    direction = sum(_unit(slopes[i][:, chosen]) for i, chosen in wanted.items())
    kept = [part for i, part in enumerate(slopes) if i not in wanted]
    if kept:
        basis, strength, _ = np.linalg.svd(np.concatenate(kept, axis=1), full_matrices=False)
        rank = int((strength > 1e-9 * strength.max(initial=0)).sum())
        basis = basis[:, : min(rank, len(basis) // 2)]
        direction = direction - basis @ (basis.T @ direction)
    return _unit(direction)


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    if not length > 1e-9:
        raise ValueError("no latent changes it")
    return vector / length


def sefa(weight: np.ndarray) -> np.ndarray:
    """Directions (Z, Z) of length 1, a row each, that change a first layer's output the most.

    They are the eigenvectors of the layer's Gram matrix, strongest first; the largest entry of
    each is positive.

    Args:
      weight: (Z, N) from a latent to the layer's N outputs.

    Source: Shen and Zhou 2021 (SeFa), eq. 8; as in their code, each output's weights are scaled
    to length 1.
    """
    weight = np.asarray(weight, np.float64)
    length = np.linalg.norm(weight, axis=0)
    scaled = weight / np.where(length > 0, length, 1)
    rows = np.linalg.eigh(scaled @ scaled.T)[1].T[::-1]
    largest = np.abs(rows).argmax(1)
    return rows * np.sign(rows[np.arange(len(rows)), largest])[:, None]


def first_layer(model: Model) -> np.ndarray:
    """(Z, N) weights from the latent to the first layer of a generator.

    Raises:
      UserError: it has no such layer that is known here.
    """
    params, _ = generator_of(model.state)
    kernel = params.get("stem", {}).get("weight", {}).get("kernel")
    if kernel is None or kernel.shape[-2] < model.method.z_dim:
        raise UserError("the generator of this run has no first layer 'stem'; use --toward")
    # A text comes behind the latent.
    kernel = np.asarray(kernel)[..., : model.method.z_dim, :]
    return np.moveaxis(kernel, -2, 0).reshape(model.method.z_dim, -1)


def sheet(model: Model, held: Latents, rows: np.ndarray, amount: float) -> Image.Image:
    """The first directions of (Z, Z), a row each; latents moved by -amount, half, 0 and so on."""
    rows, held = rows[:SHOWN], take(held, np.arange(len(held.z))[:ABREAST])
    amounts = [part * amount for part in (-1, -0.5, 0, 0.5, 1)]
    moved = [[along(held, row, part) for part in amounts] for row in rows]
    made = np.array([[generated(model, each.z, each.text) for each in line] for line in moved])
    # (rows, amounts, latents, ...): the latents beside each other.
    made = np.moveaxis(made, 2, 1).reshape(len(rows), -1, *made.shape[3:])
    titles = [f"direction {i}" for i in range(1, len(rows) + 1)]
    return table(made, titles, [f"{part:.3g}" for part in amounts] * len(held.z))


def random(z_dim: int, seed: int) -> np.ndarray:
    """A direction (Z,) of length 1 that means nothing: the control."""
    return _unit(np.random.default_rng(seed).normal(size=z_dim))


def learned(model: Model, judge: Judge, label: Label, held: Latents) -> np.ndarray:
    """The direction (Z,) toward the classes of a label, learned from images of latents.

    Raises:
      UserError: these latents do not change the classes.
    """
    slopes = effects(held.z, judge.scores(generated(model, held.z, held.text)), judge.sizes)
    try:
        return toward(slopes, _numbers(judge, label))
    except ValueError:
        said = say(judge.attributes, label)
        raise UserError(f"no latent of this run changes the scores of {said!r}") from None


def measure(
    model: Model,
    judge: Judge,
    label: Label,
    held: Latents,
    directions: dict[str, np.ndarray],
    amount: float,
) -> dict[str, dict[str, dict]]:
    """What moving does to latents, those left out that show the classes of a label already.

    Returns:
      For each direction the shares of images that come to show all of the label, 'reached', and
      that keep their class of each other attribute, 'NAME kept'.

    Raises:
      UserError: every image shows the label already.
    """
    wanted = _numbers(judge, label)
    columns, classes = [*wanted], [*wanted.values()]

    def found(held: Latents) -> np.ndarray:
        return attributes.best(judge.scores(generated(model, held.z, held.text)), judge.sizes)

    before = found(held)
    rest = np.flatnonzero((before[:, columns] != classes).any(1))
    if not len(rest):
        raise UserError(f"all {len(before)} images show it already; nothing can be measured")
    before, held = before[rest], take(held, rest)
    shares: dict = {}
    for name, direction in directions.items():
        after = found(along(held, direction, amount))
        right = {"reached": (after[:, columns] == classes).all(1)}
        for i, attribute in enumerate(judge.attributes):
            if i not in wanted:
                right[f"{attribute.name} kept"] = after[:, i] == before[:, i]
        shares[name] = {what: attributes.share(each)._asdict() for what, each in right.items()}
    return shares


def _numbers(judge: Judge, label: Label) -> dict[int, int]:
    """Number of an attribute -> that of its class, for those that a label names."""
    return {i: c for i, c in enumerate(row(judge.attributes, label)) if c >= 0}
