"""Running a compiled function over many rows; NumPy on the host."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BATCH = 256


def in_batches(run: Callable, images: np.ndarray) -> np.ndarray:
    """Rows of run(images (BATCH, ...)) for (n, ...) images, n at least 1."""
    out = []
    for at in range(0, len(images), BATCH):
        part = np.asarray(images[at : at + BATCH])
        # One shape for the last batch too: each new shape is compiled.
        full = np.zeros((BATCH, *part.shape[1:]), part.dtype)
        full[: len(part)] = part
        out.append(np.asarray(run(full))[: len(part)])
    return np.concatenate(out)
