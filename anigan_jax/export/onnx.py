"""ONNX files of generators: a graph from the plan, weights inside, and where they come from."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
from PIL import Image

from anigan_jax.errors import UserError
from anigan_jax.export.generators import Generator
from anigan_jax.export.graph import Graph, add_network
from anigan_jax.storage import images as record

OPSET = 17
OLDEST = 15
"""Opsets from here on have every operation as it is written here."""
OUTPUT = "images"
# Of a translation height and width are free, too.
SOURCE_AXES = ("height", "width")
WRONG = 1e-3
"""Further apart than rounding ever brings the runtime and JAX."""


def library() -> Any:
    """The onnx package.

    Raises:
      UserError: it is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise UserError("ONNX files need onnx: pip install 'anigan_jax[onnx]'") from None
    return onnx


def check(opset: int) -> None:
    """Refuses a file that could not be written.

    Raises:
      UserError: onnx is not installed, or does not know the opset.
    """
    onnx = library()
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST <= opset <= newest:
        raise UserError(f"--opset is {opset}; onnx {onnx.__version__} writes {OLDEST} to {newest}")


def write(generator: Generator, about: dict[str, Any], opset: int = OPSET) -> tuple[bytes, str]:
    """The file of a generator.

    Inputs and output are those of `Generator.apply`, but images are (N, C, H, W) and labels
    int64; the batch is free, and so are height and width of what is translated.

    Args:
      generator: with products in float32.
      about: what goes into the file's metadata, beside a sample.

    Returns:
      Its bytes, and what is known about them: how far apart onnxruntime and JAX are.

    Raises:
      UserError: the network is of a kind that has no ONNX form here; or onnxruntime, where it
        is installed, refuses the file or computes something else.
    """
    made = generator.images(generator.sample)
    model = _model(generator, made, opset)
    told = {**about, "sample": _sample(generator, made)}
    text = {k: v if isinstance(v, str) else json.dumps(v) for k, v in told.items()}
    library().helper.set_model_props(model, text)
    data = model.SerializeToString(deterministic=True)
    return data, _verified(data, generator, made, opset)


def _model(generator: Generator, made: np.ndarray, opset: int) -> Any:
    onnx, graph = library(), _graph(generator)
    helper, kinds = onnx.helper, onnx.TensorProto
    inputs = []
    for name, array in generator.sample.items():
        shape = (3, *SOURCE_AXES) if name == "source" else array.shape[1:]
        kind = kinds.INT64 if name == "label" else kinds.FLOAT
        inputs.append(helper.make_tensor_value_info(name, kind, ["batch", *shape]))
    free = [f"{axis}_out" for axis in SOURCE_AXES]
    size = free if "source" in generator.sample else made.shape[1:3]
    output = helper.make_tensor_value_info(OUTPUT, kinds.FLOAT, ["batch", made.shape[3], *size])
    arrays = [onnx.numpy_helper.from_array(a, name) for name, a in graph.constants.items()]
    nodes = [
        helper.make_node(n.op, n.inputs, [n.name], name=n.name, **n.attributes) for n in graph.nodes
    ]
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        helper.make_graph(nodes, generator.name, inputs, [output], arrays),
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="anigan_jax",
    )
    onnx.checker.check_model(model)
    return model


def _graph(generator: Generator) -> Graph:
    graph = Graph()
    names = {name: name for name in generator.sample}
    if generator.table is not None:
        table = graph.constant("texts", generator.table)
        names["label"] = graph.add("GatherND", "text_of_label", table, "label")
    x = add_network(graph, generator.module, generator.weights, *names.values())
    if x is None:
        raise UserError(
            f"a generator of kind {type(generator.module).__name__} is not a plan of blocks and "
            "has no ONNX form here; --to stablehlo takes any"
        )
    if generator.unit_range:
        doubled = graph.add("Mul", "doubled", x, graph.constant("two", 2.0))
        x = graph.add("Sub", "signed", doubled, graph.constant("one", 1.0))
    if generator.module.blocks[-1].activation == "none":
        # Pixels without a bound, as R3GAN has them, are shown clipped.
        ends = (graph.constant("least", -1.0), graph.constant("most", 1.0))
        x = graph.add("Clip", "clipped", x, *ends)
    graph.add("Identity", OUTPUT, x)
    return graph


def feeds(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs of `Generator.apply` as those of its file."""
    found = dict(inputs)
    if "source" in inputs:
        found["source"] = inputs["source"].transpose(0, 3, 1, 2)
    if "label" in inputs:
        found["label"] = inputs["label"].astype(np.int64)
    return found


def _sample(generator: Generator, made: np.ndarray) -> dict[str, Any]:
    """Inputs and the image that they give; pictures as PNG in base64."""
    found: dict[str, Any] = {
        name: _png(array) if name == "source" else array[0].tolist()
        for name, array in generator.sample.items()
    }
    return {**found, OUTPUT: _png(made)}


def _png(images: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(record.to_uint8(images[0])).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def _verified(data: bytes, generator: Generator, made: np.ndarray, opset: int) -> str:
    try:
        import onnxruntime
    except ImportError:
        return "not tried, onnxruntime is not installed"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    here = f"onnxruntime {onnxruntime.__version__}"
    try:
        session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
        (found,) = session.run(None, feeds(generator.sample))
    # Its errors have no common base of their own.
    except Exception as error:
        raise UserError(f"{here} refuses opset {opset}: {str(error).splitlines()[0]}") from None
    apart = float(np.abs(found.transpose(0, 2, 3, 1) - made).max())
    if not apart <= WRONG:
        raise UserError(f"{here} computes different images from JAX, {apart:.2g} apart")
    return f"{here} and JAX are at most {apart:.1g} apart"
