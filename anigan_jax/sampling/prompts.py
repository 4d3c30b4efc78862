"""Pictures of text GANs: prompts, the table of colors, paths between texts, a history."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from anigan_jax.core import Method, TrainState
from anigan_jax.data import captions
from anigan_jax.data.captions import Prompt
from anigan_jax.data.labels import EYES, HAIR
from anigan_jax.errors import UserError
from anigan_jax.sampling.grids import generated, latents, stem
from anigan_jax.storage import checkpoint
from anigan_jax.storage import images as record
from anigan_jax.storage.metrics_file import spaced
from anigan_jax.storage.run_dir import out_dir


def need_texts(method: Method) -> None:
    """Refuses a run whose generator sees no text."""
    if method.encode is None:
        raise UserError("this run makes images without texts; prompts need a text GAN")


def ask(method: Method, state: TrainState, prompts: list[Prompt], n: int, seed: int, *, same=True):
    """`n` images for each prompt; with `same`, image i has one latent for all prompts.

    A missing color is drawn for each image, as often as the training data has it.

    Returns:
      Images (P, n, H, W, 3) uint8, and the pairs asked for (P n, 2) class indices.
    """
    need_texts(method)
    counts = np.asarray(state.frozen["counts"])
    full = [
        captions.complete(prompt, counts, seed, i * n + j)
        for i, prompt in enumerate(prompts)
        for j in range(n)
    ]
    texts = method.encode(state.frozen, full)
    if same:
        z = np.tile(latents(method, n, seed), (len(prompts), 1))
    else:
        z = latents(method, n * len(prompts), seed)
    images = generated(method, state, z, texts)
    asked = np.array([(HAIR.index(p.label.hair), EYES.index(p.label.eyes)) for p in full])
    return images.reshape(len(prompts), n, *images.shape[1:]), asked


def sample(method, state, run: Path, prompts: list[Prompt], n: int, seed: int) -> Path:
    """A row of `n` images for each prompt."""
    images, _ = ask(method, state, prompts, n, seed)
    page = record.table(images, [prompt.text for prompt in prompts])
    name = f"{stem(state, seed)}{suffix(prompts)}.png"
    return record.save_image(page, out_dir(run, "sample") / name)


def suffix(prompts: list[Prompt]) -> str:
    """What tells pictures of other prompts apart; '' for none."""
    text = "\n".join(prompt.text for prompt in prompts)
    return f"_{hashlib.sha256(text.encode()).hexdigest()[:8]}" if prompts else ""


def texts_of_data(method: Method, state: TrainState, n: int, seed: int) -> np.ndarray | None:
    """(n, T) texts as often as the training data has them; None where G takes none."""
    return method.encode(state.frozen, from_data(state, n, seed)) if method.encode else None


def from_data(state: TrainState, n: int, seed: int) -> list[Prompt]:
    """`n` prompts as often as the training data has them."""
    counts = np.asarray(state.frozen["counts"], np.float64)
    pairs = captions.pairs()
    draw = np.random.default_rng(seed).choice(len(pairs), n, p=counts / counts.sum())
    return [Prompt(str(pairs[i]), pairs[i]) for i in draw]


def colors(method, state, run: Path, seed: int) -> Path:
    """Every hair color (rows) with every eye color (columns), one latent for all.

    Colors that the training data has never shown are left out.
    """
    need_texts(method)
    grid = np.asarray(state.frozen["counts"]).reshape(len(HAIR), len(EYES))
    hair = [c for c, known in zip(HAIR, grid.any(1), strict=True) if known]
    eyes = [c for c, known in zip(EYES, grid.any(0), strict=True) if known]
    labels = [captions.Label(h, e) for h in hair for e in eyes]
    told = np.asarray(state.frozen["wordings"]) > 0
    known = [told[captions.pair(HAIR.index(h), EYES.index(e))] for h, e in labels]
    asked = [Prompt(str(x), x) for x, has in zip(labels, known, strict=True) if has]
    made, _ = ask(method, state, asked, 1, seed)
    # Pairs that a file of vectors has no caption for stay white.
    images = np.full((len(labels), *made.shape[2:]), 255, np.uint8)
    images[np.array(known)] = made[:, 0]
    images = images.reshape(len(hair), len(eyes), *images.shape[1:])
    page = record.table(images, [f"{c} hair" for c in hair], [f"{c} eyes" for c in eyes])
    return record.save_image(page, out_dir(run, "table") / f"{stem(state, seed)}.png")


def between(method, state, run: Path, ends: list[Prompt], rows: int, frames: int, seed: int):
    """From one prompt to another at fixed latents: a sheet of ten steps and a GIF."""
    need_texts(method)
    counts = np.asarray(state.frozen["counts"])
    full = [captions.complete(prompt, counts, seed, i) for i, prompt in enumerate(ends)]
    first, last = method.encode(state.frozen, full)
    z = latents(method, rows, seed)

    def draw(steps: int) -> np.ndarray:
        share = np.tile(np.linspace(0, 1, steps, dtype=np.float32), rows)[:, None]
        texts = (1 - share) * first + share * last
        images = generated(method, state, np.repeat(z, steps, axis=0), texts)
        return images.reshape(rows, steps, *images.shape[1:])

    folder, name = out_dir(run, "interpolate"), stem(state, seed) + suffix(ends)
    moving = np.swapaxes(draw(frames), 0, 1)
    pictures = [record.grid(frame, columns=rows) for frame in moving]
    gif = record.save_gif([*pictures, *pictures[-2:0:-1]], folder / f"{name}.gif")
    columns = [full[0].text, *[""] * 8, full[1].text]
    page = record.table(draw(10), [""] * rows, columns)
    return [gif, record.save_image(page, folder / f"{name}.png")]


def history(states, method, run: Path, prompt: Prompt, n: int, seed: int) -> Path:
    """One prompt over the training, a column for each checkpoint (SJTU, figure 3).

    Args:
      states: an iterable over states of growing steps.
    """
    columns, steps = [], []
    for state in states:
        images, _ = ask(method, state, [prompt], n, seed)
        columns.append(images[0])
        steps.append(f"{int(state.step):,}")
    page = record.table(np.stack(columns, axis=1), [prompt.text, *[""] * (n - 1)], steps)
    name = f"{stem(state, seed)}{suffix([prompt])}.png"
    return record.save_image(page, out_dir(run, "history") / name)


def pick_steps(run: Path, most: int) -> list[int]:
    """At most `most` of a run's checkpoints, the first and the last among them."""
    have = checkpoint.steps(run / "checkpoints")
    if not have:
        raise UserError(f"{run} holds no checkpoint yet")
    return [have[i] for i in spaced(len(have), most)]


def one_text(method, state, prompts: list[Prompt], seed: int) -> np.ndarray | None:
    """(T,) of the first prompt, or of one that the data has; None where G takes no text."""
    if method.encode is None and not prompts:
        return None
    need_texts(method)
    prompt = (prompts or from_data(state, 1, seed))[0]
    full = captions.complete(prompt, np.asarray(state.frozen["counts"]), seed, 0)
    return method.encode(state.frozen, [full])[0]
