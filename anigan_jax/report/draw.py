"""Examines a run's checkpoints for a report: fingerprints, and pictures that are missing.

Checkpoints hold all that is needed; the run's data are not.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import jax

from anigan_jax import config as configs
from anigan_jax.config import override
from anigan_jax.core import Method, TrainState
from anigan_jax.errors import UserError
from anigan_jax.sampling import grids, prompts
from anigan_jax.state import abstract_state, fingerprint
from anigan_jax.storage import checkpoint, run_dir

SEED = 0
FRAMES, STOPS = 60, 5

_fingerprint = jax.jit(fingerprint)


def look(run: Path, recorded: dict, report: Callable[[str], None] = lambda text: None) -> dict:
    """Checks every kept checkpoint and draws what is cheap and not there.

    Args:
      recorded: run.json of the folder.
      report: called with what is being done.

    Returns:
      'checked': checkpoints as `collect.ledger` takes them, or None where none could be tried;
      'left_out': sentences.
    """
    folder = run / "checkpoints"
    steps = checkpoint.steps(folder)
    if not steps:
        return {"checked": [], "left_out": ["there is no checkpoint: nothing is drawn or checked"]}
    try:
        config = _config(run, recorded)
        method = config.method.make(None)
        frozen = run_dir.frozen_of(run)
        like = abstract_state(config, method, frozen)
    # A config file is the user's code: here, on another machine or under another version of
    # the package, anything may be wrong with it.
    except Exception as error:
        why = str(error) or type(error).__name__
        text = f"the checkpoints are not examined, their networks cannot be built here: {why}"
        return {"checked": None, "left_out": [text]}
    checked, state = [], None
    for step in steps:
        report(f"checkpoint {step}")
        fault, printed = None, None
        try:
            state = checkpoint.restore(folder, like, at=step).state
            printed = f"{int(_fingerprint(state)):08x}"
        except (UserError, OSError) as error:
            if not (folder / f"step_{step:09d}").exists():
                # The run goes on and has pruned it.
                continue
            fault = str(error)
        checked.append({"step": step, "computed": printed, "fault": fault})
    if state is None:
        return {"checked": checked, "left_out": ["no checkpoint can be read: nothing is drawn"]}
    return {"checked": checked, "left_out": draw(run, method, state.replace(frozen=frozen), report)}


def _config(run: Path, recorded: dict) -> configs.Config:
    base = configs.load(str(run / "config.py"))
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            return override(base, recorded["overrides"], "anigan train")
    except SystemExit:
        raise UserError("this version does not have the settings that its overrides name") from None


def draw(run: Path, method: Method, state: TrainState, report: Callable) -> list[str]:
    """Draws the pictures of a state that the folder lacks; says which ones it could not."""
    step, left_out = int(state.step), []
    from_noise = method.generate is not None and not method.translate

    def between() -> None:
        text = prompts.one_text(method, state, [], SEED)
        grids.interpolate(method, state, run, FRAMES, STOPS, SEED, text)

    def table() -> None:
        prompts.colors(method, state, run, SEED)

    def kernels() -> None:
        grids.kernels(state, run)

    wanted = (
        ("interpolate", "the way between latents", from_noise, between),
        ("table", "the table of colors", method.encode is not None and from_noise, table),
        ("kernels", "the first layer of D", "g" in state.params, kernels),
    )
    for verb, what, possible, make in wanted:
        if not possible or list(run_dir.out_dir(run, verb).glob(f"step_{step:09d}*")):
            continue
        report(what)
        try:
            make()
        except (UserError, OSError) as error:
            left_out.append(f"{what} is not drawn: {error}")
    return left_out
