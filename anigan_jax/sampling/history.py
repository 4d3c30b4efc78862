"""What the same latents, prompts or photos became over the training: a column a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from anigan_jax.data.captions import Prompt
from anigan_jax.errors import UserError
from anigan_jax.sampling import grids, photos, prompts
from anigan_jax.sampling.grids import Model
from anigan_jax.storage import checkpoint, epochs, images
from anigan_jax.storage.metrics_file import spaced
from anigan_jax.storage.run_dir import RUN


class Rows(NamedTuple):
    """What is asked of every checkpoint.

    Attributes:
      labels: R words at the left.
      draw: a model -> (R, H, W, 3) uint8, a row each.
      before: (R, H, W, 3) uint8, photos that stand in the first column; None without.
    """

    labels: list[str]
    draw: Callable[[Model], np.ndarray]
    before: np.ndarray | None = None


def of_latents(model: Model, n: int, seed: int) -> Rows:
    """`n` latents, the same at every checkpoint; texts as often as the data has them."""
    z = grids.latents(model.method, n, seed)
    if not model.texts:
        return Rows([""] * n, lambda model: grids.generated(model, z))
    asked = prompts.from_data(model.texts, n, seed)
    texts = model.texts.encode(asked)
    return Rows([prompt.text for prompt in asked], lambda model: grids.generated(model, z, texts))


def of_prompts(model: Model, wanted: list[Prompt], n: int, seed: int) -> Rows:
    """`n` rows for each prompt, at the same latents (SJTU, figure 3)."""
    prompts.need_texts(model)

    def draw(model: Model) -> np.ndarray:
        made, _ = prompts.ask(model, wanted, n, seed)
        return made.reshape(-1, *made.shape[2:])

    return Rows([word for prompt in wanted for word in (prompt.text, *[""] * (n - 1))], draw)


def of_photos(model: Model, before: np.ndarray, direction: str = "ab") -> Rows:
    """Photos (n, S, S, 3) uint8, translated by every checkpoint; they are the first column."""
    photos.need_direction(model.method, direction)
    labels = [""] * len(before)
    return Rows(labels, lambda model: photos.translated(model, direction, before), before)


def pick_steps(run: Path, most: int, last: int | None = None) -> list[int]:
    """At most `most` of a run's checkpoints, up to step `last`: the first and the last of them
    and others evenly spaced.

    Raises:
      UserError: there is none.
    """
    have = [step for step in _kept(run) if last is None or step <= last]
    if not have:
        raise UserError(f"{run} holds no checkpoint up to step {last}; it has {_kept(run)[0]}")
    return [have[i] for i in spaced(len(have), most)]


def _kept(run: Path) -> list[int]:
    """Steps of a run's checkpoints; refuses what has none, and says what it is."""
    if have := checkpoint.steps(run / "checkpoints"):
        return have
    if not (run / RUN).exists():
        raise UserError(f"{run} holds only weights; for a history, give a run directory")
    raise UserError(f"{run} holds no checkpoint; a history needs those that training keeps")


def of_epochs(run: Path, wanted: Sequence[int]) -> list[int]:
    """The steps at which a run completes epochs.

    Raises:
      UserError: it has no checkpoint of one of them, or does not say how long its epochs are.
    """
    have, known = _kept(run), epochs.of_run(run)
    if known is None:
        raise UserError(f"{run} does not say how many images it learns from; it has no epochs")
    missing = [str(epoch) for epoch in wanted if epoch * known.steps not in have]
    if missing:
        raise UserError(
            f"{run} has no checkpoint of epoch {', '.join(missing)}; it has "
            f"{', '.join(map(known.label, have)) or 'none'} (--run.keep-every in training)"
        )
    return [epoch * known.steps for epoch in wanted]


def page(models: Iterable[Model], rows: Rows, run: Path) -> Image.Image:
    """A row for each latent, prompt or photo, a column for each checkpoint, named by its epoch.

    Args:
      models: of one run, with growing steps.
      run: its directory, which says how long its epochs are.
    """
    known, columns, names, method = epochs.of_run(run), [], [], None
    if rows.before is not None:
        columns, names = [rows.before], ["photo"]
    for model in models:
        # One method for all: nothing is compiled twice.
        method = method or model.method
        columns.append(rows.draw(model._replace(method=method)))
        step = int(model.state.step)
        names.append(known.label(step) if known else f"step {step:,}")
    return images.table(np.stack(columns, axis=1), rows.labels, names)
