"""The generators alone in half precision: a small file that `load` opens."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from anigan_jax.core import generator_of
from anigan_jax.errors import UserError
from anigan_jax.export import about
from anigan_jax.opened import Opened, write_weights
from anigan_jax.sampling import grids
from anigan_jax.storage import safetensors

HALF = np.finfo(np.float16).max


def write(trained: Opened, folder: Path, data_license: str) -> dict[str, str]:
    """Writes weights.safetensors: what G draws with, and what it is asked with.

    Gives its name and size, as `files.write`.

    Kernels and tables of two and more axes are float16, which `load` widens; what is added to
    them or divides them (biases, scales, statistics) stays float32.

    Raises:
      UserError: the run has no generator.
    """
    if not trained.config.method.has_generator:
        raise UserError("this run trains no generator; it has nothing to export")
    params, stats = generator_of(trained.model.state)
    small = grids.with_generator(trained.model, jax.tree.map(halved, params), stats)
    small = small._replace(alone=grids.weights_of(trained.model))
    told = about.license_of(trained, data_license)
    public = trained._replace(config=about.published(trained.config))
    write_weights(public, small, folder, data_license=told)
    size = (folder / safetensors.WEIGHTS).stat().st_size
    return {safetensors.WEIGHTS: f"{size / 1e6:.1f} MB, float16"}


def halved(array: np.ndarray) -> np.ndarray:
    """Kernels and tables, any float32 shape of two and more axes, as float16; others as they are.

    Vectors are few, and variances may be smaller than float16 can hold. An array with a number
    that it cannot hold stays whole.
    """
    array = np.asarray(array)
    fits = array.dtype == np.float32 and array.ndim > 1 and np.abs(array).max(initial=0) < HALF
    return array.astype(np.float16) if fits else array
