"""What `anigan evaluate` does: how good images are, as numbers and pictures."""

from __future__ import annotations

import contextlib
import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from anigan_jax.config import Config
from anigan_jax.data import attributes
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import UserError
from anigan_jax.evaluation import prompt_accuracy, sample_quality, translation_quality
from anigan_jax.evaluation.features import Network
from anigan_jax.metrics import diversity
from anigan_jax.perceptual import store
from anigan_jax.sampling import grids
from anigan_jax.sampling.grids import Model
from anigan_jax.storage import atomic
from anigan_jax.storage import images as record

N = 10_000


class Wanted(NamedTuple):
    """What a panel is made of.

    Attributes:
      n: generated images; None for the usual number.
      seed: of latents, subsets and pairs.
      networks: by which images are judged.
      vgg: weights of LPIPS, or None to leave it out.
      classifier: a model that tells colors, or None.
    """

    n: int | None
    seed: int
    networks: list[Network]
    vgg: dict | None
    classifier: Model | None = None


def measure(
    model: Model,
    config: Config,
    pack: Pack,
    data: dict,
    wanted: Wanted,
    notify: Callable[[str], None] = lambda stage: None,
) -> tuple[dict, dict[str, Image.Image]]:
    """Evaluates a checkpoint.

    Args:
      data: the held-out rows, domain -> name -> array.
      notify: is given the name of each stage when it begins.

    Returns:
      The report, and pictures by the end of their names.

    Raises:
      UserError: the run makes no images, or --n is given for a translation.
    """
    clock = time.monotonic()
    method, state = model.method, model.state
    targets = sample_quality.targets(method, pack)
    counts = _counts(method, pack, targets, wanted)
    notify(f"generating {sum(counts.values()):,} images")
    images = {
        name: sample_quality.made(model, pack, name, target, counts[name], wanted.seed)
        for name, target in targets.items()
    }
    report = {
        "step": int(state.step),
        "averaged": grids.weights_of(model) == "ema",
        "protocols": {
            network.name: sample_quality.protocol(network, pack, counts, wanted.seed)
            for network in wanted.networks
        },
        "sets": {},
    }
    pictures = {}
    for name, target in targets.items():
        told, sheet = _of_target(config.flip, pack, target, images[name], wanted, notify)
        report["sets"][name] = told
        if sheet:
            pictures["closest" if name == sample_quality.GENERATED else f"{name}_closest"] = sheet
    if method.translate:
        made = images if pack.paired else {}
        notify("translating there and back")
        report |= translation_quality.measure(model, pack, data, made, wanted.vgg)
        for direction, pixels in made.items():
            pictures[direction] = translation_quality.sheet(pixels, pack, direction)
    return report | _about(wanted, clock), pictures


def measure_images(
    images: np.ndarray, pack: Pack, wanted: Wanted, notify: Callable[[str], None]
) -> tuple[dict, dict[str, Image.Image]]:
    """Evaluates images that something else has made, by the protocol of a run's.

    Args:
      images: (n, S, S, 3) uint8.
      pack: of the real images, of one domain and of S px; its held-out ones are the floor.

    Returns:
      As `measure`.
    """
    clock = time.monotonic()
    name = sample_quality.GENERATED
    target = sample_quality.Target(None, "train", sample_quality.held_out(pack, "A"))
    # Whether the model has mirrored its images nobody knows: a mirrored copy is one.
    told, sheet = _of_target(True, pack, target, images, wanted, notify)
    protocols = {
        network.name: sample_quality.protocol(network, pack, {name: len(images)}, wanted.seed)
        for network in wanted.networks
    }
    report = {"protocols": protocols, "sets": {name: told}}
    return report | _about(wanted, clock), {"closest": sheet} if sheet else {}


def _about(wanted: Wanted, clock: float) -> dict:
    """What a report says of its making, begun at a time of time.monotonic()."""
    vgg = {"vgg16_sha256": store.content_sha256(wanted.vgg)} if wanted.vgg else {}
    seconds = round(time.monotonic() - clock, 1)
    return {**vgg, "seconds": seconds, "peak_memory_mb": _peak_memory()}


def _counts(method, pack, targets, wanted: Wanted) -> dict[str, int]:
    if method.translate:
        if wanted.n is not None:
            raise UserError("this run translates all of its held-out photos; leave --n out")
        return {name: len(pack.part(target.source)) for name, target in targets.items()}
    return dict.fromkeys(targets, wanted.n or N)


def _of_target(
    mirror: bool,
    pack: Pack,
    target: sample_quality.Target,
    images: np.ndarray,
    wanted: Wanted,
    notify: Callable[[str], None],
):
    """The panel of one set of images, and its closest pairs as a picture or None."""
    train = pack.part(target.train)
    held = len(pack.part(target.held_out)) if target.held_out else 0
    told: dict = {"n": len(images), "train": len(train), "held_out": held}
    told |= {"scores": {}, "refused": {}, "memorization": {}}
    seen, sheet = {}, None
    for network in wanted.networks:
        notify(f"{network.name} looks at {len(images):,} images, and at the real ones")
        seen[network.name] = sample_quality.seen(network, pack, target, images)
        scores, refused = sample_quality.measure(network, seen[network.name], wanted.seed)
        told["scores"] |= scores
        told["refused"] |= refused
    if seen:
        notify("nearest training images")
        near, sheet = sample_quality.memorization(seen, images, pack, target, mirror)
        told["memorization"] = near
    notify("LPIPS of pairs")
    # VGG16 halves what it sees four times.
    if wanted.vgg and min(len(images), len(train)) >= 4 and images.shape[1] >= 16:
        told["lpips"] = sample_quality.perceptual_diversity(images, train, wanted.vgg, wanted.seed)
    if wanted.classifier:
        told["modes"] = _modes(wanted.classifier, images, train)
    return told, sheet


def _modes(classifier: Model, images: np.ndarray, train: np.ndarray) -> dict:
    """Which combinations of classes a classifier finds in images, beside the training images."""

    def found(pixels: np.ndarray) -> np.ndarray:
        return prompt_accuracy.classify(classifier, pixels)

    sizes, both = attributes.sizes_of(classifier.constants), (found(images), found(train))
    if math.prod(sizes) > attributes.PLACES:
        # Cells for those that occur.
        every, index = np.unique(np.concatenate(both), axis=0, return_inverse=True)
        sizes, both = (len(every),), np.split(index.reshape(-1, 1), [len(images)])
    return diversity.modes(*both, sizes)._asdict()


def _peak_memory() -> int:
    """Peak resident memory of this process in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6)


def place_beside(path: Path, report: dict, pictures: Iterable[str]) -> Path:
    """Where a report goes in a folder with those of the same step by other judges or counts.

    The one of the most images has the plain name; a quick look never takes it.

    Args:
      pictures: ends of the names of what lies beside it.
    """
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        own, its = _protocol(report), _protocol(before)
        data, other = _data(report), _data(before)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return path
    if data and other and data != other:
        return path.with_name(f"{path.stem}_of_{'_'.join(sorted(data))}{path.suffix}")
    if own == its:
        return path
    if own[1] < its[1]:
        return _named(path, own)
    moved = _named(path, its)
    path.rename(moved)
    for end in pictures:
        with contextlib.suppress(OSError):
            _picture(path, end).rename(_picture(moved, end))
    return path


def _picture(report: Path, end: str) -> Path:
    return report.with_name(f"{report.stem}_{end}.png")


def _data(report: dict) -> set[str]:
    """The real images that a report is beside, by the first letters of their digest, where it
    tells."""
    told = ((one or {}).get("data_sha256") for one in report["protocols"].values())
    return {digest[:8] for digest in told if digest}


def _protocol(report: dict) -> tuple[tuple[str, ...], int]:
    """The judges, and the images of the largest set."""
    return tuple(report["protocols"]), max(one["n"] for one in report["sets"].values())


def _named(path: Path, protocol: tuple[tuple[str, ...], int]) -> Path:
    judges, n = protocol
    return path.with_name(f"{path.stem}_by_{'_'.join(judges) or 'partners'}_{n}{path.suffix}")


def write(report: str, pictures: dict[str, Image.Image], path: Path) -> list[Path]:
    """Writes the report, a .json, and the pictures next to it."""
    atomic.save_text(report, path)
    made = (record.save_image(image, _picture(path, end)) for end, image in pictures.items())
    return [path, *made]
