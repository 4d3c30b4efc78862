"""Options of the game, seen at work inside it: latents, keys, dropout, augmentation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.games import (
    Z_DIM,
    AffineG,
    QuadraticD,
    affine_g,
    game_batch,
    game_of,
    game_state,
    gan,
    keys_of,
    normal,
    quadratic_d,
    sgd,
    text_gan,
    texts,
    train_one_step,
)
from tiny import PLAIN, R3, start

from anigan_jax import config as configs
from anigan_jax.errors import UserError
from anigan_jax.methods import augment, players, san
from anigan_jax.methods.gan import GAN
from anigan_jax.methods.schedule import Schedule
from anigan_jax.methods.text_gan import TextGAN
from anigan_jax.networks.dcgan import Discriminator, Generator
from anigan_jax.runtime import backend

PARAMS = {"g": affine_g(), "d": quadratic_d()}
B = 4
STILL = dataclasses.replace(
    PLAIN, optimizers={"g": sgd(1e-3), "d": sgd(1e-3)}, batch_size=B, ema_half_life=0
)


def calls_of(settings, **state):
    """(player -> keys of its calls in one step, player -> their latents as bytes, metrics)."""
    game, state = game_of(settings, AffineG(), QuadraticD()), game_state(PARAMS, **state)
    _, metrics, calls = train_one_step(STILL, game, state, game_batch(IMAGES))
    z = {player: [np.asarray(keys.z).tobytes() for keys in calls[player]] for player in calls}
    return calls, z, metrics


IMAGES = normal(41, B, 2, 2, 3)


# --- who sees which draws


def test_repeats_of_d_share_their_fakes_and_those_of_g_do_not():
    """CSC412: one batch of fakes for all repeats of D, fresh noise for each of G."""
    counts = {"correct": jnp.int32(5), "judged": jnp.int32(8)}
    _, z, metrics = calls_of(gan(schedule=Schedule(kind="as_printed")), extra=counts)
    assert (int(metrics["repeats/d"]), int(metrics["repeats/g"])) == (6, 3)
    assert (len(z["d"]), len(set(z["d"]))) == (6, 1)
    assert (len(z["g"]), len({*z["g"]} - {*z["d"]})) == (3, 3)


@pytest.mark.parametrize("shared", [True, False])
def test_g_sees_the_latents_of_d_where_they_are_shared(shared):
    _, z, _ = calls_of(gan(shared_noise=shared))
    assert (z["d"] == z["g"]) == shared


def test_no_two_updates_of_a_step_have_the_same_draws():
    """Reals and fakes of D apart, each repeat of it, and G's: all keys are their own."""
    calls, z, _ = calls_of(gan(split_d=True, schedule=Schedule(d=2, g=3)))
    assert (len(calls["d"]), len(calls["g"])) == (4, 3)
    every = [*calls["d"], *calls["g"]]
    rows = [bytes(jax.random.key_data(key)) for keys in every for key in keys.example]
    rows += [bytes(jax.random.key_data(keys.shared)) for keys in every]
    assert len(set(rows)) == len(rows) == 7 * (B + 1)
    # Repeats of a fixed schedule draw anew; D's two losses see the same fakes.
    assert [z["d"].index(x) for x in z["d"]] == [0, 0, 2, 2]
    assert len(set(z["g"])) == 3


def test_reals_and_fakes_have_keys_of_their_own():
    """The same masks on both would tie them; one power iteration serves both."""
    d = QuadraticD()
    game = game_of(gan(loss="relativistic"), AffineG(), d)
    state, batch = game_state(PARAMS), game_batch(IMAGES)
    for update in game.updates():
        update.losses[0](PARAMS[update.player], state, batch, keys_of(normal(1, B, Z_DIM)))
    assert [(c["train"], c["power_iterate"]) for c in d.calls] == [
        (True, True),
        (True, False),
        (True, False),
        (True, False),
    ]
    for pair in (d.calls[:2], d.calls[2:]):
        rows = [bytes(jax.random.key_data(key)) for call in pair for key in call["keys"]]
        assert len(set(rows)) == 2 * B


# --- dropout


@pytest.mark.parametrize("player", ["d", "g"])
def test_dropout_of_d_is_at_work_in_both_updates(player):
    """The loss depends on the keys with dropout, and on nothing without."""
    found = {}
    for rate in (0.0, 0.5):
        settings = gan()
        net = dataclasses.replace(settings.discriminator, dropout=rate)
        settings = dataclasses.replace(settings, discriminator=net)
        d = net.build()
        real = jnp.asarray(normal(2, B, 8, 8, 3))
        variables = d.init(jax.random.key(0), real, train=False)
        state = game_state({"g": {}, "d": variables["params"]})
        game = game_of(settings, Noise(), d)
        (run,) = next(u for u in game.updates() if u.player == player).losses
        for seed in (0, 1):
            keys = keys_of(normal(3, B, 8 * 8 * 3), seed)
            value, _ = run(state.params[player], state, game_batch(real), keys)
            found[rate, seed] = float(value)
    assert found[0.0, 0] == found[0.0, 1]
    assert len({found[0.0, 0], found[0.5, 0], found[0.5, 1]}) == 3


class Noise:
    """A generator that shows its latents."""

    def apply(self, variables, z, *, train, power_iterate, mutable, **_keys):
        return z.reshape(-1, 8, 8, 3), {}


# --- augmentation


@pytest.mark.parametrize("settings", [gan(), text_gan()], ids=["noise", "text"])
def test_d_sees_reals_and_fakes_augmented(settings, monkeypatch):
    """In D's update and in G's, by one policy."""
    monkeypatch.setattr(TextGAN, "draw_texts", lambda *_: texts(7, B))
    seen = {}
    for policy in ((), ("color",)):
        d = QuadraticD()
        kind = dataclasses.replace(settings, augment=policy, loss="relativistic")
        game, state = game_of(kind, AffineG(), d), game_state(PARAMS)
        for update in game.updates():
            keys = keys_of(normal(1, B, Z_DIM))
            update.losses[0](PARAMS[update.player], state, game_batch(IMAGES), keys)
        seen[policy] = [np.asarray(call["images"]) for call in d.calls]
    plain, changed = seen.values()
    # Reals and fakes of D, fakes and reals of G; each image of a batch in its own way.
    assert len(plain) == len(changed) == 4
    for before, after in zip(plain, changed, strict=True):
        moved = (after - before).mean((1, 2, 3))
        assert len(set(moved.tolist())) == B
        assert np.abs(moved).min() > 0
        assert np.abs(moved).max() < 0.5


def factors(images, out):
    """Brightness, saturation and contrast that each image was changed by.

    Grey values are images' means over channels; what a channel adds to them is its color.
    """
    images, out = np.asarray(images, np.float64), np.asarray(out, np.float64)
    grey, new = images.mean(-1), out.mean(-1)
    contrast = new.std((1, 2)) / grey.std((1, 2))
    colors = (out - new[..., None]).std((1, 2, 3)) / (images - grey[..., None]).std((1, 2, 3))
    return new.mean((1, 2)) - grey.mean((1, 2)), colors / contrast, contrast


def test_color_by_its_factors():
    """Zhao et al. 2020: brightness in [-1/2, 1/2), saturation in [0, 2), contrast in [1/2, 3/2).

    Contrast stretches around the mean of the whole image, so that mean stays.
    """
    n = 400
    image = normal(5, 4, 4, 3) + np.array([0.9, -0.4, 0.1], np.float32)
    images = jnp.broadcast_to(jnp.asarray(image), (n, 4, 4, 3))
    change = jax.jit(lambda x, keys: augment.diff_augment(x, keys, ("color",)))
    out = change(images, jax.random.split(jax.random.key(0), n))
    found = factors(images, out)
    for values, low, high in zip(found, (-0.5, 0.0, 0.5), (0.5, 2.0, 1.5), strict=True):
        width = high - low
        assert low - 1e-5 < values.min() < low + 0.03 * width
        assert high - 0.03 * width < values.max() < high + 1e-5
        assert abs(values.mean() - (low + high) / 2) < 0.06 * width
    assert np.abs(np.corrcoef(found) - np.eye(3)).max() < 0.2
    # The whole change from its three numbers.
    bright, saturation, contrast = (values.reshape(-1, 1, 1, 1) for values in found)
    want = np.asarray(images, np.float64) + bright
    grey = want.mean(-1, keepdims=True)
    want = (want - grey) * saturation + grey
    mean = want.mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(out, (want - mean) * contrast + mean, rtol=1e-4, atol=1e-5)


# --- D's passes over reals and fakes


@pytest.mark.parametrize("changes", [{}, {"san": True, "loss": "hinge"}, {"r1": 1.0}])
def test_one_pass_of_d_over_both_is_two_passes(changes, monkeypatch):
    """On accelerators: norms and their running statistics by half, spectral norm moved once.

    Each half keeps its own draws of augmentation and dropout.
    """
    d = Discriminator(size=16, base_channels=4, spectral=True, dropout=0.3, stddev=0.3)
    g = Generator(z_dim=4, size=16, base_channels=4)
    method = GAN(generator=g, discriminator=d, augment=("color", "translation"), **changes)
    _, state = start(dataclasses.replace(PLAIN, method=method, ema_half_life=0))
    found = {}
    batch = game_batch(jnp.tanh(normal(7, B, 16, 16, 3)))
    with backend.traced_for("cuda"):
        for joins in (True, False):
            monkeypatch.setattr(players.Networks, "joins", joins)
            run = functools.partial(method.d_loss, method.nets(None), "both")
            args = state.params["d"], state, batch, keys_of(normal(8, B, 4))
            program = jax.jit(jax.value_and_grad(run, has_aux=True)).lower(*args)
            count = program.as_text().count("stablehlo.convolution")
            found[joins] = program.compile()(*args), count
    (one, convolutions), (two, more) = found[True], found[False]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-6), one, two)
    assert convolutions < more
    # What is compared moved, or this would say nothing.
    now, before = one[0][1].stats, state.stats["d"]
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max() > 1e-4, now, before)
    assert jax.tree.leaves(moved["batch_stats"]) and all(jax.tree.leaves(moved["batch_stats"]))
    assert moved["spectral"]["down2"]["weight"]["u"]


def test_a_plain_network_and_a_cpu_see_each_alone():
    nets = PLAIN.method.nets(None)
    assert not nets.joins
    with backend.traced_for("cuda"):
        assert nets.joins
        assert not nets._replace(d=QuadraticD()).joins


# --- SAN


@pytest.mark.parametrize("spectral", [False, True])
def test_san_teaches_the_direction_of_the_last_layer_by_wasserstein_alone(spectral):
    """Elsewhere D learns as without; its last kernel's length by the loss, its direction by SAN's.

    With spectral norm that length is 1, and only the direction learns.
    """
    d = Discriminator(
        size=8, base_channels=4, batch_norm=False, spectral=spectral, bias=True, stddev=0.3
    )
    plain = GAN(generator=Generator(z_dim=4, size=8, base_channels=4), discriminator=d)
    config = dataclasses.replace(PLAIN, method=plain, ema_half_life=0)
    _, state = start(config)
    batch, found = game_batch(jnp.tanh(normal(7, B, 8, 8, 3))), {}
    for name, changes in (
        ("own", {"loss": "non_saturating"}),
        ("wasserstein", {"loss": "wasserstein"}),
        ("san", {"loss": "non_saturating", "san": True}),
    ):
        method = dataclasses.replace(plain, **changes)
        run = functools.partial(method.d_loss, method.nets(None), "both")
        found[name] = jax.jit(jax.value_and_grad(run, has_aux=True))(
            state.params["d"], state, batch, keys_of(normal(8, B, 4))
        )
    values = {name: float(value) for name, ((value, _), _) in found.items()}
    assert values["san"] == pytest.approx(values["own"] + values["wasserstein"], rel=1e-5)
    grads = {name: dict(grad) for name, (_, grad) in found.items()}
    kernel = np.asarray(state.params["d"]["logit"]["weight"]["kernel"]).ravel()
    direction = kernel / np.linalg.norm(kernel)
    last = {name: np.asarray(g["logit"]["weight"]["kernel"]).ravel() for name, g in grads.items()}
    along = 0 if spectral else last["own"] @ direction
    across = last["wasserstein"] - (last["wasserstein"] @ direction) * direction
    np.testing.assert_allclose(last["san"], along * direction + across, rtol=1e-4, atol=1e-6)
    # The two losses pull differently, or this would say nothing.
    assert np.abs(across - last["own"]).max() > 1e-3
    biases = (grads[name]["logit"]["bias"] for name in ("san", "own"))
    np.testing.assert_allclose(*biases, rtol=1e-5)
    agree = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(agree, grads["san"]["down1"], grads["own"]["down1"])


def test_san_needs_a_game_and_a_last_layer_that_it_knows():
    for settings in (TextGAN(san=True), dataclasses.replace(R3.method, san=True)):
        with pytest.raises(UserError, match="needs GAN's own loss"):
            settings.make()
    features, layer = jnp.ones((2, 3, 3, 4)), {"weight": {"kernel": jnp.ones((2, 2, 4, 1))}}
    with pytest.raises(UserError, match="whole last map at once"):
        san.split(features, layer, False)
    assert "san" not in "".join(configs.identity(PLAIN))
