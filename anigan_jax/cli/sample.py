"""Pictures of a run: new images, paths between them, tables of words, histories, kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from PIL import Image
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
    need_folder,
    need_other,
    need_seed,
    told_left_out,
    writing,
)
from anigan_jax.data.captions import Prompt
from anigan_jax.data.kinds import SUFFIXES
from anigan_jax.errors import UserError
from anigan_jax.sampling import grids, latents, photos
from anigan_jax.sampling import history as histories
from anigan_jax.sampling import prompts as texts
from anigan_jax.sampling import seeds as by_seed
from anigan_jax.sampling.grids import AS_TRAINED, Drawing, Model
from anigan_jax.storage import atomic, images, video
from anigan_jax.storage.run_dir import out_dir

Prompts = Annotated[tuple[str, ...], UseAppendAction, arg(metavar="TEXT")]
Seeds = Annotated[str, arg(metavar="N-N,N")]
LatentFile = Annotated[Path | None, arg(metavar="FILE")]
# --scale, not --drawing.scale.
Drawn = Annotated[Drawing, arg(name="")]


Sheet = Annotated[Path | None, arg(metavar="FILE.png")]


def sample(
    run: RunDir,
    *,
    n: Annotated[int | None, arg(metavar="N")] = None,
    seed: Seed = 0,
    seeds: Seeds = "",
    latent: LatentFile = None,
    grid: bool = False,
    out: Annotated[Path | None, arg(metavar="DIR|FILE.png")] = None,
    prompt: Prompts = (),
    prompts: Annotated[Path | None, arg(metavar="FILE")] = None,
    drawing: Drawn = AS_TRAINED,
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
) -> int:
    """A grid of new images, a row of them for each prompt, or a file for each seed.

    Args:
      n: number of images in a grid (64), or for each prompt (8).
      seeds: write a PNG for each, such as 0-99,7 (the first image of --seed N is that of seed N),
        and, if the run reads texts, tags.csv with what they show.
      latent: draw a sheet of the latents in a file, such as `anigan project` writes; with --out
        DIR, a PNG for each.
      grid: draw the seeds as one sheet instead.
      out: folder for the files of --seeds or --latent, or a .png for a sheet; if omitted: in
        RUN/out/sample.
      prompt: what to draw, such as 'blue hair red eyes'.
      prompts: a file of prompts, one per line, or the name of one in the package.
    """
    listed = by_seed.read(seeds) if seeds else []
    _one_of(seeds, latent, n is not None or bool(seed))
    lines = texts.lines_of(prompts) if prompts else []
    n = n if n is not None else 8 if prompt or prompts else 64
    at_least("--n", n, 1)
    need_seed(seed)
    # Without a folder --latent makes a sheet.
    apart = not grid and bool(listed or (latent and out and out.suffix.lower() != ".png"))
    _check_out(out, files=apart)
    trained = api.load(run, checkpoint, weights=weights, trust=trust)
    model = grids.with_drawing(trained.model, drawing)
    wanted = _prompts(model, prompt)
    if prompts:
        wanted += texts.read(model, lines, str(prompts))
    if apart:
        folder = out or out_dir(run, "sample") / f"step_{int(model.state.step):09d}{model.tag}"
        held = latents.read(latent, trained.config, model) if latent else None
        with writing(folder):
            if held:
                made = latents.write_images(model, held, wanted, folder)
            else:
                made = by_seed.write(model, listed, wanted, folder, keep=out is not None)
            print(f"{folder}  ({made} images)")
        return 0
    if listed:
        page, name = by_seed.sheet(model, listed, wanted), by_seed.stem(model, seeds, wanted)
    elif latent:
        held = latents.read(latent, trained.config, model)
        page, name = latents.sheet(model, held, wanted), latents.stem(model, latent, wanted)
    else:
        page, name = _sheet(model, wanted, n, seed), grids.stem(model, seed) + texts.suffix(wanted)
    path = out or out_dir(run, "sample") / f"{name}.png"
    with writing(path):
        print(images.save_image(page, path))
    return 0


def _one_of(seeds: str, latent: Path | None, others: bool) -> None:
    """Refuses flags that each say by themselves which images are meant."""
    if (seeds or latent) and others:
        flag = "--seeds" if seeds else "--latent"
        raise UserError(f"{flag} chooses the images; leave out --n and --seed")
    if seeds and latent:
        raise UserError("--seeds and --latent both choose the images; give only one")


def _check_out(out: Path | None, files: bool) -> None:
    """Refuses an --out that is no folder for files, or no .png for a sheet."""
    if out is None:
        return
    if files:
        if out.suffix.lower() in SUFFIXES and not out.is_dir():
            raise UserError(f"--out {out} is not a folder; for a sheet in one file, add --grid")
        need_folder(out)
    elif out.suffix.lower() != ".png":
        raise UserError(
            f"--out {out} must end in .png for a sheet; `sample --seeds` writes a folder"
        )


def _sheet(model: Model, wanted: list[Prompt], n: int, seed: int) -> Image.Image:
    """`n` images, or a row of them for each prompt."""
    if wanted:
        made, _ = texts.ask(model, wanted, n, seed)
        return images.table(made, [prompt.text for prompt in wanted])
    z = grids.latents(model.method, n, seed)
    return images.grid(grids.generated(model, z, texts.texts_of_data(model, n, seed)))


def interpolate(
    run: RunDir,
    *,
    frames: int = 60,
    stops: int = 5,
    seed: Seed = 0,
    seeds: Seeds = "",
    latent: LatentFile = None,
    fps: int = 0,
    out: Annotated[Path | None, arg(metavar="FILE.gif|.mp4|.png|DIR")] = None,
    prompt: Prompts = (),
    drawing: Drawn = AS_TRAINED,
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
) -> int:
    """A grid and a GIF along a closed path between latents, or from prompt to prompt.

    Args:
      frames: frames of the GIF or video; between prompts, not counting the way back.
      stops: latents on the path; between prompts, latents that are shown.
      seeds: lead the path through these seeds of `anigan sample --seeds` instead.
      latent: or through the latents in a file, such as `anigan project` writes.
      fps: frames per second (a GIF counts in hundredths of a second); 0: one every 60 ms.
      out: one file: a GIF, an MP4 (by ffmpeg) or a grid; or a new folder for the frames as PNGs
        (between latents transparent, if the run's images are); if omitted: a GIF and a grid in
        RUN/out/interpolate.
      prompt: what all images show; given several times: a path from one to the next.
    """
    listed = by_seed.read(seeds) if seeds else []
    _one_of(seeds, latent, bool(seed))
    need_seed(seed)
    if len(prompt) > 1:
        if listed or latent:
            raise UserError("a path from prompt to prompt has its own latents; give only --seed")
        at_least("--stops", stops, 1)
        at_least("--frames", frames, len(prompt))
    elif listed:
        _check_path(f"--seeds {seeds}", len(listed), frames)
    elif not latent:
        _check_path(f"--stops {stops}", stops, frames)
    kind = _walk_kind(out, fps)
    trained = api.load(run, checkpoint, weights=weights, trust=trust)
    model = grids.with_drawing(trained.model, drawing)
    wanted = _prompts(model, prompt)
    if len(wanted) > 1:
        walk = texts.between(model, wanted, stops, frames, seed)
    else:
        text = texts.one_text(model, wanted, seed)
        if latent:
            held = latents.read(latent, trained.config, model)
            name = latents.stem(model, latent, [])
            _check_path(f"--latent {latent}", len(held.z), frames)
        elif listed:
            held, name = latents.of_seeds(model, listed), by_seed.stem(model, seeds, [])
        else:
            z, name = grids.latents(model.method, stops, seed), grids.stem(model, seed)
            held = latents.Latents([], z, text)
        told = text if wanted else held.text
        walk = grids.walk(model, held.z, frames, name + texts.suffix(wanted), told)
    with writing(out or out_dir(run, "interpolate")):
        written = [WALKS[kind](walk, out, fps)] if out else grids.save_walk(walk, run, fps)
    print("\n".join(map(str, written)))
    return 0


def _walk_kind(out: Path | None, fps: int) -> str:
    """Which of WALKS is asked for, before the work."""
    kind = out.suffix.lower() if out else ".gif"
    if kind not in WALKS:
        raise UserError(f"--out {out} must end in {', '.join(filter(None, WALKS))}, or be a folder")
    if kind == ".mp4":
        video.need_ffmpeg()
    at_least("--fps", fps, 0)
    if fps and kind in (".png", ""):
        raise UserError("--fps is for a GIF or an MP4; leave it out for a grid or a folder")
    if fps > MOST_FPS and kind == ".gif":
        raise UserError(f"--fps is {fps}; a GIF shows at most {MOST_FPS} frames per second")
    if out and not kind:
        need_folder(out)
        atomic.refuse_taken(out, "--out")
    return kind


def _check_path(told: str, stops: int, frames: int) -> None:
    """Refuses a closed path through too few latents, or with fewer frames than latents."""
    if stops < 2:
        raise UserError(f"{told} gives a path of {stops} latent; it needs at least 2")
    at_least("--frames", frames, stops)


# A GIF counts in hundredths of a second, and players take one of them for none given.
MOST_FPS = 50
WALKS = {
    ".gif": lambda walk, out, fps: images.save_gif(walk.shown(), out, fps),
    ".mp4": lambda walk, out, fps: video.save_mp4(walk.shown(), out, fps),
    ".png": lambda walk, out, _: images.save_image(walk.sheet, out),
    "": lambda walk, out, _: grids.save_frames(walk, out),
}


def table(
    run: RunDir,
    *,
    rows: str = "",
    columns: str = "",
    prompt: Annotated[str, arg(metavar="TEXT")] = "",
    out: Sheet = None,
    seed: Seed = 0,
    drawing: Drawn = AS_TRAINED,
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
) -> int:
    """Every hair color with every eye color, or other classes, as one picture.

    Args:
      rows: an attribute of the data (the first).
      columns: another (the second).
      prompt: other attributes of all images, such as 'glasses'.
      out: the picture; if omitted: in RUN/out/table.
    """
    need_seed(seed)
    _check_out(out, files=False)
    model = api.load(run, checkpoint, weights=weights, trust=trust).model
    model = grids.with_drawing(model, drawing)
    wanted = texts.read(model, [prompt], "--prompt")[0] if prompt else None
    with writing(out or out_dir(run, "table")):
        print(texts.table(model, run, seed, rows, columns, wanted, out))
    return 0


def history(
    run: RunDir,
    photo: Annotated[
        tuple[Path, ...], Positional, arg(metavar="PHOTO", help="photos to translate")
    ] = (),
    *,
    n: int = 4,
    prompt: Prompts = (),
    direction: Literal["ab", "ba"] = "ab",
    columns: int = 10,
    epochs: Annotated[str, arg(metavar="EPOCH,EPOCH")] = "",
    out: Sheet = None,
    seed: Seed = 0,
    drawing: Drawn = AS_TRAINED,
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
) -> int:
    """The same latents, prompts or photos at each kept checkpoint; exit code 1 where a photo
    cannot be used.

    Args:
      n: number of latents (for each prompt, if any), or of held-out photos if no photo is given.
      prompt: what to draw, such as 'blue hair red eyes'.
      direction: of a translation; ab: from photo to anime.
      columns: at most this many checkpoints, up to that of --checkpoint.
      epochs: show the checkpoints of these epochs instead, such as 5,20,40.
      out: the picture; if omitted: in RUN/out/history.
    """
    at_least("--n", n, 1)
    at_least("--columns", columns, 2)
    need_seed(seed)
    _check_out(out, files=False)
    need_other(out, photo)
    photos.check(list(photo), photos.Cropping())
    wanted, code = epochs_of("--epochs", epochs) if epochs else [], 0
    trained = api.load(run, checkpoint, weights=weights, trust=trust)
    model = grids.with_drawing(trained.model, drawing)
    asked = _prompts(model, prompt)
    name = f"seed_{seed}{texts.suffix(asked)}"
    if photo or (model.method.translate and not asked):
        photos.need_direction(model.method, direction)
        if drawing != AS_TRAINED:
            raise UserError("--truncation, --scale and --filter are for images made from seeds")
        before, code = _photos(trained, photo, direction, n)
        rows = histories.of_photos(model, before, direction)
        name = direction + (photos.suffix(list(photo)) if photo else "")
    elif asked:
        rows = histories.of_prompts(model, asked, n, seed)
    else:
        rows = histories.of_latents(model, n, seed)
    if wanted:
        steps = histories.of_epochs(run, wanted)
    else:
        steps = histories.pick_steps(run, columns, trained.step)
    shown = (grids.with_drawing(trained.at(step).model, drawing) for step in steps)
    page = histories.page(shown, rows, run)
    path = out or out_dir(run, "history") / f"step_{steps[-1]:09d}_{name}{model.tag}.png"
    with writing(path):
        print(images.save_image(page, path))
    return code


def _photos(trained: api.Trained, given: tuple[Path, ...], direction: str, n: int):
    """Photos of the command line, (N, S, S, 3) uint8; else the first `n` that are held out.

    Returns:
      The photos, and the exit code: 1 where one that was given cannot be used.
    """
    size = trained.config.method.size
    if given:
        cropping = photos.Cropping().of_run(trained.config.data)
        found = photos.gather(list(given), cropping, size)
        return found.images[size], told_left_out(found)
    pack = api.data_of(trained.config)
    held = pack.named("test" if pack.has("test") else "train", direction[0].upper())
    return pack.part(held)[:n], 0


def kernels(
    run: RunDir, *, out: Sheet = None, checkpoint: Checkpoint = "latest", trust: Trust = False
) -> int:
    """D's first layer as a picture.

    Args:
      out: the picture; if omitted: in RUN/out/kernels.
    """
    _check_out(out, files=False)
    state = api.load(run, checkpoint, trust=trust).state
    with writing(out or out_dir(run, "kernels")):
        print(grids.kernels(state, run, out))
    return 0


def _prompts(model: Model, given: Sequence[str]) -> list[Prompt]:
    """Prompts of the flags."""
    return [prompt for text in given for prompt in texts.read(model, [text], "--prompt")]
