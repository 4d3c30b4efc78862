"""Options of the game, seen at work inside it: latents, keys, dropout, augmentation."""

import dataclasses

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
from tiny import PLAIN

from anigan_jax.methods import augment
from anigan_jax.methods import text_gan as text_gan_module
from anigan_jax.methods.schedule import Schedule
from anigan_jax.networks import dcgan

PARAMS = {"g": affine_g(), "d": quadratic_d()}
B = 4
STILL = dataclasses.replace(PLAIN, g=sgd(1e-3), d=sgd(1e-3), batch_size=B, ema_half_life=0)


class Spied:
    """A game whose losses keep the keys that each call gets."""

    def __init__(self, settings):
        self.game = game_of(settings, AffineG(), QuadraticD())
        self.keys = {"d": [], "g": []}

    def updates(self):
        return tuple(
            update._replace(losses=tuple(self.spied(update.player, x) for x in update.losses))
            for update in self.game.updates()
        )

    def spied(self, player, loss):
        def run(params, state, batch, keys):
            # Shapes are asked for first; only what is really run counts.
            if not isinstance(keys.shared, jax.core.Tracer):
                self.keys[player].append(keys)
            return loss(params, state, batch, keys)

        return run

    def step(self, **state):
        return train_one_step(STILL, self, game_state(PARAMS, **state), game_batch(IMAGES))

    def z(self, player):
        return [np.asarray(keys.z).tobytes() for keys in self.keys[player]]


IMAGES = normal(41, B, 2, 2, 3)


# --- who sees which draws


def test_repeats_of_d_share_their_fakes_and_those_of_g_do_not():
    """CSC412: one batch of fakes for all repeats of D, fresh noise for each of G."""
    spied = Spied(gan(schedule=Schedule(kind="as_printed")))
    _, metrics = spied.step(extra={"correct": jnp.int32(5), "judged": jnp.int32(8)})
    assert (int(metrics["repeats/d"]), int(metrics["repeats/g"])) == (6, 3)
    assert (len(spied.z("d")), len(set(spied.z("d")))) == (6, 1)
    assert (len(spied.z("g")), len(set(spied.z("g")))) == (3, 3)


def test_repeats_of_a_fixed_schedule_draw_anew():
    spied = Spied(gan(schedule=Schedule(d=3, g=2)))
    spied.step()
    assert len(set(spied.z("d"))) == 3
    assert len(set(spied.z("g"))) == 2


@pytest.mark.parametrize("shared", [True, False])
def test_g_sees_the_latents_of_d_where_they_are_shared(shared):
    spied = Spied(gan(shared_noise=shared))
    spied.step()
    assert (spied.z("d") == spied.z("g")) == shared


def test_no_two_updates_of_a_step_have_the_same_keys():
    """Reals and fakes of D apart, each repeat of it, and G's: all draws are their own."""
    spied = Spied(gan(split_d=True, schedule=Schedule(d=2, g=3)))
    spied.step()
    assert (len(spied.keys["d"]), len(spied.keys["g"])) == (4, 3)
    calls = [*spied.keys["d"], *spied.keys["g"]]
    rows = [bytes(jax.random.key_data(key)) for keys in calls for key in keys.example]
    rows += [bytes(jax.random.key_data(keys.shared)) for keys in calls]
    assert len(set(rows)) == len(rows) == 7 * (B + 1)


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
        d = dcgan.discriminator(net)
        real = jnp.asarray(normal(2, B, 8, 8, 3))
        variables = d.init(jax.random.key(0), real, train=False)
        state = game_state({"g": {}, "d": variables["params"]})
        game = game_of(settings, Noise(), d)
        (loss,) = next(u for u in game.updates() if u.player == player).losses
        for seed in (0, 1):
            keys = keys_of(normal(3, B, 8 * 8 * 3), seed)
            found[rate, seed] = float(loss(state.params[player], state, game_batch(real), keys)[0])
    assert found[0.0, 0] == found[0.0, 1]
    assert len({found[0.0, 0], found[0.5, 0], found[0.5, 1]}) == 3


class Noise:
    """A generator that shows its latents."""

    def apply(self, variables, z, *, train, mutable):
        return z.reshape(-1, 8, 8, 3), {}


# --- augmentation


@pytest.mark.parametrize("settings", [gan(), text_gan()], ids=["noise", "text"])
def test_d_sees_reals_and_fakes_augmented(settings, monkeypatch):
    """In D's update and in G's, by one policy."""
    monkeypatch.setattr(text_gan_module, "draw_texts", lambda *_: texts(7, B))
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
    out = augment.diff_augment(images, jax.random.split(jax.random.key(0), n), ("color",))
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
