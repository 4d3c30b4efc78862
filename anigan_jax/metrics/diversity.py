"""How varied images are: modes, pairs, Inception score; NumPy on the host."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, Num, Shaped

from anigan_jax.metrics.distances import FeaturesN, rows, whole


class Modes(NamedTuple):
    """Where fakes lie among the cells of a joint histogram, beside where the data lies.

    Attributes:
      hit: cells with a fake; held: cells with data; both: cells with both; cells: all.
      entropy, data_entropy: nats; exp of it is the number of equally full cells.
      tv: total variation, half the sum of the differences of shares, in [0, 1].
      kl: of fakes from data, in nats; inf where a fake is in a cell without data.
    """

    hit: int
    held: int
    both: int
    cells: int
    entropy: float
    data_entropy: float
    tv: float
    kl: float


class Diversity(NamedTuple):
    """`mean` distance of `pairs` disjoint pairs, and its standard `error`."""

    mean: float
    error: float
    pairs: int


class InceptionScore(NamedTuple):
    """`mean` and `std` over the splits, each in [1, classes]."""

    mean: float
    std: float


def histogram(
    labels: Integer[np.ndarray, "n p"], sizes: tuple[int, ...]
) -> Integer[np.ndarray, " ..."]:
    """How many rows of (N, p) class indices lie in each cell of shape `sizes` (p numbers).

    Raises:
      ValueError: the labels are no whole numbers of that shape, or one is out of range.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.shape[1] != len(sizes) or labels.dtype.kind not in "iu":
        raise ValueError(f"{labels.dtype} {labels.shape} must be (N, {len(sizes)}) class indices")
    if (labels < 0).any() or (labels >= np.array(sizes)).any():
        raise ValueError(f"a class index lies outside of {tuple(sizes)}")
    cells = np.ravel_multi_index(tuple(labels.T), sizes)
    return np.bincount(cells, minlength=math.prod(sizes)).reshape(sizes)


def modes(
    fake: Integer[np.ndarray, "n p"], real: Integer[np.ndarray, "m p"], sizes: tuple[int, ...]
) -> Modes:
    """Which combinations of classes appear: a collapse shows at once.

    Args:
      fake: (N, p) class indices that a classifier finds; real: (M, p), of the data.
      sizes: p numbers of classes, say (12, 11) for hair and eyes.

    Raises:
      ValueError: a set is empty, or as `histogram`.
    """
    # Imported here: most callers need no SciPy.
    from scipy.special import rel_entr

    counts = histogram(fake, sizes), histogram(real, sizes)
    if not (counts[0].any() and counts[1].any()):
        raise ValueError("there are no labels to compare")
    p, q = (count / count.sum() for count in counts)
    return Modes(
        hit=int((p > 0).sum()),
        held=int((q > 0).sum()),
        both=int(((p > 0) & (q > 0)).sum()),
        cells=p.size,
        entropy=_entropy(p),
        data_entropy=_entropy(q),
        tv=float(np.abs(p - q).sum() / 2),
        kl=float(rel_entr(p, q).sum()),
    )


def _entropy(shares: np.ndarray) -> float:
    full = shares[shares > 0]
    # One full cell would give -0.0.
    return float(-(full * np.log(full)).sum()) + 0.0


def pairs(
    n: int,
    seed: int,
    count: int | None = None,
    groups: Shaped[np.ndarray, " n"] | None = None,
) -> Integer[np.ndarray, "c 2"]:
    """Random pairs of n rows in which no row comes twice.

    Being disjoint, the distances of the pairs are independent.

    Args:
      seed: of NumPy's default generator.
      count: how many pairs; None for all there are.
      groups: (n,) labels; both rows of a pair have the same one. None: all are one group.

    Returns:
      (count, 2) indices, in random order.

    Raises:
      ValueError: there are no `count` pairs, or the groups are no (n,).
    """
    whole("n", n, 2)
    groups = np.zeros(n, np.int64) if groups is None else np.asarray(groups)
    if groups.shape != (n,):
        raise ValueError(f"groups of shape {groups.shape} must be ({n},)")
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    # Sorted by group, in random order inside; then neighbors pair up, an odd row stays out.
    order = order[np.argsort(groups[order], kind="stable")]
    starts = np.unique(groups[order], return_index=True)[1][1:]
    parts = [part[: len(part) // 2 * 2].reshape(-1, 2) for part in np.split(order, starts)]
    found = rng.permutation(np.concatenate(parts))
    count = len(found) if count is None else count
    if not 1 <= count <= len(found):
        raise ValueError(f"{count} pairs of {len(found)} disjoint ones")
    return found[:count]


def diversity(
    images: Num[np.ndarray, "n ..."],
    distance: Callable[[np.ndarray, np.ndarray], np.ndarray],
    chosen: Integer[np.ndarray, "c 2"],
) -> Diversity:
    """Mean distance of pairs, say LPIPS; put beside it what real images give.

    Args:
      images: (N, ...) whatever `distance` takes.
      distance: (c, ...), (c, ...) -> (c,), of one row with one row.
      chosen: (c, 2) indices, as `pairs` gives them; c at least 2.

    Raises:
      ValueError: fewer than 2 pairs, or distances of another shape, NaN or negative.
    """
    if chosen.ndim != 2 or chosen.shape[1] != 2 or len(chosen) < 2:
        raise ValueError(f"pairs of shape {chosen.shape} must be (c, 2), c > 1")
    found = np.asarray(distance(images[chosen[:, 0]], images[chosen[:, 1]]), np.float64)
    if found.shape != (len(chosen),) or not (np.isfinite(found) & (found >= 0)).all():
        raise ValueError(f"{found.shape} distances for {len(chosen)} pairs, or not all 0 or more")
    error = found.std(ddof=1) / np.sqrt(len(found))
    return Diversity(float(found.mean()), float(error), len(found))


def spread(features: FeaturesN, seed: int) -> float:
    """Mean distance of two rows, over random pairs in which no row comes twice.

    Not the root of the mean square: rows that are copies of a few would look varied.

    Args:
      features: (N, d), N at least 4.
      seed: of NumPy's default generator, which draws the pairs.

    Raises:
      ValueError: fewer than 4 rows, wrong shape, or NaN.
    """
    found = rows(features, 4)
    chosen = pairs(len(found), seed)
    return diversity(found, lambda a, b: np.linalg.norm(a - b, axis=1), chosen).mean


def inception_score(
    probabilities: Num[np.ndarray, "n c"], seed: int, splits: int = 10
) -> InceptionScore:
    """exp of the mean KL divergence of each row from the mean row, over splits.

    It says something only of a network trained for the domain.

    Args:
      probabilities: (N, C), each row sums to 1.
      seed: of NumPy's default generator, which shuffles the rows before they are split.
      splits: how many parts, of equal size up to one row.

    Returns:
      Mean and standard deviation (divisor `splits`); 1 where all rows are equal, at most C.

    Raises:
      ValueError: fewer rows than splits, wrong shapes, NaN, or rows that are no shares.

    Source: Salimans et al. 2016, section 4.
    Departs: from torch-fidelity in the generator of the shuffle.
    """
    # Imported here: most callers need no SciPy.
    from scipy.special import rel_entr

    p = rows(probabilities, whole("splits", splits, 1), "probabilities")
    if (p < 0).any() or np.abs(p.sum(1) - 1).max() > 1e-4:
        raise ValueError("rows of probabilities must be 0 or more and sum to 1")
    p = p[np.random.default_rng(seed).permutation(len(p))]
    scores = []
    for i in range(splits):
        part = p[i * len(p) // splits : (i + 1) * len(p) // splits]
        scores.append(np.exp(rel_entr(part, part.mean(0)).sum(1).mean()))
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))
