"""Batch norm, spectral norm, dropout and augmentation against oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import draw

from anigan_jax.methods import augment
from anigan_jax.networks import layers
from anigan_jax.networks.blocks import Norm
from anigan_jax.networks.ops import norm as networks_ops_norm
from anigan_jax.runtime import backend


def oracle_norm(x, scale, bias, epsilon):
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / jnp.sqrt(var + epsilon) * scale + bias


FORMS = ("cpu", "cuda")


def norm_of(form, x, scale, bias, near):
    with backend.traced_for(form):
        return networks_ops_norm.batch_norm(x, scale, bias, near, 1e-5, None)


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_against_autodiff(form):
    x = draw(0, 6, 5, 4, 3) * 3 + 2
    scale, bias, near = draw(1, 3), draw(2, 3), draw(3, 3)

    def ours(*args):
        return norm_of(form, *args, near)[0]

    y, pull = jax.vjp(ours, x, scale, bias)
    want, pull_want = jax.vjp(lambda *a: oracle_norm(*a, 1e-5), x, scale, bias)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    for got, expected in zip(pull(y**2), pull_want(want**2), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_twice_differentiated(form):
    """As in a gradient penalty at a D that trains: through the mean and the variance too."""
    x = draw(0, 6, 5, 4, 3) * 3 + 2
    scale, bias, near = draw(1, 3), draw(2, 3), draw(3, 3)

    def penalty(norm, x, scale, bias):
        slopes = jax.grad(lambda x: jnp.sum(jnp.tanh(norm(x, scale, bias)) ** 2))(x)
        return jnp.sum(slopes**2)

    def ours(x, scale, bias):
        return norm_of(form, x, scale, bias, near)[0]

    def plain(x, scale, bias):
        return oracle_norm(x, scale, bias, 1e-5)

    got, want = (jax.grad(penalty, argnums=(1, 2, 3))(f, x, scale, bias) for f in (ours, plain))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_running_means_of_zero_leave_three_digits_at_ten_deviations():
    """What accelerators start from; and no variance is below 0."""
    x = 10 + draw(0, 8, 4, 4, 2)
    _, mean, variance = norm_of("cuda", x, jnp.ones(2), jnp.zeros(2), jnp.zeros(2))
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=1e-3)
    flat = jnp.full((2, 3, 3, 2), 7.0)
    assert jnp.all(norm_of("cuda", flat, jnp.ones(2), jnp.zeros(2), jnp.zeros(2))[2] >= 0)


def test_bias_against_autodiff():
    """Also twice differentiated, as in a gradient penalty."""
    x, bias = draw(0, 6, 5, 4, 3), draw(1, 3)

    def penalty(add, x, bias):
        return jnp.sum(jax.grad(lambda x: jnp.sum(jnp.tanh(add(x, bias))))(x) ** 2)

    for run in (lambda add, *a: jnp.sum(jnp.tanh(add(*a))), penalty):
        got = jax.jit(
            jax.grad(lambda *a, f=run: f(networks_ops_norm.add_bias, *a), argnums=(0, 1))
        )(x, bias)
        want = jax.grad(lambda *a, f=run: f(jnp.add, *a), argnums=(0, 1))(x, bias)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_keeps_digits_where_the_mean_is_large(form):
    """On accelerators by a mean that is near: the running one."""
    x, near = 3000 + draw(0, 8, 4, 4, 2), jnp.float32([2999, 3003])
    _, mean, variance = norm_of(form, x, jnp.ones(2), jnp.zeros(2), near)
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=1e-3)


def test_batch_norm_module_against_pytorch():
    torch = pytest.importorskip("torch")
    module = layers.BatchNorm(Norm(scale_stddev=0.5), None)
    x = draw(0, 4, 3, 5, 6)
    variables = module.init(jax.random.key(0), x, train=False)
    peer = torch.nn.BatchNorm2d(6)
    peer.weight.data = torch.tensor(np.asarray(variables["params"]["scale"]))
    tx = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2))
    y, new = module.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(
        y, peer(tx).detach().numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-5
    )
    stats = new["batch_stats"]
    np.testing.assert_allclose(stats["mean"], peer.running_mean, rtol=1e-5, atol=1e-6)
    # PyTorch stores the unbiased variance: n / (n - 1) of the update's part.
    n = 4 * 3 * 5
    unbiased = 0.9 + (np.asarray(stats["var"]) - 0.9) * n / (n - 1)
    np.testing.assert_allclose(unbiased, peer.running_var, rtol=1e-5)
    peer.eval()
    peer.running_var = torch.tensor(np.asarray(stats["var"]))
    y = module.apply({**variables, **new}, x, train=False)
    np.testing.assert_allclose(
        y, peer(tx).detach().numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-5
    )


def kernel_module():
    module = layers.Kernel((4, 4, 3, 8), 0.5, True)
    return module, module.init(jax.random.key(1), False)


def test_spectral_norm_converges_to_the_largest_singular_value():
    module, variables = kernel_module()
    for _ in range(100):
        kernel, new = module.apply(variables, True, mutable=[layers.SPECTRAL])
        variables = {**variables, **new}
    raw = np.asarray(variables["params"]["kernel"], np.float64).reshape(-1, 8)
    top = np.linalg.svd(raw, compute_uv=False)[0]
    np.testing.assert_allclose(kernel, raw.reshape(4, 4, 3, 8) / top, rtol=1e-4)
    biggest = np.linalg.svd(np.asarray(kernel).reshape(-1, 8), compute_uv=False)[0]
    assert abs(biggest - 1) < 1e-4


def test_spectral_norm_iterates_only_when_asked():
    module, variables = kernel_module()
    same = module.apply(variables, False, mutable=[layers.SPECTRAL])[1]
    moved = module.apply(variables, True, mutable=[layers.SPECTRAL])[1]
    u = variables[layers.SPECTRAL]["u"]
    assert (np.asarray(same[layers.SPECTRAL]["u"]) == np.asarray(u)).all()
    assert not np.allclose(moved[layers.SPECTRAL]["u"], u, atol=1e-4)


def test_spectral_norm_against_pytorch():
    """Value after one iteration, and the gradient through sigma."""
    torch = pytest.importorskip("torch")
    module, variables = kernel_module()
    kernel = np.asarray(variables["params"]["kernel"])
    # Ours is (k k in, out), the transpose of PyTorch's (out, in k k).
    peer = torch.nn.Linear(48, 8, bias=False)
    peer.weight.data = torch.tensor(kernel.reshape(48, 8).T.copy())
    peer = torch.nn.utils.parametrizations.spectral_norm(peer, n_power_iterations=1)
    norm = peer.parametrizations.weight[0]
    spectral = variables[layers.SPECTRAL]
    # PyTorch updates u from v first, then v from u; its u lies in the out space.
    norm._u = torch.tensor(np.asarray(spectral["u"]))
    norm._v = torch.tensor(np.asarray(spectral["v"]))

    def ours(kernel):
        out, _ = module.apply(
            {"params": {"kernel": kernel}, layers.SPECTRAL: spectral},
            False,
            mutable=[layers.SPECTRAL],
        )
        return jnp.sum(jnp.sin(out)), out

    grad, out = jax.grad(ours, has_aux=True)(jnp.array(kernel))
    peer.eval()
    weight = peer.weight
    torch.sin(weight).sum().backward()
    np.testing.assert_allclose(out.reshape(48, 8).T, weight.detach().numpy(), rtol=1e-5, atol=1e-6)
    theirs = peer.parametrizations.weight.original.grad.numpy()
    np.testing.assert_allclose(grad.reshape(48, 8).T, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_dropout_does_not_depend_on_the_batch():
    x = jnp.ones((4, 8, 8, 16))
    keys = jax.random.split(jax.random.key(3), 4)
    whole = layers.dropout(x, 0.25, keys, 1)
    halves = [layers.dropout(x[i : i + 2], 0.25, keys[i : i + 2], 1) for i in (0, 2)]
    assert (np.asarray(whole) == np.concatenate(halves)).all()
    kept = float((whole != 0).mean())
    assert abs(kept - 0.75) < 0.03
    np.testing.assert_allclose(whole[whole != 0], 1 / 0.75, rtol=1e-6)
    assert not (np.asarray(whole) == np.asarray(layers.dropout(x, 0.25, keys, 2))).all()


def test_random_flip_is_an_exact_mirror_of_about_half():
    x = draw(0, 200, 4, 4, 3)
    out = np.asarray(augment.random_flip(x, jax.random.split(jax.random.key(0), 200)))
    x = np.asarray(x)
    same = (out == x).all((1, 2, 3))
    mirrored = (out == x[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 70 < mirrored.sum() < 130


def test_translation_moves_whole_pixels_and_fills_with_zero():
    x = draw(0, 32, 16, 16, 3) + 5
    keys = jax.random.split(jax.random.key(0), 32)
    out = np.asarray(augment.diff_augment(x, keys, ("translation",)))
    x = np.asarray(x)
    shifts = set()
    for image, moved in zip(x, out, strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
        fits = [
            (a, b)
            for a in range(5)
            for b in range(5)
            if np.allclose(padded[a : a + 16, b : b + 16], moved, rtol=1e-6)
        ]
        assert len(fits) == 1
        shifts.add(fits[0])
    assert len(shifts) > 8


def test_cutout_removes_half_the_side_or_less():
    x = jnp.ones((64, 16, 16, 3))
    out = np.asarray(augment.diff_augment(x, jax.random.split(jax.random.key(0), 64), ("cutout",)))
    holes = (out == 0).all(-1).sum((1, 2))
    assert holes.max() == 64
    assert holes.min() >= 16
    assert set(np.unique(out)) == {0.0, 1.0}


def test_color_changes_brightness_within_its_bounds():
    x = jnp.zeros((64, 4, 4, 3))
    out = np.asarray(augment.diff_augment(x, jax.random.split(jax.random.key(0), 64), ("color",)))
    assert np.abs(out).max() <= 0.5
    assert out.mean((1, 2, 3)).std() > 0.2


@pytest.mark.long
def test_augmentation_has_a_gradient_and_names_unknown_policies():
    keys = jax.random.split(jax.random.key(0), 2)
    policy = ("color", "translation", "cutout")
    grad = jax.grad(lambda x: (augment.diff_augment(x, keys, policy) ** 2).sum())(
        draw(0, 2, 8, 8, 3)
    )
    assert np.isfinite(grad).all()
    assert np.abs(grad).max() > 0
    with pytest.raises(ValueError, match="blur"):
        augment.diff_augment(jnp.zeros((2, 8, 8, 3)), keys, ("blur",))
