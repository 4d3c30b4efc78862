"""Running a compiled function over many rows; NumPy on the host."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BATCH = 256


def in_batches(run: Callable, images: np.ndarray, batch: int = BATCH):
    """Rows of run(images (batch, ...)) for (n, ...) images, n at least 1.

    `run` gives an array, or a dict of arrays, with a row for each image.
    """
    out = []
    for at in range(0, len(images), batch):
        part = np.asarray(images[at : at + batch])
        # One shape for the last batch too: each new shape is compiled.
        full = np.zeros((batch, *part.shape[1:]), part.dtype)
        full[: len(part)] = part
        made = run(full)
        named = made if isinstance(made, dict) else {"": made}
        out.append({name: np.asarray(rows)[: len(part)] for name, rows in named.items()})
    joined = {name: np.concatenate([part[name] for part in out]) for name in out[0]}
    return joined.get("", joined)
