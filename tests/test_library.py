"""Building on it in Python: arrays, weights out and back, terms and judges of one's own."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny import drawn_state, shrunk, untrained

import anigan_jax
from anigan_jax import config_file, state
from anigan_jax.data import dataset, scratch
from anigan_jax.data.images import Images
from anigan_jax.errors import UserError
from anigan_jax.evaluation import checkpoint_quality
from anigan_jax.evaluation.features import Network
from anigan_jax.export import card, files
from anigan_jax.methods.cartoongan import CartoonGAN
from anigan_jax.methods.cyclegan import CycleGAN
from anigan_jax.metrics import feature_scores
from anigan_jax.storage import atomic
from anigan_jax.storage import images as record

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 16, 16, 3)).astype(np.uint8)
COLORS = [("blue", "red")[i % 2] for i in range(40)]


def test_arrays_become_a_pack(tmp_path):
    glasses = [None if i == 3 else i % 3 == 0 for i in range(40)]
    labels = {"hair": COLORS, "glasses": glasses, "class": [i % 4 for i in range(40)]}
    path = anigan_jax.pack(PIXELS, tmp_path / "faces", labels, test=0.2)
    pack = dataset.build(Images(path=str(path), size=16), tmp_path / "cache")
    pixels = np.concatenate([pack.images, pack.part("test")])
    at = {image.tobytes(): i for i, image in enumerate(PIXELS)}
    rows = [at[image.tobytes()] for image in pixels]
    assert sorted(rows) == list(range(40))
    kinds = dict(pack.attributes)
    assert kinds["class"] == ("0", "1", "2", "3")
    known = np.concatenate([pack.labels("train"), pack.labels("test")])
    for row, label in zip(rows, known, strict=True):
        said = {n: None if k < 0 else kinds[n][k] for n, k in zip(kinds, label, strict=True)}
        has = {True: "glasses", False: "no glasses", None: None}[glasses[row]]
        assert said == {"hair": COLORS[row], "glasses": has, "class": str(row % 4)}
    # The same again is the same; others need a word.
    before = pack.manifest["sha256"]
    anigan_jax.pack(PIXELS, path, labels, test=0.2)
    with pytest.raises(UserError, match="overwrite"):
        anigan_jax.pack(PIXELS[::-1], path, labels, test=0.2)
    anigan_jax.pack(PIXELS[::-1], path, test=0.2, overwrite=True)
    assert dataset.open_pack(path).manifest["sha256"] != before


def test_arrays_of_two_domains(tmp_path):
    path = anigan_jax.pack(PIXELS[:24], tmp_path / "both", images_b=PIXELS[24:], test=0)
    pack = dataset.open_pack(path)
    assert pack.manifest["parts"].keys() == {"trainA", "trainB"}
    assert (len(pack.part("trainA")), len(pack.part("trainB"))) == (24, 16)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"images": PIXELS / 255.0}, "uint8"),
        ({"images": PIXELS[0]}, "N, S, S, 3"),
        ({"images": PIXELS[:, :8]}, "N, S, S, 3"),
        ({"images": PIXELS[:, :4, :4]}, "at least 8"),
        ({"images": PIXELS, "labels": {"hair": COLORS[:3]}}, "'hair' has 3 values for 40"),
        ({"images": PIXELS, "labels": {"hair": ["blue"] * 40}}, "two or more"),
        ({"images": PIXELS, "images_b": PIXELS[:, :8, :8]}, "the size of"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, words, told):
    with pytest.raises(UserError, match=told):
        anigan_jax.pack(out=tmp_path / "x", **words)
    assert not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("noise") / "run", "FULL")


def test_weights_go_out_and_back(verb, noise, tmp_path):
    run = anigan_jax.load(noise)
    apply, own = run.generator()
    moved = jax.tree.map(lambda x: x * 1.5, own)
    tuned = run.with_generator(moved)
    z = run.latents(range(3))
    want = record.to_uint8(apply(moved, z))
    assert np.abs(tuned.generate(latents=z).astype(int) - want).max() <= 1
    assert (tuned.generate(latents=z) != run.generate(latents=z)).any()
    tuned.save(tmp_path / "tuned")
    again = anigan_jax.load(tmp_path / "tuned")
    np.testing.assert_array_equal(again.generate(latents=z), tuned.generate(latents=z))
    code, _, error = verb("sample", tmp_path / "tuned", "--n", 2)
    assert code == 0, error
    with pytest.raises(UserError, match="not empty"):
        tuned.save(tmp_path / "tuned")
    with pytest.raises(UserError, match="not weights of this run"):
        run.with_generator(({}, {}))


def test_a_run_is_itself_alone(noise):
    """Tuples of arrays can neither be compared nor hashed."""
    one, other = anigan_jax.load(noise), anigan_jax.load(noise)
    assert one == one
    assert one != other
    assert len({one, other, one}) == 2


@pytest.mark.parametrize("to", ["onnx", "weights", "stablehlo"])
def test_exports_in_python_are_those_of_the_verb(verb, noise, tmp_path, to):
    words = ("--to", to, "--out", tmp_path / "verb", "--data-license", "CC0")
    assert verb("export", noise, *words)[0] == 0
    told = anigan_jax.load(noise).export(to, tmp_path / "own", data_license="CC0")
    got = {path.name: path.read_bytes() for path in (tmp_path / "own").iterdir()}
    assert got.keys() == told.keys()
    for name, data in got.items():
        # What is compiled names the line that called it.
        same = (tmp_path / "verb" / name).read_bytes() == data
        assert same or name.endswith(".stablehlo")
    with pytest.raises(UserError, match="not empty"):
        anigan_jax.load(noise).export(to, tmp_path / "own")


def test_exports_that_cannot_be_leave_nothing(noise, tmp_path, monkeypatch):
    run = anigan_jax.load(noise)
    with pytest.raises(UserError, match="'tflite'; it must be one of onnx, stablehlo"):
        run.export("tflite", tmp_path / "x")
    monkeypatch.setattr(files, "write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.export("weights", tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_images_of_any_model_are_scored_as_by_the_verb(verb, tmp_path):
    real, made = anigan_jax.pack(PIXELS, tmp_path / "real", test=0.2), PIXELS[:20] // 2
    (tmp_path / "made").mkdir()
    for i, image in enumerate(made):
        record.save_image(Image.fromarray(image), tmp_path / "made" / f"{i:02d}.png")
    words = ("--against", real, "--judge", "random", "--n", 10, "--json")
    code, out, error = verb("evaluate", tmp_path / "made", *words)
    assert code == 0, error
    want = json.loads(out)["sets"]["generated"]
    for images in (made, tmp_path / "made"):
        found = anigan_jax.evaluate(images, real, n=10, judges=["random"])
        # LPIPS is the verb's alone.
        assert found["sets"]["generated"]["scores"] == want["scores"]
    for words, told in (
        ({"judges": "random"}, "judges is 'random'"),
        ({"n": 30}, "20 usable images, fewer than 30"),
        ({"n": 1}, "n is 1; it must be at least 2"),
        ({"images": made / 255}, "must be uint8"),
        ({"images": made[:, :8, :8]}, "8"),
        ({"size": 32}, "leave size out"),
    ):
        given = {"images": made, "against": real, "judges": ["random"], **words}
        with pytest.raises(UserError, match=told):
            anigan_jax.evaluate(**given)


@dataclasses.dataclass(frozen=True)
class Bright(CycleGAN):
    """Pays for light."""

    light: float = 3.0

    def terms(self, batch, made):
        assert made.keys() == {"a", "b"}
        return {"light": (self.light, jnp.mean(made["b"], (1, 2, 3)) - 1.0)}


@dataclasses.dataclass(frozen=True)
class BrightCartoon(CartoonGAN):
    def terms(self, batch, made):
        return {"light": (3.0, jnp.mean(made["b"], (1, 2, 3)) - 1.0)}


def small(name, method, **changes):
    base = shrunk(name)
    fields = {f.name: getattr(base.method, f.name) for f in dataclasses.fields(base.method)}
    return dataclasses.replace(base, method=method(**{**fields, **changes}))


NO_NETWORKS = {"content": 0.0, "content_epochs": 0, "style": 0.0, "landmark": 0.0}


@pytest.mark.parametrize(
    ("name", "plain", "own", "changes"),
    [
        ("painted_cyclegan", CycleGAN, Bright, {}),
        ("tsinghua_cartoongan", CartoonGAN, BrightCartoon, NO_NETWORKS),
    ],
)
def test_a_term_of_ones_own_teaches_a_translation(name, plain, own, changes):
    seen = []
    for method in (plain, own):
        config = small(name, method, **changes)
        state_ = drawn_state(config, {})
        images = {side: {"image": jnp.asarray(PIXELS[:2] / 127.5 - 1)} for side in "ab"}
        images["constants"] = {}
        update = config.method.make().phases[-1].updates[1]
        total, aux = update.losses[0](state_.params["g"], state_, images, None)
        seen.append((float(total), aux.metrics))
    (before, _), (after, metrics) = seen
    assert metrics["loss/light"] < -0.5
    assert after == pytest.approx(before + 3.0 * float(metrics["loss/light"]), rel=1e-5)


@pytest.mark.long
def test_a_run_whose_classes_are_nowhere_opens_with_its_settings(tmp_path):
    config = small("painted_cyclegan", Bright)
    run = dataclasses.replace(config.run, steps=1, devices=1)
    config = dataclasses.replace(config, name="bright", run=run)
    made = anigan_jax.train(config, tmp_path / "run")
    size = config.method.size
    photos = np.zeros((1, size, size, 3), np.uint8)
    shutil.rmtree(tmp_path / "run/code")
    with pytest.raises(UserError):
        anigan_jax.load(tmp_path / "run", trust=True)
    for checkpoint in (None, "latest"):
        opened = anigan_jax.load(tmp_path / "run", checkpoint, config=config)
        np.testing.assert_array_equal(opened.translate(photos), made.translate(photos))
    other = dataclasses.replace(config, seed=config.seed + 1)
    with pytest.raises(UserError, match="differs from"):
        anigan_jax.load(tmp_path / "run", "latest", config=other)


def test_a_judge_of_ones_own(noise):
    def look(images):
        return images.astype(np.float32).mean((1, 2)) / 255

    mine = Network("mine", "mean color", 16, 3, "0" * 64, look)
    found = anigan_jax.load(noise).evaluate(20, [mine])
    assert "kid-mine" in found["sets"]["generated"]["scores"]


def test_a_metric_of_ones_own(noise, monkeypatch):
    """As docs/howto/own_metric.md has it: its number, its title and its place in the tables."""
    monkeypatch.setattr(feature_scores, "METRICS", dict(feature_scores.METRICS))
    config = config_file.load(str(EXAMPLES / "measured.py"))
    assert config.name == "measured"

    def look(images):
        return images.astype(np.float32).mean((1, 2)) / 255

    run = anigan_jax.load(noise)
    mine = Network("mine", "mean color", 16, 3, "0" * 64, look)
    found = run.evaluate(20, [mine])["sets"]["generated"]["scores"]
    real = look(dataset.build(run.config.data, scratch.default_cache()).images)
    fake = look(run.generate(20))
    want = np.linalg.norm(fake.mean(0) - real.mean(0))
    np.testing.assert_allclose(found["mean_distance-mine"]["generated"], want, rtol=1e-4)
    assert feature_scores.label("mean_distance-mine").title == "Distance of means (mine)"


def test_a_player_that_nothing_trains_has_no_optimizer():
    config = shrunk("aiub_dcgan")
    method = config.method.make()

    def init(key, constants):
        params, stats, extra = method.init(key, constants)
        return {**params, "teacher": {"w": jnp.ones(3)}}, {**stats, "teacher": {}}, extra

    made = state.init_state(config, method._replace(init=init), {})
    assert made.opt_state.keys() == {"g", "d"}
    assert made.params["teacher"]["w"].shape == (3,)


def test_an_optimizer_of_ones_own(verb, tmp_path):
    """What docs/howto/own_optimizer.md shows: a norm that bounds the step, a rate that grows."""
    path = EXAMPLES / "clipped.py"
    config = anigan_jax.load_config(str(path), "--optimizers.g.norm", "0.5")
    optimizer = config.optimizers["g"]
    assert float(optimizer.rate(jnp.int32(0))) == pytest.approx(2e-4 / 500)
    assert float(optimizer.rate(jnp.int32(499))) == pytest.approx(2e-4)
    plain = dataclasses.replace(optimizer, name="sgd")
    steps, _ = plain.build().update({"x": jnp.full(4, 9.0)}, plain.build().init({"x": jnp.ones(4)}))
    assert float(jnp.linalg.norm(steps["x"])) == pytest.approx(0.5)
    small = "--size 16 --method.generator.base-channels 4 --method.discriminator.base-channels 4"
    words = (*small.split(), "--data.count", 44, "--batch-size", 8, "--run.devices", 1)
    code, _, error = verb("train", path, "--workdir", tmp_path / "run", *words, "--run.steps", 2)
    assert code == 0, error
    assert anigan_jax.load(tmp_path / "run", trust=True).config.optimizers["g"].warmup == 500


def test_edges_are_a_term_of_a_translation():
    config = anigan_jax.load_config(str(EXAMPLES / "edges.py"), "--method.edge-weight", "1")
    photo = jnp.zeros((2, 8, 8, 3)).at[:, :, 4:].set(1.0)
    batch = {"a": {"image": photo}}
    ((weight, term),) = config.method.terms(batch, {"b": jnp.zeros_like(photo)}).values()
    assert weight == 1
    np.testing.assert_allclose(term, 1 / 7, rtol=1e-6)
    ((_, same),) = config.method.terms(batch, {"b": photo}).values()
    assert not np.asarray(same).any()


def test_runs_are_no_images_to_be_judged(noise, tmp_path):
    """Their pictures are sheets."""
    path = anigan_jax.pack(PIXELS, tmp_path / "faces", test=0.2)
    with pytest.raises(UserError, match="is a run, which knows its own data"):
        anigan_jax.evaluate(noise, path, judges=["random"])
    with pytest.raises(UserError, match="give the real images that it learned from"):
        anigan_jax.evaluate(PIXELS, noise, judges=["random"])


def test_images_of_another_set_are_told(noise, tmp_path):
    path = anigan_jax.pack(PIXELS, tmp_path / "faces", test=0.2)
    run = anigan_jax.load(noise)
    assert run.data_pack().manifest["sha256"] == run.data_sha256
    both = anigan_jax.pack(PIXELS[:24], tmp_path / "both", images_b=PIXELS[24:], test=0)
    drawn = run._replace(config=dataclasses.replace(run.config, data=Images(size=16)))
    with pytest.raises(UserError, match="two domains"):
        drawn.data_pack(str(both))
    with pytest.warns(UserWarning, match="not the images that the run was trained on"):
        drawn.evaluate(8, ["random"], data=path)


def test_home_is_home_in_every_call(noise, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").symlink_to(noise)
    run = anigan_jax.load(Path("~/run"))
    run.export("hub", "~/hub")
    assert (tmp_path / "hub").is_dir()


def test_texts_have_a_row_for_each_prompt(tmp_path):
    """Of lines of a file, empty ones and remarks are passed over."""
    run = anigan_jax.load(untrained(tmp_path / "run", "TEXT"))
    assert len(run.texts(["blue hair", "red hair", "blue hair"])) == 3
    for odd in ("", "# blue hair", "prompt"):
        with pytest.raises(UserError):
            run.texts(["blue hair", odd, "red hair"])


def test_a_folder_that_is_there_stays_the_same_one(tmp_path, monkeypatch):
    """A container's volume, a link, or the folder that somebody stands in."""
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    before = real.stat().st_ino
    with atomic.new_folder(tmp_path / "link") as made:
        (made / "a").write_text("x")
        assert not (real / "a").exists()
    assert (real / "a").read_text() == "x" and real.stat().st_ino == before
    assert [p.name for p in real.iterdir()] == ["a"]
    # Where it fails nothing is left, and what a kill leaves is in nobody's way.
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError), atomic.new_folder(empty):
        raise OSError("no room")
    assert not any(empty.iterdir())
    (empty / atomic.PARTIAL).mkdir()
    atomic.refuse_taken(empty, "--out")
    (empty / "b").touch()
    with pytest.raises(UserError, match="not empty"):
        atomic.refuse_taken(empty, "--out")


def test_scores_of_other_weights_or_images_are_not_a_cards(noise, tmp_path):
    run = anigan_jax.load(noise)
    path = noise / "out/evaluate" / f"step_{run.step:09d}.json"
    one = {"n": 9, "train": 9, "scores": {"kid-random": {"generated": 0.5}}}
    for data, shown in ((run.data_sha256, True), ("ab" * 32, False)):
        report = {"sets": {"generated": one}, "protocols": {"random": {"data_sha256": data}}}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report))
        assert card._scores(run)[0].startswith("Not measured") != shown
        other = run.with_generator(run.generator()[1])
        assert card._scores(other)[0].startswith("Not measured")
    # Nor do they take the place of the run's own.
    own = {**report, "protocols": {"random": {"data_sha256": run.data_sha256}}}
    assert checkpoint_quality.place_beside(path, own, ()) != path
    assert checkpoint_quality.place_beside(path, report, ()) == path


def test_weights_that_a_file_lacks_are_refused():
    with pytest.raises(UserError, match="only the averaged weights"):
        anigan_jax.load("painted/noise", weights="raw")
    assert len(anigan_jax.load("painted/noise", weights="ema").generate(1)) == 1
