"""What an exported file says about where its weights come from."""

from __future__ import annotations

import dataclasses
from typing import Any

import anigan_jax
from anigan_jax import config as configs
from anigan_jax import own_code
from anigan_jax.config import Run
from anigan_jax.errors import UserError
from anigan_jax.export.generators import Generator
from anigan_jax.opened import Opened
from anigan_jax.parent import Parent
from anigan_jax.sampling import grids

DRAWN = "none needed: drawn by anigan_jax's own code"
UNSAID = "not stated"


def about(trained: Opened, generator: Generator, data_license: str = "") -> dict[str, Any]:
    """What a generator's file keeps: run, step, weights, data, settings, and what it is asked by.

    Args:
      data_license: of the images that it was trained on; '': as known.
    """
    texts = trained.model.texts
    asked = [a._asdict() for a in texts.attributes] if texts else []
    return {
        "anigan_jax": anigan_jax.__version__,
        "name": trained.config.name,
        "step": trained.step,
        "weights": grids.weights_of(trained.model),
        "weights_sha256": generator.sha256,
        "statistics": "running",
        "data_license": license_of(trained, data_license),
        "data_sha256": trained.data_sha256,
        "config": configs.to_json(published(trained.config), own_code.of(trained.config).modules),
        "attributes": asked,
    }


def license_of(trained: Opened, given: str) -> str:
    """The license of the training images, as far as it is known."""
    known = given or trained.notes.get("data_license", "")
    return known or (DRAWN if trained.config.data.drawn else UNSAID)


def published(settings: Any) -> Any:
    """Settings without the places of data and weights, which name folders of this machine."""
    changes = {}
    for f in dataclasses.fields(settings):
        value = getattr(settings, f.name)
        if configs.is_location(f) or (type(settings), f.name) == (Run, "eval_second"):
            changes[f.name] = f.default
        elif isinstance(value, Parent):
            changes[f.name] = Parent()
        elif dataclasses.is_dataclass(value):
            changes[f.name] = published(value)
    return dataclasses.replace(settings, **changes)


def refuse_own_code(trained: Opened) -> None:
    """Refuses a run that cannot be opened without code of its own."""
    if files := own_code.of(trained.config).files:
        raise UserError(
            f"this run's settings are classes of its own ({', '.join(files)}), and exported "
            "weights hold no code; --to stablehlo takes any run"
        )
