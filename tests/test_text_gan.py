"""The text GAN: the texts of a batch, its updates and their bits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TEXT, arrays, digests, packed, run_steps, start

from anigan_jax import losses, optimizers, rng
from anigan_jax.data.attributes import EYES
from anigan_jax.errors import UserError
from anigan_jax.methods import text_conditioning
from anigan_jax.methods.text_conditioning import Encoder, tables
from anigan_jax.methods.text_gan import TextGAN
from anigan_jax.networks import text as specs
from anigan_jax.training import input


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return packed(TEXT, tmp_path_factory.mktemp("cache"))


# --- texts of a batch


def keys_of(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def counts_of(cells):
    counts = np.zeros(132, np.float32)
    counts[list(cells)] = list(cells.values())
    return jnp.array(counts)


@pytest.mark.long
@pytest.mark.parametrize("rule", ["any", "one_part"])
def test_a_wrong_text_is_never_right_and_follows_the_data(rule):
    # 0 and 1 share their hair, 0 and 11 their eyes, 13 shares nothing with 0.
    counts = counts_of({0: 10, 1: 20, 11: 60, 13: 910})
    rows = text_conditioning.combinations({})
    own = jnp.zeros(4000, jnp.int32)
    drawn = text_conditioning.wrong_texts(rows, counts, own, keys_of(4000), rule)
    shares = np.bincount(drawn, minlength=14)[[0, 1, 11, 13]] / 4000
    want = [0, 20, 60, 910] if rule == "any" else [0, 20, 60, 0]
    np.testing.assert_allclose(shares, np.array(want) / sum(want), atol=0.03)
    assert shares[0] == 0
    # Where no neighbor exists the rule takes any other.
    far = text_conditioning.wrong_texts(rows, counts_of({0: 1, 13: 5}), own[:50], keys_of(50), rule)
    assert set(np.asarray(far).tolist()) == {13}


def test_two_texts_are_the_least(pack):
    same = np.zeros((8, 2), np.int32)
    with pytest.raises(UserError, match="two combinations"):
        tables(Encoder(), same)


def test_texts_are_those_of_the_labels(pack):
    constants = TEXT.method.constants(pack)
    labels = pack.labels("train")[:6]
    batch = {"a": {"label": jnp.array(labels)}, "keys": keys_of(6), "constants": constants}
    settings = dataclasses.replace(TEXT.method, int_beta=0.25)
    got = jax.jit(settings.draw_texts)(batch)
    for (hair, eyes), right, wrong, between in zip(labels, *got, strict=True):
        assert np.flatnonzero(right).tolist() == [hair, 12 + eyes]
        assert (wrong != right).any()
        other = (np.asarray(between) - 0.25 * np.asarray(right)) / 0.75
        assert np.flatnonzero(np.abs(other) > 1e-6).size == 2
        assert constants["counts"][pair_of(wrong)] > 0


def pair_of(two_hot) -> int:
    hair, eyes = np.flatnonzero(two_hot)
    return hair * len(EYES) + eyes - 12


@pytest.mark.long
def test_texts_do_not_depend_on_the_number_of_devices(pack):
    """The batch's texts, drawn whole and in four parts by global index: the same bits."""
    constants, data = TEXT.method.constants(pack), arrays(TEXT, pack)
    data = jax.tree.map(jnp.asarray, data)
    raw = rng.root_key(0)

    def part(start, count):
        examples = start + jnp.arange(count, dtype=jnp.int32)
        rows = input.gather(data, jnp.int32(3), 8, examples, 0)
        batch = input.to_batch(rows, raw, jnp.int32(3), examples, True)
        return TEXT.method.draw_texts({**batch, "constants": constants})

    whole = part(0, 8)
    parts = [part(i, 2) for i in (0, 2, 4, 6)]
    joined = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    assert digests(joined) == digests(jax.tree.map(np.asarray, whole))


@pytest.mark.long
def test_wordings_are_drawn_among_those_that_exist():
    texts = np.arange(2 * 3, dtype=np.float32).reshape(2, 3, 1)
    constants = {"texts": jnp.array(texts), "wordings": jnp.array([2, 3])}
    pair = jnp.array([0] * 300 + [1] * 300)
    got = np.asarray(text_conditioning.vectors(constants, pair, keys_of(600)))[:, 0]
    assert set(got[:300]) == {0, 1}
    assert set(got[300:]) == {3, 4, 5}
    assert abs((got[300:] == 4).mean() - 1 / 3) < 0.11


# --- updates


def losses_of(config, pack, **changes):
    """Metrics of the first step."""
    config = dataclasses.replace(config, method=dataclasses.replace(config.method, **changes))
    _, state = start(config, pack)
    _, metrics = run_steps(config, arrays(config, pack), state, 1)
    return {name: float(value[0]) for name, value in metrics.items()}


@pytest.mark.long
def test_weights_of_the_terms(pack):
    """D's loss is its terms by their weights: Reed's halves here, SJTU's sum there."""
    one = losses_of(PLAIN_TEXT, pack)
    assert one["loss/d"] == pytest.approx(
        one["loss/d_real"] + 0.5 * one["loss/d_wrong"] + 0.5 * one["loss/d_fake"], rel=1e-6
    )
    whole = losses_of(PLAIN_TEXT, pack, wrong_weight=1.0, fake_weight=1.0)
    for term in ("real", "wrong", "fake"):
        assert whole[f"loss/d_{term}"] == one[f"loss/d_{term}"]
    assert whole["loss/d"] == pytest.approx(
        whole["loss/d_real"] + whole["loss/d_wrong"] + whole["loss/d_fake"], rel=1e-6
    )


PLAIN_TEXT = dataclasses.replace(
    TEXT,
    ema_half_life=0,
    method=TextGAN(
        generator=specs.TextGenerator(z_dim=4, size=16, base_channels=4, text_dim=6),
        discriminator=specs.TextDiscriminator(
            size=16, base_channels=4, text_dim=6, batch_norm=False, first_norm=False
        ),
        wrong_weight=0.5,
        fake_weight=0.5,
    ),
)


@pytest.mark.long
def test_the_first_step_equals_its_losses_by_hand(pack):
    """Metrics of a compiled step against the networks and losses called one by one."""
    config = dataclasses.replace(
        PLAIN_TEXT, method=dataclasses.replace(PLAIN_TEXT.method, int_weight=0.5, int_beta=0.5)
    )
    _, state = start(config, pack)
    data = jax.tree.map(jnp.asarray, arrays(config, pack))
    examples = jnp.arange(8, dtype=jnp.int32)
    rows = input.gather(data, jnp.int32(0), 8, examples, config.seed)
    batch = input.to_batch(rows, state.key, jnp.int32(0), examples, config.flip)
    batch |= {"constants": config.method.constants(pack)}
    texts = config.method.draw_texts(batch)
    z = rng.latents(state.key, state.step, 0, 0, examples, 4)
    g, d = config.method.generator.build(), config.method.discriminator.build()

    def generate(words):
        variables = {"params": state.params["g"], **state.stats["g"]}
        (x,), _ = g.apply(
            variables, z[:, None, None], (words,), train=True, mutable=["batch_stats"]
        )
        return x

    def judge(params, x, words):
        return d.apply({"params": params}, x, (words,), train=True)[0].ravel()

    fake = generate(texts.right)
    before = state.params["d"]
    bce = losses.bce
    real_term = bce(judge(before, batch["a"]["image"], texts.right), 1.0).mean()
    wrong_term = bce(judge(before, batch["a"]["image"], texts.wrong), 0.0).mean()
    fake_term = bce(judge(before, fake, texts.right), 0.0).mean()
    end, metrics = run_steps(config, arrays(config, pack), state, 1)
    got = {name: float(value[0]) for name, value in metrics.items()}
    np.testing.assert_allclose(got["loss/d_real"], real_term, rtol=1e-5)
    np.testing.assert_allclose(got["loss/d_wrong"], wrong_term, rtol=1e-5)
    np.testing.assert_allclose(got["loss/d_fake"], fake_term, rtol=1e-5)
    # G is judged by the D that has just learned.
    after = end.params["d"]
    cls = bce(judge(after, fake, texts.right), 1.0).mean()
    between = bce(judge(after, generate(texts.between), texts.between), 1.0).mean()
    np.testing.assert_allclose(got["loss/g_between"], between, rtol=1e-5)
    np.testing.assert_allclose(got["loss/g"], cls + 0.5 * between, rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("loss", ["hinge", "relativistic"])
def test_a_loss_of_each_form_trains_finitely(pack, loss):
    """Each alone or in pairs, with R1; `test_unequal_weights` has the values of all."""
    got = losses_of(PLAIN_TEXT, pack, loss=loss, r1=1.0)
    assert all(np.isfinite(value) for value in got.values())


@pytest.mark.long
@pytest.mark.parametrize("g_steps", [1, 5])
def test_steps_of_g_for_each_of_d(pack, g_steps):
    """SJTU tried 1:1, 2:1 and 5:1: G's optimizer counts them."""
    schedule = dataclasses.replace(TEXT.method.schedule, kind="fixed", g=g_steps)
    method = dataclasses.replace(PLAIN_TEXT.method, schedule=schedule)
    config = dataclasses.replace(PLAIN_TEXT, method=method)
    _, state = start(config, pack)
    end, _ = run_steps(config, arrays(config, pack), state, 2)
    assert int(end.opt_state["g"].count) == 2 * g_steps
    assert int(end.opt_state["d"].count) == 2


@pytest.mark.long
def test_bits_do_not_depend_on_dispatch_or_mapper_and_repeat(pack):
    _, state = start(TEXT, pack)
    data = arrays(TEXT, pack)
    ends = [
        run_steps(TEXT, data, state, 4, length=1),
        run_steps(TEXT, data, state, 4, length=2, mapper="shard_map"),
    ]
    assert len({str(digests(end)) for end, _ in ends}) == 1
    prints = [metrics["fingerprint"].tolist() for _, metrics in ends]
    assert prints[0] == prints[1]


@pytest.mark.long
def test_four_devices_agree_with_one(pack):
    """SGD: the same texts, noise and images, so only the order of sums differs."""
    sgd = optimizers.Optimizer(name="sgd", learning_rate=1e-3)
    config = dataclasses.replace(PLAIN_TEXT, optimizers={"g": sgd, "d": sgd})
    _, state = start(config, pack)
    data = arrays(config, pack)
    one, lines = run_steps(config, data, state, 2)
    four, more = run_steps(config, data, state, 2, devices=4)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(four.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for name, value in lines.items():
        if name != "fingerprint":
            np.testing.assert_allclose(value, more[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_preview_has_a_text_for_each_row(pack):
    method, state = start(TEXT, pack)
    keys = rng.example_keys(jax.random.key(0), jnp.arange(64))
    constants = TEXT.method.constants(pack)
    panels = jax.jit(method.preview)(state, constants, keys, {})
    assert set(panels) == {"samples", "ema"}
    rows = np.asarray(panels["samples"]).reshape(8, 8, 16, 16, 3)
    # Another latent and another text both change the picture.
    assert np.abs(rows[0, 0] - rows[0, 1]).max() > 1e-4
    assert np.abs(rows[0, 0] - rows[1, 0]).max() > 1e-4
    shown = text_conditioning.combinations(constants)[constants["preview"]]
    assert len({hair for hair, _ in shown}) == 8
    assert all(constants["counts"][i] > 0 for i in constants["preview"])


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(UserError, match="split_d"):
        TextGAN(split_d=True).make(None)
    with pytest.raises(UserError, match="int_beta"):
        TextGAN(int_beta=1.5).make(None)
