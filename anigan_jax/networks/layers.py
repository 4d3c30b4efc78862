"""Layers of every network: convolutions, batch norm, spectral norm, dropout.

Parameters have the textbook layout (HWIO kernels); the fast lowerings are in `conv`.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from anigan_jax.networks.blocks import Block, Norm
from anigan_jax.networks.ops import conv, resample
from anigan_jax.networks.ops.norm import add_bias, batch_norm, for_parts

# The collection of spectral norm's power iteration, apart from 'batch_stats'.
SPECTRAL = "spectral"
RESAMPLED = {"up": resample.up, "down": resample.down}
# Deviation of the first kernels from a text to gains and biases.
TEXT_STDDEV = 0.1


def kernel_init(stddev: float | None):
    """N(0, stddev), as every DCGAN reference starts; Glorot uniform for 0, zeros for None."""
    if stddev is None:
        return nn.initializers.zeros
    if stddev > 0:
        return nn.initializers.normal(stddev)
    return nn.initializers.glorot_uniform()


def unit(vector: jax.Array) -> jax.Array:
    """Scales to length 1; the floor keeps a zero vector finite."""
    return vector / jnp.maximum(jnp.sqrt(jnp.sum(vector * vector)), 1e-12)


def power_step(matrix: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One power iteration: (m, n) matrix, u (n,) -> new u (n,), v (m,).

    Source: Miyato et al. 2018, algorithm 1 (v first, as PyTorch orders it).
    """
    v = unit(matrix @ u)
    return unit(matrix.T @ v), v


def _initial_u(key: jax.Array, size: int) -> jax.Array:
    return unit(jax.random.normal(key, (size,), jnp.float32))


class Kernel(nn.Module):
    """A kernel, divided by its largest singular value where `spectral` is set.

    `power_iterate` advances u and v by one step and stores them (collection
    'spectral', which must be mutable then); otherwise the stored ones are used, so
    G's step and evaluation see exactly the kernel of the last real pass.

    Source: Miyato et al. 2018; gradient flows through sigma, not through u and v.
    """

    shape: tuple[int, ...]
    stddev: float | None
    spectral: bool

    @nn.compact
    def __call__(self, power_iterate: bool) -> jax.Array:
        kernel = self.param("kernel", kernel_init(self.stddev), self.shape)
        if not self.spectral:
            return kernel
        matrix = kernel.astype(jnp.float32).reshape(-1, self.shape[-1])
        rng = self.make_rng if self.is_initializing() else None
        u = self.variable(SPECTRAL, "u", lambda: _initial_u(rng("params"), self.shape[-1]))
        v = self.variable(SPECTRAL, "v", lambda: power_step(matrix, u.value)[1])
        if power_iterate and not self.is_initializing():
            u.value, v.value = power_step(jax.lax.stop_gradient(matrix), u.value)
        left, right = jax.lax.stop_gradient((v.value, u.value))
        return kernel / (left @ matrix @ right)


def reflect(x: jax.Array, pixels: int) -> jax.Array:
    """Mirrors (B, H, W, C) at its borders, which are not repeated (torch.nn.ReflectionPad2d).

    Raises:
      ValueError: the image is no larger than the border.
    """
    if min(x.shape[1:3]) <= pixels:
        raise ValueError(f"a border of {pixels} pixels needs a larger map than {x.shape}")
    return jnp.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode="reflect")


class BatchNorm(nn.Module):
    """Batch norm over (B, H, W), synchronized over `axis_name`.

    With a text (B, E) its gain and bias follow the text, example by example: those of
    here times 1 + gain and plus bias, both linear in it (de Vries et al. 2017). Each of `parts`
    equal sets of images, one after the other, is normalized by itself.

    Departs: the running variance is the biased one (PyTorch stores n/(n-1) times it).
    """

    settings: Norm
    axis_name: str | None

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, text: jax.Array | None = None, parts: int = 1
    ) -> jax.Array:
        y = self._normalize(x, train, parts)
        if text is None:
            return y
        start = nn.initializers.normal(TEXT_STDDEV)
        told = nn.Dense(2 * x.shape[-1], kernel_init=start, name="text")(text)
        gain, bias = jnp.split(told[:, None, None, :], 2, axis=-1)
        return y * (1 + gain) + bias

    def _normalize(self, x: jax.Array, train: bool, parts: int) -> jax.Array:
        s, shape = self.settings, (x.shape[-1],)
        scale = self.param(
            "scale", lambda key: 1 + s.scale_stddev * jax.random.normal(key, shape, jnp.float32)
        )
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        variance = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            gain = scale * jax.lax.rsqrt(variance.value + s.epsilon)
            return (x - mean.value) * gain + bias
        near = jax.lax.stop_gradient(mean.value)

        def normal(images, scale, bias):
            return batch_norm(images, scale, bias, near, s.epsilon, self.axis_name)

        if parts == 1:
            y, *new = normal(x, scale, bias)
            each = [new]
        else:
            apart = x.reshape(parts, -1, *x.shape[1:])
            y, *new = jax.vmap(normal)(apart, for_parts(scale, parts), for_parts(bias, parts))
            y, each = y.reshape(x.shape), zip(*new, strict=True)
        for new_mean, new_variance in each:
            mean.value = s.momentum * mean.value + (1 - s.momentum) * new_mean
            variance.value = s.momentum * variance.value + (1 - s.momentum) * new_variance
        return y


def dropout(x: jax.Array, rate: float, keys: jax.Array, layer: int) -> jax.Array:
    """Inverted dropout with one key per example, so the device count does not matter.

    Args:
      x: (b, H, W, C).
      keys: (b,) keys of the examples; `layer` is folded in.
    """

    def mask(key):
        draw = jax.random.uniform(jax.random.fold_in(key, layer), x.shape[1:])
        return draw >= rate

    return jnp.where(jax.vmap(mask)(keys), x / (1 - rate), 0)


def activate(x: jax.Array, name: str, leak: float) -> jax.Array:
    """Applies the activation of a `Block`."""
    functions = {
        "none": lambda y: y,
        "relu": jax.nn.relu,
        "leaky_relu": lambda y: jnp.where(y >= 0, y, leak * y),
        "tanh": jnp.tanh,
        "sigmoid": jax.nn.sigmoid,
    }
    return functions[name](x)


def to_compute(x: jax.Array, dtype: str) -> jax.Array:
    """`x` in the type that products are computed in; 'float32' leaves wider types alone."""
    return to_float32(x) if dtype == "float32" else x.astype(dtype)


def to_float32(x: jax.Array) -> jax.Array:
    """What was computed in bfloat16, as float32: for sums, norms, activations and outputs."""
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x


class Layer(nn.Module):
    """Executes the operation of one `Block` (without norm, activation and dropout).

    Inputs and kernel enter the products in `dtype`; parameters and result are float32, but for a
    resampling's, which is of its input's type.
    """

    block: Block
    stddev: float
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, power_iterate: bool) -> jax.Array:
        block, k = self.block, self.block.kernel
        if block.op == "constant":
            shape = (block.side, block.side, block.features)
            constant = self.param("constant", kernel_init(self.stddev), shape)
            return x.reshape(-1, 1, 1, block.features) * constant
        if block.op in RESAMPLED:
            return RESAMPLED[block.op](x)
        dense = block.op == "dense"
        if dense:
            x = x.reshape(x.shape[0], -1)
            features = block.features * max(block.side, 1) ** 2
            shape = (x.shape[-1], features)
        elif block.op == "pointwise":
            features = block.features
            shape = (x.shape[-1], features)
        else:
            features = block.features
            shape = (k, k, x.shape[-1] // block.groups, features)
        stddev = self.stddev
        if block.gain is not None:
            stddev = block.gain / math.sqrt(math.prod(shape[:-1])) or None
        weight = Kernel(shape, stddev, block.spectral, name="weight")
        kernel = to_compute(weight(power_iterate), self.dtype)
        x = to_float32(self._apply(to_compute(x, self.dtype), kernel))
        if block.bias:
            bias = self.param("bias", nn.initializers.zeros, (features,))
            x = x + bias if dense else add_bias(x, bias)
        if dense and block.side:
            x = x.reshape(-1, block.side, block.side, block.features)
        return x

    def _apply(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        block = self.block
        if block.op in ("dense", "pointwise"):
            return x @ kernel
        if block.op == "upsample_conv":
            return conv.upsample_conv(x, kernel)
        if block.op == "conv_transpose":
            return conv.conv_transpose(
                x,
                kernel,
                stride=block.stride,
                padding=block.padding,
                output_padding=block.output_padding,
            )
        if block.padding == "same":
            pads = conv.same_pads(x.shape[1:3], block.kernel, block.stride)
        else:
            pads = ((block.padding,) * 2,) * 2
        if block.groups > 1:
            return conv.grouped_conv(x, kernel, block.groups, pads=pads)
        return conv.conv(x, kernel, stride=block.stride, pads=pads)
