"""Another run that a run starts from: the settings of that, and which of its arrays fit."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from tyro.conf import arg

from anigan_jax.errors import UserError
from anigan_jax.runtime import environment

LISTED = 30
# What runs of before had not; see `config.identity`.
_LATER = {"later": True}


@dataclass(frozen=True)
class Parent:
    """Another run whose weights this one starts from: a run of its own, from step 0."""

    run: Annotated[str, arg(name="init-from", prefix_name=False)] = field(
        default="", metadata=_LATER
    )
    """RUN (its latest), RUN@STEP, RUN@best or RUN@latest, or a file of exported weights. Its G, D,
    statistics and average are copied into the new run; '': weights start at random."""
    players: Annotated[str, arg(name="init-players", prefix_name=False)] = field(
        default="", metadata=_LATER
    )
    """Whose weights to take, such as 'g' or 'g,d'; '': every player's."""
    optimizers: Annotated[bool, arg(name="init-optimizers", prefix_name=False)] = field(
        default=False, metadata=_LATER
    )
    """Also take the states of their optimizers."""
    fitting: Annotated[bool, arg(name="init-fitting", prefix_name=False)] = field(
        default=False, metadata=_LATER
    )
    """Take the layers that fit and start the others at random; else all must fit."""
    freeze_d: Annotated[int, arg(name="freeze-d", prefix_name=False)] = field(
        default=0, metadata=_LATER
    )
    """How many layers of D, from the image on, keep their weights, with those of their norms
    (FreezeD, Mo et al. 2020); running statistics and spectral vectors are still updated."""

    @property
    def named(self) -> tuple[str, ...]:
        """The players that `players` names; () for all."""
        return tuple(name for part in self.players.split(",") if (name := part.strip()))

    def takes(self, player: str) -> bool:
        """Whether the weights of a player come from the other run."""
        return bool(self.run) and (not self.named or player in self.named)

    def frozen(self, method: Any) -> frozenset[str]:
        """Names of the layers of D that are not trained, and of their norms."""
        names = _layers(method)[: self.freeze_d] if self.freeze_d else []
        return frozenset([*names, *(f"{name}_norm" for name in names)])

    def faults(self, method: Any) -> Iterator[str]:
        """What of these settings no run can have; `method`: the settings of the family."""
        asked = self.players or self.optimizers or self.fitting or self.freeze_d
        if asked and not self.run:
            yield "parent.run is '' but other settings say what to take from it; give --init-from"
        if not self.freeze_d:
            return
        names = _layers(method)
        if not 0 < self.freeze_d <= len(names):
            known = f"has {len(names)} layers before its logit: {', '.join(names)}"
            known = known if names else "is not a stack of layers"
            yield f"parent.freeze_d is {self.freeze_d}, but D {known}"
        if not self.takes("d"):
            yield "parent.freeze_d keeps layers of D, but D is not taken from another run"


def _layers(method: Any) -> list[str]:
    """Names of D's layers from the image on, before the logit and before a text joins."""
    net, _ = method.networks().get("discriminator", (None, ()))
    return [block.name for block in getattr(net, "blocks", ())[: getattr(net, "trunk", 0)]]


def place(text: str) -> tuple[Path, str | None]:
    """The run and the checkpoint that 'RUN@best' names; None where it names none."""
    run, at, checkpoint = text.rpartition("@")
    whole = environment.expanded(text)
    return (environment.expanded(run), checkpoint) if at and not whole.exists() else (whole, None)


def label(path: str) -> str:
    """'params/g/up1/weight/kernel' of ".params['g']['up1']['weight']['kernel']"."""
    return "/".join(re.findall(r"[^\[\]'./]+", path))


def layer(name: str) -> str:
    """'g/up1/weight' of the label of a leaf of params or stats: what fits as a whole or not.

    A kernel and the vectors of its spectral norm are of one layer, and a norm's gain and mean.
    """
    part, player, *rest = name.split("/")
    return "/".join([player, *rest[part == "stats" : -1]])


class Fit(NamedTuple):
    """Which leaves of one run another takes.

    Attributes:
      taken: label of a leaf here -> of the one that it takes there.
      odd: lines that name each leaf which does not fit, with both shapes.
      fresh: what starts at random where the rest is taken.
    """

    taken: dict[str, str]
    odd: list[str]
    fresh: list[str]


def fit(
    here: Mapping[str, Any],
    there: Mapping[str, Any],
    players: Collection[str],
    optimizers: bool = False,
    strange: Collection[str] = (),
) -> Fit:
    """Compares the leaves of two runs, by label; an average is taken where its weights are.

    Where the other run averages nothing, the average starts as the weights that are taken.

    Args:
      here, there: label -> what has a shape and a dtype.
      players: whose leaves are asked for; `optimizers`: their optimizers' states too.
      strange: layers ('g/embedding') and optimizers ('opt_state/g') whose meaning differs,
        whatever their shapes.
    """

    def own(leaves: Mapping[str, Any]) -> set[str]:
        parts = {name: name.split("/") for name in leaves}
        return {n for n, p in parts.items() if p[0] in ("params", "stats") and p[1] in players}

    def differs(name: str) -> str:
        told, mine = (_spec(leaves.get(name)) for leaves in (there, here))
        return f"{name}: {told} there, {mine} here" if told != mine else ""

    odd = {name: line for name in sorted(own(here) | own(there)) if (line := differs(name))}
    for name in sorted(own(here) - odd.keys()):
        if "/".join(layer(name).split("/")[:2]) in strange:
            odd[name] = f"{name}: other attributes there"
    torn = {layer(name) for name in odd}
    taken = {name: name for name in own(here) if layer(name) not in torn}
    fresh = sorted({layer(name) for name in own(here) - taken.keys()})
    for name in here:
        part, _, rest = name.partition("/")
        twin = {"ema": f"params/g/{rest}", "ema_stats": f"stats/g/{rest}"}.get(part)
        if twin in taken:
            taken[name] = name if name in there else twin
    for player in players if optimizers else ():
        state = [name for name in here if name.startswith(f"opt_state/{player}/")]
        wrong = {name: line for name in state if (line := differs(name))}
        if (whole := f"opt_state/{player}") in strange:
            wrong = {whole: f"{whole}: another optimizer there"}
        if wrong or any(name.startswith(f"{player}/") for name in torn):
            fresh.append(f"the optimizer of {player}")
            # Those of a layer that does not fit have been named by it.
            odd |= {} if torn else wrong
        else:
            taken |= {name: name for name in state}
    return Fit(taken, list(odd.values()), fresh)


def _spec(leaf: Any) -> str:
    return "absent" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"


def chosen(settings: Parent, known: Collection[str]) -> tuple[str, ...]:
    """The players that are taken; `known`: those of the method.

    Raises:
      UserError: it names another.
    """
    wrong = [name for name in settings.named if name not in known]
    if wrong:
        raise UserError(f"--init-players names {', '.join(wrong)}; choose from {', '.join(known)}")
    return settings.named or tuple(known)


def refuse(
    settings: Parent,
    found: Fit,
    frozen: Collection[str] = (),
    changed: Collection[str] | None = None,
) -> None:
    """Refuses a parent whose leaves do not fit, unless what fits is asked for.

    Args:
      frozen: names of D's layers that must be taken.
      changed: lines of the settings that are others than the parent's; None: it is no run.

    Raises:
      UserError: naming each leaf with its shapes.
    """
    if found.odd and not settings.fitting:
        more = len(found.odd) - LISTED
        lines = [*found.odd[:LISTED], *([f"and {more} more"] if more > 0 else [])]
        told = [f"{len(found.odd)} arrays of {settings.run} do not fit this run:", *lines]
        told[1:1] = [f"setting {line}" for line in changed or ()]
        run = place(settings.run)[0]
        states = "opt_state/" in "".join(found.odd)
        ways = {
            f"`anigan train {run} ...` uses the settings of that run": changed is not None,
            "without --init-optimizers the optimizers start afresh": states,
            "--init-fitting takes the layers that fit and starts the others at random": True,
        }
        remedy = "; ".join(way for way, is_one in ways.items() if is_one)
        raise UserError("\n  ".join(told) + f"\n{remedy}")
    if not found.taken:
        raise UserError(f"nothing of {settings.run} fits this run")
    # A translation has two discriminators: 'd/a/down1/weight'.
    random = [name for name in found.fresh if name[:2] == "d/" and {*name.split("/")} & {*frozen}]
    if random:
        raise UserError(f"--freeze-d would keep layers at random weights: {', '.join(random)}")
