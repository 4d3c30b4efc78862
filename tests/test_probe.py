"""What classifiers read from D's features: closed forms, a NumPy oracle, and no leak."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CYCLE, JUDGE, PLAIN, TEXT, draw, packed, start, untrained

from anigan_jax.data.attributes import HAIR
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.errors import UserError
from anigan_jax.evaluation import linear_probe, prompt_accuracy
from anigan_jax.metrics import attributes
from anigan_jax.networks.blocks import Norm
from anigan_jax.networks.dcgan import Discriminator
from anigan_jax.networks.stack import grid_max
from anigan_jax.report import tables
from anigan_jax.report.table import as_text
from anigan_jax.sampling import grids

HELD = PaintedFaces(count=150, size=16, test=0.3)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return packed(dataclasses.replace(PLAIN, data=HELD), tmp_path_factory.mktemp("pack"))


def pooled(x, side=4):
    """The adaptive maximum by its definition, cell by cell."""
    x = np.asarray(x)
    n, h, w, c = x.shape
    out = np.empty((n, side, side, c), x.dtype)
    for i in range(side):
        for j in range(side):
            rows = slice(int(np.floor(i * h / side)), int(np.ceil((i + 1) * h / side)))
            columns = slice(int(np.floor(j * w / side)), int(np.ceil((j + 1) * w / side)))
            out[:, i, j] = x[:, rows, columns].max((1, 2))
    return out


@pytest.mark.parametrize("size", [2, 4, 5, 8, 9, 17])
def test_the_grid_takes_each_cells_maximum(size):
    x = draw(size, 2, size, size, 3)
    np.testing.assert_array_equal(grid_max(x, 4), pooled(x))


def strided(x, kernel, stride, low, high):
    """A convolution window by window, padded by `low` before and `high` after."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (low, high), (low, high), (0, 0)))
    k = kernel.shape[0]
    side = (x.shape[1] - k) // stride + 1
    out = np.empty((len(x), side, side, kernel.shape[3]))
    for i in range(side):
        for j in range(side):
            window = x[:, i * stride : i * stride + k, j * stride : j * stride + k]
            out[:, i, j] = np.tensordot(window, np.asarray(kernel, np.float64), 3)
    return out


def leaky(x):
    return np.where(x > 0, x, 0.2 * x)


def running(x, norm, stats, epsilon):
    """Batch norm by running statistics."""
    each = [np.asarray(a, np.float64) for a in (norm["scale"], norm["bias"], *stats.values())]
    scale, bias, mean, var = each
    return (x - mean) / np.sqrt(var + epsilon) * scale + bias


def shaken(tree, seed):
    """The same tree with other positive numbers: fresh statistics are all 0 and 1."""
    leaves, shape = jax.tree.flatten(tree)
    made = [leaf + 0.3 * jnp.abs(draw(seed + i, *leaf.shape)) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(shape, made)


@pytest.mark.long
@pytest.mark.parametrize("output", ["tanh", "sigmoid"])
def test_features_are_all_maps_before_the_logit_pooled_by_hand(output):
    norm = Norm(epsilon=1e-3)
    d = Discriminator(size=16, base_channels=4, kernel=5, head="dense", pad_second=1, dropout=0.25)
    d = dataclasses.replace(d, end=2, norm=norm)
    g = dataclasses.replace(PLAIN.method.generator, output=output)
    config = dataclasses.replace(
        PLAIN, method=dataclasses.replace(PLAIN.method, generator=g, discriminator=d)
    )
    method, state = start(config)
    params, stats = state.params["d"], shaken(state.stats["d"], 7)
    images = jnp.tanh(draw(0, 3, 16, 16, 3))
    features = jax.jit(method.features)
    got = features(params, stats, images)

    kernels = [params[f"down{i}"]["weight"]["kernel"] for i in (1, 2, 3)]
    x = np.asarray(images, np.float64)
    x = (x + 1) / 2 if output == "sigmoid" else x
    one = leaky(strided(x, kernels[0], 2, 1, 2))
    two = np.pad(strided(one, kernels[1], 2, 1, 2), ((0, 0), (0, 1), (0, 1), (0, 0)))
    kept = stats["batch_stats"]
    two = leaky(running(two, params["down2_norm"], _stats(kept["down2_norm"]), 1e-3))
    three = strided(two, kernels[2], 2, 2, 2)
    three = leaky(running(three, params["down3_norm"], _stats(kept["down3_norm"]), 1e-3))
    assert [m.shape[1:] for m in (one, two, three)] == [(8, 8, 4), (5, 5, 8), (3, 3, 16)]
    want = np.concatenate([pooled(m).reshape(3, -1) for m in (one, two, three)], axis=1)
    assert got.shape == (3, 16 * (4 + 8 + 16))
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)
    # An image's features do not depend on its neighbors in the batch.
    turned = features(params, stats, images.at[0].set(-1))
    np.testing.assert_allclose(turned[1:], got[1:], atol=1e-5)


def _stats(tree):
    return {"mean": tree["mean"], "var": tree["var"]}


@pytest.mark.long
def test_features_of_a_text_gan_are_those_before_the_text_joins(pack):
    # Joined so, a convolution sees the text too.
    d = dataclasses.replace(TEXT.method.discriminator, join="concat")
    config = dataclasses.replace(TEXT, method=dataclasses.replace(TEXT.method, discriminator=d))
    method, state = start(config, pack)
    net = d.build()
    params, stats = state.params["d"], state.stats["d"]
    images = draw(1, 2, 16, 16, 3)
    told = draw(2, 2, TEXT.method.encoder.length)
    rest = {"train": False, "features": True}
    _, maps = net.apply({"params": params, **stats}, images, (told,), **rest)
    assert [m.shape[1:] for m in maps[:2]] == [(8, 8, 4), (4, 4, 8)]
    want = np.concatenate([pooled(m).reshape(2, -1) for m in maps[:2]], axis=1)
    got = method.features(params, stats, images)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_translations_have_no_features():
    assert CYCLE.method.make().features is None
    # A classifier's are a judge's.
    assert all(config.method.make().features for config in (PLAIN, JUDGE))


@pytest.mark.long
def test_the_spaces_are_those_of_d_now_of_d_at_the_start_and_pixels(pack):
    config = dataclasses.replace(PLAIN, data=HELD)
    method, fresh = start(config, pack)
    params = {**fresh.params, "d": shaken(fresh.params["d"], 3)}
    stats = {**fresh.stats, "d": shaken(fresh.stats["d"], 4)}
    model = grids.model_of(method, fresh.replace(params=params, stats=stats), {})
    seen = linear_probe.spaces(config, model)
    images = pack.first("test")[:5]
    signed = jnp.asarray(images, jnp.float32) / 127.5 - 1
    for name, player in (("d", (params["d"], stats["d"])), ("untrained", None)):
        params_d, stats_d = player or (fresh.params["d"], fresh.stats["d"])
        want = method.features(params_d, stats_d, signed)
        np.testing.assert_allclose(seen[name](images), want, rtol=1e-4, atol=1e-6)
    assert np.abs(seen["d"](images) - seen["untrained"](images)).max() > 0.1
    np.testing.assert_allclose(seen["pixels"](images), images.reshape(5, -1) / 255, rtol=1e-6)


@pytest.mark.parametrize("kind", linear_probe.CLASSIFIERS)
def test_classes_far_apart_are_all_told(kind):
    rng, classes = np.random.default_rng(0), np.arange(90) % 3
    rows = 10 * np.eye(3)[classes] @ rng.normal(size=(3, 20)) + rng.normal(size=(90, 20))
    said, converged = linear_probe.predict(kind, rows[:60], classes[:60], rows[60:])
    assert converged
    np.testing.assert_array_equal(said, classes[60:])


@pytest.mark.parametrize("kind", linear_probe.CLASSIFIERS)
def test_classes_that_mean_nothing_are_told_by_chance(kind):
    """50 numbers for 400 rows: whoever sees the scored rows is right for nearly all."""
    rng = np.random.default_rng(1)
    rows, classes = rng.normal(size=(800, 50)), rng.integers(0, 2, 800)
    said, _ = linear_probe.predict(kind, rows[:400], classes[:400], rows[400:])
    share = attributes.share(said == classes[400:])
    assert share.low < 0.5 < share.high


@pytest.mark.parametrize("kind", linear_probe.CLASSIFIERS)
def test_a_rows_class_depends_on_the_fit_and_on_itself_alone(kind):
    """What is scored changes neither the scale nor the fit."""
    rng = np.random.default_rng(2)
    rows, classes = rng.normal(size=(80, 6)), rng.integers(0, 3, 80)
    query = rng.normal(size=(30, 6))
    said, _ = linear_probe.predict(kind, rows, classes, query)
    among, _ = linear_probe.predict(kind, rows, classes, np.concatenate([query, 1e3 * query]))
    np.testing.assert_array_equal(said, among[:30])
    # Units of the numbers do not matter: each is standardised by the rows of the fit.
    units = np.array([1e-3, 1, 1e3, 5, 70, 0.2])
    scaled, _ = linear_probe.predict(kind, rows * units, classes, query * units)
    np.testing.assert_array_equal(said, scaled)


def test_nearest_neighbors_equal_numpy():
    rng = np.random.default_rng(3)
    rows, classes, query = (
        rng.normal(size=(70, 4)),
        rng.integers(0, 2, 70),
        rng.normal(size=(40, 4)),
    )
    said, _ = linear_probe.predict("neighbors", rows, classes, query)
    mean, deviation = rows.mean(0), rows.std(0)
    a, b = (query - mean) / deviation, (rows - mean) / deviation
    near = np.argsort(((a[:, None] - b[None]) ** 2).sum(-1), axis=1)[:, :5]
    np.testing.assert_array_equal(said, (classes[near].sum(1) >= 3).astype(int))


def test_a_fit_that_did_not_converge_is_told(monkeypatch):
    monkeypatch.setattr(linear_probe, "ITERATIONS", 1)
    rows = np.random.default_rng(4).normal(size=(60, 9))
    _, converged = linear_probe.predict("logistic", rows, np.arange(60) % 3, rows)
    assert not converged


def each(images):
    return {image.tobytes() for image in images}


def test_real_or_generated_never_scores_what_it_was_fitted_on(pack):
    method, state = start(dataclasses.replace(PLAIN, data=HELD), pack)
    train, held = each(pack.first("train")), each(pack.first("test"))
    assert not train & held
    task = linear_probe.real_or_generated(grids.model_of(method, state, {}), pack, 60, 0)
    for part, pool, count in ((task.fit, train, 30), (task.score, held, 30)):
        made, real = part.images[part.classes == 0], part.images[part.classes == 1]
        assert len(made) == len(real) == len(each(made)) == len(each(real)) == count
        assert each(real) <= pool
        assert not each(made) & (train | held)
    assert not each(task.fit.images) & each(task.score.images)
    # Fewer are held out than wanted: all of them, and as many generated ones.
    few = linear_probe.real_or_generated(grids.model_of(method, state, {}), pack, 4000, 0)
    counts = [np.bincount(part.classes).tolist() for part in (few.fit, few.score)]
    assert counts == [[len(train)] * 2, [len(held)] * 2]


def fake_pack(train, test):
    """A pack with hair classes as given, eyes all 0, and images that show their row."""
    labels = {"train": np.array(train), "test": np.array(test)}

    def first(part):
        rows = np.arange(len(labels[part])) + (100 if part == "test" else 0)
        return np.broadcast_to(rows[:, None, None, None], (len(rows), 2, 2, 3)).astype(np.uint8)

    return SimpleNamespace(
        has=lambda part: True,
        first=first,
        named=lambda part: part,
        labels=lambda part: np.stack([labels[part], 0 * labels[part]], axis=1),
    )


def test_colors_leave_out_the_unknown_and_the_rare():
    train = [0] * 8 + [3] * 6 + [5] * 9 + [7] * 2 + [-1] * 4
    test = [0] * 5 + [3] * 7 + [5] * 3 + [-1] * 6 + [7] * 6
    task = linear_probe.attribute(fake_pack(train, test), 0, HAIR, 100, 0)
    assert np.bincount(task.fit.classes).tolist() == [8, 0, 0, 6]
    assert np.bincount(task.score.classes).tolist() == [5, 0, 0, 7]
    for part, labels, offset in ((task.fit, train, 0), (task.score, test, 100)):
        for image, label in zip(part.images, part.classes, strict=True):
            assert labels[image[0, 0, 0] - offset] == label
    assert task.left_out == {HAIR[5]: (9, 3), HAIR[7]: (2, 6)}
    with pytest.raises(UserError, match="fewer than two"):
        linear_probe.attribute(fake_pack(train, test), 1, HAIR, 100, 0)
    # Fewer to fit on than there are: drawn from all, not the first ones.
    some = linear_probe.attribute(fake_pack([0, 3] * 40, test), 0, HAIR, 30, 0)
    assert len(some.fit.images) == len(each(some.fit.images)) == 30
    assert some.fit.images.max() > 40


def test_the_majority_and_the_mean_of_the_classes_are_what_they_say(monkeypatch):
    fit = linear_probe.Images(np.zeros((9, 1, 1, 3), np.uint8), np.repeat([0, 1], [6, 3]))
    score = linear_probe.Images(np.zeros((8, 1, 1, 3), np.uint8), np.repeat([0, 1], [2, 6]))
    task = linear_probe.Task(("a", "b", "c"), fit, score, {"c": (4, 1)})
    found = linear_probe.judge(task, lambda x: x.reshape(len(x), -1))
    # Nothing can be told: both say the class most frequent in the fit.
    for kind in linear_probe.CLASSIFIERS:
        assert found[kind]["accuracy"].value == 2 / 8
        assert found[kind]["balanced"] == 0.5
    assert found["numbers"] == 3
    monkeypatch.setattr(linear_probe, "tasks", lambda *_: ({"hair": task}, {"eyes": "no labels"}))
    monkeypatch.setattr(
        linear_probe, "spaces", lambda *_: {"pixels": lambda x: x.reshape(len(x), -1)}
    )
    report = linear_probe.measure(
        None, SimpleNamespace(state=SimpleNamespace(step=3, ema={}), alone="raw"), None, 20, 0
    )
    hair = report["tasks"]["hair"]
    assert hair["classes"] == {"a": (6, 2), "b": (3, 6)}
    assert (hair["chance"].right, hair["chance"].n) == (2, 8)
    text = as_text(tables.probe(prompt_accuracy.as_json(report)))
    for part in ("on 9 images", "on 8 others", "25.0 %", "50.0 %", "c (4 and 1)", "no labels"):
        assert part in text


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe") / "run"

    return untrained(folder, "PLAIN", "--data.count", "150", "--data.test", "0.3", drawn=False)


@pytest.mark.long
def test_the_verb_writes_a_table_and_json(run, verb):
    code, out, err = verb("probe", run, "--n", 60)
    assert code == 0, err
    for part in ("Real or generated", "Hair color", "D before training", "nearest neighbors"):
        assert part in out
    path = run / "out/probe" / "step_000000000.json"
    assert str(path) in out
    report = json.loads(path.read_text())
    task = report["tasks"]["real"]
    assert task["classes"] == {"generated": [30, 30], "real": [30, 30]}
    assert (task["chance"]["right"], task["chance"]["n"]) == (30, 60)
    assert {s: found["numbers"] for s, found in task["spaces"].items()} == {
        "d": 16 * (4 + 8),
        "untrained": 16 * (4 + 8),
        "pixels": 16 * 16 * 3,
    }
    # The run was never trained: its D is the control itself.
    assert task["spaces"]["d"] == task["spaces"]["untrained"]
    again = verb("probe", run, "--n", 60, "--json", "--checkpoint", "latest")
    assert json.loads(again[1]) == report


@pytest.mark.long
def test_bad_input_is_told(run, verb, tmp_path):
    for arguments, named in (
        (["--n", 3], "--n"),
        (["--checkpoint", "best"], "evaluate-every"),
        (["--checkpoint", 7], "no checkpoint of step 7"),
        (["--checkpoint", "newest"], "newest"),
    ):
        code, out, err = verb("probe", run, *arguments)
        assert (code, named in err) == (2, True), out + err
    code, _, err = verb("probe", untrained(tmp_path / "a", "PLAIN"), "--n", 60)
    assert (code, "held out no images" in err) == (2, True), err
    code, _, err = verb("probe", untrained(tmp_path / "b", "JUDGE"), "--n", 60)
    assert (code, "no D" in err) == (2, True), err
