"""Transparent pictures: uint8 RGBA as PNG files have it, laid over what they are shown on."""

from __future__ import annotations

from typing import Literal

import numpy as np

Background = Literal["black", "white"]
# On which transparent images are judged: a halo shows on one of them at least.
BACKGROUNDS: dict[Background, int] = {"black": 0, "white": 255}
GRAY = 128
SQUARE = 8


def over(pixels: np.ndarray, level: int | np.ndarray) -> np.ndarray:
    """(..., 4) uint8 -> (..., 3) uint8 on a gray level, or on levels that broadcast to (..., 1).

    RGB pixels are opaque and stay as they are.
    """
    if pixels.shape[-1] == 3:
        return pixels
    rgb, alpha = pixels[..., :3].astype(np.uint32), pixels[..., 3:].astype(np.uint32)
    return ((rgb * alpha + level * (255 - alpha) + 127) // 255).astype(np.uint8)


def over_squares(images: np.ndarray) -> np.ndarray:
    """(..., H, W, 4) uint8 -> (..., H, W, 3) uint8 on the gray squares of picture editors."""
    rows, columns = (np.arange(side) // SQUARE for side in images.shape[-3:-1])
    odd = (rows[:, None] + columns) % 2
    return over(images, np.where(odd, 204, 255).astype(np.uint32)[..., None])


def without_hidden(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 with black where nothing shows, whatever color a file hides there."""
    return np.where(pixels[..., 3:] > 0, pixels, 0).astype(np.uint8)
