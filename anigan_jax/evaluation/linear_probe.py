"""D as a feature extractor (UCSD): what simple classifiers tell by its features.

Source: Radford et al. 2016, section 5.1. Departs: logistic regression instead of a linear
SVM, and nearest neighbors beside it; D is that of the run, not one of another data set.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from anigan_jax.config import Config
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import UserError
from anigan_jax.methods.augment import signed
from anigan_jax.metrics import attributes
from anigan_jax.runtime.batching import in_batches
from anigan_jax.sampling import grids, prompts
from anigan_jax.sampling.grids import Model
from anigan_jax.state import init_state

NEIGHBORS = 5
# Inverse weight of L2 (scikit-learn's C): with thousands of standardised numbers for a few
# thousand images 1 overfits, and far below 0.01 little is learned.
C = 0.01
ITERATIONS = 2000
# Classes with fewer images, to fit on or to score on, are left out.
FEWEST = 5
BATCH = 64
CLASSIFIERS = ("logistic", "neighbors")


class Images(NamedTuple):
    """Images (n, H, W, 3) uint8 and their classes (n,), indices of names."""

    images: np.ndarray
    classes: np.ndarray


class Task(NamedTuple):
    """What is to be told: `names` of the classes; images to fit on and others to score on.

    `left_out`: class -> how many images there were of it to fit on and to score on.
    """

    names: tuple[str, ...]
    fit: Images
    score: Images
    left_out: dict[str, tuple[int, int]]


def tasks(model: Model, pack: Pack, n: int, seed: int):
    """Real against generated; each attribute, such as hair color, where the pack has labels.

    Fitted on training images, scored on held-out ones, with generated images of different
    latents for each: no image is in both.

    Args:
      n: images to fit on in each task, at most.

    Returns:
      name -> Task, and name -> why another task is refused.

    Raises:
      UserError: the run held nothing out.
    """
    if not pack.has("test"):
        raise UserError("this run held out no images (--data.test); nothing to score on")
    found, refused = {"real": real_or_generated(model, pack, n, seed)}, {}
    for column, (part, names) in enumerate(pack.attributes):
        try:
            found[part] = attribute(pack, column, names, n, seed)
        except UserError as error:
            refused[part] = str(error)
    return found, refused


def real_or_generated(model: Model, pack: Pack, n: int, seed: int) -> Task:
    """As many real as generated images, to fit on and to score on."""
    train, held = pack.first("train"), pack.first("test")
    counts = min(n // 2, len(train)), min(n // 2, len(held))
    texts = prompts.texts_of_data(model, sum(counts), seed)
    fakes = grids.generated(model, grids.latents(model.method, sum(counts), seed), texts)
    parts = []
    for real, made in ((train, fakes[: counts[0]]), (held, fakes[counts[0] :])):
        images = np.concatenate([made, real[_some(len(real), len(made), seed)]])
        parts.append(Images(images, np.repeat([0, 1], len(made))))
    return Task(("generated", "real"), *parts, {})


def attribute(pack: Pack, column: int, names: tuple[str, ...], n: int, seed: int) -> Task:
    """The class of an attribute (column 0: hair, 1: eyes), of real images where it is known.

    Raises:
      UserError: the pack has no labels, or fewer than two classes have enough images.
    """
    labels = {part: pack.labels(pack.named(part))[:, column] for part in ("train", "test")}
    known = {part: np.flatnonzero(x >= 0) for part, x in labels.items()}
    known["train"] = known["train"][_some(len(known["train"]), n, seed)]
    counts = np.array([np.bincount(labels[p][r], minlength=len(names)) for p, r in known.items()])
    enough = (counts >= FEWEST).all(0)
    if enough.sum() < 2:
        raise UserError(
            f"fewer than two classes have {FEWEST} images to fit on and {FEWEST} to score on"
        )
    parts = []
    for part, rows in known.items():
        rows = rows[enough[labels[part][rows]]]
        parts.append(Images(pack.first(part)[rows], labels[part][rows]))
    missing = {names[c]: tuple(map(int, counts[:, c])) for c in np.flatnonzero(~enough)}
    return Task(names, *parts, {name: both for name, both in missing.items() if any(both)})


def _some(total: int, most: int, seed: int) -> np.ndarray:
    """At most `most` of `total` rows, drawn without replacement, in rising order."""
    return np.sort(np.random.default_rng(seed).permutation(total)[:most])


def spaces(config: Config, model: Model) -> dict[str, Callable]:
    """Name -> images (n, H, W, 3) uint8 -> numbers (n, F) float32.

    Raises:
      UserError: the run's D has no features of whole images.
    """
    method, state = model.method, model.state
    if method.generate is None:
        raise UserError("this run has no D that judges whole images; probe a GAN or a text GAN")
    if method.features is None:
        raise UserError(
            "this run's D is a custom module, whose layers are unknown; probe reads the maps of a "
            "D that is a plan of blocks, such as those of anigan_jax.networks"
        )

    @jax.jit
    def d_features(params, stats, images):
        return method.features(params, stats, signed(images))

    @jax.jit
    def untrained(constants):
        start = init_state(config, method, constants)
        return start.params["d"], start.stats["d"]

    def features(params, stats) -> Callable:
        return lambda images: in_batches(lambda x: d_features(params, stats, x), images, BATCH)

    return {
        "d": features(state.params["d"], state.stats["d"]),
        "untrained": features(*untrained(model.constants)),
        "pixels": lambda images: images.reshape(len(images), -1).astype(np.float32) / 255,
    }


def predict(kind: str, fit: np.ndarray, classes: np.ndarray, score: np.ndarray):
    """Classes (m,) that a classifier gives to rows (m, F), and whether its fit converged.

    Args:
      kind: of `CLASSIFIERS`; both see numbers standardised by the rows they are fitted on.
      fit: (n, F); classes: (n,).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if kind == "logistic":
        last = LogisticRegression(C=C, tol=1e-3, max_iter=ITERATIONS)
    else:
        last = KNeighborsClassifier(NEIGHBORS, algorithm="brute")
    model = make_pipeline(StandardScaler(), last)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(fit, classes)
    converged = not any(issubclass(each.category, ConvergenceWarning) for each in told)
    return model.predict(score), converged


def judge(task: Task, space: Callable) -> dict:
    """How often each classifier is right in a space, on the images to score."""
    fit, score = space(task.fit.images), space(task.score.images)
    found: dict = {"numbers": fit.shape[1]}
    for kind in CLASSIFIERS:
        said, converged = predict(kind, fit, task.fit.classes, score)
        right = said == task.score.classes
        each = [right[task.score.classes == c].mean() for c in np.unique(task.score.classes)]
        found[kind] = {
            "accuracy": attributes.share(right),
            "balanced": float(np.mean(each)),
            "converged": converged,
        }
    return found


def measure(config: Config, model: Model, pack: Pack, n: int, seed: int):
    """The whole report: each task in each space.

    Returns:
      {'step', 'n', 'seed', 'tasks': {name: {'classes': {name: (to fit on, to score on)},
      'left_out', 'chance': share of the class most frequent in the fit, 'spaces': {name:
      `judge`}}}, 'refused', 'protocol'}.

    Raises:
      UserError: the run has no such D, or held nothing out.
    """
    seen = spaces(config, model)
    found, refused = tasks(model, pack, n, seed)
    report = {"step": int(model.state.step), "averaged": grids.weights_of(model) == "ema"}
    report |= {"n": n, "seed": seed, "tasks": {}, "refused": refused}
    report["protocol"] = {"neighbors": NEIGHBORS, "iterations": ITERATIONS, "fewest_images": FEWEST}
    for name, task in found.items():
        counts = [np.bincount(x.classes, minlength=len(task.names)) for x in (task.fit, task.score)]
        report["tasks"][name] = {
            "classes": {
                task.names[c]: (int(counts[0][c]), int(counts[1][c]))
                for c in np.unique(task.fit.classes)
            },
            "left_out": task.left_out,
            "chance": attributes.share(task.score.classes == counts[0].argmax()),
            "spaces": {space: judge(task, see) for space, see in seen.items()},
        }
    return report
