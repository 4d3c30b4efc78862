"""Latents as files: found by `anigan project`, drawn by `sample` and `interpolate`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from anigan_jax.config import Config, fingerprint
from anigan_jax.data.captions import Prompt
from anigan_jax.errors import UserError
from anigan_jax.sampling import prompts as texts
from anigan_jax.sampling.grids import Model, generated
from anigan_jax.storage import images as record
from anigan_jax.storage import safetensors

KIND = "latents"


class Latents(NamedTuple):
    """`n` latents of a model.

    Attributes:
      names: of what they show.
      z: (n, Z) float32.
      text: (n, T) float32; None where the generator reads no text.
    """

    names: list[str]
    z: np.ndarray
    text: np.ndarray | None


def write(found: Latents, config: Config, path: Path) -> Path:
    """Writes latents of a run's model as safetensors."""
    arrays = {"z": found.z} | ({} if found.text is None else {"text": found.text})
    about = {"kind": KIND, "names": found.names, "config_sha256": fingerprint(config)}
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.write(arrays, path, about)
    return path


def read(path: Path, config: Config, model: Model) -> Latents:
    """Latents of a file.

    Raises:
      UserError: it holds none, or those of another run.
    """
    arrays, about = safetensors.read(path), safetensors.metadata(path)
    if about.get("kind") != KIND or "z" not in arrays:
        raise UserError(f"{path} holds no latents; `anigan project` writes them")
    z, text = arrays["z"], arrays.get("text")
    own = about.get("config_sha256") == fingerprint(config)
    fits = z.ndim == 2 and z.shape[1] == model.method.z_dim
    if not own or not fits or (text is None) != (model.texts is None):
        raise UserError(f"{path} holds latents of another run")
    return Latents([str(name) for name in about.get("names", [])], z, text)


def sheet(model: Model, held: Latents, prompts: list[Prompt]) -> Image.Image:
    """The images of latents as a grid; with prompts, a row of each instead of the stored texts."""
    if not prompts:
        return record.grid(generated(model, held.z, held.text))
    known = texts.need_texts(model)
    rows = [
        generated(model, held.z, known.encode([texts.completed(known, prompt, 0, 0)] * len(held.z)))
        for prompt in prompts
    ]
    return record.table(np.stack(rows), [prompt.text for prompt in prompts])


def stem(model: Model, path: Path, prompts: list[Prompt]) -> str:
    """Name of a picture of the latents of a file."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    step = int(model.state.step)
    return f"step_{step:09d}_latents_{digest}{model.tag}{texts.suffix(prompts)}"
