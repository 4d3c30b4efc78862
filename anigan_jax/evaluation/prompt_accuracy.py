"""Conditional accuracy: a classifier of real images judges what a text GAN makes.

Protocol after Shmelkov et al. 2018 (GAN-test): the classifier sees real images only; its
accuracy on held-out ones is the ceiling; shuffled prompts are the control.
"""

from __future__ import annotations

import numpy as np

from anigan_jax.data import captions
from anigan_jax.data.captions import Prompt
from anigan_jax.data.labels import COLORS, EYES, HAIR
from anigan_jax.metrics import attributes
from anigan_jax.metrics.attributes import Share
from anigan_jax.sampling import prompts
from anigan_jax.sampling.grids import Model


def ceiling(classifier: Model, images, labels) -> dict:
    """What the classifier tells of held-out real images (n, H, W, 3) with labels (n, 2).

    Returns:
      'prompts': shares by part; 'mean_over_colors': by part of hair and eyes, since the
      prompts of `measure` name each color equally often and real images do not.
    """
    found = classify(classifier, images)
    mean = {
        part: float(np.mean([share.value for share in classes.values()]))
        for part, classes in _by_class(found, labels).items()
    }
    return {"prompts": attributes.shares(found, labels), "mean_over_colors": mean}


def groups(counts: np.ndarray, wordings: np.ndarray) -> dict[str, list[Prompt]]:
    """Prompts of the pairs that the data has ('seen'), and of those that it has not.

    'unseen': both colors occur in the data, but never together (zero-shot). Pairs
    without a wording (in a file of vectors) are left out.
    """
    told = wordings.reshape(len(HAIR), len(EYES)) > 0
    grid = counts.reshape(len(HAIR), len(EYES)) > 0
    both = grid.any(1)[:, None] & grid.any(0)[None]
    pairs = [Prompt(str(label), label) for label in captions.pairs()]
    cells = {"seen": grid & told, "unseen": both & ~grid & told}
    return {name: [pairs[i] for i in np.flatnonzero(cell)] for name, cell in cells.items()}


def classify(classifier: Model, images: np.ndarray) -> np.ndarray:
    """(n, 2) class indices of hair and eyes of images (n, H, W, 3) uint8."""
    state = classifier.state
    return classifier.method.classify(state.params["d"], state.stats["d"], images)


def measure(model: Model, classifier: Model, n: int, seed: int) -> dict:
    """Asks for `n` images of every pair and lets the classifier say what they show.

    Returns:
      For each group of `groups` that has prompts: 'pairs', their number; 'prompts',
      shares right by part; 'shuffled', the same against prompts in another order (the
      control); 'chance', what that would give an obedient G; 'by_class', shares by color.
    """
    texts = prompts.need_texts(model)
    averaged = bool(model.state.ema)
    report = {"step": int(model.state.step), "averaged": averaged, "n": n, "seed": seed}
    for name, asked_for in groups(texts.frequencies, texts.wordings).items():
        if not asked_for:
            continue
        # Latents of their own: the intervals count on independent images.
        images, asked = prompts.ask(model, asked_for, n, seed, same=False)
        images = images.reshape(-1, *images.shape[2:])
        found = classify(classifier, images)
        report[name] = {
            "pairs": len(asked_for),
            "prompts": attributes.shares(found, asked),
            "shuffled": attributes.shuffled(found, asked, seed),
            "chance": _chance(asked),
            "by_class": _by_class(found, asked),
        }
    return report


def _chance(asked: np.ndarray) -> dict[str, float]:
    """Expected share right where prompts are shuffled and each was obeyed."""
    index = {"hair": asked[:, 0], "eyes": asked[:, 1], "both": captions.pair(*asked.T)}
    shares = {part: np.unique(x, return_counts=True)[1] / len(x) for part, x in index.items()}
    return {part: float((share**2).sum()) for part, share in shares.items()}


def _by_class(found: np.ndarray, asked: np.ndarray) -> dict[str, dict[str, Share]]:
    return {
        part: {COLORS[part][c]: s for c, s in attributes.by_class(found, asked, i).items()}
        for i, part in enumerate(COLORS)
    }


def as_json(value):
    """Shares as dicts."""
    if isinstance(value, Share):
        return value._asdict()
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    return value
