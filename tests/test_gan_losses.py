"""The noise-to-image game against float64 by hand: losses, penalties, one step, what D counts.

The networks are a quadratic D and an affine G, whose gradients are known; see `oracles.games`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.adversarial import ORACLE, slopes
from oracles.games import (
    PIXELS,
    SIDE,
    Z_DIM,
    AffineG,
    QuadraticD,
    affine_g,
    extra_of,
    game_batch,
    game_of,
    game_state,
    gan,
    images_of,
    in_float64,
    keys_of,
    logits_of,
    normal,
    quadratic_d,
    sgd,
    train_one_step,
)
from tiny import PLAIN

from anigan_jax import losses
from anigan_jax.errors import UserError
from anigan_jax.methods.gan import GAN
from anigan_jax.methods.schedule import Schedule, schedule_repeats

# Off the line real = 1 - fake, on which one label could stand for the other.
LABELS = [(0.9, 0.0), (0.8, 0.3)]
B = 4
REAL = normal(21, B, SIDE, SIDE, 3)
Z = normal(22, B, Z_DIM)
PARAMS = {"g": affine_g(), "d": quadratic_d()}
G64, D64 = in_float64(PARAMS["g"]), in_float64(PARAMS["d"])


def squared_norms(d, images):
    """|gradient of D|^2 at each image."""
    return ((d["w"] + d["q"] * images.reshape(len(images), -1)) ** 2).sum(1)


def d_by_hand(s, d, z=Z, mix=0.0, parts="both"):
    """D's loss of the settings with float64 parameters."""
    real, fake = REAL.astype(np.float64), images_of(G64, z.astype(np.float64))
    labels, (of_real, of_fake, _) = (s.real_label, s.fake_label), ORACLE[s.loss]
    logits = logits_of(d, real), logits_of(d, fake)
    terms = {"real": of_real(*logits, *labels).mean(), "fake": of_fake(*logits, *labels).mean()}
    loss = s.d_scale * (terms["real"] + terms["fake"] if parts == "both" else terms[parts])
    loss += s.r1 / 2 * squared_norms(d, real).mean() + s.r2 / 2 * squared_norms(d, fake).mean()
    mix = np.reshape(mix, (-1, 1, 1, 1))
    between = np.sqrt(squared_norms(d, mix * real + (1 - mix) * fake))
    return loss + s.gradient_penalty * ((between - 1) ** 2).mean()


def g_by_hand(s, g, d=D64, z=Z):
    """G's loss of the settings with float64 parameters."""
    real, fake = REAL.astype(np.float64), images_of(g, z.astype(np.float64))
    return ORACLE[s.loss][2](logits_of(d, real), logits_of(d, fake)).mean()


def same(got, want, rtol=2e-5, atol=1e-6):
    """Numbers, or trees of them by name."""
    assert not isinstance(want, dict) or got.keys() == want.keys()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), got, want)


def losses_of(s, player, **changes):
    """[(value, gradient, what else it returns)] of each of a player's losses."""
    game, state = game_of(s, AffineG(), QuadraticD()), game_state(PARAMS)
    update = next(u for u in game.updates() if u.player == player)
    batch, keys = game_batch(REAL), changes.get("keys", keys_of(Z))
    found = []
    for loss in update.losses:
        run = jax.value_and_grad(loss, has_aux=True)
        (value, aux), gradient = run(PARAMS[player], state, batch, keys)
        found.append((value, gradient, aux))
    return found


@pytest.mark.long
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("loss", ORACLE)
def test_values_and_gradients_of_every_loss(loss, labels):
    """Smoothed labels are D's alone: G's target stays 1."""
    s = gan(loss=loss, real_label=labels[0], fake_label=labels[1], d_scale=0.5)
    ((value, gradient, aux),) = losses_of(s, "d")
    same(value, d_by_hand(s, D64))
    same(aux.metrics["loss/d"], d_by_hand(s, D64))
    same(gradient, slopes(lambda d: d_by_hand(s, d), D64))
    ((value, gradient, aux),) = losses_of(s, "g")
    same(value, g_by_hand(s, G64))
    same(aux.metrics["loss/g"], g_by_hand(s, G64))
    same(gradient, slopes(lambda g: g_by_hand(s, g), G64))
    # Relativistic losses compare with reals: without them G would learn nothing.
    assert np.abs(gradient["b"]).max() > 0.01


@pytest.mark.parametrize("labels", LABELS)
def test_split_losses_are_the_halves(labels):
    """As Keras trains: the reals' term, then the fakes' and, once, the penalties."""
    s = gan(split_d=True, real_label=labels[0], fake_label=labels[1], d_scale=0.5)
    paid = {"real": s, "fake": dataclasses.replace(s, r1=0.7, r2=0.2)}
    parts = losses_of(paid["fake"], "d")
    for (value, gradient, aux), (part, own) in zip(parts, paid.items(), strict=True):
        by_hand = functools.partial(d_by_hand, own, parts=part)
        same(value, by_hand(D64))
        same(gradient, slopes(by_hand, D64))
        assert aux.metrics.keys() == {"loss/d", "accuracy/d", f"score/{part}"}


def test_a_half_is_one_pass_of_d():
    """So its statistics move once in each: by reals, which also iterate spectral norm, by fakes."""
    d = QuadraticD()
    for loss in game_of(gan(split_d=True), AffineG(), d).updates()[0].losses:
        loss(PARAMS["d"], game_state(PARAMS), game_batch(REAL), keys_of(Z))
    assert [call["power_iterate"] for call in d.calls] == [True, False]
    same(d.calls[0]["images"], REAL)
    same(d.calls[1]["images"], images_of(G64, Z))


def test_halves_of_a_loss_that_compares_them_are_refused():
    with pytest.raises(UserError, match="split_d trains D separately on reals and fakes"):
        gan(split_d=True, loss="relativistic").make()


PENALTIES = [{"r1": 3.0}, {"r2": 5.0}, {"r1": 0.7, "r2": 0.2}]


@pytest.mark.parametrize("weights", PENALTIES)
@pytest.mark.parametrize("loss", ["non_saturating", "relativistic"])
def test_gradient_norms_at_reals_and_at_fakes(loss, weights):
    """R1 at reals, R2 at fakes, both halved: Mescheder et al. 2018, eq. 9 and 10."""
    s = gan(loss=loss, **weights)
    ((value, gradient, _),) = losses_of(s, "d")
    same(value, d_by_hand(s, D64))
    same(gradient, slopes(lambda d: d_by_hand(s, d), D64))


def test_penalties_see_images_as_they_are():
    """Unaugmented and in evaluation mode, whatever the losses see."""
    d, everything = QuadraticD(), ("color", "translation", "cutout")
    found = []
    for augment in ((), everything):
        game = game_of(gan(r1=1.0, r2=2.0, d_scale=0.0, augment=augment), AffineG(), d)
        (loss,) = game.updates()[0].losses
        found.append(loss(PARAMS["d"], game_state(PARAMS), game_batch(REAL), keys_of(Z))[0])
    same(found[1], found[0])
    assert [call["train"] for call in d.calls] == 2 * [True, True, False, False]


# --- the mix of WGAN-GP


def penalties(real, fake, d, keys, **changes):
    """The gradient penalty alone of images (b, 2, 2, 3) given by their pixels, as D's loss."""
    s = gan(loss="wasserstein", gradient_penalty=1.0, d_scale=0.0, **changes)
    game = game_of(s, AffineG(), QuadraticD())
    # G(z) = z for latents as long as images.
    g = {"a": jnp.eye(PIXELS), "b": jnp.zeros(PIXELS), "e": jnp.zeros((2, PIXELS))}
    state = game_state({"g": g, "d": d})
    keys = keys._replace(z=jnp.asarray(fake))
    batch = game_batch(jnp.asarray(real).reshape(-1, SIDE, SIDE, 3))
    return game.updates()[0].losses[0](d, state, batch, keys)[0]


def mixes_of(keys):
    """The share of the real image that each key draws, found from the penalty's own value.

    With D(x) = |x|^2 / 2, a real image of length 1 and a fake one of 0 it is (mix - 1)^2.
    """
    d = {**quadratic_d(), "w": jnp.zeros(PIXELS), "q": jnp.ones(PIXELS)}
    real, fake = jnp.zeros((1, PIXELS)).at[0, 0].set(1.0), jnp.zeros((1, PIXELS))
    one = lambda key: penalties(real, fake, d, keys._replace(example=key[None]))  # noqa: E731
    return 1 - np.sqrt(np.asarray(jax.jit(jax.vmap(one))(keys.example), np.float64))


def test_the_mix_is_uniform_and_of_each_example():
    keys = keys_of(np.zeros((200, 1)))
    mix = mixes_of(keys)
    assert len(set(mix.tolist())) > 190
    assert -1e-5 < mix.min() < 0.04
    assert 0.96 < mix.max() < 1 + 1e-5
    assert abs(mix.mean() - 0.5) < 0.07


def test_the_gradient_penalty_by_hand_on_any_number_of_devices(monkeypatch):
    """Each example brings its own mix along, bit for bit, however the batch is cut."""
    n = 4
    keys, d = keys_of(np.zeros((n, 1)), seed=5), quadratic_d()
    real, fake = normal(31, n, PIXELS), normal(32, n, PIXELS)
    mix = mixes_of(keys)[:, None]
    norms = np.sqrt(squared_norms(D64, mix * real + (1 - mix) * fake))
    mixes, value = [], losses.gradient_penalty

    def kept(discriminate, real, fake, mix):
        jax.debug.callback(lambda found: mixes.append(np.asarray(found)), mix, ordered=True)
        return value(discriminate, real, fake, mix)

    monkeypatch.setattr(losses, "gradient_penalty", kept)
    run = jax.jit(penalties)
    for devices in (1, 4):
        found = []
        for part in np.split(np.arange(n), devices):
            own = keys._replace(example=keys.example[part])
            found.append(run(real[part], fake[part], d, own))
        same(np.mean(found), ((norms - 1) ** 2).mean(), rtol=5e-5)
    jax.effects_barrier()
    assert np.concatenate(mixes[1:]).tobytes() == mixes[0].tobytes()


def test_a_gradient_penalty_moves_d_as_by_hand():
    s = gan(loss="wasserstein", gradient_penalty=10.0)
    keys = keys_of(Z)
    mix = mixes_of(keys)
    ((value, gradient, _),) = losses_of(s, "d", keys=keys)
    same(value, d_by_hand(s, D64, mix=mix), rtol=1e-4)
    same(gradient, slopes(lambda d: d_by_hand(s, d, mix=mix), D64), rtol=1e-3, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("s", [gan(r1=1.0, r2=2.0), gan(loss="relativistic", r1=0.5)])
def test_a_step_of_gradient_descent(s):
    """D goes down its slope, then G down its own under the new D."""
    config = dataclasses.replace(
        PLAIN, optimizers={"g": sgd(0.1), "d": sgd(0.02)}, batch_size=B, ema_half_life=0
    )
    game = game_of(s, AffineG(), QuadraticD())
    state, _, calls = train_one_step(config, game, game_state(PARAMS), game_batch(REAL))
    z = np.asarray(calls["d"][0].z, np.float64)
    assert (calls["g"][0].z == calls["d"][0].z).all()

    def moved(player, rate, value):
        old = in_float64(PARAMS[player])
        slope = slopes(value, old)
        return {name: old[name] - rate * slope[name] for name in old}

    d = moved("d", 0.02, lambda d: d_by_hand(s, d, z))
    same(state.params["d"], d)
    same(state.params["g"], moved("g", 0.1, lambda g: g_by_hand(s, g, d, z)))


# --- what D counts, and what it drives


@pytest.mark.parametrize("kind", ["fixed", "as_printed", "as_argued"])
def test_accuracy_of_d_by_hand(kind):
    """Three reals of four and one fake of four are told apart; a fake that fools D is wrong."""
    real = np.array([2.0, -0.1, 0.3, 5.0], np.float32)
    fake = np.array([1.0, -3.0, 0.2, 4.0], np.float32)
    first = {name: np.zeros_like(value) for name, value in PARAMS["d"].items()}
    first["w"][0] = 1  # D's logit is an image's first number
    g = {"a": np.eye(1, PIXELS, dtype="f"), "b": np.zeros(PIXELS, "f"), "e": None}
    schedule = Schedule(kind=kind)
    game = game_of(gan(schedule=schedule), AffineG(), QuadraticD())
    counts = {} if kind == "fixed" else {"correct": jnp.int32(1), "judged": jnp.int32(2)}
    images = np.zeros((4, SIDE, SIDE, 3), np.float32)
    images[:, 0, 0, 0] = real
    state = game_state({"g": g, "d": first}, extra=counts)
    (loss,) = game.updates()[0].losses
    _, aux = loss(first, state, game_batch(images), keys_of(fake[:, None]))
    same(aux.metrics["accuracy/d"], 4 / 8)
    sigmoid = lambda x: (1 / (1 + np.exp(-x))).mean()  # noqa: E731
    same(aux.metrics["score/real"], sigmoid(real))
    same(aux.metrics["score/fake"], sigmoid(fake))
    assert jax.tree.map(int, extra_of(aux)) == (
        {} if kind == "fixed" else {"correct": 4, "judged": 8}
    )
    if kind == "fixed":
        return
    # One more fake is seen through: 5 of 8 is 6 repeats of one player and 3 of the other.
    _, aux = loss(first, state, game_batch(images), keys_of(fake[:, None] - [[0], [0], [1], [0]]))
    d, g, _, _ = schedule_repeats(schedule)
    repeats = int(d(extra_of(aux), 0)), int(g(extra_of(aux), 0))
    assert repeats == {"as_printed": (6, 3), "as_argued": (3, 6)}[kind]


def test_least_squares_parts_reals_from_fakes_halfway_between_its_labels():
    """A D that says 1 of reals and 0 of fakes, which it is taught, is right about all."""
    real, fake = jnp.array([1.1, 0.9, 0.6, 0.4]), jnp.array([0.1, -0.2, 0.3, 0.6])
    game = gan(loss="least_squares")
    nets, state = game.nets(None), game_state(PARAMS)
    metrics, _ = game.judged(nets, state, real, fake)
    same(metrics["accuracy/d"], 6 / 8)
    same(metrics["score/real"], real.mean())
    same(metrics["score/fake"], fake.mean())
    counts = {"correct": jnp.int32(1), "judged": jnp.int32(2)}
    _, extra = game.judged(nets, game_state(PARAMS, extra=counts), real, fake)
    assert jax.tree.map(int, extra) == {"correct": 6, "judged": 8}


@pytest.mark.parametrize("loss", ["wasserstein", "relativistic"])
def test_no_schedule_follows_a_critic_that_has_no_line(loss):
    with pytest.raises(UserError, match="only ranks them"):
        gan(loss=loss, schedule=Schedule(kind="as_printed")).make()


def test_labels_of_losses_that_have_none_are_told():
    assert not gan(real_label=0.9).warnings
    for loss in losses.UNLABELED:
        assert any("real_label" in told for told in gan(loss=loss, real_label=0.9).warnings), loss
        assert not any("real_label" in told for told in gan(loss=loss).warnings)


OWN = losses.Adversarial(lambda real, fake, *_: (-real, fake), lambda fake, *_: -fake)


@dataclasses.dataclass(frozen=True)
class Critic(GAN):
    adversarial = OWN


@dataclasses.dataclass(frozen=True)
class Halved(GAN):
    """Its losses rest on `loss`."""

    @property
    def adversarial(self):
        d, g = super().adversarial[:2]
        return super().adversarial._replace(d=d, g=lambda *x: g(*x) / 2)


@dataclasses.dataclass(frozen=True)
class Renamed(GAN):
    loss: losses.AdversarialName = "hinge"


@pytest.mark.parametrize(
    ("method", "unread"),
    [
        (Critic(), False),
        (Critic(loss="hinge"), True),
        (Halved(loss="hinge"), False),
        (Renamed(loss="hinge"), False),
        (GAN(loss="hinge"), False),
    ],
)
def test_a_loss_that_nothing_reads_is_told(method, unread):
    assert method.unread == (("loss",) if unread else ())
    told = [w for w in method.warnings if "has its own `adversarial`" in w]
    assert len(told) == unread
    assert all(w.startswith("method.loss 'hinge' changes nothing: Critic") for w in told)


# --- images of a sigmoid


def test_a_sigmoid_generator_shows_its_whole_range():
    """It makes images in [0, 1]; what is shown, and what reals are, is [-1, 1]."""
    g = {"a": np.eye(PIXELS, dtype="f"), "b": np.zeros(PIXELS, "f"), "e": None}
    z = np.linspace(0, 1, 2 * PIXELS, dtype="f").reshape(2, PIXELS)
    for output, want in (("sigmoid", 2 * z - 1), ("tanh", z)):
        game = game_of(gan(output=output), AffineG(), QuadraticD())
        same(game.generate(g, {}, jnp.asarray(z)).reshape(2, PIXELS), want)


def test_d_compares_a_sigmoids_images_with_reals_of_the_same_range():
    d = QuadraticD()
    game = game_of(gan(output="sigmoid"), AffineG(), d)
    real = np.tanh(REAL)
    (loss,) = game.updates()[0].losses
    loss(PARAMS["d"], game_state(PARAMS), game_batch(real), keys_of(Z))
    same(d.calls[0]["images"], (real + 1) / 2)
    same(d.calls[1]["images"], images_of(G64, Z))


@pytest.mark.parametrize("policy", [("color",), ("translation",), ("cutout",)])
def test_a_sigmoids_images_are_augmented_as_those_of_tanh(policy):
    """By half as much, as their range is half as wide, and filled with the same gray."""
    keys = jax.random.split(jax.random.key(3), B)
    tanh, sigmoid = gan(augment=policy), gan(augment=policy, output="sigmoid")
    images = jnp.asarray(np.tanh(normal(23, B, 16, 16, 3)))
    found = sigmoid.shifted((images + 1) / 2, keys)
    want = (tanh.shifted(images, keys) + 1) / 2
    assert float(jnp.abs(found - (images + 1) / 2).max()) > 0.01
    same(found, want)
    assert gan(output="sigmoid").shifted(images, keys) is images
