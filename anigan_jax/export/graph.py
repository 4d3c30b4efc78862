"""Networks as ONNX graphs, from the plans that they are built of; no library is needed here.

Images are (N, C, H, W) here and latents and texts (N, length). Padding is explicit everywhere,
because browsers' runtimes compute `auto_pad` wrongly in places. Weights stay as they are; only
spectral norm's division is done beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from anigan_jax.networks.blocks import Block, InstanceNorm
from anigan_jax.networks.stack import Stack
from anigan_jax.networks.text import TextStack


class Node(NamedTuple):
    """One operation; its name is that of its output."""

    op: str
    name: str
    inputs: tuple[str, ...]
    attributes: dict[str, Any]


class Graph:
    """Nodes and constants, in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}

    def add(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Adds an operation; returns the name of its output."""
        self.nodes.append(Node(op, name, inputs, attributes))
        return name

    def constant(self, name: str, array: Any) -> str:
        """Adds an array, floats as float32 and integers as int64; returns its name."""
        array = np.asarray(array)
        self.constants[name] = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        return name


class Network(NamedTuple):
    """A module and its variables."""

    module: Any
    params: dict
    stats: dict


def add_network(graph: Graph, module: Any, weights: tuple, *inputs: str) -> str | None:
    """Adds a network; returns the name of its output, None where its kind is not known here.

    Args:
      weights: (params, stats).
      inputs: names of its inputs.
    """
    emit = NETWORKS.get(type(module))
    plans = (*module.blocks, *getattr(module, "told", ())) if emit else ()
    if emit is None or any(block.op not in OPERATIONS for block in plans):
        return None
    return emit(graph, Network(module, *weights), *inputs)


def _stack(graph: Graph, net: Network, x: str) -> str:
    told = _layers(graph, net, net.module.told, x) if net.module.told else ""
    return _layers(graph, net, net.module.blocks, x, told)


def _text_stack(graph: Graph, net: Network, z: str, text: str) -> str:
    module = net.module
    told = _layers(graph, net, module.text, text)
    x = _layers(graph, net, module.before, z) if module.before else z
    if module.join == "norm":
        return _layers(graph, net, module.after, x, told)
    return _layers(graph, net, module.after, graph.add("Concat", "join", x, told, axis=1))


NETWORKS: dict[type, Callable[..., str]] = {Stack: _stack, TextStack: _text_stack}
"""How each kind of module is written: (graph, network, names of inputs) -> name of the output."""


def _layers(graph: Graph, net: Network, blocks: tuple[Block, ...], x: str, text: str = "") -> str:
    """Blocks in order; `text`: what their norms follow, or ''."""
    kept = ""
    if blocks[0].op != "dense" and x not in IMAGES:
        # Latents are a map of one pixel.
        x = graph.add("Unsqueeze", "as_map", x, graph.constant("as_map/axes", [2, 3]))
    for block in blocks:
        name = block.name
        if block.skip == "start":
            kept = x
        if block.reflect:
            x = _padded(graph, f"{name}/reflect", x, (block.reflect,) * 4, mode="reflect")
        x = OPERATIONS[block.op](graph, net, block, x)
        if block.pad_after:
            x = _padded(graph, f"{name}/pad", x, (0, 0, block.pad_after, block.pad_after))
        if block.activation_first:
            x = _activated(graph, net, block, x)
        if block.norm:
            x = _normalized(graph, net, block, x, text)
        if block.skip == "end":
            x = graph.add("Add", f"{name}/sum", x, kept)
        if not block.activation_first:
            x = _activated(graph, net, block, x)
    return x


IMAGES = ("source",)
"""Inputs that are maps already."""


class Weights(NamedTuple):
    """(k, k, in, out) or (in, out), and (out,) or None."""

    kernel: np.ndarray
    bias: np.ndarray | None


def _weights(net: Network, block: Block) -> Weights:
    own = net.params[block.name]
    kernel = np.asarray(own["weight"]["kernel"])
    if block.spectral:
        u, v = (np.float64(net.stats["spectral"][block.name]["weight"][name]) for name in "uv")
        kernel = kernel / (v @ kernel.reshape(-1, kernel.shape[-1]).astype(np.float64) @ u)
    return Weights(kernel, np.asarray(own["bias"]) if block.bias else None)


def _dense(graph: Graph, net: Network, block: Block, x: str) -> str:
    kernel, bias = _weights(net, block)
    if not block.side:
        return _product(graph, block.name, x, kernel, bias)
    # Columns that make (C, H, W), not (H, W, C).
    sides = (block.side, block.side, block.features)
    kernel = np.moveaxis(kernel.reshape(-1, *sides), 3, 1).reshape(len(kernel), -1)
    bias = bias if bias is None else np.moveaxis(bias.reshape(sides), 2, 0).reshape(-1)
    x = _product(graph, block.name, x, kernel, bias)
    shape = graph.constant(f"{block.name}/shape", [-1, block.features, block.side, block.side])
    return graph.add("Reshape", f"{block.name}/map", x, shape)


def _product(graph: Graph, name: str, x: str, kernel: np.ndarray, bias: np.ndarray | None) -> str:
    return graph.add("Gemm", f"{name}/product", x, *_constants(graph, name, kernel, bias))


def _constants(graph: Graph, name: str, kernel: np.ndarray, bias: np.ndarray | None) -> list[str]:
    found = [graph.constant(f"{name}/kernel", kernel)]
    return found if bias is None else [*found, graph.constant(f"{name}/bias", bias)]


def _conv(graph: Graph, net: Network, block: Block, x: str) -> str:
    before = after = block.padding
    if block.padding == "same":
        # Of stride 1 it does not depend on the size of the map; the odd pixel is the last.
        if block.stride != 1:
            raise ValueError(f"{block.name}: 'same' padding of stride {block.stride}")
        before, after = (block.kernel - 1) // 2, block.kernel // 2
    kernel, bias = _weights(net, block)
    names = _constants(graph, block.name, kernel.transpose(3, 2, 0, 1), bias)
    pads = [before, before, after, after]
    rest = {"strides": [block.stride] * 2, "pads": pads, "group": block.groups}
    return graph.add("Conv", f"{block.name}/conv", x, *names, **rest)


def _conv_transpose(graph: Graph, net: Network, block: Block, x: str) -> str:
    kernel, bias = _weights(net, block)
    names = _constants(graph, block.name, kernel.transpose(2, 3, 0, 1), bias)
    return graph.add(
        *("ConvTranspose", f"{block.name}/conv_transpose", x, *names),
        strides=[block.stride] * 2,
        pads=[block.padding] * 4,
        output_padding=[block.output_padding] * 2,
    )


def _upsample_conv(graph: Graph, net: Network, block: Block, x: str) -> str:
    scales = graph.constant(f"{block.name}/scales", [1.0, 1.0, 2.0, 2.0])
    rest = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    x = graph.add("Resize", f"{block.name}/doubled", x, "", scales, mode="nearest", **rest)
    kernel, bias = _weights(net, block)
    names = _constants(graph, block.name, kernel.transpose(3, 2, 0, 1), bias)
    return graph.add("Conv", f"{block.name}/conv", x, *names, pads=[block.kernel // 2] * 4)


def _pointwise(graph: Graph, net: Network, block: Block, x: str) -> str:
    kernel, bias = _weights(net, block)
    names = _constants(graph, block.name, kernel.T[:, :, None, None], bias)
    return graph.add("Conv", f"{block.name}/conv", x, *names)


def _constant(graph: Graph, net: Network, block: Block, x: str) -> str:
    axes = graph.constant(f"{block.name}/axes", [2, 3])
    x = graph.add("Unsqueeze", f"{block.name}/map", x, axes)
    learned = np.moveaxis(np.asarray(net.params[block.name]["constant"]), 2, 0)[None]
    kernel = graph.constant(f"{block.name}/constant", learned)
    return graph.add("Mul", f"{block.name}/product", x, kernel)


def _up(graph: Graph, net: Network, block: Block, x: str) -> str:
    line = np.array([1, 3, 3, 1]) / 4
    kernel = np.tile(np.outer(line, line), (block.features, 1, 1, 1))
    name = graph.constant(f"{block.name}/filter", kernel)
    rest = {"strides": [2, 2], "pads": [1] * 4, "group": block.features}
    return graph.add("ConvTranspose", f"{block.name}/doubled", x, name, **rest)


OPERATIONS: dict[str, Callable[[Graph, Network, Block, str], str]] = {
    "dense": _dense,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "upsample_conv": _upsample_conv,
    "pointwise": _pointwise,
    "constant": _constant,
    "up": _up,
}
"""How each operation of a `Block` is written: (graph, network, block, x) -> its output."""

ACTIVATIONS = {"relu": "Relu", "leaky_relu": "LeakyRelu", "tanh": "Tanh", "sigmoid": "Sigmoid"}


def _activated(graph: Graph, net: Network, block: Block, x: str) -> str:
    if block.activation == "none":
        return x
    slope = {"alpha": net.module.negative_slope} if block.activation == "leaky_relu" else {}
    return graph.add(ACTIVATIONS[block.activation], f"{block.name}/{block.activation}", x, **slope)


def _padded(graph: Graph, name: str, x: str, pads: tuple[int, ...], **mode: str) -> str:
    top, left, bottom, right = pads
    every = graph.constant(f"{name}_pads", [0, 0, top, left, 0, 0, bottom, right])
    return graph.add("Pad", name, x, every, **mode)


def _normalized(graph: Graph, net: Network, block: Block, x: str, text: str) -> str:
    name, norm = f"{block.name}_norm", net.module.norm
    if isinstance(norm, InstanceNorm):
        ones = graph.constant(f"{name}/scale", np.ones(block.features))
        zeros = graph.constant(f"{name}/bias", np.zeros(block.features))
        return graph.add(
            "InstanceNormalization", f"{name}/instance", x, ones, zeros, epsilon=norm.epsilon
        )
    own, running = net.params[name], net.stats["batch_stats"][name]
    arrays = {key: own[key] for key in ("scale", "bias")}
    arrays |= {key: running[key] for key in ("mean", "var")}
    names = [graph.constant(f"{name}/{key}", array) for key, array in arrays.items()]
    x = graph.add("BatchNormalization", f"{name}/batch", x, *names, epsilon=norm.epsilon)
    return _following(graph, name, x, text, own["text"]) if text else x


def _following(graph: Graph, name: str, x: str, text: str, linear: dict) -> str:
    """x times 1 + gain and plus bias, both linear in the text."""
    kernel, bias = (np.asarray(linear[key]) for key in ("kernel", "bias"))
    gains, shifts = np.split(kernel, 2, axis=1), np.split(bias, 2)
    parts = zip(("gain", "shift"), ("Mul", "Add"), gains, (1 + shifts[0], shifts[1]), strict=True)
    for part, op, columns, start in parts:
        row = _product(graph, f"{name}/{part}", text, columns, start)
        axes = graph.constant(f"{name}/{part}_axes", [2, 3])
        row = graph.add("Unsqueeze", f"{name}/{part}_map", row, axes)
        x = graph.add(op, f"{name}/{op.lower()}", x, row)
    return x
