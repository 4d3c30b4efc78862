"""A game's two networks as pure functions of their parameters and statistics."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from anigan_jax import rng
from anigan_jax.core import Array
from anigan_jax.errors import UserError
from anigan_jax.methods import san
from anigan_jax.runtime import backend

OF_G = 8
"""Tells G's draws from those of D's passes, which have the salts below."""
OPTIONS = ("train", "power_iterate", "keys", "features", "parts")
"""What a module's `__call__` may take beside its inputs, by name."""


class Networks(NamedTuple):
    """Both players' modules as pure functions; no arrays.

    A text of G is (n, T); those of D are a tuple, a logit each. Both are absent in games
    without texts.
    """

    g: nn.Module
    d: nn.Module
    unit_range: bool
    axis_name: str | None
    san: bool = False

    def seen(self, step: Array, local: int) -> Array:
        """() images of the batches before a step, whatever D repeats; `local` of a batch are on
        this device."""
        devices = 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)
        return step * float(local * devices)

    def in_range(self, images: Array) -> Array:
        """Images in [-1, 1] in the generator's range."""
        return (images + 1) / 2 if self.unit_range else images

    def generate(self, params, stats, z: Array, text: Array | None = None) -> Array:
        """z (n, Z) -> images (n, H, W, 3) in [-1, 1], with running statistics."""
        x, _ = self.fake(params, stats, z, text, train=False)
        return 2 * x - 1 if self.unit_range else x

    def fake(
        self,
        params,
        stats,
        z: Array,
        text: Array | None = None,
        keys: Array | None = None,
        *,
        train: bool = True,
    ):
        """Images of z (n, Z) in G's own range, and G's new statistics.

        `keys` (n,) are the update's, of the examples: for dropout.
        """
        variables = {"params": params, **stats}
        own = {} if keys is None else {"keys": rng.children(keys, OF_G)}
        rest = {"train": train, "power_iterate": train, "mutable": list(stats), **own}
        z = z[:, None, None, :]
        if text is None:
            return call(self.g, "apply", variables, z, **rest)
        (images,), new = call(self.g, "apply", variables, z, (text,), **rest)
        return images, new

    @property
    def joins(self) -> bool:
        """Whether D sees several sets of images in one pass, each with statistics of its own.

        The same as in turn, up to rounding; it has half the kernels and collectives, which count
        on GPUs and TPUs.
        """
        takes = inspect.signature(type(self.d).__call__).parameters
        return backend.accelerated() and "parts" in takes

    def logits(self, params, stats, images: Array, texts: tuple = (), **rest):
        """D's logits, one (b,) for each text (one where there is none), and new statistics.

        With `san` both that `san.split` gives. `parts` in `rest`: of how many sets the images
        are, one after the other, for batch norms; only where D `joins`.
        """
        variables, more = {"params": params, **stats}, (texts,) if texts else ()
        rest = {**rest, "features": True} if self.san else rest
        out, new = call(self.d, "apply", variables, images, *more, mutable=list(stats), **rest)
        if self.san:
            last = self.d.blocks[-1]
            return san.split(out[1][-2], params[last.name], last.spectral), new
        each = out if texts else (out,)
        return tuple(x.reshape(x.shape[0], -1).mean(-1) for x in each), new


def call(module: nn.Module, how: str, *args, mutable: list[str] | None = None, **options) -> Any:
    """`module.init` or `module.apply` with those options that its `__call__` takes.

    So a plain module of the user's needs no `train`, `power_iterate` or `keys`.
    """
    taken = inspect.signature(type(module).__call__).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        options = {name: value for name, value in options.items() if name in taken}
    if how == "apply":
        options["mutable"] = mutable
    return getattr(module, how)(*args, **options)


def check_inputs(field: str, module: nn.Module, count: int) -> None:
    """Refuses a module that cannot take so many inputs: images or latents, and texts where two.

    Raises:
      UserError: it takes another number of them; `field` names its settings.
    """
    taken = [*inspect.signature(type(module).__call__).parameters.values()]
    if taken[0].kind is not taken[0].VAR_POSITIONAL:
        del taken[0]  # self
    places = [p for p in taken if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in places if p.default is p.empty and p.name not in OPTIONS]
    most = len([p for p in places if p.name not in OPTIONS])
    if any(p.kind is p.VAR_POSITIONAL for p in taken):
        most = count
    if not len(needed) <= count <= most:
        sort = type(module).__name__
        raise UserError(
            f"{field} builds a {sort} whose __call__ takes no texts; with texts it is called with "
            "(x, texts), texts being a tuple of (b, T), and returns a tuple"
            if count > most
            else f"{field} builds a {sort} whose __call__ takes "
            f"{', '.join(p.name for p in needed)}; without texts it is called with one input"
        )


def split_variables(variables: dict) -> tuple[dict, dict]:
    """Flax variables of each player -> (params, stats), dicts over players."""
    params = {player: tree["params"] for player, tree in variables.items()}
    stats = {
        player: {name: part for name, part in tree.items() if name != "params"}
        for player, tree in variables.items()
    }
    return params, stats
