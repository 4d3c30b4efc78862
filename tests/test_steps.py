"""The step builder: who is updated, by what, how often, with which bits."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import FULL, PLAIN, digests, draw, packed, run_steps, start

from anigan_jax import rng
from anigan_jax.core import Aux, Health, Method, Phase, TrainState, Update
from anigan_jax.errors import UserError
from anigan_jax.intervals import Every, Intervals
from anigan_jax.methods.schedule import Schedule, schedule_repeats
from anigan_jax.optimizers import Optimizer
from anigan_jax.runtime import backend
from anigan_jax.runtime.processes import ALONE
from anigan_jax.runtime.signals import Stop
from anigan_jax.state import fingerprint
from anigan_jax.training import input, loop
from anigan_jax.training import step as train_step
from anigan_jax.training.program import Chunk


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return packed(FULL, tmp_path_factory.mktemp("cache")).images


def test_any_number_of_steps_per_dispatch_gives_the_same_bits(images):
    _, state = start(FULL)
    ends = [run_steps(FULL, images, state, 8, length=k) for k in (1, 2, 8)]
    assert len({str(digests(end)) for end, _ in ends}) == 1
    prints = [metrics["fingerprint"].tolist() for _, metrics in ends]
    assert all(p == prints[0] for p in prints)
    assert len(set(prints[0])) == 8


def test_d_alone_then_g_alone(images):
    """AIUB's alternation: a player's entries move in its own steps only."""
    schedule = Schedule(kind="alternate", d_steps=2, g_steps=1)
    method = dataclasses.replace(PLAIN.method, schedule=schedule)
    config = dataclasses.replace(PLAIN, method=method, ema_half_life=0)
    _, state = start(config)
    moved = []
    for _ in range(4):
        before = digests(state)
        state, metrics = run_steps(config, images, state, 1)
        changed = {
            path.split("'")[1]
            for path, d in digests(state).items()
            if d != before[path] and "'" in path
        }
        repeats = float(metrics["repeats/d"][0]), float(metrics["repeats/g"][0])
        moved.append((changed, repeats))
    d, g = ({"d"}, (1.0, 0.0)), ({"g"}, (0.0, 1.0))
    assert moved == [d, d, g, d]


@pytest.mark.parametrize(
    ("kind", "correct", "want"),
    [
        ("as_printed", 0, (1, 10)),
        ("as_printed", 7, (7, 3)),
        ("as_printed", 10, (10, 3)),
        ("as_printed", 5, (5, 5)),
        ("as_argued", 0, (10, 3)),
        ("as_argued", 7, (3, 7)),
        ("as_argued", 10, (1, 10)),
    ],
)
def test_the_dynamic_rules(kind, correct, want):
    d, g, most_d, most_g = schedule_repeats(Schedule(kind=kind))
    counts = {"correct": jnp.int32(correct * 13), "judged": jnp.int32(130)}
    assert (int(d(counts, 0)), int(g(counts, 0))) == want
    assert max(want) <= min(most_d, most_g)


def test_the_dynamic_schedule_runs_as_its_counts_say(images):
    _, state = start(FULL)
    for _ in range(3):
        right = 10 * int(state.extra_state["correct"]) // int(state.extra_state["judged"])
        judged, correct = int(state.extra_state["judged"]), int(state.extra_state["correct"])
        wrong = 10 * (judged - correct) // judged
        state, metrics = run_steps(FULL, images, state, 1)
        assert float(metrics["repeats/d"][0]) == max(right, 1)
        assert float(metrics["repeats/g"][0]) == max(wrong, 3)
        assert 0 <= int(state.extra_state["correct"]) <= int(state.extra_state["judged"]) == 16


def test_negative_repeats_are_refused():
    for name in "dg":
        with pytest.raises(UserError, match=f"schedule.{name} is -1"):
            schedule_repeats(Schedule(**{name: -1}))
        schedule_repeats(Schedule(**{name: 0}))


def test_an_alternation_without_lengths_is_refused():
    with pytest.raises(UserError, match="d_steps"):
        schedule_repeats(Schedule(kind="alternate"))


def test_spectral_norm_moves_only_in_d_updates(images):
    method = dataclasses.replace(FULL.method, schedule=Schedule(kind="fixed", g=1, d=0))
    config = dataclasses.replace(FULL, method=method)
    _, state = start(config)
    end, _ = run_steps(config, images, state, 1)
    assert digests(end.stats["d"]) == digests(jax.tree.map(np.asarray, state.stats["d"]))
    full, _ = run_steps(FULL, images, state.replace(extra_state=start(FULL)[1].extra_state), 1)
    assert digests(full.stats["d"]) != digests(end.stats["d"])


def close(got, want, tolerance=1e-6):
    for one, other in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance / 100)


@pytest.mark.parametrize("step", [0, 1, 40, 2000])
def test_the_average_follows_its_half_life_and_its_ramp(images, step):
    """8 images a step: the half-life is 50 of them, or a twentieth of those seen so far."""
    state = start(PLAIN)[1].replace(step=jnp.int32(step))
    state = state.replace(ema=jax.tree.map(lambda x: x + 1, state.ema))
    end, _ = run_steps(PLAIN, images, state, 1)
    half_life = min(50, 0.05 * 8 * step)
    keep = 0.5 ** (8 / half_life) if half_life else 0
    want = jax.tree.map(lambda a, b: keep * a + (1 - keep) * b, state.ema, end.params["g"])
    close(end.ema, want)
    if not step:
        # Nothing of the first weights is left.
        assert digests(end.ema) == digests(end.params["g"])


def test_the_averaged_weights_have_statistics_of_their_own(images):
    """Those of a pass of the averaged weights in training, over the latents of the step."""
    state = start(PLAIN)[1].replace(step=jnp.int32(2000))
    state = state.replace(ema=jax.tree.map(lambda x: 1.5 * x, state.ema))
    end, _ = run_steps(PLAIN, images, state, 1)
    z = rng.latents(state.key, state.step, 0, 0, jnp.arange(8), PLAIN.method.generator.z_dim)
    module = PLAIN.method.generator.build()
    variables = {"params": end.ema, **state.ema_stats}
    _, want = module.apply(variables, z[:, None, None], train=True, mutable=["batch_stats"])
    close(end.ema_stats, want, 1e-5)
    assert digests(end.ema_stats) != digests(end.stats["g"])


def test_averaging_moves_no_bit_of_what_is_trained(images):
    alone = dataclasses.replace(PLAIN, ema_half_life=0)
    ends = [run_steps(config, images, start(config)[1], 3)[0] for config in (PLAIN, alone)]
    for part in ("params", "stats", "opt_state"):
        assert len({str(digests(getattr(end, part))) for end in ends}) == 1


def test_the_fingerprint_sees_one_flipped_bit_and_a_swap():
    x = jnp.arange(6, dtype=jnp.float32)
    base = int(fingerprint({"a": x}))
    for changed in (x.at[3].set(np.nextafter(np.float32(3), 9)), x[::-1], -x):
        assert int(fingerprint({"a": changed})) != base
    assert int(fingerprint({"a": x, "b": x[:2]})) != int(fingerprint({"a": x[:2], "b": x}))


def test_the_fingerprint_is_the_same_in_both_forms():
    """A sum for each leaf, and one of all; computed by hand for two leaves of one number."""
    kinds = ("float32", "bfloat16", "int32", "uint32", "uint8")
    tree = {kind: (draw(3, 5, 7) * 100).astype(kind) for kind in kinds} | {"step": jnp.int32(7)}
    by_leaf = int(jax.jit(fingerprint)(tree))
    with backend.traced_for("cuda"):
        at_once = jax.jit(lambda tree: fingerprint(tree)).lower(tree)
    assert int(at_once.compile()(tree)) == by_leaf
    assert at_once.as_text().count("stablehlo.reduce") < len(tree)

    def murmur(x: int) -> int:
        x = (x ^ (x >> 16)) * 0x85EBCA6B % 2**32
        x = (x ^ (x >> 13)) * 0xC2B2AE35 % 2**32
        return x ^ (x >> 16)

    ones = [jnp.uint32(3), jnp.uint32(9)]
    hashes = [murmur((n + 0x9E3779B9) % 2**32) for n in (3, 9)]
    assert int(fingerprint(ones)) == (hashes[0] * 0x01000193 + hashes[1]) % 2**32


def test_the_norm_of_gradients_is_the_same_in_both_forms():
    tree = {"a": draw(1, 5, 7), "b": [draw(2, 300), jnp.float32(2)]}
    want = np.sqrt(sum(np.sum(np.asarray(x, np.float64) ** 2) for x in jax.tree.leaves(tree)))
    with backend.traced_for("cuda"):
        at_once = train_step.norm(tree)
    np.testing.assert_allclose([at_once, train_step.norm(tree)], want, rtol=1e-6)


def test_a_step_for_accelerators_is_that_for_cpus_but_for_rounding(images):
    """Its metrics in one row, D's passes as one, norms by one reading."""
    config = dataclasses.replace(PLAIN, name="cuda")
    with backend.traced_for("cuda"):
        state, metrics = run_steps(config, images, start(config)[1], 4, length=2)
    want, known = run_steps(PLAIN, images, start(PLAIN)[1], 4, length=2)
    assert list(metrics) == list(known) and metrics["fingerprint"].dtype == np.uint32
    for name in known.keys() - {"fingerprint"}:
        np.testing.assert_allclose(metrics[name], known[name], rtol=2e-3, err_msg=name)
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), state.params, want.params)
    # Adam turns a rounding of a tiny gradient into a share of its step of 2e-4.
    assert max(jax.tree.leaves(moved)) < 2e-4


def test_first_steps_equal_pytorch():
    """A linear GAN trained by the step builder and by PyTorch: D, then G, Adam."""
    torch = pytest.importorskip("torch")

    def d_loss(w, state, batch, keys):
        real = batch["a"]["image"].reshape(4, -1) @ w
        fake = (keys.z @ state.params["g"]) @ w
        loss = jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))
        return loss, Aux({"loss/d": loss}, {}, {})

    def g_loss(w, state, batch, keys):
        loss = jnp.mean(jax.nn.softplus(-((keys.z @ w) @ state.params["d"])))
        return loss, Aux({"loss/g": loss}, {}, {})

    phase = Phase("train", (Update("d", (d_loss,)), Update("g", (g_loss,))))
    method = Method(None, (phase,), None, None, 3)
    players = dict.fromkeys("gd", Optimizer())
    config = dataclasses.replace(
        PLAIN, batch_size=4, ema_half_life=0, flip=False, optimizers=players
    )
    adam = {p: config.optimizers[p].build() for p in "gd"}
    values = np.random.default_rng(0)
    weights = {
        "g": values.normal(size=(3, 12)).astype("f"),
        "d": values.normal(size=12).astype("f"),
    }
    state = TrainState(
        jnp.int32(0),
        rng.root_key(0),
        jax.tree.map(jnp.array, weights),
        {"g": {}, "d": {}},
        {p: adam[p].init(jnp.array(weights[p])) for p in "gd"},
        {},
        {},
        {},
    )
    step = jax.jit(train_step.make_super_step(config, method, phase, 1, None))
    pixels = values.integers(0, 256, (4, 2, 2, 3), np.uint8)
    tg, td = (torch.tensor(weights[p], requires_grad=True) for p in "gd")
    opt = {p: torch.optim.Adam([w], 2e-4, (0.5, 0.999)) for p, w in (("g", tg), ("d", td))}
    soft = torch.nn.functional.softplus
    for i in range(4):
        z = rng.latents(state.key, state.step, 0, 0, jnp.arange(4), 3)
        data = {"a": {"image": jnp.array(pixels)}}
        rows = input.gather(data, jnp.int32(i), 4, jnp.arange(4), config.seed)["a"]["image"]
        real = torch.tensor(np.asarray(rows, np.float32) / 127.5 - 1).reshape(4, -1)
        shared = {"data": data, "constants": {}}
        state, _ = step(state, shared, {"device": jnp.int32(0)})
        tz = torch.tensor(np.asarray(z))
        loss = soft(-(real @ td)).mean() + soft((tz @ tg).detach() @ td).mean()
        opt["d"].zero_grad()
        loss.backward()
        opt["d"].step()
        loss = soft(-((tz @ tg) @ td)).mean()
        opt["g"].zero_grad()
        loss.backward()
        opt["g"].step()
    np.testing.assert_allclose(state.params["d"], td.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.params["g"], tg.detach(), rtol=1e-5, atol=1e-6)
    assert np.abs(np.asarray(state.params["g"]) - weights["g"]).max() > 1e-4


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "sgd", "sgd with momentum"])
def test_optimizers_equal_pytorch(name):
    torch = pytest.importorskip("torch")
    settings = Optimizer(
        name=name.split()[0],
        learning_rate=1e-2,
        b1=0.5,
        b2=0.9,
        decay=0.8,
        epsilon=1e-6,
        momentum=0.7 if "momentum" in name else 0.0,
        weight_decay=0.1,
    )
    w = np.random.default_rng(0).normal(size=7).astype("f")
    peer = torch.tensor(w, requires_grad=True)
    make = {
        "adam": lambda: torch.optim.Adam([peer], 1e-2, (0.5, 0.9), 1e-6),
        "adamw": lambda: torch.optim.AdamW([peer], 1e-2, (0.5, 0.9), 1e-6, 0.1),
        "rmsprop": lambda: torch.optim.RMSprop([peer], 1e-2, 0.8, 1e-6),
        "sgd": lambda: torch.optim.SGD([peer], 1e-2),
        "sgd with momentum": lambda: torch.optim.SGD([peer], 1e-2, 0.7),
    }
    theirs, ours = make[name](), settings.build()
    state, params = ours.init(jnp.array(w)), jnp.array(w)
    for i in range(6):
        grads, state = ours.update(jnp.sin(params + i), state, params)
        params = params - settings.rate(jnp.int32(i)) * grads
        theirs.zero_grad()
        (-torch.cos(peer + i)).sum().backward()
        theirs.step()
    np.testing.assert_allclose(params, peer.detach(), rtol=1e-5, atol=1e-6)


def test_rmsprop_has_pytorchs_own_decay():
    """0.99, not Adam's b2."""
    torch = pytest.importorskip("torch")
    theirs = torch.optim.RMSprop([torch.zeros(1)]).defaults
    ours = Optimizer(name="rmsprop")
    assert (ours.decay, ours.epsilon) == (theirs["alpha"], theirs["eps"])


def test_lion_by_hand():
    """Chen et al. 2023, algorithm 2."""
    settings = Optimizer(name="lion", learning_rate=1e-2, b1=0.9, b2=0.8, weight_decay=0.1)
    ours = settings.build()
    w = np.random.default_rng(0).normal(size=7).astype("f")
    params, momentum = jnp.array(w), np.zeros_like(w)
    state = ours.init(params)
    for i in range(6):
        step, state = ours.update(jnp.sin(params + i), state, params)
        params = params - settings.rate(jnp.int32(i)) * step
        gradient = np.sin(w + i)
        sign = np.sign(0.9 * momentum + 0.1 * gradient)
        momentum = 0.8 * momentum + 0.2 * gradient
        w = w - 1e-2 * (sign + 0.1 * w)
    np.testing.assert_allclose(params, w, rtol=1e-5, atol=1e-6)


def test_boundaries_that_meet_each_lower_the_rate():
    settings = Optimizer(learning_rate=1.0, boundaries=(1000, 1010, 2000), unit="image")
    rates = [settings.in_steps(100, 64).rate(jnp.int32(step)) for step in (0, 16, 20, 40)]
    np.testing.assert_allclose(rates, [1, 0.01, 0.01, 0.001], rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, ""),
        ({"weight_decay": 0.1}, "weight_decay changes nothing: adam"),
        ({"name": "adamw", "weight_decay": 0.1}, ""),
        ({"name": "rmsprop", "momentum": 0.9}, "momentum changes nothing: rmsprop"),
        ({"name": "sgd", "momentum": 0.9}, ""),
        ({"final_share": 0.1}, "final_share changes nothing without decay_steps"),
        ({"final_share": 0.1, "final_b2": 0.9, "decay_steps": 5}, ""),
        ({"name": "sgd", "final_b2": 0.9, "decay_steps": 5}, "final_b2 changes nothing: sgd"),
    ],
)
def test_settings_that_nothing_reads_are_told(settings, said):
    assert "; ".join(Optimizer(**settings).unread()).startswith(said)
    assert bool(list(Optimizer(**settings).unread())) == bool(said)


def test_the_fingerprint_takes_every_type():
    """What a family of one's own carries may be a flag."""
    prints = {
        int(fingerprint({"x": jnp.asarray(leaf)}))
        for leaf in ([True, False], [False, True], [1, 0], np.float16([1, 0]), np.uint8([1, 0]))
    }
    # A flag is its bit, as the same integers are.
    assert len(prints) == 3


def test_learning_rate_schedule():
    settings = Optimizer(learning_rate=1.0, boundaries=(10, 20), decay_start=30, decay_steps=10)
    got = [float(settings.rate(jnp.int32(s))) for s in (0, 10, 20, 30, 35, 50)]
    np.testing.assert_allclose(got, [1, 0.1, 0.01, 0.01, 0.005, 0], rtol=1e-5, atol=1e-9)


def test_latents_depend_on_the_global_index_alone():
    key = rng.root_key(0)
    whole = rng.latents(key, jnp.int32(3), 0, 0, jnp.arange(8), 5)
    half = rng.latents(key, jnp.int32(3), 0, 0, jnp.arange(4, 8), 5)
    assert (np.asarray(whole[4:]) == np.asarray(half)).all()
    other = [
        rng.latents(key, jnp.int32(s), n, r, jnp.arange(8), 5)
        for s, n, r in [(4, 0, 0), (3, 1, 0), (3, 0, 1)]
    ]
    assert all(not np.allclose(whole, o) for o in other)
    assert abs(float(rng.latents(key, jnp.int32(0), 0, 0, jnp.arange(500), 20).std()) - 1) < 0.03


def test_a_steps_speed_does_not_count_what_compiles(monkeypatch):
    """Two dispatches of five steps, ten seconds each; 30 more compile before the first one."""
    never, clock, told = Every((), ()), [0.0], []
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    program = types.SimpleNamespace(
        intervals=Intervals(*[never] * 4), group=ALONE, total=99, length=5, compiling=0.0
    )
    files = types.SimpleNamespace(
        lines=lambda chunk, metrics, seconds: told.append(seconds), announce=lambda seconds: None
    )
    record, health = loop.Recorder(program, files, 0, Stop()), Health(-1, True, 0)
    for start_, compiles in ((0, 30), (5, 0), (10, 0)):
        clock[0] += compiles + 10
        program.compiling += compiles
        record(Chunk(start_, start_ + 5, 0, {}), {}, health, jnp.zeros(1))
    assert told == [2.0, 2.0]
