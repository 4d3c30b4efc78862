"""Layers, parameters and FLOPs of any Flax module, from its shapes alone: nothing is computed."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import numpy as np

from anigan_jax.networks.blocks import Block
from anigan_jax.networks.layers import SPECTRAL

COUNTS = ("parameters", "statistics", "spectral", "flops")


def describe(networks: dict[str, tuple]) -> dict[str, dict]:
    """`network` of each (module, shapes of its inputs for one image)."""
    return {name: network(*each) for name, each in networks.items()}


def network(net: nn.Module, shapes: tuple) -> dict:
    """Rows of the layers that hold arrays, and their sums.

    FLOPs are two per multiplication by a kernel in the forward pass of one image, taps on
    padding included. What is multiplied otherwise (attention) is not counted; a recurrent
    layer counts one step.

    Args:
      net: any Linen module, called with `train=False` where it has that argument.
      shapes: of its inputs, each with a leading 1.

    Returns:
      'layers': {'layer', 'kind', 'input', 'shape' (both without the batch), 'parameters',
      'statistics', 'spectral', 'flops'}; and the sums of the last four.
    """
    is_shape = lambda s: isinstance(s[0], int)  # noqa: E731
    xs = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, np.float32), shapes, is_leaf=is_shape)
    mode = {"train": False} if "train" in inspect.signature(net.__call__).parameters else {}
    calls: dict[tuple[str, ...], dict] = {}

    def record(call, args, kwargs, context):
        path, module = context.module.path, context.module
        if context.method_name == "setup" or path in calls:
            return call(*args, **kwargs)
        # Entered before the call: parents stand before children, layers in forward order.
        block = getattr(module, "block", None)
        calls[path] = {"block": block if isinstance(block, Block) else None}
        out = call(*args, **kwargs)
        kind = calls[path]["block"].op if calls[path]["block"] else type(module).__name__
        calls[path] |= {"kind": kind, "input": _shape(args), "shape": _shape(out)}
        return out

    def init(key, xs):
        with nn.intercept_methods(record):
            return net.init(key, *xs, **mode)

    variables = jax.eval_shape(init, jax.random.key(0), xs)
    rows = [
        _row(path, call, variables)
        for path, call in calls.items()
        # The kernel of a `Layer` stands in its row.
        if not (path and calls.get(path[:-1], call)["block"] and not call["block"])
    ]
    rows = [row for row in rows if any(row[name] for name in COUNTS)]
    return {"layers": rows, **{name: sum(row[name] for row in rows) for name in COUNTS}}


def _shape(tree) -> list[int]:
    """Of the first array, without the batch."""
    arrays = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape")]
    return list(arrays[0].shape[1:]) if arrays else []


def _row(path: tuple[str, ...], call: dict, variables) -> dict:
    """The arrays that a module holds itself; of a `Layer`, all of them."""
    own = {}
    for collection, tree in variables.items():
        for name in path:
            tree = tree.get(name, {})
        if not call["block"]:
            tree = {k: v for k, v in tree.items() if not isinstance(v, Mapping)}
        own[collection] = tree
    params = own.get("params", {})
    kernel = params.get("weight", params).get("kernel") if call["block"] else params.get("kernel")
    sizes = {name: sum(math.prod(x.shape) for x in jax.tree.leaves(t)) for name, t in own.items()}
    return {
        "layer": "/".join(path) or "(itself)",
        "kind": call["kind"],
        "input": call["input"],
        "shape": call["shape"],
        "parameters": sizes.pop("params", 0),
        "spectral": sizes.pop(SPECTRAL, 0),
        "statistics": sum(sizes.values()),
        "flops": 0 if kernel is None else _flops(call, kernel.shape),
    }


def _flops(call: dict, kernel: tuple[int, ...]) -> int:
    """Two per multiplication: the kernel at each output pixel, or, where it spreads what it
    is given, at each input pixel."""
    if "transpose" in call["kind"].lower():
        places = math.prod(call["input"][:-1])
    else:
        places = math.prod(call["shape"]) // kernel[-1]
    return 2 * places * math.prod(kernel)
