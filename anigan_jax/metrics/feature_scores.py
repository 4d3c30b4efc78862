"""The table of metrics, and the scores of two feature sets that are computed from it.

A new score of features is one entry of `METRICS`, here or in the user's own file: evaluation,
protocol, report, sweep and their titles read it from there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Num

from anigan_jax.metrics import diversity, frechet, kid, mind, prdc

SUBSETS = 100
SIZE = 1000
NEIGHBORS = 5
DIRECTIONS = 1000
COLUMNS = ("generated", "like_floor", "floor")
"""What is scored: all generated images, as many as are held out, those held out."""


@dataclass(frozen=True)
class Features:
    """Two feature sets to compare.

    Attributes:
      fake: (N, d); real: (M, d).
      seed: of KID's subsets, MIND's directions and the pairs of variety.
      size: rows of a KID subset.
    """

    fake: np.ndarray
    real: np.ndarray
    seed: int
    size: int

    @property
    def fewest(self) -> int:
        """Rows of the smaller set."""
        return min(len(self.fake), len(self.real))

    @functools.cached_property
    def prdc(self) -> prdc.Prdc:
        """Precision, recall, density and coverage, which share their distances."""
        return prdc.prdc(self.fake, self.real, NEIGHBORS)


@dataclass(frozen=True)
class Metric:
    """A metric: its names, which direction is better, and how it is computed.

    Attributes:
      name: in JSON, without '-' and '/'; title: for people; says: what it measures.
      better: 'lower', 'higher', 'near 1', or '' where neither is.
      compute: of `Features`; None: it is not a score of features, the family computes it.
      needs: of `Features`: why the score would mean nothing, or ''.
      protocol: constants that only equal numbers have in common.
      headline: shown where there is room for few.
    """

    name: str
    title: str
    better: str
    says: str
    compute: Callable[[Features], float] | None = None
    needs: Callable[[Features], str] = lambda sets: ""
    protocol: dict[str, int] = field(default_factory=dict)
    headline: bool = False


def _kid_needs(sets: Features) -> str:
    if sets.fewest >= 2 and 2 <= sets.size <= sets.fewest:
        return ""
    return f"subsets of {sets.size} need as many images, and 2 or more; there are {sets.fewest}"


def _fd_needs(sets: Features) -> str:
    d = sets.fake.shape[1]
    if sets.fewest > d:
        return ""
    return f"a covariance of {d} features needs more than {d} images, not {sets.fewest}"


def _variety_needs(sets: Features) -> str:
    if sets.fewest < 4:
        return f"it needs 4 images or more, not {sets.fewest}"
    return "" if _spread(sets.real, sets) else "the real images are all alike"


def _spread(features: np.ndarray, sets: Features) -> float:
    return diversity.spread(features, sets.seed)


def _prdc_needs(sets: Features) -> str:
    if sets.fewest > NEIGHBORS:
        return ""
    return f"balls of {NEIGHBORS} neighbors need more than {NEIGHBORS} images, not {sets.fewest}"


def _prdc(name: str, better: str, says: str, **rest: Any) -> Metric:
    def compute(sets: Features) -> float:
        return getattr(sets.prdc, name)

    about = {"needs": _prdc_needs, "protocol": {"k": NEIGHBORS}, **rest}
    return Metric(name, name.capitalize(), better, says, compute, **about)


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "kid",
            "KID",
            "lower",
            "squared distance between the two sets' features by a kernel; 0 for equal sets",
            lambda sets: kid.kid(sets.fake, sets.real, sets.seed, SUBSETS, sets.size)[0],
            _kid_needs,
            {"kid_subsets": SUBSETS},
            headline=True,
        ),
        Metric(
            "variety",
            "Variety",
            "near 1",
            "how far images lie apart in features, as a share of how far real ones do; far "
            "below 1: many images are alike (collapse), whatever the other scores say",
            lambda sets: _spread(sets.fake, sets) / _spread(sets.real, sets),
            _variety_needs,
            headline=True,
        ),
        Metric(
            "fd",
            "Fréchet distance",
            "lower",
            "distance between normal distributions fitted to the features",
            lambda sets: frechet.distance(sets.fake, sets.real),
            _fd_needs,
            headline=True,
        ),
        Metric(
            "mind",
            "MIND",
            "lower",
            "distance between the features along random directions",
            lambda sets: mind.mind(sets.fake, sets.real, sets.seed, DIRECTIONS),
        ),
        _prdc("precision", "higher", "share of generated images that lie among real ones"),
        _prdc("recall", "higher", "share of real images that lie among generated ones"),
        _prdc("density", "near 1", "how many real neighborhoods hold a generated image"),
        _prdc(
            "coverage",
            "higher",
            "share of real images with a generated one close by",
            headline=True,
        ),
        Metric("change", "Change", "", "mean absolute difference of a photo and its translation"),
        Metric(
            "cycle",
            "Cycle",
            "lower",
            "mean absolute difference between an image and its translation there and back",
        ),
        Metric(
            "identity", "Identity", "lower", "how much an image of the target domain is changed"
        ),
        Metric("accuracy", "Accuracy", "higher", "share of held-out images classified correctly"),
        Metric("psnr", "PSNR, dB", "higher", "peak signal-to-noise ratio to the true partner"),
        Metric("lpips", "LPIPS", "", "perceptual distance"),
    )
}
SHIPPED = frozenset(METRICS)
"""Names of the package's own metrics; those of a config file come on top."""
WAYS = {"ab": "A to B", "ba": "B to A"}


def of_features() -> dict[str, Metric]:
    """Those of `METRICS` that are computed from features, one's own among them."""
    return {name: metric for name, metric in METRICS.items() if metric.compute}


class Label(NamedTuple):
    """How a recorded value is presented; `own`: it is of a metric that a config file defines."""

    title: str
    better: str
    says: str
    headline: bool
    own: bool = False


def label(name: str) -> Label:
    """The label of a recorded name: 'kid', 'ab/kid-vgg16', 'accuracy/hair'; others as they are."""
    front, _, rest = name.rpartition("/")
    base, _, network = rest.partition("-")
    metric, suffix = METRICS.get(base), ""
    own = metric is not None and base not in SHIPPED
    if metric:
        suffix = f" ({network})" if network else ""
        suffix += f", {WAYS.get(front, front)}" if front else ""
    elif front in METRICS:
        metric, suffix = METRICS[front], f": {rest}"
    else:
        metric = Metric(name, name, "", "")
    return Label(metric.title + suffix, metric.better, metric.says, metric.headline, own)


class Scores(NamedTuple):
    """`values`: of `of_features()`, those that mean something; `refused`: name -> why not."""

    values: dict[str, float]
    refused: dict[str, str]


def refusals(sets: Features) -> dict[str, str]:
    """Name -> why it would mean nothing, of those scores that would."""
    return {name: why for name, m in of_features().items() if (why := m.needs(sets))}


def kid_size(*counts: int) -> int:
    """Rows of a KID subset for sets of these sizes: 1000, or all rows of the smallest set.

    The estimate is unbiased, so its expectation does not depend on the size.
    """
    return min(SIZE, *counts)


def scores(
    fake: Num[np.ndarray, "n d"], real: Num[np.ndarray, "m d"], seed: int, size: int
) -> Scores:
    """All scores of two feature sets.

    Args:
      fake: (N, d); real: (M, d).
      seed: of KID's subsets and MIND's directions.
      size: rows of a KID subset.

    Raises:
      ValueError: wrong shapes, or NaN.
    """
    sets = Features(fake, real, seed, size)
    refused = refusals(sets)
    values = {
        name: m.compute(sets)
        for name, m in of_features().items()
        if m.compute and name not in refused
    }
    return Scores(values, refused)
