"""The panel: how good a run's images are, by several measures at once, beside a floor.

The floor is what real held-out images get under the same protocol: no generator can be
told from perfect beyond it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from anigan_jax.core import Method
from anigan_jax.data import dedup
from anigan_jax.data.alpha import BACKGROUNDS, over
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import UserError
from anigan_jax.evaluation import features
from anigan_jax.evaluation.features import Network
from anigan_jax.metrics import diversity, prdc
from anigan_jax.metrics.feature_scores import COLUMNS, kid_size, of_features, scores
from anigan_jax.perceptual import lpips
from anigan_jax.sampling import grids, photos, prompts
from anigan_jax.sampling.grids import Model
from anigan_jax.storage import images as record

GENERATED = "generated"
CLOSEST = 16
PAIRS = 500


class Target(NamedTuple):
    """Parts of a pack: what is translated (None: images come from noise), the training images
    that the results should look like, and held-out ones of the same kind or None."""

    source: str | None
    train: str
    held_out: str | None


def held_out(pack: Pack, domain: str) -> str | None:
    """The held-out part of a domain; None where there is none."""
    name = pack.named("test", domain)
    return name if name in pack.manifest["parts"] else None


def targets(method: Method, pack: Pack) -> dict[str, Target]:
    """What a run makes, by name: 'generated', or the directions of a translation.

    Raises:
      UserError: the run makes no images, or translates and held no photos out.
    """
    if not method.translate:
        grids.need_noise(method)
        return {GENERATED: Target(None, pack.named("train"), held_out(pack, "A"))}
    found = {}
    for direction in method.translate:
        here, there = direction.upper()
        source = held_out(pack, here)
        if source is None:
            raise UserError("this run held out no photos (--data.test); it has none to translate")
        found[direction] = Target(source, pack.named("train", there), held_out(pack, there))
    return found


def made(model: Model, pack: Pack, name: str, target: Target, n: int, seed: int) -> np.ndarray:
    """Images of a target, (n, H, W, 3) uint8; translations are of the first n held-out images.

    A text GAN is asked for what the training images show, as often as they do.

    Args:
      name: of the target in `targets`.
    """
    if target.source:
        return photos.translated(model, name, pack.part(target.source)[:n])
    texts = prompts.texts_of_data(model, n, seed)
    return grids.generated(model, grids.latents(model.method, n, seed), texts)


def most(pack: Pack, target: Target, n: int) -> int:
    """`n`, or fewer where fewer images can be translated."""
    return min(n, len(pack.part(target.source))) if target.source else n


class Seen(NamedTuple):
    """Features (n, d) of what a run makes, of training images, of held-out ones (maybe none)."""

    made: np.ndarray
    train: np.ndarray
    held_out: np.ndarray


def seen(network: Network, pack: Pack, target: Target, images: np.ndarray) -> Seen:
    """What the network sees of the three sets."""
    held_out = np.zeros((0, network.dimensions), np.float32)
    if target.held_out:
        held_out = features.of_part(network, pack, target.held_out)
    made = features.of_images(network, images)
    return Seen(made, features.of_part(network, pack, target.train), held_out)


def measure(network: Network, found: Seen, seed: int) -> tuple[dict, dict]:
    """Scores of what a run makes and of held-out images, both against the training images.

    Returns:
      scores: 'kid-vgg16' -> {'generated': all images, 'like_floor' and 'floor': equally many
      generated and held-out ones, as many as there are of both}, values or None.
      refused: name -> why one of them is missing.
    """
    size = kid_size(*(len(rows) for rows in found if len(rows)))
    # FD, recall and coverage follow the number of images.
    both = min(len(found.made), len(found.held_out))
    columns = {GENERATED: found.made}
    if both:
        columns |= {"like_floor": found.made[:both], "floor": found.held_out[:both]}
    table: dict[str, dict] = {}
    refused: dict[str, str] = {}
    for column, rows in columns.items():
        told = scores(rows, found.train, seed, size)
        for name, value in told.values.items():
            table.setdefault(f"{name}-{network.name}", dict.fromkeys(COLUMNS))[column] = value
        for name, why in told.refused.items():
            refused.setdefault(f"{name}-{network.name}", why)
    return table, refused


def memorization(
    seen: dict[str, Seen], images: np.ndarray, pack: Pack, target: Target, mirror: bool
) -> tuple[dict, Image.Image | None]:
    """Nearest training images of what a run makes, by features and by pixels.

    Args:
      seen: by the network's name.
      images: those of each `seen.made`.
      mirror: mirrored training images count too, by pixels, where the run mirrors its images.

    Returns:
      {'vgg16' | 'pixels' (thumbnails of 16x16): {'ratio', 'fake', 'held_out', 'copies'}}, and the
      closest pairs as a picture; nothing where no image was held out.
    """
    if target.held_out is None:
        return {}, None
    train = pack.part(target.train)
    thumbs = [_thumbnails(x) for x in (images, train, pack.part(target.held_out))]
    if mirror:
        thumbs[1] = np.concatenate([thumbs[1], thumbs[1][:, :, ::-1]])
    spaces = {**seen, "pixels": [x.reshape(len(x), -1) for x in thumbs]}
    count, told, rows = min(CLOSEST, len(images)), {}, {}
    for name, sets in spaces.items():
        near = prdc.memorization(*sets, count)
        told[name] = {k: float(getattr(near, k)) for k in ("ratio", "fake", "held_out", "copies")}
        i, j = near.closest.T
        mirrored = (j >= len(train))[:, None, None, None]
        nearest = train[j % len(train)]
        rows[name] = [images[i], np.where(mirrored, nearest[:, :, ::-1], nearest)]
    labels = [label for name in rows for label in ("made", f"nearest by {name}")]
    return told, record.table(np.concatenate(list(rows.values())), labels)


def _thumbnails(images: np.ndarray) -> np.ndarray:
    return np.stack([dedup.thumbnail(image) for image in images])


def perceptual_diversity(images: np.ndarray, train: np.ndarray, vgg: dict, seed: int) -> dict:
    """Mean LPIPS of random pairs, of what a run makes and of as many training images.

    Of RGBA on white.
    """
    white = BACKGROUNDS["white"]

    def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return lpips.distances(vgg, over(a, white), over(b, white))

    count = min(PAIRS, len(images) // 2, len(train) // 2)
    told = {}
    for name, each in ((GENERATED, images), ("real", train)):
        chosen = diversity.pairs(len(each), seed, count)
        found = diversity.diversity(each, apart, chosen)
        told[name] = found._asdict()
    return told


def protocol(network: Network, pack: Pack, counts: dict[str, int], seed: int) -> dict:
    """What is compared with what, and how: only numbers of equal protocols compare.

    Args:
      counts: how many images of each target.
    """
    rest = {"seed": seed}
    for metric in of_features().values():
        rest |= metric.protocol
    return {**network.protocol(), **rest, "n": counts, "data_sha256": pack.manifest["sha256"]}
