"""The state before the first step, its shapes, and a hash of its bits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax import parent, rng
from anigan_jax.config import Config
from anigan_jax.core import Array, Method, PyTree, TrainState
from anigan_jax.errors import UserError
from anigan_jax.runtime import backend

# By which the hashes of the leaves are told apart: FNV's.
PRIME = 0x01000193


def init_state(config: Config, method: Method, constants: PyTree) -> TrainState:
    """The state before the first step, a pure function of the seed and the constants."""
    raw = rng.root_key(config.seed)
    params, stats, extra_state = method.init(rng.stream_key(raw, rng.Stream.INIT), constants)
    # Copies: an alias of params['g'] could not be donated twice.
    averaged = (params["g"], stats["g"]) if config.ema_half_life else ({}, {})
    ema, ema_stats = jax.tree.map(jnp.copy, averaged)
    return TrainState(
        step=jnp.int32(0),
        key=raw,
        params=params,
        stats=stats,
        # A player without an optimizer is one that nothing trains.
        opt_state={
            p: o.build().init(params[p]) for p, o in config.optimizers.items() if p in params
        },
        ema=ema,
        ema_stats=ema_stats,
        extra_state=extra_state,
    )


def abstract_state(config: Config, method: Method, constants: PyTree) -> TrainState:
    """Shapes and types of the state, without computing it."""
    return jax.eval_shape(lambda held: init_state(config, method, held), constants)


def labeled(tree: PyTree) -> dict[str, Array]:
    """The leaves of a state, by `parent.label`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {parent.label(jax.tree_util.keystr(path)): leaf for path, leaf in leaves}


def with_leaves(state: TrainState, arrays: Mapping[str, np.ndarray]) -> TrainState:
    """The state with other values of some leaves.

    Args:
      arrays: label -> value.

    Raises:
      UserError: a leaf is unknown, or of another shape or type.
    """
    if not arrays:
        return state
    held = labeled(state)
    for name, value in arrays.items():
        leaf = held.get(name)
        if leaf is None or (leaf.shape, leaf.dtype) != (value.shape, value.dtype):
            raise UserError(f"{name} was taken from another run and does not fit the state here")
    values = [jnp.asarray(arrays[name]) if name in arrays else held[name] for name in held]
    return jax.tree.unflatten(jax.tree.structure(state), values)


def first_nonfinite(tree: PyTree) -> Array:
    """() int32 index of the first leaf with NaN or Inf; -1: there is none."""
    bad = jnp.stack(
        [
            ~jnp.isfinite(leaf).all()
            if jnp.issubdtype(leaf.dtype, jnp.inexact)
            else jnp.bool_(False)
            for leaf in jax.tree.leaves(tree)
        ]
    )
    return jnp.where(bad.any(), jnp.argmax(bad), -1).astype(jnp.int32)


def fingerprint(tree: PyTree) -> Array:
    """() uint32 position-sensitive wrap-around hash of every leaf's bits.

    Integer sums do not depend on their order, so any device layout gives the same, and so do the
    two forms of this: a sum for each leaf, or one of all, where each is a launch or two.
    """
    leaves = jax.tree.leaves(tree)
    if not backend.launches():
        total = jnp.uint32(0)
        for leaf in leaves:
            total = total * jnp.uint32(PRIME) + jnp.sum(mixed(leaf), dtype=jnp.uint32)
        return total
    # Fused with its hash, a new leaf could not take the place of the old one.
    leaves = jax.lax.optimization_barrier(leaves)
    last = len(leaves) - 1
    alike: dict[tuple[int, ...], Array] = {}
    for place, leaf in enumerate(leaves):
        part = mixed(leaf) * jnp.uint32(pow(PRIME, last - place, 1 << 32))
        # One launch for all of a shape: a parameter and its moments.
        alike[leaf.shape] = alike[leaf.shape] + part if leaf.shape in alike else part
    return jnp.sum(joined(alike.values()), dtype=jnp.uint32)


def joined(parts: Iterable[Array]) -> Array:
    """(n,) all numbers of some arrays in one buffer, to be reduced at once."""
    # Without the barrier XLA makes a sum of all the sums of each again.
    return jax.lax.optimization_barrier(jnp.concatenate([jnp.ravel(part) for part in parts]))


def mixed(leaf: Array) -> Array:
    """(n,) uint32: bits and positions of a leaf, mixed as murmur3 does; their sum is its hash."""
    flat = jnp.ravel(leaf)
    if flat.dtype != jnp.bool_:
        flat = jax.lax.bitcast_convert_type(flat, f"uint{flat.dtype.itemsize * 8}")
    bits = flat.astype(jnp.uint32)
    x = bits + jnp.arange(1, flat.size + 1, dtype=jnp.uint32) * jnp.uint32(0x9E3779B9)
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
