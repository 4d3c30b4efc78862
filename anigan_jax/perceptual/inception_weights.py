"""Inception-v3 of FID: its layers as a table, and its weights from the file that people have.

Ours: 'Mixed_5b/branch1x1/kernel' (kh, kw, Cin, Cout) and '.../bias' (Cout,), float32, with
batch norm folded in. Nothing is downloaded here and no pickle is trusted.

Source: the graph inception-2015-12-05 of TensorFlow by way of pytorch-fid/inception.py, which
names the layers; Szegedy et al. 2016 has the blocks (figures 5, 6, 7 and 10).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from anigan_jax.errors import UserError
from anigan_jax.perceptual import store
from anigan_jax.storage import safetensors

NAME, TITLE = "inception", store.TITLES["inception"]
SIDE = 299
FEATURES = 2048
EPSILON = 1e-3
CLASSES = 1008
"""Of the classifier behind the features; torchvision's own Inception-v3 has 1000."""
PUBLISHED = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""SHA-256 of pytorch-fid's file, which torch-fidelity publishes too."""
IGNORED = ("fc.", "AuxLogits.")


class Conv(NamedTuple):
    """A convolution (rows x columns) without bias, batch norm, ReLU."""

    name: str
    width: int
    rows: int = 1
    columns: int = 1
    stride: int = 1
    padding: str = "SAME"


class Pool(NamedTuple):
    """A pooling of 3x3; what lies outside the map counts neither as a value nor in the mean."""

    kind: str
    stride: int = 1
    padding: str = "SAME"


Branch = tuple[Conv | Pool, ...]
"""Layers in their order; branches of a block that start with the same layers share them."""
AVERAGE, MAX, HALVE = Pool("average"), Pool("max"), Pool("max", 2, "VALID")


def _a(pooled: int) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, 5, 5)),
        (
            Conv("branch3x3dbl_1", 64),
            Conv("branch3x3dbl_2", 96, 3, 3),
            Conv("branch3x3dbl_3", 96, 3, 3),
        ),
        (AVERAGE, Conv("branch_pool", pooled)),
    )


def _c(width: int) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", 192),),
        (
            Conv("branch7x7_1", width),
            Conv("branch7x7_2", width, 1, 7),
            Conv("branch7x7_3", 192, 7, 1),
        ),
        (
            Conv("branch7x7dbl_1", width),
            Conv("branch7x7dbl_2", width, 7, 1),
            Conv("branch7x7dbl_3", width, 1, 7),
            Conv("branch7x7dbl_4", width, 7, 1),
            Conv("branch7x7dbl_5", 192, 1, 7),
        ),
        (AVERAGE, Conv("branch_pool", 192)),
    )


def _e(pool: Pool) -> tuple[Branch, ...]:
    single = (Conv("branch3x3_1", 384),)
    double = (Conv("branch3x3dbl_1", 448), Conv("branch3x3dbl_2", 384, 3, 3))
    return (
        (Conv("branch1x1", 320),),
        (*single, Conv("branch3x3_2a", 384, 1, 3)),
        (*single, Conv("branch3x3_2b", 384, 3, 1)),
        (*double, Conv("branch3x3dbl_3a", 384, 1, 3)),
        (*double, Conv("branch3x3dbl_3b", 384, 3, 1)),
        (pool, Conv("branch_pool", 192)),
    )


BLOCKS: dict[str, tuple[Branch, ...]] = {
    "stem": (
        (
            Conv("Conv2d_1a_3x3", 32, 3, 3, 2, "VALID"),
            Conv("Conv2d_2a_3x3", 32, 3, 3, 1, "VALID"),
            Conv("Conv2d_2b_3x3", 64, 3, 3),
            HALVE,
            Conv("Conv2d_3b_1x1", 80),
            Conv("Conv2d_4a_3x3", 192, 3, 3, 1, "VALID"),
            HALVE,
        ),
    ),
    "Mixed_5b": _a(32),
    "Mixed_5c": _a(64),
    "Mixed_5d": _a(64),
    "Mixed_6a": (
        (Conv("branch3x3", 384, 3, 3, 2, "VALID"),),
        (
            Conv("branch3x3dbl_1", 64),
            Conv("branch3x3dbl_2", 96, 3, 3),
            Conv("branch3x3dbl_3", 96, 3, 3, 2, "VALID"),
        ),
        (HALVE,),
    ),
    "Mixed_6b": _c(128),
    "Mixed_6c": _c(160),
    "Mixed_6d": _c(160),
    "Mixed_6e": _c(192),
    "Mixed_7a": (
        (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, 3, 3, 2, "VALID")),
        (
            Conv("branch7x7x3_1", 192),
            Conv("branch7x7x3_2", 192, 1, 7),
            Conv("branch7x7x3_3", 192, 7, 1),
            Conv("branch7x7x3_4", 192, 3, 3, 2, "VALID"),
        ),
        (HALVE,),
    ),
    "Mixed_7b": _e(AVERAGE),
    # Departs: from the paper, which averages here; the published graph takes the largest.
    "Mixed_7c": _e(MAX),
}
"""In their order; a block's output is that of its branches, side by side."""


def shapes() -> dict[str, tuple[int, ...]]:
    """Our arrays and their shapes."""
    found, channels = {}, 3
    for block, branches in BLOCKS.items():
        total = 0
        for branch in branches:
            width = channels
            for layer in branch:
                if isinstance(layer, Conv):
                    path = f"{block}/{layer.name}"
                    found[f"{path}/kernel"] = (layer.rows, layer.columns, width, layer.width)
                    found[f"{path}/bias"] = (layer.width,)
                    width = layer.width
            total += width
        channels = total
    return found


def find(path: str = "") -> dict[str, np.ndarray]:
    """Converted weights, flat; `weights.unflatten` gives the parameters of `features`.

    Args:
      path: a file made by `convert`; '' is the one at home.

    Raises:
      UserError: absent (the sentence says what brings it), damaged, or another network.
    """
    file = store.kept(NAME, path)
    arrays = check(safetensors.read(file), file.name)
    store.check_unchanged(NAME, file, arrays)
    return arrays


def convert(
    source: str, out: Path | None = None, *, sha256: str | None = None
) -> tuple[Path, dict]:
    """Turns a source into our file.

    Args:
      source: pytorch-fid's pt_inception-2015-12-05-6726825d.pth, or safetensors with its names
        or ours.
      out: the file; None is the one at home.
      sha256: what the source file must have.

    Returns:
      The file, and what is recorded in it: network, source, source_sha256, content_sha256, and
      whether the source is the published file.

    Raises:
      UserError: the source is absent, unreadable, another file than its name or `sha256` says,
        or not this network.
    """
    path = Path(source)
    digest = store.meant(path, sha256)
    about = {
        "source": path.name,
        "source_sha256": digest,
        "published": digest == PUBLISHED,
        "input": f"RGB in [-1, 1], {SIDE}x{SIDE}",
    }
    return store.keep(NAME, check(read(path), path.name), out, about)


def read(path: Path) -> dict[str, np.ndarray]:
    """A .pth of either format, or safetensors -> arrays under their own names, not yet checked.

    Raises:
      UserError: it is neither, or damaged, or does more than hold arrays.
    """
    with store.readable(path, "Inception"):
        return store.state_dict(path, ("Conv2d_", "Mixed_", "fc."))


def check(arrays: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """Our arrays, whole, finite and of the right shapes, from ours or from PyTorch's.

    Raises:
      UserError: one of these does not hold.
    """
    if any(name.endswith(".conv.weight") for name in arrays):
        arrays = _folded(arrays, source)
    _check_names(set(arrays), set(shapes()), source)
    return store.floats(arrays, shapes(), source, TITLE)


def _check_names(there: set[str], wanted: set[str], source: str) -> None:
    if strange := sorted(there - wanted):
        raise UserError(f"{source} holds {strange[0][:80]!r}, which is no array of {TITLE}")
    if lacking := sorted(wanted - there):
        raise UserError(f"{source} holds no whole {TITLE}: look at {lacking[0]}")


def _folded(arrays: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """PyTorch's 'Mixed_5b.branch1x1.conv.weight' (Cout, Cin, kh, kw), '.bn.weight', ... as ours.

    With the running statistics, batch norm is linear: gamma (x - mean) / sqrt(variance + eps)
    + beta. It is folded in float64, so that one rounding remains.
    """
    # The two networks differ in nothing else that the names and shapes could tell.
    head = arrays.get("fc.weight")
    if head is not None and len(head) != CLASSES:
        told = f"a classifier of {len(head)} classes, not {CLASSES}"
        raise UserError(f"{source} is not the {TITLE} of FID: it has {told}")
    layers, wanted = {}, {}
    for name, shape in shapes().items():
        if name.endswith("/kernel"):
            ours = name.removesuffix("/kernel")
            layers[ours] = theirs = ours.removeprefix("stem/").replace("/", ".")
            wanted[f"{theirs}.conv.weight"] = (shape[3], shape[2], *shape[:2])
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                wanted[f"{theirs}.bn.{leaf}"] = shape[3:]
    there = {
        name
        for name in arrays
        if not name.startswith(IGNORED) and not name.endswith(".num_batches_tracked")
    }
    _check_names(there, set(wanted), source)
    checked = store.floats(arrays, wanted, source, TITLE)
    found = {}
    for ours, theirs in layers.items():
        kernel, gamma, beta, mean, variance = (
            checked[f"{theirs}.{leaf}"].astype(np.float64)
            for leaf in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
        )
        if variance.min() < 0:
            raise UserError(f"{source}: {theirs}.bn.running_var holds a negative variance")
        scale = gamma / np.sqrt(variance + EPSILON)
        found[f"{ours}/kernel"] = kernel.transpose(2, 3, 1, 0) * scale
        found[f"{ours}/bias"] = beta - mean * scale
    return found
