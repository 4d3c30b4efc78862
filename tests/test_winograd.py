"""Winograd's products against the textbook sum, and where they are taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from anigan_jax.networks.ops import conv, winograd
from anigan_jax.networks.ops.correlation import LAYOUT, NO_PADS


def integers(seed, *shape):
    """Small whole numbers: sums of their products, and of halves of them, are exact."""
    return jax.random.randint(jax.random.key(seed), shape, -8, 9).astype(jnp.float32)


def textbook(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), NO_PADS, dimension_numbers=LAYOUT)


@pytest.mark.long
@pytest.mark.parametrize("r", [2, 3])
@pytest.mark.parametrize("sides", [(6, 7), (2, 1)])
def test_the_three_maps_are_exact(r, sides):
    """On numbers that need no rounding every bit is the textbook's; compiled, and not."""
    h, w = sides
    x, kernel = integers(0, 3, h + r - 1, w + r - 1, 5), integers(1, r, r, 5, 4)
    y = integers(2, 3, h, w, 4)
    want, pull = jax.vjp(textbook, x, kernel)
    dx, dk = pull(y)
    for run, args, expected in (
        (winograd.correlate, (x, kernel), want),
        (winograd.adjoint, (y, kernel), dx),
        (winograd.kernel_gradient, (x, y), dk),
    ):
        np.testing.assert_array_equal(jax.jit(run)(*args), expected)
        if sides[0] > 2:
            np.testing.assert_array_equal(run(*args), expected)


@pytest.mark.parametrize("r", [2, 3])
def test_rounding_is_that_of_the_textbook(r):
    """Of many summands, against the sum in float64: within three times its own error."""
    rng = np.random.default_rng(r)
    x = rng.standard_normal((2, 7 + r, 7 + r, 128), np.float32)
    kernel = rng.standard_normal((r, r, 128, 128), np.float32) / 16
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(float), (r, r), (1, 2))
    exact = np.einsum("bhwcij,ijcd->bhwd", windows, kernel.astype(float), optimize=True)

    def error(y):
        return float(np.sqrt(np.mean((np.asarray(y) - exact) ** 2)))

    mine, theirs = (error(jax.jit(run)(x, kernel)) for run in (winograd.correlate, textbook))
    assert 0 < mine < 3 * theirs, (mine, theirs)


def count(text, operation):
    return text.count(f"stablehlo.{operation}")


@pytest.mark.parametrize(
    ("channels", "kernel", "products"), [(256, 4, 9), (256, 3, 16), (64, 3, 0)]
)
def test_wide_layers_take_them(channels, kernel, products):
    """Every pass of a wide layer is (r + 1)^2 products and no convolution; none of a narrow."""
    stride = 2 if kernel == 4 else 1
    x = jax.ShapeDtypeStruct((16, 8, 8, channels // stride), jnp.float32)
    w = jax.ShapeDtypeStruct((kernel, kernel, channels // stride, channels), jnp.float32)

    def loss(x, w):
        return jnp.sum(jnp.tanh(conv.conv(x, w, stride=stride, pads=((1, 1), (1, 1)))))

    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(x, w).as_text()
    assert count(text, "dot_general") == 3 * products
    assert count(text, "convolution") == (0 if products else 3)


def test_few_or_cut_tiles_and_half_precision_do_not():
    wide = (3, 3, 256, 256)
    assert winograd.pays((16, 4, 4, 256), wide, jnp.float32)
    assert not winograd.pays((1, 4, 4, 256), wide, jnp.float32)
    assert not winograd.pays((16, 4, 4, 256), wide, jnp.bfloat16)
    assert not winograd.pays((16, 4, 4, 256), (5, 5, 256, 256), jnp.float32)
    # Of 3x3 pixels nothing is saved by tiles of 2x2.
    assert not winograd.pays((64, 3, 3, 256), (2, 2, 256, 256), jnp.float32)
