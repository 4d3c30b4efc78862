"""CartoonGAN: its two phases, each term of its losses by hand, and its bits across the phases."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_cyclegan import Identity
from test_exact import leaves, ledger
from tiny import (
    CARTOON,
    CYCLE,
    anigan,
    arrays,
    digests,
    packed,
    process_env,
    run_steps,
    with_features,
    write_config,
)

from anigan_jax import rng
from anigan_jax.data import edges as transforms
from anigan_jax.errors import UserError
from anigan_jax.methods.cartoongan import CartoonGame, CartoonGAN, Features
from anigan_jax.networks import cartoon, resnet
from anigan_jax.perceptual import landmarks
from anigan_jax.perceptual.landmarks import Landmarks
from anigan_jax.runtime import devices as parallel
from anigan_jax.state import init_state
from anigan_jax.storage import checkpoint
from anigan_jax.training import input, loop, program

EXAMPLES = jnp.arange(CARTOON.batch_size, dtype=jnp.int32)
CONTENT = CARTOON.method.content_steps
# The landmark network takes most of a step's compilation; its term is tested on its own.
NO_FACES = dataclasses.replace(CARTOON, method=dataclasses.replace(CARTOON.method, landmark=0.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cartoon")


@pytest.fixture(scope="module")
def pack(folder):
    return packed(CARTOON, folder)


@pytest.fixture(scope="module")
def config(folder):
    return with_features(NO_FACES, folder)


@pytest.fixture(scope="module")
def first(config, pack):
    """A first state whose weights NumPy draws: the compilation of the initial ones is saved."""
    method, frozen = config.method.make(None), config.method.frozen(pack)
    state = jax.eval_shape(lambda: init_state(config, method, frozen))
    draws = np.random.default_rng(0)

    def one(where, leaf):
        spread = 0.02 if "kernel" in jax.tree_util.keystr(where) else 0.0
        return (spread * draws.normal(size=leaf.shape)).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(one, state.params)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state.opt_state)
    return state.replace(
        step=np.int32(0),
        key=np.asarray(rng.root_key(config.seed)),
        params=params,
        opt_state=zeros,
        ema=params["g"],
        frozen=frozen,
    )


@pytest.fixture(scope="module")
def path(config, pack, first):
    """A function of two steps: states from before the one until after the other, and metrics."""
    data, states, lines = arrays(config, pack), [first], []

    def until(start, stop):
        while len(lines) < stop:
            state, metrics = run_steps(config, data, states[-1], 1)
            states.append(state)
            lines.append({name: value[0] for name, value in metrics.items()})
        return states[start : stop + 1], lines[start:stop]

    return until


def batch_at(config, pack, step, state):
    held, draw = jax.tree.map(jnp.asarray, arrays(config, pack)), jnp.int32(step)
    rows = input.gather(held, draw, config.batch_size, EXAMPLES, config.seed)
    return input.to_batch(rows, jnp.asarray(state.key), draw, EXAMPLES, config.flip)


def keys_at(state):
    none = jnp.zeros((len(EXAMPLES), 0))
    return rng.update_keys(jnp.asarray(state.key), jnp.int32(0), 0, 0, EXAMPLES, none)


# --- terms by hand


def compiled_networks():
    def run(net):
        return jax.jit(lambda params, x: net.apply({"params": params}, x, train=True))

    g = resnet.generator(CARTOON.method.generator)
    return run(g), run(cartoon.discriminator(CARTOON.method.discriminator))


G, D = compiled_networks()


@jax.jit
def conv3_1(frozen, images):
    """VGG16's conv3_1 before its ReLU, of images in [-1, 1] normalized as ImageNet's."""
    mean, deviation = jnp.array([0.485, 0.456, 0.406]), jnp.array([0.229, 0.224, 0.225])
    x = ((images + 1) / 2 - mean) / deviation
    for name in ("conv1_1", "conv1_2", "pool", "conv2_1", "conv2_2", "pool", "conv3_1"):
        if name == "pool":
            window = (1, 2, 2, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
            continue
        layout = ("NHWC", "HWIO", "NHWC")
        kernel = frozen[f"vgg/{name}/kernel"]
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
        x = x + frozen[f"vgg/{name}/bias"]
        x = x if name == "conv3_1" else jnp.maximum(x, 0)
    return x


def maps(state, images):
    return np.asarray(conv3_1(state.frozen, jnp.asarray(images, jnp.float32)), np.float64)


def gram(features):
    flat = features.reshape(len(features), -1, features.shape[-1])
    return np.stack([f.T @ f / f.size for f in flat])


def luminance(images):
    return images @ np.array([0.299, 0.587, 0.114])


def color(one, other):
    gap = one - other
    y = luminance(gap)
    uv = np.stack([0.436 / 0.886 * (gap[..., 2] - y), 0.615 / 0.701 * (gap[..., 0] - y)])
    huber = np.where(np.abs(uv) <= 1, uv**2 / 2, np.abs(uv) - 0.5)
    return np.abs(y).mean() + huber.sum(0).mean()


def total_variation(images):
    return sum((np.diff(images, axis=axis) ** 2).mean() for axis in (1, 2))


def cross_entropy(logits, real):
    return np.logaddexp(0, -logits if real else logits).mean()


def sigmoid(logits):
    return (1 / (1 + np.exp(-logits))).mean()


def g_by_hand(state, d, batch):
    """Metrics of G's update under the discriminator d; all terms but landmarks."""
    photo = np.asarray(batch["real"], np.float64)
    made = np.asarray(G(state.params["g"], batch["real"]), np.float64)
    wanted = gram(maps(state, batch["real_b"]))
    found = {
        "gan": cross_entropy(np.asarray(D(d, jnp.asarray(made, jnp.float32)), np.float64), True),
        "content": np.abs(maps(state, made) - maps(state, photo)).mean(),
        "style": np.abs(gram(maps(state, made)) - wanted).mean(),
        "grayscale": np.abs(luminance(made) - luminance(photo)).mean(),
        "color": color(made, photo),
        "total_variation": total_variation(made),
    }
    weighted = sum((10 if name == "content" else 1) * value for name, value in found.items())
    return {"loss/g": weighted, **{f"loss/{name}": value for name, value in found.items()}}


def d_by_hand(state, batch, edge=1.0):
    made = G(state.params["g"], batch["real"])
    inputs = {"real": batch["real_b"], "fake": made, "edges": batch["edges_b"]}
    logits = {n: np.asarray(D(state.params["d"], x), np.float64) for n, x in inputs.items()}
    loss = cross_entropy(logits["real"], True) + cross_entropy(logits["fake"], False)
    right = (logits["real"] > 0).mean() + (logits["fake"] < 0).mean()
    return {
        "loss/d": loss + edge * cross_entropy(logits["edges"], False),
        **{f"score/{name}": sigmoid(values) for name, values in logits.items()},
        "accuracy/d": right / 2,
    }


def same_metrics(got, want, rtol=5e-5):
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=rtol, atol=1e-6, err_msg=name)


def test_the_first_phase_learns_content_alone(config, pack, path):
    """Its loss by hand at each step; D, its statistics and its optimizer stay bit for bit."""
    states, lines = path(0, CONTENT)
    for step, (now, after, line) in enumerate(zip(states[:-1], states[1:], lines, strict=True)):
        photo = batch_at(config, pack, step, now)["real"]
        made = G(now.params["g"], photo)
        content = np.abs(maps(now, made) - maps(now, photo)).mean()
        same_metrics(line, {"loss/content": content, "loss/g": 10 * content})
        assert set(line) == {"loss/content", "loss/g", "gradient/g", "fingerprint", "bad"}
        for part in ("params", "stats", "opt_state"):
            assert digests(getattr(after, part)["d"]) == digests(getattr(states[0], part)["d"])
        assert digests(after.params["g"]) != digests(now.params["g"])
        assert after.opt_state["g"].count == after.step == step + 1
    # The way down is the gradient's: 4 steps of Adam lower the content loss of one batch.
    photo = batch_at(config, pack, 0, states[0])["real"]
    before, after = (
        np.abs(maps(s, G(s.params["g"], photo)) - maps(s, photo)).mean()
        for s in (states[0], states[CONTENT])
    )
    assert after < before


@pytest.mark.slow
def test_the_second_phase_moves_both_by_their_losses(config, pack, path):
    """D learns first; G is judged by the D that has learned."""
    states, lines = path(CONTENT, CONTENT + 3)
    for i, (now, after, line) in enumerate(zip(states[:-1], states[1:], lines, strict=True)):
        batch = batch_at(config, pack, CONTENT + i, now)
        want = d_by_hand(now, batch) | g_by_hand(now, after.params["d"], batch)
        same_metrics(line, want)
        assert set(line) == {*want, "gradient/d", "gradient/g", "fingerprint", "bad"}
        for player in "gd":
            assert digests(after.params[player]) != digests(now.params[player])
        assert after.opt_state["g"].count == CONTENT + i + 1
        assert after.opt_state["d"].count == i + 1
    assert digests(states[-1].frozen) == digests(states[0].frozen)


def test_each_term_by_hand(config, pack, first):
    """The losses alone, before any step."""
    batch = batch_at(config, pack, 0, first)
    d, g = jax.device_get(of_game(config.method, both)(first, batch, keys_at(first)))
    want = d_by_hand(first, batch), g_by_hand(first, first.params["d"], batch)
    for got, wanted in zip((d, g), want, strict=True):
        same_metrics(got, wanted)
        assert set(got) == set(wanted)


def of_game(settings, run, change=lambda game: None):
    """A compiled function of a game's losses."""
    game = CartoonGame(settings, None)
    change(game)
    return jax.jit(lambda *arguments: run(game, *arguments))


def both(game, state, batch, keys):
    """Metrics of D's loss and of G's."""
    _, d = game.d_loss(state.params["d"], state, batch, keys)
    _, g = game.g_loss(state.params["g"], state, batch, keys)
    return d.metrics, g.metrics


def test_an_identity_map_keeps_everything(folder, pack, first):
    """Landmarks, content, grey and color of G(a) = a are those of a; style and GAN remain."""
    config = with_features(CARTOON, folder)
    state = first.replace(frozen=config.method.frozen(pack))
    batch = batch_at(config, pack, 0, state)
    # Weights are powers of two, so that each shows in the total.
    settings = dataclasses.replace(
        config.method, adversarial=0.5, style=2.0, total_variation=4.0, edge=0.25
    )
    identity = of_game(settings, both, lambda game: setattr(game, "g", Identity()))
    d, g = jax.device_get(identity(state, batch, keys_at(state)))
    for name in ("landmark", "content", "grayscale", "color"):
        assert g[f"loss/{name}"] == 0
    photo = np.asarray(batch["real"], np.float64)
    terms = {
        "gan": cross_entropy(np.asarray(D(state.params["d"], batch["real"]), np.float64), True),
        "style": np.abs(gram(maps(state, photo)) - gram(maps(state, batch["real_b"]))).mean(),
        "total_variation": total_variation(photo),
    }
    same_metrics(g, {f"loss/{name}": value for name, value in terms.items()})
    total = 0.5 * terms["gan"] + 2 * terms["style"] + 4 * terms["total_variation"]
    same_metrics(g, {"loss/g": total})
    # D's edges count by their weight.
    logits = [np.asarray(D(state.params["d"], batch[n]), np.float64) for n in ("real_b", "edges_b")]
    want = cross_entropy(logits[0], True) + 0.25 * cross_entropy(logits[1], False)
    fakes = cross_entropy(np.asarray(D(state.params["d"], batch["real"]), np.float64), False)
    same_metrics(d, {"loss/d": want + fakes})


def test_the_landmark_term_by_hand(folder, pack, first):
    """Mean distance of 68 points of two images in units of the side."""
    config = with_features(CARTOON, folder)
    state = first.replace(frozen=config.method.frozen(pack))
    batch = batch_at(config, pack, 0, state)
    mirrored = lambda params, stats, images, train=True: (images[:, :, ::-1], stats)  # noqa: E731
    settings = dataclasses.replace(config.method, content=0.0, content_steps=0, style=0.0)
    run = of_game(
        settings,
        lambda game, *a: game.g_loss(a[0].params["g"], *a)[1].metrics,
        lambda game: setattr(game, "g", mirrored),
    )
    got = run(state, batch, keys_at(state))["loss/landmark"]
    net, params = Landmarks(), landmarks.face_landmarks()
    points = jax.jit(lambda x: net.apply({"params": params}, x))
    here = np.asarray(points((batch["real"] + 1) / 2 * 255), np.float64) / 16
    there = np.asarray(points((batch["real"][:, :, ::-1] + 1) / 2 * 255), np.float64) / 16
    assert here.shape == (8, 68, 2)
    np.testing.assert_allclose(got, np.abs(here - there).mean(), rtol=1e-4)
    assert got > 0.01


def test_style_compares_g_of_a_with_cartoons(config, pack, first):
    """It has a gradient with respect to G, and follows the cartoons."""
    state = first
    batch = batch_at(config, pack, 0, state)
    settings = CartoonGAN(
        generator=config.method.generator,
        discriminator=config.method.discriminator,
        features=config.method.features,
        adversarial=0.0,
        content=0.0,
        content_epochs=0,
        style=1.0,
    )

    def loss(game, state, batch):
        def run(params):
            total, aux = game.g_loss(params, state, batch, keys_at(state))
            return total, aux.metrics

        return jax.value_and_grad(run, has_aux=True)(state.params["g"])

    run = of_game(settings, loss)
    (total, metrics), gradient = run(state, batch)
    assert set(metrics) == {"loss/g", "loss/gan", "loss/style"}
    assert total == metrics["loss/style"] == metrics["loss/g"]
    rgb = gradient["rgb"]["weight"]["kernel"]
    assert np.abs(rgb).max() > 1e-6
    # Against a difference along the gradient.
    size = float(jnp.sum(rgb**2) ** 0.5)
    values = []
    for sign in (1, -1):
        params = dict(state.params["g"])
        kernel = params["rgb"]["weight"]["kernel"] + sign * 1e-3 * rgb / size
        params["rgb"] = {**params["rgb"], "weight": {"kernel": kernel}}
        moved = state.replace(params={**state.params, "g": params})
        values.append(float(run(moved, batch)[0][0]))
    np.testing.assert_allclose((values[0] - values[1]) / 2e-3, size, rtol=5e-2)
    # Other cartoons are another style.
    other = run(state, {**batch, "real_b": -batch["real_b"]})[0][0]
    assert abs(other - total) > 0.1 * total


def test_fakes_are_constants_to_d(config, pack, first):
    state = first
    batch = batch_at(config, pack, 0, state)

    def gradient(game, g, state, batch):
        def loss(g):
            seen = state.replace(params={**state.params, "g": g})
            return game.d_loss(state.params["d"], seen, batch, keys_at(state))[0]

        return jax.grad(loss)(g)

    found = of_game(config.method, gradient)(state.params["g"], state, batch)
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(found))


# --- what is left out


BARE = dataclasses.replace(
    CARTOON.method,
    content=0.0,
    content_steps=0,
    style=0.0,
    landmark=0.0,
    grayscale=0.0,
    color=0.0,
    total_variation=0.0,
    edge=0.0,
)


def metrics_of(settings, frozen, edges=True):
    """Names of the metrics of D's and G's losses, from shapes alone."""
    config = dataclasses.replace(CARTOON, method=settings)
    method = settings.make(None)
    state = jax.eval_shape(lambda held: init_state(config, method, held), frozen)
    image = jax.ShapeDtypeStruct((8, 16, 16, 3), jnp.float32)
    batch = {"real": image, "real_b": image, **({"edges_b": image} if edges else {})}
    return set().union(
        *jax.eval_shape(lambda s, b: both(CartoonGame(settings, None), s, b, None), state, batch)
    )


def test_terms_without_a_weight_cost_nothing(pack):
    """Neither their arrays nor their metrics are there."""
    assert BARE.frozen(pack) == {}
    assert set(BARE.inputs(pack)) == {"images_b"}
    assert [phase.name for phase in BARE.make(None).phases] == ["train"]
    judged = {"loss/d", "score/real", "score/fake", "accuracy/d"}
    # Nothing is frozen here: what would look for features would fail.
    assert metrics_of(BARE, {}, edges=False) == {*judged, "loss/g", "loss/gan"}


@pytest.mark.parametrize(
    "name", ["content", "style", "landmark", "grayscale", "color", "total_variation"]
)
def test_each_weight_brings_its_term(folder, pack, name):
    settings = dataclasses.replace(
        BARE, **{name: 1.0}, features=with_features(CARTOON, folder).method.features
    )
    frozen = settings.frozen(pack)
    kinds = {path.split("/")[0] for path in frozen}
    wanted = {"content": {"vgg"}, "style": {"vgg"}, "landmark": {"landmarks"}}
    assert kinds == wanted.get(name, set())
    assert metrics_of(settings, frozen) - metrics_of(BARE, {}) == {f"loss/{name}"}


def test_only_the_convolutions_up_to_the_layer_are_frozen(config, pack):
    names = {path.split("/")[1] for path in config.method.frozen(pack)}
    assert names == {"conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1"}


# --- phases


def test_phases_end_by_steps_and_by_epochs():
    def ends(total, **lengths):
        settings = dataclasses.replace(CARTOON.method, content_steps=0, content_epochs=0)
        settings = dataclasses.replace(settings, **lengths)
        phases = settings.make(None).phases
        assert [p.name for p in phases] == ["content", "train"][-len(phases) :]
        return program.ends(phases, total, 5)

    assert ends(40, content_steps=4) == [4, 40]
    assert ends(40, content_epochs=3) == [15, 40]
    # Steps override epochs.
    assert ends(40, content_steps=4, content_epochs=3) == [4, 40]
    assert ends(40) == [40]
    # A run that ends within its first phase.
    assert ends(10, content_epochs=3) == [10, 10]


@pytest.mark.parametrize(
    ("content", "length"),
    [
        ({"content_steps": 4}, 4),
        ({"content_steps": 6}, 6),
        ({"content_steps": 5}, 1),
        ({"content_steps": 0, "content_epochs": 1}, 1),
        ({"content_steps": 12}, 6),
    ],
)
def test_a_dispatch_does_not_reach_over_the_phases(config, pack, content, length):
    """44 images in batches of 8: an epoch has 5 steps."""
    method = dataclasses.replace(config.method, **content)
    run = dataclasses.replace(
        config.run, steps=24, steps_per_dispatch=7, sample_every=12, checkpoint_every=24, devices=1
    )
    frozen = method.frozen(pack)
    session = program.prepare(dataclasses.replace(config, method=method, run=run), pack, frozen)
    assert session.length == length
    assert session.total == 24


# --- the data


def test_edges_are_those_of_their_cartoons(pack):
    """Rows of one order, mirrored together."""
    data = arrays(CARTOON, pack)
    assert set(data) == {"images", "images_b", "edges_b"}
    held = jax.tree.map(jnp.asarray, data)
    changed = 0
    for draw in range(4):
        rows = input.gather(held, jnp.int32(draw), 8, EXAMPLES, CARTOON.seed)
        for image, edges in zip(rows["images_b"], rows["edges_b"], strict=True):
            np.testing.assert_array_equal(edges, transforms.smooth_edges(np.asarray(image)))
            changed += (np.asarray(image) != np.asarray(edges)).any()
        key = rng.root_key(CARTOON.seed)
        batch = input.to_batch(rows, key, jnp.int32(draw), EXAMPLES, True)
        straight = input.to_batch(rows, key, jnp.int32(draw), EXAMPLES, False)
        turned = {
            name: (np.asarray(batch[name]) != np.asarray(straight[name])).any((1, 2, 3))
            for name in ("real", "real_b", "edges_b")
        }
        np.testing.assert_array_equal(turned["real_b"], turned["edges_b"])
        for i in np.flatnonzero(turned["edges_b"]):
            np.testing.assert_array_equal(batch["edges_b"][i], straight["edges_b"][i][:, ::-1])
        assert turned["real_b"].any()
        assert not turned["real_b"].all()
    assert changed > 25


def test_a_pack_without_edges_is_refused(tmp_path):
    bare = packed(CYCLE, tmp_path)
    with pytest.raises(UserError, match="edges"):
        input.rows(CARTOON, bare)
    assert set(input.rows(dataclasses.replace(CARTOON, method=BARE), bare)) == {
        "images",
        "images_b",
    }


# --- refusals


def test_absent_features_are_told_with_the_command_before_a_run_is_made(pack, tmp_path):
    features = dataclasses.replace(CARTOON.method.features, path=str(tmp_path / "none"))
    method = dataclasses.replace(CARTOON.method, features=features)
    with pytest.raises(UserError, match=r"no file .*none.*anigan weights"):
        method.frozen(pack)
    run = tmp_path / "run"
    with pytest.raises(UserError, match="anigan weights"):
        loop.train(dataclasses.replace(CARTOON, method=method), run, pack, "", [])
    assert not (run / "run.json").exists()
    assert {p.name for p in run.iterdir()} <= {"lock"}


@pytest.mark.parametrize(
    ("network", "layer"),
    [("vgg16", "conv9_9"), ("vgg16", "conv4_4"), ("vgg19", "pool1"), ("vgg19", "")],
)
def test_unknown_layers_are_refused(network, layer):
    method = dataclasses.replace(CARTOON.method, features=Features(network, layer=layer))
    with pytest.raises(UserError, match=f"{network.upper()} has no map"):
        method.check()
    dataclasses.replace(method, features=Features("vgg19", layer="relu4_4")).check()


@pytest.mark.parametrize(
    "length", [{"content_steps": 4}, {"content_steps": 0, "content_epochs": 2}]
)
def test_a_first_phase_without_content_is_refused(length):
    method = dataclasses.replace(CARTOON.method, content=0.0, **length)
    with pytest.raises(UserError, match=r"method\.content is 0.*content_epochs 0"):
        method.make(None)
    dataclasses.replace(method, content_steps=0, content_epochs=0).check()


def test_negative_lengths_are_refused():
    for change in ({"content_steps": -1}, {"content_epochs": -1}):
        with pytest.raises(UserError, match="0 or more"):
            dataclasses.replace(CARTOON.method, **change).check()


# --- a real run


@pytest.mark.slow
def test_a_run_that_is_cut_twice_equals_a_whole_one(folder, tmp_path):
    """Killed as the phases change, ended after the drop of the rate, lengthened, replayed."""
    assert (CONTENT, CARTOON.g.drops) == (4, (5,))
    config = write_config(tmp_path, "CARTOON")
    with_features(NO_FACES, folder)
    options = [
        *("--method.features.path", str(folder / "thin_vgg16.safetensors")),
        *("--method.landmark", "0", "--run.checkpoint-every", "2", "--run.sample-every", "4"),
    ]
    whole, cut = tmp_path / "whole", tmp_path / "cut"

    def command(run, steps, dispatch):
        lengths = ["--run.steps", str(steps), "--run.steps-per-dispatch", str(dispatch)]
        return ["train", str(config), "--workdir", str(run), *lengths, *options]

    done = anigan(*command(whole, 8, 2))
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen(
        [sys.executable, "-m", "anigan_jax", *command(cut, 8, 1)],
        env=process_env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    deadline = time.time() + 200
    while max(checkpoint.steps(cut / "checkpoints"), default=0) < CONTENT:
        assert time.time() < deadline, "no checkpoint appeared"
        assert process.poll() is None, process.stdout.read().decode()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=100)
    assert CONTENT <= max(checkpoint.steps(cut / "checkpoints")) < 8
    # Over the drop of the rate at step 5, whatever the kill had left, then to the end.
    for steps in (6, 8):
        done = anigan(*command(cut, steps, 1))
        assert done.returncode == 0, done.stderr
    assert ledger(cut) == ledger(whole)
    assert len(ledger(whole)) == 9
    for step in (6, 8):
        assert leaves(cut, step) == leaves(whole, step)
    done = anigan("replay", cut)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical through step 8" in done.stdout


@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_a_replay_reaches_beyond_the_first_length_of_a_run(tmp_path, monkeypatch, kind):
    """A run may be resumed with more steps; its record still has the first length."""
    config = with_features(CARTOON, tmp_path)
    run = dataclasses.replace(config.run, steps=3, feed=kind, steps_per_dispatch=1)
    config = dataclasses.replace(config, run=run)
    made = iter(("content", "train"))

    def name_of_phase(step, mapper, devices):
        name = next(made)
        return lambda state, shared, local: name

    monkeypatch.setattr(parallel, "map_step", name_of_phase)
    pack = packed(config, tmp_path / "cache")
    session = program.prepare(config, pack, config.method.frozen(pack))
    local = session.locals_from(0)
    names = [session.dispatch(at, None, next(local)) for at in range(7)]
    assert names == ["content"] * 4 + ["train"] * 3
