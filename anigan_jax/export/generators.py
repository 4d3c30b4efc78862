"""The generators of a run as pure functions of named arrays: what every exported file holds."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors.numpy import save

from anigan_jax.core import Array, PyTree, Texts, generator_of
from anigan_jax.data import attributes
from anigan_jax.data.synthetic import painted, photo
from anigan_jax.errors import UserError
from anigan_jax.methods.augment import signed
from anigan_jax.opened import Opened
from anigan_jax.sampling import grids, prompts
from anigan_jax.storage import safetensors

SEED = 0
"""Of the sample that each file brings along."""


class Generator(NamedTuple):
    """A generator of a run.

    Attributes:
      name: 'generator', or the direction of a translation, 'ab' or 'ba'.
      module: its Flax module, which computes in float32; None where the method names none.
      weights: (params, stats), those that are drawn with.
      unit_range: whether the module's images are in [0, 1], not in [-1, 1].
      table: (S1, ..., SA, T) a text's vector for each class of each attribute, where the
        generator is asked by labels; else None.
      sample: input -> an array of one row: 'z' (1, Z) float32 latents; beside it 'label' (1, A)
        int32 classes or 'text' (1, T) float32; or 'source' (1, S, S, 3) float32 in [-1, 1].
      apply: (weights, *inputs of n rows) -> images (n, H, W, 3) float32 in [-1, 1]; or RGBA, its
        colors multiplied by alpha.
    """

    name: str
    module: Any
    weights: tuple[PyTree, PyTree]
    unit_range: bool
    table: np.ndarray | None
    sample: dict[str, np.ndarray]
    apply: Callable[..., Array]

    def images(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Images (n, H, W, 3) float32 in [-1, 1] of n rows of each input."""
        return np.asarray(jax.jit(self.apply)(self.weights, *inputs.values()))

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights as a safetensors file."""
        params, stats = self.weights
        flat = safetensors.flatten({"params": params, "stats": stats})
        return hashlib.sha256(save(flat)).hexdigest()


def generators_of(trained: Opened, dtype: str | None = None) -> list[Generator]:
    """The generators of a run, with the weights that it was loaded with.

    Args:
      dtype: what their products are computed in; None: what the run was trained in.

    Raises:
      UserError: the run has none.
    """
    settings = trained.config.method
    if not settings.has_generator:
        raise UserError("this run trains no generator; it has nothing to export")
    changes = {"dtype": dtype} if dtype and hasattr(settings, "dtype") else {}
    method = dataclasses.replace(settings, **changes).make()
    params, stats = generator_of(trained.model.state)
    if not method.translate:
        return [_from_noise(trained, method.generate, (params, stats))]
    ways = method.translate.items()
    return [_translator(settings, name, change, (params, stats)) for name, change in ways]


def _module(settings: Any) -> Any:
    try:
        return settings.networks()["generator"][0]
    except (NotImplementedError, KeyError):
        return None


def _from_noise(trained: Opened, generate: Callable, weights: tuple) -> Generator:
    settings, texts, table = trained.config.method, trained.model.texts, None
    sample = {"z": grids.latents(trained.method, 1, SEED)}
    if texts is not None:
        prompt = prompts.from_data(texts, 1, SEED)[0]
        table = label_table(texts)
        if table is None:
            sample["text"] = texts.encode([prompt])
        else:
            row = attributes.row(texts.attributes, prompt.label)
            sample["label"] = np.array([row], np.int32)

    def apply(weights, z: Array, asked: Array | None = None) -> Array:
        text = asked if table is None else jax.numpy.asarray(table)[tuple(asked.T)]
        return generate(*weights, z, text)

    unit_range = getattr(getattr(settings, "generator", None), "unit_range", False)
    return Generator("generator", _module(settings), weights, unit_range, table, sample, apply)


def _translator(settings: Any, direction: str, change: Callable, both: tuple) -> Generator:
    """The generator of one direction; `both`: weights of what may be two networks."""
    # Of two networks each has its own.
    alone = direction not in both[0]
    weights = both if alone else tuple(tree[direction] for tree in both)
    painter = photo if direction == "ab" else painted
    sample = {"source": np.asarray(signed(painter.paint(SEED, 0, settings.size)[None]))}

    def apply(weights, source: Array) -> Array:
        params, stats = weights if alone else ({direction: tree} for tree in weights)
        return change(params, stats, source)

    return Generator(direction, _module(settings), weights, False, None, sample, apply)


def label_table(texts: Texts) -> np.ndarray | None:
    """(S1, ..., SA, T) vectors of each class of each attribute.

    None where the combinations are too many for a table, or some have no text.
    """
    sizes = [len(attribute.classes) for attribute in texts.attributes]
    if len(texts.combinations) < math.prod(sizes) or not np.all(texts.wordings):
        return None
    asked = [prompts.of_row(texts.attributes, row) for row in texts.combinations]
    return np.asarray(texts.encode(asked), np.float32).reshape(*sizes, -1)
