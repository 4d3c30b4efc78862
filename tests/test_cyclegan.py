"""CycleGAN: its losses by hand and by PyTorch, its pool and its bits, and two unpaired domains."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_image_pool import Pool
from test_resnet import carry, nchw, nhwc, torch_generator, torch_patch
from tiny import CYCLE, arrays, digests, packed, run_steps, start

from anigan_jax import config as configs
from anigan_jax import optimizers, rng
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.errors import UserError
from anigan_jax.methods import image_pool
from anigan_jax.methods.cyclegan import CycleGame, CycleGAN
from anigan_jax.networks import resnet
from anigan_jax.optimizers import Optimizer
from anigan_jax.runtime import devices as parallel
from anigan_jax.state import init_state
from anigan_jax.storage import checkpoint
from anigan_jax.training import input
from anigan_jax.training import step as train_step

STEPS = 8
EXAMPLES = jnp.arange(CYCLE.batch_size, dtype=jnp.int32)
WAYS = {"a": "ba", "b": "ab"}
"""Which generator makes images of a domain."""
OTHER = {"a": "b", "b": "a"}


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


def batch_at(config, data, step, state):
    """The batch that a step sees."""
    held, draw = jax.tree.map(jnp.asarray, dict(data)), jnp.int32(step)
    rows = input.gather(held, draw, config.batch_size, EXAMPLES, config.seed)
    return input.to_batch(rows, jnp.asarray(state.key), draw, EXAMPLES, config.flip)


def keys_at(step, state, position):
    """Keys of an update (D's is the first, G's the second)."""
    key, none = jnp.asarray(state.key), jnp.zeros((len(EXAMPLES), 0))
    return rng.update_keys(key, jnp.int32(step), 8 * position, 0, EXAMPLES, none)


def draws_at(step, state, name):
    """What chance decides for the pool of a domain in a step."""
    key = jax.random.fold_in(keys_at(step, state, 0).shared, "ab".index(name))
    drawn = image_pool.draws(key, len(EXAMPLES), CYCLE.method.pool)
    return np.asarray(drawn.swap), np.asarray(drawn.place)


# --- losses by hand


def compiled_networks():
    def run(net):
        return jax.jit(lambda params, x: net.apply({"params": params}, x, train=True))

    g, d = (
        resnet.generator(CYCLE.method.generator),
        resnet.discriminator(CYCLE.method.discriminator),
    )
    return run(g), run(d)


NETWORKS = compiled_networks()


def forward(run, params, x):
    return np.asarray(run(params, jnp.asarray(x)), np.float64)


def squares(logits, real):
    return np.mean((logits - real) ** 2)


def cross_entropy(logits, real):
    return np.mean(np.logaddexp(0, -logits if real else logits))


def d_by_hand(params, real, shown, gan=squares, scale=0.5):
    """Metrics of D's update; `shown` fakes by domain."""
    found, real_logits, fake_logits = {}, [], []
    for name in "ab":
        judged = [forward(NETWORKS[1], params[name], x) for x in (real[name], shown[name])]
        found[f"loss/d_{name}"] = scale * (gan(judged[0], 1) + gan(judged[1], 0))
        real_logits.append(judged[0].ravel())
        fake_logits.append(judged[1].ravel())
    found["loss/d"] = found["loss/d_a"] + found["loss/d_b"]
    real_logits, fake_logits = np.concatenate(real_logits), np.concatenate(fake_logits)
    line = 0.5 if gan is squares else 0
    score = (lambda x: x) if gan is squares else (lambda x: 1 / (1 + np.exp(-x)))
    found["score/real"], found["score/fake"] = score(real_logits).mean(), score(fake_logits).mean()
    right = (real_logits > line).mean() + (fake_logits < line).mean()
    return {**found, "accuracy/d": right / 2}


def g_by_hand(g, d, real, gan=squares, weights=(5, 1, 10)):
    """Metrics of G's update under discriminators d; weights of identity, GAN and cycle."""
    fakes = {n: forward(NETWORKS[0], g[WAYS[n]], real[OTHER[n]]) for n in "ab"}
    found, identity, adversarial, cycle = {}, 0.0, 0.0, 0.0
    for name in "ab":
        other = OTHER[name]
        logits = forward(NETWORKS[1], d[other], fakes[other])
        back = forward(NETWORKS[0], g[WAYS[name]], fakes[other])
        same = forward(NETWORKS[0], g[WAYS[name]], real[name])
        found[f"loss/gan_{name}{other}"] = gan(logits, 1)
        found[f"loss/cycle_{name}"] = np.abs(back - real[name]).mean()
        found[f"loss/identity_{name}"] = np.abs(same - real[name]).mean()
        adversarial += found[f"loss/gan_{name}{other}"]
        cycle += found[f"loss/cycle_{name}"]
        identity += found[f"loss/identity_{name}"]
    w = weights
    found["loss/g"] = w[0] * identity + w[1] * adversarial + w[2] * cycle
    return found


def reals(batch):
    return {"a": np.asarray(batch["real"]), "b": np.asarray(batch["real_b"])}


def same_metrics(got, want, rtol=2e-5):
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=rtol, atol=1e-6, err_msg=name)


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
            assert after.memory["held"] == held == min(8 * (step + 1), 20)
            np.testing.assert_allclose(after.memory[name][:held], pools[name].images, atol=1e-5)
        want = d_by_hand(now.params["d"], real, shown)
        want |= g_by_hand(now.params["g"], after.params["d"], real)
        same_metrics(lines[step], want)
        assert set(lines[step]) == {*want, "gradient/d", "gradient/g", "fingerprint", "bad"}
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
    d, g = loss_metrics(settings, state.replace(memory={}), batch)
    real, p = reals(batch), state.params
    shown = {n: forward(NETWORKS[0], p["g"][WAYS[n]], real[OTHER[n]]) for n in "ab"}
    same_metrics(d, d_by_hand(p["d"], real, shown, cross_entropy, 1.0))
    same_metrics(g, g_by_hand(p["g"], p["d"], real, cross_entropy, (0.5, 3, 2)))


class Identity:
    """A network that gives back what it gets."""

    def __call__(self, params, stats, images, *, train=True):
        return images, stats


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
    names = set(jax.eval_shape(run, state, {"real": image, "real_b": image}))
    assert names == {"loss/g", *(f"loss/{n}" for n in ("cycle_a", "cycle_b", "gan_ab", "gan_ba"))}


def swap_domains(state):
    """The state of the same game seen from the other side."""

    def g(tree):
        return {"ab": tree["ba"], "ba": tree["ab"]} if tree else tree

    def d(tree):
        return {"a": tree["b"], "b": tree["a"]}

    return state.replace(
        params={"g": g(state.params["g"]), "d": d(state.params["d"])},
        stats={"g": g(state.stats["g"]), "d": d(state.stats["d"])},
        ema=g(state.ema),
        memory={**d(state.memory), "held": state.memory["held"]},
    )


def other_name(name):
    """'loss/gan_ab' -> 'loss/gan_ba', 'cycle/a' -> 'cycle/b'."""
    for ending, swapped in (("_ab", "_ba"), ("_ba", "_ab"), ("_a", "_b"), ("_b", "_a")):
        if name.endswith(ending):
            return name.removesuffix(ending) + swapped
    for ending, swapped in (("/a", "/b"), ("/b", "/a")):
        if name.endswith(ending):
            return name.removesuffix(ending) + swapped
    return name


def test_swapping_the_domains_swaps_the_metrics(data, path):
    """While the pool fills, when chance decides nothing yet."""
    state = path[0][1]
    batch = batch_at(CYCLE, data, 1, state)
    mirrored = {**batch, "real": batch["real_b"], "real_b": batch["real"]}
    one = loss_metrics(CYCLE.method, state, batch)
    two = loss_metrics(CYCLE.method, swap_domains(state), mirrored)
    for got, want in zip(two, one, strict=True):
        same_metrics(got, {other_name(name): value for name, value in want.items()}, 1e-5)
    assert one[1]["loss/cycle_a"] != pytest.approx(one[1]["loss/cycle_b"], rel=1e-3)
    assert one[0]["loss/d_a"] != pytest.approx(one[0]["loss/d_b"], rel=1e-3)


def test_evaluation_by_hand_and_with_swapped_domains(pack, path):
    method, state = CYCLE.method.make(None), path[0][-1]
    images, inputs = pack.first("test"), CYCLE.method.inputs(pack, "test")
    assert len(images) == len(inputs["images_b"]) == 12
    found = method.evaluate(state, images, inputs)
    back = method.evaluate(swap_domains(state), inputs["images_b"], {"images_b": images})
    same_metrics(back, {other_name(name): value for name, value in found.items()}, 1e-6)
    # The averaged generators are judged, on values in [-1, 1].
    x = {"a": images / 127.5 - 1, "b": inputs["images_b"] / 127.5 - 1}
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


def test_fakes_are_constants_to_d(data, path):
    """No gradient of D's loss reaches the generators, though they made the fakes."""
    state = path[0][0]
    batch, keys = batch_at(CYCLE, data, 0, state), keys_at(0, state, 0)
    game = CycleGame(dataclasses.replace(CYCLE.method, pool=0), None)

    @jax.jit
    def gradient(g):
        def loss(g):
            seen = state.replace(params={**state.params, "g": g}, memory={})
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
    assert state.memory == {}
    assert path[0][0].memory["a"].shape == (20, 16, 16, 3)
    loss = method.phases[0].updates[0].losses[0]
    keys = keys_at(0, path[0][0], 0)
    run = lambda s, b: loss(s.params["d"], s, b, keys)[1].memory  # noqa: E731
    assert jax.eval_shape(run, state, {"real": image, "real_b": image}) == {}


# --- PyTorch


def hidden_biases():
    """(player, layer) whose bias an instance norm takes out again: nothing defines its gradient."""
    plans = {
        "g": resnet.generator_plan(CYCLE.method.generator),
        "d": resnet.discriminator_plan(CYCLE.method.discriminator),
    }
    return {(player, b.name) for player, plan in plans.items() for b in plan if b.norm}


def defined(params):
    """Name -> weights that the data defines."""
    left_out = hidden_biases()
    return {
        f"{player}/{name}/{layer}/{leaf}": np.asarray(value)
        for player, nets in params.items()
        for name, net in nets.items()
        for layer, held in net.items()
        for leaf, value in (("kernel", held["weight"]["kernel"]), ("bias", held.get("bias")))
        if value is not None and not (leaf == "bias" and (player, layer) in left_out)
    }


def weights_of(peer, plan, like):
    """A torch network's weights as a tree of ours."""
    import torch

    kinds = torch.nn.Conv2d, torch.nn.ConvTranspose2d
    found = [module for module in peer.modules() if isinstance(module, kinds)]
    tree = {}
    for module, block in zip(found, plan, strict=True):
        order = (2, 3, 0, 1) if isinstance(module, kinds[1]) else (2, 3, 1, 0)
        kernel = module.weight.detach().numpy().transpose(order)
        tree[block.name] = {"weight": {"kernel": kernel}}
        if "bias" in like[block.name]:
            tree[block.name]["bias"] = module.bias.detach().numpy()
    return tree


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
        real = {"a": nchw(batch["real"]), "b": nchw(batch["real_b"])}
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
        np.testing.assert_allclose(states[6].memory[name], stored, rtol=0, atol=1e-4)


# --- bits


def test_a_rerun_gives_the_same_bits(data, path):
    states, lines = path
    end, metrics = run_steps(CYCLE, data, states[0], STEPS)
    assert digests(end) == digests(states[-1])
    prints = [line["fingerprint"] for line in lines]
    assert metrics["fingerprint"].tolist() == prints
    assert len(set(prints)) == STEPS


@pytest.mark.parametrize("at", [1, 2, 4, 5])
def test_a_resumed_run_gives_the_same_bits(data, path, tmp_path, at):
    """With 8 and 16 of 20 in the pool, with a full one, and at the drop of the rate."""
    states, _ = path
    assert states[at].memory["held"] == min(8 * at, 20)
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


@pytest.mark.parametrize("what", FORGOTTEN)
def test_the_pool_is_needed_to_resume(data, path, what):
    """Negative controls: what D is shown later hangs on every part of the memory."""
    states, _ = path
    state = states[2].replace(memory=FORGOTTEN[what](states[2].memory))
    end, _ = run_steps(CYCLE, data, state, STEPS - 2)
    assert (digests(end.params) == digests(states[-1].params)) == (what == "nothing")


@pytest.mark.slow
def test_dispatch_and_mapper_do_not_change_the_bits(data, path):
    states, lines = path
    for length, mapper in ((2, "shard_map"), (4, "pmap")):
        end, metrics = run_steps(CYCLE, data, states[0], STEPS, length=length, mapper=mapper)
        assert digests(end) == digests(states[-1])
        assert metrics["fingerprint"].tolist() == [line["fingerprint"] for line in lines]


def test_four_devices_agree_with_one(data, path):
    """Each image is normalized alone, so only the order of the gradients' sums differs."""
    states, lines = path
    end, metrics = run_steps(CYCLE, data, states[0], 4, devices=4)
    assert end.memory["held"] == states[4].memory["held"] == 20
    for name in "ab":
        np.testing.assert_allclose(end.memory[name], states[4].memory[name], rtol=0, atol=1e-5)
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
        rows = input._rows(CYCLE, data, at, 2, 1, 4)
        assert rows["images_b"].shape == (4, 2, 1, 2, 16, 16, 3)
        state, metrics = step(state, {}, {"device": np.arange(4, dtype=np.int32), "rows": rows})
        jax.block_until_ready(state)
        prints += np.asarray(metrics["fingerprint"]).tolist()
    assert digests(state) == digests(want)
    assert prints == lines["fingerprint"].tolist()


# --- two domains


def numbered(count):
    """Images whose first pixel is their number."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 1, 1, 3))


def numbers(data, draws, batch=8, seed=0):
    """Name -> (draws, batch) numbers of the images drawn."""
    held = {name: jnp.asarray(rows) for name, rows in data.items()}
    gather = jax.jit(lambda draw: input.gather(held, draw, batch, EXAMPLES, seed))
    drawn = [gather(jnp.int32(draw)) for draw in range(draws)]
    return {name: np.stack([d[name][:, 0, 0, 0] for d in drawn]) for name in data}


def test_every_image_of_each_domain_is_seen_once_an_epoch():
    """40 images are 5 batches of 8, and 24 are 3: each domain has epochs of its own."""
    drawn = numbers({"images": numbered(40), "images_b": numbered(24)}, 15)
    for name, count in (("images", 40), ("images_b", 24)):
        epochs = drawn[name].reshape(-1, count)
        assert len(epochs) == 15 * 8 // count
        for epoch in epochs:
            assert sorted(epoch.tolist()) == list(range(count))
        assert len({tuple(epoch) for epoch in epochs.tolist()}) == len(epochs)


@pytest.mark.parametrize("seed", [0, 7])
def test_equal_counts_do_not_pair_the_rows(seed):
    """A pair of rows meets as often as chance lets it, in an epoch and in the next."""
    drawn = numbers({"images": numbered(40), "images_b": numbered(40)}, 50, seed=seed)
    a, b = (drawn[name].ravel().astype(int) for name in ("images", "images_b"))
    # 400 meetings of 1600 pairs of rows: of equal rows 10 are expected.
    assert 1 <= (a == b).sum() <= 24
    counts = np.bincount(a * 40 + b, minlength=1600)
    assert counts.max() <= 5
    # Poisson: exp(-1/4), or 78 %, of the pairs never meet.
    assert 0.74 < (counts == 0).mean() < 0.82


def test_order_seeds_are_apart():
    assert input.order_seed("images", 5) == input.order_seed("label", 5) == 5
    assert input.order_seed("images_b", 5) == input.order_seed("edges_b", 5) != 5
    assert input.second("images_b")
    assert not input.second("images")


def test_the_domains_are_mirrored_apart():
    left = np.zeros((8, 2, 2, 3), np.uint8)
    left[:, :, 0] = 255
    rows = {"images": jnp.array(left), "images_b": jnp.array(left)}
    to_batch = jax.jit(lambda draw, key: input.to_batch(rows, key, draw, EXAMPLES, True))
    key = rng.root_key(0)
    batches = [to_batch(jnp.int32(draw), key) for draw in range(100)]
    a, b = (
        np.concatenate([batch[name][:, 0, 0, 0] < 0 for batch in batches])
        for name in ("real", "real_b")
    )
    # 800 coins each; 5 deviations of a share of 1/2 are 0.088.
    for coins in (a, b, a == b):
        assert abs(coins.mean() - 0.5) < 0.09


def test_a_pack_of_one_domain_is_refused_with_what_to_do(tmp_path):
    faces = packed(dataclasses.replace(CYCLE, data=PaintedFaces(count=8, size=16)), tmp_path)
    with pytest.raises(
        UserError, match=r"translation needs two: give --data\.path A --data\.path-b B"
    ):
        input.rows(CYCLE, faces)


def test_a_small_second_domain_is_refused(tmp_path):
    small = packed(
        dataclasses.replace(CYCLE, data=dataclasses.replace(CYCLE.data, count=7)), tmp_path
    )
    with pytest.raises(
        UserError, match="a batch of 8 needs at least as many images; the data has 7"
    ):
        input.rows(CYCLE, small)


def test_networks_of_two_sizes_are_refused():
    method = CycleGAN(discriminator=dataclasses.replace(CYCLE.method.discriminator, size=32))
    with pytest.raises(UserError, match="64 differs from method"):
        method.make(None)


# --- rates by epochs


def rates(settings, images, batch, steps):
    config = dataclasses.replace(CYCLE, g=settings, d=Optimizer(rate=1.0), batch_size=batch)
    resolved = configs.in_steps(config, images)
    assert resolved.d == config.d
    return [float(optimizers.learning_rate(resolved.g, jnp.int32(step))) for step in steps]


@pytest.mark.parametrize(("images", "batch"), [(1000, 128), (44, 8), (16, 16)])
def test_the_seeds_drop_at_epoch_120(images, batch):
    """3e-4, then 3e-5, from the first step of the 121st epoch on."""
    boundary = 120 * (images // batch)
    settings = Optimizer(rate=3e-4, unit="epoch", drops=(120,))
    got = rates(settings, images, batch, (0, boundary - 1, boundary, 3 * boundary))
    np.testing.assert_allclose(got, [3e-4, 3e-4, 3e-5, 3e-5], rtol=1e-6)


def test_linear_decay_by_epochs():
    """44 images in batches of 8: epochs of 5 steps; 2 flat, 4 of decay, 0 from then on."""
    settings = Optimizer(rate=1.0, unit="epoch", decay_from=2, decay_steps=4)
    table = {0: 1, 9: 1, 10: 1, 11: 0.95, 15: 0.75, 20: 0.5, 29: 0.05, 30: 0, 31: 0, 1000: 0}
    np.testing.assert_allclose(rates(settings, 44, 8, table), list(table.values()), atol=1e-6)


def test_a_rate_by_epochs_must_be_resolved():
    with pytest.raises(ValueError, match="in_steps"):
        optimizers.learning_rate(Optimizer(unit="epoch", drops=(120,)), jnp.int32(0))
    steps = Optimizer(drops=(7,))
    assert configs.in_steps(dataclasses.replace(CYCLE, g=steps), 44).g == steps


def test_epochs_of_a_run_become_steps():
    run = dataclasses.replace(CYCLE.run, steps=0, epochs=3)
    assert configs.in_steps(dataclasses.replace(CYCLE, run=run), 44).run.steps == 15
    assert configs.in_steps(CYCLE, 44).run.steps == CYCLE.run.steps
