"""What judges see of images: networks with fixed weights, uint8 images in, feature rows out.

Every image takes one path: uint8, one antialiased resize, scaled to [-1, 1], network. So
generated and real images differ by nothing but what they show (Parmar et al. 2022).
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax.data.alpha import BACKGROUNDS, over
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import UserError
from anigan_jax.methods.augment import signed
from anigan_jax.networks.ops.conv import conv
from anigan_jax.perceptual import convert, store
from anigan_jax.perceptual import inception as inception_net
from anigan_jax.perceptual.vgg import VGG
from anigan_jax.runtime.batching import in_batches
from anigan_jax.runtime.environment import cache_home, expanded, facts
from anigan_jax.storage import run_dir, safetensors

VGG_TAP = "relu5_3"
RESIZE = "bicubic (a = -0.5), antialiased, in float32"
# Small, so that the networks' maps stay in a CPU's cache.
BATCH = 32
WORTH_SAYING = 1000


class Network(NamedTuple):
    """A feature network, ready to run.

    Attributes:
      name: as in 'KID-vgg16'.
      about: which of its numbers are taken.
      side: images are resized to (side, side).
      dimensions: length d of a feature row.
      sha256: of the names, shapes and values of the weights that it uses.
      run: (n, H, W, 3) uint8 -> (n, d) float32, compiled.
      background: of transparent images, which it sees laid over it; '': it sees RGB alone.
    """

    name: str
    about: str
    side: int
    dimensions: int
    sha256: str
    run: Callable
    background: str = ""

    def protocol(self) -> dict:
        """What must be equal where two numbers are to be compared."""
        resize = f"{RESIZE}, to {self.side} px"
        return {
            "network": self.name,
            "sha256": self.sha256,
            "features": f"{self.dimensions} numbers: {self.about}",
            "resize": resize,
            **({"background": self.background} if self.background else {}),
        }


def resize(images: jax.Array, side: int) -> jax.Array:
    """Images (n, H, W, 3) uint8 -> (n, side, side, 3) float32 in [-1, 1].

    Cubic with a = -0.5, widened to the scale where the image shrinks, as Pillow's BICUBIC;
    images of that side already are left as they are.
    """
    shape = (len(images), side, side, 3)
    return jnp.clip(jax.image.resize(signed(images), shape, "cubic", antialias=True), -1, 1)


def vgg16(path: str = "") -> Network:
    """VGG16 trained on ImageNet, the mean over space of its deepest map; 512 numbers.

    Args:
      path: a file made by `anigan weights vgg16`; '' for the one in the cache.

    Raises:
      UserError: it is missing; the message says how to get it.
    """
    arrays = convert.load("vgg16", path, taps=(VGG_TAP,))
    net = VGG(16, (VGG_TAP,), "imagenet")

    def run(params, images):
        (maps,) = net.apply({"params": params}, images)
        return maps.mean((1, 2))

    # Of the convolutions alone: the same whether the file has the heads of LPIPS or not.
    sha256 = store.content_sha256(arrays)
    width = len(arrays[f"{VGG_TAP.replace('relu', 'conv')}/bias"])
    return _network("vgg16", f"{VGG_TAP}, mean over space", 64, width, sha256, run, arrays)


def inception(path: str = "") -> Network:
    """Inception-v3 as FID has it: pool3, 2048 numbers.

    Args:
      path: a file made by `anigan weights inception`; '' for the one in the cache.

    Departs: the published FID resizes inside the network by TensorFlow's bilinear rule without
    antialiasing; here as all networks' images.
    """
    arrays = convert.load("inception", path)
    sha256, run = store.content_sha256(arrays), inception_net.features
    side, dimensions = inception_net.SIDE, inception_net.FEATURES
    return _network("inception", "pool3", side, dimensions, sha256, run, arrays)


def random(path: str = "") -> Network:
    """Three convolutions that nobody trained: for tests and where nothing else is at hand.

    It tells colors and coarse texture apart, hardly what an image shows.
    """
    del path
    rng, arrays, channels = np.random.default_rng(0), {}, 3
    for i, width in enumerate((16, 32, 32)):
        scale = np.sqrt(2 / (16 * channels))
        kernel = rng.standard_normal((4, 4, channels, width)) * scale
        arrays[f"conv{i}/kernel"] = kernel.astype(np.float32)
        channels = width

    def run(params, x):
        for i in range(3):
            x = conv(x, params[f"conv{i}"]["kernel"], stride=2, pads=((1, 1), (1, 1)))
            x = jax.nn.leaky_relu(x, 0.2)
        return x.mean((1, 2))

    sha256 = store.content_sha256(arrays)
    return _network("random", "last map, mean over space", 32, channels, sha256, run, arrays)


def _network(name, about, side, dimensions, sha256, run, arrays) -> Network:
    params = jax.tree.map(jnp.asarray, safetensors.unflatten(arrays))

    @jax.jit
    def compiled(params, images):
        # GPUs and TPUs would round what they multiply, which moves the distances.
        with jax.default_matmul_precision("highest"):
            return run(params, resize(images, side))

    return Network(name, about, side, dimensions, sha256, lambda x: compiled(params, x))


NETWORKS = {"vgg16": vgg16, "inception": inception, "random": random}


def classifier(run: Path) -> Network:
    """The classifier that a run of this package trained: its map before the logits.

    It owes nothing to ImageNet, so it does not favor a generator that learned from ImageNet's
    features, and sees what its own classes are told by.

    Args:
      run: its run directory, or its file of weights.

    Returns:
      The network, named as the run's config.

    Raises:
      UserError: it is not a run of a classifier, holds no weights yet, or needs code of its own.
    """
    file = run / safetensors.WEIGHTS if run.is_dir() else run
    if not file.exists():
        raise UserError(f"{run} is not a run directory with weights (no {safetensors.WEIGHTS})")
    recorded = run_dir.read_run(run) if (run / run_dir.RUN).exists() else {}
    config = run_dir.config_of_weights(file, recorded, trust=False)
    method = config.method.make()
    if method.scores is None or method.features is None:
        raise UserError(f"{run} is not a run of a classifier; train colour_classifier")
    held, front = safetensors.read(file), ("params/d/", "stats/d/")
    used = {n: x for n, x in held.items() if n.startswith(front) and "/logits/" not in n}

    def features(trees, images):
        # Without batch norm there are no statistics.
        return method.features(trees["params"]["d"], trees.get("stats", {}).get("d", {}), images)

    side, trees = config.method.size, safetensors.unflatten(used)
    width = jax.eval_shape(features, trees, jnp.zeros((1, side, side, 3))).shape[1]
    about, name = "the map before the logits, mean over space", re.sub(r"\W+", "_", config.name)
    return _network(name, about, side, width, store.content_sha256(used), features, used)


def find(name: str, path: str = "") -> Network:
    """A feature network by name, with weights from a file or from home; or a classifier's run."""
    check(name)
    return NETWORKS[name](path) if name in NETWORKS else classifier(expanded(name))


def check(name: str) -> None:
    """Refuses a name that no feature network has, without loading any weights.

    Raises:
      UserError: with those that are there.
    """
    if name not in NETWORKS and not expanded(name).exists():
        known = ", ".join(NETWORKS)
        raise UserError(
            f"no feature network {name!r}; choose from {known}, what your config file adds to "
            "features.NETWORKS, or the run directory of a classifier"
        )


def several(
    names: Sequence[str | Network], files: Mapping[str, str] = MappingProxyType({})
) -> list[Network]:
    """Feature networks, each once, with weights from files where they are given.

    Raises:
      UserError: as `find`; or two of them would have the same name in a table.
    """
    found: dict[str, Network] = {}
    for name in dict.fromkeys(names):
        network = name if isinstance(name, Network) else find(name, files.get(name, ""))
        other = found.setdefault(network.name, network)
        if other.sha256 != network.sha256:
            raise UserError(
                f"two judges are named {network.name}: a table cannot tell them apart; give one"
            )
    return list(found.values())


def on_backgrounds(networks: list[Network], channels: int) -> list[Network]:
    """The networks as they see images of so many channels: RGBA on each of `BACKGROUNDS`."""
    if channels == 3:
        return networks
    return [
        network._replace(name=f"{network.name}-on-{name}", background=name)
        for network in networks
        for name in BACKGROUNDS
    ]


def of_images(network: Network, images: np.ndarray) -> np.ndarray:
    """(n, d) float32 features of (n, H, W, 3) uint8 images, or RGBA on the network's background.

    Raises:
      ValueError: the images are not uint8 of that shape.
    """
    channels = 4 if network.background else 3
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != channels:
        shape = f"(n, H, W, {channels})"
        raise ValueError(f"images are {images.dtype} {images.shape}, not uint8 {shape}")
    if not len(images):
        return np.zeros((0, network.dimensions), np.float32)
    level = BACKGROUNDS.get(network.background, 0)
    return in_batches(lambda part: network.run(over(part, level)), images, BATCH)


def of_part(network: Network, pack: Pack, part: str) -> np.ndarray:
    """Features of a part of a pack, kept at home: they are the same for every run.

    Their last bits depend on versions, devices and threads, so these are part of the key.
    """
    images = pack.part(part)
    about = {"data": pack.manifest["sha256"], "part": part, **network.protocol(), **facts()}
    told = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    path = cache_home() / "features" / f"{network.name}-{told[:32]}.safetensors"
    if path.is_file():
        try:
            found = safetensors.read(path).get("features")
        except UserError:
            found = None
        if found is not None and found.shape == (len(images), network.dimensions):
            return found
    if len(images) >= WORTH_SAYING:
        told = f"{network.name} looks at {len(images):,} images of {part!r}; kept for later runs"
        print(told, file=sys.stderr, flush=True)
    made = of_images(network, images)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.write({"features": made}, path, about)
    except OSError:
        pass  # A home that cannot be written costs time, nothing else.
    return made
