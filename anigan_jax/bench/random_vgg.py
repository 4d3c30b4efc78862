"""A VGG that nobody trained, for benchmarks: as much work as the real one."""

from __future__ import annotations

import numpy as np

from anigan_jax.perceptual.vgg import WIDTHS, convolutions


def random_vgg(depth: int) -> dict[str, np.ndarray]:
    """Arrays of full width, as `convert.load` reads them, drawn after He et al. 2015."""
    draws, arrays, below = np.random.default_rng(0), {}, 3
    for name in convolutions(depth):
        width = WIDTHS[int(name[4]) - 1]
        kernel = draws.standard_normal((3, 3, below, width), np.float32)
        arrays[f"{name}/kernel"] = kernel * np.float32(np.sqrt(2 / (9 * below)))
        arrays[f"{name}/bias"] = np.zeros(width, np.float32)
        below = width
    return arrays
