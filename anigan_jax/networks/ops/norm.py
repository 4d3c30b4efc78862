"""Normalization with closed-form gradients, and fast sums over channels."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from anigan_jax.runtime import backend

Map = Float[Array, "b h w c"]
PerChannel = Float[Array, " c"]


def channel_sum(x: Map) -> PerChannel:
    """(B, H, W, C) -> (C,): the sum over the batch and all places."""
    if backend.accelerated():
        return x.sum((0, 1, 2))
    # The sum over the batch is a matrix product: on a CPU several times faster than a
    # reduction; the one over places keeps the chains of additions short.
    ones = jnp.ones((x.shape[0],), x.dtype)
    over_batch = jax.lax.dot_general(
        ones, x.reshape(x.shape[0], -1), (((0,), (0,)), ((), ())), precision="highest"
    )
    return over_batch.reshape(-1, x.shape[-1]).sum(0)


def channel_mean(x: Map, axis_name: str | None) -> PerChannel:
    """(B, H, W, C) -> (C,): the mean over the global batch and all places."""
    mean = channel_sum(x) / (x.size // x.shape[-1])
    return mean if axis_name is None else jax.lax.pmean(mean, axis_name)


@jax.custom_vjp
def add_bias(x: Map, bias: PerChannel) -> Map:
    """(B, H, W, C) + (C,), with the fast sum in the gradient."""
    return x + bias


add_bias.defvjp(lambda x, bias: (x + bias, None), lambda _, dy: (dy, channel_sum(dy)))


def moments(x: Map, near: PerChannel, axis_name: str | None) -> tuple[PerChannel, PerChannel]:
    """(B, H, W, C) -> mean and biased variance (C,) over (B, H, W) of all devices.

    Args:
      near: a mean that is not far off, as the running one: on accelerators E[(x - near)^2] less
        (mean - near)^2 takes one reading of the map and one collective in place of two, and loses
        digits only where the means are many deviations apart.
    """
    if not backend.accelerated():
        mean = channel_mean(x, axis_name)
        # E[x^2] - E[x]^2 would lose digits where the mean is large.
        return mean, channel_mean((x - mean) ** 2, axis_name)
    moved = x - near
    first, second = channel_mean(moved, None), channel_mean(moved**2, None)
    if axis_name is not None:
        first, second = jax.lax.pmean((first, second), axis_name)
    return near + first, jnp.maximum(second - first**2, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def batch_norm(
    x: Map,
    scale: PerChannel,
    bias: PerChannel,
    near: PerChannel,
    epsilon: float,
    axis_name: str | None,
) -> tuple[Map, PerChannel, PerChannel]:
    """Normalizes (B, H, W, C) over (B, H, W) of all devices, then scales and shifts.

    `near` is that of `moments`; the result does not follow it, but for rounding.

    Returns:
      (y, mean (C,), biased variance (C,)). Gradient flows through y only.

    Source: Ioffe and Szegedy 2015, algorithm 1; its gradient in closed form, with two
    reductions instead of autodiff's five.
    """
    return _normalized(x, scale, bias, near, epsilon, axis_name)


def _normalized(x, scale, bias, near, epsilon, axis_name):
    mean, variance = moments(x, near, axis_name)
    return (x - mean) * (scale * jax.lax.rsqrt(variance + epsilon)) + bias, mean, variance


def _batch_norm_forward(x, scale, bias, near, epsilon, axis_name):
    # Not `batch_norm`, whose mean and variance have no gradient: a second one goes through them.
    out = _normalized(x, scale, bias, near, epsilon, axis_name)
    return out, (x, scale, *out[1:])


def _batch_norm_backward(epsilon, axis_name, saved, cotangents):
    x, scale, mean, variance = saved
    dy, inverse = cotangents[0], jax.lax.rsqrt(variance + epsilon)
    normal = (x - mean) * inverse
    # Local sums: the step builder averages parameters' gradients over devices.
    local = dy.size // dy.shape[-1]
    d_bias, d_scale = channel_mean(dy, None), channel_mean(dy * normal, None)
    all_bias, all_scale = d_bias, d_scale
    if axis_name is not None:
        all_bias, all_scale = jax.lax.pmean((d_bias, d_scale), axis_name)
    dx = (scale * inverse) * (dy - all_bias - normal * all_scale)
    return dx, local * d_scale, local * d_bias, jnp.zeros_like(mean)


batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def for_parts(x: PerChannel, parts: int) -> Float[Array, "parts c"]:
    """(C,) -> (parts, C): the same for each part of a batch."""
    return jnp.broadcast_to(x, (parts, *x.shape))


# Kept apart from the sums over each part, or the compiler reads the whole map again for it.
for_parts.defvjp(
    lambda x, parts: (for_parts(x, parts), None),
    lambda parts, _, dy: (jax.lax.optimization_barrier(dy).sum(0),),
)


def _place_mean(x: Map) -> Float[Array, "b 1 1 c"]:
    """(B, H, W, C) -> (B, 1, 1, C): the mean over places, on a CPU as a matrix product."""
    if backend.accelerated():
        return x.mean((1, 2), keepdims=True)
    b, h, w, c = x.shape
    ones = jnp.ones((b, 1, h * w), x.dtype)
    total = jnp.matmul(ones, x.reshape(b, h * w, c), precision="highest")
    return total.reshape(b, 1, 1, c) / (h * w)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def instance_norm(x: Map, epsilon: float) -> Map:
    """Normalizes (B, H, W, C) over (H, W): no gain, no bias, no statistics kept.

    Source: Ulyanov et al. 2016, eq. 4; the gradient in closed form, as `batch_norm`.
    """
    return _instance_norm_forward(x, epsilon)[0]


def _instance_norm_forward(x, epsilon):
    mean = _place_mean(x)
    inverse = jax.lax.rsqrt(_place_mean((x - mean) ** 2) + epsilon)
    return (x - mean) * inverse, (x, mean, inverse)


def _instance_norm_backward(epsilon, saved, dy):
    x, mean, inverse = saved
    normal = (x - mean) * inverse
    return (inverse * (dy - _place_mean(dy) - normal * _place_mean(dy * normal)),)


instance_norm.defvjp(_instance_norm_forward, _instance_norm_backward)
