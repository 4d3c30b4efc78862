"""The verbs that show photos to a run: translate them, compare two runs."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from anigan_jax import api
from anigan_jax.cli.common import arguments
from anigan_jax.cli.sample import CHECKPOINT, RUN, TRUST
from anigan_jax.errors import UserError
from anigan_jax.networks.resnet import check_divisible
from anigan_jax.report import collect
from anigan_jax.sampling import photos
from anigan_jax.sampling.photos import Cropping, Gathered
from anigan_jax.storage import images
from anigan_jax.storage.run_dir import out_dir


def _box(text: str) -> photos.Box:
    try:
        x, y, w, h = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not four numbers X,Y,W,H") from None
    return x, y, w, h


GIVEN = {
    "photos": {
        "positional": True,
        "nargs": "+",
        "type": Path,
        "metavar": "PHOTO",
        "help": "photos, folders, zips or tars",
    },
    "direction": {"choices": ("ab", "ba"), "default": "ab", "help": "ab: from photo to anime"},
    "crop": {
        "choices": ("auto", "center", "pad", "box"),
        "default": "auto",
        "help": "around the face box; the centered square; all of it on white; "
        "auto: box where there is one, else center",
    },
    "box": {"type": _box, "metavar": "X,Y,W,H", "help": "face box of a single photo, in pixels"},
    "boxes": {
        "default": "",
        "metavar": "FILE",
        "help": "face boxes file,x,y,w,h; without: boxes.csv with or beside the photos",
    },
    "box_scale": {"type": float, "default": 1.5, "help": "side of the square in face widths"},
}


def translate(argv: list[str]) -> int:
    """Photos in the other domain; exit code 1 where one of them cannot be used."""
    args = arguments(
        "translate",
        argv,
        run=RUN,
        checkpoint=CHECKPOINT,
        trust=TRUST,
        **GIVEN,
        out={"type": Path, "metavar": "DIR", "help": "without: RUN/out/translate/step_NNN_ab"},
        size={"type": int, "help": "side in pixels; without: that of the training"},
    )
    cropping = _cropping(args)
    run = api.load(args.run, args.checkpoint, trust=args.trust)
    photos.need_direction(run.method, args.direction)
    size = run.config.method.size if args.size is None else args.size
    check_divisible(size, run.config.method.generator.num_downsamples, "--size")
    found = photos.gather(args.photos, cropping, size)
    before = found.images[size]
    after = photos.translated(run.model, args.direction, before)
    step = f"step_{int(run.state.step):09d}_{args.direction}"
    out = args.out or out_dir(args.run, "translate") / step
    with _written(out):
        for name, image in zip(photos.files(found.names), after, strict=True):
            images.save_image(Image.fromarray(image), out / "images" / name)
        n = photos.shown(len(before), size)
        columns = _columns(run, args.direction, before[:n], after[:n])
        images.save_image(photos.rows(columns), out / "rows.png")
        images.save_image(images.grid(before[:n]), out / "before.png")
        images.save_image(images.grid(after[:n]), out / "after.png")
    some = f"  (the first {n} of {len(before)})" if n < len(before) else ""
    print(f"{out / 'images'}  ({len(after)})")
    for name in ("rows", "before", "after"):
        print(f"{out / name}.png{some}")
    return _left_out(found)


def _columns(run, direction: str, before, after) -> list:
    """Photos, what they become, and back again where the run has a way."""
    here, there = direction.upper()
    columns = [(here, before), (f"{here} to {there}", after)]
    back = direction[::-1]
    if back in run.method.translate:
        # Of the written images: what translating them would give.
        again = photos.translated(run.model, back, after)
        columns.append((f"back to {here}", again))
    return columns


def compare(argv: list[str]) -> int:
    """The same photos by two runs; exit code 1 where one of them cannot be used."""
    args = arguments(
        "compare",
        argv,
        run=RUN,
        run2=RUN,
        checkpoint=CHECKPOINT,
        trust=TRUST,
        **GIVEN,
        out={"type": Path, "metavar": "FILE.png", "help": "without: in RUN/out/compare"},
    )
    if args.out and args.out.suffix.lower() != ".png":
        raise UserError(f"--out {args.out} must end in .png")
    cropping = _cropping(args)
    paths = (args.run, args.run2)
    labels = collect.labels(paths)
    runs = [api.load(path, args.checkpoint, trust=args.trust) for path in paths]
    for run in runs:
        photos.need_direction(run.method, args.direction)
    sizes = [run.config.method.size for run in runs]
    found, side = photos.gather(args.photos, cropping, *sizes), max(sizes)
    n = photos.shown(len(found.names), side)
    columns = [(args.direction[0].upper(), found.images[side][:n])]
    for label, run, size in zip(labels, runs, sizes, strict=True):
        made = photos.translated(run.model, args.direction, found.images[size][:n])
        columns.append((label, photos.enlarged(made, side)))
    steps = "_".join(f"{int(run.state.step):09d}" for run in runs)
    name = f"{paths[1].resolve().name}_step_{steps}_{args.direction}.png"
    out = args.out or out_dir(args.run, "compare") / name
    with _written(out):
        images.save_image(photos.rows(columns), out)
    some = f"  (the first {n} of {len(found.names)})" if n < len(found.names) else ""
    print(f"{out}{some}")
    return _left_out(found)


def _cropping(args: argparse.Namespace) -> Cropping:
    """The crop flags; what is wrong is refused here, before JAX starts."""
    cropping = Cropping(args.crop, args.box, args.boxes, args.box_scale)
    photos.check(args.photos, cropping)
    return cropping


@contextlib.contextmanager
def _written(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise UserError(f"{out} cannot be written: {error.strerror or error}{where}") from None


def _left_out(found: Gathered) -> int:
    """Says on stderr what was not as asked; gives the exit code."""
    if found.centered:
        print(f"note: {found.centered} without a face box; the center is used", file=sys.stderr)
    for finding in found.left_out:
        print(f"left out: {photos.reason(finding)}", file=sys.stderr)
    return 1 if found.left_out else 0
