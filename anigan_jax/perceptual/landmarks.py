"""The 68-point face landmark network of face-api.js, differentiable in its input."""

from __future__ import annotations

import functools
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax.storage.safetensors import read

SIDE = 112
MEAN = (122.782, 117.001, 104.298)
WIDTHS = (32, 64, 128, 256)


class Landmarks(nn.Module):
    """Four densely connected blocks of depthwise-separable convolutions and a dense layer.

    Source: vladmandic/face-api 1.7.15, FaceLandmark68Net (MIT); iBUG's order of points.
    """

    @nn.compact
    def __call__(self, images):
        """(B, H, W, 3) in [0, 255], square -> (B, 68, 2) x and y in pixels of the input."""
        side = images.shape[1]
        if images.ndim != 4 or images.shape[2:] != (side, 3):
            raise ValueError(f"images must be (B, S, S, 3); the shape is {images.shape}")
        x = (resize(images, SIDE) - jnp.array(MEAN, jnp.float32)) / 255
        for i, width in enumerate(WIDTHS):
            x = self._block(x, width, f"dense{i}", first=i == 0)
        x = x.mean((1, 2))  # (B, 256)
        return nn.Dense(136, name="fc")(x).reshape(-1, 68, 2) * side

    def _separable(self, x, width: int, stride: int, name: str):
        channels = x.shape[-1]
        x = nn.Conv(
            channels,
            (3, 3),
            stride,
            feature_group_count=channels,
            use_bias=False,
            name=f"{name}_depthwise",
        )(x)
        return nn.Conv(width, (1, 1), name=f"{name}_pointwise")(x)

    def _block(self, x, width: int, name: str, *, first: bool):
        if first:
            total = nn.relu(nn.Conv(width, (3, 3), 2, name=f"{name}_conv0")(x))
        else:
            total = nn.relu(self._separable(x, width, 2, f"{name}_conv0"))
        for i in (1, 2, 3):
            total = total + self._separable(
                total if i == 1 else nn.relu(total), width, 1, f"{name}_conv{i}"
            )
        return nn.relu(total)


def resize(images, side: int):
    """Bilinear to (B, side, side, C) as TensorFlow 1 did: corners at the top left, no antialias."""

    def weights(length: int):
        at = np.arange(side, dtype=np.float32) * np.float32(length / side)
        low = np.floor(at).astype(int)
        high, part = np.minimum(low + 1, length - 1), at - low
        matrix = np.zeros((side, length), np.float32)
        np.add.at(matrix, (np.arange(side), low), 1 - part)
        np.add.at(matrix, (np.arange(side), high), part)
        return matrix

    rows, columns = weights(images.shape[1]), weights(images.shape[2])
    images = jnp.einsum("ih,bhwc->biwc", rows, jnp.asarray(images, jnp.float32))
    return jnp.einsum("jw,biwc->bijc", columns, images)


@functools.cache
def _compiled():
    params = face_landmarks()
    return jax.jit(lambda images: Landmarks().apply({"params": params}, images))


def detect(images: np.ndarray, batch: int = 64) -> np.ndarray:
    """(N, S, S, 3) uint8 -> (N, 68, 2) float32, x and y in pixels."""
    found = []
    for start in range(0, len(images), batch):
        rows = np.asarray(images[start : start + batch])
        # One compiled shape.
        padded = np.concatenate([rows, np.repeat(rows[-1:], batch - len(rows), axis=0)])
        found.append(np.asarray(_compiled()(padded))[: len(rows)])
    return np.concatenate(found) if found else np.zeros((0, 68, 2), np.float32)


ASSETS = Path(__file__).parent / "assets"
LANDMARKS = ASSETS / "face_landmarks_68.safetensors"


def face_landmarks() -> dict:
    """Parameters of `Landmarks` (MIT; the license is beside the file), dequantized.

    In the file each tensor NAME is uint8 with NAME/scale and NAME/min: value = byte * scale + min.
    """
    arrays, tree = read(LANDMARKS), {}
    for name, values in arrays.items():
        if name.endswith(("/scale", "/min")):
            continue
        # tfjs computes in double and stores float32.
        value = values * arrays[f"{name}/scale"] + arrays[f"{name}/min"]
        *path, leaf = name.split("/")
        if leaf == "depthwise_filter":
            value = value.transpose(0, 1, 3, 2)  # (k, k, C, 1) -> Flax's (k, k, 1, C)
        if path[0] != "fc" and path != ["dense0", "conv0"]:
            # A separable convolution; its bias is that of the pointwise half.
            path.append("depthwise" if leaf == "depthwise_filter" else "pointwise")
        node = tree.setdefault("_".join(path), {})
        node["bias" if leaf == "bias" else "kernel"] = value.astype(np.float32)
    return tree
