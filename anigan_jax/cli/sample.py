"""Pictures of a run: new images, paths between them, tables of words, histories, kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from anigan_jax import api
from anigan_jax.cli.common import (
    Checkpoint,
    RunDir,
    Seed,
    Trust,
    Weights,
    at_least,
    epochs_of,
    told_left_out,
)
from anigan_jax.data.captions import Prompt
from anigan_jax.errors import UserError
from anigan_jax.sampling import grids, photos
from anigan_jax.sampling import history as histories
from anigan_jax.sampling import prompts as texts
from anigan_jax.sampling.grids import Model
from anigan_jax.storage import images
from anigan_jax.storage.run_dir import out_dir

Prompts = Annotated[tuple[str, ...], UseAppendAction, arg(metavar="TEXT")]


def sample(
    run: RunDir,
    *,
    n: Annotated[int | None, arg(metavar="N")] = None,
    seed: Seed = 0,
    prompt: Prompts = (),
    prompts: Annotated[Path | None, arg(metavar="FILE")] = None,
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
) -> int:
    """A grid of new images, or a row of them for each prompt.

    Args:
      n: images (64), or images for each prompt (8).
      prompt: what to draw, such as 'blue hair red eyes'.
      prompts: a file of prompts, one a line, or one that comes along, by its name.
    """
    lines = texts.lines_of(prompts) if prompts else []
    n = n if n is not None else 8 if prompt or prompts else 64
    at_least("--n", n, 1)
    at_least("--seed", seed, 0)
    model = api.load(run, checkpoint, weights=weights, trust=trust).model
    wanted = _prompts(model, prompt)
    if prompts:
        wanted += texts.read(model, lines, str(prompts))
    if wanted:
        print(texts.sample(model, run, wanted, n, seed))
    else:
        print(grids.sample(model, run, n, seed, texts.texts_of_data(model, n, seed)))
    return 0


def interpolate(
    run: RunDir,
    *,
    frames: int = 60,
    stops: int = 5,
    seed: Seed = 0,
    prompt: Prompts = (),
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
) -> int:
    """A grid and a GIF along a closed path between latents, or between two prompts.

    Args:
      frames: of the GIF.
      stops: latents on the path; or latents that are shown, between two prompts.
      prompt: of all images; twice: from the first to the second.
    """
    if stops < 2 or frames < stops:
        raise UserError("--stops must be at least 2, and --frames no fewer than --stops")
    at_least("--seed", seed, 0)
    if len(prompt) > 2:
        raise UserError(f"--prompt is given {len(prompt)} times; once or twice is allowed")
    model = api.load(run, checkpoint, weights=weights, trust=trust).model
    wanted = _prompts(model, prompt)
    if len(wanted) == 2:
        written = texts.between(model, run, wanted, stops, frames, seed)
    else:
        text = texts.one_text(model, wanted, seed)
        written = grids.interpolate(model, run, frames, stops, seed, text, texts.suffix(wanted))
    print("\n".join(map(str, written)))
    return 0


def table(
    run: RunDir,
    *,
    rows: str = "",
    columns: str = "",
    seed: Seed = 0,
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
) -> int:
    """Every hair color with every eye color, or other classes, as one picture.

    Args:
      rows: an attribute of the data (the first).
      columns: another (the second).
    """
    at_least("--seed", seed, 0)
    model = api.load(run, checkpoint, weights=weights, trust=trust).model
    print(texts.table(model, run, seed, rows, columns))
    return 0


def history(
    run: RunDir,
    photo: Annotated[
        tuple[Path, ...], Positional, arg(metavar="PHOTO", help="what a translation shows")
    ] = (),
    *,
    n: int = 4,
    prompt: Prompts = (),
    direction: Literal["ab", "ba"] = "ab",
    columns: int = 10,
    epochs: Annotated[str, arg(metavar="EPOCH,EPOCH")] = "",
    seed: Seed = 0,
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
) -> int:
    """The same latents, prompts or photos at each kept checkpoint; exit code 1 where a photo
    cannot be used.

    Args:
      n: latents; of each prompt, where there are some; held-out photos, where none is given.
      prompt: what to draw, such as 'blue hair red eyes'.
      direction: of a translation; ab: from photo to anime.
      columns: at most so many checkpoints, up to that of --checkpoint.
      epochs: checkpoints of these epochs instead, such as 5,20,40.
    """
    at_least("--n", n, 1)
    at_least("--columns", columns, 2)
    at_least("--seed", seed, 0)
    photos.check(list(photo), photos.Cropping())
    wanted, code = epochs_of("--epochs", epochs) if epochs else [], 0
    trained = api.load(run, checkpoint, weights=weights, trust=trust)
    model = trained.model
    asked = _prompts(model, prompt)
    name = f"seed_{seed}{texts.suffix(asked)}"
    if photo or (model.method.translate and not asked):
        photos.need_direction(model.method, direction)
        shown, code = _photos(trained, photo, direction, n)
        rows = histories.of_photos(model, shown, direction)
        name = direction
    elif asked:
        rows = histories.of_prompts(model, asked, n, seed)
    else:
        rows = histories.of_latents(model, n, seed)
    steps = histories.of_epochs(run, wanted) or histories.pick_steps(run, columns, trained.step)
    page = histories.page((trained.at(step).model for step in steps), rows, run)
    path = out_dir(run, "history") / f"step_{steps[-1]:09d}_{name}{model.tag}.png"
    print(images.save_image(page, path))
    return code


def _photos(trained: api.Trained, given: tuple[Path, ...], direction: str, n: int):
    """Photos of the command line, (N, S, S, 3) uint8; else the first `n` that are held out.

    Returns:
      The photos, and the exit code: 1 where one that was given cannot be used.
    """
    size = trained.config.method.size
    if given:
        found = photos.gather(list(given), photos.Cropping(), size)
        return found.images[size], told_left_out(found)
    pack = api.data_of(trained.config)
    held = pack.named("test" if pack.has("test") else "train", direction[0].upper())
    return pack.part(held)[:n], 0


def kernels(run: RunDir, *, checkpoint: Checkpoint = "latest", trust: Trust = False) -> int:
    """D's first layer as a picture."""
    print(grids.kernels(api.load(run, checkpoint, trust=trust).state, run))
    return 0


def _prompts(model: Model, given: Sequence[str]) -> list[Prompt]:
    """Prompts of the flags."""
    return [prompt for text in given for prompt in texts.read(model, [text], "--prompt")]
