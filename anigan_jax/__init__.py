"""GAN training in JAX: pure functions, exact reruns, one compiled step.

The names below are looked up when they are used, so that `import anigan_jax` takes no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Config",
    "DivergedError",
    "MachineError",
    "Optimizer",
    "Run",
    "Trained",
    "UserError",
    "evaluate",
    "load",
    "load_config",
    "pack",
    "train",
]

if TYPE_CHECKING:
    from anigan_jax.api import load, load_config, train
    from anigan_jax.config import Config, Run
    from anigan_jax.data.arrays import pack
    from anigan_jax.errors import DivergedError, MachineError, UserError
    from anigan_jax.evaluation.images_of_any_model import evaluate
    from anigan_jax.optimizers import Optimizer
    from anigan_jax.trained import Trained

_HOMES = {
    "Config": "config",
    "Run": "config",
    "Optimizer": "optimizers",
    "DivergedError": "errors",
    "MachineError": "errors",
    "UserError": "errors",
    "Trained": "trained",
    "evaluate": "evaluation.images_of_any_model",
    "load": "api",
    "load_config": "api",
    "pack": "data.arrays",
    "train": "api",
}


def __getattr__(name: str) -> Any:
    import importlib
    import importlib.util

    if name in _HOMES:
        return getattr(importlib.import_module(f"anigan_jax.{_HOMES[name]}"), name)
    # Its modules too: `anigan_jax.losses` needs no import of its own.
    if name[:1] != "_" and importlib.util.find_spec(f"anigan_jax.{name}"):
        return importlib.import_module(f"anigan_jax.{name}")
    raise AttributeError(f"module 'anigan_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
