"""Each convolution of a config alone, forward and all gradients, in both forms of `conv`."""

from __future__ import annotations

import statistics
import time

import jax
import jax.numpy as jnp

from anigan_jax.bench.cases import convolutions_as
from anigan_jax.config import Config
from anigan_jax.networks import describe
from anigan_jax.networks.blocks import Block
from anigan_jax.networks.layers import Layer
from anigan_jax.networks.ops import conv
from anigan_jax.report.table import Table

FORMS = ("blocks", "native")
REPEATS = 4


def measure(config: Config, batch: int, dtype: str, windows: int) -> list[dict]:
    """A row for each different layer that is not dense.

    Rows hold 'network', 'layer', 'input' (H, W, C), 'gflop' (a batch, forward and both
    gradients) and GFLOP/s by form.
    """
    rows, seen = [], set()
    for name, (net, shapes) in config.method.networks().items():
        described = {row["layer"]: row for row in describe.network(net, shapes)["layers"]}
        for block in getattr(net, "blocks", ()):
            # What only resamples has no row.
            row = described.get(block.name, {"input": ()})
            before = tuple(row["input"])
            about = (block.op, block.kernel, block.stride, block.features, before)
            if block.op != "dense" and len(before) == 3 and about not in seen:
                seen.add(about)
                speeds = _speeds(block, before, batch, dtype, windows, 3 * row["flops"] * batch)
                place = {"network": name, "layer": block.name, "input": before}
                rows.append({**place, "batch": batch, "dtype": dtype, "gflops_per_sec": speeds})
    return rows


def _speeds(block: Block, before, batch: int, dtype: str, windows: int, work: float) -> dict:
    """GFLOP/s of a layer by form, in alternating windows."""
    runs = {form: _compiled(block, before, batch, dtype, form) for form in FORMS}
    spent: dict[str, list[float]] = {form: [] for form in FORMS}
    for _ in range(windows):
        for form, run in runs.items():
            start = time.perf_counter()
            run()
            spent[form].append(time.perf_counter() - start)
    return {form: REPEATS * work / statistics.median(times) / 1e9 for form, times in spent.items()}


def _compiled(block: Block, before, batch: int, dtype: str, form: str):
    """A function that runs a layer and its gradients REPEATS times."""
    layer = Layer(block, 0.02, dtype)
    x = jax.random.normal(jax.random.key(0), (batch, *before)).astype(dtype)
    variables = layer.init(jax.random.key(1), x[:1], False)

    def loss(both):
        params, x = both
        y = layer.apply({**variables, "params": params}, x, False)
        return jnp.mean(y.astype(jnp.float32) ** 2)

    def all_passes(both, _):
        # What goes on depends on every gradient, so that none is left out.
        grads = jax.grad(loss)(both)
        return jax.tree.map(lambda a, b: a - (1e-3 * b).astype(a.dtype), both, grads), None

    # In a loop, as in a super-step: XLA's CPU backend treats convolutions there otherwise.
    loop = jax.jit(lambda both: jax.lax.scan(all_passes, both, length=REPEATS)[0])
    both = variables["params"], x
    with convolutions_as(form):
        compiled = loop.lower(both).compile()

    def run() -> None:
        jax.block_until_ready(compiled(both))

    run()
    return run


def tables(rows: list[dict]) -> list[Table]:
    """The rows as a table; the form that a training would take has a star."""
    columns = ("layer", "input", "batch", "type", *FORMS)
    cells = [
        (
            f"{row['network']} {row['layer']}",
            "x".join(map(str, row["input"])),
            row["batch"],
            row["dtype"],
            *(
                f"{row['gflops_per_sec'][form]:,.0f}{'*' if form == conv.lowering() else ''}"
                for form in FORMS
            ),
        )
        for row in rows
    ]
    note = "* The form that training uses on this machine."
    return [Table("GFLOP/s, forward and gradients", columns, cells, [note])]
