"""The verb that shows the networks of a config."""

from __future__ import annotations

import json as jsons

from anigan_jax import config_file
from anigan_jax.cli.common import AsJson, ConfigName
from anigan_jax.config import Config
from anigan_jax.report.table import Table, as_text
from anigan_jax.runtime import environment


def describe(config: ConfigName, *, json: AsJson = False) -> int:
    """Layers, parameters and FLOPs of a config's networks."""
    settings = config_file.load(config)
    environment.prepare("cpu")
    found = described(settings)
    print(jsons.dumps(found, indent=1) if json else f"{settings.name}\n\n{as_text(tables(found))}")
    return 0


def described(config: Config) -> dict:
    """Layers, parameters, statistics and FLOPs of a config's networks."""
    from anigan_jax.networks import describe

    return {"name": config.name, "networks": describe.describe(config.method.networks())}


def tables(found: dict) -> list[Table]:
    """A table for each network."""
    columns = ("layer", "kind", "output", "parameters", "statistics", "MFLOP")
    return [
        Table(
            name,
            columns,
            [
                (
                    row["layer"],
                    row["kind"],
                    "x".join(map(str, row["shape"])),
                    row["parameters"],
                    row["statistics"],
                    f"{row['flops'] / 1e6:.1f}",
                )
                for row in net["layers"]
            ],
            [
                f"total {net['parameters'] + net['statistics']:,} = {net['parameters']:,} trained "
                f"+ {net['statistics']:,} statistics; {net['flops'] / 1e6:.1f} MFLOP per image "
                "forward"
            ],
        )
        for name, net in found["networks"].items()
    ]
