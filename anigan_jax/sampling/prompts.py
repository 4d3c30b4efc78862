"""Pictures of text GANs: prompts, the table of colors, paths between texts."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np

from anigan_jax.core import Texts
from anigan_jax.data import captions
from anigan_jax.data.captions import Prompt
from anigan_jax.data.labels import EYES, HAIR
from anigan_jax.errors import UserError
from anigan_jax.sampling.grids import Model, generated, latents, stem
from anigan_jax.storage import images as record
from anigan_jax.storage.run_dir import out_dir


def need_texts(model: Model) -> Texts:
    """What the generator can be asked for; refuses a run whose generator sees no text."""
    if model.texts is None:
        raise UserError("this run makes images without texts; prompts need a text GAN")
    return model.texts


def ask(model: Model, prompts: list[Prompt], n: int, seed: int, *, same=True):
    """`n` images for each prompt; with `same`, image i has one latent for all prompts.

    A missing color is drawn for each image, as often as the training data has it.

    Returns:
      Images (P, n, H, W, 3) uint8, and the pairs asked for (P n, 2) class indices.
    """
    texts = need_texts(model)
    full = [
        captions.complete(prompt, texts.frequencies, seed, i * n + j)
        for i, prompt in enumerate(prompts)
        for j in range(n)
    ]
    if same:
        z = np.tile(latents(model.method, n, seed), (len(prompts), 1))
    else:
        z = latents(model.method, n * len(prompts), seed)
    images = generated(model, z, texts.encode(full))
    asked = np.array([(HAIR.index(p.label.hair), EYES.index(p.label.eyes)) for p in full])
    return images.reshape(len(prompts), n, *images.shape[1:]), asked


def sample(model: Model, run: Path, prompts: list[Prompt], n: int, seed: int) -> Path:
    """A row of `n` images for each prompt."""
    images, _ = ask(model, prompts, n, seed)
    page = record.table(images, [prompt.text for prompt in prompts])
    name = f"{stem(model, seed)}{suffix(prompts)}.png"
    return record.save_image(page, out_dir(run, "sample") / name)


def suffix(prompts: list[Prompt]) -> str:
    """What tells pictures of other prompts apart; '' for none."""
    if not prompts:
        return ""
    text = "\n".join(prompt.text for prompt in prompts)
    words = re.sub(r"[^a-z0-9]+", "_", prompts[0].text.lower()).strip("_")[:40]
    # The hash tells lists of prompts apart that begin alike.
    return f"_{words}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def texts_of_data(model: Model, n: int, seed: int) -> np.ndarray | None:
    """(n, T) texts as often as the training data has them; None where G takes none."""
    return model.texts.encode(from_data(model.texts, n, seed)) if model.texts else None


def from_data(texts: Texts, n: int, seed: int) -> list[Prompt]:
    """`n` prompts as often as the training data has them."""
    counts = np.asarray(texts.frequencies, np.float64)
    pairs = captions.pairs()
    draw = np.random.default_rng(seed).choice(len(pairs), n, p=counts / counts.sum())
    return [Prompt(str(pairs[i]), pairs[i]) for i in draw]


def colors(model: Model, run: Path, seed: int) -> Path:
    """Every hair color (rows) with every eye color (columns), one latent for all.

    Colors that the training data has never shown are left out.
    """
    texts = need_texts(model)
    grid = texts.frequencies.reshape(len(HAIR), len(EYES))
    hair = [c for c, known in zip(HAIR, grid.any(1), strict=True) if known]
    eyes = [c for c, known in zip(EYES, grid.any(0), strict=True) if known]
    labels = [captions.Label(h, e) for h in hair for e in eyes]
    has_text = texts.wordings > 0
    known = [has_text[captions.pair(HAIR.index(h), EYES.index(e))] for h, e in labels]
    asked = [Prompt(str(x), x) for x, has in zip(labels, known, strict=True) if has]
    made, _ = ask(model, asked, 1, seed)
    # Pairs that a file of vectors has no caption for stay white.
    images = np.full((len(labels), *made.shape[2:]), 255, np.uint8)
    images[np.array(known)] = made[:, 0]
    images = images.reshape(len(hair), len(eyes), *images.shape[1:])
    page = record.table(images, [f"{c} hair" for c in hair], [f"{c} eyes" for c in eyes])
    return record.save_image(page, out_dir(run, "table") / f"{stem(model, seed)}.png")


def between(model: Model, run: Path, ends: list[Prompt], rows: int, frames: int, seed: int):
    """From one prompt to another at fixed latents: a sheet of ten steps and a GIF."""
    texts = need_texts(model)
    counts = texts.frequencies
    full = [captions.complete(prompt, counts, seed, i) for i, prompt in enumerate(ends)]
    first, last = texts.encode(full)
    z = latents(model.method, rows, seed)

    def draw(steps: int) -> np.ndarray:
        share = np.tile(np.linspace(0, 1, steps, dtype=np.float32), rows)[:, None]
        path = (1 - share) * first + share * last
        images = generated(model, np.repeat(z, steps, axis=0), path)
        return images.reshape(rows, steps, *images.shape[1:])

    folder, name = out_dir(run, "interpolate"), stem(model, seed) + suffix(ends)
    moving = np.swapaxes(draw(frames), 0, 1)
    pictures = [record.grid(frame, columns=rows) for frame in moving]
    gif = record.save_gif([*pictures, *pictures[-2:0:-1]], folder / f"{name}.gif")
    columns = [full[0].text, *[""] * 8, full[1].text]
    page = record.table(draw(10), [""] * rows, columns)
    return [gif, record.save_image(page, folder / f"{name}.png")]


def one_text(model: Model, prompts: list[Prompt], seed: int) -> np.ndarray | None:
    """(T,) of the first prompt, or of one that the data has; None where G takes no text."""
    if model.texts is None and not prompts:
        return None
    texts = need_texts(model)
    prompt = (prompts or from_data(texts, 1, seed))[0]
    return texts.encode([captions.complete(prompt, texts.frequencies, seed, 0)])[0]
