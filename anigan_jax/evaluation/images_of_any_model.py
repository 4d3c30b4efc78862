"""Images of any model, as files or arrays, beside real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anigan_jax.data import dataset, scratch
from anigan_jax.data.dataset import Pack
from anigan_jax.data.images import Images
from anigan_jax.errors import UserError
from anigan_jax.evaluation import checkpoint_quality, features, prompt_accuracy
from anigan_jax.runtime import environment
from anigan_jax.sampling import photos
from anigan_jax.sampling import seeds as by_seed
from anigan_jax.sampling.photos import Gathered
from anigan_jax.storage import run_dir

DOMAINS = ("ask", "a", "b", "both")


def evaluate(
    images: np.ndarray | str | Path,
    against: str | Path,
    *,
    n: int | None = None,
    judges: Sequence[Any] = ("vgg16",),
    seed: int = 0,
    size: int | None = None,
    domain: str = "ask",
) -> dict[str, Any]:
    """The panel of `anigan evaluate IMAGES --against DATA`: of images of any model.

    anigan_jax.evaluate(images, "faces.zip", judges=["random"])

    Args:
      images: (N, S, S, 3) uint8, or (N, S, S, 4) RGBA; or a folder, zip or tar of images.
      against: the real ones, as `--data.path` of a training is given; a part is held out.
      n: so many of the images, drawn by the seed; None: all.
      judges: as of `Trained.evaluate`.
      size: side in pixels at which files are compared; None: that of the first of them, or of a
        pack. Arrays are compared as they are.
      domain: of real images that have two: 'a', 'b' or 'both'.

    Returns:
      As `Trained.evaluate`.

    Raises:
      UserError: the images are of another shape, or cannot be read; or a judge is not there.
    """
    if isinstance(judges, str) or not judges:
        raise UserError(f"judges is {judges!r}; it must be a list, such as ['vgg16']")
    if n is not None and by_seed.whole(n, "n") < 2:
        raise UserError(f"n is {n}; it must be at least 2")
    if size is not None and by_seed.whole(size, "size") < 8:
        raise UserError(f"size is {size}; it must be at least 8")
    if domain not in DOMAINS:
        raise UserError(f"domain is {domain!r}; it must be one of {', '.join(map(repr, DOMAINS))}")
    (seed,) = by_seed.checked([seed], "seed")
    environment.prepare()
    against = str(against)
    given = environment.expanded(images) if isinstance(images, str | Path) else None
    refuse_runs(given, against)
    if given is not None:
        pack, found = files(given, against, domain, size)
        pixels, name = found.images[pack.images.shape[1]], str(given)
    else:
        pixels, name = _checked(images, size), "images"
        pack = real(against, domain, pixels.shape[1], pixels.shape[3])
    environment.start()
    networks = features.on_backgrounds(features.several(judges), pixels.shape[-1])
    wanted = checkpoint_quality.Wanted(n, seed, networks, None)
    pixels = some(pixels, n, seed, name)
    found_of, _ = checkpoint_quality.measure_images(pixels, pack, wanted, lambda _: None)
    return prompt_accuracy.as_json(found_of)


def refuse_runs(images: Path | None, against: str) -> None:
    """Refuses run directories, whose pictures are sheets.

    Raises:
      UserError: one of them is a run.
    """
    if images and ((found := run_dir.found(images)) != images or run_dir.is_run(found)):
        raise UserError(
            f"{images} is a run, which knows its own data; leave out --against, or in Python: "
            "anigan_jax.load(RUN).evaluate()"
        )
    if run_dir.is_run(real := environment.expanded(against)):
        recorded = run_dir.read_run(real) if (real / run_dir.RUN).exists() else {}
        learned = ((recorded.get("config") or {}).get("data") or {}).get("path", "")
        data = f": {learned}" if learned else ""
        raise UserError(f"{against} is a run; give the real images that it learned from{data}")


def _checked(images: Any, size: int | None) -> np.ndarray:
    try:
        pixels = np.asarray(images)
    except ValueError:
        raise UserError("images have several sizes; give images of one size") from None
    n, height, width, channels = pixels.shape if pixels.ndim == 4 else (0, 0, 0, 0)
    if pixels.dtype != np.uint8 or channels not in (3, 4) or height != width or not n * height:
        raise UserError(
            f"images are {pixels.dtype} {pixels.shape}; they must be uint8 (N, S, S, 3) or "
            "(N, S, S, 4)"
        )
    if size not in (None, height):
        raise UserError(f"size is {size}, but the images are of {height} px; leave size out")
    return pixels


def files(given: Path, against: str, domain: str, size: int | None) -> tuple[Pack, Gathered]:
    """Real images, and those of a folder or archive, cropped and resized as they are.

    Args:
      size: side in pixels; None: that of the pack, or of the first of `given`.
    """
    photos.check([given], photos.Cropping())
    path = Path(against).expanduser()
    packed = dataset.open_pack(path) if dataset.is_pack(path) else None
    size = size or (packed and packed.manifest["size"]) or photos.side_of([given]) or Images.size
    pack = real(against, domain, size, packed.images.shape[-1] if packed else 3)
    kept = "keep" if pack.images.shape[-1] == 4 else "lay over"
    return pack, photos.gather([given], photos.Cropping(transparency=kept), size)


def real(against: str, domain: Any, size: int, channels: int) -> Pack:
    """The real images that others are judged by, of one domain.

    Raises:
      UserError: there are none, or they have two domains and none is named.
    """
    kept = "keep" if channels == 4 else "lay over"
    settings = Images(path=against, size=size, domain=domain, transparency=kept)
    pack = dataset.build(settings, scratch.default_cache())
    if "trainA" in pack.manifest["parts"]:
        raise UserError(f"{against} has two domains; say which: --domain a, b or both")
    return pack


def some(pixels: np.ndarray, n: int | None, seed: int, name: str) -> np.ndarray:
    """`n` of the images in their order, drawn by the seed; all where it is None.

    Raises:
      UserError: they are fewer, or fewer than 2.
    """
    if len(pixels) < max(2, n or 0):
        raise UserError(f"{name} has {len(pixels)} usable images, fewer than {max(2, n or 0)}")
    if n is None:
        return pixels
    return pixels[np.sort(np.random.default_rng(seed).choice(len(pixels), n, replace=False))]
