"""CSC412's step against its printed loop, written out: who is trained on what, in which order.

Figures 5 and 6 of the report, with Keras's `train_on_batch` in plain JAX: one pass forward, whose
loss, accuracy and batch statistics it returns and keeps, and one step of Adam.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.games import game_batch
from tiny import drawn_state

from anigan_jax import config_file
from anigan_jax.methods.schedule import Schedule
from anigan_jax.optimizers import Optimizer
from anigan_jax.training import step as train_step

B, SIDE, MOST, ITERATIONS = 6, 16, 10, 2
# D learns fast, so that its accuracy before and after a step differ; epsilon is large, so that
# rounding does not decide where a gradient is 0.
RATE, B1, B2, EPSILON = {"g": 1e-3, "d": 1e-2}, 0.5, 0.999, 1e-3


def csc412(kind):
    """The config with its schedule, tiny and without dropout's chance."""
    config = config_file.load("csc412_keras_dcgan")
    own = config.method
    narrow = {"size": SIDE, "base_channels": 2}
    method = dataclasses.replace(
        own,
        generator=dataclasses.replace(own.generator, z_dim=4, **narrow),
        discriminator=dataclasses.replace(own.discriminator, dropout=0.0, **narrow),
        schedule=Schedule(kind=kind),
    )
    optimizers = {p: Optimizer(learning_rate=RATE[p], epsilon=EPSILON) for p in "gd"}
    return dataclasses.replace(config, method=method, batch_size=B, optimizers=optimizers)


def by_the_package(config, first, reals):
    """[(state, metrics, latents by player)] of each iteration by the package's step."""
    method, seen = config.method.make(), {"g": [], "d": []}

    def kept(player, loss):
        def run(params, state, batch, keys):
            jax.debug.callback(lambda z: seen[player].append(np.asarray(z)), keys.z, ordered=True)
            return loss(params, state, batch, keys)

        return run

    (phase,) = method.phases
    updates = (u._replace(losses=tuple(kept(u.player, x) for x in u.losses)) for u in phase.updates)
    step = train_step.make_train_step(config, method, phase._replace(updates=tuple(updates)), None)

    def draw(state, repeat):
        return game_batch(reals[state.step, repeat])

    run = jax.jit(lambda state: step(state, draw, jnp.arange(B)))
    opt_state = {p: o.build().init(first.params[p]) for p, o in config.optimizers.items()}
    state, found = first.replace(opt_state=opt_state), []
    for _ in range(ITERATIONS):
        seen["g"], seen["d"] = [], []
        state, metrics = run(state)
        jax.effects_barrier()
        found.append((state, jax.device_get(metrics), {p: [*z] for p, z in seen.items()}))
    return found


class Adam:
    """Kingma and Ba 2015, algorithm 1, of a tree of parameters."""

    def __init__(self, rate, params):
        self.rate, self.t = rate, 0
        self.m = self.v = jax.tree.map(jnp.zeros_like, params)

    def step(self, params, slope):
        self.t += 1
        self.m = jax.tree.map(lambda m, g: B1 * m + (1 - B1) * g, self.m, slope)
        self.v = jax.tree.map(lambda v, g: B2 * v + (1 - B2) * g * g, self.v, slope)
        m_scale, v_scale = 1 / (1 - B1**self.t), 1 / (1 - B2**self.t)
        return jax.tree.map(
            lambda p, m, v: p - self.rate * m * m_scale / (jnp.sqrt(v * v_scale) + EPSILON),
            params,
            self.m,
            self.v,
        )


class Keras:
    """The report's three models: `generator`, `discriminator` and `combined`."""

    def __init__(self, config, first):
        self.nets = {"g": config.method.generator.build(), "d": config.method.discriminator.build()}
        self.params, self.stats = dict(first.params), dict(first.stats)
        self.adam = {p: Adam(RATE[p], first.params[p]) for p in "gd"}
        self.of_d, self.of_g = (jax.jit(jax.value_and_grad(f, has_aux=True)) for f in self.losses())
        self.predict = jax.jit(lambda params, stats, z: self.run("g", params, stats, z)[0])

    def run(self, player, params, stats, x):
        x = x[:, None, None, :] if player == "g" else x
        variables = {"params": params, **stats}
        return self.nets[player].apply(variables, x, train=True, mutable=["batch_stats"])

    def losses(self):
        def of_d(params, stats, images, label):
            logits, new = self.run("d", params, stats, images)
            p = jax.nn.sigmoid(logits[:, 0])
            loss = -jnp.mean(label * jnp.log(p) + (1 - label) * jnp.log(1 - p))
            return loss, (((p > 0.5) == label).sum(), new)

        def of_g(params, stats, d, z):
            images, new = self.run("g", params, stats, z)
            logits, _ = self.run("d", *d, images)
            return -jnp.mean(jnp.log(jax.nn.sigmoid(logits))), new

        return of_d, of_g

    def train_discriminator(self, images, label):
        """(loss, images judged right) before the step."""
        (loss, (right, new)), slope = self.of_d(self.params["d"], self.stats["d"], images, label)
        self.params["d"], self.stats["d"] = self.adam["d"].step(self.params["d"], slope), new
        return float(loss), int(right)

    def train_combined(self, z):
        d = self.params["d"], self.stats["d"]
        (loss, new), slope = self.of_g(self.params["g"], self.stats["g"], d, z)
        self.params["g"], self.stats["g"] = self.adam["g"].step(self.params["g"], slope), new
        return float(loss)


def counts(kind, right):
    """(D's repeats, G's) after `right` of 2 B images; the report's formula, its prose, 1:1."""
    tenths_right, tenths_wrong = 10 * right // (2 * B), 10 * (2 * B - right) // (2 * B)
    return {
        "fixed": (1, 1),
        "as_printed": (max(tenths_right, 1), max(tenths_wrong, 3)),
        "as_argued": (max(tenths_wrong, 1), max(tenths_right, 3)),
    }[kind]


LONG = [pytest.param(kind, marks=pytest.mark.long) for kind in ("as_argued", "fixed")]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["as_printed", *LONG])
def test_the_step_is_the_printed_loop(kind):
    config = csc412(kind)
    first = drawn_state(config, {})
    start = {} if kind == "fixed" else {"correct": jnp.int32(1), "judged": jnp.int32(2)}
    first = first.replace(extra_state=start)
    draws = np.random.default_rng(3)
    reals = jnp.asarray(np.tanh(draws.normal(size=(ITERATIONS, MOST, B, SIDE, SIDE, 3))), "float32")
    keras, right = Keras(config, first), B
    for i, (state, metrics, z) in enumerate(by_the_package(config, first, reals)):
        of_d, of_g = counts(kind, right)
        assert (metrics.get("repeats/d", 1), metrics.get("repeats/g", 1)) == (of_d, of_g)
        # One noise for both halves of all repeats of D, new noise for every repeat of G.
        assert len(z["d"]) == 2 * of_d and len({x.tobytes() for x in z["d"]}) == 1
        assert len(z["g"]) == of_g == len({x.tobytes() for x in z["g"]} - {z["d"][0].tobytes()})
        fakes = keras.predict(keras.params["g"], keras.stats["g"], z["d"][0])
        for repeat in range(of_d):
            imgs = (reals[i, repeat] + 1) / 2
            loss_real, right_real = keras.train_discriminator(imgs, True)
            loss_fake, right_fake = keras.train_discriminator(fakes, False)
        for noise in z["g"]:
            g_loss = keras.train_combined(noise)
        right = right_real + right_fake
        close = {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(metrics["loss/d"], 0.5 * (loss_real + loss_fake), **close)
        np.testing.assert_allclose(metrics["accuracy/d"], right / (2 * B), **close)
        np.testing.assert_allclose(metrics["loss/g"], g_loss, **close)
        for ours, theirs in ((state.params, keras.params), (state.stats, keras.stats)):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4), ours, theirs
            )
