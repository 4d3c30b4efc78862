"""What the picture verbs do: sample, interpolate, kernels."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from anigan_jax import rng
from anigan_jax.core import Method, Texts, TrainState, generator_of
from anigan_jax.errors import UserError
from anigan_jax.storage import images as record
from anigan_jax.storage.run_dir import out_dir

BATCH = 64


class Model(NamedTuple):
    """Trained networks, opened to be asked for images.

    Attributes:
      method: of one device.
      state: with the weights and statistics of both players; the rest may be empty.
      texts: what G can be asked for; None where it reads no text.
      constants: the method's arrays that nothing trains.
      tag: tells its pictures from those of the same checkpoint's averaged weights.
    """

    method: Method
    state: TrainState
    texts: Texts | None
    constants: dict
    tag: str = ""


def model_of(method: Method, state: TrainState, constants: dict) -> Model:
    """A model; the constants may be {} where G reads no text."""
    return Model(method, state, method.texts(constants) if method.texts else None, constants)


def with_weights(model: Model, weights: str | None) -> Model:
    """The model that draws with these weights of G, and with statistics that belong to them.

    Args:
      weights: 'raw' as trained, 'ema' averaged; None: averaged where the run averages.

    Raises:
      UserError: the run averages nothing, or there are no such weights.
    """
    averaged = bool(model.state.ema)
    if weights == "raw" and averaged:
        return model._replace(state=model.state.replace(ema={}, ema_stats={}), tag="_raw")
    if weights == "ema" and not averaged:
        raise UserError("this run has no averaged weights (ema_half_life is 0), only 'raw' ones")
    if weights not in (None, "raw", "ema"):
        raise UserError(f"weights are {weights!r}; they can be 'raw' or 'ema'")
    return model


def generated(model: Model, z, text=None) -> np.ndarray:
    """Images of latents (n, Z) and texts (n, T) or None, (n, H, W, 3) uint8.

    With the averaged weights where the run has them.
    """
    params, stats = generator_of(model.state)
    draw = jax.jit(model.method.generate)
    out = []
    for at in range(0, len(z), BATCH):
        part = slice(at, at + BATCH)
        images = draw(params, stats, z[part], None if text is None else text[part])
        out.append(record.to_uint8(images))
    return np.concatenate(out)


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
    need_noise(method)
    key = rng.stream_key(rng.root_key(seed), rng.Stream.SAMPLE)
    return np.asarray(rng.normal(rng.example_keys(key, np.arange(n)), (method.z_dim,)))


def sample(model: Model, run: Path, n: int, seed: int, texts=None) -> Path:
    """A grid of `n` new images, of texts (n, T) where the run has them."""
    images = generated(model, latents(model.method, n, seed), texts)
    path = out_dir(run, "sample") / f"{stem(model, seed)}.png"
    return record.save_image(record.grid(images), path)


def stem(model: Model, seed: int) -> str:
    """Name of a picture of a model and a seed."""
    return f"step_{int(model.state.step):09d}_seed_{seed}{model.tag}"


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """Great-circle path between latents: lengths stay typical of a normal draw."""
    cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    angle = np.arccos(np.clip(cosine, -1, 1))
    if angle < 1e-6:
        return a
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def interpolate(
    model: Model, run: Path, frames: int, stops: int, seed: int, text=None, suffix=""
) -> list[Path]:
    """A closed path through `stops` latents: a GIF of `frames`, a grid of ten a leg.

    `text`: (T,) of all images, where the run has texts; `suffix` of the files' names.
    """
    ends = latents(model.method, stops, seed)

    def path_of(steps: int) -> np.ndarray:
        rows = []
        for i in range(steps):
            leg, t = divmod(i * stops / steps, 1)
            rows.append(slerp(ends[int(leg)], ends[(int(leg) + 1) % stops], t))
        return np.stack(rows).astype(np.float32)

    def draw(steps: int) -> np.ndarray:
        z = path_of(steps)
        texts = None if text is None else np.tile(text, (steps, 1))
        return generated(model, z, texts)

    folder, name = out_dir(run, "interpolate"), stem(model, seed) + suffix
    pictures = [record.grid(p[None], pad=0) for p in draw(frames)]
    gif = record.save_gif(pictures, folder / f"{name}.gif")
    sheet = record.grid(draw(10 * stops), columns=10)
    return [gif, record.save_image(sheet, folder / f"{name}.png")]


def kernels(state: TrainState, run: Path) -> Path:
    """D's first layer, each filter in its own range; that of domain a above that of b."""
    tree = state.params["d"]
    networks = [tree["a"], tree["b"]] if set(tree) == {"a", "b"} else [tree]
    pictures = [record.kernel_grid(_first_kernel(network)) for network in networks]
    page = Image.new("RGB", (pictures[0].width, sum(p.height for p in pictures)), "white")
    for i, picture in enumerate(pictures):
        page.paste(picture, (0, i * picture.height))
    return record.save_image(page, out_dir(run, "kernels") / f"step_{int(state.step):09d}.png")


def _first_kernel(params) -> np.ndarray:
    """(k, k, 3, n) of the convolution that sees the image, whatever its name."""
    # By name, layers do not come in forward order; only the first has three channels.
    leaves = map(np.asarray, jax.tree.leaves(params))
    found = next((leaf for leaf in leaves if leaf.ndim == 4 and leaf.shape[2] == 3), None)
    if found is None:
        raise UserError("the first layer of this run's D sees single pixels; it has no kernels")
    return found
