"""How often each player is updated in a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp

from anigan_jax.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """How often each player is updated in a step."""

    kind: Literal["fixed", "as_printed", "as_argued", "alternate"] = "fixed"
    """fixed: `g` and `d` updates; as_printed / as_argued: CSC412's accuracy rule, by its
    formula or by its prose; alternate: AIUB's `d_steps` of D, then `g_steps`
    of G."""
    g: int = 1
    """G's updates in a step (fixed, alternate)."""
    d: int = 1
    """D's updates in a step (fixed, alternate)."""
    d_steps: int = 0
    """alternate: steps in which only D learns."""
    g_steps: int = 0
    """alternate: steps in which only G learns."""

    @property
    def by_accuracy(self) -> bool:
        """Whether D's accuracy in the step before decides the repeats."""
        return self.kind in ("as_printed", "as_argued")


# CSC412's rule gives at most this many repeats of a player.
MAX_DYNAMIC = 10


def schedule_repeats(schedule: Schedule):
    """(d repeats, g repeats, most d, most g); repeats are ints or functions.

    The dynamic rule is CSC412's, from integer counts: float32 accuracy would turn 7
    repeats into 6 at 0.7.
    """
    for name in ("d", "g"):
        if (count := getattr(schedule, name)) < 0:
            raise UserError(f"method.schedule.{name} is {count}; it must be at least 0")
    if schedule.kind == "fixed":
        return schedule.d, schedule.g, max(schedule.d, 1), max(schedule.g, 1)
    if schedule.kind == "alternate":
        period = schedule.d_steps + schedule.g_steps
        if schedule.d_steps < 1 or schedule.g_steps < 1:
            raise UserError("schedule 'alternate' needs d_steps and g_steps of 1 or more")

        def d_turn(extra_state, step):
            return jnp.where(step % period < schedule.d_steps, schedule.d, 0)

        def g_turn(extra_state, step):
            return jnp.where(step % period < schedule.d_steps, 0, schedule.g)

        return d_turn, g_turn, schedule.d, schedule.g

    def right(extra_state, step):
        return MAX_DYNAMIC * extra_state["correct"] // extra_state["judged"]

    def wrong(extra_state, step):
        missed = extra_state["judged"] - extra_state["correct"]
        return MAX_DYNAMIC * missed // extra_state["judged"]

    d_count, g_count = right, wrong
    if schedule.kind == "as_argued":
        d_count, g_count = wrong, right

    def d_repeats(extra_state, step):
        return jnp.maximum(d_count(extra_state, step), 1)

    def g_repeats(extra_state, step):
        return jnp.maximum(g_count(extra_state, step), 3)

    return d_repeats, g_repeats, MAX_DYNAMIC, MAX_DYNAMIC
