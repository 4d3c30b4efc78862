"""Photos through a run: in the other domain, and by two runs side by side."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from PIL import Image
from tyro.conf import Positional, arg

from anigan_jax import api
from anigan_jax.cli.common import (
    Checkpoint,
    RunDir,
    Trust,
    Weights,
    need_folder,
    need_other,
    told_left_out,
    writing,
)
from anigan_jax.data import archives
from anigan_jax.errors import UserError
from anigan_jax.networks.resnet import check_side
from anigan_jax.report import collect
from anigan_jax.sampling import photos
from anigan_jax.sampling.photos import Cropping
from anigan_jax.storage import images
from anigan_jax.storage.run_dir import out_dir

LEGIBLE = 64
"""Side in pixels below which a sheet enlarges images: its words need room."""
Photos = Annotated[
    tuple[Path, ...], Positional, arg(metavar="PHOTO", help="photos, folders, zips or tars")
]
Direction = Annotated[Literal["ab", "ba"], arg(help="ab: from photo to anime")]
Crop = Annotated[
    Literal["auto", "center", "top", "pad", "box"] | None,
    arg(
        metavar="auto|center|top|pad|box",
        help="box: around the face box; center, top: a square there; pad: all, on the background; "
        "auto: box if there is one, else center; if omitted: as the run's images",
    ),
]
Box = Annotated[str, arg(metavar="X,Y,W,H", help="face box of a single photo, in pixels")]
Boxes = Annotated[
    str,
    arg(
        metavar="FILE",
        help="table of face boxes: file,x,y,w,h; if omitted: boxes.csv with or beside the photos",
    ),
]
BoxScale = Annotated[
    float | None,
    arg(metavar="X", help="side of the square in face widths; if omitted: as the run's images"),
]


def translate(
    run: RunDir,
    photo: Photos,
    *,
    direction: Direction = "ab",
    out: Annotated[Path | None, arg(metavar="DIR")] = None,
    size: Annotated[int | None, arg(metavar="PX")] = None,
    crop: Crop = None,
    box: Box = "",
    boxes: Boxes = "",
    box_scale: BoxScale = None,
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
) -> int:
    """Photos in the other domain, and back; exit code 1 if one of them cannot be used.

    Args:
      out: folder for the pictures, or for one photo also a .png; if omitted: in
        RUN/out/translate, named by step and photos.
      size: side in pixels; if omitted: as in training.
    """
    given, cropping = _cropping(photo, crop, box, boxes, box_scale)
    single = _check_out(out, given)
    trained = api.load(run, checkpoint, weights=weights, trust=trust)
    method = trained.config.method
    photos.need_direction(trained.method, direction)
    size = method.size if size is None else size
    check_side(size, method.generator.multiple_of, "--size")
    aside = out.resolve() if out else None
    found = photos.gather(given, cropping.of_run(trained.config.data), size, without=aside)
    before = found.images[size]
    after = photos.translated(trained.model, direction, before)
    name = f"step_{trained.step:09d}_{direction}{photos.suffix(given)}{trained.model.tag}"
    if single:
        with writing(single):
            print(images.save_image(Image.fromarray(after[0]), single))
        return told_left_out(found)
    keep, out = out is not None, out or out_dir(run, "translate") / name
    with writing(out):
        n = photos.shown(len(before), size)
        columns = _columns(trained, direction, before[:n], after[:n])
        pages = {
            out / "images" / name: Image.fromarray(image)
            for name, image in zip(photos.files(found.names), after, strict=True)
        }
        pages[out / "rows.png"] = _sheet(columns, size)
        pages[out / "before.png"] = images.grid(before[:n])
        pages[out / "after.png"] = images.grid(after[:n])
        images.save_images(pages, keep=keep)
    some = f"  (the first {n} of {len(before)})" if n < len(before) else ""
    print(f"{out / 'images'}  ({len(after)})")
    for name in ("rows", "before", "after"):
        print(f"{out / name}.png{some}")
    return told_left_out(found)


def compare(
    run: RunDir,
    run2: RunDir,
    photo: Photos,
    *,
    direction: Direction = "ab",
    out: Annotated[Path | None, arg(metavar="FILE.png")] = None,
    crop: Crop = None,
    box: Box = "",
    boxes: Boxes = "",
    box_scale: BoxScale = None,
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
) -> int:
    """The same photos by two runs; exit code 1 if one of them cannot be used.

    Args:
      out: the picture; if omitted: in RUN/out/compare.
    """
    if out and out.suffix.lower() != ".png":
        raise UserError(f"--out {out} must end in .png")
    need_other(out, photo)
    given, cropping = _cropping(photo, crop, box, boxes, box_scale)
    paths = (run, run2)
    labels = collect.labels(paths)
    runs = [api.load(path, checkpoint, weights=weights, trust=trust) for path in paths]
    for one in runs:
        photos.need_direction(one.method, direction)
    sizes = [one.config.method.size for one in runs]
    side = max(sizes)
    # Of one square, each on its own background; the photos are shown as the larger one sees them.
    square = cropping.of_run(runs[sizes.index(side)].config.data)._replace(background=None)
    seen = [photos.gather(given, square.of_run(r.config.data), r.config.method.size) for r in runs]
    # A photo may be too small for the larger run alone.
    both = sorted(set.intersection(*(set(one.places) for one in seen)))
    if not both:
        raise UserError("no photo can be used by both runs")
    left_out = {finding.file: finding for one in seen for finding in one.left_out}
    seen = [one.at(both)._replace(left_out=[*left_out.values()]) for one in seen]
    found = seen[sizes.index(side)]
    n = photos.shown(len(found.names), side)
    columns = [(direction[0].upper(), found.images[side][:n])]
    for label, one, size, own in zip(labels, runs, sizes, seen, strict=True):
        made = photos.translated(one.model, direction, own.images[size][:n])
        columns.append((label, photos.enlarged(made, side)))
    steps = "_".join(f"{one.step:09d}{one.model.tag}" for one in runs)
    name = f"{run2.resolve().name}_step_{steps}_{direction}{photos.suffix(given)}.png"
    out = out or out_dir(run, "compare") / name
    with writing(out):
        images.save_image(_sheet(columns, side), out)
    some = f"  (the first {n} of {len(found.names)})" if n < len(found.names) else ""
    print(f"{out}{some}")
    return told_left_out(found)


def _check_out(out: Path | None, given: list[Path]) -> Path | None:
    """The one picture that is to be written; None where it is a folder of them.

    Raises:
      UserError: what is given would be written over, or the place is of another kind.
    """
    if out is None:
        return None
    need_other(out, given)
    if out.suffix.lower() == ".png" and len(given) == 1 and not out.is_dir():
        if given[0].is_file() and not archives.is_archive(given[0]):
            return out
        raise UserError(f"--out {out} is one picture, but {given[0]} holds several; give a folder")
    need_folder(out)
    return None


def _columns(trained: api.Trained, direction: str, before, after) -> list:
    """Photos, what they become, and back again where the run has a way."""
    here, there = direction.upper()
    columns = [(here, before), (f"{here} to {there}", after)]
    back = direction[::-1]
    if back in trained.method.translate:
        # Of the written images: what translating them would give.
        columns.append((f"back to {here}", photos.translated(trained.model, back, after)))
    return columns


def _sheet(columns: list, side: int) -> Image.Image:
    wide = side * math.ceil(LEGIBLE / side)
    return photos.rows([(label, photos.enlarged(pixels, wide)) for label, pixels in columns])


def _cropping(
    given: tuple[Path, ...], crop: Crop, box: str, boxes: str, box_scale: float | None
) -> tuple[list[Path], Cropping]:
    """The photos and the crop flags; what is wrong is refused here, before JAX starts."""
    if not given:
        raise UserError("say which photos: PHOTO ...")
    numbers = None
    if box:
        try:
            x, y, w, h = map(float, box.split(","))
        except ValueError:
            raise UserError(f"--box {box!r} is not four numbers X,Y,W,H") from None
        numbers = x, y, w, h
    cropping = Cropping(crop, numbers, boxes, box_scale)
    photos.check(list(given), cropping)
    return list(given), cropping
