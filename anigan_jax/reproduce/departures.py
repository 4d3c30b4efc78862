"""Settings that differ from a report's in every run that has them, because the user says so."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from anigan_jax import config as configs
from anigan_jax import config_file
from anigan_jax.config import Config
from anigan_jax.errors import UserError
from anigan_jax.sweep import grid

# What the budget, the data and the report's own studies decide.
DECIDED = re.compile(r"(run|data)\..*|seed|name|.*\.base-channels")


class Departed(NamedTuple):
    """A config with departures.

    Attributes:
      words: of `anigan train`, of those departures that it took.
      refused: departure -> why it did not take it.
    """

    config: Config
    words: list[str]
    refused: dict[str, UserError]


def apply(config: Config, departs: Iterable[str], reports: Iterable[str]) -> Departed:
    """A config with those of the departures that it has and its report's study leaves open.

    Args:
      departs: 'PATH=VALUE' each.
      reports: flags that the report itself sets, which stay.

    Raises:
      UserError: a departure has no such form, is not the user's to decide, or makes settings that
        no run can have.
    """
    found, refused, kept = [], {}, set(reports)
    for departure in departs:
        words = _words(departure)
        if words[0] in kept:
            refused[departure] = UserError(f"--depart {departure!r}: the report's runs set it")
            continue
        try:
            config = config_file.override(config, words, f"anigan train {config.name}")
        except UserError as error:
            refused[departure] = error
            continue
        found += words
    if found:
        configs.check(config)
    return Departed(config, found, refused)


def _words(departure: str) -> list[str]:
    """'method.augment=color translation' -> ['--method.augment', 'color', 'translation']."""
    path, value = grid.assignment(departure)
    if not path:
        raise UserError(f"--depart {departure!r} is not PATH=VALUE, such as batch-size=32")
    if DECIDED.fullmatch(path):
        raise UserError(
            f"--depart {departure!r}: --budget decides length and width, --data the images, and "
            "the report's studies the seeds"
        )
    return grid.option(path, value)
