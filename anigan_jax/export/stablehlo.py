"""StableHLO files of generators by `jax.export`, with the weights inside and a free batch."""

from __future__ import annotations

import importlib.util
from typing import Any

import jax
from jax import export, lax

from anigan_jax.core import Array
from anigan_jax.errors import UserError
from anigan_jax.export.generators import Generator
from anigan_jax.runtime import backend

PLATFORMS = ("cpu", "cuda", "tpu")


def check() -> None:
    """Refuses a file that could not be written.

    Raises:
      UserError: flatbuffers is not installed.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError("StableHLO files need flatbuffers: pip install 'anigan_jax[stablehlo]'")


def write(generator: Generator) -> bytearray:
    """The file of a generator for CPUs, CUDA GPUs and TPUs.

    `jax.export.deserialize(data).call(*inputs)` takes the inputs of `Generator.apply` without
    the weights, n rows of each, and gives the bits that the model gives there.
    """

    def apply(*inputs: Array) -> Array:
        # Without the barrier the compiler computes with the weights, and rounds otherwise.
        weights = lax.optimization_barrier(generator.weights)

        def form(platform: str) -> Any:
            def traced(weights, inputs):
                with backend.traced_for(platform):
                    return generator.apply(weights, *inputs)

            return traced

        # Convolutions have another form on CPUs than elsewhere.
        return lax.platform_dependent(weights, inputs, cpu=form("cpu"), default=form("cuda"))

    (batch,) = export.symbolic_shape("batch")
    rows = generator.sample.values()
    shapes = [jax.ShapeDtypeStruct((batch, *array.shape[1:]), array.dtype) for array in rows]
    return export.export(jax.jit(apply), platforms=PLATFORMS)(*shapes).serialize()
