"""R3GAN: three steps beside PyTorch, its schedules, penalties and pairs, and its exact bits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.adversarial import slopes
from oracles.games import (
    AffineG,
    QuadraticD,
    affine_g,
    game_batch,
    game_of,
    game_state,
    gan,
    keys_of,
    quadratic_d,
)
from test_gan_losses import REAL, Z, d_by_hand, same, squared_norms
from tiny import R3, arrays, digests, drawn, packed, run_steps, start

from anigan_jax import config as configs
from anigan_jax import rng
from anigan_jax.core import Phase
from anigan_jax.errors import UserError
from anigan_jax.methods import augment_pipe
from anigan_jax.methods.schedule import Schedule
from anigan_jax.networks.dcgan import Discriminator
from anigan_jax.optimizers import Cosine, Optimizer
from anigan_jax.state import abstract_state
from anigan_jax.storage import checkpoint
from anigan_jax.training import step as train_step

PLAIN_R3 = dataclasses.replace(R3.method, augment=(), pipe=(), penalty_every=1, labels=False)
B, STEPS = 8, 3


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return packed(R3, tmp_path_factory.mktemp("cache"))


# --- PyTorch


def ours(config, method, params, reals, constants, labels):
    """(weights after three steps, metrics) of our step; `reals` (3, 2, B, S, S, 3)."""
    made = method.make()
    step = train_step.make_train_step(config, made, Phase("train", made.phases[0].updates), None)
    examples = jnp.arange(B, dtype=jnp.int32)

    def batch_of(state, at):
        image = jnp.asarray(reals)[state.step, at]
        keys = jax.random.split(jax.random.key(7), B)
        domain = {"image": image, "label": jnp.asarray(labels)[state.step, at]}
        held = jax.tree.map(jnp.asarray, constants)
        return {"a": domain, "keys": keys, "constants": held}

    @jax.jit
    def run(params):
        state = game_state(params).replace(
            opt_state={p: config.optimizers[p].build().init(params[p]) for p in params},
            ema=params["g"],
        )
        one = lambda state, _: step(state, batch_of, examples)  # noqa: E731
        state, metrics = jax.lax.scan(one, state, length=STEPS)
        return state.params, state.ema, jnp.stack([metrics["loss/d"], metrics["loss/g"]], 1)

    return run(params)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "labels"), [("float64", True), ("float32", False)])
def test_three_steps_equal_pytorch(kind, labels, pack, monkeypatch):
    """Relativistic pairs, R1 + R2, G's own reals, scheduled rate, b2, gamma and average."""
    torch = pytest.importorskip("torch")
    from oracles import r3gan as oracle

    method = dataclasses.replace(PLAIN_R3, labels=labels)
    # In float32 a gradient near zero is noise, which Adam would divide by itself.
    epsilon = 1e-8 if kind == "float64" else 1e-3
    moving = dataclasses.replace(R3.optimizers["g"], epsilon=epsilon)
    config = dataclasses.replace(R3, method=method, optimizers=dict.fromkeys("gd", moving))
    constants = method.constants(pack)
    shapes = abstract_state(config, method.make(), constants)
    params = jax.tree.map(lambda x: np.asarray(x).astype(kind), drawn(shapes.params))
    values = np.random.default_rng(5)
    reals = values.normal(size=(STEPS, 2, B, 16, 16, 3)).astype(kind)
    # Compiled beside other things, a normal draw rounds otherwise.
    z = values.normal(size=(STEPS, 2, B, method.generator.z_dim)).astype(kind)
    monkeypatch.setattr(
        rng, "latents", lambda raw, step, stream, *rest: jnp.asarray(z)[step, stream]
    )
    classes = pack.labels("train")[values.integers(0, 30, (STEPS, 2, B))]
    with jax.enable_x64(kind == "float64"):
        resolved = configs.resolve(config, 44)
        got, ema, found = ours(resolved, method, params, reals, constants, classes)
        got, ema, found = jax.tree.map(np.asarray, (got, ema, found))
    moves = {"rate": (np.float32(2e-4), 5e-5, 64), "b2": (0.9, 0.99, 64), "gamma": (2.0, 0.2, 64)}
    game = oracle.Game(params, 2, 2, B, moves, (config.ema_half_life, 64), epsilon)

    def seen(step, player):
        image = torch.tensor(reals[step, player].transpose(0, 3, 1, 2).copy())
        label = None
        if labels:
            label = np.zeros((B, 23), kind)
            for row, (hair, eyes) in zip(label, classes[step, player], strict=True):
                row[hair] = row[12 + eyes] = 1
            label = torch.tensor(label)
        return image, torch.tensor(z[step, player]), label

    want = [game.step(seen(i, 0), seen(i, 1)) for i in range(STEPS)]
    near = {"rtol": 0, "atol": 1e-10 if kind == "float64" else 1e-5}
    np.testing.assert_allclose(np.array(found), want, rtol=1e-6 if kind == "float64" else 1e-4)
    for player in "gd":
        mine = oracle.flat(got[player])
        assert mine.keys() == game.p[player].keys()
        for name, theirs in game.p[player].items():
            np.testing.assert_allclose(mine[name].detach(), theirs.detach(), **near, err_msg=name)
            before = oracle.flat(params[player])[name]
            assert float((theirs - before).detach().abs().max()) > 2e-4
    # The average's share is a float32 number whatever is averaged.
    for name, theirs in game.ema.items():
        np.testing.assert_allclose(oracle.flat(ema)[name].detach(), theirs, rtol=0, atol=1e-6)


def test_adam_with_a_moving_b2_equals_pytorch():
    """Its bias correction divides by 1 - b2^t with the b2 of now; 50 steps."""
    torch = pytest.importorskip("torch")
    settings = R3.optimizers["g"].in_steps(5, 2)
    assert (settings.unit, settings.decay_steps) == ("step", 32)
    w = np.random.default_rng(0).normal(size=7).astype("f")
    peer = torch.tensor(w, requires_grad=True)
    theirs = torch.optim.Adam([peer], 1.0, (0.0, 0.9), 1e-8)
    params = jnp.array(w)
    state = settings.build().init(params)

    @jax.jit
    def update(step, params, state):
        grads, state = settings.build(step).update(jnp.sin(params + step), state, params)
        return params - settings.rate(step) * grads, state

    for i in range(50):
        params, state = update(jnp.int32(i), params, state)
        left = (1 + np.cos(np.pi * min(i / 32, 1))) / 2
        (group,) = theirs.param_groups
        group["lr"] = 5e-5 + left * 1.5e-4
        group["betas"] = (0.0, 0.99 - left * 0.09)
        theirs.zero_grad()
        (-torch.cos(peer + i)).sum().backward()
        theirs.step()
    np.testing.assert_allclose(params, peer.detach(), rtol=1e-5, atol=1e-6)


def test_a_cosine_by_images():
    move = Cosine(2.0, 0.2, 100)
    found = [float(move.at(jnp.float32(n))) for n in (0, 50, 100, 10_000)]
    np.testing.assert_allclose(found, [2, 1.1, 0.2, 0.2], rtol=1e-6)


# --- the game between networks that a person can differentiate


def r3(**changes):
    """Settings of R3GAN for the quadratic D and the affine G."""
    plain = {"loss": "relativistic", "gamma": Cosine(0.8, 0.8, 10), **changes}
    own = dataclasses.replace(PLAIN_R3, **plain)
    return dataclasses.replace(own, generator=gan().generator, discriminator=gan().discriminator)


PARAMS = {"g": affine_g(), "d": quadratic_d()}


def d_loss_of(s, step=0, d=None):
    """(D's loss, its gradient, what else it returns, D's calls)."""
    d = d or QuadraticD()
    (loss,) = game_of(s, AffineG(), d).updates()[0].losses
    state = game_state(PARAMS).replace(step=jnp.int32(step))
    run = jax.value_and_grad(loss, has_aux=True)
    (value, aux), gradient = run(PARAMS["d"], state, game_batch(REAL), keys_of(Z))
    return value, gradient, aux, d.calls


def test_ds_loss_by_hand_is_of_one_pass():
    value, gradient, aux, calls = d_loss_of(r3())
    by_hand = gan(loss="relativistic", r1=0.8, r2=0.8)
    d64 = {name: np.asarray(x, np.float64) for name, x in PARAMS["d"].items()}
    same(value, d_by_hand(by_hand, d64))
    same(gradient, slopes(lambda d: d_by_hand(by_hand, d), d64))
    same(aux.metrics["penalty/r1"], squared_norms(d64, REAL.astype(np.float64)).mean())
    # Reals and fakes in one call.
    assert [call["images"].shape[0] for call in calls] == [2 * len(REAL)]


def test_penalties_go_through_the_augmentation(monkeypatch):
    """The gradient in the raw image: with one that doubles, twice D's slope at the double."""
    monkeypatch.setattr(augment_pipe, "augment", lambda images, *rest: 2 * images)
    _, _, aux, _ = d_loss_of(r3())
    same(aux.metrics["penalty/r1"], 4 * squared_norms(PARAMS["d"], 2 * REAL).mean())


@pytest.mark.parametrize("step", [0, 1, 2])
def test_lazy_penalties_weigh_as_much_as_all(step):
    value, _, aux, _ = d_loss_of(r3(penalty_every=2), step)
    by_hand = gan(loss="relativistic", **({"r1": 1.6, "r2": 1.6} if step % 2 == 0 else {}))
    same(value, d_by_hand(by_hand, PARAMS["d"]))
    assert (float(aux.metrics["penalty/r1"]) == 0) == (step % 2 == 1)


def test_gamma_moves_with_the_images_seen():
    s = r3(gamma=Cosine(2.0, 0.5, 4 * len(REAL)))
    for step, gamma in ((0, 2.0), (2, 1.25), (4, 0.5), (9, 0.5)):
        by_hand = gan(loss="relativistic", r1=gamma, r2=gamma)
        same(d_loss_of(s, step)[0], d_by_hand(by_hand, PARAMS["d"]))


# --- what pairs mean


@pytest.mark.parametrize("family", [gan, r3])
def test_accuracy_counts_pairs(family):
    """Logits of one sign say nothing: 3 of 4 reals are above their fakes."""
    real, fake = np.float32([9.0, 4.0, 2.0, 8.0]), np.float32([8.0, 5.0, 1.0, 7.5])
    s = family(loss="relativistic")
    metrics, extra = s.judged(s.nets(None), game_state(PARAMS), jnp.array(real), jnp.array(fake))
    assert metrics.keys() == {"accuracy/d", "score/pair"}
    same(metrics["accuracy/d"], 0.75)
    same(metrics["score/pair"], (1 / (1 + np.exp(fake - real))).mean())
    assert extra == {}


@pytest.mark.parametrize("family", [gan, r3])
@pytest.mark.parametrize("kind", ["as_printed", "as_argued"])
def test_a_schedule_by_accuracy_refuses_pairs(family, kind):
    s = family(loss="relativistic", schedule=Schedule(kind=kind))
    with pytest.raises(UserError, match="only ranks them"):
        s.make()


def test_pairs_without_r2_warn():
    def said(s):
        return ["compares real and generated images" in told for told in s.warnings]

    plain = dataclasses.replace(PLAIN_R3, loss="relativistic")
    assert not any(map(said, (gan(), plain, gan(loss="relativistic", r1=1.0, r2=1.0))))
    for s in (gan(loss="relativistic", r1=1.0), dataclasses.replace(plain, r2=0.0)):
        assert said(s) == [True]


@pytest.mark.parametrize("name", ["batch_norm", "spectral"])
def test_a_d_that_keeps_statistics_warns(name):
    """A run of one is opened all the same."""
    kept = {"batch_norm": False, "spectral": False, name: True}
    d = Discriminator(size=16, base_channels=4, **kept)
    s = dataclasses.replace(PLAIN_R3, discriminator=d)
    (said,) = s.warnings
    assert f"discriminator.{name} does not work" in said
    s.make()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split_d": True, "loss": "hinge"}, "method.split_d has no meaning"),
        ({"gradient_penalty": 1.0}, "method.gradient_penalty has no meaning"),
        ({"penalty_every": 0}, "method.penalty_every is 0"),
        ({"gamma": Cosine(-1.0, 1.0, 5)}, "method.gamma goes from -1.0"),
        ({"pipe_p": Cosine(0.0, 1.5, 5)}, "method.pipe_p goes from 0.0 to 1.5"),
    ],
)
def test_settings_without_a_meaning_are_refused(changes, said):
    with pytest.raises(UserError, match=said):
        dataclasses.replace(R3.method, **changes).make()


def test_g_sees_reals_and_latents_of_its_own():
    d, g = R3.method.make().phases[0].updates
    assert (d.first_batch, g.first_batch) == (0, 1)
    assert d.noise_stream != g.noise_stream
    assert train_step.draws_per_step(R3.method.make()) == 2


# --- the same bits


@pytest.mark.long
def test_steps_of_a_dispatch_resumes_and_saves_keep_the_bits(pack, tmp_path):
    rows = arrays(R3, pack)
    _, state = start(R3, pack)
    whole, metrics = run_steps(R3, rows, state, 4, length=2)
    prints = metrics["fingerprint"].tolist()
    middle, first = run_steps(R3, rows, state, 2, length=2)
    checkpoint.save(tmp_path, 2, middle, {})
    found = checkpoint.restore(tmp_path, jax.tree.map(np.asarray, state))
    end, second = run_steps(R3, rows, found.state, 2, length=1)
    assert digests(end) == digests(whole)
    assert [*first["fingerprint"].tolist(), *second["fingerprint"].tolist()] == prints
    # Penalties are of every second step.
    assert (metrics["penalty/r1"] > 0).tolist() == [True, False, True, False]


@pytest.mark.long
def test_device_counts_agree(pack):
    """With plain gradient descent, to the order of sums; the augmentation is each example's own."""
    slow = Optimizer(name="sgd", learning_rate=1e-2)
    config = dataclasses.replace(R3, optimizers=dict.fromkeys("gd", slow))
    _, state = start(config, pack)
    one, two = (run_steps(config, arrays(config, pack), state, 3, devices=n)[0] for n in (1, 2))
    for a, b in zip(*map(jax.tree.leaves, (one.params, two.params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1.0, np.abs(a).max()))


def test_images_from_0_to_1_are_augmented_as_those_from_minus_1():
    """What is cut out or moved in is gray, not black, and colors move as far."""
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (6, 16, 16, 3)), jnp.float32)
    keys = jax.random.split(jax.random.key(3), 6)
    signed = r3(augment=("color", "translation", "cutout"))
    sigmoid = dataclasses.replace(signed.generator, output="sigmoid")
    unit = dataclasses.replace(signed, generator=sigmoid)
    got = unit.augmented((images + 1) / 2, keys, jnp.float32(1))
    want = signed.augmented(images, keys, jnp.float32(1))
    np.testing.assert_allclose(2 * got - 1, want, atol=1e-5)
    assert np.abs(want - images).max() > 0.5
