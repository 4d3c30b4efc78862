"""Training again to compare the ledger: the proof that a run repeats bit for bit."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import jax
import numpy as np

from anigan_jax.config import Config
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import UserError
from anigan_jax.runtime import devices, processes
from anigan_jax.runtime.processes import ProcessGroup
from anigan_jax.state import with_leaves
from anigan_jax.storage import checkpoint, manifest, metrics_file, run_dir
from anigan_jax.training import artifacts, transfer
from anigan_jax.training.loop import machine_faults
from anigan_jax.training.program import Program


def replay(
    config: Config,
    workdir: Path,
    pack: Pack,
    until: int | None,
    group: ProcessGroup = processes.ALONE,
) -> tuple[int, str]:
    """Trains again from the start, without writing, and compares the ledger.

    Returns:
      (exit code, message): 0 and 'identical through step N', or 1 and the first
      recorded step that differs, with the leaves where a checkpoint of it exists.
    """
    with machine_faults(workdir, group):
        return _replay(config, workdir, pack, until, group)


def _replay(
    config, workdir: Path, pack: Pack, until: int | None, group: ProcessGroup
) -> tuple[int, str]:
    repeatable(workdir, run_dir.same_bits(workdir))
    ledger = {
        m["step"]: m["fingerprint"] for m in metrics_file.read_metrics(workdir / "metrics.jsonl")
    }
    if not ledger:
        raise UserError(f"{workdir} has recorded no step yet; there is nothing to replay")
    saved = leaves_of(workdir)
    # A signal stops a run between two lines, with a checkpoint.
    last = max([*ledger, *saved])
    last = last if until is None else min(until, last)
    # Process 0's view: the others may look at a folder that is being written.
    shared = processes.broadcast_json(
        group, [list(ledger.items()), last, saved, transfer.ramps(workdir)]
    )
    ledger, last = dict(map(tuple, shared[0])), shared[1]
    saved = {int(step): leaves for step, leaves in shared[2].items()}
    constants = run_dir.constants_of(workdir)
    # Dispatches of one step: each fingerprint and each checkpoint is compared.
    alone = dataclasses.replace(config.run, steps_per_dispatch=1)
    alone = dataclasses.replace(config, run=alone)
    program = Program(alone, pack, constants, 0, group, ramps=shared[3])
    state = with_leaves(program.initial(), run_dir.taken_by(workdir))
    state = devices.replicate(state, program.devices)
    now = f"{int(artifacts.fingerprint_of(devices.local(state))):08x}"
    chunks = program.chunks(0, last)
    for step in range(last + 1):
        if step:
            state, metrics, _ = program.run(state, next(chunks))
            now = f"{int(np.asarray(metrics['fingerprint'])[0]):08x}"
        wrong = []
        if step in saved:
            have = checkpoint.leaf_digests(jax.tree.map(np.asarray, devices.local(state)))
            wrong = [leaf for leaf in have if saved[step].get(leaf) != have[leaf]]
        if ledger.get(step, now) != now or wrong:
            where = f": {', '.join(wrong[:5])}" if wrong else ""
            return 1, f"first difference at step {step}{where}"
    return 0, f"identical through step {last}"


def repeatable(workdir: Path, recorded: dict) -> None:
    """Refuses a run whose kernels add in an order of their own."""
    for facts in (recorded["facts"], *(entry["facts"] for entry in recorded.get("resumed", []))):
        if facts["platform"] != "cpu" and "deterministic_ops=false" in facts["XLA_FLAGS"]:
            raise UserError(
                f"{workdir} used library kernels (--run.kernels fastest), which add in their own "
                "order, so its bits cannot be repeated; `anigan evaluate` judges its images"
            )


def leaves_of(workdir: Path) -> dict[int, dict]:
    """Step -> digests of the arrays, of every readable checkpoint."""
    found = {}
    for step in checkpoint.steps(workdir / "checkpoints"):
        # A damaged one is skipped; a run that trains may have deleted it.
        with contextlib.suppress(OSError, ValueError):
            path = manifest.path_of(workdir / "checkpoints", step)
            found[step] = manifest.read_manifest(path)["leaves"]
    return found
