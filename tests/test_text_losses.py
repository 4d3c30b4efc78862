"""Losses of texts and labels: closed forms, float64 NumPy, PyTorch, extremes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.adversarial import ORACLE, bce64

from anigan_jax import losses

VALUES = np.random.default_rng(0)
RIGHT, WRONG, FAKE = VALUES.normal(0, 3, (3, 9)).astype("f")


@pytest.mark.parametrize("name", losses.ADVERSARIAL)
def test_matching_aware_terms_treat_a_wrong_text_as_a_fake(name):
    """SJTU, algorithm 1: L(right) + L(wrong) + L(fake), for every adversarial loss."""
    d = losses.ADVERSARIAL[name].d
    right, wrong, fake = map(jnp.array, (RIGHT, WRONG, FAKE))
    got = losses.matching_aware_d(d, right, wrong, fake, 0.9, 0.1)
    real_term, fake_term, _ = ORACLE[name]
    want = (
        real_term(RIGHT, FAKE, 0.9, 0.1),
        fake_term(RIGHT, WRONG, 0.9, 0.1),
        fake_term(RIGHT, FAKE, 0.9, 0.1),
    )
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=2e-6, atol=1e-6)
    jitted = jax.jit(lambda *x: losses.matching_aware_d(d, *x))(RIGHT, WRONG, FAKE)
    for g, w in zip(jitted, losses.matching_aware_d(d, right, wrong, fake), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-6, atol=1e-7)


def test_matching_aware_terms_against_pytorch_with_reeds_halves():
    torch = pytest.importorskip("torch")
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    scores = [torch.tensor(x, requires_grad=True) for x in (RIGHT, WRONG, FAKE)]
    one, zero = torch.ones(9), torch.zeros(9)
    want = bce(scores[0], one) + 0.5 * (bce(scores[1], zero) + bce(scores[2], zero))
    want.backward()

    def ours(right, wrong, fake):
        terms = losses.matching_aware_d(losses.non_saturating_d, right, wrong, fake)
        return sum(w * jnp.mean(term) for w, term in zip((1, 0.5, 0.5), terms, strict=True))

    value, grads = jax.value_and_grad(ours, (0, 1, 2))(*map(jnp.array, (RIGHT, WRONG, FAKE)))
    np.testing.assert_allclose(value, want.item(), rtol=1e-6)
    for g, s in zip(grads, scores, strict=True):
        np.testing.assert_allclose(g, s.grad.numpy(), rtol=1e-5, atol=1e-8)


def test_the_two_weightings_at_indifference():
    """D = 1/2 everywhere: SJTU's sum is 3 log 2, Reed's halves give 2 log 2."""
    zero = jnp.zeros(4)
    terms = losses.matching_aware_d(losses.non_saturating_d, zero, zero, zero)
    np.testing.assert_allclose(sum(jnp.mean(t) for t in terms), 3 * math.log(2), rtol=1e-6)
    halved = jnp.mean(terms[0]) + 0.5 * jnp.mean(terms[1]) + 0.5 * jnp.mean(terms[2])
    np.testing.assert_allclose(halved, 2 * math.log(2), rtol=1e-6)


def test_texts_between_two():
    one, other = jnp.array([[1.0, 0, 4]]), jnp.array([[0.0, 2, 4]])
    np.testing.assert_allclose(losses.interpolate_texts(one, other, 0.5), [[0.5, 1, 4]])
    np.testing.assert_allclose(losses.interpolate_texts(one, other, 1.0), one)
    np.testing.assert_allclose(losses.interpolate_texts(one, other, 0.25), [[0.25, 1.5, 4]])


def joint64(scores, same):
    """The structured joint embedding by loops, float64."""
    n, out = len(scores), np.zeros(len(scores))
    for i in range(n):
        by_image = [max(0, 1 + scores[i, j] - scores[i, i]) for j in range(n) if not same[i, j]]
        by_text = [max(0, 1 + scores[j, i] - scores[i, i]) for j in range(n) if not same[j, i]]
        out[i] = np.mean(by_image or [0]) + np.mean(by_text or [0])
    return out


@pytest.mark.parametrize("scale", [0.1, 1.0, 1e4])
def test_joint_embedding_equals_its_loops(scale):
    scores = (scale * VALUES.normal(size=(7, 7))).astype("f")
    classes = np.array([0, 1, 2, 0, 1, 3, 0])
    same = classes[:, None] == classes[None]
    got = losses.joint_embedding(jnp.array(scores), jnp.array(same))
    np.testing.assert_allclose(got, joint64(scores.astype(float), same), rtol=1e-5, atol=1e-6)


def test_joint_embedding_in_closed_form():
    eye = jnp.eye(3, dtype=bool)
    np.testing.assert_allclose(losses.joint_embedding(5.0 * jnp.eye(3), eye), 0)
    # No preference at all: the margin, once for images and once for texts.
    np.testing.assert_allclose(losses.joint_embedding(jnp.zeros((3, 3)), eye), 2)
    # Everything of one class: there is nothing to tell apart.
    whole = losses.joint_embedding(jnp.zeros((3, 3)), jnp.ones((3, 3), bool))
    np.testing.assert_allclose(whole, 0)
    with pytest.raises(ValueError, match="N, N"):
        losses.joint_embedding(jnp.zeros((3, 4)), jnp.zeros((3, 4), bool))


def test_joint_embedding_gradient_against_pytorch():
    torch = pytest.importorskip("torch")
    scores = VALUES.normal(size=(5, 5)).astype("f")
    ts = torch.tensor(scores, requires_grad=True)
    off = 1 - torch.eye(5)
    match = torch.diagonal(ts)
    both = torch.relu(1 + ts - match[:, None]) + torch.relu(1 + ts.T - match[:, None])
    ((off * both).sum(1) / 4).sum().backward()
    same = jnp.eye(5, dtype=bool)
    grad = jax.grad(lambda s: losses.joint_embedding(s, same).sum())(jnp.array(scores))
    np.testing.assert_allclose(grad, ts.grad.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_cross_entropy_against_closed_forms_and_pytorch():
    logits = np.array([[1e4, 0, -1e4], [0, 0, 0], [1, 2, 3]], np.float32)
    labels = np.array([0, 2, 0])
    got = losses.cross_entropy(jnp.array(logits), jnp.array(labels))
    want = [0, math.log(3), 2 + math.log(1 + math.exp(-1) + math.exp(-2))]
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)
    far = losses.cross_entropy(jnp.array(logits[:1]), jnp.array([2]))
    np.testing.assert_allclose(far, [2e4], rtol=1e-6)
    with pytest.raises(ValueError, match="labels"):
        losses.cross_entropy(jnp.zeros((3, 2)), jnp.zeros((3, 1), int))
    torch = pytest.importorskip("torch")
    x = VALUES.normal(size=(6, 4)).astype("f")
    y = VALUES.integers(0, 4, 6)
    tx = torch.tensor(x, requires_grad=True)
    torch.nn.functional.cross_entropy(tx, torch.tensor(y)).backward()
    ours = jax.grad(lambda v: losses.cross_entropy(v, jnp.array(y)).mean())(jnp.array(x))
    np.testing.assert_allclose(ours, tx.grad.numpy(), rtol=1e-5, atol=1e-7)
    # Two classes: the binary cross-entropy of the difference of logits.
    two = losses.cross_entropy(jnp.array(x[:, :2]), jnp.zeros(6, int))
    np.testing.assert_allclose(two, bce64(x[:, 0] - x[:, 1], 1), rtol=1e-5)
