"""What an opened run is: its settings, its networks, and what is known of its data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from anigan_jax.config import Config
from anigan_jax.core import Method, TrainState
from anigan_jax.sampling import grids
from anigan_jax.sampling.grids import Model
from anigan_jax.storage import run_dir


class Opened(NamedTuple):
    """A trained run, opened without its data.

    Attributes:
      path: the run directory, or the file of weights.
      config: the settings it was trained with.
      networks: of the checkpoint, with all weights.
      recorded: run.json; {} where there is none.
      weights: of G, what is drawn with: 'raw' or 'ema'; None: averaged where the run averages.
      notes: what a file of weights says of the data that they come from.
    """

    path: Path
    config: Config
    networks: Model
    recorded: dict
    weights: str | None = None
    notes: Mapping[str, str] = MappingProxyType({})

    @property
    def model(self) -> Model:
        """The networks with the weights that are drawn with."""
        return self._drawing(None)

    @property
    def method(self) -> Method:
        """The pure functions of the family, on one device: `anigan_jax.core.Method`."""
        return self.networks.method

    @property
    def state(self) -> TrainState:
        """Parameters, statistics and averages as arrays: `anigan_jax.core.TrainState`."""
        return self.networks.state

    @property
    def params(self) -> dict[str, Any]:
        """Player -> tree of parameters; 'ema': the averaged ones of the generator.

        Of `export --to weights` 'g' are those that were exported, averaged or not.
        They draw with statistics of their own: take both from `generator`.
        """
        averaged = {"ema": self.state.ema} if self.state.ema else {}
        return {**self.state.params, **averaged}

    @property
    def step(self) -> int:
        """Completed steps of training."""
        return int(self.state.step)

    @property
    def data_sha256(self) -> str:
        """SHA-256 of the packed images that it was trained on; '' where nothing says it."""
        return (self.recorded or self.notes).get("data_sha256", "")

    def _drawing(self, weights: str | None) -> Model:
        """The networks with weights of G, those that were loaded where it is None."""
        return grids.with_weights(self.networks, weights or self.weights)


def write_weights(trained: Opened, model: Model, folder: Path, **notes: str) -> None:
    """Writes networks of a run as weights that `load` opens, with what is known of them.

    Args:
      model: the run's own, or one with a generator of other weights.
      notes: what the file says of the data beside what the run knows.
    """
    constants = model.constants if model.method.texts else {}
    known = {**trained.notes, "data_sha256": trained.data_sha256, **notes}
    told = {"weights": grids.weights_of(model), **known}
    run_dir.export_weights(folder, trained.config, model.state, constants, **told)
