"""The generators alone in half precision: a small file that `load` opens."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from anigan_jax.api import Trained
from anigan_jax.core import PyTree, generator_of
from anigan_jax.errors import UserError
from anigan_jax.export import about
from anigan_jax.storage import run_dir, safetensors


def write(trained: Trained, folder: Path) -> dict[str, str]:
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
    state = trained.model.state.replace(
        params={"g": jax.tree.map(_halved, params)}, stats={"g": stats}, ema={}, ema_stats={}
    )
    constants: PyTree = trained.model.constants if trained.method.texts else {}
    run_dir.export_weights(folder, about.published(trained.config), state, constants)
    size = (folder / safetensors.WEIGHTS).stat().st_size
    return {safetensors.WEIGHTS: f"{size / 1e6:.1f} MB, float16"}


def _halved(array) -> np.ndarray:
    array = np.asarray(array)
    return array.astype(np.float16) if array.ndim > 1 else array
