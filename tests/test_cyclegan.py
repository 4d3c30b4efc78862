"""CycleGAN: its losses by hand and by PyTorch, its pool and its bits, and two unpaired domains."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.cyclegan import (
    NETWORKS,
    OTHER,
    WAYS,
    Identity,
    batch_at,
    cross_entropy,
    d_by_hand,
    defined,
    draws_at,
    forward,
    g_by_hand,
    keys_at,
    other_name,
    reals,
    same_metrics,
    squares,
    swap_domains,
    weights_of,
)
from oracles.image_pool import Pool
from oracles.resnet import carry, nchw, nhwc, torch_generator, torch_patch
from tiny import CYCLE, arrays, digests, packed, run_steps, start

from anigan_jax import config as configs
from anigan_jax.methods import translation
from anigan_jax.methods.cyclegan import CycleGame
from anigan_jax.networks import resnet
from anigan_jax.runtime import devices as parallel
from anigan_jax.state import init_state
from anigan_jax.storage import checkpoint
from anigan_jax.training import input
from anigan_jax.training import step as train_step

STEPS = 8


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return packed(CYCLE, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def data(pack):
    return arrays(CYCLE, pack)


@pytest.fixture(scope="module")
def path(data):
    """States before each of 8 steps and after the last, and the metrics of the steps."""
    states, lines = [jax.tree.map(np.asarray, start(CYCLE)[1])], []
    for _ in range(STEPS):
        state, metrics = run_steps(CYCLE, data, states[-1], 1)
        states.append(state)
        lines.append({name: value[0] for name, value in metrics.items()})
    return states, lines


@pytest.mark.long
def test_metrics_of_the_first_steps_equal_their_losses_by_hand(data, path):
    """D learns first, on what comes through the pool; G is judged by the D that has learned.

    The pool of 20 is filled by the third batch of 8, whose last images may be swapped.
    """
    states, lines = path
    pools = {name: Pool(CYCLE.method.pool) for name in "ab"}
    swapped = 0
    for step in range(5):
        now, after = states[step], states[step + 1]
        real = reals(batch_at(CYCLE, data, step, now))
        shown = {}
        for name in "ab":
            fakes = forward(NETWORKS[0], now.params["g"][WAYS[name]], real[OTHER[name]])
            shown[name] = np.stack(pools[name].query(fakes, *draws_at(step, now, name)))
            swapped += (shown[name] != fakes).any((1, 2, 3)).sum()
            held = len(pools[name].images)
            assert after.extra_state["held"] == held == min(8 * (step + 1), 20)
            np.testing.assert_allclose(
                after.extra_state[name][:held], pools[name].images, atol=1e-5
            )
        want = d_by_hand(now.params["d"], real, shown)
        want |= g_by_hand(now.params["g"], after.params["d"], real)
        same_metrics(lines[step], want)
        assert set(lines[step]) == {*want, "gradient/d", "gradient/g", "fingerprint"}
    assert swapped > 5


def loss_metrics(settings, state, batch, change=lambda game: None):
    """(metrics of D's loss, of G's) from the losses alone."""
    game = CycleGame(settings, None)
    change(game)

    @jax.jit
    def both(state, batch, keys):
        _, d = game.d_loss(state.params["d"], state, batch, keys)
        _, g = game.g_loss(state.params["g"], state, batch, keys)
        return d.metrics, g.metrics

    return jax.device_get(both(state, batch, keys_at(0, state, 0)))


@pytest.mark.long
def test_cross_entropy_and_other_weights(data, path):
    state = path[0][0]
    batch = batch_at(CYCLE, data, 0, state)
    settings = dataclasses.replace(
        CYCLE.method,
        loss="non_saturating",
        identity=0.5,
        adversarial=3.0,
        cycle=2.0,
        d_scale=1.0,
        pool=0,
    )
    d, g = loss_metrics(settings, state.replace(extra_state={}), batch)
    real, p = reals(batch), state.params
    shown = {n: forward(NETWORKS[0], p["g"][WAYS[n]], real[OTHER[n]]) for n in "ab"}
    same_metrics(d, d_by_hand(p["d"], real, shown, cross_entropy, 1.0))
    same_metrics(g, g_by_hand(p["g"], p["d"], real, cross_entropy, (0.5, 3, 2)))


@pytest.mark.parametrize("loss", ["wasserstein", "hinge", "least_squares"])
def test_every_loss_of_maps_has_an_opinion(loss):
    """Accuracy is by the sign, or for least squares by the half between the labels."""
    real, fake = jnp.array([0.7, 0.2, -1.0]), jnp.array([0.3, -0.5, 0.6, 0.1])
    found = translation.opinion(loss, real, fake)
    line = 0.5 if loss == "least_squares" else 0.0
    want = (np.mean(np.asarray(real) > line) + np.mean(np.asarray(fake) < line)) / 2
    assert found["accuracy/d"] == pytest.approx(want)
    config = dataclasses.replace(CYCLE, method=dataclasses.replace(CYCLE.method, loss=loss))
    configs.check(config)


def test_identity_maps_have_no_cycle_and_identity_loss(data, path):
    """And D sees the other domain's images as fakes."""
    state = path[0][0]
    batch = batch_at(CYCLE, data, 0, state)
    change = lambda game: game.g.update(ab=Identity(), ba=Identity())  # noqa: E731
    d, g = loss_metrics(CYCLE.method, state, batch, change)
    for name in ("cycle_a", "cycle_b", "identity_a", "identity_b"):
        assert g[f"loss/{name}"] == 0
    real, params = reals(batch), state.params["d"]
    logits = {n: forward(NETWORKS[1], params[OTHER[n]], real[n]) for n in "ab"}
    total = sum(squares(values, 1) for values in logits.values())
    np.testing.assert_allclose(g["loss/g"], total, rtol=1e-5)
    same_metrics(d, d_by_hand(params, real, {n: real[OTHER[n]] for n in "ab"}))


def test_without_identity_weight_the_term_is_left_out(path):
    settings = dataclasses.replace(CYCLE.method, identity=0.0)
    state, image = path[0][0], jax.ShapeDtypeStruct((8, 16, 16, 3), jnp.float32)
    game, keys = CycleGame(settings, None), keys_at(0, state, 1)
    run = lambda s, b: game.g_loss(s.params["g"], s, b, keys)[1].metrics  # noqa: E731
    names = set(jax.eval_shape(run, state, {"a": {"image": image}, "b": {"image": image}}))
    assert names == {"loss/g", *(f"loss/{n}" for n in ("cycle_a", "cycle_b", "gan_ab", "gan_ba"))}


@pytest.mark.long
def test_swapping_the_domains_swaps_the_metrics(data, path):
    """While the pool fills, when chance decides nothing yet."""
    state = path[0][1]
    batch = batch_at(CYCLE, data, 1, state)
    mirrored = {**batch, "a": batch["b"], "b": batch["a"]}
    one = loss_metrics(CYCLE.method, state, batch)
    two = loss_metrics(CYCLE.method, swap_domains(state), mirrored)
    for got, want in zip(two, one, strict=True):
        same_metrics(got, {other_name(name): value for name, value in want.items()}, 1e-5)
    assert one[1]["loss/cycle_a"] != pytest.approx(one[1]["loss/cycle_b"], rel=1e-3)
    assert one[0]["loss/d_a"] != pytest.approx(one[0]["loss/d_b"], rel=1e-3)


@pytest.mark.long
def test_evaluation_by_hand_and_with_swapped_domains(pack, path):
    method, state = CYCLE.method.make(None), path[0][-1]
    held_out = input.rows(CYCLE, pack, "test")
    images = {name: held_out[name]["image"] for name in "ab"}
    assert len(images["a"]) == len(images["b"]) == 12
    found = method.evaluate(state, {}, held_out)
    swapped = {"a": held_out["b"], "b": held_out["a"]}
    back = method.evaluate(swap_domains(state), {}, swapped)
    same_metrics(back, {other_name(name): value for name, value in found.items()}, 1e-6)
    # The averaged generators are judged, on values in [-1, 1].
    x = {name: images[name] / 127.5 - 1 for name in "ab"}
    want = {}
    for name in "ab":
        there = forward(NETWORKS[0], state.ema[WAYS[OTHER[name]]], x[name].astype("f"))
        back = forward(NETWORKS[0], state.ema[WAYS[name]], there.astype("f"))
        same = forward(NETWORKS[0], state.ema[WAYS[name]], x[name].astype("f"))
        want[f"change/{name}"] = np.abs(there - x[name]).mean()
        want[f"cycle/{name}"] = np.abs(back - x[name]).mean()
        want[f"identity/{name}"] = np.abs(same - x[name]).mean()
    same_metrics(found, want)
    assert set(found) == set(want)
    assert found["cycle/a"] != pytest.approx(found["cycle/b"], rel=1e-3)


@pytest.mark.long
def test_fakes_are_constants_to_d(data, path):
    """No gradient of D's loss reaches the generators, though they made the fakes."""
    state = path[0][0]
    batch, keys = batch_at(CYCLE, data, 0, state), keys_at(0, state, 0)
    game = CycleGame(dataclasses.replace(CYCLE.method, pool=0), None)

    @jax.jit
    def gradient(g):
        def loss(g):
            seen = state.replace(params={**state.params, "g": g}, extra_state={})
            return game.d_loss(state.params["d"], seen, batch, keys)[0]

        return jax.grad(loss)(g)

    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient(state.params["g"])))


def test_each_player_is_updated_once_a_step(path):
    states, _ = path
    for step, state in enumerate(states):
        assert state.opt_state["g"].count == state.opt_state["d"].count == state.step == step
        assert set(state.params["g"]) == {"ab", "ba"}
        assert set(state.params["d"]) == {"a", "b"}
    first, second = states[:2]
    for player in "gd":
        for name in first.params[player]:
            before = first.params[player][name], first.params[player][name]
            moved = jax.tree.map(
                lambda x, y: np.abs(x - y).max(), before[0], second.params[player][name]
            )
            assert max(jax.tree.leaves(moved)) > 1e-5
    # Two networks of a kind start apart.
    kernels = [first.params["g"][way]["rgb"]["weight"]["kernel"] for way in ("ab", "ba")]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


def test_without_a_pool_there_is_no_memory(path):
    config = dataclasses.replace(CYCLE, method=dataclasses.replace(CYCLE.method, pool=0))
    method, image = config.method.make(None), jax.ShapeDtypeStruct((8, 16, 16, 3), jnp.float32)
    state = jax.eval_shape(lambda: init_state(config, method, {}))
    assert state.extra_state == {}
    assert path[0][0].extra_state["a"].shape == (20, 16, 16, 3)
    loss = method.phases[0].updates[0].losses[0]
    keys = keys_at(0, path[0][0], 0)
    run = lambda s, b: loss(s.params["d"], s, b, keys)[1].extra_state  # noqa: E731
    assert jax.eval_shape(run, state, {"a": {"image": image}, "b": {"image": image}}) == {}


@pytest.mark.long
def test_first_steps_equal_pytorch(data, path):
    """D, then G, by Adam, with the same images, flips and pool, across the drop of the rate."""
    torch = pytest.importorskip("torch")
    states, _ = path
    params = states[0].params
    plans = {
        "g": resnet.generator_plan(CYCLE.method.generator),
        "d": resnet.discriminator_plan(CYCLE.method.discriminator),
    }
    make = {"g": lambda: torch_generator(2, 1), "d": lambda: torch_patch(2, 2, 0)}
    nets = {
        player: {name: carry(make[player](), held, plans[player]) for name, held in trees.items()}
        for player, trees in params.items()
    }
    adam = {
        player: torch.optim.Adam(
            [p for net in held.values() for p in net.parameters()], 2e-4, (0.5, 0.999)
        )
        for player, held in nets.items()
    }
    pools = {name: Pool(20) for name in "ab"}
    mse, l1 = torch.nn.functional.mse_loss, torch.nn.functional.l1_loss

    def gan(logits, label):
        return mse(logits, torch.full_like(logits, label))

    for step in range(6):
        if step == 5:
            for optimizer in adam.values():
                optimizer.param_groups[0]["lr"] = 2e-5
        batch = batch_at(CYCLE, data, step, states[0])
        real = {"a": nchw(batch["a"]["image"]), "b": nchw(batch["b"]["image"])}
        fakes = {n: nets["g"][WAYS[n]](real[OTHER[n]]) for n in "ab"}
        loss = 0.0
        for name in "ab":
            drawn = draws_at(step, states[0], name)
            shown = torch.stack(pools[name].query(fakes[name].detach(), *drawn))
            d = nets["d"][name]
            loss = loss + 0.5 * (gan(d(real[name]), 1.0) + gan(d(shown), 0.0))
        adam["d"].zero_grad()
        loss.backward()
        adam["d"].step()
        loss = 0.0
        for name in "ab":
            other, back = OTHER[name], nets["g"][WAYS[name]]
            loss = loss + gan(nets["d"][other](fakes[other]), 1.0)
            loss = loss + 10 * l1(back(fakes[other]), real[name])
            loss = loss + 5 * l1(back(real[name]), real[name])
        adam["g"].zero_grad()
        loss.backward()
        adam["g"].step()
        theirs = {
            player: {
                name: weights_of(net, plans[player], params[player][name])
                for name, net in held.items()
            }
            for player, held in nets.items()
        }
        ours, want = defined(states[step + 1].params), defined(theirs)
        assert ours.keys() == want.keys()
        for name, value in ours.items():
            np.testing.assert_allclose(value, want[name], rtol=1e-4, atol=1e-5, err_msg=name)
    first = defined(params)
    assert all(np.abs(value - first[name]).max() > 2e-4 for name, value in ours.items())
    for name in "ab":
        stored = nhwc(torch.stack(pools[name].images))
        np.testing.assert_allclose(states[6].extra_state[name], stored, rtol=0, atol=1e-4)


@pytest.mark.long
def test_a_rerun_gives_the_same_bits(data, path):
    states, lines = path
    end, metrics = run_steps(CYCLE, data, states[0], STEPS)
    assert digests(end) == digests(states[-1])
    prints = [line["fingerprint"] for line in lines]
    assert metrics["fingerprint"].tolist() == prints
    assert len(set(prints)) == STEPS


@pytest.mark.long
@pytest.mark.parametrize("at", [1, 2, 4, 5])
def test_a_resumed_run_gives_the_same_bits(data, path, tmp_path, at):
    """With 8 and 16 of 20 in the pool, with a full one, and at the drop of the rate."""
    states, _ = path
    assert states[at].extra_state["held"] == min(8 * at, 20)
    checkpoint.save(tmp_path, at, states[at], {})
    found = checkpoint.restore(tmp_path, states[0])
    end, _ = run_steps(CYCLE, data, found.state, STEPS - at)
    assert digests(end) == digests(states[-1])


FORGOTTEN = {
    "a's images": lambda memory: {**memory, "a": np.zeros_like(memory["a"])},
    "b's images": lambda memory: {**memory, "b": np.zeros_like(memory["b"])},
    "how many": lambda memory: {**memory, "held": np.int32(0)},
    "nothing": lambda memory: memory,
}


@pytest.mark.long
@pytest.mark.parametrize("what", FORGOTTEN)
def test_the_pool_is_needed_to_resume(data, path, what):
    """Negative controls: what D is shown later hangs on every part of the memory."""
    states, _ = path
    state = states[2].replace(extra_state=FORGOTTEN[what](states[2].extra_state))
    end, _ = run_steps(CYCLE, data, state, STEPS - 2)
    assert (digests(end.params) == digests(states[-1].params)) == (what == "nothing")


@pytest.mark.slow
def test_dispatch_and_mapper_do_not_change_the_bits(data, path):
    states, lines = path
    end, metrics = run_steps(CYCLE, data, states[0], STEPS, length=4, mapper="shard_map")
    assert digests(end) == digests(states[-1])
    assert metrics["fingerprint"].tolist() == [line["fingerprint"] for line in lines]


@pytest.mark.long
def test_four_devices_agree_with_one(data, path):
    """Each image is normalized alone, so only the order of the gradients' sums differs."""
    states, lines = path
    end, metrics = run_steps(CYCLE, data, states[0], 4, devices=4)
    assert end.extra_state["held"] == states[4].extra_state["held"] == 20
    for name in "ab":
        np.testing.assert_allclose(
            end.extra_state[name], states[4].extra_state[name], rtol=0, atol=1e-5
        )
    for name, values in metrics.items():
        if name != "fingerprint":
            want = [line[name] for line in lines[:4]]
            np.testing.assert_allclose(values, want, rtol=1e-5, atol=1e-6, err_msg=name)
    want = defined(states[4].params)
    for name, value in defined(end.params).items():
        np.testing.assert_allclose(value, want[name], rtol=0, atol=4e-6, err_msg=name)


@pytest.mark.slow
def test_a_streamed_feed_gives_the_bits_of_a_resident_one(data, path):
    """Rows of both domains, sent to 4 devices."""
    first = path[0][0]
    want, lines = run_steps(CYCLE, data, first, 4, devices=4)
    method, devices = CYCLE.method.make(parallel.AXIS), jax.devices()[:4]
    assert train_step.draws_per_step(method) == 1
    made = train_step.make_super_step(CYCLE, method, method.phases[0], 2, parallel.AXIS)
    step = parallel.map_step(made, "pmap", devices)
    state, prints = parallel.replicate(first, devices), []
    for at in (0, 2):
        rows = input.host_rows(CYCLE, dict(data), at, 2, 1, 4)
        assert rows["b"]["image"].shape == (4, 2, 1, 2, 16, 16, 3)
        local = {"device": np.arange(4, dtype=np.int32), "rows": rows}
        state, (metrics, _) = step(state, {"data": {}, "constants": {}}, local)
        jax.block_until_ready(state)
        prints += np.asarray(metrics["fingerprint"]).tolist()
    assert digests(state) == digests(want)
    assert prints == lines["fingerprint"].tolist()
