"""Latents, changed and as files: of seeds, or as `project` and `edit` write them."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from anigan_jax.config import Config, fingerprint
from anigan_jax.data import attributes
from anigan_jax.data.attributes import Label
from anigan_jax.data.captions import Prompt
from anigan_jax.errors import UserError
from anigan_jax.parent import Parent
from anigan_jax.sampling import photos
from anigan_jax.sampling import prompts as texts
from anigan_jax.sampling import seeds as by_seed
from anigan_jax.sampling.grids import Model, generated, latents, latents_of
from anigan_jax.storage import images as record
from anigan_jax.storage import safetensors

KIND = "latents"
FILE = "latents.safetensors"
"""In a folder of what was found."""
NAME = 24
"""Letters of a name that a sheet shows."""


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
    about = {"kind": KIND, "names": found.names, "config_sha256": _fingerprint(config)}
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
        raise UserError(f"{path} holds no latents; `anigan project` and `edit` write them")
    z, text = arrays["z"], arrays.get("text")
    own = about.get("config_sha256") in (_fingerprint(config), fingerprint(config))
    fits = z.ndim == 2 and z.shape[1] == model.method.z_dim
    if not own or not fits or (text is None) != (model.texts is None):
        raise UserError(f"{path} holds latents of another run")
    return Latents([str(name) for name in about.get("names", [])], z, text)


def _fingerprint(config: Config) -> str:
    """Of a run and of the weights that are exported from it, which do not name its parent."""
    return fingerprint(dataclasses.replace(config, parent=Parent()))


def of_seeds(model: Model, seeds: Sequence[int]) -> Latents:
    """The latents of seeds, with the texts that `seeds.made` gives each."""
    text = None
    if model.texts is not None:
        text = np.concatenate([texts.texts_of_data(model, 1, seed) for seed in seeds])
    return Latents([str(seed) for seed in seeds], latents_of(model.method, seeds), text)


def drawn(model: Model, n: int, seed: int) -> Latents:
    """The first `n` latents of a seed, with texts as the data has them."""
    names = [str(i) for i in range(n)]
    return Latents(names, latents(model.method, n, seed), texts.texts_of_data(model, n, seed))


def take(held: Latents, rows: np.ndarray) -> Latents:
    """Those of some rows."""
    text = None if held.text is None else held.text[rows]
    return Latents([held.names[i] for i in rows], held.z[rows], text)


def along(held: Latents, move: np.ndarray, amount: float) -> Latents:
    """The latents moved by a multiple of a direction (Z,) or of a way of each, (n, Z)."""
    return held._replace(z=(held.z + amount * move).astype(np.float32))


def retold(model: Model, held: Latents, label: Label) -> Latents:
    """The same latents with classes of a label in their texts, and the rest of these as it is."""
    known = texts.need_texts(model)
    wanted = np.array(attributes.row(known.attributes, label))
    rows = np.where(wanted >= 0, wanted, texts.nearest(known, held.text))
    asked = [texts.of_row(known.attributes, row) for row in rows]
    return held._replace(text=np.asarray(known.encode(asked)))


def between(one: Latents, other: Latents, share: float) -> Latents:
    """The latents at a share of the way to others, in a straight line."""
    text = None if one.text is None else (1 - share) * one.text + share * other.text
    return one._replace(z=(1 - share) * one.z + share * other.z, text=text)


def stages(model: Model, changed: list[Latents], titles: list[str]) -> Image.Image:
    """A sheet of the same latents as they change: a row each, a titled column for each state."""
    made = np.stack([generated(model, each.z, each.text) for each in changed], axis=1)
    return record.table(made, [name[-NAME:] for name in changed[0].names], titles)


def sheet(model: Model, held: Latents, prompts: list[Prompt]) -> Image.Image:
    """The images of latents as a grid; with prompts, a row of each instead of the stored texts."""
    if not prompts:
        return record.grid(generated(model, held.z, held.text))
    rows = [generated(model, held.z, _told(model, held, prompt)) for prompt in prompts]
    return record.table(np.stack(rows), [prompt.text for prompt in prompts])


def write_images(model: Model, held: Latents, prompts: list[Prompt], folder: Path) -> int:
    """Writes a PNG for each latent, named by it: me.png; of a prompt, me_blue_hair_HASH.png.

    Latents of one name are numbered; those without a name have their place, 0000.png.

    Raises:
      UserError: another picture is there under such a name, and stays.

    Returns:
      How many were written.
    """

    def draw(rows: list[int], prompt: Prompt | None) -> np.ndarray:
        told = _told(model, held, prompt)
        return generated(model, held.z[rows], None if told is None else told[rows])

    return by_seed.save(dict(enumerate(_file_names(held))), prompts, folder, draw, keep=True)


def _told(model: Model, held: Latents, prompt: Prompt | None) -> np.ndarray | None:
    """(n, T) of a prompt for all latents; without one, their own, which may be none."""
    if prompt is None:
        return held.text
    known = texts.need_texts(model)
    return known.encode([texts.completed(known, prompt, 0, 0)] * len(held.z))


def _file_names(held: Latents) -> list[str]:
    """Of each latent: the folders and the dots of a name are none of a file's."""
    names = [*held.names, *(f"{i:04d}" for i in range(len(held.names), len(held.z)))]
    plain = [re.sub(r"[^\w.-]+|^[.]+", "_", name) or "_" for name in names[: len(held.z)]]
    return [file.removesuffix(".png") for file in photos.files(plain)]


def stem(model: Model, path: Path, prompts: list[Prompt]) -> str:
    """Name of a picture of the latents of a file."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    step = int(model.state.step)
    return f"step_{step:09d}_latents_{digest}{model.tag}{texts.suffix(prompts)}"
