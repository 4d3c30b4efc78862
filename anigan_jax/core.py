"""The vocabulary: a GAN is two players and a list of updates.

Every leaf of `TrainState` is the same on every device; what differs per device is
in the batch or in the per-example keys of `Keys`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax

Array = jax.Array
PyTree = Any
# {"a": {"image": (b, H, W, 3), ...}, "b": {...}, "keys": (b,), "constants": {...}}: the rows of
# each domain (most families have "a" alone), the examples' own keys in this draw, and the
# arrays that are never trained. Images are float32 in [-1, 1].
Batch = dict[str, Any]


class Keys(NamedTuple):
    """Randomness of one update, folded from the root key (see `rng.update_keys`).

    Attributes:
      shared: () key, the same on every device: choices about the whole batch.
      example: (b,) keys, one per local example by its global index, new in every
        repeat: dropout, augmentation.
      z: (b, Z) standard normal latents; equal in all updates of one `noise_stream`
        and, with `fresh_noise` off, in all repeats.
    """

    shared: Array
    example: Array
    z: Array


class Aux(NamedTuple):
    """What a loss returns beside its scalar.

    Attributes:
      metrics: name -> () float32; averaged over devices by the step builder.
      stats: new mutable collections of the player that is updated.
      extra_state: new extra state of the method.
    """

    metrics: dict[str, Array]
    stats: PyTree
    extra_state: PyTree


# loss(params of the player, state, batch, keys) -> (scalar, Aux). Gradient flows to
# the first argument only: the opponent, read from `state`, is a constant.
Loss = Callable[[PyTree, "TrainState", Batch, Keys], tuple[Array, Aux]]
# repeats(extra_state, step) -> () int32, the same on every device; may be 0.
Repeats = Callable[[PyTree, Array], Array]


class Update(NamedTuple):
    """One entry of a phase: who is updated, by which losses, how often.

    Attributes:
      player: a key of `TrainState.params`: 'g', 'd' or another of the family's own; a family of
        one network (a classifier) has 'd' alone.
      losses: applied in turn, an optimizer step each (most updates have one; Keras
        style training steps D on the real and on the fake batch separately). A metric that
        several of them give is their mean.
      repeats: a constant, or a function of (extra_state, step), read before the
        step's first update.
      max_repeats: upper bound of `repeats`; a step reserves that many real batches.
      noise_stream: updates with the same number draw the same latents.
      fresh_noise: whether each repeat draws new latents.
      first_batch: which of the step's real batches its first repeat sees; updates with the
        same number see the same.
    """

    player: str
    losses: tuple[Loss, ...]
    repeats: int | Repeats = 1
    max_repeats: int = 1
    noise_stream: int = 0
    fresh_noise: bool = True
    first_batch: int = 0


class Phase(NamedTuple):
    """A stretch of training with one list of updates.

    Its length is `steps`, or else `epochs` of the data; both None: to the end.
    """

    name: str
    updates: tuple[Update, ...]
    steps: int | None = None
    epochs: int | None = None


class Texts(NamedTuple):
    """What a generator that reads texts can be asked for.

    Attributes:
      encode: n `captions.Prompt`s with a class of every attribute -> (n, T) float32.
      frequencies: (P,) how many training images each combination of classes has.
      wordings: (P,) how many texts each has; 0: it cannot be asked for.
      attributes: A `data.attributes.Attribute`s, each a name and classes.
      combinations: (P, A) class indices.
    """

    encode: Callable
    frequencies: Any
    wordings: Any
    attributes: Any
    combinations: Any


class Method(NamedTuple):
    """A GAN family as pure functions; the loop and the step builder know no more.

    `constants` are the method's arrays that are never trained (`MethodSettings.constants`).
    `data` are rows of each domain as they are stored: {"a": {"image": (n, H, W, 3) uint8, ...}}.

    Attributes:
      init: (key, constants) -> (params, stats, extra_state): dicts over players; any tree.
      phases: in order of training.
      preview: (state, constants, keys (n,), data) -> {name: (m, H, W, 3) in [-1, 1]}; `data`
        are n rows at most, {} where nothing is translated.
      generate: (params of g, stats of g, z (n, Z), text (n, T) or None) -> (n, H, W, 3)
        in [-1, 1]; None where nothing is generated.
      z_dim: length of the latent; 0 where there is none.
      texts: constants -> `Texts`, on the host; None where G reads no text.
      evaluate: (state, constants, held-out data) -> {name: float}, on the host; None where
        there is nothing to evaluate.
      translate: direction ('ab', 'ba') -> (params of g, stats of g, images (n, H, W, 3) in
        [-1, 1]) -> the same in the other domain; None where nothing is translated.
      scores: (params of d, stats of d, images (n, H, W, 3) uint8, constants) -> (n, T) logits of
        the classes of each attribute in turn, on the host; None where D is not a classifier.
      logits: the same of images (n, H, W, 3 or 4) in [-1, 1], as `generate` makes them, where
        it can be differentiated; None where it cannot.
      features: (params of d, stats of d, images (n, H, W, 3) in [-1, 1]) -> (n, F) D's or the
        classifier's features of them, with running statistics; None where D does not judge
        whole images.
      vocabulary: 'g/embedding': player and name of the layers whose inputs or outputs are the
        classes of the data's attributes.
    """

    init: Callable
    phases: tuple[Phase, ...]
    preview: Callable
    generate: Callable | None
    z_dim: int
    texts: Callable[[dict], Texts] | None = None
    evaluate: Callable | None = None
    scores: Callable | None = None
    translate: dict[str, Callable] | None = None
    features: Callable | None = None
    vocabulary: tuple[str, ...] = ()
    logits: Callable | None = None

    @property
    def players(self) -> tuple[str, ...]:
        """Who is updated, in the order of the first updates."""
        updates = (update for phase in self.phases for update in phase.updates)
        return tuple(dict.fromkeys(update.player for update in updates))


class Health(NamedTuple):
    """What the loop asks about the state after a dispatch, beside its metrics.

    Attributes:
      first_nonfinite: () int32 index of the first leaf with NaN or Inf; -1: there is none.
      replicated: () bool, whether all devices hold the same bits.
      stop: () int32, the largest signal that a process got; 0: none.
    """

    first_nonfinite: Array
    replicated: Array
    stop: Array


class TrainState(flax.struct.PyTreeNode):
    """All that training is; a checkpoint is this tree and nothing else.

    Attributes:
      step: () int32, completed steps over all phases.
      key: (2,) uint32 raw root key; never consumed, only folded.
      params, stats, opt_state: player -> tree.
      ema: average of params['g']; {} where the run averages nothing.
      ema_stats: stats['g'] as they are of `ema`, not of params['g'].
      extra_state: what else the method carries (an image pool, counts); {} for most.
    """

    step: Array
    key: Array
    params: dict
    stats: dict
    opt_state: dict
    ema: PyTree
    ema_stats: PyTree
    extra_state: PyTree


def generator_of(state: TrainState) -> tuple[PyTree, PyTree]:
    """(params, stats) of G as it is shown: averaged where the run averages."""
    if not state.ema:
        return state.params["g"], state.stats["g"]
    # Exports of before had no statistics of the averaged weights.
    return state.ema, state.ema_stats or state.stats["g"]


def sum_over(axis_name: str | None, value: Array) -> Array:
    """Sums over the mapped axis; the value itself where nothing is mapped."""
    return value if axis_name is None else jax.lax.psum(value, axis_name)
