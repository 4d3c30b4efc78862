"""The benchmark's PyTorch peers compute what our methods compute."""

import dataclasses
import itertools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.resnet import nchw
from PIL import Image
from tiny import (
    CARTOON,
    CYCLE,
    NAMES,
    PLAIN,
    TEXT,
    draw,
    drawn,
    drawn_state,
    shrunk,
    thin_vgg,
    write_config,
)

from anigan_jax import rng
from anigan_jax.methods import augment
from anigan_jax.methods.schedule import Schedule, schedule_repeats
from anigan_jax.optimizers import Optimizer
from anigan_jax.perceptual.vgg import VGG
from anigan_jax.training import step as train_step

torch = pytest.importorskip("torch")

from anigan_jax.bench.torch import base, families, networks, train  # noqa: E402

# Maps this small are faster on one thread.
torch.set_num_threads(1)
EAGER = {"channels_last": False, "amp": False, "compiled": False, "device": "cpu"}
# What these networks are made of the steps below lack: dense and upsampling layers, an extra
# one, texts joined by concatenation or an inner product, biases left out, heads of 3x3, flat ones.
PLANS = (
    "csc412_keras_dcgan",
    "tsinghua_dcgan",
    "sjtu_text_gan",
    "anime_words",
    "tsinghua_cyclegan",
    "tsinghua_cartoongan",
)
UCSD_G = dataclasses.replace(PLAIN.method.generator, spectral=True, activation_first=True)
# Adam's epsilon is large, so that its update follows small gradients as smoothly as others.
SMOOTH = Optimizer(learning_rate=1e-3, epsilon=1e-3)


@pytest.fixture(autouse=True)
def small_and_seeded(monkeypatch):
    monkeypatch.setattr(base, "IMAGES", 12)
    torch.manual_seed(0)
    random.seed(0)


def agree(got, want, tolerance=1e-4):
    """Arrays agree, relative to the largest value."""
    got, want = (np.asarray(jax.tree.map(np.asarray, x), np.float64) for x in (got, want))
    assert got.shape == want.shape
    assert np.isfinite(want).all()
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


def split(variables):
    params = variables["params"]
    return params, {name: tree for name, tree in variables.items() if name != "params"}


def without_chance(config, **changes):
    """The config without dropout, flips, augmentation, and with a smooth optimizer."""
    method = config.method
    d = method.discriminator
    if getattr(d, "dropout", 0):
        method = dataclasses.replace(method, discriminator=dataclasses.replace(d, dropout=0.0))
    if getattr(method, "augment", ()):
        method = dataclasses.replace(method, augment=())
    method = dataclasses.replace(method, **changes)
    return dataclasses.replace(
        config, method=method, flip=False, optimizers={"g": SMOOTH, "d": SMOOTH}
    )


@pytest.mark.long
@pytest.mark.parametrize("player", ["generator", "discriminator"])
@pytest.mark.parametrize("name", PLANS)
def test_networks_equal_ours(name, player):
    """The same parameters give the same output in training mode, and the same statistics."""
    method = without_chance(shrunk(name)).method
    module, shapes = method.networks()[player]
    length = method.encoder.length if hasattr(method, "encoder") else 0
    x = draw(1, 4, *shapes[0][1:])
    texts = (draw(2, 4, length), draw(3, 4, length))[: 1 if player == "generator" else 2]
    inputs = (x, texts) if length else (x,)
    iterate = player == "discriminator"
    init = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, train=False))
    params, stats = split(drawn(init))
    ours = jax.jit(
        lambda variables, *inputs: module.apply(
            variables, *inputs, train=True, power_iterate=iterate, mutable=list(stats)
        )
    )
    want, after = ours({"params": params, **stats}, *inputs)
    peer = getattr(networks, player)(getattr(method, player), *((length,) if length else ()))
    networks.load(peer, params, stats)
    texts = tuple(torch.tensor(np.array(text)) for text in texts)
    got = peer(nchw(x), *((texts,) if length else ()), iterate=iterate)
    for one, other in zip(*((y if length else (y,)) for y in (got, want)), strict=True):
        one = one.detach().numpy()
        agree(one.transpose(0, 2, 3, 1) if one.ndim == 4 else one, other)
    moved = getattr(networks, player)(getattr(method, player), length)
    networks.load(moved, params, after)
    for (where, one), other in zip(peer.named_buffers(), moved.buffers(), strict=True):
        if where.endswith((".u", ".v", "running_mean")):
            agree(one, other)


@pytest.mark.parametrize(("depth", "tap"), [(16, "conv3_1"), (16, "relu2_2"), (19, "conv4_4")])
@pytest.mark.parametrize("convention", ["imagenet", "unit", "signed"])
def test_vgg_equals_ours(depth, tap, convention):
    arrays, images = thin_vgg(depth), draw(4, 2, 18, 18, 3)
    params = {}
    for path, array in arrays.items():
        name, leaf = path.split("/")
        params.setdefault(name, {})[leaf] = array
    (want,) = VGG(depth, (tap,), convention).apply({"params": params}, images)
    got = networks.VGG(depth, tap, convention, arrays)(nchw(images))
    agree(got.numpy().transpose(0, 2, 3, 1), want)


def test_random_vgg_keeps_the_scale():
    maps = networks.VGG(16, "conv3_1")(nchw(draw(5, 1, 16, 16, 3)))
    assert maps.shape == (1, 256, 4, 4)
    assert 0.1 < maps.std() < 10


def two_steps(config, inputs, constants):
    """(first state, states, metrics) of two steps by our step builder on one batch."""
    method, state = config.method.make(), drawn_state(config, constants)
    inputs = {**inputs, "constants": constants}
    examples = jnp.arange(config.batch_size, dtype=jnp.int32)
    step = train_step.make_train_step(config, method, method.phases[-1], None)
    run = jax.jit(lambda state, batch: step(state, lambda state, repeat: batch, examples))
    lines, first = [], state
    for _ in range(2):
        state, metrics = run(state, inputs)
        lines.append(metrics)
    return first, state, lines


def load(peer, player, params, stats):
    """Our parameters and collections of a player into the peer's network, or its two."""
    held = getattr(peer, player)
    if isinstance(held, torch.nn.ModuleDict):
        for name, network in held.items():
            networks.load(network, params[name], stats[name])
        return
    # A family that translates names its networks, even where a player has one.
    own = (params[player], stats[player]) if player in params else (params, stats)
    networks.load(held, *own)


def learned(peer, player):
    """Name -> array of all that steps change in a player but running statistics."""
    return {
        name: tensor.detach().numpy().copy()
        for name, tensor in getattr(peer, player).state_dict().items()
        if "running" not in name and "tracked" not in name
    }


def follow(config, inputs, batches, constants=None, **rest):
    """Two steps of a peer and of ours from the same weights, compared in all that they learn."""
    first, last, lines = two_steps(config, inputs, constants or {})
    peer = families.peer_of(config, **EAGER, **rest)
    for player in "gd":
        load(peer, player, first.params[player], first.stats[player])
    peer.average = [weight.detach().clone() for weight in peer.g.parameters()]
    for batch, metrics in zip(batches, lines, strict=True):
        found = peer.update(batch)
        peer.follow()
        assert {"loss/d", "loss/g"} <= set(found) <= set(metrics)
        for name, loss in found.items():
            agree(loss.numpy(), metrics[name])
    for player in "gd":
        before = learned(peer, player)
        load(peer, player, last.params[player], last.stats[player])
        for name, want in learned(peer, player).items():
            # A hundredth of an update.
            np.testing.assert_allclose(before[name], want, rtol=0, atol=1e-5, err_msg=name)
    load(peer, "g", last.ema, last.stats["g"])
    for got, want in zip(peer.average, peer.g.parameters(), strict=True):
        np.testing.assert_allclose(got, want.detach(), rtol=0, atol=1e-5)


def latents(config, step):
    """What our step draws for D's and G's update, (b, Z, 1, 1)."""
    examples = jnp.arange(config.batch_size, dtype=jnp.int32)
    z_dim = config.method.generator.z_dim
    z = rng.latents(rng.root_key(config.seed), jnp.int32(step), 0, 0, examples, z_dim)
    return torch.tensor(np.array(z))[:, :, None, None]


def torched(**domains):
    """Images (b, H, W, 3) by domain, as a peer's batch has them."""
    return {domain: {"image": nchw(x)} for domain, x in domains.items()}


def images(config, seed):
    return jnp.tanh(draw(seed, config.batch_size, config.method.size, config.method.size, 3))


@pytest.mark.long
@pytest.mark.parametrize(
    "changes",
    [
        {"real_label": 0.9, "d_scale": 0.5},
        {"split_d": True, "loss": "least_squares"},
        {"generator": UCSD_G},
        {"generator": dataclasses.replace(UCSD_G, self_modulation=6)},
    ],
)
def test_gan_steps_equal_ours(changes):
    config = without_chance(PLAIN, **changes)
    real = images(config, 6)
    batches = [{**torched(a=real), "z": latents(config, step)} for step in range(2)]
    follow(config, {"a": {"image": real}}, batches)


@pytest.mark.long
def test_text_gan_steps_equal_ours():
    config = without_chance(TEXT, loss="hinge")
    real, length = images(config, 7), config.method.encoder.length
    counts = jnp.ones(132)
    constants = {
        "counts": counts,
        "texts": draw(8, 132, 2, length),
        "wordings": jnp.full(132, 2),
    }
    keys = rng.example_keys(jax.random.key(3), jnp.arange(config.batch_size))
    label = jnp.stack([jnp.arange(config.batch_size), jnp.arange(config.batch_size)], 1)
    inputs = {"a": {"image": real, "label": label}, "keys": keys}
    texts = config.method.draw_texts({**inputs, "constants": constants})
    told = {name: torch.tensor(np.array(x)) for name, x in texts._asdict().items()}
    batches = [{**torched(a=real), "z": latents(config, step), **told} for step in range(2)]
    follow(config, inputs, batches, constants)


@pytest.mark.long
def test_cyclegan_steps_equal_ours():
    config = without_chance(CYCLE, pool=0)
    real = {"a": images(config, 9), "b": images(config, 10)}
    batch = torched(**real)
    follow(config, {domain: {"image": x} for domain, x in real.items()}, [batch, batch])


@pytest.mark.long
def test_cartoongan_steps_equal_ours():
    terms = {"landmark": 0.0, "grayscale": 0.0, "color": 0.0, "total_variation": 0.0}
    config = without_chance(CARTOON, edge=0.5, style=20.0, content=3.0, **terms)
    real, edges = {"a": images(config, 11), "b": images(config, 12)}, images(config, 13)
    batch, arrays = torched(**real), thin_vgg()
    batch["b"]["edges"] = nchw(edges)
    constants = {f"vgg/{name}": jnp.asarray(array) for name, array in arrays.items()}
    inputs = {"a": {"image": real["a"]}, "b": {"image": real["b"], "edges": edges}}
    follow(config, inputs, [batch, batch], constants, arrays=arrays)


def small(name):
    """A config at tiny width, and what its peer needs beside it."""
    config = shrunk(name)
    features = getattr(config.method, "features", None)
    return config, {"arrays": thin_vgg(19)} if features else {}


def finite(peer):
    values = [*peer.g.state_dict().values(), *peer.d.state_dict().values(), *peer.average]
    assert all(torch.isfinite(value).all() for value in values)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_every_config_has_a_peer(name):
    config, rest = small(name)
    if not config.method.has_generator or "r3gan" in name:
        with pytest.raises(ValueError, match="no peer of"):
            families.step_of(config, **EAGER)
        return
    peer = families.peer_of(config, **EAGER, **rest)
    before = {player: learned(peer, player) for player in "gd"}
    for _ in range(2):
        peer.step()
    finite(peer)
    for player, held in before.items():
        after = learned(peer, player)
        still = [k for k in held if "weight" in k and np.array_equal(held[k], after[k])]
        assert not still, "never updated"
    assert len(peer.average) == (len(list(peer.g.parameters())) if config.ema_half_life else 0)


@pytest.mark.parametrize(
    "name", ["anime_words", "anime_faces", "tsinghua_cyclegan", "tsinghua_cartoongan"]
)
def test_channels_last_under_autocast(name):
    config, rest = small(name)
    mode = {**EAGER, "channels_last": True, "amp": True}
    peer = families.peer_of(config, **mode, **rest)
    assert peer.batch()["a"]["image"].is_contiguous(memory_format=torch.channels_last)
    with peer.mode.autocast():
        out = peer.make(peer.conditions()) if hasattr(config.method, "encoder") else None
    assert out is None or out.dtype == torch.bfloat16
    peer.step()
    finite(peer)
    assert all(weight.dtype == torch.float32 for weight in peer.g.parameters())


@pytest.mark.long
@pytest.mark.parametrize("kind", ["as_printed", "as_argued"])
@pytest.mark.parametrize("correct", [0, 5, 11, 14, 16])
def test_dynamic_repeats_are_ours(kind, correct):
    schedule = Schedule(kind=kind)
    config = dataclasses.replace(
        PLAIN, method=dataclasses.replace(PLAIN.method, schedule=schedule, split_d=True)
    )
    peer = families.peer_of(config, **EAGER)
    counts = {"correct": jnp.int32(1), "judged": jnp.int32(2)}
    ours = schedule_repeats(schedule)[:2]
    assert peer.counts() == tuple(int(count(counts, 0)) for count in ours)
    peer.correct, peer.judged = torch.tensor(correct), 16
    counts = {"correct": jnp.int32(correct), "judged": jnp.int32(16)}
    want = tuple(int(count(counts, 0)) for count in ours)
    counted = []
    for player in "dg":
        own = peer.optimizers[player]
        own.register_step_post_hook(lambda *_, player=player: counted.append(player))
    peer.learn_once()
    assert peer.repeats == want
    # Each repeat of D is an update on reals and one on fakes.
    assert counted == ["d"] * 2 * want[0] + ["g"] * want[1]


def test_alternate_repeats_are_ours():
    schedule = Schedule(kind="alternate", d_steps=2, g_steps=1, g=2)
    config = dataclasses.replace(PLAIN, method=dataclasses.replace(PLAIN.method, schedule=schedule))
    peer = families.peer_of(config, **EAGER)
    found = []
    for _ in range(4):
        peer.step()
        found.append(peer.repeats)
    assert found == [(1, 0), (1, 0), (0, 2), (1, 0)]


def test_batches():
    config = dataclasses.replace(CARTOON, method=small("tsinghua_cartoongan")[0].method, flip=True)
    peer = families.peer_of(config, **EAGER, arrays=thin_vgg(19))
    peer.data["b"]["edges"] = 255 - peer.data["b"]["image"]
    batch = peer.batch()
    rows = {tuple(x.ravel().tolist()) for x in peer.data["a"]["image"]}
    mirrored = 0
    for image in ((batch["a"]["image"] + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1):
        flipped = tuple(image.ravel().tolist()) not in rows
        mirrored += flipped
        assert not flipped or tuple(image.flip(1).ravel().tolist()) in rows
    assert 0 < mirrored < config.batch_size
    # The same rows of the second domain, mirrored alike.
    torch.testing.assert_close(batch["b"]["edges"], -batch["b"]["image"])


def test_pool_shows_former_fakes_after_it_is_full():
    pool, size = [], 5
    values = torch.arange(1000.0).reshape(-1, 1, 1, 1)
    shown = torch.cat([base.exchange(pool, x, size) for x in values.split(8)])
    assert len(pool) == size
    assert torch.equal(shown[:size], values[:size])
    former = (shown != values)[size:].float().mean()
    assert 0.4 < former < 0.6
    held = torch.cat([*pool, shown]).flatten().sort().values
    # What is shown in place of a new one leaves the pool; the first are shown as they enter.
    assert set(held.tolist()) == set(range(1000))
    assert (shown <= values).all()


def test_translation_moves_by_an_eighth_at_most():
    x = torch.zeros(400, 1, 16, 16)
    x[:, :, 8, 8] = 1.0
    moved = base.translate(x)
    places = moved.flatten(1).argmax(1)
    rows, columns = places // 16 - 8, places % 16 - 8
    assert torch.equal(moved.sum((1, 2, 3)), torch.ones(400))
    assert {*rows.tolist()} == {*columns.tolist()} == set(range(-2, 3))
    assert len({*places.tolist()}) == 25


def test_recoloring_is_ours():
    x, keys = draw(14, 6, 8, 8, 3), jax.random.split(jax.random.key(2), 6)
    draws = jax.vmap(lambda key: jax.random.uniform(key, (7,)))(keys)[:, :3].T
    got = base.recolor(nchw(x), torch.tensor(np.array(draws)))
    agree(got.permute(0, 2, 3, 1), augment.diff_augment(x, keys, ("color",)), 1e-5)


def test_an_optimizer_that_pytorch_lacks_is_refused():
    config = dataclasses.replace(PLAIN, optimizers=dict.fromkeys("gd", Optimizer(name="lion")))
    with pytest.raises(ValueError, match="no peer of the optimizer 'lion'"):
        families.step_of(config, **EAGER)


@pytest.mark.parametrize(
    "changes",
    [{"r1": 1.0}, {"gradient_penalty": 10.0}, {"augment": ("cutout",)}, {"loss": "relativistic"}],
)
def test_what_has_no_peer_is_refused(changes):
    config = dataclasses.replace(PLAIN, method=dataclasses.replace(PLAIN.method, **changes))
    with pytest.raises(ValueError, match="no peer of"):
        families.step_of(config, **EAGER)


def test_a_peer_learns_from_real_images_for_some_seconds(monkeypatch):
    """All batches are of the given images, and its averaged weights draw."""
    peer = families.peer_of(dataclasses.replace(PLAIN, ema_half_life=50, flip=False), **EAGER)
    images = np.stack([np.full((16, 16, 3), shade, np.uint8) for shade in (0, 50, 255)])
    train.on_images(peer, images)
    seen = {float(x) for _ in range(9) for x in peer.batch()["a"]["image"].unique()}
    assert sorted(seen) == pytest.approx([-1, 50 / 127.5 - 1, 1])
    before = [weight.clone() for weight in peer.g.parameters()]
    clock = itertools.count()
    monkeypatch.setattr(train.time, "monotonic", lambda: next(clock))
    # A second for each look at the clock: a step after each but the last.
    assert train.train(peer, 3) == 3
    # And one before it, which compiles.
    assert peer.steps == 3
    assert any(not torch.equal(a, b) for a, b in zip(before, peer.g.parameters(), strict=True))
    means = [mean.clone() for mean in peer.average]
    made = train.samples(peer, 103)
    assert (made.shape, made.dtype) == ((103, 16, 16, 3), np.uint8)
    # Neither all alike nor the noise of one channel.
    assert made.std(0).max() > 0
    assert all(torch.equal(a, b) for a, b in zip(means, peer.g.parameters(), strict=True))


def test_the_peers_images_are_a_folder_that_can_be_judged(tmp_path, capsys):
    config, out = str(write_config(tmp_path, "PLAIN")), tmp_path / "out"
    words = [config, "--seconds", "0.1", "--n", "5", "--out", str(out), "--batch-size", "4"]
    assert train.main(words) == 0
    assert "steps of 4 in" in capsys.readouterr().out
    assert [Image.open(path).size for path in sorted(out.iterdir())] == [(16, 16)] * 5
    assert train.main(words) == 2
    assert "already exists" in capsys.readouterr().err
    cycle = str(write_config(tmp_path, "CYCLE"))
    assert train.main([cycle, *words[1:5], "--out", str(tmp_path / "other")]) == 2
    assert "does not make images from noise" in capsys.readouterr().err
