"""Pictures: grids of images with or without labels, written whole or not at all."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from anigan_jax.data.alpha import over_squares
from anigan_jax.storage import atomic, fonts

Filter = Literal["lanczos", "nearest"]


def to_uint8(images) -> np.ndarray:
    """Floats in [-1, 1] -> uint8, rounded and clipped; any shape.

    Four channels are RGBA with colors multiplied by alpha, and become as PNG files have them.
    """
    levels = (np.asarray(images, np.float32) + 1) * 127.5
    if levels.shape[-1:] == (4,):
        alpha = np.clip(np.rint(levels[..., 3:]), 0, 255)
        # What is all but transparent has no color to speak of.
        colors = np.where(alpha > 0, levels[..., :3] * 255 / np.maximum(levels[..., 3:], 0.5), 0)
        levels = np.concatenate([colors, alpha], -1)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def grid(images, columns: int | None = None, pad: int = 2) -> Image.Image:
    """(N, H, W, 3) uint8, or floats in [-1, 1] -> one picture with white gaps.

    RGBA is shown on gray squares. Groups (N, K, H, W, 3) never break over a row.
    """
    images = np.asarray(images)
    group = images.shape[1] if images.ndim == 5 else 1
    images = images.reshape(-1, *images.shape[-3:])
    if images.dtype != np.uint8:
        images = to_uint8(images)
    images = over_squares(images)
    n, h, w, _ = images.shape
    columns = columns or group * math.ceil(math.sqrt(n) / group)
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (h + pad) + pad, columns * (w + pad) + pad, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = pad + i // columns * (h + pad), pad + i % columns * (w + pad)
        sheet[top : top + h, left : left + w] = image
    return Image.fromarray(sheet)


def table(images, rows: list[str], columns: list[str] = (), pad: int = 2) -> Image.Image:
    """A grid with words: (R, C, H, W, 3) uint8 or floats in [-1, 1].

    Args:
      rows: R labels at the left; columns: C labels above, or none.
    """
    images = np.asarray(images)
    _, across, height, width, _ = images.shape
    sheet = grid(images.reshape(-1, *images.shape[2:]), columns=across, pad=pad)
    font = fonts.font(max(9, min(14, height // 4)), [*rows, *columns])
    left = 12 + math.ceil(max(font.getlength(text) for text in rows))
    # A column's words stand below each other where they are wider than an image.
    columns = [
        text.replace(" ", "\n") if font.getlength(text) > width else text for text in columns
    ]
    lines = 1 + max((text.count("\n") for text in columns), default=-1)
    line = sum(font.getmetrics()) + 1
    above = lines * line + 4 if lines else 0
    page = Image.new("RGB", (left + sheet.width, above + sheet.height), "white")
    page.paste(sheet, (left, above))
    draw = ImageDraw.Draw(page)
    for i, text in enumerate(rows):
        middle = above + pad + i * (height + pad) + height // 2
        draw.text((left - 6, middle), text, "black", font, anchor="rm")
    for i, text in enumerate(columns):
        center = left + pad + i * (width + pad) + width // 2
        place = center, above - 2
        draw.multiline_text(place, text, "black", font, "md", spacing=1, align="center")
    return page


def enlarged(images: np.ndarray, scale: int, how: Filter = "lanczos") -> np.ndarray:
    """(n, H, W, 3) uint8, `scale` times as high and wide; each image alone."""
    if scale == 1:
        return images
    if how == "nearest":
        return images.repeat(scale, 1).repeat(scale, 2)
    side = images.shape[2] * scale, images.shape[1] * scale
    large = [Image.fromarray(image).resize(side, Image.Resampling.LANCZOS) for image in images]
    return np.stack([np.asarray(image) for image in large])


def kernel_grid(kernels: np.ndarray, scale: int = 10) -> Image.Image:
    """(k, k, 3, n) -> each filter scaled to its own range and enlarged, as a grid."""
    tiles = np.moveaxis(np.asarray(kernels, np.float64), -1, 0)
    low = tiles.min(axis=(1, 2, 3), keepdims=True)
    span = tiles.max(axis=(1, 2, 3), keepdims=True) - low
    tiles = np.rint((tiles - low) / np.where(span > 0, span, 1) * 255).astype(np.uint8)
    return grid(tiles.repeat(scale, 1).repeat(scale, 2), pad=4)


def save_images(pages: dict[Path, Image.Image], *, keep: bool = False) -> None:
    """Writes pictures as `save_image`; those that are there come first.

    So with `keep` nothing is written before one of them is refused.
    """
    for path in sorted(pages, key=lambda path: not path.exists()):
        save_image(pages[path], path, keep=keep)


def save_image(image: Image.Image, path: Path, *, keep: bool = False, **options) -> Path:
    """Writes a picture whole or not at all.

    Args:
      keep: a file of other content that is there stays.

    Raises:
      UserError: it is there, and stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = atomic.partial(path)
    image.save(temp, format=path.suffix[1:].upper(), **options)
    if keep:
        atomic.need_same(temp, path)
    os.replace(temp, path)
    return path


FRAME = 60
"""Milliseconds that a frame is shown for."""


def save_gif(frames: list[Image.Image], path: Path, fps: int = 0) -> Path:
    """Writes a looping GIF of `fps` frames per second, or one every FRAME.

    A GIF counts in hundredths of a second: a frame gets the nearest whole number of them.
    """
    milliseconds = 10 * int(100 / fps + 0.5) if fps else FRAME
    rest = {"save_all": True, "append_images": frames[1:], "duration": milliseconds, "loop": 0}
    return save_image(frames[0], path, **rest)
