"""One step builder for every family, and the super-step of several steps."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from anigan_jax import rng
from anigan_jax.config import Config
from anigan_jax.core import (
    Array,
    Health,
    Loss,
    Method,
    Phase,
    PyTree,
    TrainState,
    Update,
)
from anigan_jax.optimizers import cosine, on_layers
from anigan_jax.runtime import backend
from anigan_jax.state import fingerprint, first_nonfinite, joined
from anigan_jax.training import input


def draws_per_step(method: Method) -> int:
    """Real batches that a step reserves, in every phase: fresh reals for each repeat."""
    updates = [update for phase in method.phases for update in phase.updates]
    return max(update.first_batch + update.max_repeats for update in updates)


def make_train_step(
    config: Config, method: Method, phase: Phase, axis_name: str | None
) -> Callable:
    """The per-device step.

    Returns:
      step(state, draw_batch, examples) -> (state, metrics); `draw_batch(state, repeat)`
      gives the real batch, `examples` (b,) the global example indices of this device.
    """
    frozen = {"d": config.parent.frozen(config.method)}

    def mean(tree: PyTree) -> PyTree:
        return tree if axis_name is None else jax.lax.pmean(tree, axis_name)

    def one_update(state: TrainState, player: str, loss: Loss, batch, keys):
        own, still = state.params[player], frozen.get(player, frozenset())
        gradient = jax.value_and_grad(_of_learned(loss, still), has_aux=True)
        (_, aux), grads = gradient(own, state, batch, keys)
        grads = mean(grads)
        optimizer = config.optimizers[player]
        steps, opt_state = optimizer.build(state.step).update(grads, state.opt_state[player], own)
        params = _moved(own, steps, optimizer.rate(state.step), still)
        state = state.replace(
            params={**state.params, player: params},
            stats={**state.stats, player: aux.stats},
            opt_state={**state.opt_state, player: opt_state},
            extra_state=aux.extra_state,
        )
        metrics = mean({k: jnp.float32(v) for k, v in aux.metrics.items()})
        return state, {**metrics, f"gradient/{player}": norm(grads)}

    def one_repeat(state, position: int, update: Update, repeat, draw_batch, examples, z):
        batch, found = draw_batch(state, update.first_batch + repeat), []
        for part, loss in enumerate(update.losses):
            # Losses of one update have keys of their own; 8 is above any count.
            place = 8 * position + part
            keys = rng.update_keys(state.key, state.step, place, repeat, examples, z)
            state, metrics = one_update(state, update.player, loss, batch, keys)
            found.append(metrics)
        return state, _means(found)

    def step(state: TrainState, draw_batch: Callable, examples: Array):
        before, all_metrics = state, {}

        def latents(stream: int, repeat) -> Array:
            z_dim = method.z_dim
            return rng.latents(state.key, before.step, stream, repeat, examples, z_dim)

        # One draw for all updates of a stream: the compiler then sees that D's and G's
        # update generate the same images, and does it once.
        first = {stream: latents(stream, 0) for stream in {u.noise_stream for u in phase.updates}}

        def noise(update: Update, repeat) -> Array:
            if not update.fresh_noise or update.repeats == 1:
                return first[update.noise_stream]
            return latents(update.noise_stream, repeat)

        for position, update in enumerate(phase.updates):

            def body(repeat, state, position=position, update=update):
                args = (position, update, repeat, draw_batch, examples, noise(update, repeat))
                return one_repeat(state, *args)

            if isinstance(update.repeats, int) and update.repeats == 1:
                state, metrics = body(0, state)
            else:
                state, metrics, count = _repeat(body, state, update, before)
                all_metrics[f"repeats/{update.player}"] = jnp.float32(count)
            all_metrics |= metrics
        if config.ema_half_life:
            state = _averaged(config, phase, state, draw_batch(before, 0), examples, first)
        return state.replace(step=before.step + 1), all_metrics

    return step


def norm(tree: PyTree) -> Array:
    """() Euclidean norm of all leaves; where each sum is a launch or two, one sum of all."""
    if not backend.launches():
        return optax.tree.norm(tree)
    flat = joined(jax.tree.leaves(tree))
    return jnp.sqrt(jnp.sum(flat * flat))


def _moved(params: PyTree, steps: PyTree, rate: Array, still: frozenset[str]) -> PyTree:
    """The parameters after a step, of which those of the layers `still` stay as they are."""
    # Their gradients of 0 are not enough: weight decay and momentum would move them.
    steps = on_layers(steps, still, jnp.zeros_like)
    return jax.tree.map(lambda p, u: p - rate * u, params, steps)


def _of_learned(loss: Loss, still: frozenset[str]) -> Callable:
    """The loss as a function of those layers that move: no gradients of others are computed."""

    def of(params: PyTree, *rest):
        return loss(on_layers(params, still, jax.lax.stop_gradient), *rest)

    return of


def _means(found: list[dict[str, Array]]) -> dict[str, Array]:
    """Metrics of an update's losses: what several of them give is averaged, as Keras prints it."""
    names = dict.fromkeys(name for metrics in found for name in metrics)
    each = {name: [metrics[name] for metrics in found if name in metrics] for name in names}
    return {name: sum(values) / len(values) for name, values in each.items()}


def _repeat(body: Callable, state: TrainState, update: Update, before: TrainState):
    """Runs `body` as often as `update` says, in a loop whose bound may be traced.

    Metrics are those of the last repeat; NaN where there was none.
    """
    count = update.repeats
    if not isinstance(count, int):
        count = count(before.extra_state, before.step).astype(jnp.int32)
    # Traced once for its shapes and for the loop; inlined, it leaves the program as it is.
    once = jax.jit(body, inline=True)
    _, shapes = jax.eval_shape(once, 0, state)
    none = jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes)
    loop = jax.lax.fori_loop(0, count, lambda i, carry: once(i, carry[0]), (state, none))
    return *loop, count


def _average(config: Config, state: TrainState) -> PyTree:
    """The average of G's weights after a step that `state.step` does not count yet.

    Source: Karras et al. 2020 (StyleGAN2-ADA), training_loop.py: the half-life in images, and
    its ramp; train.py: no ramp where the weights come from another run, and here no half cosine.
    """
    half_life = jnp.float32(config.ema_half_life)
    seen = state.step.astype(jnp.float32) * config.batch_size
    begins = not config.parent.takes("g")
    if begins and config.ema_cosine:
        half_life = jnp.maximum(half_life * cosine(seen / config.ema_cosine), 1e-8)
    elif begins and config.ema_ramp:
        half_life = jnp.minimum(half_life, jnp.maximum(config.ema_ramp * seen, 1e-8))
    keep = 0.5 ** (config.batch_size / half_life)
    return jax.tree.map(
        lambda old, new: keep * old + (1 - keep) * new, state.ema, state.params["g"]
    )


def _averaged(
    config: Config,
    phase: Phase,
    state: TrainState,
    batch: PyTree,
    examples: Array,
    noise: dict[int, Array],
) -> TrainState:
    """The state after the average has moved, and after a pass of it, as G's update has it.

    The pass is for its statistics. Averages of the trained weights' statistics would not do:
    averaged weights, which are less noisy, give maps of another variance, and pale images.

    Args:
      batch, noise: real batch and latents (stream -> (b, Z)) of the first repeat.
    """
    state = state.replace(ema=_average(config, state))
    own = [place for place, update in enumerate(phase.updates) if update.player == "g"]
    if own and jax.tree.leaves(state.ema_stats):
        update = phase.updates[own[-1]]
        for part, loss in enumerate(update.losses):
            place, z = 8 * own[-1] + part, noise[update.noise_stream]
            keys = rng.update_keys(state.key, state.step, place, 0, examples, z)
            seen = state.replace(stats={**state.stats, "g": state.ema_stats})
            # Its value is not used, so what follows G is not computed.
            _, aux = loss(state.ema, seen, batch, keys)
            state = state.replace(ema_stats=aux.stats)
    return state


def make_super_step(
    config: Config, method: Method, phase: Phase, length: int, axis_name: str | None
) -> Callable:
    """`length` steps in one dispatch, by `lax.scan`; the bits do not depend on it.

    Returns:
      super_step(state, shared, local) -> (state, (metrics of shape (length,), `Health`)).
      `shared`: {'data': the data set, domain -> name -> (N, ...), {} where it is sent from the
      host; 'constants': the method's}.
      `local`: {'device': () int32 index of this device}; where batches are sent from the host
      also 'rows': the same arrays with (length, R, b) rows; of several processes also 'stop':
      () int32, the signal that this process got.
    """
    step = make_train_step(config, method, phase, axis_name)
    reserved = draws_per_step(method)

    def super_step(state: TrainState, shared: dict[str, PyTree], local: dict[str, PyTree]):
        devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
        b = config.batch_size // devices
        examples = local["device"] * b + jnp.arange(b, dtype=jnp.int32)

        def body(state: TrainState, streamed):
            def draw_batch(state, repeat):
                draw = state.step * reserved + repeat
                if streamed is None:
                    data = shared["data"]
                    rows = input.gather(data, draw, config.batch_size, examples, config.seed)
                else:
                    rows = jax.tree.map(lambda row: row[repeat], streamed)
                batch = input.to_batch(rows, state.key, draw, examples, config.flip)
                return {**batch, "constants": shared["constants"]}

            state, metrics = step(state, draw_batch, examples)
            names.update(dict.fromkeys(metrics))
            return state, (_row(metrics), fingerprint(state))

        # Filled while the step is traced.
        names: dict[str, None] = {}
        state, (rows, prints) = jax.lax.scan(body, state, local.get("rows"), length)
        columns = rows if isinstance(rows, dict) else dict(zip(names, rows.T, strict=True))
        metrics = {**columns, "fingerprint": prints}
        stop = local.get("stop")
        return state, (metrics, health(state, metrics["fingerprint"][-1], stop, axis_name))

    return super_step


def _row(metrics: dict[str, Array]) -> PyTree:
    """A step's metrics as the loop stores them; as one row where each would be a launch."""
    return jnp.stack(list(metrics.values())) if backend.launches() else metrics


def health(state: TrainState, print_: Array, stop: Array | None, axis_name: str | None) -> Health:
    """What the loop asks about a state after a dispatch; `print_` is its fingerprint.

    `replicated` compares the devices' fingerprints. Of several processes, `stop` is the largest
    signal that one of them got, so that all stop at the same step.
    """
    first = first_nonfinite(state)
    if axis_name is None:
        return Health(first, jnp.bool_(True), jnp.int32(0))
    # One collective for both: the complement's largest is that of the least.
    most, least = jax.lax.pmax(jnp.stack([print_, ~print_]), axis_name)
    signal = jnp.int32(0) if stop is None else jax.lax.pmax(stop, axis_name)
    return Health(first, most == ~least, signal)
