"""The verb that shows the networks of a config."""

from __future__ import annotations

import json

from anigan_jax import config_file
from anigan_jax.cli.common import arguments
from anigan_jax.config import Config
from anigan_jax.report.table import Table, as_text
from anigan_jax.runtime import environment


def describe(argv: list[str]) -> int:
    """Prints the layers of a config's networks."""
    args = arguments("describe", argv, config={"positional": True}, json={"action": "store_true"})
    config = config_file.load(args.config)
    environment.prepare("cpu")
    found = described(config)
    print(
        json.dumps(found, indent=1) if args.json else f"{config.name}\n\n{as_text(tables(found))}"
    )
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
