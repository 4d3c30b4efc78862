"""Signs that a GAN's training has failed, as sentences; pure functions of recorded lines."""

from __future__ import annotations

import math
from collections.abc import Callable

WINDOW = 100
"""Logged steps that must agree: single steps of a healthy training look like any failure."""
WON = 0.99
STILL = 1e-6
FALLEN = 0.5
LEAST_COVERAGE = 0.05


def of_training(lines: list[dict]) -> list[str]:
    """What the newest of the metrics lines shows for the first time.

    Args:
      lines: of metrics.jsonl, ascending; the last `WINDOW` + 1 decide.
    """
    return [message for rule, message in RULES if _begins(rule, lines)]


def _begins(rule: Callable, lines: list[dict]) -> bool:
    """Whether a window of the rule is full now and was not so one line before."""
    return _holds(rule, lines[-WINDOW:]) and not _holds(rule, lines[-WINDOW - 1 : -1])


def _holds(rule: Callable, window: list[dict]) -> bool:
    return len(window) == WINDOW and rule(window)


def _column(window: list[dict], name: str) -> list[float]:
    """Values of a metric; steps in which its player did not learn have none."""
    found = [line[name] for line in window if line.get(name) is not None]
    return [value for value in found if math.isfinite(value)]


def _d_has_won(window: list[dict]) -> bool:
    told = _column(window, "accuracy/d")
    return bool(told) and sum(told) / len(told) >= WON


def _d_has_won_alone(window: list[dict]) -> bool:
    return _d_has_won(window) and not _column(window, "score/pair")


def _d_has_won_in_pairs(window: list[dict]) -> bool:
    return _d_has_won(window) and bool(_column(window, "score/pair"))


def _g_is_still(window: list[dict]) -> bool:
    norms = _column(window, "gradient/g")
    return bool(norms) and max(norms) <= STILL


RULES = (
    (
        _d_has_won_in_pairs,
        f"D has won: it gave the real image the larger logit in {WON:.0%} of the pairs of the last "
        f"{WINDOW} logged steps. Larger R1 and R2 (method.r1, method.r2) or augmentation "
        "(method.augment) hold it back",
    ),
    (
        _d_has_won_alone,
        f"D has won: it told {WON:.0%} of real and generated images apart over the last {WINDOW} "
        "logged steps. A lower optimizers.d.learning_rate, spectral norm "
        "(method.discriminator.spectral), R1 (method.r1) or augmentation (method.augment) hold it "
        "back",
    ),
    (
        _g_is_still,
        f"G gets no gradient: its norm stayed below {STILL:g} over the last {WINDOW} logged steps. "
        "The non_saturating loss, or a weaker D, gives it one",
    ),
)


def of_scores(lines: list[dict]) -> list[str]:
    """What the newest judged checkpoint shows: coverage that fell below half of its best.

    Args:
      lines: of evaluation.jsonl, ascending.
    """
    if not lines:
        return []
    found = []
    for name, now in lines[-1].items():
        if "coverage-" not in name or now is None:
            continue
        before = [line[name] for line in lines[:-1] if line.get(name) is not None]
        best = max(before, default=0)
        fell = now < FALLEN * best
        if best >= LEAST_COVERAGE and fell and before[-1] >= FALLEN * best:
            found.append(
                f"{name} fell from {best:.3f} to {now:.3f}: G covers fewer of the training images "
                "than it did (mode collapse); the best checkpoint is kept"
            )
    return found
