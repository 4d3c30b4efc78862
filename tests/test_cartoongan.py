"""CartoonGAN: its two phases, each term of its losses by hand, and its bits across the phases."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.cartoongan import (
    BARE,
    CONTENT,
    EXAMPLES,
    NO_FACES,
    D,
    G,
    batch_at,
    cross_entropy,
    d_by_hand,
    g_by_hand,
    gram,
    keys_at,
    maps,
    same_metrics,
    total_variation,
)
from oracles.cyclegan import Identity
from tiny import (
    CARTOON,
    CYCLE,
    arrays,
    digests,
    packed,
    run_steps,
    with_features,
)

from anigan_jax import rng
from anigan_jax.data import edges as transforms
from anigan_jax.errors import UserError
from anigan_jax.methods.cartoongan import CartoonGame, CartoonGAN
from anigan_jax.perceptual import landmarks
from anigan_jax.perceptual.landmarks import Landmarks
from anigan_jax.state import init_state
from anigan_jax.training import input


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
    method, constants = config.method.make(), config.method.constants(pack)
    state = jax.eval_shape(lambda: init_state(config, method, constants))
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


# --- terms by hand


@pytest.mark.long
def test_the_first_phase_learns_content_alone(config, pack, path):
    """Its loss by hand at each step; D, its statistics and its optimizer stay bit for bit."""
    states, lines = path(0, CONTENT)
    for step, (now, after, line) in enumerate(zip(states[:-1], states[1:], lines, strict=True)):
        batch = batch_at(config, pack, step, now)
        photo = batch["a"]["image"]
        made = G(now.params["g"], photo)
        content = np.abs(maps(batch, made) - maps(batch, photo)).mean()
        same_metrics(line, {"loss/content": content, "loss/g": 10 * content})
        assert set(line) == {"loss/content", "loss/g", "gradient/g", "fingerprint"}
        for part in ("params", "stats", "opt_state"):
            assert digests(getattr(after, part)["d"]) == digests(getattr(states[0], part)["d"])
        assert digests(after.params["g"]) != digests(now.params["g"])
        assert after.opt_state["g"].count == after.step == step + 1
    # The way down is the gradient's: 4 steps of Adam lower the content loss of one batch.
    batch = batch_at(config, pack, 0, states[0])
    photo = batch["a"]["image"]
    before, after = (
        np.abs(maps(batch, G(s.params["g"], photo)) - maps(batch, photo)).mean()
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
        assert set(line) == {*want, "gradient/d", "gradient/g", "fingerprint"}
        for player in "gd":
            assert digests(after.params[player]) != digests(now.params[player])
        assert after.opt_state["g"].count == CONTENT + i + 1
        assert after.opt_state["d"].count == i + 1


@pytest.mark.long
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


@pytest.mark.long
def test_an_identity_map_keeps_everything(folder, pack, first):
    """Landmarks, content, grey and color of G(a) = a are those of a; style and GAN remain."""
    config = with_features(CARTOON, folder)
    state = first
    batch = batch_at(config, pack, 0, state)
    # Weights are powers of two, so that each shows in the total.
    settings = dataclasses.replace(
        config.method, adversarial=0.5, style=2.0, total_variation=4.0, edge=0.25
    )
    identity = of_game(settings, both, lambda game: setattr(game, "g", Identity()))
    d, g = jax.device_get(identity(state, batch, keys_at(state)))
    for name in ("landmark", "content", "grayscale", "color"):
        assert g[f"loss/{name}"] == 0
    photo = np.asarray(batch["a"]["image"], np.float64)
    terms = {
        "gan": cross_entropy(
            np.asarray(D(state.params["d"], batch["a"]["image"]), np.float64), True
        ),
        "style": np.abs(gram(maps(batch, photo)) - gram(maps(batch, batch["b"]["image"]))).mean(),
        "total_variation": total_variation(photo),
    }
    same_metrics(g, {f"loss/{name}": value for name, value in terms.items()})
    total = 0.5 * terms["gan"] + 2 * terms["style"] + 4 * terms["total_variation"]
    same_metrics(g, {"loss/g": total})
    # D's edges count by their weight.
    shown = (batch["b"][name] for name in ("image", "edges"))
    logits = [np.asarray(D(state.params["d"], x), np.float64) for x in shown]
    want = cross_entropy(logits[0], True) + 0.25 * cross_entropy(logits[1], False)
    fakes = cross_entropy(np.asarray(D(state.params["d"], batch["a"]["image"]), np.float64), False)
    same_metrics(d, {"loss/d": want + fakes})


@pytest.mark.long
def test_the_landmark_term_by_hand(folder, pack, first):
    """Mean distance of 68 points of two images in units of the side."""
    config = with_features(CARTOON, folder)
    state = first
    batch = batch_at(config, pack, 0, state)
    mirrored = lambda params, stats, images, *_, **__: (images[:, :, ::-1], stats)  # noqa: E731
    settings = dataclasses.replace(config.method, content=0.0, content_steps=0, style=0.0)
    run = of_game(
        settings,
        lambda game, *a: game.g_loss(a[0].params["g"], *a)[1].metrics,
        lambda game: setattr(game, "g", mirrored),
    )
    got = run(state, batch, keys_at(state))["loss/landmark"]
    net, params = Landmarks(), landmarks.face_landmarks()
    points = jax.jit(lambda x: net.apply({"params": params}, x))
    here = np.asarray(points((batch["a"]["image"] + 1) / 2 * 255), np.float64) / 16
    there = np.asarray(points((batch["a"]["image"][:, :, ::-1] + 1) / 2 * 255), np.float64) / 16
    assert here.shape == (8, 68, 2)
    np.testing.assert_allclose(got, np.abs(here - there).mean(), rtol=1e-4)
    assert got > 0.01


@pytest.mark.long
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
    other = run(state, {**batch, "b": {"image": -batch["b"]["image"]}})[0][0]
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


def metrics_of(settings, constants, edges=True):
    """Names of the metrics of D's and G's losses, from shapes alone."""
    config = dataclasses.replace(CARTOON, method=settings)
    method = settings.make(None)
    state = jax.eval_shape(lambda held: init_state(config, method, held), constants)
    image = jax.ShapeDtypeStruct((8, 16, 16, 3), jnp.float32)
    cartoons = {"image": image, **({"edges": image} if edges else {})}
    batch = {"a": {"image": image}, "b": cartoons, "constants": constants}
    return set().union(
        *jax.eval_shape(lambda s, b: both(CartoonGame(settings, None), s, b, None), state, batch)
    )


def test_terms_without_a_weight_cost_nothing(pack):
    """Neither their arrays nor their metrics are there."""
    assert BARE.constants(pack) == {}
    assert {d: set(x) for d, x in BARE.inputs(pack).items()} == {"b": {"image"}}
    assert [phase.name for phase in BARE.make(None).phases] == ["train"]
    judged = {"loss/d", "score/real", "score/fake", "accuracy/d"}
    # There are no constants here: what would look for features would fail.
    assert metrics_of(BARE, {}, edges=False) == {*judged, "loss/g", "loss/gan"}


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["content", "style", "landmark", "grayscale", "color", "total_variation"]
)
def test_each_weight_brings_its_term(folder, pack, name):
    settings = dataclasses.replace(
        BARE, **{name: 1.0}, features=with_features(CARTOON, folder).method.features
    )
    constants = settings.constants(pack)
    kinds = {path.split("/")[0] for path in constants}
    wanted = {"content": {"vgg"}, "style": {"vgg"}, "landmark": {"landmarks"}}
    assert kinds == wanted.get(name, set())
    assert metrics_of(settings, constants) - metrics_of(BARE, {}) == {f"loss/{name}"}


def test_only_the_convolutions_up_to_the_layer_are_constants(config, pack):
    names = {path.split("/")[1] for path in config.method.constants(pack)}
    assert names == {"conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1"}


# --- the data


def test_edges_are_those_of_their_cartoons(pack):
    """Rows of one order, mirrored together."""
    data = input.rows(CARTOON, pack)
    assert {d: set(x) for d, x in data.items()} == {"a": {"image"}, "b": {"image", "edges"}}
    held = jax.tree.map(jnp.asarray, dict(data))
    changed = 0
    for draw in range(4):
        rows = input.gather(held, jnp.int32(draw), 8, EXAMPLES, CARTOON.seed)
        for image, edges in zip(rows["b"]["image"], rows["b"]["edges"], strict=True):
            np.testing.assert_array_equal(edges, transforms.smooth_edges(np.asarray(image)))
            changed += (np.asarray(image) != np.asarray(edges)).any()
        key = rng.root_key(CARTOON.seed)
        batch = input.to_batch(rows, key, jnp.int32(draw), EXAMPLES, True)
        straight = input.to_batch(rows, key, jnp.int32(draw), EXAMPLES, False)
        turned = {
            name: (np.asarray(batch["b"][name]) != np.asarray(straight["b"][name])).any((1, 2, 3))
            for name in ("image", "edges")
        }
        np.testing.assert_array_equal(turned["image"], turned["edges"])
        for i in np.flatnonzero(turned["edges"]):
            np.testing.assert_array_equal(
                batch["b"]["edges"][i], straight["b"]["edges"][i][:, ::-1]
            )
        assert turned["image"].any()
        assert not turned["image"].all()
    assert changed > 25


def test_a_pack_without_edges_is_refused(tmp_path):
    bare = packed(CYCLE, tmp_path)
    with pytest.raises(UserError, match="edges"):
        input.rows(CARTOON, bare)
    rows = input.rows(dataclasses.replace(CARTOON, method=BARE), bare)
    assert {d: set(x) for d, x in rows.items()} == {"a": {"image"}, "b": {"image"}}
