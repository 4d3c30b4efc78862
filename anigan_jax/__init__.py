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
    "load",
    "train",
]

if TYPE_CHECKING:
    from anigan_jax.api import Trained, load, train
    from anigan_jax.config import Config, Run
    from anigan_jax.errors import DivergedError, MachineError, UserError
    from anigan_jax.optimizers import Optimizer

_HOMES = {
    "Config": "config",
    "Run": "config",
    "Optimizer": "optimizers",
    "DivergedError": "errors",
    "MachineError": "errors",
    "UserError": "errors",
    "Trained": "api",
    "load": "api",
    "train": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'anigan_jax' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"anigan_jax.{_HOMES[name]}"), name)
