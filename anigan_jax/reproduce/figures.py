"""The figures of the reports, made from finished runs; each function gives a `plan.Show`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from anigan_jax import api
from anigan_jax.data import attributes, captions
from anigan_jax.errors import UserError
from anigan_jax.report import files
from anigan_jax.reproduce.plan import Picture, Planned, Show, Work
from anigan_jax.sampling import grids, history, photos, prompts
from anigan_jax.storage import images as record

SEED = 0
FRAMES, STOPS = 60, 5
ROWS, SHOWN = 4, 12
"""Latents or prompts of a strip; photos of a sheet."""


def show(make: Callable) -> Callable[..., Show]:
    """Makes `make(work, ...)` a function of the rest that gives a `plan.Show`."""

    @functools.wraps(make)
    def bound(*args, **options) -> Show:
        return lambda work: make(work, *args, **options)

    return bound


def loaded(planned: Planned, part: int | None = None) -> api.Trained:
    """A finished run at a part of the report that it has kept, or at its end."""
    return api.load(planned.folder, planned.steps if part is None else planned.at(part))


def _when(planned: Planned, part: int, step: int) -> str:
    seen = step * planned.config.batch_size
    return f"{planned.training.unit} {part:,} of the report ({seen:,} images seen)"


@show
def samples(work: Work, name: str, parts: Sequence[int] = ()) -> Iterator[Picture]:
    """The same latents after some parts of the report (none named: at the end)."""
    planned = work.run(name)
    panels = files.previews(planned.folder)
    if not panels:
        raise UserError(f"{planned.folder} has no previews")
    for part in parts or (planned.training.parts,):
        step = planned.at(part)
        for panel, found in panels.items():
            if step in found:
                which = f", {files.title(panel)}" if panel != "samples" else ""
                caption = f"{name}: {_when(planned, part, step)}{which}"
                yield work.picture(found[step], caption)


@show
def real(work: Work, name: str) -> Iterator[Picture]:
    """Training images as the run sees them."""
    for one in files.real(work.run(name).folder):
        yield work.picture(one["path"], one["title"])


@show
def curves(work: Work, name: str, *panels: str) -> Iterator[Picture]:
    """Curves over the training: 'losses', 'scores', 'terms'."""
    planned = work.run(name)
    for panel in panels:
        path = planned.folder / "curves" / f"{panel}.png"
        if not path.exists():
            raise UserError(f"{name} has no curves of its {panel}")
        steps = f"{planned.steps:,} steps, which stand for {planned.training.parts:,}"
        caption = f"{name}: {panel} over {steps} {planned.training.unit}s of the report"
        yield work.picture(path, caption)


@show
def interpolation(work: Work, name: str) -> Iterator[Picture]:
    """A closed path between latents, ten steps a leg."""
    planned = work.run(name)
    trained = loaded(planned)
    text = prompts.one_text(trained.model, [], SEED)
    _, sheet = grids.interpolate(trained.model, planned.folder, FRAMES, STOPS, SEED, text)
    yield work.picture(sheet, f"{name}: from latent to latent, on great circles")


@show
def kernels(work: Work, name: str) -> Iterator[Picture]:
    """D's first layer."""
    planned = work.run(name)
    path = grids.kernels(loaded(planned).state, planned.folder)
    yield work.picture(path, f"{name}: each filter of D's first layer in its own range")


@show
def strip(work: Work, name: str, parts: Sequence[int], texts: str = "") -> Iterator[Picture]:
    """One latent (or prompt of a file in configs/prompts) a row, one kept part a column."""
    planned = work.run(name)
    steps = {planned.at(part): f"{part:,}" for part in reversed(parts)}
    model = loaded(planned).model
    if texts:
        asked, _ = _understood(prompts.need_texts(model).attributes, texts)
        rows = history.of_prompts(model, asked, 1, SEED)
    else:
        rows = history.of_latents(model, ROWS, SEED)
    models = (api.load(planned.folder, step).model for step in sorted(steps))
    columns = [rows.draw(one._replace(method=model.method)) for one in models]
    names = [steps[step] for step in sorted(steps)]
    sheet = record.table(np.stack(columns, axis=1), rows.labels, names)
    caption = f"{name}: columns are {planned.training.unit}s of the report"
    yield work.picture(_save(work, sheet, f"{name}_strip"), caption)


@show
def prompted(work: Work, name: str, title: str, texts: str, n: int = 4):
    """A row of images for each prompt of a file in configs/prompts, and what is passed over."""
    model = loaded(work.run(name)).model
    asked, unknown = _understood(prompts.need_texts(model).attributes, texts)
    made, _ = prompts.ask(model, asked, n, SEED)
    sheet = record.table(made, [prompt.text for prompt in asked])
    path = _save(work, sheet, f"{name}_{_slug(title)}")
    yield work.picture(path, f"{name}: the prompts of {title}, {n} latents each{_left(unknown)}")


@show
def captioned(work: Work, name: str, title: str, texts: str, n: int = 4):
    """A row of training images for each caption of a file in configs/prompts that they have."""
    pack = api.data_of(work.run(name).config)
    asked, unknown = _understood(pack.attributes, texts)
    labels, images = pack.labels("train"), pack.part("train")
    rows, names = [], []
    for prompt in asked:
        wanted = np.array(attributes.row(pack.attributes, prompt.label))
        hits = np.flatnonzero(((labels == wanted) | (wanted < 0)).all(1))[:n]
        if not len(hits):
            unknown.append(f"no image of {prompt.text!r}")
            continue
        names.append(prompt.text)
        rows.append(np.full((n, *images.shape[1:]), 255, np.uint8))
        rows[-1][: len(hits)] = images[hits]
    if not rows:
        raise UserError(f"{title}: {'; '.join(unknown)}")
    path = _save(work, record.table(np.stack(rows), names), f"{name}_{_slug(title)}_real")
    yield work.picture(path, f"{name}: training images of the captions of {title}{_left(unknown)}")


def _left(unknown: list[str]) -> str:
    return f"; passed over: {'; '.join(unknown)}" if unknown else ""


def _slug(title: str) -> str:
    return title.lower().replace(" ", "_")


def _understood(known: attributes.Attributes, texts: str) -> tuple[list, list[str]]:
    """The prompts of a file in configs/prompts, and what of them the attributes do not have.

    Raises:
      UserError: they have none.
    """
    asked, unknown = [], []
    for text in filter(None, map(captions.text_of, prompts.lines_of(Path(texts)))):
        try:
            asked.append(captions.parse_prompt(text, known))
        except ValueError as error:
            unknown.append(str(error))
    unknown += [said for prompt in asked for said in prompt.passed_over]
    if not asked:
        raise UserError(f"none of the prompts of {texts} is understood: {'; '.join(unknown)}")
    return asked, unknown


@show
def translations(work: Work, name: str) -> Iterator[Picture]:
    """Held-out images of each domain, translated, and back where there is a way."""
    trained = loaded(work.run(name))
    pack = api.data_of(trained.config)
    for direction in trained.method.translate:
        here, there = direction.upper()
        source = pack.named("test" if pack.has("test") else "train", here)
        before = pack.part(source)[:SHOWN]
        after = photos.translated(trained.model, direction, before)
        columns = [(here, before), (f"{here} to {there}", after)]
        if direction[::-1] in trained.method.translate:
            back = photos.translated(trained.model, direction[::-1], after)
            columns.append((f"back to {here}", back))
        path = _save(work, photos.rows(columns), f"{name}_{direction}")
        yield work.picture(path, f"{name}: held-out images of domain {here}, {here} to {there}")


@show
def compared(work: Work, *names: str) -> Iterator[Picture]:
    """The same held-out photos by several runs."""
    runs = [loaded(work.run(name)) for name in names]
    pack = api.data_of(runs[0].config)
    before = pack.part(pack.named("test" if pack.has("test") else "train", "A"))[:SHOWN]
    columns = [("photo", before)]
    for name, one in zip(names, runs, strict=True):
        columns.append((name, photos.translated(one.model, "ab", before)))
    path = _save(work, photos.rows(columns), "_".join(names))
    yield work.picture(path, f"held-out photos, by {', by '.join(names)}")


@show
def gallery(work: Work, *names: str) -> Iterator[Picture]:
    """The last preview of each of several runs; those that are not trained are left out."""
    for name in work.those(names):
        yield from samples(name)(work)


def _save(work: Work, sheet, stem: str) -> Path:
    return record.save_image(sheet, work.place.workdir / "figures" / f"{stem}.png")
