"""Running a compiled function over many rows; NumPy on the host."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BATCH = 256


def in_batches(run: Callable, images: np.ndarray, batch: int = BATCH):
    """Rows of run(images (batch, ...)) for (n, ...) images, n at least 1.

    `run` returns an array, or a dict of arrays, with a row for each image.
    """
    outputs = []
    for start in range(0, len(images), batch):
        rows = np.asarray(images[start : start + batch])
        # One shape for the last batch too: each new shape is compiled.
        padded = np.zeros((batch, *rows.shape[1:]), rows.dtype)
        padded[: len(rows)] = rows
        output = run(padded)
        named = output if isinstance(output, dict) else {"": output}
        outputs.append({name: np.asarray(x)[: len(rows)] for name, x in named.items()})
    joined = {name: np.concatenate([part[name] for part in outputs]) for name in outputs[0]}
    return joined.get("", joined)
