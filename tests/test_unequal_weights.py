"""Weights of every family's terms, all different, so that none can stand for another.

The networks are affine, and the totals are added up in float64; see `oracles`.
"""

import dataclasses

import jax
import numpy as np
import pytest
from oracles.adversarial import ORACLE, bce64, slopes
from oracles.games import (
    Z_DIM,
    AffineG,
    QuadraticD,
    affine_g,
    game_batch,
    game_of,
    game_state,
    images_of,
    in_float64,
    keys_of,
    logits_of,
    normal,
    quadratic_d,
    text_gan,
    texts,
)

from anigan_jax.methods.cartoongan import CartoonGame, CartoonGAN
from anigan_jax.methods.cyclegan import CycleGame, CycleGAN
from anigan_jax.methods.text_gan import TextGAN

B = 4


def same(got, want, rtol=5e-5, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), got, want)


# --- the text GAN

REAL, Z, TEXTS = normal(1, B, 2, 2, 3), normal(2, B, Z_DIM), texts(3, B)
PARAMS = {"g": affine_g(), "d": quadratic_d()}
D64, G64 = in_float64(PARAMS["d"]), in_float64(PARAMS["g"])
RIGHT, WRONG, BETWEEN = (np.asarray(x, np.float64) for x in TEXTS)


def text_terms(s, d):
    """D's terms of (real, right text), (real, another text) and (fake, right text)."""
    real, fake = REAL.astype(np.float64), images_of(G64, Z.astype(np.float64), RIGHT)
    labels, (of_real, of_fake, _) = (s.real_label, s.fake_label), ORACLE[s.loss]
    right, wrong = logits_of(d, real, RIGHT), logits_of(d, real, WRONG)
    made = logits_of(d, fake, RIGHT)
    # A pair loss compares each kind of fake with the real image and its own text.
    return (
        of_real(right, made, *labels).mean(),
        of_fake(right, wrong, *labels).mean(),
        of_fake(right, made, *labels).mean(),
    )


def text_d_by_hand(s, d):
    real, wrong, fake = text_terms(s, d)
    loss = s.d_scale * (real + s.wrong_weight * wrong + s.fake_weight * fake)
    gradient = d["w"] + d["q"] * REAL.reshape(B, -1)
    return loss + s.r1 / 2 * (gradient**2).sum(1).mean()


def text_g_by_hand(s, g):
    real, found = REAL.astype(np.float64), []
    for text in (RIGHT, BETWEEN):
        fake = logits_of(D64, images_of(g, Z.astype(np.float64), text), text)
        found.append(ORACLE[s.loss][2](logits_of(D64, real, text), fake).mean())
    return found[0] + s.int_weight * found[1]


@pytest.mark.long
@pytest.mark.parametrize("loss", ORACLE)
def test_terms_of_the_text_gan(loss, monkeypatch):
    monkeypatch.setattr(TextGAN, "draw_texts", lambda *_: TEXTS)
    s = text_gan(
        loss=loss,
        wrong_weight=0.25,
        fake_weight=0.75,
        int_weight=0.3,
        d_scale=2.0,
        r1=0.4,
        real_label=0.8,
        fake_label=0.3,
    )
    game, state = game_of(s, AffineG(), QuadraticD()), game_state(PARAMS)
    found = {}
    for update in game.updates():
        run = jax.value_and_grad(update.losses[0], has_aux=True)
        found[update.player] = run(PARAMS[update.player], state, game_batch(REAL), keys_of(Z))
    (value, aux), gradient = found["d"]
    same(value, text_d_by_hand(s, D64))
    parts = [aux.metrics[f"loss/d_{name}"] for name in ("real", "wrong", "fake")]
    same(parts, list(text_terms(s, D64)))
    wrong = logits_of(D64, REAL.astype(np.float64), WRONG)
    told = wrong if loss == "least_squares" else 1 / (1 + np.exp(-wrong))
    same(aux.metrics["score/wrong"], told.mean())
    same(gradient, slopes(lambda d: text_d_by_hand(s, d), D64))
    (value, _), gradient = found["g"]
    same(value, text_g_by_hand(s, G64))
    same(gradient, slopes(lambda g: text_g_by_hand(s, g), G64))


# --- translation

A, BB, EDGES = (np.tanh(normal(i, B, 4, 4, 3)) for i in (11, 12, 13))


class Affine:
    """A network of images: scale x + shift, its two numbers being the parameters."""

    def __call__(self, params, stats, images, *_keys, train=True, **_turns):
        return params[0] * images + params[1], stats


class Map(Affine):
    """A discriminator with a map of logits, one for each row of the image."""

    def __call__(self, params, stats, images, *_keys, train=True, **_turns):
        return super().__call__(params, stats, images.mean((2, 3)))


def rows(images):
    return images.mean((2, 3))


def line(numbers, x):
    return numbers[0] * x + numbers[1]


WAYS = {"ab": (0.7, 0.1), "ba": (-0.5, 0.3)}
JUDGES = {"a": (1.5, -0.2), "b": (-0.8, 0.6)}


def gan_terms(loss, real, fake):
    """(D's loss, G's loss) of maps of logits, with labels 1 and 0."""
    of_real, of_fake, of_g = ORACLE[loss]
    total = of_real(real, fake, 1, 0).mean() + of_fake(real, fake, 1, 0).mean()
    return total, of_g(real, fake).mean()


@pytest.mark.parametrize("loss", ["least_squares", "non_saturating"])
def test_terms_of_cyclegan(loss):
    s = CycleGAN(loss=loss, identity=3.0, adversarial=0.5, cycle=7.0, d_scale=0.25, pool=0)
    game = CycleGame(s, None)
    game.g, game.d = {"ab": Affine(), "ba": Affine()}, {"a": Map(), "b": Map()}
    empty = {"g": {"ab": {}, "ba": {}}, "d": {"a": {}, "b": {}}}
    state = game_state({"g": WAYS, "d": JUDGES}, empty)
    batch, keys = game_batch(A, BB), keys_of(np.zeros((B, 1)))
    real = {"a": A.astype(np.float64), "b": BB.astype(np.float64)}
    fake = {"b": line(WAYS["ab"], real["a"]), "a": line(WAYS["ba"], real["b"])}
    g_total, d_total, parts = 0, 0, {}
    for name, other, back in (("a", "b", "ba"), ("b", "a", "ab")):
        logits = line(JUDGES[name], rows(real[name])), line(JUDGES[name], rows(fake[name]))
        d, g = gan_terms(loss, *logits)
        cycle = np.abs(line(WAYS[back], fake[other]) - real[name]).mean()
        identity = np.abs(line(WAYS[back], real[name]) - real[name]).mean()
        parts |= {f"gan_{other}{name}": g, f"cycle_{name}": cycle, f"identity_{name}": identity}
        g_total += 0.5 * g + 7 * cycle + 3 * identity
        d_total += 0.25 * d
    value, aux = game.d_loss(JUDGES, state, batch, keys)
    same(value, d_total)
    value, aux = game.g_loss(WAYS, state, batch, keys)
    same(value, g_total)
    assert {f"loss/{name}" for name in parts} == set(aux.metrics) - {"loss/g"}
    same({name: aux.metrics[f"loss/{name}"] for name in parts}, parts)
    # A swap of two terms or of two domains would show.
    assert len({round(float(x), 3) for x in parts.values()}) == len(parts)


WEIGHTS = {
    "adversarial": 0.5,
    "content": 2.0,
    "style": 3.0,
    "landmark": 5.0,
    "grayscale": 7.0,
    "color": 11.0,
    "total_variation": 13.0,
}
YUV = np.array([[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]])


def cartoon_terms(loss, photo, cartoon, g):
    """G's terms, by the names of their weights."""
    made = line(g, photo)
    squares = lambda x: np.einsum("bhwc,bhwd->bcd", x**2, x**2) / x[0].size  # noqa: E731
    gap = (made - photo) @ YUV.T
    uv = np.abs(gap[..., 1:])
    huber = np.where(uv <= 1, uv**2 / 2, uv - 0.5)
    judged = line(JUDGES["b"], rows(made))
    return {
        "adversarial": ORACLE[loss][2](None, judged).mean(),
        "content": np.abs(made**2 - photo**2).mean(),
        "style": np.abs(squares(made) - squares(cartoon)).mean(),
        "landmark": np.abs(made[:, 0] - photo[:, 0]).mean(),
        "grayscale": np.abs(gap[..., 0]).mean(),
        "color": np.abs(gap[..., 0]).mean() + huber.sum(-1).mean(),
        "total_variation": sum((np.diff(made, axis=axis) ** 2).mean() for axis in (1, 2)),
    }


def cartoon_game(loss, **weights):
    """A game whose features are squares and whose landmarks are an image's first row."""
    s = CartoonGAN(loss=loss, **weights)
    game = CartoonGame(s, None)
    game.g, game.d = Affine(), Map()
    game.maps = lambda _, images: images**2
    game.landmarks = lambda _, images: images[:, 0]
    return game


@pytest.mark.parametrize("loss", ["non_saturating", "least_squares"])
def test_terms_of_cartoongan(loss):
    g, d = WAYS["ab"], JUDGES["b"]
    game = cartoon_game(loss, edge=0.25, **WEIGHTS)
    state = game_state({"g": g, "d": d})
    batch, keys = game_batch(A, BB, EDGES), keys_of(np.zeros((B, 1)))
    photo, cartoon, edges = (x.astype(np.float64) for x in (A, BB, EDGES))
    terms = cartoon_terms(loss, photo, cartoon, g)
    value, aux = game.g_loss(g, state, batch, keys)
    same(value, sum(WEIGHTS[name] * term for name, term in terms.items()))
    found = {name: aux.metrics[f"loss/{name}"] for name in terms if name != "adversarial"}
    same({**found, "adversarial": aux.metrics["loss/gan"]}, terms)
    assert len({round(float(x), 3) for x in terms.values()}) == len(terms)
    real, fake, smooth = (line(d, rows(x)) for x in (cartoon, line(g, photo), edges))
    want = gan_terms(loss, real, fake)[0] + 0.25 * ORACLE[loss][1](real, smooth, 1, 0).mean()
    same(game.d_loss(d, state, batch, keys)[0], want)
    # The first phase: the content by its weight, and nothing else.
    same(game.content_loss(g, state, batch, keys)[0], 2 * terms["content"])


@pytest.mark.parametrize("name", [name for name in WEIGHTS if name != "adversarial"])
def test_each_weight_of_cartoongan_is_its_own_terms(name):
    """One weight alone: the total is that term, times the weight."""
    weights = {**dict.fromkeys(WEIGHTS, 0.0), "content_epochs": 0, name: 3.0}
    game = cartoon_game("non_saturating", **weights)
    state = game_state({"g": WAYS["ab"], "d": JUDGES["b"]})
    batch, keys = game_batch(A, BB, EDGES), keys_of(np.zeros((B, 1)))
    terms = cartoon_terms("non_saturating", A.astype("d"), BB.astype("d"), WAYS["ab"])
    same(game.g_loss(WAYS["ab"], state, batch, keys)[0], 3 * terms[name])


def test_the_reals_count_once_against_two_kinds_of_fakes():
    """Without a weight of edges D has the two terms of any GAN."""
    game = cartoon_game("non_saturating", edge=0.0)
    state = game_state({"g": WAYS["ab"], "d": JUDGES["b"]})
    batch, keys = game_batch(A, BB), keys_of(np.zeros((B, 1)))
    real = line(JUDGES["b"], rows(BB.astype("d")))
    fake = line(JUDGES["b"], rows(line(WAYS["ab"], A.astype("d"))))
    want = bce64(real, 1).mean() + bce64(fake, 0).mean()
    same(game.d_loss(JUDGES["b"], state, batch, keys)[0], want)


def test_weights_are_set_by_their_names():
    """The table above names every weight of G that CartoonGAN has."""
    floats = {f.name for f in dataclasses.fields(CartoonGAN) if f.type == "float"}
    assert floats == {*WEIGHTS, "edge"}
