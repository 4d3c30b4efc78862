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
Batch = dict[str, Array]


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
      memory: new method memory.
    """

    metrics: dict[str, Array]
    stats: PyTree
    memory: PyTree


# loss(params of the player, state, batch, keys) -> (scalar, Aux). Gradient flows to
# the first argument only: the opponent, read from `state`, is a constant.
Loss = Callable[[PyTree, "TrainState", Batch, Keys], tuple[Array, Aux]]
# repeats(memory, step) -> () int32, the same on every device; may be 0.
Repeats = Callable[[PyTree, Array], Array]


class Update(NamedTuple):
    """One entry of a phase: who is updated, by which losses, how often.

    Attributes:
      player: 'g' or 'd'; a family of one network (a classifier) has 'd' alone.
      losses: applied in turn, an optimizer step each (most updates have one; Keras
        style training steps D on the real and on the fake batch separately).
      repeats: a constant, or a function of (memory, step), read before the step's
        first update.
      max_repeats: upper bound of `repeats`; a step reserves that many real batches.
      noise_stream: updates with the same number draw the same latents.
      fresh_noise: whether each repeat draws new latents.
    """

    player: str
    losses: tuple[Loss, ...]
    repeats: int | Repeats = 1
    max_repeats: int = 1
    noise_stream: int = 0
    fresh_noise: bool = True


class Phase(NamedTuple):
    """A stretch of training with one list of updates.

    Its length is `steps`, or else `epochs` of the data; both None: to the end.
    """

    name: str
    updates: tuple[Update, ...]
    steps: int | None = None
    epochs: int | None = None


class Method(NamedTuple):
    """A GAN family as pure functions; the driver and the step builder know no more.

    Attributes:
      init: (key, frozen) -> (params, stats, memory), dicts over players (memory: any tree).
      phases: in order of training.
      preview: (state, keys (n,), shown) -> {panel name: (m, H, W, 3) in [-1, 1]}; `shown`
        are n rows of the data at most, uint8 images and inputs; {} where nothing is translated.
      generate: (params of g, stats of g, z (n, Z), text (n, T) or None) -> (n, H, W, 3)
        in [-1, 1]; None where nothing is generated.
      z_dim: length of the latent; 0 where there is none.
      encode: (frozen, prompts) -> (n, T) float32 texts of n `captions.Prompt`s with both
        colors; None where G takes no text. `frozen['counts']` (132,) is then how often
        the training data has each pair.
      evaluate: (state, held-out images (n, H, W, 3) uint8, their inputs) -> {name: float},
        on the host; None where there is nothing to judge.
      translate: direction ('ab', 'ba') -> (params of g, stats of g, images (n, H, W, 3) in
        [-1, 1]) -> the same in the other domain; None where nothing is translated.
      classify: (params of d, stats of d, images (n, H, W, 3) uint8) -> (n, 2) class
        indices of hair and eyes, on the host; None where D is no classifier.
      represent: (params of d, stats of d, images (n, H, W, 3) in [-1, 1]) -> (n, F) D's
        features of them, with running statistics; None where D is no judge of whole images.
    """

    init: Callable
    phases: tuple[Phase, ...]
    preview: Callable
    generate: Callable | None
    z_dim: int
    encode: Callable | None = None
    evaluate: Callable | None = None
    classify: Callable | None = None
    translate: dict[str, Callable] | None = None
    represent: Callable | None = None


class TrainState(flax.struct.PyTreeNode):
    """All that training is; a checkpoint is this tree and nothing else.

    Attributes:
      step: () int32, completed steps over all phases.
      key: (2,) uint32 raw root key; never consumed, only folded.
      params, stats, opt_state: {'g': tree, 'd': tree}.
      ema: shadow of params['g']; {} where the method has none.
      frozen: arrays that are never trained; {} for most. The run folder holds them once:
        checkpoints and fingerprints leave them out.
      memory: method memory; {} for most.
    """

    step: Array
    key: Array
    params: dict
    stats: dict
    opt_state: dict
    ema: PyTree
    frozen: PyTree
    memory: PyTree


def generator_of(state: TrainState) -> tuple[PyTree, PyTree]:
    """(params, stats) of G as it is shown: averaged where the run averages."""
    return state.ema or state.params["g"], state.stats["g"]


def sum_over(axis_name: str | None, value: Array) -> Array:
    """Sums over the mapped axis; the value itself where nothing is mapped."""
    return value if axis_name is None else jax.lax.psum(value, axis_name)
