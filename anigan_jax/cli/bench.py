"""The verb that measures speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from anigan_jax import config_file
from anigan_jax.cli.common import parser_of
from anigan_jax.errors import UserError
from anigan_jax.report.table import as_text

DTYPES = ("float32", "bfloat16")
PEERS = ("torch", "lax")
DEFAULT = "ref_dcgan64"


def bench(argv: list[str]) -> int:
    """Images per second of whole training steps, against the machine's peak and against peers."""
    # First, so that no value of a setting is taken for it.
    named = bool(argv) and not argv[0].startswith("-")
    name, argv = (argv[0], argv[1:]) if named else (DEFAULT, argv)
    parser = parser_of(
        "bench [CONFIG]",
        batch={"type": int, "nargs": "+", "metavar": "N", "help": "several are a sweep"},
        dtype={"choices": DTYPES, "nargs": "+", "default": ["float32"]},
        devices={
            "type": int,
            "nargs": "+",
            "default": [0],
            "help": "0: all; several are a sweep; more than there are are simulated on CPUs with "
            "--run.platform cpu",
        },
        peer={"choices": PEERS, "nargs": "+", "default": [], "help": "measured beside ours"},
        windows={"type": int, "default": 5, "help": "alternating; medians are shown"},
        layers={"action": "store_true", "help": "each convolution alone, in both forms"},
        picture={"type": Path, "metavar": "FILE.png", "help": "bars beside the table"},
        json={"action": "store_true"},
    )
    # What is left are settings of the config; the worker's parser judges them.
    args, overrides = parser.parse_known_args(argv)
    config = config_file.override(config_file.load(name), overrides, f"anigan bench {name}")
    batches = args.batch or [config.batch_size]
    if min(batches) < 1 or args.windows < 1:
        raise UserError("--batch and --windows must be 1 or more")
    if "bfloat16" in args.dtype and not hasattr(config.method, "dtype"):
        raise UserError(f"{name} has no --method.dtype; it computes in float32 alone")
    platform, machine = _machine(config.run.platform)
    if "torch" in args.peer:
        _need_torch()
    if args.layers:
        return _layers(name, args, config, batches, machine)
    from anigan_jax.bench import runner

    wanted = runner.Wanted(
        name,
        overrides,
        batches,
        args.dtype,
        args.peer,
        args.windows,
        config.run.platform,
        args.devices,
        config.run.checkpoint_every,
    )

    def told(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    rows = runner.measure(wanted, platform == "gpu", told)
    from anigan_jax.bench import table

    if args.picture:
        table.picture(name, machine, rows, args.picture)
    if args.json:
        print(json.dumps({"config": name, "machine": machine, "rows": rows}, indent=1))
    else:
        print(f"{name} on {machine}\n\n{as_text(table.tables(rows))}")
    return 0


def _layers(name: str, args, config, batches: list[int], machine: str) -> int:
    from anigan_jax.runtime import environment

    environment.prepare(config.run.platform)
    from anigan_jax.bench import layers

    environment.start()
    rows = [
        row
        for b in batches
        for d in args.dtype
        for row in layers.measure(config, b, d, args.windows)
    ]
    if args.json:
        print(json.dumps({"config": name, "machine": machine, "rows": rows}, indent=1))
    else:
        print(f"{name} on {machine}\n\n{as_text(layers.tables(rows))}")
    return 0


def _machine(platform: str) -> tuple[str, str]:
    """The platform that JAX takes, and the device, cores and versions in words.

    Asked in another process: one that has started JAX would hold memory of the accelerator.
    """
    code = (
        "import json, os; from anigan_jax.runtime import environment; "
        f"environment.prepare({platform!r}); environment.start(); facts = environment.facts(); "
        "import jax; print(json.dumps([jax.default_backend(), facts]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1]
        raise UserError(said.removeprefix(f"{UserError.__module__}.UserError: "))
    backend, facts = json.loads(done.stdout.splitlines()[-1])
    kind = facts["device_kind"] if backend != "cpu" else f"{facts['NPROC']} CPU threads"
    return backend, f"{kind}, jaxlib {facts['jaxlib']}"


def _need_torch() -> None:
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        raise UserError("--peer torch needs PyTorch: pip install 'anigan_jax[torch]'")
