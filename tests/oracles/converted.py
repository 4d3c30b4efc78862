"""`python -m oracles.converted NAME FILE`: a generator of tiny.NAME as jax2onnx writes it.

In a process of its own, because jax2onnx leaves functions of JAX changed.
"""

import sys
from pathlib import Path

import jax2onnx
import tiny
from test_export import opened, rows_of

from anigan_jax.export.generators import generators_of


def main(name: str, file: str) -> None:
    generator = generators_of(opened(getattr(tiny, name)), "float32")[0]
    shapes = [array.shape for array in rows_of(generator, 3).values()]
    found = jax2onnx.to_onnx(lambda *a: generator.apply(generator.weights, *a), shapes, opset=21)
    Path(file).write_bytes(found.SerializeToString())


if __name__ == "__main__":
    main(*sys.argv[1:])
