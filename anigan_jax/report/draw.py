"""Examines a run's checkpoints for a report: fingerprints, and pictures that are missing.

Checkpoints hold all that is needed; the run's data are not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax

from anigan_jax.errors import UserError
from anigan_jax.sampling import grids, prompts
from anigan_jax.sampling.grids import Model
from anigan_jax.state import abstract_state, fingerprint
from anigan_jax.storage import checkpoint, run_dir

SEED = 0
FRAMES, STOPS = 60, 5

_fingerprint = jax.jit(fingerprint)


def look(
    run: Path,
    recorded: dict,
    report: Callable[[str], None] = lambda text: None,
    trust: bool = False,
) -> dict:
    """Checks every kept checkpoint and draws what is cheap and not there.

    Args:
      recorded: run.json of the folder.
      report: called with what is being done.
      trust: whether classes of the run's own may be executed.

    Returns:
      'checked': checkpoints as `collect.ledger` takes them, or None where none could be tried;
      'left_out': sentences.
    """
    folder = run / "checkpoints"
    steps = checkpoint.steps(folder)
    if not steps:
        return {"checked": [], "left_out": ["there is no checkpoint: nothing is drawn or checked"]}
    try:
        config = run_dir.config_of(run, recorded, trust)
        method = config.method.make()
        constants = run_dir.constants_of(run)
        shapes = abstract_state(config, method, constants)
    # Under another version of the package, or with code of its own, anything may be wrong.
    except Exception as error:
        why = str(error) or type(error).__name__
        text = f"the checkpoints are not examined; their networks cannot be built here: {why}"
        return {"checked": None, "left_out": [text]}
    checked, state = [], None
    for step in steps:
        report(f"checkpoint {step}")
        fault, printed = None, None
        try:
            state = checkpoint.restore(folder, shapes, at=step, repair=False).state
            printed = f"{int(_fingerprint(state)):08x}"
        except (UserError, OSError) as error:
            if not (folder / f"step_{step:09d}").exists():
                # The run goes on and has pruned it.
                continue
            fault = str(error)
        checked.append({"step": step, "computed": printed, "fault": fault})
    if state is None:
        return {"checked": checked, "left_out": ["no checkpoint can be read: nothing is drawn"]}
    model = grids.model_of(method, state, constants)
    return {"checked": checked, "left_out": draw(run, model, report)}


def draw(run: Path, model: Model, report: Callable) -> list[str]:
    """Draws the pictures of a model that the folder lacks; says which ones it could not."""
    method, state = model.method, model.state
    step, left_out = int(state.step), []
    from_noise = method.generate is not None and not method.translate

    def between() -> None:
        text = prompts.one_text(model, [], SEED)
        grids.interpolate(model, run, FRAMES, STOPS, SEED, text)

    def table() -> None:
        prompts.table(model, run, SEED)

    def kernels() -> None:
        grids.kernels(state, run)

    wanted = (
        ("interpolate", "the way between latents", from_noise, between),
        ("table", "the table of colors", model.texts is not None and from_noise, table),
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
