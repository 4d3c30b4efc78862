"""How right translations are: against true partners where they are known, and alone."""

from __future__ import annotations

import numpy as np
from PIL import Image

from anigan_jax.data.attributes import HAIR
from anigan_jax.data.dataset import Pack
from anigan_jax.data.synthetic import painted
from anigan_jax.metrics import paired
from anigan_jax.metrics.attributes import Share
from anigan_jax.perceptual import lpips
from anigan_jax.sampling import photos
from anigan_jax.sampling.grids import Model

PARTS = {"a": "testA", "b": "testB"}
SHOWN = 36
TRAINED = {"a": "trainA", "b": "trainB"}


def measure(model: Model, pack: Pack, data: dict, made: dict[str, np.ndarray], vgg) -> dict:
    """Judges a run on the held-out images.

    Args:
      data: the held-out rows, domain -> name -> array.
      made: direction -> what the held-out images become (n, H, W, 3) uint8; {} where they
        are no pairs.
      vgg: weights of `networks.lpips.distances`; None leaves LPIPS out.

    Returns:
      'l1': the distances of `Method.evaluate`; and where the held-out images are pairs, for
      each direction the rows of `against_partners`.
    """
    images = pack.first("test")
    report = {"step": int(model.state.step), "l1": model.method.evaluate(model.state, {}, data)}
    if made:
        report["pairs"] = len(images)
    for direction, pictures in made.items():
        report[direction] = against_partners(pictures, pack, direction, vgg)
    return report


def against_partners(made: np.ndarray, pack: Pack, direction: str, vgg) -> dict:
    """Pictures against the true partners: 'translation', the baselines, and what is true.

    Returns:
      name -> {'psnr': mean dB over images, 'lpips': mean or None, 'hair': share with the
      true hair color, or None where the target is no anime}. 'truth' has the hair alone:
      the ceiling of the pixel judge.
    """
    here, there = direction
    source, partners = pack.part(PARTS[here]), pack.part(PARTS[there])
    pictures = {"translation": made, **paired.baselines(source, pack.part(TRAINED[there]))}
    rows = {}
    for name, images in pictures.items():
        rows[name] = {
            "psnr": float(paired.psnr(images, partners).mean()),
            "lpips": None if vgg is None else float(lpips.distances(vgg, images, partners).mean()),
            "hair": _hair(images, pack) if there == "b" else None,
        }
    if there == "b":
        rows["truth"] = {"psnr": None, "lpips": None, "hair": _hair(partners, pack)}
    return rows


def sheet(made: np.ndarray, pack: Pack, direction: str) -> Image.Image:
    """Held-out images, what they become, and their true partners."""
    here, there = direction
    columns = pack.part(PARTS[here]), made, pack.part(PARTS[there])
    names = here.upper(), f"{here.upper()} to {there.upper()}", "truth"
    return photos.rows([(n, images[:SHOWN]) for n, images in zip(names, columns, strict=True)])


def _hair(images: np.ndarray, pack: Pack) -> Share:
    """How often the pixels show the hair color that the face has."""
    palette = np.array([painted.HAIR[name] for name in HAIR])
    return paired.agreement(paired.hair(images, palette), pack.labels("testB")[:, 0])
