"""GAN training in JAX: pure functions, exact reruns, one compiled step.

    config = anigan_jax.load_config("anime_faces", "--data.path", "FACES.zip")
    run = anigan_jax.train(config, "runs/faces")  # the same call resumes it
    run = anigan_jax.load("runs/faces")  # later, without the data
    images = run.generate(8, seed=0)  # uint8 (8, 64, 64, 3)
    PIL.Image.fromarray(images[0]).save("face.png")
    run.evaluate(judges=["random"])

A config of one's own is `Config(name, method, data)`: methods in `anigan_jax.methods` (`gan.GAN`,
`text_gan.TextGAN`, `r3gan.R3GAN`, `cyclegan.CycleGAN`, `cartoongan.CartoonGAN`), networks in
`anigan_jax.networks`, data in `anigan_jax.data` (`images.Images`,
`synthetic.sources.PaintedFaces`). `anigan help train CONFIG` says what each setting means; what
else the command line does, `anigan --help`.

The names below are looked up when they are used, so that `import anigan_jax` takes no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Config",
    "Cosine",
    "DivergedError",
    "MachineError",
    "Optimizer",
    "Run",
    "Stop",
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
    from anigan_jax.optimizers import Cosine, Optimizer
    from anigan_jax.runtime.signals import Stop
    from anigan_jax.trained import Trained

_HOMES = {
    "Config": "config",
    "Run": "config",
    "Cosine": "optimizers",
    "Optimizer": "optimizers",
    "DivergedError": "errors",
    "MachineError": "errors",
    "UserError": "errors",
    "Stop": "runtime.signals",
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
