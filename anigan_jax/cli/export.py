"""The generators of a run as files for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from anigan_jax import api
from anigan_jax.cli.common import Checkpoint, RunDir, Trust, Weights
from anigan_jax.storage import atomic


def export(
    run: RunDir,
    *,
    to: Annotated[
        Literal["onnx", "stablehlo", "weights", "hub"], arg(metavar="onnx|stablehlo|weights|hub")
    ],
    out: Annotated[Path, arg(metavar="DIR")],
    opset: Annotated[int, arg(metavar="N")] = 17,
    data_license: Annotated[str, arg(metavar="TEXT")] = "",
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
) -> int:
    """The generators of a run as ONNX, StableHLO or small weights, or as a folder to publish.

    Args:
      to: ONNX for other runtimes; StableHLO for JAX elsewhere; weights: only the generators, in
        float16; hub: all weights, ONNX, samples and a model card. `load` opens the last two.
      out: a new folder.
      opset: ONNX opset to write.
      data_license: license of the training images, kept in every file.
    """
    atomic.refuse_taken(out, "--out")
    from anigan_jax.export import files

    files.check(to, opset)
    trained = api.load(run, checkpoint, weights=weights, trust=trust)
    for name, told in trained.export(to, out, data_license=data_license, opset=opset).items():
        print(f"{out / name}" + (f"  ({told})" if told else ""))
    return 0
