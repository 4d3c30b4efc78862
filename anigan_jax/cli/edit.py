"""The verb that changes what images show."""

from __future__ import annotations

import contextlib
import functools
import json as jsons
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from tyro.conf import arg

from anigan_jax import api
from anigan_jax.cli import common
from anigan_jax.cli.common import Checkpoint, RunDir, Seed, Trust, Weights, at_least, need_seed
from anigan_jax.cli.sample import LatentFile, Seeds
from anigan_jax.data import attributes as known
from anigan_jax.errors import UserError
from anigan_jax.report.table import Table, as_text
from anigan_jax.runtime.progress import Stages
from anigan_jax.sampling import directions, grids, latents
from anigan_jax.sampling import prompts as texts
from anigan_jax.sampling import seeds as by_seed
from anigan_jax.sampling.directions import Judge
from anigan_jax.sampling.grids import Model
from anigan_jax.sampling.latents import Latents
from anigan_jax.storage import atomic, images
from anigan_jax.storage.run_dir import out_dir

COLUMNS = 5
"""Images of a row, from the unchanged one to the full amount."""
AMOUNT = 3.0


def edit(
    run: RunDir,
    *,
    toward: Annotated[str, arg(metavar="TEXT")] = "",
    direction: Annotated[int | None, arg(metavar="K")] = None,
    amount: Annotated[float | None, arg(metavar="A")] = None,
    seeds: Seeds = "",
    latent: LatentFile = None,
    classifier: Annotated[Path | None, arg(metavar="RUN")] = None,
    n: int = 2000,
    measure: Annotated[int, arg(metavar="N")] = 0,
    out: Annotated[Path | None, arg(metavar="DIR")] = None,
    seed: Seed = 0,
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
) -> int:
    """Changes images toward what a text says, or along a direction; without either, shows the
    directions.

    Writes sheet.png, a row for each image, and latents.safetensors, those of the last column,
    which `sample`, `interpolate` and `edit` take as --latent. Without --toward and --direction,
    writes directions.png: the directions that change the first layer most (SeFa), numbered.

    Args:
      toward: what images should show, such as 'blue hair'; a run that reads texts changes the
        text, others need --classifier.
      direction: a number in directions.png.
      amount: how far: for --toward the share of the way (1), for --direction standard deviations
        of the latent (3); below 0: the other way.
      seeds: which images to edit, such as 0-99,7; if omitted: 0-7.
      latent: edit these latents instead, from a file of `anigan project` or `anigan edit`.
      classifier: a run of a classifier, which finds the way by what it sees in generated images
        and keeps its other attributes.
      n: images that the classifier looks at.
      measure: also move N other latents, and say how many then show it and keep the rest, beside
        a random direction.
      out: folder; if omitted: in RUN/out/edit.
      seed: of the latents that are looked at and measured.
    """
    _check(toward, direction, amount, classifier, measure, bool(seeds and latent))
    at_least("--n", n, 2)
    at_least("--measure", measure, 0)
    need_seed(seed)
    common.need_new_latents(out)
    listed = by_seed.read(seeds or "0-7")
    trained = api.load(run, checkpoint, weights=weights, trust=trust)
    model = trained.model
    grids.need_noise(model.method)
    if latent:
        held, name = latents.read(latent, trained.config, model), latents.stem(model, latent, [])
    else:
        held, name = latents.of_seeds(model, listed), by_seed.stem(model, seeds or "0-7", [])
    if toward and classifier:
        judge = _judge(classifier, trained, trust)
        way = _learned(model, held, judge, toward, n, measure, seed)
    elif toward:
        way = _said(model, held, toward)
    else:
        found = directions.sefa(directions.first_layer(model))
        if direction is None:
            page = directions.sheet(model, held, found, AMOUNT if amount is None else amount)
            path = (out or out_dir(run, "edit") / name) / "directions.png"
            with common.writing(path):
                print(images.save_image(page, path))
            return 0
        way = _numbered(held, found, direction)
    amount = way.amount if amount is None else amount
    folder = out or out_dir(run, "edit") / f"{name}{way.name}_by_{amount:g}"
    return _write(trained, way, amount, folder)


class _Way(NamedTuple):
    """How latents change.

    Attributes:
      name: tells its files from others.
      amount: how far, where nothing is given.
      change: amount -> the latents changed so far.
      tried: amount -> a report of what it does to other latents; None where none is wanted.
    """

    name: str
    amount: float
    change: Callable[[float], Latents]
    tried: Callable[[float], dict] | None = None


def _learned(
    model: Model, held: Latents, judge: Judge, toward: str, n: int, measure: int, seed: int
) -> _Way:
    """To where a classifier sees it."""
    (prompt,) = texts.understood(judge.attributes, [toward], "--toward")
    with contextlib.closing(Stages()) as notify:
        notify(f"looking at {n:,} images")
        drawn = latents.drawn(model, n, seed)
        pull = directions.learned(model, judge, prompt.label, drawn)

    def tried(amount: float) -> dict:
        others = latents.drawn(model, measure, seed + 1)
        moves = amount * directions.ways(model, judge, prompt.label, others, pull)
        both = {"this": moves, "random": directions.control(moves, seed)}
        shares = directions.measure(model, judge, prompt.label, others, both)
        about = {"step": int(model.state.step), "toward": toward, "amount": amount, "seed": seed}
        return {**about, "shares": shares}

    move = directions.ways(model, judge, prompt.label, held, pull)
    change = functools.partial(latents.along, held, move)
    return _Way(texts.suffix([prompt]), 1.0, change, tried if measure else None)


def _said(model: Model, held: Latents, toward: str) -> _Way:
    """To the same text with other words."""
    if model.texts is None:
        raise UserError(
            "this run reads no texts, so --toward needs --classifier RUN; "
            "directions (leave out --toward) need none"
        )
    (prompt,) = texts.read(model, [toward], "--toward")
    change = functools.partial(latents.between, held, latents.retold(model, held, prompt.label))
    return _Way(texts.suffix([prompt]), 1.0, change)


def _numbered(held: Latents, found: np.ndarray, number: int) -> _Way:
    """Along one of the directions (Z, Z) of the first layer."""
    if not 1 <= number <= len(found):
        raise UserError(f"--direction is {number}; this run has directions 1 to {len(found)}")
    change = functools.partial(latents.along, held, found[number - 1])
    return _Way(f"_direction_{number}", AMOUNT, change)


def _write(trained: api.Trained, way: _Way, amount: float, folder: Path) -> int:
    """Draws and writes everything."""
    amounts = [amount * i / (COLUMNS - 1) for i in range(COLUMNS)]
    stages = [way.change(part) for part in amounts]
    page = latents.stages(trained.model, stages, [f"{part:.3g}" for part in amounts])
    tried = way.tried(amount) if way.tried else None
    with common.writing(folder):
        print(latents.write(stages[-1], trained.config, folder / latents.FILE))
        print(images.save_image(page, folder / "sheet.png"))
        # Of another classifier or seed.
        (folder / "measured.json").unlink(missing_ok=True)
        if tried:
            print(atomic.save_text(jsons.dumps(tried, indent=1), folder / "measured.json"))
            print(f"\n{as_text([_table(tried)])}")
    return 0


def _table(tried: dict) -> Table:
    """What was measured, a row for each question."""
    one, other = tried["shares"].values()
    rows = [[what, one[what], other[what]] for what in one]
    title = (
        f"{one['reached']['n']:,} images that did not show {tried['toward']!r}, moved by "
        f"{tried['amount']:g} of the way: step {tried['step']:,}, seed {tried['seed']}"
    )
    return Table(title, ["", "toward it", "a random direction"], rows)


def _judge(classifier: Path, trained: api.Trained, trust: bool) -> Judge:
    """What a classifier tells; refuses one of other images."""
    run = api.load(classifier, "latest", trust=trust)
    common.need_classifier(classifier, run, trained.config.method.size)
    state, constants = run.state, run.model.constants
    networks, logits = (state.params["d"], state.stats["d"]), run.method.logits
    return Judge(
        lambda pixels: run.method.scores(*networks, pixels, constants),
        known.of_arrays(constants),
        logits and (lambda images: logits(*networks, images, constants)),
    )


def _check(
    toward: str,
    direction: int | None,
    amount: float | None,
    classifier: Path | None,
    measure: int,
    both: bool,
) -> None:
    """Refuses flags that contradict each other."""
    if toward and direction is not None:
        raise UserError("--toward and --direction both say how to edit; give only one")
    if both:
        raise UserError("--seeds and --latent both choose the images; give only one")
    if amount is not None and not math.isfinite(amount):
        raise UserError(f"--amount is {amount}; it must be a finite number")
    if classifier and not toward:
        raise UserError("--classifier needs --toward TEXT, which says what images should show")
    if measure and not classifier:
        raise UserError("--measure needs --classifier RUN, which judges what images show")
