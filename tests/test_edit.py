"""`anigan edit`: directions that are learned, those of the first layer, words; tuned weights."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny import untrained

import anigan_jax
from anigan_jax.cli import edit
from anigan_jax.core import generator_of
from anigan_jax.data.attributes import Attribute
from anigan_jax.errors import UserError
from anigan_jax.evaluation import prompt_accuracy
from anigan_jax.methods.augment import signed
from anigan_jax.metrics import attributes
from anigan_jax.sampling import directions, grids, latents
from anigan_jax.storage.safetensors import WEIGHTS

SIZES = (3, 4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Of noise, of words, of a classifier."""
    folder = tmp_path_factory.mktemp("edit")
    # As many numbers as the classes of hair and eyes leave free.
    wide = ("--method.generator.z-dim", "32")
    return {
        "noise": untrained(folder / "noise", "FULL", *wide),
        "words": untrained(folder / "words", "TEXT"),
        "judge": untrained(folder / "judge", "JUDGE"),
    }


def linear(z_dim=40, n=4000, seed=0):
    """Latents, the scores that a random linear map gives them, and the map's (Z, T) slopes."""
    draw = np.random.default_rng(seed)
    z, slopes = draw.normal(size=(n, z_dim)), draw.normal(size=(z_dim, sum(SIZES)))
    return z, z @ slopes + draw.normal(size=sum(SIZES)), slopes


def test_slopes_of_a_linear_world_are_found():
    z, scores, slopes = linear()
    found = directions.effects(z, scores, SIZES)
    for part, true in zip(found, np.split(slopes, [3], axis=1), strict=True):
        np.testing.assert_allclose(part, true - true.mean(1, keepdims=True), rtol=0, atol=0.01)


def test_the_way_where_attributes_follow_directions_apart():
    """Closed form: along those of the named one, to the mean of the latents that show the class."""
    draw = np.random.default_rng(1)
    axes, _ = np.linalg.qr(draw.normal(size=(40, 5)))
    slopes = np.concatenate([axes[:, :2] @ draw.normal(size=(2, 3)), axes[:, 2:] @ np.eye(3, 4)], 1)
    z = draw.normal(size=(3000, 40))
    pull = directions.toward(z, z @ slopes, SIZES, {0: 1})
    place = z[(z @ slopes)[:, :3].argmax(1) == 1].mean(0)
    others = draw.normal(size=(9, 40))
    expected = (place - others) @ axes[:, :2] @ axes[:, :2].T
    np.testing.assert_allclose(pull(others), expected, atol=1e-3)


def test_the_way_to_a_class_keeps_the_other_attribute():
    """Nearly all reach it, and more keep the other than if nothing were taken back; both ways."""
    z, scores, slopes = linear()
    offset = (scores - z @ slopes)[0]
    pull = directions.toward(z, scores, SIZES, {0: 1})
    blind = directions.toward(z, scores[:, :3], SIZES[:1], {0: 1})
    z = np.random.default_rng(9).normal(size=(1000, 40))
    before = attributes.best(z @ slopes + offset, SIZES)

    def shares(moves):
        after = attributes.best((z + moves) @ slopes + offset, SIZES)
        rest = before[:, 0] != 1
        return (after[rest, 0] == 1).mean(), (after[rest, 1] == before[rest, 1]).mean()

    reached, kept = shares(pull(z))
    assert reached > 0.95
    assert kept > 0.9
    assert kept > shares(blind(z))[1] + 0.1
    assert shares(-pull(z))[0] < 0.02
    for side in (1, -1):
        reached, _ = shares(side * directions.control(pull(z), 1))
        assert reached < 0.3


def test_the_way_where_there_is_no_room_or_too_little_to_see():
    z, scores, _ = linear(z_dim=4)
    for wanted in ({0: 2}, {0: 2, 1: 0}):
        moves = directions.toward(z, scores, SIZES, wanted)(z)
        assert np.isfinite(moves).all()
        assert np.linalg.norm(moves, axis=1).mean() > 0.5
    never = scores - np.array([0, 0, 99, 0, 0, 0, 0])
    with pytest.raises(ValueError, match="0 of 4,000"):
        directions.toward(z, never, SIZES, {0: 2})


def test_the_strongest_directions_are_singular_vectors():
    weight = np.random.default_rng(0).normal(size=(6, 50)) * np.arange(1, 7)[:, None]
    weight[:, 3] = 0
    found = directions.sefa(weight)
    length = np.linalg.norm(weight, axis=0)
    vectors, strength, _ = np.linalg.svd(weight / np.where(length > 0, length, 1))
    np.testing.assert_allclose(np.abs(np.sum(found * vectors.T, axis=1)), 1, rtol=1e-9)
    np.testing.assert_allclose(found @ found.T, np.eye(6), atol=1e-9)
    gains = np.linalg.norm(found @ (weight / np.where(length > 0, length, 1)), axis=1)
    np.testing.assert_allclose(gains, strength, rtol=1e-9)
    assert (found[np.arange(6), np.abs(found).argmax(1)] > 0).all()


@pytest.mark.parametrize(("name", "z_dim"), [("noise", 32), ("words", 4)])
def test_the_first_layer_is_the_stem(runs, name, z_dim):
    """Its weights, in which a text behind the latent has no part, make the first map."""
    model = anigan_jax.load(runs[name]).model
    kernel = generator_of(model.state)[0]["stem"]["weight"]["kernel"]
    weight = directions.first_layer(model)
    assert weight.shape == (z_dim, 4 * 4 * 8)
    assert sorted(weight[1]) == sorted(np.asarray(kernel)[..., 1, :].ravel())


def test_what_a_judge_that_sees_brightness_teaches(runs):
    """A real network: images get brighter along the way and darker against it, none at random."""
    model = anigan_jax.load(runs["noise"]).model
    held = latents.drawn(model, 300, 0)
    usual = np.median(grids.generated(model, held.z).mean((1, 2, 3)))

    def scores(images):
        light = images.mean((1, 2, 3))
        side = images[:, :, :8].mean((1, 2, 3)) - images[:, :, 8:].mean((1, 2, 3))
        return np.stack([0 * light, light - usual, 0 * side, side], axis=1)

    judge = directions.Judge(
        scores, (Attribute("light", ("dark", "bright")), Attribute("side", ("right", "left")))
    )
    pull = directions.learned(model, judge, {"light": "bright"}, held)
    others = latents.drawn(model, 100, 1)
    way = pull(others.z)
    light = [
        scores(grids.generated(model, latents.along(others, way, amount).z))[:, 1].mean()
        for amount in (-1, 0, 1)
    ]
    assert light == sorted(light)
    told = directions.measure(
        model,
        judge,
        {"light": "bright"},
        others,
        {"this": way, "random": directions.control(way, 0)},
    )
    assert list(told["this"]) == ["reached", "side kept"]
    assert told["this"]["reached"]["low"] > told["random"]["reached"]["high"]
    assert told["this"]["reached"]["n"] < 100
    with pytest.raises(UserError, match="show it already"):
        directions.measure(model, judge, {}, others, {})


@pytest.mark.long
def test_a_judge_with_gradients_bends_each_way(runs):
    """More reach what a classifier is asked for and keep the rest; alone or with others."""
    trained = anigan_jax.load(runs["noise"])
    told = edit._judge(runs["judge"], trained, False)
    # Drawn weights are never sure of anything.
    judge = told._replace(logits=lambda images: 100 * told.logits(images))
    label, model = {"hair": "brown"}, trained.model
    pull = directions.learned(model, judge, label, latents.drawn(model, 200, 0))
    others = latents.drawn(model, 40, 1)
    straight, bent = pull(others.z), directions.ways(model, judge, label, others, pull)
    tried = {"straight": straight, "shorter": 0.5 * straight, "bent": bent}
    shares = directions.measure(model, judge, label, others, tried)
    least = {name: min(share["value"] for share in each.values()) for name, each in shares.items()}
    assert least["bent"] > 0.95
    assert max(least["straight"], least["shorter"]) < 0.85
    alone = directions.ways(model, judge, label, latents.take(others, np.array([7])), pull)
    assert (alone[0] == bent[7]).all()
    blind = judge._replace(logits=None)
    np.testing.assert_allclose(directions.ways(model, blind, label, others, pull), straight, 1e-5)


def test_logits_of_transparent_images_are_those_over_white(runs):
    """What is differentiated is what is scored."""
    judge = edit._judge(runs["judge"], anigan_jax.load(runs["noise"]), False)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 4), np.uint8)
    np.testing.assert_allclose(judge.logits(signed(pixels)), judge.scores(pixels), atol=0.05)


def test_words_change_a_text_and_nothing_else(runs):
    model = anigan_jax.load(runs["words"]).model
    held = latents.of_seeds(model, [3, 4, 5])
    changed = latents.retold(model, held, {"hair": "blue"})
    assert (changed.z == held.z).all()
    hair = len(model.texts.attributes[0].classes)
    blue = model.texts.attributes[0].classes.index("blue")
    assert (changed.text[:, :hair].argmax(1) == blue).all()
    assert (changed.text[:, hair:] == held.text[:, hair:]).all()
    half = latents.between(held, changed, 0.5)
    np.testing.assert_allclose(half.text, (held.text + changed.text) / 2)
    # As `sample` shows these seeds.
    made = anigan_jax.load(runs["words"]).generate(seeds=[3, 4, 5])
    assert (grids.generated(model, held.z, held.text) == made).all()


@pytest.mark.long
def test_the_verb_by_a_classifier(runs, verb, tmp_path):
    words = ("--toward", "brown hair", "--classifier", runs["judge"], "--n", 64, "--seeds", "3,4")
    first = tmp_path / "a"
    code, said, error = verb("edit", runs["noise"], *words, "--measure", 32, "--out", first)
    assert code == 0, error
    assert {path.name for path in first.iterdir()} == {
        "latents.safetensors",
        "measured.json",
        "sheet.png",
    }
    assert "a random direction" in said
    told = json.loads((first / "measured.json").read_text())["shares"]
    assert [list(shares) for shares in told.values()] == [["reached", "eyes kept"]] * 2
    trained = anigan_jax.load(runs["noise"], "latest")
    held = latents.read(first / "latents.safetensors", trained.config, trained.model)
    before = grids.latents_of(trained.method, [3, 4])
    assert held.names == ["3", "4"]
    assert (held.z != before).any(1).all()
    images = grids.generated(trained.model, held.z)
    seen = prompt_accuracy.classify(anigan_jax.load(runs["judge"]).model, images)
    assert (seen[:, 0] == 10).all()
    # From the file: they are there already, and stay.
    words = (*words[:-2], "--latent", first / "latents.safetensors")
    code, said, error = verb("edit", runs["noise"], *words, "--out", tmp_path / "b")
    assert code == 0, error
    again = latents.read(tmp_path / "b" / "latents.safetensors", trained.config, trained.model)
    judge = anigan_jax.load(runs["judge"]).model
    after = grids.generated(trained.model, again.z)
    assert (prompt_accuracy.classify(judge, after) == seen).all()
    sheet = np.asarray(Image.open(first / "sheet.png"))
    assert (sheet[-18:-2, -18:-2] == images[1]).all()


def test_the_verb_without_labels_and_with_words(runs, verb, tmp_path):
    code, said, error = verb("edit", runs["noise"])
    assert code == 0, error
    assert said.strip().endswith("directions.png")
    code, said, error = verb("edit", runs["noise"], "--direction", 2, "--seeds", "7")
    assert code == 0, error
    trained = anigan_jax.load(runs["noise"], "latest")
    held = latents.read(type(tmp_path)(said.split()[0]), trained.config, trained.model)
    found = directions.sefa(directions.first_layer(trained.model))
    way = held.z - grids.latents_of(trained.method, [7])
    np.testing.assert_allclose(way[0], 3 * found[1], atol=1e-5)
    code, said, error = verb("edit", runs["words"], "--toward", "blue hair", "--seeds", "3")
    assert code == 0, error
    latest = anigan_jax.load(runs["words"], "latest")
    told = latents.read(type(tmp_path)(said.split()[0]), latest.config, latest.model)
    blue = latest.model.texts.attributes[0].classes.index("blue")
    assert told.text[0, :12].argmax() == blue


@pytest.mark.long
def test_bad_input(runs, verb, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / WEIGHTS).write_bytes((runs["noise"] / WEIGHTS).read_bytes())
    noise, judge = runs["noise"], ("--classifier", runs["judge"])
    held = latents.Latents(["a"], np.zeros((1, 4), np.float32), None)
    other = latents.write(held, anigan_jax.load(noise).config, tmp_path / "latents.safetensors")
    for words, said in (
        ((noise, "--toward", "blue hair"), "needs --classifier"),
        ((noise, "--toward", "blue hair", "--classifier", noise), "not a run of a classifier"),
        ((noise, "--toward", "loud hair", *judge), "Known classes: hair: "),
        ((runs["words"], "--toward", "nonsense"), "Known classes: hair: "),
        ((runs["judge"], "--direction", "1"), "trains no generator"),
        ((noise, "--direction", "33"), "1 to 32"),
        ((noise, "--direction", "1", "--toward", "blue hair"), "both say how"),
        ((noise, "--direction", "1", "--amount", "nan"), "must be a finite number"),
        ((noise, *judge), "needs --toward"),
        ((noise, "--direction", "1", "--measure", "9"), "needs --classifier"),
        ((noise, "--direction", "1", "--latent", other), "latents of another run"),
        ((noise, "--direction", "1", "--latent", other, "--seeds", "1"), "give only one"),
        ((noise, "--seeds", "x"), "not a list of seeds"),
        ((alone, "--direction", "1", "--checkpoint", "best"), "has no checkpoints"),
    ):
        code, printed, error = verb("edit", *words, "--out", tmp_path / "x")
        assert (code, printed) == (2, ""), (words, error)
        assert said in error
        assert not (tmp_path / "x").exists()
