"""The verb that measures speed."""

from __future__ import annotations

import dataclasses
import json as jsons
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from anigan_jax import config as configs
from anigan_jax import config_file
from anigan_jax.cli import common
from anigan_jax.cli.common import AsJson, ConfigName, Overrides
from anigan_jax.config import ComputeType, Config, Run
from anigan_jax.errors import MachineError, UserError
from anigan_jax.report.table import as_text


def bench(
    config: ConfigName = "ref_dcgan64",
    *,
    batch: Annotated[tuple[int, ...], arg(metavar="N ...")] = (),
    dtype: tuple[ComputeType, ...] = (),
    devices: Annotated[tuple[int, ...], arg(metavar="N ...")] = (),
    peer: tuple[Literal["torch", "lax"], ...] = (),
    windows: int = 5,
    layers: bool = False,
    picture: Annotated[Path | None, arg(metavar="FILE.png")] = None,
    json: AsJson = False,
    overrides: Overrides = (),
) -> int:
    """Images per second of whole training steps, against the machine's peak and against peers.

    Other flags are settings of the config.

    Args:
      batch: give several for a sweep; if omitted: the config's.
      dtype: give several for a sweep; if omitted: the config's.
      devices: 0: all; give several for a sweep; if omitted: the config's. With --run.platform cpu,
        missing devices are simulated.
      peer: other implementations to measure beside ours.
      windows: alternating timing windows; medians are shown.
      layers: time each convolution by itself, in both forms.
      picture: also draw the results as bars.
    """
    settings = common.settings(config, overrides, f"anigan bench {config}")
    batches = list(batch or [settings.batch_size])
    dtypes = list(dtype or [getattr(settings.method, "dtype", "float32")])
    counts = list(devices or [settings.run.devices])
    if min(batches) < 1 or windows < 1:
        raise UserError("--batch and --windows must be 1 or more")
    configs.check(dataclasses.replace(settings, batch_size=batches[0]))
    if picture and picture.suffix != ".png":
        raise UserError(f"--picture {picture} must end in .png")
    if layers and (peer or picture or devices):
        raise UserError("--layers measures only ours: leave out --peer, --picture and --devices")
    if "bfloat16" in dtypes and not hasattr(settings.method, "dtype"):
        raise UserError(f"{config} has no --method.dtype; it computes in float32 only")
    platform, machine = _machine(settings.run.platform)
    if "torch" in peer:
        _need_torch()
    if layers:
        rows, tables = _layers(settings, batches, dtypes, windows)
    else:
        from anigan_jax.bench import runner, table

        wanted = runner.Wanted(
            config,
            config_file.without(overrides, "batch-size", "method.dtype", "run.devices"),
            batches,
            dtypes,
            list(peer),
            windows,
            settings.run.platform,
            counts,
            _period(settings),
            hasattr(settings.method, "dtype"),
        )
        rows = runner.measure(
            wanted, platform == "gpu", lambda text: print(text, file=sys.stderr, flush=True)
        )
        tables = table.tables(rows)
    if json:
        print(jsons.dumps({"config": config, "machine": machine, "rows": rows}, indent=1))
    else:
        print(f"{config} on {machine}\n\n{as_text(tables)}")
    if picture:
        with common.writing(picture, "--picture"):
            table.picture(config, machine, rows, picture)
    # What was measured is shown all the same.
    return (
        MachineError.code if any(row["side"] == "ours" and "failed" in row for row in rows) else 0
    )


def _period(config: Config) -> int:
    """Steps between checkpoints, of data of a usual size where it is counted in epochs."""
    from anigan_jax.bench import compiled

    every = configs.resolve(config, compiled.IMAGES).run.checkpoint_every
    return every if isinstance(every, int) else Run().checkpoint_every


def _layers(config: Config, batches: list[int], dtypes: list[ComputeType], windows: int):
    """Rows and tables of each convolution alone."""
    from anigan_jax.runtime import environment

    environment.prepare(config.run.platform)
    from anigan_jax.bench import layers

    environment.start()
    rows = [row for b in batches for d in dtypes for row in layers.measure(config, b, d, windows)]
    return rows, layers.tables(rows)


def _machine(platform: str) -> tuple[str, str]:
    """The platform that JAX takes, and the device, cores and versions in words; warns of another.

    Asked in another process: one that has started JAX would hold memory of the accelerator.
    """
    code = (
        "import json, os; from anigan_jax.runtime import environment; "
        f"environment.prepare({platform!r}); environment.start(); facts = environment.facts(); "
        "unused = environment.unused_accelerator(); import jax; "
        "print(json.dumps([jax.default_backend(), facts, unused]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1]
        raise UserError(said.removeprefix(f"{UserError.__module__}.UserError: "))
    backend, facts, unused = jsons.loads(done.stdout.splitlines()[-1])
    if unused:
        print(f"warning: {unused}", file=sys.stderr, flush=True)
    kind = facts["device_kind"] if backend != "cpu" else f"{facts['NPROC']} CPU threads"
    return backend, f"{kind}, jaxlib {facts['jaxlib']}"


def _need_torch() -> None:
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        raise UserError("--peer torch needs PyTorch: pip install 'anigan_jax[torch]'")
