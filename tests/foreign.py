"""Weights as other programs save them, honest and hostile."""

import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from oracles.vgg import thin

from anigan_jax.perceptual import vgg

# torchvision's numbering, written out: a convolution, its ReLU, and five poolings.
FEATURES = {
    16: (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    19: (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
}


def torchvisions(depth: int) -> dict[str, np.ndarray]:
    flat, found = thin(depth), {}
    for at, name in zip(FEATURES[depth], vgg.convolutions(depth), strict=True):
        kernel = flat[f"{name}/kernel"].transpose(3, 2, 0, 1)
        found[f"features.{at}.weight"] = np.ascontiguousarray(kernel)
        found[f"features.{at}.bias"] = flat[f"{name}/bias"]
    return found | {"classifier.0.weight": np.zeros((2, 2), np.float32)}


def save_torch(path: Path, arrays: dict, **options) -> Path:
    torch = pytest.importorskip("torch")
    state = OrderedDict((name, torch.tensor(value)) for name, value in arrays.items())
    state._metadata = OrderedDict({"": {"version": 1}})
    torch.save(state, path, **options)
    return path


class Payload:
    """Unpickled by anybody else, it makes a file."""

    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def zipped(path: Path, records: dict[str, bytes], compression=zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in ({"version": b"3\n"} | records).items():
            archive.writestr(f"archive/{name}", data)
    return path
