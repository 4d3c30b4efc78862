"""Losses against closed forms, float64 NumPy and PyTorch, at ordinary and extreme logits."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.adversarial import ORACLE

from anigan_jax import losses

LOGITS = np.array([-1e4, -30.0, -2.0, -0.5, 0.0, 0.5, 1.0, 3.0, 30.0, 1e4], np.float32)
REAL, FAKE = LOGITS, np.roll(LOGITS, 3)


def test_every_loss_has_an_oracle():
    assert ORACLE.keys() == losses.ADVERSARIAL.keys()


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("labels", [(1.0, 0.0), (0.9, 0.1), (0.9, 0.0), (0.8, 0.3)])
@pytest.mark.parametrize("name", ORACLE)
def test_against_float64(name, labels, jit):
    pair = losses.ADVERSARIAL[name]
    d = lambda r, f: pair.d(r, f, *labels)  # noqa: E731
    g = lambda f, r: pair.g(f, r)  # noqa: E731
    if jit:
        d, g = jax.jit(d), jax.jit(g)
    real, fake = d(jnp.array(REAL), jnp.array(FAKE))
    r, f = REAL.astype(np.float64), FAKE.astype(np.float64)
    want = ORACLE[name]
    np.testing.assert_allclose(real, want[0](r, f, *labels), rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(fake, want[1](r, f, *labels), rtol=2e-6, atol=1e-7)
    got = g(jnp.array(FAKE), jnp.array(REAL))
    np.testing.assert_allclose(got, want[2](r, f), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("name", ORACLE)
def test_gradients_against_central_differences(name):
    pair = losses.ADVERSARIAL[name]
    r = np.array([-4.0, -0.6, 0.3, 2.5], np.float32)
    f = np.array([0.7, -3.2, 1.9, 0.2], np.float32)

    def total(r, f):
        a, b = pair.d(r, f, 0.9, 0.1)
        return jnp.sum(a + b + 3 * pair.g(f, r))

    got = jax.grad(total, argnums=(0, 1))(jnp.array(r), jnp.array(f))
    want = ORACLE[name]

    def oracle(r, f):
        return want[0](r, f, 0.9, 0.1) + want[1](r, f, 0.9, 0.1) + 3 * want[2](r, f)

    h, r, f = 1e-6, r.astype(np.float64), f.astype(np.float64)
    np.testing.assert_allclose(
        got[0], (oracle(r + h, f) - oracle(r - h, f)) / (2 * h), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        got[1], (oracle(r, f + h) - oracle(r, f - h)) / (2 * h), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", ORACLE)
def test_extreme_logits_keep_finite_values_and_gradients(name):
    pair = losses.ADVERSARIAL[name]
    extremes = jnp.array([-1e4, 1e4, -1e4, 1e4]), jnp.array([1e4, -1e4, -1e4, 1e4])

    def total(r, f):
        a, b = pair.d(r, f, 1.0, 0.0)
        return jnp.sum(a + b + pair.g(f, r))

    value, grads = jax.value_and_grad(total, argnums=(0, 1))(*extremes)
    assert math.isfinite(value)
    assert all(np.isfinite(g).all() for g in grads)


def test_closed_forms():
    zero = jnp.zeros(3)
    np.testing.assert_allclose(losses.bce(zero, 1.0), math.log(2), rtol=1e-6)
    np.testing.assert_allclose(losses.non_saturating_g(zero, zero), math.log(2), rtol=1e-6)
    np.testing.assert_allclose(losses.relativistic_g(zero, zero), math.log(2), rtol=1e-6)
    # At equilibrium (D = 1/2) the minimax value of the paper is -log 4.
    value = -(sum(losses.non_saturating_d(zero, zero)))
    np.testing.assert_allclose(value, -math.log(4), rtol=1e-6)


def test_directions():
    """Moving real up and fake down lowers D's loss; moving fake up lowers G's."""
    for name, pair in losses.ADVERSARIAL.items():
        r, f = jnp.array([0.1]), jnp.array([0.2])
        d_r, d_f = jax.grad(
            lambda r, f, pair=pair: sum(pair.d(r, f, 1.0, 0.0)).sum(), argnums=(0, 1)
        )(r, f)
        assert d_r[0] < 0 < d_f[0], name
        assert jax.grad(lambda f, pair=pair, r=r: pair.g(f, r).sum())(f)[0] < 0, name


def test_against_pytorch():
    torch = pytest.importorskip("torch")
    x = torch.tensor(LOGITS, requires_grad=True)
    for target in (0.0, 0.9, 1.0):
        want = torch.nn.functional.binary_cross_entropy_with_logits(
            x, torch.full_like(x, target), reduction="none"
        )
        (slope,) = torch.autograd.grad(want.sum(), x)
        np.testing.assert_allclose(
            losses.bce(jnp.array(LOGITS), target), want.detach().numpy(), rtol=2e-6, atol=1e-7
        )
        got = jax.grad(lambda v, target=target: losses.bce(v, target).sum())(jnp.array(LOGITS))
        np.testing.assert_allclose(got, slope.numpy(), rtol=1e-5, atol=1e-6)


def quadratic(images):
    """D(x) = |x|^2 / 2: its gradient is x itself."""
    return 0.5 * jnp.sum(images**2, axis=(1, 2, 3))


def test_gradient_norms_in_closed_form():
    x = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
    squared = jnp.sum(x**2, axis=(1, 2, 3))
    np.testing.assert_allclose(losses.r1(quadratic, x), squared, rtol=1e-6)
    np.testing.assert_allclose(losses.r2(quadratic, x), squared, rtol=1e-6)
    y, mix = x[::-1] * 0.5, jnp.array([0.0, 0.25, 1.0])
    between = mix[:, None, None, None] * x + (1 - mix[:, None, None, None]) * y
    want = (jnp.sqrt(jnp.sum(between**2, axis=(1, 2, 3))) - 1) ** 2
    np.testing.assert_allclose(losses.gradient_penalty(quadratic, x, y, mix), want, rtol=1e-5)


def test_gradient_penalty_is_smooth_where_the_gradient_vanishes():
    x = jnp.zeros((2, 2, 2, 1))
    grad = jax.grad(lambda w: losses.r1(lambda i: w * quadratic(i), x).sum())(2.0)
    assert np.isfinite(grad)
    grad = jax.grad(
        lambda w: losses.gradient_penalty(lambda i: w * quadratic(i), x, x, jnp.ones(2)).sum()
    )(2.0)
    assert np.isfinite(grad)


@pytest.mark.long
def test_penalties_against_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(3, 5)).astype("f"), rng.normal(size=(5, 4)).astype("f")

    def ours(w):
        images = jnp.array(x)[:, :, None, None]
        return losses.r1(lambda i: jnp.tanh(i[:, :, 0, 0] @ w).sum(-1), images).sum()

    tx, tw = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    (g,) = torch.autograd.grad(torch.tanh(tx @ tw).sum(), tx, create_graph=True)
    (g**2).sum().backward()
    np.testing.assert_allclose(ours(jnp.array(w)), (g**2).sum().item(), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(ours)(jnp.array(w)), tw.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="logits"):
        losses.hinge_d(jnp.zeros((3, 1)), jnp.zeros((3, 1)))
    with pytest.raises(ValueError, match="logits"):
        losses.relativistic_g(jnp.zeros(3), jnp.zeros(4))
    with pytest.raises(ValueError, match="shapes differ"):
        losses.gradient_penalty(
            quadratic, jnp.zeros((2, 4, 4, 1)), jnp.zeros((3, 4, 4, 1)), jnp.zeros(3)
        )
