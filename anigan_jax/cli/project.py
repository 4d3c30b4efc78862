"""The verb that finds the latents of pictures."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from tyro.conf import Positional, arg

from anigan_jax import api, own_code
from anigan_jax.cli import common
from anigan_jax.cli.common import Checkpoint, RunDir, Seed, Trust, Weights, at_least, need_seed
from anigan_jax.cli.data import progress
from anigan_jax.errors import UserError, printable
from anigan_jax.opened import write_weights
from anigan_jax.perceptual import convert
from anigan_jax.sampling import grids, latents, photos, projection, tuning
from anigan_jax.sampling import prompts as texts
from anigan_jax.storage import images, run_dir


def project(
    run: RunDir,
    photo: Annotated[
        tuple[Path, ...], Positional, arg(metavar="PHOTO", help="pictures, folders, zips or tars")
    ],
    *,
    out: Annotated[Path | None, arg(metavar="DIR")] = None,
    prompt: Annotated[str, arg(metavar="TEXT")] = "",
    crop: Annotated[
        Literal["auto", "center", "top", "pad"] | None, arg(metavar="auto|center|top|pad")
    ] = None,
    steps: int = projection.Settings.steps,
    restarts: int = projection.Settings.restarts,
    tune: bool = False,
    vgg16: Annotated[str, arg(metavar="FILE")] = "",
    seed: Seed = 0,
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
) -> int:
    """The latents whose images come nearest to pictures; exit code 1 if one cannot be used.

    Writes latents.safetensors, which `sample`, `interpolate` and `edit` take as --latent, and
    sheet.png, each picture beside its image.

    Args:
      out: folder for both; if omitted: in RUN/out/project, named by step and pictures.
      prompt: what the pictures show, for a run that reads texts.
      crop: how pictures become squares; if omitted: as the run's images did.
      steps: steps of the search for each picture.
      restarts: how many latents to start from; the best by pixels is kept.
      tune: also fit the generator to each picture at its latent and write it as
        DIR/tuned/NAME, which the picture verbs take in place of RUN; RUN is unchanged.
      vgg16: weights for LPIPS; if omitted: those in the cache.
    """
    common.need_new_latents(out)
    cropping = photos.Cropping(crop)
    _check(photo, cropping, steps, restarts, seed)
    vgg = convert.load("vgg16", vgg16, heads=True)
    trained = api.load(run, checkpoint, weights=weights, trust=trust)
    model = trained.model
    _fits(trained, tune)
    text = texts.one_text(model, texts.read(model, [prompt], "--prompt") if prompt else [], seed)
    cropping = cropping.of_run(trained.config.data)
    found = photos.gather(list(photo), cropping, trained.config.method.size)
    pictures = found.images[trained.config.method.size]
    settings = projection.Settings(steps=steps, restarts=restarts)
    begin = projection.starts(model, seed, text)
    asked = {"seed": seed, "prompt": prompt, "crop": crop, "steps": steps, "restarts": restarts}
    name = f"step_{trained.step:09d}{photos.suffix(list(photo))}{model.tag}{_apart(asked)}"
    folder = out or run_dir.out_dir(run, "project") / name
    homes = [folder / "tuned" / Path(file).with_suffix("") for file in photos.files(found.names)]
    results, tuned = [], []
    for home, name, picture in zip(homes, found.names, pictures, strict=True):
        bar = progress(printable(f"projecting {name}"), unit="step")
        one = projection.project(model, vgg, picture, begin, settings, text, bar)
        print(printable(f"{name}: LPIPS {one.lpips:.4f}"), flush=True)
        results.append(one)
        # After each: a search takes minutes, and may be stopped.
        told = _told(found.names, results, text)
        with common.writing(folder):
            latents.write(told, trained.config, folder / latents.FILE)
        if tune:
            fitted = _tuned(trained, vgg, picture, one.z, text, home)
            print(printable(f"{name}: LPIPS {fitted.lpips:.4f} tuned, {home}"), flush=True)
            tuned.append(fitted.image)
    made = np.stack([one.image for one in results])
    n = photos.shown(len(made), made.shape[1])
    with common.writing(folder):
        print(folder / latents.FILE)
        columns = [("picture", pictures[:n]), ("image", made[:n])]
        columns += [("tuned", np.stack(tuned[:n]))] if tune else []
        print(images.save_image(photos.rows(columns), folder / "sheet.png"))
    return common.told_left_out(found)


def _told(names: list[str], results: list, text: np.ndarray | None) -> latents.Latents:
    """The latents that were found so far."""
    z = np.stack([one.z for one in results])
    texts_of = None if text is None else np.tile(text, (len(z), 1))
    return latents.Latents(names[: len(z)], z, texts_of)


def _apart(asked: dict) -> str:
    """What tells the files of other settings from those of the usual ones; '' of these."""
    usual = inspect.signature(project).parameters
    other = {name: value for name, value in asked.items() if value != usual[name].default}
    told = json.dumps(other, sort_keys=True, default=str)
    return f"_{hashlib.sha256(told.encode()).hexdigest()[:8]}" if other else ""


def _check(photo, cropping: photos.Cropping, steps: int, restarts: int, seed: int) -> None:
    at_least("--steps", steps, 1)
    at_least("--restarts", restarts, 1)
    need_seed(seed)
    if restarts > projection.CANDIDATES:
        most = projection.CANDIDATES
        raise UserError(f"--restarts is {restarts}; it must be at most {most}")
    if not photo:
        raise UserError("say which pictures: PHOTO ...")
    photos.check(list(photo), cropping)


def _fits(trained: api.Trained, tune: bool) -> None:
    """Refuses a run whose images cannot be projected, or that weights alone could not open."""
    grids.need_noise(trained.method)
    if trained.config.method.channels == 4:
        raise UserError("this run makes transparent images; only opaque ones can be projected")
    if tune and (files := own_code.of(trained.config).files):
        raise UserError(
            "--tune writes only weights, and this run's settings are classes of its own "
            f"({', '.join(files)}), without which the weights cannot be opened"
        )


def _tuned(trained: api.Trained, vgg: dict, picture, z, text, home: Path) -> tuning.Tuned:
    """The run's generator, fitted to a picture and written as weights that `load` opens."""
    bar = progress(printable(f"tuning {home.name}"), unit="step")
    found = tuning.tune(trained.model, vgg, picture, z, tuning.Settings(), text, bar)
    with common.writing(home):
        home.mkdir(parents=True, exist_ok=True)
        write_weights(trained, found.model, home)
    return found
