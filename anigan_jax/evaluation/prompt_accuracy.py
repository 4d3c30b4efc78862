"""Conditional accuracy: a classifier of real images judges what a text GAN makes.

Protocol after Shmelkov et al. 2018 (GAN-test): the classifier sees real images only; its
accuracy on held-out ones is the ceiling; shuffled prompts are the control.
"""

from __future__ import annotations

import numpy as np

from anigan_jax.core import Texts
from anigan_jax.data import attributes as known
from anigan_jax.data.attributes import Attribute, Attributes
from anigan_jax.data.captions import Prompt
from anigan_jax.errors import UserError
from anigan_jax.metrics import attributes
from anigan_jax.metrics.attributes import Share
from anigan_jax.sampling import grids, prompts
from anigan_jax.sampling.grids import Model

MOST = 256
"""Combinations that are asked for, of a group; of more, some that are drawn."""


def ceiling(classifier: Model, images, labels) -> dict:
    """What the classifier tells of held-out real images (n, H, W, 3) with labels (n, A).

    Returns:
      'prompts': shares by attribute; 'mean_over_colors': of each the mean over its classes,
      since the prompts of `measure` name each equally often and real images do not.
    """
    told, found = known.of_arrays(classifier.constants), classify(classifier, images)
    mean = {
        name: float(np.mean([share.value for share in classes.values()]))
        for name, classes in _by_class(told, found, labels).items()
    }
    names = known.names_of(classifier.constants)
    return {"prompts": attributes.shares(found, labels, names), "mean_over_colors": mean}


def groups(texts: Texts, seed: int) -> dict[str, list[Prompt]]:
    """Prompts of the combinations that the data has ('seen'), and of those that it has not.

    'unseen': each class occurs in the data, but never all together (zero-shot). Those
    without a wording (in a file of vectors) are left out; of many, `MOST` are drawn.
    """
    rows, told = texts.combinations, texts.wordings > 0
    has = texts.frequencies > 0
    classes = [np.unique(column) for column in rows[has].T]
    draw = np.random.default_rng(seed)
    shown = np.all([np.isin(rows[:, i], each) for i, each in enumerate(classes)], axis=0)
    unseen = rows[~has & shown & told]
    if has.all():
        # Too many to be listed: what the data has not is looked for.
        drawn = np.stack([draw.choice(each, MOST) for each in classes], axis=1)
        seen = set(map(tuple, rows.tolist()))
        unseen = np.array([each for each in np.unique(drawn, axis=0) if tuple(each) not in seen])
    found = {"seen": rows[has & told], "unseen": unseen}
    return {
        name: [
            prompts.of_row(texts.attributes, each[i])
            for i in np.sort(draw.permutation(len(each))[:MOST])
        ]
        for name, each in found.items()
    }


def classify(classifier: Model, images: np.ndarray) -> np.ndarray:
    """(n, A) class indices of images (n, H, W, 3) uint8."""
    state, constants = classifier.state, classifier.constants
    scores = classifier.method.scores(state.params["d"], state.stats["d"], images, constants)
    return attributes.best(scores, known.sizes_of(constants))


def measure(model: Model, classifier: Model, n: int, seed: int) -> dict:
    """Asks for `n` images of every combination and lets the classifier say what they show.

    Returns:
      For each group of `groups` that has prompts: 'pairs', their number; 'prompts',
      shares right by attribute; 'shuffled', the same against prompts in another order (the
      control); 'chance', what that would give an obedient G; 'by_class', shares by class.

    Raises:
      UserError: G reads no texts, or the classifier knows none of its attributes.
    """
    texts = prompts.need_texts(model)
    judged = known.of_arrays(classifier.constants)
    own = [a.name for a in texts.attributes]
    shared = [i for i, a in enumerate(judged) if a.name in own]
    if not shared:
        listed = ", ".join(a.name for a in judged)
        raise UserError(f"the classifier knows only {listed}, the run {', '.join(own)}")
    judged = tuple(judged[i] for i in shared)
    names = tuple(a.name for a in judged)
    averaged = grids.weights_of(model) == "ema"
    report = {"step": int(model.state.step), "averaged": averaged, "n": n, "seed": seed}
    for name, asked_for in groups(texts, seed).items():
        if not asked_for:
            continue
        # Latents of their own: the intervals count on independent images.
        images, asked = prompts.ask(model, asked_for, n, seed, same=False)
        images = images.reshape(-1, *images.shape[2:])
        found = classify(classifier, images)[:, shared]
        labels = [known.label_of(texts.attributes, row) for row in asked]
        # A class that the classifier has not is never found.
        asked = np.array([known.row(judged, label) for label in labels])
        report[name] = {
            "pairs": len(asked_for),
            "prompts": attributes.shares(found, asked, names),
            "shuffled": attributes.shuffled(found, asked, seed, names),
            "chance": _chance(asked, names),
            "by_class": _by_class(judged, found, asked),
        }
    return report


def _chance(asked: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """Expected share right where prompts are shuffled and each was obeyed."""
    columns = {name: asked[:, i : i + 1] for i, name in enumerate(names)}
    if attributes.whole(names):
        columns[attributes.whole(names)] = asked
    # A class that the classifier has not is never right.
    known_ones = {name: rows[(rows >= 0).all(1)] for name, rows in columns.items()}
    counts = {n: np.unique(rows, axis=0, return_counts=True)[1] for n, rows in known_ones.items()}
    return {name: float(((count / len(asked)) ** 2).sum()) for name, count in counts.items()}


def _by_class(
    judged: Attributes, found: np.ndarray, asked: np.ndarray
) -> dict[str, dict[str, Share]]:
    def classes(a: Attribute, column: int) -> dict[str, Share]:
        each = attributes.by_class(found, asked, column)
        return {a.classes[c] if c >= 0 else "unknown to it": s for c, s in each.items()}

    return {a.name: classes(a, i) for i, a in enumerate(judged)}


def as_json(value):
    """Shares as dicts."""
    if isinstance(value, Share):
        return value._asdict()
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    return value
