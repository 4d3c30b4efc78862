"""What the picture verbs do: latents and images of seeds, grids, walks, kernels."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from anigan_jax import rng
from anigan_jax.core import Method, PyTree, Texts, TrainState, generator_of
from anigan_jax.errors import UserError
from anigan_jax.runtime.batching import in_batches
from anigan_jax.storage import atomic
from anigan_jax.storage import images as record
from anigan_jax.storage.images import Filter
from anigan_jax.storage.run_dir import out_dir

BATCH = 16
"""Images that are drawn at once, always as many: an image is the same whatever comes with it."""
SEEDS = 2**32
"""How many seeds there are."""
MOST_SCALE = 32


@dataclass(frozen=True)
class Drawing:
    """How a model's images are drawn."""

    truncation: float | None = None
    """Cut off the normal distribution of the latents at +-T (BigGAN's truncation): a lower T, such
    as 0.7, gives more typical and less varied images; if omitted: as trained."""
    scale: int = 1
    """Enlarge images N times after they are drawn."""
    filter: Filter = "lanczos"
    """How --scale enlarges: smoothly, or each pixel as a square."""


AS_TRAINED = Drawing()


class Model(NamedTuple):
    """Trained networks, opened to be asked for images.

    Attributes:
      method: of one device.
      state: with the weights and statistics of both players; the rest may be empty.
      texts: what G can be asked for; None where it reads no text.
      constants: the method's arrays that nothing trains.
      tag: tells its pictures from those of the same checkpoint's averaged weights.
      drawing: how its images are drawn.
      alone: which weights of G these are where the state has no average: 'raw', 'ema', or 'drawn',
        those that a run draws with, of a file that does not say more.
    """

    method: Method
    state: TrainState
    texts: Texts | None
    constants: dict
    tag: str = ""
    drawing: Drawing = AS_TRAINED
    alone: str = "raw"


def model_of(method: Method, state: TrainState, constants: dict) -> Model:
    """A model; the constants may be {} where G reads no text."""
    return Model(method, state, method.texts(constants) if method.texts else None, constants)


def weights_of(model: Model) -> str:
    """'ema' or 'raw': which weights of G a model draws with."""
    return "ema" if model.state.ema or model.alone == "drawn" else model.alone


def with_weights(model: Model, weights: str | None) -> Model:
    """The model that draws with these weights of G, and with statistics that belong to them.

    Args:
      weights: 'raw' as trained, 'ema' averaged; None: averaged where the run averages.

    Raises:
      UserError: the run averages nothing, or there are no such weights.
    """
    if weights not in (None, "raw", "ema"):
        raise UserError(f"weights are {weights!r}; they must be 'raw' or 'ema'")
    if weights in (None, weights_of(model)):
        return model
    if weights == "ema":
        raise UserError(
            "there are no averaged weights here, only 'raw' ones: the run averages none "
            "(ema_half_life is 0), or they were exported or trained on without them"
        )
    if not model.state.ema:
        raise UserError(
            "these are only the averaged weights ('ema'); the 'raw' ones are in the run "
            "directory that they were exported from"
        )
    state = model.state.replace(ema={}, ema_stats={})
    return model._replace(state=state, tag="_raw", alone="raw")


def with_generator(model: Model, params: PyTree, stats: PyTree) -> Model:
    """The model with a generator of other weights alone: no discriminator, no average."""
    nets = {"params": {"g": params}, "stats": {"g": stats}, "ema": {}, "ema_stats": {}}
    state = model.state.replace(**nets, opt_state={}, extra_state={})
    return model._replace(state=state, alone="raw")


def with_drawing(model: Model, drawing: Drawing) -> Model:
    """The model that draws so.

    Raises:
      UserError: a number of it is out of range.
    """
    limit, scale = drawing.truncation, drawing.scale
    if limit is not None and not 0 < limit < float("inf"):
        raise UserError(f"truncation is {limit:g}; it must be a number above 0")
    if not 1 <= scale <= MOST_SCALE:
        raise UserError(f"scale is {scale}; it must be 1 to {MOST_SCALE}")
    tag = "" if limit is None else f"_truncated_{limit:g}"
    tag += "" if scale == 1 else f"_{drawing.filter}_x{scale}"
    return model._replace(drawing=drawing, tag=model.tag + tag)


def truncated(z: np.ndarray, limit: float) -> np.ndarray:
    """Standard normal latents, any shape, as those of the normal distribution cut off at +-limit.

    Each number keeps its quantile, so a seed keeps what it shows; a lower limit gives more
    typical and less varied images.

    Departs: the source draws numbers beyond the limit anew; the distribution is the same.
    Source: Brock et al. 2019 (BigGAN), section 3.1.
    """
    z = np.asarray(z, np.float64)
    # The lower tail: near 1 a quantile has few digits left.
    from scipy.special import ndtr, ndtri  # A fifth of a second to import.

    low, tail = ndtr(-limit), ndtr(-np.abs(z))
    cut = ndtri(low + tail * (1 - 2 * low))
    return (-np.sign(z) * cut).astype(np.float32)


def generated(model: Model, z, text=None) -> np.ndarray:
    """Images of latents (n, Z) and texts (n, T) or None, (n, H, W, 3) uint8, or RGBA.

    With the averaged weights where the run has them. An image does not depend on the others.
    """
    params, stats = generator_of(model.state)
    draw = jax.jit(model.method.generate)
    limit, scale, how = model.drawing.truncation, model.drawing.scale, model.drawing.filter
    z = z if limit is None else truncated(z, limit)

    def run(rows: np.ndarray) -> np.ndarray:
        images = draw(params, stats, z[rows], None if text is None else text[rows])
        return record.enlarged(record.to_uint8(images), scale, how)

    return in_batches(run, np.arange(len(z)), BATCH)


def need_noise(method: Method) -> None:
    """Refuses a run that makes no images from noise."""
    if method.translate:
        raise UserError(
            "this run makes no images from noise, it translates photos; "
            "use `anigan translate RUN PHOTO...`"
        )
    if method.generate is None:
        raise UserError("this run trains no generator; it has nothing to draw")


def latents(method: Method, n: int, seed: int) -> np.ndarray:
    """(n, Z) float32 latents of a seed; the first of them do not depend on n."""
    return _latents(method, np.full(n, seed % SEEDS), np.arange(n))


def latents_of(method: Method, seeds: Sequence[int]) -> np.ndarray:
    """(n, Z) float32, the first latent of each seed below `SEEDS`; they do not depend on others."""
    return _latents(method, np.asarray(seeds), np.zeros(len(seeds)))


def _latents(method: Method, seeds: np.ndarray, examples: np.ndarray) -> np.ndarray:
    need_noise(method)
    rows = np.stack([seeds, examples], axis=1).astype(np.uint32)
    return in_batches(lambda part: _normal(part, method.z_dim), rows)


@functools.partial(jax.jit, static_argnums=1)
def _normal(rows, z_dim: int):
    """Seeds and numbers of examples (n, 2) uint32 -> (n, z_dim) standard normal numbers."""

    def key(row):
        stream = rng.stream_key(rng.root_key(row[0]), rng.Stream.SAMPLE)
        return jax.random.fold_in(stream, row[1])

    return rng.normal(jax.vmap(key)(rows), (z_dim,))


def stem(model: Model, seed: int) -> str:
    """Name of a picture of a model and a seed."""
    return f"step_{int(model.state.step):09d}_seed_{seed}{model.tag}"


def suffix_of(first: str, every: Sequence[str]) -> str:
    """What tells pictures of other texts or photos apart in their names."""
    words = re.sub(r"[^a-z0-9]+", "_", first.lower()).strip("_")[:40]
    # The hash tells lists apart that begin alike.
    told = hashlib.sha256("\n".join(every).encode(errors="surrogateescape")).hexdigest()[:8]
    return "".join(f"_{part}" for part in (words, told) if part)


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """Great-circle path between latents: lengths stay typical of a normal draw."""
    cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    angle = np.arccos(np.clip(cosine, -1, 1))
    # At its begin it is `a` to the bit.
    if angle < 1e-6 or t == 0:
        return a
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


class Walk(NamedTuple):
    """A path in pictures: `frames` in order, (H, W, 3 or 4) uint8; `sheet` of its steps, `name` of
    its files."""

    frames: list[np.ndarray]
    sheet: Image.Image
    name: str

    def shown(self) -> list[Image.Image]:
        """The frames as a film shows them, which knows no transparency."""
        return [record.grid(frame[None], pad=0) for frame in self.frames]


def save_walk(walk: Walk, run: Path, fps: int = 0) -> list[Path]:
    """Writes a walk as a GIF, and its sheet."""
    folder = out_dir(run, "interpolate")
    gif = record.save_gif(walk.shown(), folder / f"{walk.name}.gif", fps)
    return [gif, record.save_image(walk.sheet, folder / f"{walk.name}.png")]


def save_frames(walk: Walk, folder: Path) -> Path:
    """Writes the frames of a walk, 0000.png and so on, transparent ones as such.

    Raises:
      UserError: the folder holds something.
    """
    with atomic.new_folder(folder) as made:
        for i, frame in enumerate(walk.frames):
            record.save_image(Image.fromarray(frame), made / f"{i:04d}.png")
    return folder


def walk(model: Model, ends: np.ndarray, frames: int, name: str, text=None) -> Walk:
    """A closed path through latents (n, Z): pictures of `frames`, a sheet of ten a leg.

    `text`: (T,) of all images or (n, T) of each latent, where the run has texts.
    """
    stops = len(ends)
    told = None if text is None else np.broadcast_to(text, (stops, np.shape(text)[-1]))

    def draw(steps: int) -> np.ndarray:
        rows, texts = [], []
        for i in range(steps):
            leg, t = divmod(i * stops / steps, 1)
            here, there = int(leg), (int(leg) + 1) % stops
            rows.append(slerp(ends[here], ends[there], t))
            if told is not None:
                # In this form the way from a text to itself is that text, to the bit.
                texts.append(told[here] + np.float32(t) * (told[there] - told[here]))
        words = None if told is None else np.stack(texts)
        return generated(model, np.stack(rows).astype(np.float32), words)

    return Walk(list(draw(frames)), record.grid(draw(10 * stops), columns=10), name)


def interpolate(
    model: Model, run: Path, frames: int, stops: int, seed: int, text=None
) -> list[Path]:
    """Writes the walk through the first `stops` latents of a seed; arguments as `walk`."""
    ends = latents(model.method, stops, seed)
    return save_walk(walk(model, ends, frames, stem(model, seed), text), run)


def kernels(state: TrainState, run: Path, out: Path | None = None) -> Path:
    """D's first layer, each filter in its own range; that of domain a above that of b."""
    if "d" not in state.params:
        raise UserError(f"{run} holds only generators; for D's kernels, give a run directory")
    tree = state.params["d"]
    networks = [tree["a"], tree["b"]] if set(tree) == {"a", "b"} else [tree]
    pictures = [record.kernel_grid(_first_kernel(network)) for network in networks]
    page = Image.new("RGB", (pictures[0].width, sum(p.height for p in pictures)), "white")
    for i, picture in enumerate(pictures):
        page.paste(picture, (0, i * picture.height))
    place = out or out_dir(run, "kernels") / f"step_{int(state.step):09d}.png"
    return record.save_image(page, place)


def _first_kernel(params) -> np.ndarray:
    """(k, k, 3, n) of the convolution that sees the image, whatever its name; not of its alpha."""
    # By name, layers do not come in forward order; only the first has three channels, or four.
    leaves = [leaf for leaf in map(np.asarray, jax.tree.leaves(params)) if leaf.ndim == 4]
    of_images = (leaf[:, :, :3] for n in (3, 4) for leaf in leaves if leaf.shape[2] == n)
    found = next(of_images, None)
    if found is None:
        raise UserError("the first layer of this run's D sees single pixels; it has no kernels")
    return found
