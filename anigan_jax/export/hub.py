"""A folder to publish: weights that `load` opens, ONNX, settings, samples and a model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from anigan_jax import config as configs
from anigan_jax.data.synthetic import painted, photo
from anigan_jax.export import about
from anigan_jax.export.card import card
from anigan_jax.opened import Opened, write_weights
from anigan_jax.sampling import grids, photos, prompts
from anigan_jax.storage import atomic, images

SAMPLES = 64
PHOTOS = 8


def write(trained: Opened, folder: Path, files: dict[str, str], data_license: str) -> None:
    """Writes weights.safetensors, config.json, samples.png and README.md.

    Args:
      files: names of the ONNX files that are in the folder already, and what was found of each.
    """
    config = about.published(trained.config)
    told = about.license_of(trained, data_license)
    write_weights(trained._replace(config=config), trained.model, folder, data_license=told)
    atomic.save_text(json.dumps(configs.to_json(config), indent=1) + "\n", folder / "config.json")
    images.save_image(_samples(trained), folder / "samples.png")
    atomic.save_text(card(trained, files, data_license), folder / "README.md")


def _samples(trained: Opened) -> Any:
    """A sheet: a grid, or painted faces and what they become."""
    model, size = trained.model, trained.config.method.size
    if not trained.method.translate:
        z = grids.latents(trained.method, SAMPLES, 0)
        texts = prompts.texts_of_data(model, SAMPLES, 0)
        return images.grid(grids.generated(model, z, texts))
    columns = []
    for direction in trained.method.translate:
        painter = photo if direction == "ab" else painted
        source = np.stack([painter.paint(0, i, size) for i in range(PHOTOS)])
        columns.append((direction[0].upper(), source))
        made = photos.translated(model, direction, source)
        columns.append((" to ".join(direction.upper()), made))
    return photos.rows(columns)
