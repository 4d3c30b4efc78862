"""Pictures of a run: new images, paths between them, tables of words, kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import UseAppendAction, arg

from anigan_jax import api
from anigan_jax.cli.common import Checkpoint, RunDir, Seed, Trust, at_least
from anigan_jax.data.captions import Prompt
from anigan_jax.errors import UserError
from anigan_jax.runtime import environment
from anigan_jax.sampling import grids
from anigan_jax.sampling import prompts as texts
from anigan_jax.sampling.grids import Model

Prompts = Annotated[tuple[str, ...], UseAppendAction, arg(metavar="TEXT")]


def sample(
    run: RunDir,
    *,
    n: Annotated[int | None, arg(metavar="N")] = None,
    seed: Seed = 0,
    prompt: Prompts = (),
    prompts: Annotated[Path | None, arg(metavar="FILE")] = None,
    checkpoint: Checkpoint = "latest",
    trust: Trust = False,
) -> int:
    """A grid of new images, or a row of them for each prompt.

    Args:
      n: images (64), or images for each prompt (8).
      prompt: what to draw, such as 'blue hair red eyes'.
      prompts: a file of prompts, one a line, or one that comes along, by its name.
    """
    lines = _lines(prompts) if prompts else []
    n = n if n is not None else 8 if prompt or prompts else 64
    at_least("--n", n, 1)
    at_least("--seed", seed, 0)
    model = api.load(run, checkpoint, trust=trust).model
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
    model = api.load(run, checkpoint, trust=trust).model
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
    trust: Trust = False,
) -> int:
    """Every hair color with every eye color, or other classes, as one picture.

    Args:
      rows: an attribute of the data (the first).
      columns: another (the second).
    """
    at_least("--seed", seed, 0)
    print(texts.table(api.load(run, checkpoint, trust=trust).model, run, seed, rows, columns))
    return 0


def history(
    run: RunDir,
    *,
    prompt: Annotated[str, arg(metavar="TEXT")],
    n: int = 4,
    columns: int = 10,
    seed: Seed = 0,
    checkpoint: Checkpoint = "latest",
    trust: Trust = False,
) -> int:
    """One prompt at each checkpoint that the run has kept.

    Args:
      prompt: what to draw, such as 'blue hair red eyes'.
      n: latents.
      columns: at most so many checkpoints.
    """
    at_least("--n", n, 1)
    at_least("--columns", columns, 2)
    at_least("--seed", seed, 0)
    trained = api.load(run, checkpoint, trust=trust)
    (wanted,) = _prompts(trained.model, [prompt])
    models = (trained.at(step).model for step in texts.pick_steps(run, columns))
    print(texts.history(models, run, wanted, n, seed))
    return 0


def kernels(run: RunDir, *, checkpoint: Checkpoint = "latest", trust: Trust = False) -> int:
    """D's first layer as a picture."""
    print(grids.kernels(api.load(run, checkpoint, trust=trust).state, run))
    return 0


def _prompts(model: Model, given: Sequence[str]) -> list[Prompt]:
    """Prompts of the flags."""
    return [prompt for text in given for prompt in texts.read(model, [text], "--prompt")]


def _lines(file: Path) -> list[str]:
    """A file of prompts: of the user's, or of those in configs/prompts by its name."""
    folder = environment.config_folder() / "prompts"
    ours = folder / f"{file.name.removesuffix('.txt')}.txt"
    if not file.exists() and file.parent == Path() and ours.is_file():
        file = ours
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        have = ", ".join(sorted(path.stem for path in folder.glob("*.txt")))
        raise UserError(f"--prompts {file} cannot be read: {error}; by name: {have}") from None
